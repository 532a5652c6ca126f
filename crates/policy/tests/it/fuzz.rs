//! The bodies of the fuzz targets, for a second each.
#![expect(unreachable_pub, reason = "the bodies are shared with the fuzz targets")]

#[path = "../../../../fuzz/bodies/inputs.rs"]
mod inputs;
#[path = "../../../../fuzz/bodies/policy.rs"]
mod policy;

use inputs::{hostile, throw};

#[test]
fn hostile_scripts_are_read_within_bounds() {
    throw(&hostile(policy::SCRIPTS), |bytes| policy::script(&bytes));
}

#[test]
fn hostile_rule_files_are_loaded_or_refused_with_words() {
    throw(&hostile(policy::RULES), |bytes| policy::rule_file(&bytes));
}
