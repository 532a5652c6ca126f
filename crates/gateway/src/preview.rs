//! Before the decision: an approver runs a plan in a throw-away copy of its workspace, to see what it would do.
//!
//! Nothing of it is kept but two entries of the log; what it wrote and changed is in the answer to whoever asked, and nowhere
//! else. It is never a run: it spends no claim, and the plan stays as it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use provara_audit::canonical;
use provara_domain::{Binding, Digest, Outcome, PlanId, Principal, Profile, ProfileName, SpawnFailure, Stream};
use provara_runner::{Chunk, Previewed, Runner, Site, control};
use provara_store::{PlanRecord, TransitionError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::decide::DecideError;
use crate::gateway::{Gateway, Inner, chain};
use crate::redaction::{self, OutputGate, told};

/// How many previews may go on at once. Each may hold its copy's changes in memory.
const AT_ONCE: u32 = 4;
/// How much is told of each stream.
const TOLD: usize = 1 << 20;
/// How many chunks of output may wait before the command has to.
const BACKLOG: usize = 16;
/// How long the end of the gateway waits for previews that were told to end.
const ENDED_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// What a plan did in a throw-away copy of its workspace.
#[derive(Debug)]
pub struct Preview {
    /// The plan as it stood when the preview began.
    pub record: PlanRecord,
    /// How it ended, what held, and what changed.
    pub seen: Previewed,
    /// The digest of the canonical form of what changed, as the log has it.
    pub changes_sha256: Digest,
    /// What it wrote to standard output.
    pub stdout: Told,
    /// What it wrote to standard error.
    pub stderr: Told,
    /// How many secrets were replaced in what it wrote.
    pub redactions: u64,
}

/// What is told of a stream.
#[derive(Debug, Default)]
pub struct Told {
    /// Its beginning, secrets replaced.
    pub bytes: Vec<u8>,
    /// Whether there was more.
    pub truncated: bool,
}

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The plan cannot be decided, so it is not tried either.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// Others are being made.
    #[error("{AT_ONCE} previews go on already; wait for one to end, and ask again")]
    Busy,
    /// The gateway is ending.
    #[error("the server is stopping; ask again when it has started")]
    Stopping,
    /// This server runs no commands.
    #[error("this server runs no commands, so it can preview none; decide without a preview")]
    NoRunner,
    /// No profile can be had under which a preview is as tight as it must be.
    #[error(
        "a preview never has more than `workspace`, with which the plan's profile cannot be compared; decide without one"
    )]
    Profile,
    /// This host cannot make a copy of the workspace.
    #[error("this host cannot preview the plan: {why}")]
    Unavailable {
        /// What is missing.
        why: String,
    },
    /// How it ended is not known.
    #[error("the preview's supervisor died, so what it did cannot be told; its copy is gone; ask again")]
    Lost,
}

/// The previews that go on.
pub(crate) struct Previews {
    room: Arc<Semaphore>,
    end: Notify,
}

impl Default for Previews {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(usize::try_from(AT_ONCE).unwrap_or(1))), end: Notify::new() }
    }
}

impl Previews {
    /// Ends those that go on.
    pub(crate) fn end(&self) {
        self.end.notify_waiters();
    }

    /// Waits until none goes on, within bounds.
    pub(crate) async fn ended(&self) {
        let _ = tokio::time::timeout(ENDED_WITHIN, self.room.acquire_many(AT_ONCE)).await;
    }
}

impl Gateway {
    /// Runs a pending plan in a throw-away copy of its workspace, with no network and for a short time, and returns what it did
    /// there. That somebody did so is on the record before it begins.
    ///
    /// # Errors
    /// See [`PreviewError`].
    pub async fn preview(&self, who: &Principal, id: &PlanId) -> Result<Preview, PreviewError> {
        let inner = &self.inner;
        let shown = inner.pending_plan(who, id).await?;
        let permit = Arc::clone(&inner.previews.room).try_acquire_owned().map_err(|_| PreviewError::Busy)?;
        let judgement = inner.judge_again(who, &shown).await?;
        if inner.stopping.load(Ordering::SeqCst) {
            return Err(PreviewError::Stopping);
        }
        if inner.runner.is_none() {
            return Err(PreviewError::NoRunner);
        }
        let demands = inner.policy.demands(&judgement);
        let profile = inner.preview_profile(&shown.plan, &demands).ok_or(PreviewError::Profile)?;
        let Some(site) = inner.site(&shown.plan) else {
            let why = "its working directory lies in no workspace any more".to_owned();
            return Err(PreviewError::Unavailable { why });
        };
        // In a task of its own: whoever asked may go away, and what began has to end on the record.
        let (inner, who) = (Arc::clone(inner), who.clone());
        let trial = Trial { shown, profile, site };
        let seen = tokio::spawn(async move { inner.try_out(&who, trial, permit).await });
        seen.await.unwrap_or(Err(PreviewError::Lost))
    }
}

