//! What goes into the store and comes out of it.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use provara_domain::{
    Actor, Decision, Digest, Enforced, Judgement, Measured, Measurement, Name, Note, Outcome, Plan, PlanId,
    ProfileChange, Roles, RunId, Status, Timeout, Timestamp, TokenId, Usage, Written,
};

/// Where the store lives and how much output it keeps.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The runtime folder; made when it is not there.
    pub runtime: PathBuf,
    /// Bytes of each output stream that are kept: the first half fixed, the last half as a ring.
    pub output_keep: u64,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server uses the runtime folder.
    #[error("runtime folder `{}` is in use by another server; stop that one or name another folder", path.display())]
    InUse {
        /// The runtime folder.
        path: PathBuf,
    },
    /// The database was written by a newer version.
    #[error("database has format {found}, this version knows up to {known}; start the newer version")]
    TooNew {
        /// The format found.
        found: i64,
        /// The newest format known here.
        known: i64,
    },
    /// A file or folder could not be made or opened.
    #[error("could not open `{}`", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The database refused.
    #[error("could not open the database")]
    Store(#[from] StoreError),
}

/// What lies below a failure, for the log. Which database or file system it came from is nobody's business above.
pub type Below = Arc<dyn Error + Send + Sync>;

/// Why the store could not answer. Cloned to everyone whose change stood in a commit that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Somebody else holds the database. Trying again may help.
    #[error("database is busy: another program holds it")]
    Busy(#[source] Below),
    /// Nothing more can be written. Trying again helps once there is room.
    #[error("disk is full; free some space below the runtime folder")]
    Full(#[source] Below),
    /// The database is not what was written.
    #[error("database is damaged; stop the server and restore the runtime folder from a copy")]
    Damaged(#[source] Below),
    /// A file could not be read or written.
    #[error("file could not be read or written")]
    Io(#[source] Below),
    /// The database refused.
    #[error("database refused")]
    Database(#[source] Below),
    /// A stored value is not what this version writes.
    #[error("stored {what} cannot be read")]
    Corrupt {
        /// Which value.
        what: &'static str,
    },
    /// The log has no such position or size.
    #[error("log has {head} entries, not {asked}")]
    OutOfRange {
        /// What was asked for.
        asked: u64,
        /// The number of entries.
        head: u64,
    },
    /// A change of the same commit failed half-way.
    #[error("a change of the same commit failed, and everything in it was taken back")]
    TakenBack,
    /// The store was closed.
    #[error("store is closed")]
    Closed,
}

#[doc(hidden)] // For this crate's own `?`: nothing above it knows the type.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase};
        let kind = match error.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked) => Self::Busy,
            Some(DiskFull) => Self::Full,
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged,
            _ => Self::Database,
        };
        kind(Arc::new(error))
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let kind = if full { Self::Full } else { Self::Io };
        kind(Arc::new(error))
    }
}

/// Randomness that the caller drew. Further identifiers of the same change are derived from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entropy(pub u128);

/// Who causes a change, and when.
#[derive(Debug, Clone)]
pub struct Cause {
    /// Who.
    pub actor: Actor,
    /// When.
    pub at: Timestamp,
    /// Makes the event's identifier. MUST be drawn anew for each change.
    pub entropy: Entropy,
}

/// A plan to be stored.
#[derive(Debug, Clone)]
pub struct NewPlan {
    /// The plan.
    pub plan: Plan,
    /// The digest of its canonical form.
    pub digest: Digest,
    /// The digest less id and nonce: what equal plans share.
    pub dedupe: Digest,
    /// Whether an equal pending plan answers instead.
    pub equal: EqualPending,
    /// What the agent says about it.
    pub note: Option<Note>,
    /// What policy says. `deny` stores the plan as `blocked`.
    pub judgement: Judgement,
    /// What was measured about it, where that was possible.
    pub measurement: Option<Measurement>,
    /// When it expires undecided.
    pub expires_at: Timestamp,
    /// How many pending plans its agent may have.
    pub pending_cap: u32,
    /// What denials of equal plans do to a further one.
    pub cool_down: CoolDown,
    /// The request's idempotency key.
    pub idempotency: Option<Idempotency>,
    /// Who proposes, and when.
    pub cause: Cause,
}

/// What a plan asks of an equal one that waits already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EqualPending {
    /// It answers, and nothing new is stored. Only plans that ask for this answer for each other.
    Answers,
    /// They are two.
    StaysApart,
}

