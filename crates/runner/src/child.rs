//! The last steps before the shell: give up every right, then become it. Nothing here can be undone by the command.
//!
//! 1. [`prepare_walls`], before the run is known.
//! 2. [`give_up_rights`], once it is, after [`crate::confine::finish_view`].
//! 3. [`become_shell`].

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::Path;

use caps::CapSet;
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::fstat;
use nix::unistd::{Gid, Uid, execve, fchdir, setgid, setgroups, setsid, setuid};
use provara_domain::{Mechanism, SpawnFailure};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::advice::advice;
use crate::binding::dev_ino;
use crate::confine::{Failed, Step as _, held};
use crate::protocol::{Frame, Spec, User};

/// Why the shell was not started.
pub(crate) struct NotStarted {
    pub(crate) failure: SpawnFailure,
    pub(crate) message: String,
}

impl From<Failed> for NotStarted {
    fn from(failed: Failed) -> Self {
        Self { failure: SpawnFailure::Confinement, message: format!("could not {}: {}", failed.step, failed.cause) }
    }
}

impl NotStarted {
    /// Something is not what was approved.
    pub(crate) fn changed(what: &str) -> Self {
        let message = format!("{what}; re-open the plan to have it measured and decided anew");
        Self { failure: SpawnFailure::Changed, message }
    }

    /// Adds what the operator can do where the confinement could not be had.
    pub(crate) fn advised(mut self, user: User) -> Self {
        if self.failure == SpawnFailure::Confinement {
            self.message = format!("{}; {}", self.message, advice(user));
        }
        self
    }
}

/// What stands ready to be raised around a command.
pub(crate) struct Walls {
    /// None where everything is open to the command but Provara's own files.
    landlock: Option<RulesetCreated>,
    filters: Vec<BpfProgram>,
}

/// Gives up what no run needs, and makes ready what takes the rest: the steps that do not depend on a specification.
/// Afterwards this process may still mount and change its user.
pub(crate) fn prepare_walls(frame: Frame) -> Result<(Walls, Vec<Mechanism>), NotStarted> {
    let mut made = Vec::new();
    setsid().step("begin a session")?;
    limit(Resource::RLIMIT_CORE, 0).step("forbid core dumps")?;
    let files = limit(Resource::RLIMIT_NOFILE, MAX_FILES).step("limit open files")?;
    // Counted over all processes of the user, so it bounds a fork bomb and not an honest build.
    let processes = limit(Resource::RLIMIT_NPROC, MAX_PROCESSES).step("limit processes")?;
    made.push(held("rlimits", &format!("core 0, open files {files}, processes {processes}")));
    drop_bounding().step("empty the capability bounding set")?;
    let landlock = if frame.confined { Some(prepare_landlock().map_err(no_landlock)?) } else { None };
    let filters = filters().map_err(|error| no_seccomp(&error.to_string()))?;
    Ok((Walls { landlock, filters }, made))
}

/// Gives up every right that the profile does not grant and enters the working directory. Returns what held.
pub(crate) fn give_up_rights(frame: Frame, walls: Walls, spec: &Spec) -> Result<Vec<Mechanism>, NotStarted> {
    let mut made = Vec::new();
    let user = frame.user;
    if user.from_root {
        let gid = Gid::from_raw(user.gid);
        setgroups(&[gid]).step("leave root's groups")?;
        setgid(gid).step("change the group")?;
        setuid(Uid::from_raw(user.uid)).step("change the user")?;
        made.push(held("user", &format!("uid {} gid {}", user.uid, user.gid)));
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        clear_caps(set).step("drop capabilities")?;
    }
    made.push(held("capabilities_dropped", "all, bounding set included"));
    prctl::set_no_new_privs().step("forbid new privileges")?;
    made.push(held("no_new_privs", ""));
    prctl::set_dumpable(false).step("forbid tracing")?;
    // As the user that the command will be: a folder that it may not enter is refused here and not reached around.
    enter(spec)?;
    if let Some(ruleset) = walls.landlock {
        made.push(landlock(ruleset, spec).map_err(no_landlock)?);
    }
    for filter in &walls.filters {
        seccompiler::apply_filter(filter).map_err(|error| no_seccomp(&error.to_string()))?;
    }
    made.push(held(
        "seccomp",
        "no mounts, namespaces, tracing, keys, modules, io_uring, unusual sockets, TIOCSTI, x32 calls",
    ));
    Ok(made)
}

