//! Step one: an agent proposes a command, policy judges it, and it waits for a person.

use std::collections::BTreeMap;
use std::time::Duration;

use provara_audit::canonical;
use provara_domain::{
    CommandText, EnvName, Name, Nonce, Note, Plan, PlanId, PlanKind, Principal, ProfileName, Role, Shell, Status,
    Timeout, Verdict, WorkingDir, WorkingDirError,
};
use provara_faults::{Place, reached};
use provara_store::{
    DeniedBefore, EqualPending, Idempotency, NewPlan, PlanRecord, ProposeError as StoreProposeError, StoreError,
};

use crate::gateway::{Gateway, Inner};

/// What an agent proposes, checked.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The command.
    pub command: CommandText,
    /// The shell that reads it; the configured one where absent.
    pub shell: Option<Shell>,
    /// Where it runs: absolute, or relative to the workspace; the workspace where absent.
    pub cwd: Option<String>,
    /// Variables that it names.
    pub env: BTreeMap<EnvName, String>,
    /// What it reads.
    pub stdin: Option<Vec<u8>>,
    /// How long it may run.
    pub timeout: Timeout,
    /// The agent's own words about it.
    pub note: Option<Note>,
    /// The host that runs it; this one where absent.
    pub target: Option<Name>,
    /// The confinement that it asks for; `workspace` where absent.
    pub profile: Option<Name>,
    /// When it expires unanswered; the configured time where absent.
    pub expires: Option<Duration>,
    /// Whether an equal pending plan of the same agent answers for it.
    pub dedupe: bool,
    /// Makes a repeated request answer as the first did.
    pub idempotency: Option<Idempotent>,
}

/// An idempotency key as it was sent.
#[derive(Debug, Clone)]
pub struct Idempotent {
    /// The key.
    pub key: String,
    /// The method and route that it was sent to.
    pub route: &'static str,
    /// The digest of the request's body.
    pub body_sha256: [u8; 32],
}

impl Idempotent {
    pub(crate) fn of(self, who: &Principal) -> Idempotency {
        let scope = format!("{} {}", who.name, self.route);
        Idempotency { scope, key: self.key, body_sha256: self.body_sha256 }
    }

    /// The plan is part of the route: the same key for another plan is another request.
    pub(crate) fn of_plan(&self, who: &Principal, plan: &PlanId) -> Idempotency {
        let scope = format!("{} {}/{plan}", who.name, self.route);
        Idempotency { scope, key: self.key.clone(), body_sha256: self.body_sha256 }
    }
}

/// What became of a proposal.
#[derive(Debug)]
pub enum Proposed {
    /// It waits for a person.
    Queued(PlanRecord),
    /// An equal request was here before; this is its plan.
    Repeated(PlanRecord),
    /// Policy refuses it. It is stored all the same.
    Blocked(PlanRecord),
}

/// Why a proposal was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The caller is no agent.
    #[error("only an agent's token may propose a command")]
    NotAnAgent,
    /// The working directory is no plain path.
    #[error("the working directory cannot be used")]
    WorkingDir(#[source] WorkingDirError),
    /// The working directory lies in no workspace.
    #[error(
        "cwd `{cwd}` lies in no workspace; use a folder below `{workspace}`, or ask a person to add one with `provara workspace add`"
    )]
    OutsideWorkspaces {
        /// The directory.
        cwd: String,
        /// The configured workspace.
        workspace: String,
    },
    /// No such host.
    #[error("no host is called `{0}`; this server knows `local`")]
    UnknownTarget(Name),
    /// No such profile, or not one that an agent may ask for.
    #[error("an agent may not ask for the profile `{asked}`; it may ask for {askable}")]
    Profile {
        /// What it asked for.
        asked: ProfileName,
        /// What it may ask for, listed.
        askable: String,
    },
    /// Too many plans of this agent wait already.
    #[error("this agent has {cap} pending plans already; wait for decisions or cancel some")]
    PendingCap {
        /// The cap.
        cap: u32,
    },
    /// People denied the same so often lately that they are not asked again yet.
    #[error("{}", held_back(denied, *wait))]
    CoolDown {
        /// What they answered.
        denied: DeniedBefore,
        /// How long until it may be proposed again, in whole seconds.
        wait: Duration,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used before with another body")]
    IdempotencyMismatch,
    /// The server is ending.
    #[error("the server is stopping and takes no new plans")]
    Stopping,
    /// The store failed.
    #[error("could not store the plan")]
    Store(#[source] StoreError),
}

impl Gateway {
    /// Judges a proposed command and stores it, pending or blocked.
    ///
    /// # Errors
    /// See [`ProposeError`]; then nothing was stored.
    pub async fn propose(&self, who: &Principal, proposal: Proposal) -> Result<Proposed, ProposeError> {
        let inner = &self.inner;
        if !who.roles.has(Role::Agent) {
            return Err(ProposeError::NotAnAgent);
        }
        if self.is_stopping() {
            return Err(ProposeError::Stopping);
        }
        let note = proposal.note.clone();
        let (dedupe, expires, idempotency) = (proposal.dedupe, proposal.expires, proposal.idempotency.clone());
        let plan = inner.plan_of(who, proposal)?;
        let new = NewPlan {
            idempotency: idempotency.map(|sent| sent.of(who)),
            equal: if dedupe { EqualPending::Answers } else { EqualPending::StaysApart },
            ..inner.new_plan(plan, note, expires, who).await
        };
        let at = new.cause.at;
        reached(Place::PlanJudged);
        let stored = inner.store.propose(new).await;
        reached(Place::PlanStored);
        match stored {
            Ok(provara_store::Proposed::New(record)) if record.status == Status::Blocked => {
                Ok(Proposed::Blocked(record))
            }
            Ok(provara_store::Proposed::New(record)) => Ok(Proposed::Queued(record)),
            Ok(provara_store::Proposed::Repeated(record)) if record.status == Status::Blocked => {
                Ok(Proposed::Blocked(record))
            }
            Ok(provara_store::Proposed::Repeated(record)) => Ok(Proposed::Repeated(record)),
            Err(StoreProposeError::PendingCap { cap }) => Err(ProposeError::PendingCap { cap }),
            Err(StoreProposeError::CoolDown { denied, until }) => {
                // Rounded up: whoever comes back when told to is not refused again.
                let seconds = until.since(at).as_millis().div_ceil(1000);
                let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX).max(1));
                Err(ProposeError::CoolDown { denied, wait })
            }
            Err(StoreProposeError::IdempotencyMismatch) => Err(ProposeError::IdempotencyMismatch),
            Err(StoreProposeError::Store(cause)) => Err(ProposeError::Store(cause)),
        }
    }
}

