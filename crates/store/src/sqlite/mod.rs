//! The embedded backend: one writer, a few readers, one file.

mod checkpoint;
pub(crate) mod codec;
pub(crate) mod reader;
pub(crate) mod schema;
pub(crate) mod writer;
