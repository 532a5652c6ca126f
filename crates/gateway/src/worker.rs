//! Step three: the worker of target `local`. It claims, runs, and records; a claim is spent exactly once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use provara_domain::{Claim, Enforced, Name, Outcome, PlanId, Ran, RunId, SpawnFailure, Timestamp};
use provara_faults::{Place, reached};
use provara_runner::{Chunk, RunControl, Runner, control};
use provara_store::{OutputWriter, StoreError, TransitionError};
use tokio::sync::mpsc;

use crate::confinement;
use crate::gateway::{Inner, chain, lock};
use crate::redaction::{self, OutputGate, told};

/// How often the clock is asked whether something expired. Nothing that anybody waits for depends on it.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// After a failure of the store, how long until the next attempt.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// After how many failures in a row those who wait are told. The attempts go on.
const TELL_AFTER: u32 = 4;
/// How many plans one step looks at.
const BATCH: u32 = 64;
/// How many chunks of output may wait for the disk before the command has to.
const OUTPUT_BACKLOG: usize = 16;

/// Claims and runs what is approved until the gateway stops.
pub(crate) async fn work(inner: Arc<Inner>) {
    let mut failures = 0;
    while !inner.stopping.load(Ordering::SeqCst) {
        match claim_some(&inner).await {
            Ok(()) => {
                failures = 0;
                lock(&inner.stuck).claims = false;
                inner.work.notified().await;
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "could not claim; will try again");
                failures += 1;
                if failures >= TELL_AFTER {
                    lock(&inner.stuck).claims = true;
                    inner.wakeups.wake_all();
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Starts as many approved plans as there is room for, oldest first.
async fn claim_some(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let target = Name::local_target();
    loop {
        let room = inner.config.max_runs.saturating_sub(lock(&inner.running).len());
        let limit = u32::try_from(room).unwrap_or(BATCH).min(BATCH);
        if limit == 0 {
            return Ok(());
        }
        let ready = inner.store.claimable(&target, limit).await?;
        if ready.is_empty() {
            return Ok(());
        }
        for plan in ready {
            if inner.stopping.load(Ordering::SeqCst) {
                return Ok(());
            }
            let run = RunId::new(inner.platform.now(), inner.id_entropy());
            match inner.store.claim(&target, &plan, run, inner.system_cause()).await {
                Ok(claim) => {
                    reached(Place::RunClaimed);
                    start(inner, claim);
                }
                // Cancelled, expired or blocked since we looked. Whoever did it has recorded it.
                Err(TransitionError::Conflict { .. } | TransitionError::NotFound) => {}
                Err(TransitionError::Store(cause)) => return Err(cause),
            }
        }
    }
}

/// Room for one of the runs that may go on at once, kept for a plan that is about to be approved.
pub(crate) struct Room {
    inner: Arc<Inner>,
    plan: PlanId,
    control: Option<RunControl>,
}

impl Room {
    /// Returns room for `plan` where this worker could claim it at once: there is some, and nobody waits longer.
    pub(crate) fn take(inner: &Arc<Inner>, plan: &PlanId) -> Option<Self> {
        let waits = inner.store.counts(&inner.project).approved > 0;
        if inner.runner.is_none() || waits || inner.stopping.load(Ordering::SeqCst) {
            return None;
        }
        let mut running = lock(&inner.running);
        if running.len() >= inner.config.max_runs || running.contains_key(plan) {
            return None;
        }
        let (handle, control) = control();
        running.insert(plan.clone(), handle);
        Some(Self { inner: Arc::clone(inner), plan: plan.clone(), control: Some(control) })
    }

    /// Runs what was claimed for this room. Returns at once.
    pub(crate) fn start(mut self, claim: Claim) {
        reached(Place::RunClaimed);
        if let Some(control) = self.control.take() {
            begin(&self.inner, claim, control);
        }
    }
}

impl Drop for Room {
    /// Gives the room back where nothing was claimed for it.
    fn drop(&mut self) {
        if self.control.is_some() {
            lock(&self.inner.running).remove(&self.plan);
            self.inner.ended.notify_waiters();
            self.inner.work.notify_one();
        }
    }
}

/// Runs a claimed plan in a task of its own. It is known as running before the task begins, so a cancel finds it.
fn start(inner: &Arc<Inner>, claim: Claim) {
    let (handle, control) = control();
    lock(&inner.running).insert(claim.plan().id.clone(), handle);
    begin(inner, claim, control);
}

fn begin(inner: &Arc<Inner>, claim: Claim, control: RunControl) {
    let plan = claim.plan().id.clone();
    inner.telling.begin(&claim, control.watch());
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        run_and_record(&inner, claim, control).await;
        inner.telling.end(&plan);
        lock(&inner.running).remove(&plan);
        inner.ended.notify_waiters();
        inner.work.notify_one();
        if let Some(runner) = &inner.runner
            && !inner.stopping.load(Ordering::SeqCst)
        {
            runner.make_ready();
        }
    });
}

async fn run_and_record(inner: &Inner, claim: Claim, control: RunControl) {
    let plan = claim.plan().id.clone();
    let Some(runner) = &inner.runner else { return };
    let end = match run(inner, runner, claim, control).await {
        Some(ran) => End::Known(Arc::new(ran)),
        None => {
            tracing::error!(%plan, "the helper died while this plan ran; its outcome is lost");
            End::Lost
        }
    };
    record(inner, &plan, end).await;
}

/// Runs the claim and keeps its output. Returns nothing when the run's end cannot be known.
async fn run(inner: &Inner, runner: &Runner, claim: Claim, control: RunControl) -> Option<Ran> {
    let started_at = inner.platform.now();
    // The operator's file may have changed between the decision and now: other grants were not decided on.
    let profile = match confinement::decided(&inner.config.profiles, claim.profile(), claim.binding()) {
        Ok(profile) => profile,
        Err(outcome) => return Some(ended_unstarted(&claim, started_at, outcome)),
    };
    let Some(site) = inner.site(claim.plan()) else {
        return Some(never_started(&claim, started_at, "its working directory lies in no workspace any more"));
    };
    let writer = match inner.store.output_writer(claim.run()) {
        Ok(writer) => writer,
        Err(error) => {
            tracing::error!(error = chain(&error), "cannot keep output, so nothing is run");
            return Some(never_started(&claim, started_at, "its output could not be kept; see the server's log"));
        }
    };
    let redactor = match redaction::of_a_run(inner, claim.plan()) {
        Ok(redactor) => redactor,
        Err(error) => return Some(never_started(&claim, started_at, &error.to_string())),
    };
    let gate = OutputGate::new(redactor.as_ref());
    let (sender, receiver) = mpsc::channel(OUTPUT_BACKLOG);
    let keep = tokio::task::spawn_blocking(move || keep_output(writer, gate, receiver));
    let ran = runner.run(claim, profile, &site, started_at, sender, control).await;
    reached(Place::RunEnded);
    // Every byte is handed to the disk before the outcome is recorded.
    let mut redactions = keep.await.unwrap_or_default();
    let mut ran = ran.ok()?;
    if let (Some(redactor), Some(written)) = (&redactor, &mut ran.written) {
        redactions = redactions.saturating_add(redaction::names(redactor, written));
    }
    Some(Ran { redactions, outcome: told(&inner.redactor, ran.outcome), ..ran })
}

/// Keeps what the gate lets through, and returns how many secrets it replaced.
fn keep_output(mut writer: OutputWriter, mut gate: OutputGate, mut chunks: mpsc::Receiver<Chunk>) -> u64 {
    let mut failed = false;
    let mut keep = |stream, bytes: &[u8]| {
        // After a failure the command goes on and its output is dropped: its effects are real, and what was kept counts.
        if !failed
            && !bytes.is_empty()
            && let Err(error) = writer.append(stream, bytes)
        {
            failed = true;
            tracing::error!(error = chain(&error), "could not keep more of a run's output");
        }
    };
    while let Some(chunk) = chunks.blocking_recv() {
        keep(chunk.stream, &gate.pass(chunk.stream, chunk.bytes));
    }
    let (rest, redactions) = gate.end();
    for (stream, bytes) in rest {
        keep(stream, &bytes);
    }
    redactions
}

fn never_started(claim: &Claim, at: Timestamp, why: &str) -> Ran {
    ended_unstarted(claim, at, Outcome::SpawnFailed { failure: SpawnFailure::Refused, message: why.to_owned() })
}

fn ended_unstarted(claim: &Claim, at: Timestamp, outcome: Outcome) -> Ran {
    Ran {
        run: claim.run().clone(),
        outcome,
        enforced: Enforced { profile: claim.profile().as_str().to_owned(), mechanisms: Vec::new() },
        started_at: at,
        duration: Duration::ZERO,
        stdout_bytes: 0,
        stderr_bytes: 0,
        redactions: 0,
        usage: None,
        written: None,
    }
}

/// What is to be recorded of a run that is over.
enum End {
    Known(Arc<Ran>),
    Lost,
}

async fn record(inner: &Inner, plan: &PlanId, end: End) {
    let mut failures = 0;
    loop {
        let recorded = match &end {
            End::Known(ran) => inner.store.record(Arc::clone(ran), inner.system_cause()).await,
            End::Lost => inner.store.lose(plan, inner.system_cause()).await,
        };
        reached(Place::RunRecorded);
        match recorded {
            Ok(_) => {
                lock(&inner.stuck).outcomes.remove(plan);
                return;
            }
            // How it ended is known and must not become `lost` because the disk was full for a while.
            Err(TransitionError::Store(error)) if !matches!(error, StoreError::Closed) => {
                tracing::error!(%plan, error = chain(&error), "could not record how a run ended; will try again");
                failures += 1;
                if failures >= TELL_AFTER && lock(&inner.stuck).outcomes.insert(plan.clone()) {
                    inner.wakeups.wake(plan);
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
            // The row stays `running`, and the next start calls it lost: we know no more than that.
            Err(error) => {
                tracing::error!(%plan, error = chain(&error), "could not record how a run ended");
                lock(&inner.stuck).outcomes.insert(plan.clone());
                inner.wakeups.wake(plan);
                return;
            }
        }
    }
}

/// Expires what nobody answered and what nobody claimed in time.
pub(crate) async fn sweep(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        if let Err(error) = expire_due(&inner).await {
            tracing::error!(error = chain(&error), "could not expire plans; will try again");
        }
    }
}

async fn expire_due(inner: &Inner) -> Result<(), StoreError> {
    for plan in inner.store.due(inner.platform.now(), BATCH).await? {
        match inner.store.expire(&plan, inner.system_cause()).await {
            Ok(_) | Err(TransitionError::Conflict { .. } | TransitionError::NotFound) => {}
            Err(TransitionError::Store(cause)) => return Err(cause),
        }
    }
    Ok(())
}