/// Sets a limit and returns it. The operator's own limit may be stricter already, and an ordinary user cannot raise it.
fn limit(resource: Resource, wanted: u64) -> io::Result<u64> {
    let (_, hard) = getrlimit(resource)?;
    let most = wanted.min(hard);
    setrlimit(resource, most, most)?;
    Ok(most)
}

/// Becomes the shell. Only returns when that failed.
pub(crate) fn become_shell(spec: &Spec) -> NotStarted {
    let missing = |message: String| NotStarted { failure: SpawnFailure::Missing, message };
    let strings = |all: &mut dyn Iterator<Item = String>| all.map(CString::new).collect::<Result<Vec<_>, _>>();
    let (Ok(arguments), Ok(environment)) = (
        strings(&mut spec.arguments.iter().cloned()),
        strings(&mut spec.environment.iter().map(|(name, value)| format!("{name}={value}"))),
    ) else {
        return NotStarted { failure: SpawnFailure::Refused, message: "an argument has a NUL character".into() };
    };
    let Some(program) = arguments.first() else { return missing("no shell was named".into()) };
    match execve(program, &arguments, &environment) {
        Err(cause) => missing(format!("could not start {}: {cause}", program.to_string_lossy())),
    }
}

/// Enters the working directory without following any link: below the workspace it is what its name says.
fn enter(spec: &Spec) -> Result<(), NotStarted> {
    let explain = |cause| unusable("working directory", cause);
    let how = OpenHow::new().flags(FOLDER).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let workspace = openat2(AT_FDCWD, spec.workspace.as_str(), how).map_err(|cause| unusable("workspace", cause))?;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let relative = if spec.cwd.is_empty() { "." } else { spec.cwd.as_str() };
    let folder = openat2(&workspace, relative, OpenHow::new().flags(FOLDER).resolve(resolve)).map_err(explain)?;
    let found = fstat(&folder).map_err(explain)?;
    if spec.cwd_dev_ino.as_ref().is_some_and(|approved| *approved != dev_ino(found.st_dev, found.st_ino)) {
        return Err(NotStarted::changed("the working directory is another folder now"));
    }
    fchdir(&folder).map_err(explain)
}

pub(crate) const FOLDER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

pub(crate) fn unusable(what: &str, cause: nix::Error) -> NotStarted {
    let failure = match cause {
        nix::Error::ENOENT | nix::Error::ENOTDIR => SpawnFailure::Missing,
        _ => SpawnFailure::Refused,
    };
    let why = match cause {
        nix::Error::ELOOP | nix::Error::EXDEV => "it leads through a symbolic link".to_owned(),
        other => other.desc().to_lowercase(),
    };
    NotStarted { failure, message: format!("cannot use the {what}: {why}") }
}

const ACCESS: ABI = ABI::V6;

/// A second wall behind the mounts: writing only below the workspace and in the private folders.
fn prepare_landlock() -> Result<RulesetCreated, RulesetError> {
    let writable = ["/tmp", "/var/tmp", "/dev", "/proc"].into_iter().filter(|path| Path::new(path).exists());
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ACCESS))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(["/"], AccessFs::from_read(ACCESS)))?
        .add_rules(path_beneath_rules(writable, AccessFs::from_all(ACCESS)))
}

