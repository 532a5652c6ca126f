//! Scripts through the readers and the judge.
#![no_main]

#[path = "../bodies/policy.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::script(bytes));
