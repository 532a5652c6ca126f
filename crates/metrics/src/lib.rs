//! What a server counts while it works, and the text in which it tells (Prometheus text format 0.0.4).
//!
//! A counter belongs to whoever made it: there is no process-wide registry, so two servers in one process do not add up.
//! Counting is an atomic addition; names, labels and text are made only when somebody asks.

mod measure;
mod page;

pub use measure::{Counter, Histogram};
pub use page::{Family, Kind, Page};
