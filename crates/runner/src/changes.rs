//! What a preview changed: the upper layer of its overlay, read by the server when no process of the preview is left.
//!
//! A hostile command made what is read here. No link is followed, nothing but a regular file is opened for reading, and how much
//! is read, how deep and how many, is bounded.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use provara_domain::{Change, ChangeKind, Changes, Digest, NodeKind};
use sha2::{Digest as _, Sha256};

use crate::child::FOLDER;
use crate::sys;

/// How many changes are listed.
const LISTED: usize = 1000;
/// How many folders deep it is looked. Each level holds descriptors.
const DEPTH: usize = 64;
/// How many bytes are read to tell what files hold. A file can be longer than all memory without filling any.
const READ: u64 = 1 << 30;

/// How long it is read. A workspace's file system may be slow.
const READ_FOR: Duration = Duration::from_secs(5);

/// Returns what the layer `upper` changes of `workspace`.
///
/// The workspace is read as it is now: who changed it meanwhile changes what is called created, changed or deleted.
pub(crate) fn changes_in(upper: &OwnedFd, workspace: &Path) -> Changes {
    let how = OpenHow::new().flags(FOLDER).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let lower = openat2(AT_FDCWD, workspace, how).ok();
    let mut walk = Walk { found: Vec::new(), unread: 0, left: READ, until: Instant::now() + READ_FOR };
    walk.folder(upper, lower.as_ref(), &mut Vec::new(), 0);
    let Walk { mut found, unread, .. } = walk;
    found.sort_by(|one, other| one.path.cmp(&other.path));
    let more = u64::try_from(found.len().saturating_sub(LISTED)).unwrap_or(u64::MAX);
    found.truncate(LISTED);
    Changes { listed: found, more, unread }
}

struct Walk {
    // Bounded by the layer's own number of files.
    found: Vec<Change>,
    unread: u64,
    /// How many bytes may still be read.
    left: u64,
    /// And how long.
    until: Instant,
}

/// What lies at a name.
struct Node {
    opened: OwnedFd,
    meta: fs::Metadata,
}

impl Node {
    fn at(folder: &OwnedFd, name: &OsStr) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let inside = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        let opened = openat2(folder, name, OpenHow::new().flags(flags).resolve(inside))?;
        let meta = File::from(opened.try_clone()?).metadata()?;
        Ok(Self { opened, meta })
    }

    fn kind(&self) -> NodeKind {
        let kind = self.meta.file_type();
        match (kind.is_file(), kind.is_dir(), kind.is_symlink()) {
            (true, ..) => NodeKind::File,
            (_, true, _) => NodeKind::Folder,
            (.., true) => NodeKind::Link,
            _ => NodeKind::Special,
        }
    }

    fn mode(&self) -> u32 {
        self.meta.mode() & 0o7777
    }

    /// What the overlay puts where something was deleted. No command can make one in it.
    fn is_whiteout(&self) -> bool {
        self.kind() == NodeKind::Special && self.meta.rdev() == 0 && self.meta.mode() & libc::S_IFMT == libc::S_IFCHR
    }

    fn target(&self) -> Option<Vec<u8>> {
        readlinkat(&self.opened, "").ok().map(OsString::into_vec)
    }

    fn name(&self) -> String {
        format!("/proc/self/fd/{}", self.opened.as_raw_fd())
    }
}

/// Whose file it is that is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// The preview's: what its command made unreadable is made readable.
    Upper,
    /// The workspace's: nothing of it is changed.
    Lower,
}

/// Opens for reading what was found to be a file or a folder.
fn readable(node: &Node, layer: Layer) -> io::Result<File> {
    let open = || fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOATIME).open(node.name());
    let plain = || fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(node.name());
    let opened = open().or_else(|_| plain());
    match opened {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && layer == Layer::Upper => {
            fs::set_permissions(node.name(), fs::Permissions::from_mode(0o700))?;
            plain()
        }
        opened => opened,
    }
}

