//! The bodies of the fuzz targets, shared with this crate's own tests.
#![expect(unreachable_pub, reason = "shared with the fuzz targets")]

#[path = "../../../fuzz/bodies/display.rs"]
pub(crate) mod display;
#[path = "../../../fuzz/bodies/inputs.rs"]
pub(crate) mod inputs;
