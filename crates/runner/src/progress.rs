//! How far a run is, for whoever watches it. What is counted here binds nobody: the record of a run tells what it was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use provara_domain::Stream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Since it was handed over to its processes.
    pub elapsed: Duration,
    /// Bytes that it wrote to standard output so far.
    pub stdout_bytes: u64,
    /// Bytes that it wrote to standard error so far.
    pub stderr_bytes: u64,
    /// How many processes it had when that was last asked, where this host counts them.
    pub processes: Option<u64>,
}

/// Looks at a run from outside. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct RunWatch(pub(crate) Arc<Live>);

impl RunWatch {
    /// Asks how many processes the run has. The answer comes later, and with the next look if it is slow.
    pub fn ask(&self) {
        self.0.asked.notify_one();
    }

    /// Returns how far the run is, while it goes on.
    pub fn progress(&self) -> Option<Progress> {
        let live = &self.0;
        let begun = live.begun.get()?;
        if live.ended.get().is_some() {
            return None;
        }
        let processes = live.processes.load(Ordering::Relaxed);
        Some(Progress {
            elapsed: begun.elapsed(),
            stdout_bytes: live.stdout.load(Ordering::Relaxed),
            stderr_bytes: live.stderr.load(Ordering::Relaxed),
            processes: (processes != UNCOUNTED).then_some(processes),
        })
    }
}

/// What [`Live::processes`] is where nothing was counted.
const UNCOUNTED: u64 = u64::MAX;

/// What is counted while a run goes on.
#[derive(Debug)]
pub(crate) struct Live {
    begun: OnceLock<Instant>,
    ended: OnceLock<()>,
    stdout: AtomicU64,
    stderr: AtomicU64,
    processes: AtomicU64,
    pub(crate) asked: Notify,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            begun: OnceLock::new(),
            ended: OnceLock::new(),
            stdout: AtomicU64::new(0),
            stderr: AtomicU64::new(0),
            processes: AtomicU64::new(UNCOUNTED),
            asked: Notify::new(),
        }
    }
}

impl Live {
    pub(crate) fn begin(&self) {
        let _ = self.begun.set(Instant::now());
    }

    /// From now on there is nothing to be told.
    pub(crate) fn end(&self) {
        let _ = self.ended.set(());
    }

    pub(crate) fn wrote(&self, stream: Stream, bytes: u64) {
        let counted = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        counted.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn has(&self, processes: u64) {
        self.processes.store(processes, Ordering::Relaxed);
    }
}