impl Walk {
    fn folder(&mut self, upper: &OwnedFd, lower: Option<&OwnedFd>, path: &mut Vec<u8>, depth: usize) {
        let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", upper.as_raw_fd())) else {
            self.unread = self.unread.saturating_add(1);
            return;
        };
        for entry in entries {
            let before = path.len();
            match entry {
                Ok(entry) => {
                    let name = entry.file_name();
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name.as_bytes());
                    if self.entry(upper, lower, &name, path, depth).is_err() {
                        self.unread = self.unread.saturating_add(1);
                    }
                }
                Err(_) => self.unread = self.unread.saturating_add(1),
            }
            path.truncate(before);
        }
    }

    fn entry(
        &mut self,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        name: &OsStr,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> io::Result<()> {
        let node = Node::at(upper, name)?;
        let was = lower.and_then(|lower| Node::at(lower, name).ok());
        if node.is_whiteout() {
            let node = was.as_ref().map(Node::kind);
            let (path, kind) = (path.clone(), ChangeKind::Deleted);
            self.found.push(Change { path, kind, node, mode: None, size: None, sha256: None, target: None });
            return Ok(());
        }
        match node.kind() {
            NodeKind::Folder => self.changed_folder(&node, was.as_ref(), path, depth),
            _ => {
                self.changed_node(&node, was.as_ref(), path);
                Ok(())
            }
        }
    }

    fn changed_folder(&mut self, node: &Node, was: Option<&Node>, path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        let opened = readable(node, Layer::Upper);
        let was_folder = was.filter(|was| was.kind() == NodeKind::Folder);
        let replaced = opened.as_ref().is_ok_and(sys::is_opaque);
        let kind = match (was, was_folder) {
            (None, _) => Some(ChangeKind::Created),
            (Some(_), None) => Some(ChangeKind::Changed),
            (Some(_), Some(_)) if replaced => Some(ChangeKind::Replaced),
            // What is in it may have changed; it has not.
            (Some(_), Some(was)) if was.mode() == node.mode() => None,
            (Some(_), Some(_)) => Some(ChangeKind::Changed),
        };
        self.found.extend(kind.map(|kind| Change {
            path: path.clone(),
            kind,
            node: Some(NodeKind::Folder),
            mode: Some(node.mode()),
            size: None,
            sha256: None,
            target: None,
        }));
        if depth >= DEPTH {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let beneath = if replaced { None } else { was_folder.map(|was| &was.opened) };
        self.folder(&opened?.into(), beneath, path, depth + 1);
        Ok(())
    }

    fn changed_node(&mut self, node: &Node, was: Option<&Node>, path: &[u8]) {
        let kind = node.kind();
        let (mut size, mut sha256) = (None, None);
        if kind == NodeKind::File {
            size = Some(node.meta.size());
            sha256 = self.digest(node, Layer::Upper);
            if sha256.is_none() {
                self.unread = self.unread.saturating_add(1);
            }
        }
        let target = if kind == NodeKind::Link { node.target() } else { None };
        if let Some(was) = was
            && was.kind() == kind
            && kind != NodeKind::Special
            && was.mode() == node.mode()
            && (kind != NodeKind::Link || was.target() == target)
            && (kind != NodeKind::File
                || (Some(was.meta.size()) == size && sha256.is_some() && self.digest(was, Layer::Lower) == sha256))
        {
            return; // opened for writing, and left as it was
        }
        let change = if was.is_some() { ChangeKind::Changed } else { ChangeKind::Created };
        let mode = Some(node.mode());
        self.found.push(Change { path: path.to_vec(), kind: change, node: Some(kind), mode, size, sha256, target });
    }

    /// The digest of a file's bytes, if they can be read within what may be read in all.
    fn digest(&mut self, node: &Node, layer: Layer) -> Option<Digest> {
        let size = node.meta.size();
        self.left = self.left.checked_sub(size)?;
        let mut hasher = Sha256::new();
        let mut file = readable(node, layer).ok()?.take(size);
        let (mut piece, mut read) = ([0; 8 * 1024], 0_u64);
        loop {
            if Instant::now() > self.until {
                return None;
            }
            let bytes = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => piece.get(..length)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return None,
            };
            hasher.update(bytes);
            read = read.saturating_add(u64::try_from(bytes.len()).ok()?);
        }
        (read == size).then(|| Digest::from_sha256(hasher.finalize().into()))
    }
}
