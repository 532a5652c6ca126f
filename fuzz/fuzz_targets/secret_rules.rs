//! Files of rules about secrets through the loader.
#![no_main]

#[path = "../bodies/redaction.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::rule_file(bytes));
