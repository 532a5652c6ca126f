//! Telling how far runs are, to whoever listens. Nothing of it is kept: what lasts is in the log and on the run's record.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use provara_domain::{Claim, Name, PlanId, Principal, RunId};
use provara_runner::{Progress, RunWatch};
use tokio::sync::broadcast;

use crate::gateway::{Gateway, Inner, lock};

/// How long until a run is told of again.
const EVERY: Duration = Duration::from_secs(1);
/// How long a run has to count its processes. One that takes longer is told with what it answered last.
const ANSWERED_WITHIN: Duration = Duration::from_millis(50);
/// How many tellings wait for a slow listener. It then misses the oldest, and nothing that matters.
const WAITING: usize = 16;

/// How far one run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunProgress {
    /// The plan that it runs.
    pub plan: PlanId,
    /// The run.
    pub run: RunId,
    /// How far it is.
    pub progress: Progress,
    project: Name,
    agent: Name,
}

/// The runs of this process that go on, and who wants to hear of them.
pub(crate) struct Telling {
    runs: Mutex<HashMap<PlanId, Told>>,
    told: broadcast::Sender<Arc<Vec<RunProgress>>>,
}

struct Told {
    run: RunId,
    project: Name,
    agent: Name,
    watch: RunWatch,
}

impl Default for Telling {
    fn default() -> Self {
        Self { runs: Mutex::default(), told: broadcast::channel(WAITING).0 }
    }
}

impl Telling {
    pub(crate) fn begin(&self, claim: &Claim, watch: RunWatch) {
        let plan = claim.plan();
        let told = Told { run: claim.run().clone(), project: plan.project.clone(), agent: plan.agent.clone(), watch };
        lock(&self.runs).insert(plan.id.clone(), told);
    }

    pub(crate) fn end(&self, plan: &PlanId) {
        lock(&self.runs).remove(plan);
    }

    fn ask(&self) -> bool {
        let runs = lock(&self.runs);
        runs.values().for_each(|told| told.watch.ask());
        !runs.is_empty()
    }

    fn look(&self) -> Vec<RunProgress> {
        let one = |(plan, told): (&PlanId, &Told)| {
            let (run, project, agent) = (told.run.clone(), told.project.clone(), told.agent.clone());
            Some(RunProgress { plan: plan.clone(), run, progress: told.watch.progress()?, project, agent })
        };
        lock(&self.runs).iter().filter_map(one).collect()
    }
}

/// Tells all listeners of all runs, and does nothing while there are none of either.
pub(crate) async fn tell(inner: Arc<Inner>) {
    let telling = &inner.telling;
    loop {
        tokio::time::sleep(EVERY).await;
        if telling.told.receiver_count() > 0 && telling.ask() {
            tokio::time::sleep(ANSWERED_WITHIN).await;
            // An error means that the last listener has just left.
            let _ = telling.told.send(Arc::new(telling.look()));
        }
    }
}

impl Gateway {
    /// Returns how far all runs are, at most once a second, of every principal: filter with [`RunProgress::is_for`]. A
    /// receiver that falls behind misses some.
    pub fn subscribe_progress(&self) -> broadcast::Receiver<Arc<Vec<RunProgress>>> {
        self.inner.telling.told.subscribe()
    }
}

impl RunProgress {
    /// Returns whether `who` may see this, as of entries of the log.
    pub fn is_for(&self, who: &Principal) -> bool {
        self.project == who.project && (who.roles.reads_all() || self.agent == who.name)
    }
}
