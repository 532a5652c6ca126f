//! What changed below a run's workspace while it ran.

use serde::{Deserialize, Serialize};

/// What changed below a run's workspace while it ran, by the run or by somebody else who may write there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Written {
    /// How many paths were found, those that are not listed included.
    pub count: u64,
    /// The first of them, in order.
    pub paths: Vec<WrittenPath>,
    /// Why there may be more that nobody found; empty where all is known.
    pub unseen: Vec<Unseen>,
}

impl Written {
    /// The most paths that are listed.
    pub const MAX_PATHS: usize = 100;
    /// The most bytes that all listed paths have together.
    pub const MAX_BYTES: usize = 16 * 1024;
}

/// One path below the workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WrittenPath {
    /// Relative to the workspace, which itself is `.`.
    pub path: PathName,
    /// What became of it.
    pub change: WrittenHow,
}

/// A path as the kernel has it, which need not be text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PathName {
    /// One that is UTF-8.
    Text(String),
    /// Any other.
    Bytes(Vec<u8>),
}

impl From<Vec<u8>> for PathName {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenHow {
    /// It was made, or put there from another file system.
    Created,
    /// Its content, its name, its mode or another of its attributes was changed; or it was made, where the file system keeps
    /// no time of that.
    Changed,
    /// A folder that changed with nothing in it that explains it: something was removed or moved out of it, or its own mode
    /// was changed. What is gone has no name any more.
    Folder,
}

impl WrittenHow {
    /// Returns the change's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Folder => "folder",
        }
    }
}

/// Why something may have changed unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unseen {
    /// There is more below the workspace than is looked at.
    TooMany,
    /// Folders are nested deeper than is looked at.
    TooDeep,
    /// A folder cannot be read by the server.
    Unreadable,
    /// Another file system is mounted below the workspace.
    OtherFileSystem,
    /// The workspace lies on a file system of which it is not known that every change leaves a trace.
    FileSystemKind,
    /// The machine's clock was set while it ran.
    ClockSet,
    /// The file system did not answer in time, or not at all.
    Silent,
}

impl Unseen {
    /// Returns the reason's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::TooDeep => "too_deep",
            Self::Unreadable => "unreadable",
            Self::OtherFileSystem => "other_file_system",
            Self::FileSystemKind => "file_system_kind",
            Self::ClockSet => "clock_set",
            Self::Silent => "silent",
        }
    }
}
