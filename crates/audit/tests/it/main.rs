//! The evidence under hostile input.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "tests fail loudly; bodies are shared"
)]

mod fuzz;
