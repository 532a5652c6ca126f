//! The gateway itself: its parts, its start and its end.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use provara_audit::checkpoint::LogKey;
use provara_domain::{Actor, EventBody, Name, PlanId, Principal, ProfileName, Profiles, Shell, Status, Timestamp};
use provara_policy::Policy;
use provara_redact::Redactor;
use provara_runner::{HostReport, RunHandle, Runner};
use provara_store::{Cause, CoolDown, Counts, Entropy, PlanRecord, Store, StoreError};
use tokio::sync::{Notify, OnceCell, watch};
use tokio::task::JoinHandle;

use crate::judging::JudgementCache;
use crate::preview::Previews;
use crate::progress::{self, Telling};
use crate::redaction::OutputRedaction;
use crate::vitals::Kept;
use crate::wakeups::Wakeups;
use crate::{wakeups, worker};

/// What the gateway takes from the world around it.
pub trait Platform: Send + Sync + 'static {
    /// Returns the present time.
    fn now(&self) -> Timestamp;
    /// Returns 128 bits that nobody can guess.
    fn entropy(&self) -> u128;
}

/// What the operator decided.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// How many plans an agent may have pending.
    pub pending_cap: u32,
    /// When an agent that keeps proposing what people deny is held back.
    pub cool_down: CoolDown,
    /// How long a plan waits for a decision before it expires.
    pub plan_expiry: Duration,
    /// How long an approval waits for a worker before it expires.
    pub approval_valid: Duration,
    /// The shell of a plan that names none.
    pub default_shell: Shell,
    /// The workspace that is always there: a canonical absolute path.
    pub workspace: String,
    /// Provara's own files and folders, canonical: no workspace may hold or lie in one.
    pub own_paths: Vec<String>,
    /// Whether one token proposes and decides. Then no profile looser than `workspace` may be chosen.
    pub single_token: bool,
    /// The profiles that commands run with.
    pub profiles: Profiles,
    /// How many commands run at once.
    pub max_runs: usize,
    /// Whether secrets in what commands write are replaced before anything keeps them.
    pub output: OutputRedaction,
    /// The server's version, for the log.
    pub version: &'static str,
}

/// What a gateway is made of.
pub struct Parts {
    /// Where everything lasts.
    pub store: Store,
    /// What judges.
    pub policy: Policy,
    /// What finds secrets.
    pub redactor: Arc<Redactor>,
    /// What runs commands on this host; without one, approved plans wait for another runner.
    pub runner: Option<Runner>,
    /// Time and randomness.
    pub platform: Arc<dyn Platform>,
    /// Signs checkpoints.
    pub log_key: LogKey,
    /// What the operator decided.
    pub config: GatewayConfig,
}

/// The gateway could not start or end in order.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// The gateway. Cloning is cheap; all clones are the same one.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) policy: Policy,
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) runner: Option<Runner>,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) log_key: LogKey,
    pub(crate) config: GatewayConfig,
    pub(crate) project: Name,
    pub(crate) cache: JudgementCache,
    pub(crate) wakeups: Wakeups,
    /// Told when something may be claimable: an approval, or a run that ended.
    pub(crate) work: Notify,
    /// The runs that this process holds the claim of.
    pub(crate) running: Mutex<HashMap<PlanId, RunHandle>>,
    /// Who hears how far they are.
    pub(crate) telling: Telling,
    /// Told when `running` became smaller.
    pub(crate) ended: Notify,
    pub(crate) kept: Mutex<Kept>,
    pub(crate) stuck: Mutex<Stuck>,
    /// Which profiles were found to hold here, once somebody asked.
    tried: OnceCell<Vec<TriedProfile>>,
    pub(crate) previews: Previews,
    pub(crate) stopping: AtomicBool,
    /// Whether nothing runs any more and nothing will: whoever waits for something has waited long enough.
    quiet: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What the store keeps refusing, so that nobody waits for it without an end.
#[derive(Default)]
pub(crate) struct Stuck {
    /// Whether nothing approved can be claimed.
    pub(crate) claims: bool,
    /// Runs that ended, and how could not be recorded yet.
    pub(crate) outcomes: HashSet<PlanId>,
}

/// Whether this host can hold a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedProfile {
    /// The profile's name.
    pub name: ProfileName,
    /// Why its commands are not run here, where that is so.
    pub problem: Option<String>,
}

