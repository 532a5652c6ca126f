//! What a run may see: namespaces and mounts, in the order in which they are made.
//!
//! 1. [`leave_namespaces`], by the supervisor, before the run is known.
//! 2. [`prepare_view`], by what becomes the shell, before the run is known: what is the same for every run.
//! 3. [`finish_view`], by the same process, once the run is known: what its specification says, and what has to be true at
//!    that moment (credential folders, Provara's own files).

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::stat::{Mode, fstatat};
use provara_domain::{Access, CREDENTIALS, Mechanism};

use crate::child::{FOLDER, NotStarted};
use crate::egress::{bring_up_own_loopback, listen_in_run, send_listener};
use crate::places::{Places, hide};
use crate::protocol::{Calls, FilesSpec, Frame, Spec, User, View};
use crate::seal::seal_scripts;
use crate::sys;

/// Private and empty in every confined run.
const PRIVATE_TMP: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// Where services listen on sockets. Landlock does not govern connecting to those.
const SERVICE_SOCKETS: [&str; 2] = ["/run", "/var/run"];
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
///
/// `way_out` takes the listener of a frame with a proxy.
pub(crate) fn leave_namespaces(frame: Frame, way_out: Option<OwnedFd>) -> Result<Vec<Mechanism>, Failed> {
    const LOOPBACK: &str = "bring up the run's own loopback, for which a root server needs CAP_NET_ADMIN";
    let mut made = Vec::new();
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    if frame.calls != Calls::Host {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    if !frame.user.from_root {
        // The mounts of a user namespace belong to it, so an ordinary user may make them.
        unshare(CloneFlags::CLONE_NEWUSER).step("make a user namespace")?;
        map_same_user(frame.user).step("map the user into its namespace")?;
        made.push(held("user_namespace", "same user"));
    }
    unshare(flags).step("make mount, process, IPC and network namespaces")?;
    made.push(held("pid_namespace", "the kernel ends every process with the run"));
    made.push(held("ipc_namespace", ""));
    match frame.calls {
        Calls::Nobody => made.push(held("network_namespace", "no interface is up, loopback included")),
        Calls::Itself => {
            bring_up_own_loopback().step(LOOPBACK)?;
            made.push(held("network_namespace", "loopback of its own alone"));
        }
        Calls::Proxy => {
            let listener = listen_in_run().step(LOOPBACK)?;
            let to = way_out.ok_or(io::ErrorKind::InvalidInput).map_err(io::Error::from);
            // Before anything else is forked: no process of the run ever holds it.
            to.and_then(|to| send_listener(&to, listener)).step("hand out the run's way out")?;
            made.push(held("network_namespace", "loopback of its own, and on it the way out alone"));
        }
        Calls::Host => {}
    }
    Ok(made)
}

fn map_same_user(user: User) -> io::Result<()> {
    // What may not be traced has /proc entries of root's, which we then may not write. For these three lines we are as
    // open as any process of this user; no command of another run can see us.
    prctl::set_dumpable(true)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{0} {0} 1", user.uid))?;
    fs::write("/proc/self/gid_map", format!("{0} {0} 1", user.gid))?;
    Ok(prctl::set_dumpable(false)?)
}

/// The part of a run's view that is made before the run is known. It holds nothing of any run.
pub(crate) struct Ground {
    /// The folders that are covered, as they are beneath: a workspace may lie below one.
    pub(crate) beneath: Vec<(PathBuf, OwnedFd)>,
    /// The folders that were made private.
    pub(crate) private: Vec<&'static str>,
}

/// Makes what is the same for every run of `frame`: the steps that do not depend on a specification, in their order.
///
/// It is true of the machine's mounts as they are now; the server discards a spare when they have changed since.
pub(crate) fn prepare_view(frame: Frame) -> Result<(Ground, Vec<Mechanism>), Failed> {
    let mut made = Vec::new();
    bind_nothing_back().step("keep the run's mounts to itself")?;
    cover_other_procs().step("hide other process file systems")?;
    let mut ground = Ground { beneath: Vec::new(), private: Vec::new() };
    if frame.view == View::Own {
        for folder in ["/dev"].iter().chain(&PRIVATE_TMP).chain(&SERVICE_SOCKETS) {
            let how = OpenHow::new().flags(FOLDER).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
            // What is a link or not there covers nothing by this name.
            ground.beneath.extend(openat2(AT_FDCWD, *folder, how).ok().map(|fd| (PathBuf::from(folder), fd)));
        }
        private_dev()?;
        made.push(held("private_dev", "null, zero, full, random, urandom, tty, terminals of its own"));
        for folder in PRIVATE_TMP.into_iter().filter(|folder| Path::new(folder).is_dir()) {
            tmpfs(Path::new(folder), "mode=1777,size=1g,nr_inodes=200k").step(&format!("make {folder} private"))?;
            ground.private.push(folder);
        }
        for folder in SERVICE_SOCKETS.into_iter().filter(|folder| is_folder_itself(Path::new(folder))) {
            tmpfs(Path::new(folder), "mode=0755,size=16m").step(&format!("hide {folder}"))?;
            ground.private.push(folder);
        }
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).step("mount a /proc of its own")?;
    made.push(held("private_proc", "only the run's own processes"));
    Ok((ground, made))
}

/// What a run sees, for whoever raises the next wall.
pub(crate) struct Seen {
    /// What is hidden, by the names that lead to it without any link.
    pub(crate) secrets: Vec<PathBuf>,
    /// What is granted beside what holds everywhere.
    pub(crate) granted: Vec<(PathBuf, Access)>,
    /// What holds everywhere.
    pub(crate) everywhere: Access,
}

/// Makes the rest of the run's view, which only its specification tells: the places that it grants where their names say, and
/// what is hidden as it is at this moment.
///
/// Where `changes` is, the run is a preview: it gets a copy of the workspace, and what it changes in that goes out there.
pub(crate) fn finish_view(
    frame: Frame,
    ground: &Ground,
    spec: &Spec,
    changes: Option<OwnedFd>,
) -> Result<(Vec<Mechanism>, Seen), NotStarted> {
    let mut made = Vec::new();
    let mut own_files = Vec::new();
    let mut seen = Seen { secrets: Vec::new(), granted: Vec::new(), everywhere: spec.files.everywhere };
    if frame.view == View::Own {
        let mut places = Places::look_up(ground, spec, frame.user)?;
        if let Some(changes) = changes {
            made.push(places.copy_workspace(ground, &changes)?);
        }
        let homes = homes();
        // Names of the host that lead to a secret by a link may be gone with the rest.
        let mut kept_back = Vec::new();
        if spec.files.everywhere == Access::Hidden {
            kept_back = existing(&credentials(&homes, &spec.files.homes));
            own_files = existing(&spec.hidden);
            let root = places.leave_all(ground)?;
            places.lay(vec![root])?;
        } else {
            read_only(&ground.private).step("make the file system read-only")?;
            places.lay(Vec::new())?;
        }
        for (path, access) in places.accesses() {
            match access {
                Access::Hidden => seen.secrets.push(path.to_owned()),
                Access::Read | Access::Write => seen.granted.push((path.to_owned(), access)),
            }
        }
        made.push(held("mount_namespace", &view_in_words(&spec.files, &seen)));
        kept_back.extend(credentials(&homes, &spec.files.homes));
        let mut kept_back = existing(&kept_back);
        kept_back.dedup();
        for credential in kept_back {
            places.hide_all(&credential)?;
            seen.secrets.push(credential);
        }
        made.push(held("credentials_hidden", ""));
    }
    made.extend(seal_scripts(frame, spec)?);
    // Below a private folder it is gone already.
    own_files.extend(spec.hidden.iter().cloned());
    let mut hidden = existing(&own_files);
    hidden.dedup();
    if frame.view == View::Host {
        // What is mounted on cannot be renamed, so nobody puts a runtime folder of their own in the place of ours.
        for folder in ancestors(&hidden) {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&folder), &folder, None::<&str>, flags, None::<&str>)
                .step(&format!("hold {} in its place", folder.display()))?;
        }
        made.push(held("mount_namespace", "Provara's own files hidden, and held in their place"));
    }
    for path in hidden {
        hide(&path).step(&format!("hide {}", path.display()))?;
        seen.secrets.push(path);
    }
    made.push(held("own_files_hidden", ""));
    Ok((made, seen))
}

