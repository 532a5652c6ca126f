//! Output through redaction.
#![no_main]

#[path = "../bodies/redaction.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::stream(bytes));
