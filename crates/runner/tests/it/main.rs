//! The runner on the real kernel. Each scenario runs under a root server and under an ordinary user's.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests fail loudly, and a skip says why"
)]

mod binding;
mod calls;
mod children;
mod confinement;
mod deaths;
mod egress;
mod escapes;
mod folders;
mod fuzz;
mod kernel;
mod limits;
mod network;
mod preview;
mod profiles;
mod programs;
mod refusals;
mod shells;
mod spares;
mod support;
mod written;
