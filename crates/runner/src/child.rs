//! The last steps before the shell: give up every right, then become it. Nothing here can be undone by the command.
//!
//! 1. [`prepare_walls`], before the run is known.
//! 2. [`give_up_rights`], once it is, after [`crate::confine::finish_view`].
//! 3. [`become_shell`].

use std::ffi::CString;
use std::io;

use caps::CapSet;
use landlock::{RulesetCreated, RulesetError};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::fstat;
use nix::unistd::{Gid, Uid, execve, fchdir, setgid, setgroups, setsid, setuid};
use provara_domain::{Access, Mechanism, Resource as Limited, ResourceLimits, SpawnFailure};
use seccompiler::BpfProgram;

use crate::advice::advice;
use crate::binding::dev_ino;
use crate::calls::filters;
use crate::confine::{Failed, Seen, Step as _, held};
use crate::files;
use crate::protocol::{Frame, Spec, User, View};
use crate::sys;

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
/// `limits` are those that no control group holds.
pub(crate) fn prepare_walls(frame: Frame, limits: ResourceLimits) -> Result<(Walls, Vec<Mechanism>), NotStarted> {
    let mut made = Vec::new();
    setsid().step("begin a session")?;
    // One and not zero: where cores go to a program, the kernel starts it whatever the limit, but for this value.
    limit(Resource::RLIMIT_CORE, 1).step("forbid core dumps")?;
    let mut made_limits = vec!["no core dumps".to_owned()];
    let asked = [
        (Resource::RLIMIT_NOFILE, Limited::OpenFiles, "open files"),
        // Counted over all of the user's, so it bounds a fork bomb and not an honest build.
        (Resource::RLIMIT_NPROC, Limited::Processes, "processes"),
        (Resource::RLIMIT_FSIZE, Limited::FileSize, "file size"),
        (Resource::RLIMIT_CPU, Limited::Cpu, "processor seconds"),
    ];
    for (resource, limited, what) in asked {
        if let Some(most) = limits.get(limited) {
            let most = limit(resource, most).step(&format!("limit {what}"))?;
            made_limits.push(format!("{what} {most}"));
        }
    }
    made.push(held("rlimits", &made_limits.join(", ")));
    drop_bounding().step("empty the capability bounding set")?;
    sys::lock_securebits().step("lock the ways by which a user ID gives rights")?;
    made.push(held("securebits", "uid 0 gives no capability, none is ambient; locked"));
    let landlock = match frame.view {
        View::Own => Some(files::prepare(frame.calls).map_err(no_landlock)?),
        View::Host => None,
    };
    let filters = filters(frame.calls).map_err(|error| no_seccomp(&error.to_string()))?;
    Ok((Walls { landlock, filters }, made))
}

/// Gives up every right that the profile does not grant and enters the working directory. Returns what held.
pub(crate) fn give_up_rights(
    frame: Frame,
    walls: Walls,
    spec: &Spec,
    seen: &Seen,
) -> Result<Vec<Mechanism>, NotStarted> {
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
        made.push(files::raise(ruleset, frame.calls, seen).map_err(no_landlock)?);
    }
    for filter in &walls.filters {
        seccompiler::apply_filter(filter).map_err(|error| no_seccomp(&error.to_string()))?;
    }
    made.push(held(
        "seccomp",
        "no mounts, namespaces, tracing, keys, modules, clocks, io_uring, raw and unusual sockets, TIOCSTI, x32 calls",
    ));
    Ok(made)
}

/// Sets a limit and returns it. The operator's own limit may be stricter already, and an ordinary user cannot raise it.
fn limit(resource: Resource, wanted: u64) -> io::Result<u64> {
    let (_, hard) = getrlimit(resource)?;
    let most = wanted.min(hard);
    // At the end of its time the kernel first says so, and a second later ends whoever did not listen.
    let end = if resource == Resource::RLIMIT_CPU { most.saturating_add(1).min(hard) } else { most };
    setrlimit(resource, most, end)?;
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
        Err(cause) => {
            let advice = match spec.files.everywhere {
                Access::Hidden => {
                    "; of the host the command sees what its profile names: add `/usr`, `/bin`, `/lib` and \
                                   `/lib64` to `readable`"
                }
                Access::Read | Access::Write => "",
            };
            missing(format!("could not start {}: {cause}{advice}", program.to_string_lossy()))
        }
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

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn no_landlock(error: RulesetError) -> NotStarted {
    NotStarted { failure: SpawnFailure::Confinement, message: format!("could not apply Landlock: {error}") }
}

fn no_seccomp(error: &str) -> NotStarted {
    NotStarted { failure: SpawnFailure::Confinement, message: format!("could not apply seccomp: {error}") }
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
