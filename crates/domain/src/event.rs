//! Entries of the log.

use serde::Serialize;

use crate::ids::{EventId, PlanId, RunId, TokenId};
use crate::judgement::Verdict;
use crate::plan::{Decision, ProfileName};
use crate::principal::{Name, Principal, Role, Roles};
use crate::profile::ProfileChange;
use crate::run::{Enforced, Outcome};
use crate::text::Digest;
use crate::time::Timestamp;

/// Who caused an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// Somebody with a token.
    Principal {
        /// Their name.
        name: Name,
        /// What they may do.
        roles: Roles,
        /// The token that they showed.
        token: TokenId,
    },
    /// Provara itself: its worker, its clock, its recovery.
    System,
}

impl From<&Principal> for Actor {
    fn from(principal: &Principal) -> Self {
        Self::Principal { name: principal.name.clone(), roles: principal.roles.clone(), token: principal.token.clone() }
    }
}

/// What happened. Bodies carry digests and never a command's text: the log is kept, the text may be erased.
#[derive(Debug, Clone, PartialEq)]
pub enum EventBody {
    /// A plan waits for a decision.
    PlanQueued {
        /// The plan's digest.
        digest: Digest,
        /// Policy's verdict.
        verdict: Verdict,
        /// The rules that spoke.
        rules: Vec<String>,
        /// The policy's digest.
        policy: Digest,
        /// The plan that this one edits or re-opens.
        origin: Option<PlanId>,
    },
    /// Policy refused a plan, when it was proposed or later.
    PlanBlocked {
        /// The plan's digest.
        digest: Digest,
        /// The rules that spoke.
        rules: Vec<String>,
        /// The policy's digest.
        policy: Digest,
    },
    /// A pending plan was judged anew and more strictly.
    PlanRejudged {
        /// Policy's new verdict.
        verdict: Verdict,
        /// The rules that spoke.
        rules: Vec<String>,
        /// The policy's digest.
        policy: Digest,
    },
    /// What was measured about a pending plan is another than it was.
    PlanRemeasured {
        /// The digest of its new binding; none where nothing could be measured.
        binding: Option<Digest>,
    },
    /// Somebody decided.
    PlanDecided {
        /// The decision, whole.
        decision: Box<Decision>,
        /// The digest of its canonical form.
        decision_digest: Digest,
        /// The digest of the policy that judged at the decision.
        policy: Digest,
        /// What the decision made of the confinement that was shown; absent where it took that.
        profile_change: Option<ProfileChange>,
    },
    /// Nobody answered, or nobody claimed, in time.
    PlanExpired,
    /// The agent took it back.
    PlanWithdrawn,
    /// An approver edited it.
    PlanSuperseded {
        /// The plan that carries the edit.
        by: PlanId,
    },
    /// Stopped between approval and run.
    PlanCancelled,
    /// Its run may last longer.
    PlanExtended {
        /// The new time-out, seconds.
        timeout_s: u32,
    },
    /// An approver began to run it in a throw-away copy of its workspace, to see what it would do.
    PlanPreviewStarted {
        /// The profile that it runs with there.
        profile: ProfileName,
    },
    /// That ended. The plan itself did not run.
    PlanPreviewed {
        /// How.
        outcome: Outcome,
        /// The digest of what it changed in the copy.
        changes: Digest,
    },
    /// Its command, input and output were erased; this entry and those before it are what is left.
    PlanErased {
        /// The plan's digest.
        digest: Digest,
    },
    /// A run began.
    RunStarted {
        /// The run.
        run: RunId,
    },
    /// Somebody asked for the end of a run.
    RunCancelRequested {
        /// The run.
        run: RunId,
    },
    /// A run ended.
    RunFinished {
        /// The run.
        run: RunId,
        /// How.
        outcome: Outcome,
        /// The confinement that held.
        enforced: Enforced,
        /// How long it took, milliseconds.
        duration_ms: u64,
        /// Digest of the kept standard output.
        stdout_sha256: Digest,
        /// Digest of the kept standard error.
        stderr_sha256: Digest,
        /// Whether the run had been called lost before whoever held its claim could tell.
        late: bool,
    },
    /// We died while it ran.
    RunLost {
        /// The run.
        run: RunId,
    },
    /// A token was made.
    TokenCreated {
        /// Its record.
        token: TokenId,
        /// Its holder.
        name: Name,
        /// What the holder may do.
        roles: Roles,
    },
    /// A token is no longer accepted.
    TokenRevoked {
        /// Its record.
        token: TokenId,
    },
    /// A folder became a workspace.
    WorkspaceAdded {
        /// Its path.
        path: String,
    },
    /// A folder is no longer a workspace.
    WorkspaceRemoved {
        /// Its path.
        path: String,
    },
    /// A server began to serve.
    ServerStarted {
        /// Its version.
        version: String,
        /// The digest of the policy in force.
        policy: Digest,
    },
    /// A server ended in order.
    ServerStopped,
}

impl EventBody {
    /// Returns the event's type on the wire.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::PlanQueued { .. } => "plan.queued",
            Self::PlanBlocked { .. } => "plan.blocked",
            Self::PlanRejudged { .. } => "plan.rejudged",
            Self::PlanRemeasured { .. } => "plan.remeasured",
            Self::PlanDecided { decision, .. } => match decision.decision {
                crate::plan::DecisionKind::Approve => "plan.approved",
                crate::plan::DecisionKind::Deny => "plan.denied",
            },
            Self::PlanExpired => "plan.expired",
            Self::PlanWithdrawn => "plan.withdrawn",
            Self::PlanSuperseded { .. } => "plan.superseded",
            Self::PlanCancelled => "plan.cancelled",
            Self::PlanExtended { .. } => "plan.extended",
            Self::PlanPreviewStarted { .. } => "plan.preview_started",
            Self::PlanPreviewed { .. } => "plan.previewed",
            Self::PlanErased { .. } => "plan.erased",
            Self::RunStarted { .. } => "run.started",
            Self::RunCancelRequested { .. } => "run.cancel_requested",
            Self::RunFinished { .. } => "run.finished",
            Self::RunLost { .. } => "run.lost",
            Self::TokenCreated { .. } => "token.created",
            Self::TokenRevoked { .. } => "token.revoked",
            Self::WorkspaceAdded { .. } => "workspace.added",
            Self::WorkspaceRemoved { .. } => "workspace.removed",
            Self::ServerStarted { .. } => "server.started",
            Self::ServerStopped => "server.stopped",
        }
    }
}

/// One entry of the log, before it has a position. Its canonical form is a leaf of the Merkle tree; it carries no
/// position and no previous hash, so that it is fixed the moment it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its identifier.
    pub id: EventId,
    /// When.
    pub ts: Timestamp,
    /// The plan that it is about, if any.
    pub plan: Option<PlanId>,
    /// The how-manyth change of that plan this is, from 1. Filled in by the store.
    pub plan_rev: Option<u64>,
    /// Who caused it.
    pub actor: Actor,
    /// What happened.
    pub body: EventBody,
}

impl Actor {
    /// Returns whether the actor held `role`.
    pub fn has(&self, role: Role) -> bool {
        match self {
            Self::Principal { roles, .. } => roles.has(role),
            Self::System => false,
        }
    }
}
