//! The evidence: canonical bytes, the Merkle tree, signed checkpoints, and a verifier that works from bytes alone.
//!
//! Nothing here knows of a database, a file or a clock. What a stranger has to trust is in this crate and in SHA-256 and
//! Ed25519.

pub mod canonical;
pub mod checkpoint;
pub mod export;
pub mod merkle;
pub mod verify;
