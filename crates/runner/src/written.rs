//! What changed below a workspace while a run went on: every entry whose inode changed since, by the kernel's own mark.
//!
//! A command can set a file's times as it likes, but not the one of the inode's last change: setting the others sets it to
//! now. It is looked at when no process of the run is left, so nothing moves but what others move. See docs/design/019.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use nix::time::{ClockId, clock_gettime};
use provara_domain::{Unseen, Written, WrittenHow, WrittenPath};
use tokio::sync::Semaphore;

use crate::sys::{self, Instant};

/// How many entries are looked at: what that takes comes before the answer. Steps and not time, so that a busy machine
/// answers the same.
const STEPS: usize = 1024;
/// How deep. Each level is an open descriptor.
const DEPTH: u32 = 48;
/// How long anybody waits. A file system may never answer, and its owner may be the agent.
const WITHIN: Duration = Duration::from_secs(2);
/// By how much the two clocks may part unless one was set: reading both takes time, and a second of one may be a little
/// longer than the other's.
const APART: Duration = Duration::from_millis(20);

/// Where every change marks the inode: also one through a mapping, which of memory file systems leaves no trace.
const TRACED: [FsType; 4] = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC];

/// The moment before a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    /// By the clock that marks inodes, which is never ahead of a later mark.
    files: Instant,
    clocks: Option<(Duration, Duration)>,
}

impl Before {
    pub(crate) fn now() -> Self {
        let files = clock(ClockId::CLOCK_REALTIME_COARSE).unwrap_or_default();
        Self { files: (i64::try_from(files.as_secs()).unwrap_or(i64::MAX), files.subsec_nanos()), clocks: clocks() }
    }

    /// Whether the clock was set since, so that marks of now may look older than this.
    fn is_of_another_clock(&self) -> bool {
        let (Some((wall, boot)), Some((wall_now, boot_now))) = (self.clocks, clocks()) else { return true };
        let Some(elapsed) = boot_now.checked_sub(boot) else { return true };
        let Some(told) = wall_now.checked_sub(wall) else { return true };
        told.abs_diff(elapsed) > APART + elapsed / 1000
    }
}

fn clocks() -> Option<(Duration, Duration)> {
    Some((clock(ClockId::CLOCK_REALTIME)?, clock(ClockId::CLOCK_BOOTTIME)?))
}

fn clock(which: ClockId) -> Option<Duration> {
    clock_gettime(which).ok().map(Duration::from)
}

/// Returns what changed below `workspace` since `before`. Off the executor, and at most as many at once as `places` has.
pub(crate) async fn since(before: Before, workspace: &str, places: &Arc<Semaphore>) -> Written {
    let (places, workspace) = (Arc::clone(places), workspace.to_owned());
    let looked = async move {
        let permit = places.acquire_owned().await.ok()?;
        let looked = tokio::task::spawn_blocking(move || {
            // Kept by the thread, not by whoever waits: a file system that never answers takes these places and no more.
            let _permit = permit;
            look(before, Path::new(&workspace), STEPS)
        });
        looked.await.ok()
    };
    let found = tokio::time::timeout(WITHIN, looked).await.ok().flatten();
    found.unwrap_or_else(|| Written { unseen: vec![Unseen::Silent], ..Written::default() })
}

fn look(before: Before, workspace: &Path, steps: usize) -> Written {
    let mut search = Search {
        since: before.files,
        device: 0,
        steps,
        count: 0,
        bytes: 0,
        paths: Vec::new(),
        unseen: BTreeSet::new(),
    };
    search.workspace(workspace);
    if before.is_of_another_clock() {
        search.unseen.insert(Unseen::ClockSet);
    }
    search.paths.sort_unstable();
    Written { count: search.count, paths: search.paths, unseen: search.unseen.into_iter().collect() }
}

struct Search {
    since: Instant,
    device: u64,
    steps: usize,
    count: u64,
    bytes: usize,
    paths: Vec<WrittenPath>,
    unseen: BTreeSet<Unseen>,
}

/// Whether something in a folder explains that the folder changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Explained {
    Yes,
    No,
}

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

impl Search {
    fn workspace(&mut self, workspace: &Path) {
        let Ok(folder) = Dir::open(workspace, FOLDER, Mode::empty()) else {
            self.unseen.insert(Unseen::Unreadable);
            return;
        };
        let (Ok(kind), Ok(seen)) = (fstatfs(&folder), sys::marks(folder.as_fd(), c"")) else {
            self.unseen.insert(Unseen::Silent);
            return;
        };
        if !TRACED.contains(&kind.filesystem_type()) {
            self.unseen.insert(Unseen::FileSystemKind);
        }
        self.device = seen.device;
        let changed = seen.changed >= self.since;
        if self.folder(folder, b"", 0) == Explained::No && changed {
            self.found(b".", WrittenHow::Folder);
        }
    }

