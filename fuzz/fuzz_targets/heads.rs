//! Heads of requests through the proxy's reader.
#![no_main]

#[path = "../bodies/egress.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::head(bytes));