fn landlock(prepared: RulesetCreated, spec: &Spec) -> Result<Mechanism, RulesetError> {
    let workspace = path_beneath_rules([spec.workspace.as_str()], AccessFs::from_all(ACCESS));
    let status = prepared.add_rules(workspace)?.restrict_self()?;
    let (held, detail) = match status.ruleset {
        RulesetStatus::FullyEnforced => (true, "files, abstract sockets and signals".to_owned()),
        RulesetStatus::PartiallyEnforced => (true, "in part: this kernel has an older version".to_owned()),
        // The mounts hold without it; the record says that this second wall is missing.
        RulesetStatus::NotEnforced => (false, "this kernel has no Landlock".to_owned()),
    };
    Ok(Mechanism { name: "landlock".into(), held, detail })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn no_landlock(error: RulesetError) -> NotStarted {
    NotStarted { failure: SpawnFailure::Confinement, message: format!("could not apply Landlock: {error}") }
}

fn no_seccomp(error: &str) -> NotStarted {
    NotStarted { failure: SpawnFailure::Confinement, message: format!("could not apply seccomp: {error}") }
}

/// How many files each process of a command may hold open.
const MAX_FILES: u64 = 4096;
/// How many processes the user that commands run as may have.
const MAX_PROCESSES: u64 = 4096;

/// System calls that no command needs and that widen what it could do.
const FORBIDDEN: [i64; 39] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// x32 programs call the same kernel by other numbers under the same architecture's name, so no rule by number would
/// meet them. The rules themselves end a process that calls as another architecture.
fn no_second_numbering() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const X32: u32 = 0x4000_0000;
    const NUMBER: u32 = 0; // where `struct seccomp_data` has the call's number
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD_WORD, 0, 0, NUMBER),
        step(JUMP_GREATER_EQUAL, 0, 1, X32),
        step(RETURN, 0, 0, u32::from(SeccompAction::Errno(1))),
        step(RETURN, 0, 0, u32::from(SeccompAction::Allow)),
    ]
}

/// In the order in which they are applied.
fn filters() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let numbering = cfg!(target_arch = "x86_64").then(no_second_numbering);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN.into_iter().map(|call| (call, vec![])).collect();
    let argument = |index, operator, value: i64| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, u64::try_from(value).unwrap_or(0))
    };
    // Only the address families that ordinary programs use.
    let usual = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let unusual = usual
        .into_iter()
        .map(|family| argument(0, SeccompCmpOp::Ne, i64::from(family)))
        .collect::<Result<Vec<_>, _>>()?;
    // Of netlink only what name resolution and `ip` read. The rest (netfilter, audit, device events) serves nobody without
    // capabilities, and has been the way into the kernel too often.
    let netlink = vec![
        argument(0, SeccompCmpOp::Eq, i64::from(libc::AF_NETLINK))?,
        argument(2, SeccompCmpOp::Ne, i64::from(libc::NETLINK_ROUTE))?,
    ];
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(unusual)?, SeccompRule::new(netlink)?]);
    let stuff = i64::try_from(libc::TIOCSTI).unwrap_or(0);
    let console = 0x541c; // TIOCLINUX, the other way to type into a terminal.
    rules.insert(
        libc::SYS_ioctl,
        vec![
            SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, stuff)?])?,
            SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, console)?])?,
        ],
    );
    let namespaces = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let clones = namespaces
        .into_iter()
        .map(|flag| {
            let bit = u64::try_from(flag).unwrap_or(0);
            SeccompRule::new(vec![argument(0, SeccompCmpOp::MaskedEq(bit), i64::from(flag))?])
        })
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_clone, clones);
    // clone3 hides its flags behind a pointer, which a filter cannot follow; programs fall back to clone.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    let rest = [filter(rules, libc::EPERM)?, filter(clone3, libc::ENOSYS)?];
    Ok(numbering.into_iter().chain(rest).collect())
}

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    let refuse = SeccompAction::Errno(u32::try_from(errno).unwrap_or(1));
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
}

fn drop_bounding() -> io::Result<()> {
    // A kernel does not know every capability that the library names, so it is asked for those it has.
    let held = caps::read(None, CapSet::Bounding).map_err(|error| io::Error::other(error.to_string()))?;
    for capability in held {
        caps::drop(None, CapSet::Bounding, capability).map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(())
}

fn clear_caps(set: CapSet) -> io::Result<()> {
    caps::clear(None, set).map_err(|error| io::Error::other(error.to_string()))
}
