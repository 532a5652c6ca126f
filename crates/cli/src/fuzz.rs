//! The bodies of the fuzz targets, shared with this crate's own tests.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "bodies fail loudly, and are shared"
)]

#[path = "../../../fuzz/bodies/display.rs"]
pub(crate) mod display;
#[path = "../../../fuzz/bodies/inputs.rs"]
pub(crate) mod inputs;
