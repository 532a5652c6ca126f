//! Confine, spawn, stream, and stop a whole process tree.
//!
//! The server's side is [`Runner`]. It never forks: a small single-threaded helper process, started once, forks for it, so
//! a run costs the same at any size of the server, and it makes a few spares ahead: all that a run needs and that can be
//! made before the run is known. Each run has a supervisor of its own, which owns the run's PID
//! namespace: when the shell ends, the time is up, the server asks, or the server is gone, the kernel ends every process
//! in it at once, however they hide.

mod advice;
mod binding;
mod calls;
mod changes;
mod child;
mod confine;
pub mod egress;
mod files;
mod groups;
mod helper;
mod overlay;
mod places;
mod probe;
mod profile;
mod progress;
mod protocol;
mod runner;
mod seal;
mod spares;
mod sys;
mod written;

pub use binding::{Site, Unmeasured};
pub use helper::helper_main;
pub use profile::{Mounts, OwnFiles, ProfileError, ProfileErrors, ProfileFile, load_profiles, resolved};
pub use progress::{Progress, RunWatch};
pub use protocol::HelperProgram;
pub use runner::{
    Chunk, EgressConfig, HostReport, Lost, Previewed, RunControl, RunHandle, Runner, RunnerConfig, StartError, control,
    give_workspace,
};
