//! The only unsafe code of the project: what the kernel offers and no safe wrapper does.

#![expect(unsafe_code, reason = "a few things have no safe wrapper; each use argues below")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::unistd::{ForkResult, fork};

/// Forks a process that has one thread.
///
/// Only the helper and its descendants call this. They never start a thread, so no lock of the allocator can be held by
/// somebody who does not exist in the child.
pub(crate) fn fork_single_threaded() -> io::Result<ForkResult> {
    // SAFETY: the process is single-threaded (see above), so every function may be called in the child.
    Ok(unsafe { fork() }?)
}

/// Takes ownership of a descriptor that the kernel has just handed over with a message.
pub(crate) fn received(fd: i32) -> OwnedFd {
    // SAFETY: SCM_RIGHTS makes a new descriptor that belongs to the receiver of the message and to nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Sets and clears attributes of the mount at `at` and of all below it.
pub(crate) fn set_mount(at: &std::ffi::CStr, attr_set: u64, attr_clr: u64) -> io::Result<()> {
    let mut attributes = libc::mount_attr { attr_set, attr_clr, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a C string and the structure lives until the call returns; its size is passed as documented in
    // mount_setattr(2). The kernel reads both and keeps neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            at.as_ptr(),
            libc::AT_RECURSIVE,
            &raw mut attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns a copy of the mounts at `folder` and below, with their attributes, that lies nowhere in the tree yet.
pub(crate) fn copy_mounts(folder: &OwnedFd) -> io::Result<OwnedFd> {
    let recursive = u32::try_from(libc::AT_RECURSIVE | libc::AT_EMPTY_PATH).map_err(io::Error::other)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive;
    // SAFETY: the descriptor is open while the call lasts and the path is an empty C string, as open_tree(2) asks.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, folder.as_raw_fd(), c"".as_ptr(), flags) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets attributes of what [`copy_mounts`] returned, before anybody sees it.
pub(crate) fn set_mounts(copy: &OwnedFd, attr_set: u64) -> io::Result<()> {
    set_opened(copy, attr_set, libc::AT_EMPTY_PATH | libc::AT_RECURSIVE)
}

/// Makes one mount read-only, and none below it. `root` is the mount's root.
pub(crate) fn close_mount(root: &OwnedFd) -> io::Result<()> {
    set_opened(root, libc::MOUNT_ATTR_RDONLY, libc::AT_EMPTY_PATH)
}

fn set_opened(mount: &OwnedFd, attr_set: u64, flags: i32) -> io::Result<()> {
    let mut attributes = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the descriptor is open while the call lasts, the path is an empty C string, and the structure lives until the
    // call returns; its size is passed as documented in mount_setattr(2). The kernel reads both and keeps neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw mut attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts what [`copy_mounts`] returned upon what was opened.
pub(crate) fn attach_mounts(copy: &OwnedFd, onto: &OwnedFd) -> io::Result<()> {
    // SAFETY: both descriptors are open while the call lasts, and both paths are empty C strings, as move_mount(2) asks.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            copy.as_raw_fd(),
            c"".as_ptr(),
            onto.as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a folder of an overlay's upper layer took the place of the lower one's.
pub(crate) fn is_opaque(folder: &std::fs::File) -> bool {
    let mut value = [0_u8; 1];
    // SAFETY: the descriptor is open while the call lasts, the name is a C string, and the kernel writes at most the one byte
    // that it is told there is room for.
    let read = unsafe {
        libc::fgetxattr(folder.as_raw_fd(), c"user.overlay.opaque".as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    read == 1 && value == *b"y"
}

/// Closes every descriptor but the three standard streams.
///
/// Called first of all in the helper, before anything in it owns a descriptor.
pub(crate) fn close_inherited() -> io::Result<()> {
    // SAFETY: nothing in this process owns a descriptor above 2 yet, so none is closed behind its owner's back.
    if unsafe { libc::close_range(3, u32::MAX, 0) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `replaced` another name of what `by` names, and so closes what it named.
pub(crate) fn replace(replaced: &OwnedFd, by: &OwnedFd) -> io::Result<()> {
    // SAFETY: both descriptors are open and owned. The owner of `replaced` goes on owning its number, which names something
    // else of the same kind from now on.
    let done = unsafe { libc::dup3(by.as_raw_fd(), replaced.as_raw_fd(), libc::O_CLOEXEC) };
    if done >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives SIGPIPE its usual meaning back. Rust ignores it, and what is ignored stays ignored in the command.
pub(crate) fn default_sigpipe() -> io::Result<()> {
    // SAFETY: the default action is no function of ours, so nothing can run in a signal's context.
    unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) }?;
    Ok(())
}

/// Takes for good from this process and its children what the number of a user could give: rights for user 0 and ambient
/// capabilities. It needs CAP_SETPCAP.
pub(crate) fn lock_securebits() -> io::Result<()> {
    let bits = libc::SECBIT_NOROOT
        | libc::SECBIT_NOROOT_LOCKED
        | libc::SECBIT_NO_SETUID_FIXUP
        | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
        | libc::SECBIT_KEEP_CAPS_LOCKED
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    // SAFETY: PR_SET_SECUREBITS takes a number and no pointer; it changes this thread's credentials alone.
    let done = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, libc::c_long::from(bits), 0, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A time as the kernel marks inodes with: seconds and nanoseconds.
pub(crate) type Instant = (i64, u32);

/// What the kernel keeps of one entry of a folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    pub(crate) device: u64,
    pub(crate) is_folder: bool,
    /// When its inode last changed in any way.
    pub(crate) changed: Instant,
    /// When its inode was made, where the file system keeps that.
    pub(crate) born: Option<Instant>,
}

/// Returns the marks of what is called `name` in `folder`, of a link itself; of the folder where the name is empty.
pub(crate) fn marks(folder: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<Marks> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    let mask = libc::STATX_TYPE | libc::STATX_CTIME | libc::STATX_BTIME;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the descriptor is open and the name is a C string while the call lasts; the kernel writes one `statx` to where
    // there is room for one, and keeps neither.
    let done = unsafe { libc::statx(folder.as_raw_fd(), name.as_ptr(), flags, mask, found.as_mut_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all of it was zeroed, which is a value of every field, and the call has filled it.
    let found = unsafe { found.assume_init() };
    let at = |time: libc::statx_timestamp| (time.tv_sec, time.tv_nsec);
    let kept = |what| found.stx_mask & what == what;
    if !kept(libc::STATX_TYPE | libc::STATX_CTIME) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(Marks {
        device: (u64::from(found.stx_dev_major) << 32) | u64::from(found.stx_dev_minor),
        is_folder: u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFDIR,
        changed: at(found.stx_ctime),
        born: kept(libc::STATX_BTIME).then(|| at(found.stx_btime)),
    })
}
