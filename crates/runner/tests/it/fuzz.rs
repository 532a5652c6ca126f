//! The body of the fuzz target of files of profiles, for a second.
#![expect(unreachable_pub, reason = "the bodies are shared with the fuzz targets")]

#[path = "../../../../fuzz/bodies/inputs.rs"]
mod inputs;
#[path = "../../../../fuzz/bodies/profiles.rs"]
mod profiles;

use inputs::{hostile, throw};

#[test]
fn hostile_profile_files_are_loaded_or_refused_with_words() {
    throw(&hostile(profiles::PROFILES), |bytes| profiles::file(&bytes));
}
