//! Control groups: how much all processes of a run may have together, and what they had.
//!
//! A run gets a group of its own wherever the kernel lets us make one: below the group that holds the server's (version 2,
//! where a service manager delegated it and keeps the server in a group called `server`), or below the server's own in each
//! hierarchy of version 1. What counts is whether a group could be made and entered, and not what a version promises.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use provara_domain::{Limit, Mechanism, Resource, ResourceLimits};

use crate::confine::held;

/// The name of the group that a service manager keeps the server in, beside those of the runs.
const SERVERS: &str = "server";
const PREFIX: &str = "provara-";

/// Where groups of runs can be made.
#[derive(Debug, Default)]
pub(crate) struct Delegated {
    memory: Option<(Version, PathBuf)>,
    processes: Option<(Version, PathBuf)>,
    cpu: Option<(Version, PathBuf)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Delegated {
    /// Finds them from what the kernel says of this process, and removes the groups of helpers that are gone.
    pub(crate) fn find() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let find =
            |controller| place_of(controller, &own, &mounts).filter(|(version, at)| usable(*version, at, controller));
        let found =
            Self { memory: find("memory"), processes: find("pids"), cpu: find("cpuacct").or_else(|| find("cpu")) };
        for (_, at) in [&found.memory, &found.processes, &found.cpu].into_iter().flatten() {
            sweep(at);
        }
        found
    }
}

impl Delegated {
    /// Removes the groups that a dead supervisor of this helper has left.
    pub(crate) fn remove_of(&self, supervisor: Pid) {
        let name = format!("{PREFIX}{}-{supervisor}", std::process::id());
        for (_, at) in [&self.memory, &self.processes, &self.cpu].into_iter().flatten() {
            let _ = fs::remove_dir(at.join(&name));
        }
    }
}

/// Returns where groups for `controller` would be made.
fn place_of(controller: &str, own: &str, mounts: &str) -> Option<(Version, PathBuf)> {
    let mut two = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        if controllers.split(',').any(|known| known == controller) {
            return Some((Version::One, mounted("cgroup", controller, path, mounts)?));
        }
        if controllers.is_empty() {
            two = Some(path);
        }
    }
    let at = mounted("cgroup2", "", two?, mounts)?;
    // A group that holds processes may not share out controllers, so the server has to be in one beside its runs'.
    (at.file_name()? == SERVERS).then(|| at.parent().map(|parent| (Version::Two, parent.to_owned())))?
}

/// Returns the folder that shows the group `path` of the hierarchy that is mounted as `kind` with `option`.
fn mounted(kind: &str, option: &str, path: &str, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, rest) = line.split_once(" - ")?;
        let mut rest = rest.split(' ');
        let (found, options) = (rest.next()?, rest.nth(1)?);
        if found != kind || !(option.is_empty() || options.split(',').any(|known| known == option)) {
            return None;
        }
        let mut place = place.split(' ').skip(3);
        let (root, at) = (place.next()?, place.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        Some(Path::new(at).join(below))
    })
}

/// Whether a group can really be made there, with this controller.
fn usable(version: Version, at: &Path, controller: &str) -> bool {
    if version == Version::Two && fs::write(at.join("cgroup.subtree_control"), format!("+{controller}")).is_err() {
        return false;
    }
    let trial = at.join(format!("{PREFIX}{}-trial", std::process::id()));
    let made = fs::create_dir(&trial).is_ok();
    let open = fs::File::options().write(true).open(trial.join("cgroup.procs")).is_ok();
    made && fs::remove_dir(&trial).is_ok() && open
}

