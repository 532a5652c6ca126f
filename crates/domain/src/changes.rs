//! What a preview changed in its own copy of the workspace.

use crate::text::Digest;

/// What happened at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Nothing was there before.
    Created,
    /// It is another than it was: its bytes, its mode, its target or what kind of thing it is.
    Changed,
    /// It is gone, with all that was in it.
    Deleted,
    /// A folder took the place of another one: what was in that is gone, and what is listed below it is new.
    Replaced,
}

impl ChangeKind {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
            Self::Replaced => "replaced",
        }
    }
}

/// What kind of thing lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device.
    Special,
}

impl NodeKind {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Folder => "folder",
            Self::Link => "link",
            Self::Special => "special",
        }
    }
}

/// One path that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Below the workspace. Any bytes but NUL.
    pub path: Vec<u8>,
    /// What happened.
    pub kind: ChangeKind,
    /// What lies there now; of what was deleted, what lay there, where that could still be seen.
    pub node: Option<NodeKind>,
    /// Its permission bits; none of what was deleted.
    pub mode: Option<u32>,
    /// How many bytes a file has.
    pub size: Option<u64>,
    /// The digest of a file's bytes; none where they could not be read.
    pub sha256: Option<Digest>,
    /// Where a link leads, as it says. Any bytes but NUL.
    pub target: Option<Vec<u8>>,
}

/// All that is not what it was, by the bytes of its path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The first of them.
    pub listed: Vec<Change>,
    /// How many more there are.
    pub more: u64,
    /// How many files and folders could not be read to the end, so that what is listed is less than there is.
    pub unread: u64,
}
