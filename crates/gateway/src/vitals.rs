//! What a gateway can say about itself at this moment, for whoever watches it.

use provara_domain::Timestamp;
use provara_store::Measures;

use crate::gateway::{Gateway, Inner, lock};

/// A gateway at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// When this is.
    pub now: Timestamp,
    /// Commands that this process runs.
    pub running: usize,
    /// How many it may run at once; none where it runs no commands.
    pub max_runs: usize,
    /// Entries of the log.
    pub log_entries: u64,
    /// How far the newest checkpoint reaches and when it was signed; unknown until this process has signed one.
    pub signed: Option<(u64, Timestamp)>,
    /// How many entries the mirror holds; unknown where nobody keeps one.
    pub mirrored: Option<u64>,
}

/// How far the log is kept elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    signed: Option<(u64, Timestamp)>,
    mirrored: Option<u64>,
}

impl Gateway {
    /// Returns what was counted since the store was opened.
    pub fn measures(&self) -> &Measures {
        self.inner.store.measures()
    }

    /// Returns the gateway as it is now. Nothing is asked of the database.
    pub fn vitals(&self) -> Vitals {
        let inner = &self.inner;
        // The log last: it may grow in between, and nothing must reach further than it.
        let (signed, mirrored) = {
            let kept = lock(&inner.kept);
            (kept.signed, kept.mirrored)
        };
        Vitals {
            now: inner.platform.now(),
            running: lock(&inner.running).len(),
            max_runs: if inner.runner.is_some() { inner.config.max_runs } else { 0 },
            log_entries: self.head(),
            signed,
            mirrored,
        }
    }

    /// Notes that the mirror of the log holds its first `entries`.
    pub fn note_mirrored(&self, entries: u64) {
        lock(&self.inner.kept).mirrored = Some(entries);
    }
}

impl Inner {
    pub(crate) fn note_signed(&self, entries: u64, at: Timestamp) {
        let mut kept = lock(&self.kept);
        // Two may sign at once, and the one that covers less may come last.
        if kept.signed.is_none_or(|(known, _)| known < entries) {
            kept.signed = Some((entries, at));
        }
    }
}
