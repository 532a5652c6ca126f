//! The evidence against implementations that are not ours, and against whoever forges it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail loudly")]

mod c2sp;
mod forged;
