//! What a store counts. A change of the lifecycle is counted once, by the commit that made it true, and not before.

use std::time::Duration;

use provara_domain::{DecisionKind, EventBody, Outcome, Timestamp, Verdict};
use provara_metrics::{Counter, Histogram};

use crate::types::PlanRecord;

/// People answer in seconds to days.
const OF_PEOPLE: [u64; 12] = [
    1_000_000,
    5_000_000,
    15_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
    14_400_000_000,
    43_200_000_000,
    86_400_000_000,
    604_800_000_000,
];
/// A free worker starts at once; a full one, when a run ends.
const OF_STARTS: [u64; 11] =
    [1_000, 5_000, 25_000, 100_000, 500_000, 1_000_000, 5_000_000, 15_000_000, 60_000_000, 300_000_000, 600_000_000];
/// From a shell that does nothing to the longest time-out.
const OF_RUNS: [u64; 11] = [
    5_000,
    25_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
];
/// From a disk with a cache that it trusts to one that is in trouble.
const OF_COMMITS: [u64; 12] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_500_000];
/// Up to the most that one commit takes.
const OF_BATCHES: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// How a person answered a plan that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Approve,
    /// No.
    Deny,
    /// By another plan in its place.
    Edit,
}

impl Answer {
    /// Every answer.
    pub const ALL: [Self; 3] = [Self::Approve, Self::Deny, Self::Edit];

    /// Returns the answer's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Edit => "edit",
        }
    }
}

/// What a store counted since it was opened.
#[derive(Debug)]
pub struct Measures {
    /// Judgements on plans that allow, ask and deny.
    judgements: [Counter; 3],
    approvals: Counter,
    denials: Counter,
    edits: Counter,
    outcomes: [Counter; OUTCOMES.len()],
    /// From the queue to a person's answer.
    pub answered_after: Histogram,
    /// From the approval to the run.
    pub started_after: Histogram,
    /// How long commands ran that were started.
    pub ran_for: Histogram,
    /// From the first change of a commit to the disk's word that all are there.
    pub committed_within: Histogram,
    /// How many changes shared one commit.
    pub changes_a_commit: Histogram,
    /// Commits that were taken back.
    pub failed_commits: Counter,
}

/// How a run can end, `lost` included.
const OUTCOMES: [&str; 7] = ["exited", "signalled", "timed_out", "cancelled", "spawn_failed", "limit_exceeded", "lost"];

impl Measures {
    pub(crate) fn new() -> Self {
        Self {
            judgements: Default::default(),
            approvals: Counter::default(),
            denials: Counter::default(),
            edits: Counter::default(),
            outcomes: Default::default(),
            answered_after: Histogram::of_time(&OF_PEOPLE),
            started_after: Histogram::of_time(&OF_STARTS),
            ran_for: Histogram::of_time(&OF_RUNS),
            committed_within: Histogram::of_time(&OF_COMMITS),
            changes_a_commit: Histogram::of_things(&OF_BATCHES),
            failed_commits: Counter::default(),
        }
    }

    /// Returns how many judgements were recorded on plans, by verdict's word.
    pub fn judgements(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        ["allow", "ask", "deny"].into_iter().zip(self.judgements.iter().map(Counter::get))
    }

