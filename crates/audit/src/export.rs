//! Exported entries: JSON Lines, one entry a line, `{"position":n,"leaf":"…"}`. The leaf is a JSON *string* that holds
//! the canonical bytes exactly, so that nobody who reads or re-writes JSON changes what was hashed. The mirror below the
//! runtime folder has the same form.

use serde::{Deserialize, Serialize};

/// The longest line that is read, in bytes. A leaf holds digests and names, never a command: real ones are far shorter.
pub const MAX_LINE: usize = 1 << 20;

/// One exported entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The entry's position, from 0.
    pub position: u64,
    /// The canonical bytes of its leaf.
    pub leaf: String,
}

/// Returns the line of an entry, without the line feed. A leaf is UTF-8 by construction.
pub fn line(position: u64, leaf: &[u8]) -> String {
    let leaf = String::from_utf8_lossy(leaf).into_owned();
    // Serialising two plain fields into memory cannot fail; an empty line would be found by every verifier.
    serde_json::to_string(&Line { position, leaf }).unwrap_or_default()
}
