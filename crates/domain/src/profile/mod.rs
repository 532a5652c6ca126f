//! What a command may do, as plain checked data: profiles, their order from tight to loose, and their words.
//!
//! Nothing here confines anything. `runner` makes of a profile what the kernel holds, and records what really held.

mod builtin;
mod files;
mod grants;
mod limits;
mod network;
mod set;
mod words;

#[cfg(test)]
mod tests;

pub use builtin::CREDENTIALS;
pub use files::{Access, Files, HomePath, ProfilePath, ProfilePathError, Tmp};
pub use grants::{AskedBy, Grants, Profile, ProfileChange, UserName, UserNameError};
pub use limits::{Resource, ResourceLimitError, ResourceLimits};
pub use network::{HostPort, HostPortError, Network};
pub use set::{Profiles, ProfilesError};