/// Which files a run sees, for its record. Names of an operator's paths stand in the profile and not in the log.
fn view_in_words(files: &FilesSpec, seen: &Seen) -> String {
    let all = match (files.everywhere, files.workspace) {
        (Access::Hidden, _) => "only what is granted is there",
        (_, Access::Write) => "all but the workspace read-only",
        _ => "all read-only",
    };
    let mut words = vec![all.to_owned()];
    let granted = |wanted| seen.granted.iter().filter(|(_, access)| *access == wanted).count();
    if !files.paths.is_empty() {
        let (write, read, hidden) = (granted(Access::Write), granted(Access::Read), seen.secrets.len());
        words.push(format!("{write} places writable, {read} readable, {hidden} hidden"));
    }
    words.push("/tmp private; /run hidden".to_owned());
    words.join("; ")
}

/// Makes everything read-only but what is the run's own. A read-only mount does not keep a device from being written, so no
/// device may be opened at all, wherever its node lies: an ordinary server's user may be in the groups `disk` or `kvm`, and
/// cannot leave them. Only now, since a copy of the workspace's mounts is to have what the operator set.
fn read_only(private: &[&str]) -> io::Result<()> {
    sys::set_mount(c"/", libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV, 0)?;
    sys::set_mount(c"/dev", 0, libc::MOUNT_ATTR_NODEV)?;
    sys::set_mount(c"/dev/pts", 0, libc::MOUNT_ATTR_RDONLY)?;
    sys::set_mount(c"/proc", 0, libc::MOUNT_ATTR_RDONLY)?;
    for folder in private {
        let folder = CString::new(*folder).map_err(io::Error::other)?;
        sys::set_mount(&folder, libc::MOUNT_ATTR_NODEV, libc::MOUNT_ATTR_RDONLY)?;
    }
    Ok(())
}