    /// Returns how many answers people gave, by the answer's word.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Answer::ALL.into_iter().map(|answer| (answer.as_str(), self.answer(answer).get()))
    }

    /// Returns how many runs ended, by the outcome's word.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        OUTCOMES.into_iter().zip(self.outcomes.iter().map(Counter::get))
    }

    fn answer(&self, answer: Answer) -> &Counter {
        match answer {
            Answer::Approve => &self.approvals,
            Answer::Deny => &self.denials,
            Answer::Edit => &self.edits,
        }
    }

    pub(crate) fn committed(&self, changes: usize, within: Duration) {
        self.committed_within.took(within);
        self.changes_a_commit.observe(u64::try_from(changes).unwrap_or(u64::MAX));
    }

    pub(crate) fn count(&self, step: &Step) {
        match step {
            Step::Judged(verdict) => {
                let [allow, ask, deny] = &self.judgements;
                match verdict {
                    Verdict::Allow => allow,
                    Verdict::Ask => ask,
                    Verdict::Deny => deny,
                }
                .add_one();
            }
            Step::Answered(answer, after) => {
                self.answer(*answer).add_one();
                self.answered_after.took(*after);
            }
            Step::Started(after) => self.started_after.took(*after),
            Step::Ended { outcome, ran_for } => {
                if let Some(ran_for) = ran_for {
                    self.ran_for.took(*ran_for);
                }
                let place = OUTCOMES.iter().position(|known| known == outcome);
                if let Some(counter) = place.and_then(|place| self.outcomes.get(place)) {
                    counter.add_one();
                }
            }
        }
    }
}

/// A step of the lifecycle that is counted.
#[derive(Debug)]
pub(crate) enum Step {
    Judged(Verdict),
    Answered(Answer, Duration),
    Started(Duration),
    Ended { outcome: &'static str, ran_for: Option<Duration> },
}

impl Step {
    /// What an event means for the counts, if anything: `found` is its plan as it stood before.
    pub(crate) fn of(found: &PlanRecord, body: &EventBody, at: Timestamp) -> Option<Self> {
        let answered = |answer| Some(Self::Answered(answer, at.since(found.queued_at)));
        match body {
            EventBody::PlanBlocked { .. } => Some(Self::Judged(Verdict::Deny)),
            EventBody::PlanRejudged { verdict, .. } => Some(Self::Judged(*verdict)),
            EventBody::PlanDecided { decision, .. } => answered(match decision.decision {
                DecisionKind::Approve => Answer::Approve,
                DecisionKind::Deny => Answer::Deny,
            }),
            EventBody::PlanSuperseded { .. } => answered(Answer::Edit),
            EventBody::RunStarted { .. } => {
                found.decision.as_ref().map(|stored| Self::Started(at.since(stored.decision.ts)))
            }
            EventBody::RunFinished { outcome, duration_ms, .. } => {
                let started = !matches!(outcome, Outcome::SpawnFailed { .. });
                let ran_for = started.then(|| Duration::from_millis(*duration_ms));
                Some(Self::Ended { outcome: outcome.as_str(), ran_for })
            }
            EventBody::RunLost { .. } => Some(Self::Ended { outcome: "lost", ran_for: None }),
            EventBody::PlanQueued { .. }
            | EventBody::PlanRemeasured { .. }
            | EventBody::PlanExpired
            | EventBody::PlanWithdrawn
            | EventBody::PlanCancelled
            | EventBody::PlanExtended { .. }
            | EventBody::PlanPreviewStarted { .. }
            | EventBody::PlanPreviewed { .. }
            | EventBody::PlanErased { .. }
            | EventBody::RunCancelRequested { .. }
            | EventBody::TokenCreated { .. }
            | EventBody::TokenRevoked { .. }
            | EventBody::WorkspaceAdded { .. }
            | EventBody::WorkspaceRemoved { .. }
            | EventBody::ServerStarted { .. }
            | EventBody::ServerStopped => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use provara_domain::{Limit, SpawnFailure};

    use super::*;

    #[test]
    fn every_outcome_has_its_counter() {
        let measures = Measures::new();
        let spawn_failed = Outcome::SpawnFailed { failure: SpawnFailure::Missing, message: String::new() };
        for outcome in [
            Outcome::Exited { code: 3 },
            Outcome::Signalled { signal: 9 },
            Outcome::TimedOut,
            Outcome::Cancelled,
            spawn_failed,
            Outcome::LimitExceeded { limit: Limit::Memory },
        ] {
            measures.count(&Step::Ended { outcome: outcome.as_str(), ran_for: None });
        }
        measures.count(&Step::Ended { outcome: "lost", ran_for: None });
        assert!(measures.outcomes().all(|(_, count)| count == 1), "{:?}", measures.outcomes().collect::<Vec<_>>());
    }
}
