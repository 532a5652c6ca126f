//! The lifecycle: one table. The store's guards and the documents' diagram are made from it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for a decision.
    Pending,
    /// Somebody said yes; not claimed yet.
    Approved,
    /// Claimed; a run exists.
    Running,
    /// The run ended and its outcome is known.
    Finished,
    /// We died while it ran, and must not pretend to know how it ended.
    Lost,
    /// Somebody said no.
    Denied,
    /// Policy said no.
    Blocked,
    /// Nobody answered in time, or the approval was not claimed while it was valid. Not a denial.
    Expired,
    /// The agent took it back before a decision.
    Withdrawn,
    /// An approver edited it: a new plan, linked to this one, carries the edit.
    Superseded,
    /// Stopped after the approval and before the run.
    Cancelled,
}

impl Status {
    /// Every status, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Pending,
        Self::Approved,
        Self::Running,
        Self::Finished,
        Self::Lost,
        Self::Denied,
        Self::Blocked,
        Self::Expired,
        Self::Withdrawn,
        Self::Superseded,
        Self::Cancelled,
    ];

    /// What a new plan may begin as.
    pub const INITIAL: [Self; 2] = [Self::Pending, Self::Blocked];

    /// Returns what may follow. The one truth about the lifecycle.
    pub const fn next(self) -> &'static [Self] {
        use Status::*;
        match self {
            Pending => &[Approved, Denied, Expired, Withdrawn, Superseded, Blocked],
            Approved => &[Running, Cancelled, Expired, Blocked],
            Running => &[Finished, Lost],
            // Only by the runner that held the claim, delivering its journal late; both events stay.
            Lost => &[Finished],
            Finished | Denied | Blocked | Expired | Withdrawn | Superseded | Cancelled => &[],
        }
    }

    /// Returns whether `to` may follow.
    pub fn may_become(self, to: Self) -> bool {
        self.next().contains(&to)
    }

    /// Returns every status that `self` may follow: what a guarded transition accepts.
    pub fn previous(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |from| from.may_become(self))
    }

    /// Returns whether nothing more will happen of itself. `Lost` counts: only a late journal can still speak.
    pub const fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::Approved | Self::Running)
    }

    /// Returns the status's word in tables and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Lost => "lost",
            Self::Denied => "denied",
            Self::Blocked => "blocked",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the status that `raw` names, if any.
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == raw)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("Pending"), None);
    }

    #[test]
    fn nothing_returns_to_a_state_in_which_it_could_run_again() {
        for status in Status::ALL.into_iter().filter(|s| s.is_settled()) {
            let mut reachable = vec![status];
            let mut next = 0;
            while let Some(from) = reachable.get(next).copied() {
                reachable.extend(from.next());
                next += 1;
            }
            assert!(!reachable.contains(&Status::Running), "{status} can run again");
            assert!(!reachable.contains(&Status::Approved), "{status} can be approved again");
        }
    }

    #[test]
    fn only_a_decision_leads_to_a_run() {
        assert_eq!(Status::Running.previous().collect::<Vec<_>>(), [Status::Approved]);
        assert_eq!(Status::Approved.previous().collect::<Vec<_>>(), [Status::Pending]);
    }
}
