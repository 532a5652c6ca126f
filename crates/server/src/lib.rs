//! The HTTP edge: who is asking, what they sent, and how an answer or an error looks.
//!
//! Routes, wire types and the shapes of errors live here and nowhere else. What a request *means* is `gateway`'s.

mod access;
mod body;
mod erase;
mod events;
mod evidence;
#[cfg(test)]
mod fastapi;
mod lax;
mod metrics;
mod openapi;
mod people;
mod plans;
mod problem;
mod process;
mod query;
mod rate;
mod requests;
mod routes;
mod runs;
mod seats;
mod serve;
mod trace;
mod wire;

pub use axum::Router;
pub use rate::Bucket;
pub use routes::{ServerConfig, router};
pub use serve::{Entrance, MAX_CONNECTIONS, ServeError, serve};
