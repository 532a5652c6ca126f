//! Network by host name for a confined run.
//!
//! A run has a network namespace of its own: no interface but loopback, and no route. A listener made *inside* that namespace
//! ([`listen_in_run`]) is handed out to the server ([`send_listener`], [`receive_listener`]), because a socket stays in the
//! namespace that it was made in. [`Egress`] accepts on it and decides by name: it is the run's only way out.

mod address;
mod allowed;
mod head;
mod hello;
mod ledger;
mod listener;
mod proxy;
mod resolve;

pub use allowed::{Allowed, AllowedError, HostName, HostNameError, Target, TargetError};
pub use head::{Asked, Head, HeadError};
pub use hello::{Hello, HelloError, read_hello};
pub(crate) use listener::bring_up_own_loopback;
pub use listener::{PORT, environment, listen_in_run, receive_listener, send_listener};
pub use proxy::{Egress, EgressLimits, EgressPolicy};
pub use resolve::{Lookup, Resolve, SystemResolver};
