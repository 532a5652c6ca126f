//! A run sees the approved bytes of each bound script, whatever happens to the file meanwhile: a read-only copy is mounted
//! over it, so that its name and its neighbours stay.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use provara_domain::Mechanism;

use crate::child::NotStarted;
use crate::confine::{Step as _, held};
use crate::protocol::{Frame, SealedScript, Spec};
use crate::sys;

/// Where the copies are made; what is there is covered only until they are mounted.
const STAGE: &std::ffi::CStr = c"/dev";

/// Mounts a copy of each bound script over it. MUST come after the workspace is mounted.
pub(crate) fn seal_scripts(frame: Frame, spec: &Spec) -> Result<Option<Mechanism>, NotStarted> {
    if spec.scripts.is_empty() {
        return Ok(None);
    }
    // Opened before the stage covers anything.
    let targets = spec.scripts.iter().map(target).collect::<Result<Vec<_>, _>>()?;
    let stage = Path::new("/dev");
    let room: usize = spec.scripts.iter().map(|script| usize::try_from(script.size).unwrap_or(usize::MAX)).sum();
    let pages = room / 4096 + 4 * (spec.scripts.len() + 4);
    let options = format!("mode=0755,size={}k,nr_inodes={}", pages * 4, spec.scripts.len() + 8);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("provara-sealed"), stage, Some("tmpfs"), flags, Some(options.as_str())).step("make room for scripts")?;
    let mut bytes = spec.bytes.as_slice();
    for (nth, (script, target)) in spec.scripts.iter().zip(&targets).enumerate() {
        let size = usize::try_from(script.size).unwrap_or(usize::MAX);
        let (own, rest) = bytes
            .split_at_checked(size)
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
            .step("copy a script")?;
        bytes = rest;
        let runs = runs(script, target).step("copy a script")?;
        copy(frame, script, own, runs, &stage.join(nth.to_string())).step("copy a script")?;
    }
    // A mount that is made of a read-only one is read-only.
    sys::set_mount(STAGE, libc::MOUNT_ATTR_RDONLY, 0).step("seal the scripts")?;
    for (nth, target) in targets.iter().enumerate() {
        let over = format!("/proc/self/fd/{}", target.as_raw_fd());
        let copy = stage.join(nth.to_string());
        mount(Some(&copy), over.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .step("mount a sealed script")?;
    }
    umount2(stage, MntFlags::MNT_DETACH).step("uncover what the scripts' room covered")?;
    Ok(Some(held("scripts_sealed", &format!("{} of the approved bytes, read-only", spec.scripts.len()))))
}

/// The file that a copy is mounted over: by its real path, which leads through no link.
fn target(script: &SealedScript) -> Result<OwnedFd, NotStarted> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let changed = |why: &str| NotStarted::changed(&format!("`{}` {why}", script.path));
    let found = openat2(AT_FDCWD, script.path.as_str(), how).map_err(|_| changed("is not there any more"))?;
    let file = File::from(found.try_clone().step("look at a script")?);
    if !file.metadata().step("look at a script")?.is_file() {
        return Err(changed("is no file any more"));
    }
    Ok(found)
}

/// Whether a file may be run as a program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    Yes,
    No,
}

/// What lies where nothing may be run is run by no copy of it either.
fn runs(script: &SealedScript, target: &OwnedFd) -> io::Result<Runs> {
    let forbidden = fstatvfs(target)?.flags().contains(FsFlags::ST_NOEXEC);
    Ok(if forbidden || script.mode & 0o111 == 0 { Runs::No } else { Runs::Yes })
}

fn copy(frame: Frame, script: &SealedScript, bytes: &[u8], runs: Runs, to: &Path) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    file.write_all(bytes)?;
    let bits = if runs == Runs::Yes { 0o777 } else { 0o666 };
    if frame.user.from_root {
        // Whoever could not read or run the file cannot read or run the copy.
        fchown(&file, Some(script.uid), Some(script.gid))?;
        return file.set_permissions(fs::Permissions::from_mode(script.mode & bits));
    }
    // The only user of this namespace read it; others cannot be named here. Whoever may run it may.
    file.set_permissions(fs::Permissions::from_mode(0o555 & bits))
}