    /// Looks at everything in a folder, and never through a link.
    fn folder(&mut self, mut folder: Dir, path: &[u8], depth: u32) -> Explained {
        let mut explained = Explained::No;
        for name in self.names(&mut folder) {
            // Somebody else may have taken it away just now.
            let Ok(seen) = sys::marks(folder.as_fd(), &name) else { continue };
            let path = [path, if path.is_empty() { b"" } else { b"/" }, name.as_bytes()].concat();
            let change = if seen.born.is_some_and(|born| born >= self.since) {
                WrittenHow::Created
            } else {
                WrittenHow::Changed
            };
            let changed = seen.changed >= self.since;
            if changed {
                explained = Explained::Yes;
            }
            if !seen.is_folder {
                if changed {
                    self.found(&path, change);
                }
                continue;
            }
            let within = self.below(&folder, &name, &path, seen.device, depth + 1);
            match (changed, change) {
                (true, WrittenHow::Created) => self.found(&path, WrittenHow::Created),
                (true, _) if within == Explained::No => self.found(&path, WrittenHow::Folder),
                _ => {}
            }
        }
        explained
    }

    fn below(&mut self, folder: &Dir, name: &CString, path: &[u8], device: u64, depth: u32) -> Explained {
        let why = if device != self.device {
            Unseen::OtherFileSystem
        } else if depth > DEPTH {
            Unseen::TooDeep
        } else {
            match Dir::openat(folder, OsStr::from_bytes(name.as_bytes()), FOLDER, Mode::empty()) {
                Ok(below) => return self.folder(below, path, depth),
                Err(nix::Error::ENOENT) => return Explained::No,
                Err(_) => Unseen::Unreadable,
            }
        };
        self.unseen.insert(why);
        Explained::No
    }

    /// The names in a folder, as far as there are steps left for them.
    fn names(&mut self, folder: &mut Dir) -> Vec<CString> {
        let mut names = Vec::new();
        for entry in folder.iter() {
            let Ok(entry) = entry else {
                self.unseen.insert(Unseen::Silent);
                break;
            };
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let Some(left) = self.steps.checked_sub(1) else {
                self.unseen.insert(Unseen::TooMany);
                break;
            };
            self.steps = left;
            names.push(entry.file_name().to_owned());
        }
        names
    }

    fn found(&mut self, path: &[u8], change: WrittenHow) {
        self.count += 1;
        let bytes = self.bytes + path.len();
        if self.paths.len() < Written::MAX_PATHS && bytes <= Written::MAX_BYTES {
            self.bytes = bytes;
            self.paths.push(WrittenPath { path: path.to_vec().into(), change });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_clock_that_was_set_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let known = |before| look(before, folder.path(), STEPS).unseen.contains(&Unseen::ClockSet);
        let before = Before::now();
        assert!(!known(before));
        let (wall, boot) = before.clocks.unwrap();
        let second = Duration::from_secs(1);
        // Set back by a second, so that marks look older than they are; and set forward, past which it may be set back.
        for clocks in
            [Some((wall + second, boot)), Some((wall - second, boot)), Some((wall + second * 900, boot)), None]
        {
            assert!(known(Before { clocks, ..before }), "{clocks:?}");
        }
    }

    #[test]
    fn every_entry_is_a_step_and_what_is_left_over_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let before = Before::now();
        for name in ["a", "b", "c/d"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        for (steps, all) in [(4, true), (3, false), (0, false)] {
            let found = look(before, folder.path(), steps);
            assert_eq!(!found.unseen.contains(&Unseen::TooMany), all, "{steps}: {found:?}");
            assert!(found.count <= u64::try_from(steps).unwrap() + 1, "{found:?}");
        }
    }

    #[test]
    fn another_file_system_is_not_entered_and_a_workspace_that_is_gone_is_not_known() {
        let before = Before::now();
        let devices = look(before, Path::new("/dev"), STEPS);
        assert!(devices.unseen.contains(&Unseen::OtherFileSystem), "{devices:?}");
        assert!(devices.unseen.contains(&Unseen::FileSystemKind), "{devices:?}");
        let gone = look(before, Path::new("/nonexistent/workspace"), STEPS);
        assert_eq!(gone, Written { unseen: vec![Unseen::Unreadable], ..Written::default() });
    }
}
