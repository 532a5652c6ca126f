//! What a run may see: namespaces and mounts, made by the first process of the run's PID namespace while it still may.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use provara_domain::Mechanism;

use crate::protocol::{Spec, User};
use crate::sys;

/// Private and empty in every confined run.
const PRIVATE_TMP: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// Where services listen on sockets. Landlock does not govern connecting to those.
const SERVICE_SOCKETS: [&str; 1] = ["/run"];
/// Below every home folder.
const CREDENTIALS: [&str; 12] = [
    ".ssh",
    ".aws",
    ".azure",
    ".config",
    ".docker",
    ".gnupg",
    ".kube",
    ".netrc",
    ".git-credentials",
    ".npmrc",
    ".pypirc",
    ".password-store",
];

/// One step that failed, in words for the operator.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) step: String,
    pub(crate) cause: io::Error,
}

/// Says which step an error belongs to.
pub(crate) trait Step<T> {
    fn step(self, step: &str) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, Failed> {
        self.map_err(|cause| Failed { step: step.to_owned(), cause: cause.into() })
    }
}

/// Returns the note that `name` held.
pub(crate) fn held(name: &str, detail: &str) -> Mechanism {
    Mechanism { name: name.to_owned(), held: true, detail: detail.to_owned() }
}

/// Leaves the server's namespaces. The next child is the first process of a new PID namespace.
pub(crate) fn leave_namespaces(spec: &Spec) -> Result<Vec<Mechanism>, Failed> {
    let mut made = Vec::new();
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    if spec.confined {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    if !spec.user.from_root {
        // The mounts of a user namespace belong to it, so an ordinary user may make them.
        unshare(CloneFlags::CLONE_NEWUSER).step("make a user namespace")?;
        map_same_user(spec.user).step("map the user into its namespace")?;
        made.push(held("user_namespace", "same user"));
    }
    unshare(flags).step("make mount, process, IPC and network namespaces")?;
    made.push(held("pid_namespace", "the kernel ends every process with the run"));
    made.push(held("ipc_namespace", ""));
    if spec.confined {
        made.push(held("network_namespace", "no interface is up, loopback included"));
    }
    Ok(made)
}

fn map_same_user(user: User) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{0} {0} 1", user.uid))?;
    fs::write("/proc/self/gid_map", format!("{0} {0} 1", user.gid))
}

/// Makes the run's view of the file system.
pub(crate) fn mount_view(spec: &Spec) -> Result<Vec<Mechanism>, Failed> {
    let mut made = Vec::new();
    bind_nothing_back().step("keep the run's mounts to itself")?;
    // Opened before anything covers it: it may lie below a folder that becomes private.
    let workspace = open(spec.workspace.as_str(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .step("open the workspace")?;
    let hidden = existing(&spec.hidden);
    if spec.confined {
        sys::set_read_only(c"/", true).step("make the file system read-only")?;
        for folder in PRIVATE_TMP.iter().filter(|folder| Path::new(folder).is_dir()) {
            tmpfs(Path::new(folder), "mode=1777,size=1g,nr_inodes=200k").step(&format!("make {folder} private"))?;
        }
        for folder in SERVICE_SOCKETS.iter().filter(|folder| Path::new(folder).is_dir()) {
            tmpfs(Path::new(folder), "mode=0755,size=16m").step(&format!("hide {folder}"))?;
        }
        let from = format!("/proc/self/fd/{}", workspace.as_raw_fd());
        fs::create_dir_all(&spec.workspace).step("make the workspace's place")?;
        mount(
            Some(from.as_str()),
            spec.workspace.as_str(),
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .step("mount the workspace")?;
        let at = CString::new(spec.workspace.as_str()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        sys::set_read_only(&at.step("mount the workspace")?, false).step("make the workspace writable")?;
        made.push(held("mount_namespace", "all but the workspace read-only; /tmp private; /run hidden"));
        for credential in credentials(Path::new(&spec.workspace)) {
            hide(&credential).step(&format!("hide {}", credential.display()))?;
        }
        made.push(held("credentials_hidden", ""));
    } else {
        made.push(held("mount_namespace", "Provara's own files hidden"));
    }
    for path in hidden {
        // Below a private folder it is gone already.
        if path.symlink_metadata().is_ok() {
            hide(&path).step(&format!("hide {}", path.display()))?;
        }
    }
    made.push(held("own_files_hidden", ""));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).step("mount a /proc of its own")?;
    made.push(held("private_proc", "only the run's own processes"));
    Ok(made)
}

fn bind_nothing_back() -> io::Result<()> {
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
}

fn existing(paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().filter_map(|path| path.canonicalize().ok()).collect()
}

fn tmpfs(at: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))?)
}

/// Covers a folder by an empty one that nobody may enter, or a file by `/dev/null`.
fn hide(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
        return Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=0000,size=4k,nr_inodes=1"))?);
    }
    mount(Some("/dev/null"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Existing credential folders and files of every home that this process can look into.
fn credentials(workspace: &Path) -> Vec<PathBuf> {
    let mut homes = vec![PathBuf::from("/root")];
    homes.extend(fs::read_dir("/home").into_iter().flatten().flatten().map(|entry| entry.path()));
    homes.extend(std::env::var_os("HOME").map(PathBuf::from));
    homes.sort();
    homes.dedup();
    let inside = |home: &Path| CREDENTIALS.iter().map(|name| home.join(name)).collect::<Vec<_>>();
    homes
        .iter()
        .flat_map(|home| inside(home))
        .filter(|path| !workspace.starts_with(path) && path.symlink_metadata().is_ok())
        .collect()
}