fn bind_nothing_back() -> io::Result<()> {
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
}

/// Not by a link: `/var/run` usually leads to `/run`.
fn is_folder_itself(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// A `/proc` of the host that is mounted a second time would show the server after all.
fn cover_other_procs() -> io::Result<()> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    for line in mounts.split(|byte| *byte == b'\n').filter(|line| line.windows(8).any(|part| part == b" - proc ")) {
        let Some(place) = line.split(|byte| *byte == b' ').nth(4).map(unescaped) else { continue };
        // One below /proc is covered by the run's own; what cannot be reached by its name is covered already.
        if !place.starts_with("/proc") && place.exists() {
            hide(&place)?;
        }
    }
    Ok(())
}

/// The kernel writes blanks and backslashes in a mount's path as three octal digits.
pub(crate) fn unescaped(mut path: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    while let [first, rest @ ..] = path {
        path = match (first, rest) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest
            }
            _ => {
                bytes.push(*first);
                rest
            }
        };
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// A `/dev` with what ordinary programs open, and nothing of this machine's.
fn private_dev() -> Result<(), Failed> {
    const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
    const LINKS: [(&str, &str); 5] = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ];
    let step = "make a /dev of its own";
    let mut nodes = Vec::new();
    for name in NODES {
        let path = format!("/dev/{name}");
        match open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(node) => nodes.push((path, node)),
            Err(nix::Error::ENOENT) => {}
            Err(cause) => return Err(cause).step(step),
        }
    }
    tmpfs(Path::new("/dev"), "mode=0755,size=64k,nr_inodes=64").step(step)?;
    for (path, node) in &nodes {
        let from = format!("/proc/self/fd/{}", node.as_raw_fd());
        fs::write(path, "").step(step)?;
        mount(Some(from.as_str()), path.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>).step(step)?;
        let at = CString::new(path.as_str()).map_err(io::Error::other).step(step)?;
        sys::set_mount(&at, 0, libc::MOUNT_ATTR_NODEV).step(step)?;
    }
    for (to, link) in LINKS {
        std::os::unix::fs::symlink(to, link).step(step)?;
    }
    for folder in ["/dev/pts", "/dev/shm"] {
        fs::create_dir(folder).step(step)?;
    }
    sys::set_mount(c"/dev", libc::MOUNT_ATTR_RDONLY, 0).step(step)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), "/dev/pts", Some("devpts"), flags, Some("newinstance,ptmxmode=0666,mode=0620")).step(step)
}

/// The folders that lead to `paths`, those nearer the root first.
fn ancestors(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    paths
        .iter()
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|folder| folder.parent().is_some())
        .map(Path::to_owned)
        .collect()
}

pub(crate) fn existing(paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().filter_map(|path| path.canonicalize().ok()).collect()
}

fn tmpfs(at: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))?)
}

/// Every credential folder and file of the built-in profiles that is there, whatever a workspace holds.
pub(crate) fn known_credentials() -> Vec<PathBuf> {
    let names: Vec<String> = CREDENTIALS.iter().filter_map(|path| path.strip_prefix("~/")).map(str::to_owned).collect();
    existing(&credentials(&homes(), &names))
}

/// Every home folder that this process knows of.
fn homes() -> Vec<PathBuf> {
    let mut homes = vec![PathBuf::from("/root")];
    homes.extend(fs::read_dir("/home").into_iter().flatten().flatten().map(|entry| entry.path()));
    homes.extend(std::env::var_os("HOME").map(PathBuf::from));
    // The user that commands run as, and services, live elsewhere.
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    homes.extend(users.lines().filter_map(|line| line.split(':').nth(5)).map(PathBuf::from));
    homes.sort();
    homes.dedup();
    homes
}

/// Existing credential folders and files of every home that this process can look into.
fn credentials(homes: &[PathBuf], names: &[String]) -> Vec<PathBuf> {
    homes.iter().flat_map(|home| credentials_in(home, names)).collect()
}

/// Looks from the home itself: most homes of services do not exist, and the way to one is walked once.
fn credentials_in(home: &Path, names: &[String]) -> Vec<PathBuf> {
    let Ok(folder) = open(home, FOLDER, Mode::empty()) else { return Vec::new() };
    let is_there = |name: &&String| fstatat(&folder, name.as_str(), AtFlags::empty()).is_ok();
    names.iter().filter(is_there).map(|name| home.join(name)).collect()
}
