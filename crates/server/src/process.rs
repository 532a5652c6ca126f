//! The process as Linux tells of it, under the names that Prometheus' own libraries use.

use std::fs;

use provara_metrics::{Kind, Page};

/// What `/proc` counts processor time in, on every architecture that we run on: it is fixed in the kernel's interface.
const TICKS_A_SECOND: f64 = 100.0;

/// Adds what the system tells; a value that it does not tell is absent.
pub(crate) fn write(page: &mut Page) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let mut add = |name, kind, help, value: Option<f64>| {
        let mut family = page.family(name, kind, help);
        value.into_iter().for_each(|value| family.sample(&[], value));
    };
    let bytes = |name| kib(name).and_then(|kib| u32::try_from(kib).ok()).map(|kib| f64::from(kib) * 1024.0);
    add("process_resident_memory_bytes", Kind::Gauge, "Memory that the process holds.", bytes("VmRSS"));
    add("process_virtual_memory_bytes", Kind::Gauge, "Address space of the process.", bytes("VmSize"));
    add("process_cpu_seconds_total", Kind::Counter, "Processor time that the process used.", cpu_seconds());
    let open = fs::read_dir("/proc/self/fd").ok().and_then(|all| u32::try_from(all.count()).ok());
    add("process_open_fds", Kind::Gauge, "Open file descriptors.", open.map(f64::from));
    let limit = fs::read_to_string("/proc/self/limits").ok().and_then(|limits| soft_limit(&limits, "Max open files"));
    add("process_max_fds", Kind::Gauge, "File descriptors that may be open.", limit.map(f64::from));
}

/// The soft limit called `name`; nothing where there is none.
fn soft_limit(limits: &str, name: &str) -> Option<u32> {
    limits.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

fn cpu_seconds() -> Option<f64> {
    ticks(&fs::read_to_string("/proc/self/stat").ok()?).map(|ticks| f64::from(ticks) / TICKS_A_SECOND)
}

/// User and system time. The program's name stands before them and may hold anything, a parenthesis and spaces too.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u32>);
    times.next()?.ok()?.checked_add(times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_an_odd_name_is_read_right() {
        let stat = "42 (a) b (c) 9) S 1 42 42 0 -1 4194560 3000 0 0 0 150 27 0 0 20 0 9 0 123456 1000 200";
        assert_eq!(ticks(stat), Some(177));
        assert_eq!(ticks("42 (a"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max cpu time              unlimited            unlimited            seconds   \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!((soft_limit(limits, "Max open files"), soft_limit(limits, "Max cpu time")), (Some(1024), None));
    }
}