/// Names who refused, why, and when to come back: an agent that reads it need not guess its way round.
fn held_back(denied: &DeniedBefore, wait: Duration) -> String {
    let times = match denied.count {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    let reason = match denied.reason.as_deref().filter(|reason| !reason.is_empty()) {
        Some(reason) => format!(", saying `{reason}`"),
        None => ", without a reason".to_owned(),
    };
    let (last, seconds) = (denied.last_at.rfc3339(), wait.as_secs());
    format!(
        "a person denied this command {times} lately, last at {last}{reason}; propose another, or this one again in {seconds} s"
    )
}

impl Inner {
    /// A plan judged and measured now, and ready to be stored.
    pub(crate) async fn new_plan(
        &self,
        plan: Plan,
        note: Option<Note>,
        expires: Option<Duration>,
        who: &Principal,
    ) -> NewPlan {
        let judgement = self.judge(&plan);
        let measurement = match judgement.verdict {
            // Nobody will decide on it.
            Verdict::Deny => None,
            Verdict::Allow | Verdict::Ask => self.measure(&plan, &self.policy.demands(&judgement), None).await,
        };
        let cause = self.cause(who);
        NewPlan {
            digest: canonical::plan_digest(&plan),
            judgement,
            measurement,
            note,
            dedupe: canonical::plan_dedupe_digest(&plan),
            equal: EqualPending::StaysApart,
            expires_at: cause.at.plus(expires.unwrap_or(self.config.plan_expiry)),
            pending_cap: self.config.pending_cap,
            cool_down: self.config.cool_down,
            idempotency: None,
            cause,
            plan,
        }
    }

    fn plan_of(&self, who: &Principal, proposal: Proposal) -> Result<Plan, ProposeError> {
        let local = Name::local_target();
        let target = proposal.target.unwrap_or_else(|| local.clone());
        if target != local {
            return Err(ProposeError::UnknownTarget(target));
        }
        Ok(Plan {
            kind: PlanKind::Command,
            id: self.plan_id(),
            project: who.project.clone(),
            agent: who.name.clone(),
            command: proposal.command,
            shell: proposal.shell.unwrap_or(self.config.default_shell),
            cwd: self.working_dir(proposal.cwd)?,
            env: proposal.env,
            stdin: proposal.stdin,
            tty: false,
            timeout: proposal.timeout,
            target,
            profile: self.asked_profile(proposal.profile)?,
            nonce: Nonce::new(self.platform.entropy()),
        })
    }

    pub(crate) fn plan_id(&self) -> PlanId {
        PlanId::new(self.platform.now(), self.id_entropy())
    }

    /// The directory that `asked` means. This is about names; the runner opens it and refuses a link that leads out.
    pub(crate) fn working_dir(&self, asked: Option<String>) -> Result<WorkingDir, ProposeError> {
        let workspace = &self.config.workspace;
        let cwd = match asked {
            None => workspace.clone(),
            Some(path) if path.is_empty() || path == "." => workspace.clone(),
            Some(path) if path.starts_with('/') => path,
            Some(path) => format!("{workspace}/{}", path.strip_prefix("./").unwrap_or(&path)),
        };
        let cwd = if cwd.len() > 1 { cwd.trim_end_matches('/').to_owned() } else { cwd };
        let cwd = WorkingDir::parse(cwd).map_err(ProposeError::WorkingDir)?;
        match self.workspace_of(cwd.as_str()) {
            Some(_) => Ok(cwd),
            None => {
                let (cwd, workspace) = (cwd.as_str().to_owned(), workspace.clone());
                Err(ProposeError::OutsideWorkspaces { cwd, workspace })
            }
        }
    }

    /// The workspace that holds `cwd`, the innermost where several do.
    pub(crate) fn workspace_of(&self, cwd: &str) -> Option<String> {
        self.workspaces().into_iter().filter(|workspace| lies_in(cwd, workspace)).max_by_key(String::len)
    }
}

/// Whether `path` is `folder` or below it, as names. Both are plain absolute paths.
pub(crate) fn lies_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder == "/")
}

#[cfg(test)]
mod tests {
    use super::lies_in;

    #[test]
    fn a_sibling_with_the_same_beginning_is_outside() {
        assert!(lies_in("/srv/work", "/srv/work"));
        assert!(lies_in("/srv/work/a", "/srv/work"));
        assert!(!lies_in("/srv/workspace", "/srv/work"));
        assert!(!lies_in("/srv", "/srv/work"));
        assert!(lies_in("/etc", "/"));
    }
}
