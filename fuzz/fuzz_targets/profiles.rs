//! Files of profiles through the loader.
#![no_main]

#[path = "../bodies/profiles.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::file(bytes));
