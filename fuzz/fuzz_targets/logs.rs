//! Exported logs through the verifier.
#![no_main]

#[path = "../bodies/evidence.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::log(bytes));
