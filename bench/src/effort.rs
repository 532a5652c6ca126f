//! How much of everything is measured.

use std::time::Duration;

use crate::args::Wanted;

/// How much of everything is measured.
#[derive(Debug, Clone)]
pub(crate) struct Effort {
    /// How long each load lasts.
    pub(crate) load: Duration,
    /// Plans in the short queue.
    pub(crate) short: u32,
    /// Plans in the long queue.
    pub(crate) long: u32,
    /// Clients of a loaded plan route, fewest first.
    pub(crate) planners: &'static [u32],
    /// Clients of the routes that read, fewest first.
    pub(crate) askers: &'static [u32],
    /// Approvals, one after the other.
    pub(crate) approvals: u32,
    /// Confined commands, one after the other.
    pub(crate) confined: u32,
    /// Approvals at once.
    pub(crate) at_once: u32,
    /// What each of those sleeps.
    pub(crate) sleep: Duration,
    /// Readers of the events, fewest first.
    pub(crate) readers: &'static [u32],
    /// Plans that each crowd of readers is shown.
    pub(crate) shown: u32,
    /// Bytes of the large output.
    pub(crate) output: u64,
}

impl Effort {
    pub(crate) fn of(wanted: &Wanted) -> Self {
        let usual = Self {
            load: Duration::from_secs(3),
            short: 1000,
            long: 10_000,
            planners: &[1, 16, 64],
            askers: &[1, 16],
            approvals: 60,
            confined: 200,
            at_once: 32,
            sleep: Duration::from_millis(500),
            readers: &[100, 1000],
            shown: 30,
            output: 100_000_000,
        };
        let effort = match (wanted.quick, wanted.full) {
            (true, _) => Self {
                load: Duration::from_millis(150),
                short: 50,
                long: 200,
                planners: &[1, 4],
                askers: &[1, 4],
                approvals: 4,
                confined: 4,
                at_once: 4,
                sleep: Duration::from_millis(100),
                readers: &[5, 20],
                shown: 4,
                output: 1_000_000,
            },
            (false, true) => {
                Self { load: Duration::from_secs(6), long: 100_000, approvals: 200, confined: 600, shown: 60, ..usual }
            }
            (false, false) => usual,
        };
        let long = wanted.pending.unwrap_or(effort.long);
        Self { long, short: effort.short.min(long), ..effort }
    }
}
