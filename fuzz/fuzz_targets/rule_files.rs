//! Files of rules through the loader.
#![no_main]

#[path = "../bodies/policy.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::rule_file(bytes));
