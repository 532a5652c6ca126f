//! What the kernel tells of processes and of the machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::statfs;

/// One tick of `/proc/PID/stat`: `USER_HZ` is 100 on every machine that Provara runs on.
const TICK: Duration = Duration::from_millis(10);

/// Returns the CPU time that a process has used.
pub(crate) fn cpu(process: u32) -> Option<Duration> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let ticks: u32 = after_name(&line)?.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    Some(TICK * ticks)
}

/// Returns the memory that a process holds, in KiB.
pub(crate) fn resident(process: u32) -> Option<u32> {
    kib(process, "VmRSS:")
}

/// Returns the most memory that a process has held since [`forget_peak`], in KiB.
pub(crate) fn peak(process: u32) -> Option<u32> {
    kib(process, "VmHWM:")
}

/// Lets a process' peak begin anew.
pub(crate) fn forget_peak(process: u32) -> Option<()> {
    fs::write(format!("/proc/{process}/clear_refs"), "5").ok()
}

/// Returns the children of a process.
pub(crate) fn children(process: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|child| parent(*child) == Some(process)).collect()
}

fn parent(process: u32) -> Option<u32> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    after_name(&line)?.nth(1)?.parse().ok()
}

/// The fields of a `stat` line from the state on. The name before them may hold anything, brackets too.
fn after_name(line: &str) -> Option<impl Iterator<Item = &str>> {
    Some(line.rsplit_once(')')?.1.split_whitespace())
}

fn kib(process: u32, field: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What all processors have done, in ticks.
pub(crate) struct Busy {
    idle: u32,
    all: u32,
}

impl Busy {
    /// Returns the counts as they stand, of the low 32 bits: only differences count.
    pub(crate) fn now() -> Option<Self> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let fields: Vec<u32> = text
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .filter_map(|field| u32::try_from(field.parse::<u64>().ok()? & u64::from(u32::MAX)).ok())
            .take(8)
            .collect();
        let idle = fields.get(3)?.wrapping_add(*fields.get(4)?);
        Some(Self { idle, all: fields.iter().fold(0, |sum, field| sum.wrapping_add(*field)) })
    }

    /// Returns the idle share of all processors since `earlier`, 0 to 1.
    pub(crate) fn idle_since(&self, earlier: &Self) -> Option<f64> {
        let (idle, all) = (self.idle.wrapping_sub(earlier.idle), self.all.wrapping_sub(earlier.all));
        (all > 0).then(|| f64::from(idle.min(all)) / f64::from(all))
    }
}

/// Returns the kernel's version, without what a distribution adds.
pub(crate) fn kernel() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let numbers: Vec<&str> = release.trim().split(['.', '-']).take(2).collect();
    Some(numbers.join("."))
}

/// Returns the machine's memory in MiB.
pub(crate) fn memory_mib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Returns the kind of the file system that holds `path`.
pub(crate) fn filesystem(path: &Path) -> &'static str {
    let Ok(found) = statfs::statfs(path) else { return "unknown" };
    let kind = found.filesystem_type();
    let known = [
        (statfs::EXT4_SUPER_MAGIC, "ext4"),
        (statfs::XFS_SUPER_MAGIC, "xfs"),
        (statfs::BTRFS_SUPER_MAGIC, "btrfs"),
        (statfs::TMPFS_MAGIC, "tmpfs"),
        (statfs::OVERLAYFS_SUPER_MAGIC, "overlayfs"),
        (statfs::NFS_SUPER_MAGIC, "nfs"),
    ];
    known.into_iter().find(|(magic, _)| *magic == kind).map_or("another", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_and_spaces_hides_no_field() {
        let line = "7 (a) b 1 (c)) S 3 7 7 0 -1 4194560 1 0 0 0 11 22 0 0 20 0 1 0";
        let fields: Vec<&str> = after_name(line).unwrap().collect();
        assert_eq!((fields[0], fields[1], fields[11], fields[12]), ("S", "3", "11", "22"));
        assert!(after_name("nonsense").is_none());
    }

    #[test]
    fn this_process_is_told_of() {
        let own = std::process::id();
        assert!(resident(own).unwrap() > 100);
        assert!(peak(own).unwrap() >= resident(own).unwrap() / 2);
        assert!(cpu(own).is_some());
        assert!(children(parent(own).unwrap()).contains(&own));
        assert_eq!(cpu(u32::MAX), None);
    }

    #[test]
    fn the_idle_share_is_of_what_passed_and_survives_a_wrap() {
        let earlier = Busy { idle: u32::MAX - 9, all: u32::MAX - 19 };
        let now = Busy { idle: 20, all: 20 };
        assert_eq!(now.idle_since(&earlier), Some(30.0 / 40.0));
        assert_eq!(now.idle_since(&Busy { idle: 0, all: 20 }), None);
    }
}
