//! The HTTP edge: who is asking, what they sent, and how an answer or an error looks.
//!
//! Routes, wire types and the shapes of errors live here and nowhere else. What a request *means* is `gateway`'s.

mod access;
mod body;
mod erase;
mod events;
mod evidence;
mod people;
mod plans;
mod problem;
mod rate;
mod routes;
mod runs;
mod serve;
mod wire;

pub use rate::Bucket;
pub use routes::{ServerConfig, router};
pub use serve::{ServeError, serve};