/// What is tried, and how.
struct Trial {
    shown: PlanRecord,
    profile: Profile,
    site: Site,
}

impl Inner {
    async fn try_out(
        &self,
        who: &Principal,
        trial: Trial,
        permit: OwnedSemaphorePermit,
    ) -> Result<Preview, PreviewError> {
        let _permit = permit;
        let Some(runner) = &self.runner else { return Err(PreviewError::NoRunner) };
        let (plan, id) = (&trial.shown.plan, &trial.shown.plan.id);
        let store = |error: TransitionError| PreviewError::Decide(DecideError::of(id, error));
        let redactor = redaction::of_a_run(self, plan);
        let redactor = redactor.map_err(|error| PreviewError::Unavailable { why: error.to_string() })?;
        let gate = OutputGate::new(redactor.as_ref());
        let name: ProfileName = trial.profile.name().clone();
        let record = self.store.begin_preview(&who.project, id, name, self.cause(who)).await.map_err(store)?;
        let (seen, kept) = self.seen(runner, &trial, gate).await;
        let (outcome, changes) = match &seen {
            Some(seen) => (seen.outcome.clone(), canonical::changes_digest(&seen.changes)),
            None => (Outcome::Cancelled, canonical::changes_digest(&provara_domain::Changes::default())),
        };
        let ended = self.store.end_preview(&who.project, id, outcome.clone(), changes.clone(), self.cause(who)).await;
        if let Err(TransitionError::Store(error)) = &ended {
            // What nobody can look up later is not shown.
            tracing::error!(plan = %id, error = chain(error), "could not record how a preview ended");
        }
        ended.map_err(store)?;
        match (seen, outcome) {
            (_, Outcome::SpawnFailed { failure: SpawnFailure::Confinement, message }) => {
                Err(PreviewError::Unavailable { why: message })
            }
            (None, _) => Err(PreviewError::Lost),
            (Some(seen), outcome) => {
                let Kept { stdout, stderr, redactions } = kept;
                Ok(Preview {
                    record,
                    seen: Previewed { outcome, ..seen },
                    changes_sha256: changes,
                    stdout,
                    stderr,
                    redactions,
                })
            }
        }
    }

    /// Runs it. Nothing where how it ended cannot be known.
    async fn seen(&self, runner: &Runner, trial: &Trial, gate: OutputGate) -> (Option<Previewed>, Kept) {
        let (handle, control) = control();
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let end = self.previews.end.notified();
        tokio::pin!(end);
        // Told from now on, whichever comes first.
        end.as_mut().enable();
        if self.stopping.load(Ordering::SeqCst) {
            handle.cancel();
        }
        let keep = tokio::task::spawn_blocking(move || keep(gate, receiver));
        let binding: Option<&Binding> = trial.shown.measured.as_ref().map(|known| &known.binding);
        let running = runner.preview(&trial.shown.plan, binding, &trial.profile, &trial.site, sender, control);
        tokio::pin!(running);
        let seen = tokio::select! {
            seen = &mut running => seen,
            () = end => {
                handle.cancel();
                running.await
            }
        };
        let kept = keep.await.unwrap_or_default();
        let seen = seen.ok().map(|seen| Previewed { outcome: told(&self.redactor, seen.outcome), ..seen });
        (seen, kept)
    }
}

#[derive(Default)]
struct Kept {
    stdout: Told,
    stderr: Told,
    redactions: u64,
}

/// Keeps the beginning of what passes the gate.
fn keep(mut gate: OutputGate, mut chunks: mpsc::Receiver<Chunk>) -> Kept {
    let mut kept = Kept::default();
    let mut add = |stream, bytes: Bytes| {
        let told = match stream {
            Stream::Stdout => &mut kept.stdout,
            Stream::Stderr => &mut kept.stderr,
        };
        let room = TOLD.saturating_sub(told.bytes.len());
        told.truncated |= bytes.len() > room;
        told.bytes.extend(bytes.iter().take(room));
    };
    while let Some(chunk) = chunks.blocking_recv() {
        add(chunk.stream, gate.pass(chunk.stream, chunk.bytes));
    }
    let (rest, redactions) = gate.end();
    for (stream, bytes) in rest {
        add(stream, bytes);
    }
    kept.redactions = redactions;
    kept
}