impl Gateway {
    /// Returns a gateway at work: what a crash left behind is settled, and the worker and the clock's sweeper run.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn start(parts: Parts) -> Result<Self, GatewayError> {
        let Parts { store, policy, redactor, runner, platform, log_key, config } = parts;
        let inner = Arc::new(Inner {
            store,
            policy,
            redactor,
            runner,
            platform,
            log_key,
            config,
            project: Name::default_project(),
            cache: JudgementCache::default(),
            wakeups: Wakeups::default(),
            work: Notify::new(),
            running: Mutex::default(),
            telling: Telling::default(),
            ended: Notify::new(),
            kept: Mutex::default(),
            stuck: Mutex::default(),
            tried: OnceCell::new(),
            previews: Previews::default(),
            stopping: AtomicBool::new(false),
            quiet: watch::channel(false).0,
            tasks: Mutex::default(),
        });
        let gateway = Self { inner };
        gateway.recover().await?;
        gateway.start_tasks();
        Ok(gateway)
    }

    async fn recover(&self) -> Result<(), GatewayError> {
        let inner = &self.inner;
        let recovered = inner.store.recover(inner.system_cause()).await?;
        for plan in &recovered.lost {
            tracing::warn!(%plan, "the server died while this plan ran; its outcome is lost");
        }
        let policy = inner.policy.version().digest.clone();
        let body = EventBody::ServerStarted { version: inner.config.version.to_owned(), policy };
        inner.store.server_event(body, inner.system_cause()).await?;
        Ok(())
    }

    fn start_tasks(&self) {
        let mut tasks = lock(&self.inner.tasks);
        tasks.push(tokio::spawn(wakeups::forward(Arc::clone(&self.inner))));
        tasks.push(tokio::spawn(worker::sweep(Arc::clone(&self.inner))));
        if self.inner.runner.is_some() {
            tasks.push(tokio::spawn(worker::work(Arc::clone(&self.inner))));
            tasks.push(tokio::spawn(progress::tell(Arc::clone(&self.inner))));
        }
    }

    /// Ends the work in order: claims nothing more, gives running commands `grace` to end, cancels the rest, records
    /// everything. Whoever waits for a plan then gets it as it stands. Still answers; [`Gateway::close`] follows.
    pub async fn quiesce(&self, grace: Duration) {
        let inner = &self.inner;
        inner.stopping.store(true, Ordering::SeqCst);
        inner.work.notify_one();
        inner.previews.end();
        if tokio::time::timeout(grace, inner.all_ended()).await.is_err() {
            lock(&inner.running).values().for_each(RunHandle::cancel);
            // The runner ends a tree in bounded time; what cannot be ended even then is lost, and recovery will say so.
            let _ = tokio::time::timeout(Duration::from_secs(10), inner.all_ended()).await;
        }
        inner.previews.ended().await;
        inner.quiet.send_replace(true);
    }

    /// Ends what is left: the log's last entry, its checkpoint, the helper, the store.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn close(&self) -> Result<(), GatewayError> {
        let inner = &self.inner;
        inner.store.server_event(EventBody::ServerStopped, inner.system_cause()).await?;
        let _ = self.checkpoint().await;
        for task in lock(&inner.tasks).drain(..) {
            task.abort();
        }
        if let Some(runner) = &inner.runner {
            runner.shutdown().await;
        }
        inner.store.close().await;
        Ok(())
    }

    /// Waits until nothing runs any more because the gateway is ending.
    pub async fn quiet(&self) {
        // An error means that the gateway is gone, which is as quiet as it gets.
        let _ = self.inner.quiet.subscribe().wait_for(|quiet| *quiet).await;
    }

    /// Returns once the store has read and could have written.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn answers(&self) -> Result<(), StoreError> {
        self.inner.store.answers().await
    }

    /// Returns how many plans are in which state; kept, never counted.
    pub fn counts(&self) -> Counts {
        self.inner.store.counts(&self.inner.project)
    }

    /// Returns whether the gateway is ending and takes no new work.
    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::SeqCst)
    }

    /// Returns what this host was found able to enforce; nothing where this server runs no commands.
    pub fn host_report(&self) -> Option<&HostReport> {
        self.inner.runner.as_ref().map(Runner::host)
    }

    /// Returns which profiles this host can hold, by a trial under each when somebody asks for the first time; none where this
    /// server runs no commands.
    pub async fn tried_profiles(&self) -> &[TriedProfile] {
        let inner = &self.inner;
        let Some(runner) = &inner.runner else { return &[] };
        let all = async {
            let mut tried = Vec::new();
            for profile in inner.config.profiles.iter() {
                let (name, problem) = (profile.name().clone(), runner.problem_with(profile).await);
                tried.push(TriedProfile { name, problem });
            }
            tried
        };
        inner.tried.get_or_init(|| all).await
    }

    /// Returns what the operator decided.
    pub fn config(&self) -> &GatewayConfig {
        &self.inner.config
    }

    /// Returns 128 bits that nobody can guess.
    pub fn entropy(&self) -> u128 {
        self.inner.platform.entropy()
    }

    /// Returns 256 bits that nobody can guess, for a token.
    pub fn secret_bits(&self) -> [u8; 32] {
        let halves = [self.entropy().to_le_bytes(), self.entropy().to_le_bytes()];
        let mut bits = [0; 32];
        for (to, from) in bits.iter_mut().zip(halves.as_flattened()) {
            *to = *from;
        }
        bits
    }

    /// Returns the present time, as the platform tells it.
    pub fn now(&self) -> Timestamp {
        self.inner.platform.now()
    }
}

impl Inner {
    pub(crate) fn cause(&self, who: &Principal) -> Cause {
        Cause { actor: Actor::from(who), at: self.platform.now(), entropy: Entropy(self.platform.entropy()) }
    }

    pub(crate) fn system_cause(&self) -> Cause {
        Cause { actor: Actor::System, at: self.platform.now(), entropy: Entropy(self.platform.entropy()) }
    }

    /// The low half of fresh entropy, for identifiers.
    pub(crate) fn id_entropy(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.platform.entropy().to_le_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Every folder in which commands may run: the configured one first, then those that a person added.
    pub(crate) fn workspaces(&self) -> Vec<String> {
        let mut all = vec![self.config.workspace.clone()];
        all.extend(self.store.workspaces(&self.project));
        all
    }

    /// Whether the plan's next step is one that the store keeps refusing.
    pub(crate) fn is_stuck(&self, plan: &PlanRecord) -> bool {
        let stuck = lock(&self.stuck);
        (plan.status == Status::Approved && stuck.claims) || stuck.outcomes.contains(&plan.plan.id)
    }

    async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if lock(&self.running).is_empty() {
                return;
            }
            ended.await;
        }
    }
}

/// Locks a mutex whose data stays sound even if a holder panicked: every holder leaves it whole at each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The whole chain of an error, for the log.
pub(crate) fn chain<E: std::error::Error + 'static>(error: &E) -> &(dyn std::error::Error + 'static) {
    error
}