/// When an agent that keeps proposing what people deny is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoolDown {
    /// So many denials of equal plans within the window hold the next one back; 0 never does.
    pub denials: u32,
    /// How long a denial counts.
    pub window: Duration,
}

/// What people answered to equal plans of the same agent within the cool-down's window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedBefore {
    /// How often they were denied.
    pub count: u32,
    /// When last.
    pub last_at: Timestamp,
    /// What the approver said then, until that is erased.
    pub reason: Option<String>,
}

/// A request that may be repeated within 24 hours and then has the first answer.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// Principal, method and route.
    pub scope: String,
    /// The client's key.
    pub key: String,
    /// Digest of the request's body.
    pub body_sha256: [u8; 32],
}

/// What the store knows of an idempotency key.
#[derive(Debug, Clone)]
pub enum Recalled {
    /// It came with this body before, and this is its plan as it stands.
    Same(Box<PlanRecord>),
    /// It came with another body before.
    OtherBody,
}

/// The one decision on a plan, to be stored.
#[derive(Debug, Clone)]
pub struct NewDecision {
    /// The decision. Its digest MUST be that of what the approver saw.
    pub decision: Decision,
    /// The approver's words for the agent.
    pub reason: Option<String>,
    /// What policy says now.
    pub judgement: Judgement,
    /// Until when an approved plan may be claimed.
    pub approval_valid_until: Timestamp,
    /// How long a denial counts against equal plans.
    pub denial_counts_for: Duration,
    /// What it made of the confinement that was shown; absent where it took that.
    pub profile_change: Option<ProfileChange>,
    /// The request's idempotency key: kept if this decision is the one, so that its repetition can be told from another's.
    pub idempotency: Option<Idempotency>,
    /// Who decides, and when.
    pub cause: Cause,
}

/// What became of a proposal.
#[derive(Debug, Clone)]
pub enum Proposed {
    /// It was stored.
    New(PlanRecord),
    /// It was here before.
    Repeated(PlanRecord),
}

/// Why a proposal was not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// The agent has as many pending plans as it may.
    #[error("agent has {cap} pending plans, the most it may have")]
    PendingCap {
        /// How many it may have.
        cap: u32,
    },
    /// People denied equal plans of this agent as often as they are asked within the window.
    #[error("equal plans of this agent were denied {} times lately", denied.count)]
    CoolDown {
        /// What was denied.
        denied: DeniedBefore,
        /// When the next one will be taken.
        until: Timestamp,
    },
    /// The key came with another body before.
    #[error("idempotency key was used with another body")]
    IdempotencyMismatch,
    /// The store failed.
    #[error("could not store the plan")]
    Store(#[from] StoreError),
}

/// Why a plan did not change.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransitionError {
    /// No such plan or run.
    #[error("no such plan")]
    NotFound,
    /// It stands where this change is not possible.
    #[error("plan is {found}")]
    Conflict {
        /// Where it stands.
        found: Status,
        /// The whole plan, as the commit left it.
        record: Box<PlanRecord>,
    },
    /// The store failed.
    #[error("could not change the plan")]
    Store(#[from] StoreError),
}

/// Whose plans a query may see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// This agent's.
    Only(Name),
    /// The whole project's.
    Everyone,
}

/// Which plans to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PlanFilter {
    /// These statuses; none means all.
    pub statuses: Vec<Status>,
    /// Only what is older than this sequence number.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

/// Kept counts of a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Plans that wait for a decision.
    pub pending: u64,
    /// Plans that wait for a worker.
    pub approved: u64,
    /// Plans whose command runs.
    pub running: u64,
    /// Plans whose run ended.
    pub finished: u64,
    /// Plans whose run's end is not known.
    pub lost: u64,
    /// Plans that somebody refused.
    pub denied: u64,
    /// Plans that policy refused.
    pub blocked: u64,
    /// Plans that nobody answered, or nobody claimed, in time.
    pub expired: u64,
    /// Plans that their agent took back.
    pub withdrawn: u64,
    /// Plans that an approver edited.
    pub superseded: u64,
    /// Plans that were stopped between approval and run.
    pub cancelled: u64,
    /// Runs ever begun.
    pub runs: u64,
}

