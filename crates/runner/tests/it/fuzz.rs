//! The bodies of the fuzz targets of this crate, for a second each.
#![expect(unreachable_pub, reason = "the bodies are shared with the fuzz targets")]

#[path = "../../../../fuzz/bodies/egress.rs"]
mod egress;
#[path = "../../../../fuzz/bodies/inputs.rs"]
mod inputs;
#[path = "../../../../fuzz/bodies/profiles.rs"]
mod profiles;

use inputs::{hostile, mutated, throw};
use proptest::prelude::prop;

#[test]
fn hostile_profile_files_are_loaded_or_refused_with_words() {
    throw(&hostile(profiles::PROFILES), |bytes| profiles::file(&bytes));
}

#[test]
fn hostile_heads_are_refused_or_go_on_in_one_reading() {
    throw(&hostile(egress::HEADS), |bytes| egress::head(&bytes));
}

#[test]
fn hostile_first_messages_of_tls_are_refused_or_name_one_host() {
    throw(&mutated(prop::sample::select(egress::hellos())), |bytes| egress::hello(&bytes));
}
