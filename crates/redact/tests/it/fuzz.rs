//! The bodies of the fuzz targets of redaction, for a second each.
#![expect(unreachable_pub, reason = "the bodies are shared with the fuzz targets")]

#[path = "../../../../fuzz/bodies/inputs.rs"]
mod inputs;
#[path = "../../../../fuzz/bodies/redaction.rs"]
mod redaction;

use inputs::{hostile, throw};

#[test]
fn hostile_output_is_redacted_the_same_however_it_is_cut() {
    throw(&hostile(redaction::OUTPUT), |bytes| redaction::stream(&bytes));
}

#[test]
fn hostile_files_of_secrets_are_loaded_or_refused_with_words() {
    throw(&hostile(redaction::RULES), |bytes| redaction::rule_file(&bytes));
}
