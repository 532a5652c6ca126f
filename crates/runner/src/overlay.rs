//! A throw-away copy of a workspace, for a preview: an overlay whose lower layer is the workspace and whose upper one is memory
//! of the run's own, so that it is gone with the run and whoever still holds it.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{Gid, Uid, fchown};

use crate::child::FOLDER;
use crate::confine::{Failed, Step as _, unescaped};
use crate::sys;

/// How much a preview may write, and in how many files. It is memory.
const ROOM: &str = "mode=0700,size=256m,nr_inodes=32k";
/// Where the layers are put together; what is there is covered only until they are.
const STAGE: &str = "/dev";

/// Returns a copy of the workspace that lies nowhere in the tree yet, and the folder that holds what is changed in it.
pub(crate) fn overlay(workspace: &Path, lower: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Failed> {
    const STEP: &str = "make a copy of the workspace for the preview";
    nothing_mounted_below(workspace).step(STEP)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("provara-preview"), STAGE, Some("tmpfs"), flags, Some(ROOM)).step(STEP)?;
    for name in ["upper", "work", "both"] {
        fs::create_dir(Path::new(STAGE).join(name)).step(STEP)?;
    }
    let upper =
        open(&Path::new(STAGE).join("upper"), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let upper = upper.step(STEP)?;
    like(&upper, lower).step(STEP)?;
    // `userxattr`: without it an ordinary user's overlay cannot replace a folder.
    let layers =
        format!("lowerdir=/proc/self/fd/{},upperdir={STAGE}/upper,workdir={STAGE}/work,userxattr", lower.as_raw_fd());
    let both = Path::new(STAGE).join("both");
    mount(Some("overlay"), &both, Some("overlay"), flags | kept(lower).step(STEP)?, Some(layers.as_str()))
        .map_err(explained)
        .step(STEP)?;
    let both = openat2(AT_FDCWD, &both, OpenHow::new().flags(FOLDER).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS));
    let mounts = both.map_err(io::Error::from).and_then(|both| sys::copy_mounts(&both)).step(STEP)?;
    umount2(STAGE, MntFlags::MNT_DETACH).step(STEP)?;
    Ok((mounts, upper))
}

/// What is mounted in the workspace would not be in the copy: what it covers would.
fn nothing_mounted_below(workspace: &Path) -> io::Result<()> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    let places = mounts.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let mut places = places.map(unescaped);
    match places.find(|place| place != workspace && place.starts_with(workspace)) {
        Some(place) => Err(io::Error::other(format!(
            "`{}` is mounted in it, and an overlay cannot hold that; decide without a preview",
            place.display()
        ))),
        None => Ok(()),
    }
}

/// The upper layer's folder is what the copy's own looks like.
fn like(upper: &OwnedFd, lower: &OwnedFd) -> io::Result<()> {
    let (found, ours) = (fstat(lower)?, fstat(upper)?);
    if (found.st_uid, found.st_gid) != (ours.st_uid, ours.st_gid) {
        fchown(upper.as_fd(), Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
    }
    let mode = fs::Permissions::from_mode(found.st_mode & 0o7777);
    fs::set_permissions(format!("/proc/self/fd/{}", upper.as_raw_fd()), mode)
}

/// What the operator forbids where the workspace lies stays forbidden in its copy.
fn kept(lower: &OwnedFd) -> io::Result<MsFlags> {
    let flags = fstatvfs(lower)?.flags();
    let mut kept = MsFlags::empty();
    for (found, set) in [(FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC), (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY)] {
        if flags.contains(found) {
            kept |= set;
        }
    }
    Ok(kept)
}

fn explained(cause: Errno) -> io::Error {
    let missing = match cause {
        Errno::ENODEV => "this kernel has no overlayfs: load its module `overlay`, or decide without a preview",
        Errno::EPERM => {
            "this kernel lets no ordinary user mount an overlay, for which it takes Linux 5.11: run the server as root, or \
             decide without a preview"
        }
        Errno::EINVAL => {
            "this kernel or the workspace's file system has no overlay with user attributes, for which it takes Linux 5.11: \
             decide without a preview"
        }
        other => return other.into(),
    };
    io::Error::other(missing)
}
