//! Profiles as operators write them, and what holding one takes.

mod demand;
mod file;
mod own;

pub(crate) use demand::{Demand, demand};
pub use file::{Mounts, ProfileError, ProfileErrors, ProfileFile, load_profiles};
pub use own::{OwnFiles, resolved};
