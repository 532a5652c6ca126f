//! Looking, waiting and following. An agent sees its own; another's plan does not exist for it.

use std::sync::Arc;
use std::time::Duration;

use provara_domain::{PlanId, Principal, RunId, Status, Stream};
use provara_store::{LogEntry, OutputPage, Owner, Page, Pages, PlanFilter, PlanRecord, Rendering, StoreError};
use tokio::sync::{broadcast, watch};

use crate::gateway::Gateway;

/// Which plans to list, newest first.
#[derive(Debug, Clone)]
pub struct CommandFilter {
    /// In these states; in any where empty.
    pub statuses: Vec<Status>,
    /// Older than this position of the queue.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

/// Why a plan was not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is none, or not for this caller.
    #[error("no plan has the id {id}")]
    NoPlan {
        /// The id.
        id: PlanId,
    },
    /// The store failed.
    #[error("could not read plan {id}")]
    Store {
        /// The id.
        id: PlanId,
        /// Why.
        #[source]
        cause: StoreError,
    },
}

/// What `who` may see.
pub(crate) fn owner(who: &Principal) -> Owner {
    if who.roles.reads_all() { Owner::Everyone } else { Owner::Only(who.name.clone()) }
}

impl Gateway {
    /// Returns the plans that `who` may see, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn commands(&self, who: &Principal, filter: CommandFilter) -> Result<Vec<PlanRecord>, StoreError> {
        let CommandFilter { statuses, before, limit } = filter;
        self.inner.store.plans(&who.project, owner(who), PlanFilter { statuses, before, limit }).await
    }

    /// Returns lists in this rendering, for [`Gateway::page`].
    pub fn pages(&self, rendering: Rendering) -> Pages {
        self.inner.store.pages(rendering)
    }

    /// Returns the plans that `who` may see as [`Gateway::commands`] does, rendered. Cheap, since it is made once for all.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn page(&self, who: &Principal, pages: &Pages, filter: CommandFilter) -> Result<Page, StoreError> {
        let CommandFilter { statuses, before, limit } = filter;
        pages.list(&who.project, owner(who), PlanFilter { statuses, before, limit }).await
    }

    /// Returns one plan with what became of it.
    ///
    /// # Errors
    /// When there is none for this caller, or the store fails.
    pub async fn command(&self, who: &Principal, id: &PlanId) -> Result<PlanRecord, LookupError> {
        match self.inner.store.plan(&who.project, owner(who), id).await {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err(LookupError::NoPlan { id: id.clone() }),
            Err(cause) => Err(LookupError::Store { id: id.clone(), cause }),
        }
    }

    /// Returns the plan once its revision is past `seen`, or as it stands after `patience`.
    ///
    /// # Errors
    /// As [`Gateway::command`].
    pub async fn wait(
        &self,
        who: &Principal,
        id: &PlanId,
        seen: u64,
        patience: Duration,
    ) -> Result<PlanRecord, LookupError> {
        let changed = self.watch(who, id, |record| record.revision > seen);
        match tokio::time::timeout(patience, changed).await {
            Ok(record) => record,
            Err(_) => self.command(who, id).await,
        }
    }

    /// Returns the plan once it is settled: what a synchronous approval waits for. The run goes on if the caller stops
    /// waiting. When the gateway ends, or the store keeps refusing the plan's next step, the plan as it stands.
    ///
    /// # Errors
    /// As [`Gateway::command`].
    pub async fn settled(&self, who: &Principal, id: &PlanId) -> Result<PlanRecord, LookupError> {
        self.watch(who, id, |record| record.status.is_settled() || self.inner.is_stuck(record)).await
    }

    async fn watch(
        &self,
        who: &Principal,
        id: &PlanId,
        done: impl Fn(&PlanRecord) -> bool,
    ) -> Result<PlanRecord, LookupError> {
        let mut waiting = Waiting::new(self, id);
        loop {
            let record = self.command(who, id).await?;
            if done(&record) {
                return Ok(record);
            }
            tokio::select! {
                () = waiting.changed() => {}
                () = self.quiet() => return self.command(who, id).await,
            }
        }
    }

    /// Returns one run with its plan.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run(&self, who: &Principal, id: &RunId) -> Result<Option<PlanRecord>, StoreError> {
        self.inner.store.run(&who.project, owner(who), id).await
    }

    /// Returns the plans that ran, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn runs(&self, who: &Principal, before: Option<u64>, limit: u32) -> Result<Vec<PlanRecord>, StoreError> {
        self.inner.store.runs(&who.project, owner(who), before, limit).await
    }

    /// Returns a page of a run's raw output. The caller MUST have been shown the run by [`Gateway::run`] first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn output(&self, run: &RunId, stream: Stream, offset: u64, max: usize) -> Result<OutputPage, StoreError> {
        self.inner.store.read_output(&self.inner.project, run, stream, offset, max).await
    }

    /// Waits until the stream has more than `beyond` bytes or the run has ended.
    pub async fn output_grown(&self, run: &RunId, stream: Stream, beyond: u64) {
        self.inner.store.output_grown(run, stream, beyond).await;
    }

    /// Returns every later entry of the log, as it is committed, of every principal: filter with [`Gateway::may_see`].
    /// A receiver that falls too far behind is told so.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<LogEntry>> {
        self.inner.store.subscribe()
    }

    /// Returns whether `who` may see `entry`.
    pub fn may_see(who: &Principal, entry: &LogEntry) -> bool {
        entry.project == who.project && (who.roles.reads_all() || entry.agent.as_ref() == Some(&who.name))
    }

    /// Returns the number of entries in the log: the position of the next one.
    pub fn head(&self) -> u64 {
        self.inner.store.head()
    }

    /// Returns a receiver of that number.
    pub fn watch_head(&self) -> watch::Receiver<u64> {
        self.inner.store.watch_head()
    }

    /// Returns at most `limit` entries from position `from` on that `who` may see.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn entries(&self, who: &Principal, from: u64, limit: u32) -> Result<Vec<LogEntry>, StoreError> {
        self.inner.store.entries(&who.project, owner(who), from, limit).await
    }
}

/// A subscription that tidies up after itself, also when its waiter is dropped half-way.
struct Waiting<'a> {
    gateway: &'a Gateway,
    plan: &'a PlanId,
    receiver: Option<watch::Receiver<()>>,
}

impl<'a> Waiting<'a> {
    fn new(gateway: &'a Gateway, plan: &'a PlanId) -> Self {
        Self { gateway, plan, receiver: Some(gateway.inner.wakeups.subscribe(plan)) }
    }

    async fn changed(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            // An error means that the sender is gone, which `release` does only when nobody waits; looking again is right.
            let _ = receiver.changed().await;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.receiver = None;
        self.gateway.inner.wakeups.release(self.plan);
    }
}
