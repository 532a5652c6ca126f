//! The evidence against implementations that are not ours, against whoever forges it, and under hostile input.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail loudly")]

mod c2sp;
mod forged;
mod fuzz;