/// Removes the groups of helpers that are gone. One with processes in it stays: the kernel refuses.
fn sweep(at: &Path) {
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let helper = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok());
        if let Some(helper) = helper
            && kill(Pid::from_raw(helper), None) == Err(nix::Error::ESRCH)
        {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// A run's groups, as its supervisor and its first process hold them: by descriptors, since the run's view covers the folders.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    folders: Vec<PathBuf>,
    doors: Vec<File>,
    memory_peak: Option<File>,
    /// Counts the processes that were killed for want of memory.
    memory_events: Option<File>,
    processes_peak: Option<File>,
    processes_now: Option<File>,
    processes_events: Option<File>,
    cpu: Option<(Version, File)>,
    detail: Vec<String>,
    versions: Vec<Version>,
    /// Whether the group bounds the number of processes.
    processes: Held,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Held {
    Here,
    #[default]
    Elsewhere,
}

impl Groups {
    /// Makes the groups of a run. `helper` is the helper's process number, by which they are named.
    ///
    /// # Errors
    /// When a limit that only a group can hold cannot be set.
    pub(crate) fn make(delegated: &Delegated, helper: u32, limits: ResourceLimits) -> Result<Self, String> {
        let name = format!("{PREFIX}{helper}-{}", std::process::id());
        let mut made = Self::default();
        let done = made.fill(delegated, &name, limits);
        if let Err(error) = done {
            made.remove();
            return Err(format!("could not limit what a run may have by a control group: {error}; {ADVICE}"));
        }
        if limits.get(Resource::Memory).is_some() && made.memory_peak.is_none() {
            made.remove();
            return Err(format!("could not limit memory: no control group can be made here; {ADVICE}"));
        }
        Ok(made)
    }

    fn fill(&mut self, delegated: &Delegated, name: &str, limits: ResourceLimits) -> io::Result<()> {
        if let Some((version, at)) = &delegated.memory {
            self.versions.push(*version);
            let at = self.folder(at.join(name))?;
            let [limit, swap, peak, events] = match version {
                Version::One => [
                    "memory.limit_in_bytes",
                    "memory.memsw.limit_in_bytes",
                    "memory.max_usage_in_bytes",
                    "memory.oom_control",
                ],
                Version::Two => ["memory.max", "memory.swap.max", "memory.peak", "memory.events"],
            };
            if let Some(most) = limits.get(Resource::Memory) {
                fs::write(at.join(limit), most.to_string())?;
                // Where the kernel counts swap: version 1 counts it together with memory, version 2 apart.
                let with_swap = if *version == Version::One { most } else { 0 };
                let _ = fs::write(at.join(swap), with_swap.to_string());
                self.detail.push(format!("memory {most}"));
            }
            self.memory_peak = File::open(at.join(peak)).ok();
            self.memory_events = File::open(at.join(events)).ok();
        }
        if let Some((version, at)) = &delegated.processes {
            self.versions.push(*version);
            let at = self.folder(at.join(name))?;
            if let Some(most) = limits.get(Resource::Processes) {
                // The run's first process is ours and not the command's.
                fs::write(at.join("pids.max"), most.saturating_add(1).to_string())?;
                self.detail.push(format!("processes {most}"));
                self.processes = Held::Here;
            }
            self.processes_now = File::open(at.join("pids.current")).ok();
            self.processes_peak = File::open(at.join("pids.peak")).ok();
            self.processes_events = File::open(at.join("pids.events")).ok();
        }
        // Of processes that are ended by force the kernel tells their parent nothing, so their time is counted here.
        if let Some((version, at)) = &delegated.cpu {
            let file = if *version == Version::One { "cpuacct.usage" } else { "cpu.stat" };
            let at = self.folder(at.join(name))?;
            self.cpu = Some((*version, File::open(at.join(file))?));
            self.detail.extend(limits.get(Resource::Cpu).map(|most| format!("processor {most} s")));
        }
        Ok(())
    }

    fn folder(&mut self, at: PathBuf) -> io::Result<PathBuf> {
        // In one hierarchy the same group has several controllers.
        if !self.folders.contains(&at) {
            fs::create_dir(&at)?;
            self.folders.push(at.clone());
            self.doors.push(File::options().write(true).open(at.join("cgroup.procs"))?);
        }
        Ok(at)
    }

    /// Puts this process, and so all that it will start, into the groups.
    pub(crate) fn enter(&mut self) -> io::Result<Option<Mechanism>> {
        for door in &mut self.doors {
            door.write_all(b"0")?;
        }
        self.doors.clear();
        let detail =
            if self.detail.is_empty() { "counted".to_owned() } else { format!("at most: {}", self.detail.join(", ")) };
        Ok((!self.folders.is_empty()).then(|| held("control_group", &detail)))
    }

    /// Returns those of `limits` that are to be held otherwise. What the user's processes are all counted for would be met
    /// by many runs together before any of them meets its own.
    pub(crate) fn unheld(&self, limits: ResourceLimits) -> ResourceLimits {
        match self.processes {
            Held::Here => limits.without(Resource::Processes),
            Held::Elsewhere => limits,
        }
    }

    /// How often to look whether a limit was met: of version 1 the kernel does not tell.
    pub(crate) fn rhythm(&self) -> Option<Duration> {
        (self.versions.contains(&Version::One) && !self.detail.is_empty()).then_some(RHYTHM)
    }

    /// What tells by POLLPRI that a limit was met.
    pub(crate) const fn news(&self) -> Option<&File> {
        self.processes_events.as_ref()
    }

    /// Which limit was met so far, if any.
    pub(crate) fn exceeded(&self) -> Option<Limit> {
        if self.memory_events.as_ref().is_some_and(|file| field(file, "oom_kill") > 0) {
            return Some(Limit::Memory);
        }
        self.processes_events.as_ref().is_some_and(|file| field(file, "max") > 0).then_some(Limit::Processes)
    }

    /// The processor time so far, in microseconds, where a group counts it.
    pub(crate) fn cpu_micros(&self) -> Option<u64> {
        match &self.cpu {
            Some((Version::One, file)) => number(file).map(|nanos| nanos / 1000),
            Some((Version::Two, file)) => Some(field(file, "usage_usec")),
            None => None,
        }
    }

    /// The most memory that all processes had together, in bytes, with what they wrote into private folders.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        self.memory_peak.as_ref().and_then(number)
    }

    /// The most processes at a time, without ours.
    pub(crate) fn processes_peak(&self) -> Option<u64> {
        self.processes_peak.as_ref().and_then(number).map(|most| most.saturating_sub(1))
    }

    /// How many processes there are, without ours.
    pub(crate) fn processes_now(&self) -> Option<u64> {
        self.processes_now.as_ref().and_then(number).map(|count| count.saturating_sub(1))
    }

    /// Removes the groups. Called by the supervisor alone, when no process of the run is left.
    pub(crate) fn remove(&self) {
        for folder in &self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Long enough to cost nothing, short enough that a fork bomb is over before anybody asks.
const RHYTHM: Duration = Duration::from_millis(250);

const ADVICE: &str = "give the service `Delegate=yes` and `DelegateSubgroup=server` in its unit, or take the limit out of \
                      the profile";

fn text(mut file: &File) -> String {
    let mut text = String::new();
    let _ = file.rewind();
    let _ = file.take(4096).read_to_string(&mut text);
    text
}

fn number(file: &File) -> Option<u64> {
    text(file).trim().parse().ok()
}

fn field(file: &File, name: &str) -> u64 {
    let text = text(file);
    let found = text.lines().filter_map(|line| line.split_once(' ')).find(|(known, _)| *known == name);
    found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        31 24 0:27 /box /sys/fs/cgroup/pids rw shared:9 - cgroup cgroup rw,pids\n\
        32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_group_of_version_1_is_found_below_its_own_hierarchy() {
        let own = "5:pids:/box/a\n4:memory:/x/y\n0::/z\n";
        let at = |path: &str| Some((Version::One, PathBuf::from(path)));
        assert_eq!(place_of("memory", own, MOUNTS), at("/sys/fs/cgroup/memory/x/y"));
        assert_eq!(place_of("pids", own, MOUNTS), at("/sys/fs/cgroup/pids/a"));
        // A group that lies outside of what is mounted has no folder.
        assert_eq!(place_of("pids", "5:pids:/elsewhere\n", MOUNTS), None);
    }

    #[test]
    fn a_group_of_version_2_is_used_only_beside_one_that_is_the_servers() {
        let two = |path: &str| Some((Version::Two, PathBuf::from(path)));
        let own = "0::/system.slice/provara.service/server\n";
        assert_eq!(place_of("memory", own, MOUNTS), two("/sys/fs/cgroup/unified/system.slice/provara.service"));
        assert_eq!(place_of("memory", "0::/system.slice/provara.service\n", MOUNTS), None);
        assert_eq!(place_of("memory", "0::/\n", MOUNTS), None);
        for hostile in ["", ":", "a:b", "0::relative/server\n", "\u{fffd}\n"] {
            assert_eq!(place_of("memory", hostile, MOUNTS), None, "{hostile}");
        }
    }
}
