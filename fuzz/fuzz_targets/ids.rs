//! Ids, names and digests.
#![no_main]

#[path = "../bodies/evidence.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::ids(bytes));
