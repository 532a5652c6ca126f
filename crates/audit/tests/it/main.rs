//! The evidence under hostile input.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod fuzz;