impl Counts {
    /// Returns how many plans stand there.
    pub const fn of(&self, status: Status) -> u64 {
        match status {
            Status::Pending => self.pending,
            Status::Approved => self.approved,
            Status::Running => self.running,
            Status::Finished => self.finished,
            Status::Lost => self.lost,
            Status::Denied => self.denied,
            Status::Blocked => self.blocked,
            Status::Expired => self.expired,
            Status::Withdrawn => self.withdrawn,
            Status::Superseded => self.superseded,
            Status::Cancelled => self.cancelled,
        }
    }
}

/// A plan with all that became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRecord {
    /// Its place in the order of arrival.
    pub seq: u64,
    /// The plan.
    pub plan: Plan,
    /// The digest of its canonical form.
    pub digest: Digest,
    /// What the agent says about it.
    pub note: Option<Note>,
    /// What policy said last.
    pub judgement: Judgement,
    /// What was measured last, where that was possible.
    pub measured: Option<Measured>,
    /// Where it stands.
    pub status: Status,
    /// How many events it has.
    pub revision: u64,
    /// When it came.
    pub queued_at: Timestamp,
    /// When it expires undecided.
    pub expires_at: Timestamp,
    /// What was decided.
    pub decision: Option<DecisionRecord>,
    /// The plan that carries an approver's edit.
    pub superseded_by: Option<PlanId>,
    /// The plan that this one edits or re-opens.
    pub origin: Option<PlanId>,
    /// Its run.
    pub run: Option<RunRecord>,
    /// When its command, input and output were erased.
    pub erased_at: Option<Timestamp>,
    /// What people had answered to equal plans when it came; nothing where none was denied.
    pub denied_before: Option<DeniedBefore>,
}

/// A stored decision.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionRecord {
    /// The decision.
    pub decision: Decision,
    /// The digest of its canonical form.
    pub digest: Digest,
    /// The approver's words for the agent.
    pub reason: Option<String>,
    /// Until when the plan may be claimed.
    pub approval_valid_until: Timestamp,
}

/// A stored run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Its identifier.
    pub id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, when that is known.
    pub duration: Option<Duration>,
    /// How it ended, when that is known.
    pub outcome: Option<Outcome>,
    /// What held, when that is known.
    pub enforced: Option<Enforced>,
    /// What it used of the machine, when that is known.
    pub usage: Option<Usage>,
    /// What changed below its workspace meanwhile, when that is known and nobody erased it.
    pub written: Option<Written>,
    /// Bytes written to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Bytes written to standard error, kept or not.
    pub stderr_bytes: u64,
    /// Secrets that were replaced by marks in what was kept.
    pub redactions: u64,
    /// How long it may run.
    pub timeout: Timeout,
}

/// A positioned entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position, from 0.
    pub position: u64,
    /// Its type on the wire.
    pub kind: String,
    /// The project that it belongs to.
    pub project: Name,
    /// The agent whose plan it is about.
    pub agent: Option<Name>,
    /// The plan that it is about.
    pub plan: Option<PlanId>,
    /// Its canonical bytes.
    pub leaf: Bytes,
    /// When.
    pub ts: Timestamp,
}

/// What recovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Plans whose runs are lost.
    pub lost: Vec<PlanId>,
}

/// A token to be stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its record's identifier.
    pub id: TokenId,
    /// Its holder.
    pub name: Name,
    /// What the holder may do.
    pub roles: Roles,
    /// The project that it belongs to.
    pub project: Name,
    /// The digest of the secret; the secret itself never comes here.
    pub secret_sha256: [u8; 32],
}

/// A stored token, without what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its identifier.
    pub id: TokenId,
    /// Its holder.
    pub name: Name,
    /// What the holder may do.
    pub roles: Roles,
    /// The project that it belongs to.
    pub project: Name,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Why a token was not stored or revoked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// A record of that identifier or secret is there.
    #[error("token is already there")]
    Exists,
    /// No such token.
    #[error("no such token")]
    NotFound,
    /// The store failed.
    #[error("could not store the token")]
    Store(#[from] StoreError),
}

/// A piece of a run's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPage {
    /// Where `bytes` begin, counted in the bytes that came to be kept: those written, with marks in the place of secrets.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// Whether bytes between what was asked for and `offset` were dropped.
    pub gap: bool,
    /// Bytes that came to be kept until now, those that were dropped later among them.
    pub total: u64,
    /// Whether the run ended, so that `total` is final.
    pub ended: bool,
}
