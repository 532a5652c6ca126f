//! Step two: a person decides. Approving judges again; a decision binds the plan's digest; exactly one wins.

use std::sync::Arc;

use provara_audit::canonical;
use provara_domain::{
    Binding, Claim, CommandText, Decision, DecisionKind, DecisionMethod, Digest, Judgement, Limits, Measured, Name,
    Nonce, Note, PlanId, Principal, ProfileChange, ProfileName, ResourceLimits, Role, RunId, ScriptFound, Status,
    Timeout, Verdict,
};
use provara_faults::{Place, reached};
use provara_policy::Demands;
use provara_store::{Idempotency, NewDecision, PlanRecord, Recalled, StoreError, TransitionError};

use crate::gateway::{Gateway, Inner};
use crate::propose::{Idempotent, ProposeError};
use crate::worker::Room;

/// A person's yes, and on which terms.
#[derive(Debug, Clone, Default)]
pub struct Approval {
    /// The digest of what they saw; refused if the plan has another.
    pub digest: Option<Digest>,
    /// The digest of the binding that they saw; refused if the plan has another.
    pub binding: Option<Digest>,
    /// Why.
    pub reason: Option<String>,
    /// Another confinement than the plan would run with. A looser one needs a reason.
    pub profile: Option<ProfileName>,
    /// The digest of the profile that they saw; refused if what is approved has another.
    pub profile_sha256: Option<Digest>,
    /// A shorter time-out than the plan's.
    pub timeout: Option<Timeout>,
    /// Lower limits than the profile's.
    pub limits: ResourceLimits,
    /// Makes a repeated request answer as the first did.
    pub idempotency: Option<Idempotent>,
}

/// What an approver changes about a plan. What is absent stays.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// Another command.
    pub command: Option<CommandText>,
    /// Another working directory.
    pub cwd: Option<String>,
    /// Another time-out.
    pub timeout: Option<Timeout>,
    /// Another note.
    pub note: Option<Note>,
}

/// Why a decision was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The caller is no approver.
    #[error("only an approver may decide")]
    NotAnApprover,
    /// There is no such plan.
    #[error("no plan has the id {id}")]
    NotFound {
        /// The id.
        id: PlanId,
    },
    /// Somebody or something was faster.
    #[error("plan {} is {} and can no longer be decided", record.plan.id, record.status)]
    Conflict {
        /// The plan as it stands.
        record: Box<PlanRecord>,
    },
    /// The approver saw something else.
    #[error("the plan's digest is {found}, not the one that was approved; look at the plan again")]
    DigestMismatch {
        /// The plan's digest.
        found: Digest,
    },
    /// Policy is stricter now than the approver was shown. The plan stays pending with the new judgement.
    #[error("policy judges this plan more strictly than when it was shown; look at the new judgement and decide again")]
    JudgementChanged {
        /// The plan with its new judgement.
        record: Box<PlanRecord>,
    },
    /// What would run is not what the approver was shown. The plan stays pending with the new measurement.
    #[error("what this command would run has changed since it was shown; look at the plan again and decide anew")]
    BindingChanged {
        /// What was shown, where that is known.
        shown: Option<Box<Measured>>,
        /// The plan with its new measurement.
        record: Box<PlanRecord>,
    },
    /// Rules demand that all it names is bound.
    #[error("the rules {rules} demand that all this command names is bound, and {why}; edit the plan or deny it")]
    NotBound {
        /// The rules, listed.
        rules: String,
        /// What is not, and why.
        why: String,
    },
    /// Policy denies it now.
    #[error("policy denies this command now; it was blocked")]
    PolicyDenied {
        /// The blocked plan.
        record: Box<PlanRecord>,
    },
    /// The idempotency key was used for another approval of this plan.
    #[error("the idempotency key was used before with another body")]
    IdempotencyMismatch,
    /// No such profile here.
    #[error(
        "the profile `{0}` is not loaded here, or goes beyond what one token for all may choose; see `provara profile list`"
    )]
    Profile(ProfileName),
    /// The approver saw another profile.
    #[error("the profile `{profile}` is not what was looked at; look at its words again")]
    ProfileMismatch {
        /// The profile.
        profile: ProfileName,
        /// Its digest.
        found: Digest,
    },
    /// Rules do not let the plan run with that profile.
    #[error(
        "the rules {rules} do not let this plan run with the profile `{profile}`; choose one within what they force"
    )]
    ProfileRuled {
        /// The profile.
        profile: ProfileName,
        /// The rules, listed.
        rules: String,
    },
    /// A looser profile, and nobody said why.
    #[error("the profile `{to}` allows more than `{from}`, or cannot be compared with it; say why in `reason`")]
    NoReason {
        /// What was shown.
        from: ProfileName,
        /// What was chosen.
        to: ProfileName,
    },
    /// A limit above what the plan or the profile has.
    #[error("`{what}` is higher than what the plan would run with; a decision only lowers limits")]
    HigherLimit {
        /// Its name.
        what: &'static str,
    },
    /// The edit is not a plan.
    #[error(transparent)]
    Edit(ProposeError),
    /// The store failed.
    #[error("could not record the decision on plan {id}")]
    Store {
        /// The plan.
        id: PlanId,
        /// Why.
        #[source]
        cause: StoreError,
    },
}

impl DecideError {
    pub(crate) fn of(id: &PlanId, error: TransitionError) -> Self {
        match error {
            TransitionError::NotFound => Self::NotFound { id: id.clone() },
            TransitionError::Conflict { record, .. } => Self::Conflict { record },
            TransitionError::Store(cause) => Self::Store { id: id.clone(), cause },
        }
    }
}

impl Gateway {
    /// Records an approver's yes. The worker runs the plan; see [`Gateway::settled`] for its end. Where the same request
    /// with the same idempotency key decided the plan before, returns the plan as it stands.
    ///
    /// # Errors
    /// See [`DecideError`]; nothing will run on account of this call then.
    pub async fn approve(&self, who: &Principal, id: &PlanId, approval: Approval) -> Result<PlanRecord, DecideError> {
        let key = approval.idempotency.as_ref().map(|sent| sent.of_plan(who, id));
        match self.approve_now(who, id, approval, key.clone()).await {
            // Looked up only now: a key is kept by the very commit that made the plan what it is found to be.
            Err(DecideError::Conflict { record }) => self.inner.as_before(who, record, key).await,
            answer => answer,
        }
    }

    async fn approve_now(
        &self,
        who: &Principal,
        id: &PlanId,
        approval: Approval,
        key: Option<Idempotency>,
    ) -> Result<PlanRecord, DecideError> {
        let inner = &self.inner;
        let shown = inner.pending_plan(who, id).await?;
        if let Some(seen) = &approval.digest
            && *seen != shown.digest
        {
            return Err(DecideError::DigestMismatch { found: shown.digest });
        }
        let judgement = inner.judge_again(who, &shown).await?;
        let demands = inner.policy.demands(&judgement);
        let settled = inner.settle(&shown.plan, &demands, &approval)?;
        let binding = inner.measure_again(who, &shown, &approval, &demands, settled.binding).await?;
        let timeout_s = approval.timeout.unwrap_or(shown.plan.timeout).seconds();
        let decision = Decision {
            binding: Some(binding),
            limits: Limits { timeout_s, resources: settled.resources },
            ..inner.decision(who, &shown, DecisionKind::Approve, settled.profile)
        };
        // In a task of its own: whoever asked may go away, and a claim that nobody takes would be a run that never was.
        let (inner, who) = (Arc::clone(inner), who.clone());
        let stored = tokio::spawn(async move {
            // A worker with room claims in the same commit; else the plan waits for it.
            let room = Room::take(&inner, &decision.plan);
            let target = room.is_some().then(Name::local_target);
            let made = Made { decision, reason: approval.reason, change: settled.change, judgement, idempotency: key };
            let (record, claim) = inner.record_decision(&who, made, target).await?;
            match (room, claim) {
                (Some(room), Some(claim)) => room.start(claim),
                _ => inner.work.notify_one(),
            }
            Ok(record)
        });
        stored.await.unwrap_or_else(|_| Err(DecideError::Store { id: id.clone(), cause: StoreError::Closed }))
    }

    /// Records an approver's no. The reason reaches the agent.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn deny(&self, who: &Principal, id: &PlanId, reason: Option<String>) -> Result<PlanRecord, DecideError> {
        let inner = &self.inner;
        let shown = inner.pending_plan(who, id).await?;
        let decision = inner.decision(who, &shown, DecisionKind::Deny, shown.plan.profile.clone());
        let made = Made { decision, reason, change: None, judgement: shown.judgement, idempotency: None };
        let (record, _) = inner.record_decision(who, made, None).await?;
        Ok(record)
    }

    /// Replaces a pending plan by an edited one, judged anew, still the agent's. The old one is `superseded`.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn edit(&self, who: &Principal, id: &PlanId, edit: Edit) -> Result<PlanRecord, DecideError> {
        let inner = &self.inner;
        let old = inner.pending_plan(who, id).await?;
        let mut plan = old.plan;
        plan.id = inner.plan_id();
        plan.nonce = Nonce::new(inner.platform.entropy());
        if let Some(command) = edit.command {
            plan.command = command;
        }
        if edit.cwd.is_some() {
            plan.cwd = inner.working_dir(edit.cwd).map_err(DecideError::Edit)?;
        }
        if let Some(timeout) = edit.timeout {
            plan.timeout = timeout;
        }
        let new = inner.new_plan(plan, edit.note.or(old.note), None, who).await;
        inner.store.supersede(id, new).await.map_err(|error| DecideError::of(id, error))
    }

    /// Proposes again what expired, what was not run because something had changed, or whose run was lost: a new, linked
    /// plan, judged and decided anew. A lost run may have done its work; whoever decides on the new plan knows what it repeats
    /// by its `origin`. Once for each plan; the store settles which may be re-opened.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn reopen(&self, who: &Principal, id: &PlanId) -> Result<PlanRecord, DecideError> {
        let inner = &self.inner;
        inner.approver(who)?;
        let old = inner.known_plan(who, id).await?;
        let mut plan = old.plan;
        plan.id = inner.plan_id();
        plan.nonce = Nonce::new(inner.platform.entropy());
        let new = inner.new_plan(plan, old.note, None, who).await;
        inner.store.reopen(id, new).await.map_err(|error| DecideError::of(id, error))
    }
}

impl Inner {
    fn approver(&self, who: &Principal) -> Result<(), DecideError> {
        if who.roles.has(Role::Approver) { Ok(()) } else { Err(DecideError::NotAnApprover) }
    }

    async fn known_plan(&self, who: &Principal, id: &PlanId) -> Result<PlanRecord, DecideError> {
        match self.store.plan(&who.project, provara_store::Owner::Everyone, id).await {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err(DecideError::NotFound { id: id.clone() }),
            Err(cause) => Err(DecideError::Store { id: id.clone(), cause }),
        }
    }

    /// The plan that `who` is about to decide. That it is pending here is a courtesy; the store's guard settles races.
    pub(crate) async fn pending_plan(&self, who: &Principal, id: &PlanId) -> Result<PlanRecord, DecideError> {
        self.approver(who)?;
        let record = self.known_plan(who, id).await?;
        if record.status != Status::Pending {
            return Err(DecideError::Conflict { record: Box::new(record) });
        }
        if record.expires_at <= self.platform.now() {
            return Err(self.too_late(id).await);
        }
        Ok(record)
    }

    /// Expires a plan that nobody decided in time, so that what is refused is what is shown.
    async fn too_late(&self, id: &PlanId) -> DecideError {
        match self.store.expire(id, self.system_cause()).await {
            Ok(record) => DecideError::Conflict { record: Box::new(record) },
            Err(error) => DecideError::of(id, error),
        }
    }

    /// Answers a refused approval as the same request was answered before, if there was one.
    async fn as_before(
        &self,
        who: &Principal,
        found: Box<PlanRecord>,
        key: Option<Idempotency>,
    ) -> Result<PlanRecord, DecideError> {
        let Some(key) = key else { return Err(DecideError::Conflict { record: found }) };
        match self.store.recall(&who.project, &key, self.platform.now()).await {
            Ok(Some(Recalled::Same(record))) => Ok(*record),
            Ok(Some(Recalled::OtherBody)) => Err(DecideError::IdempotencyMismatch),
            Ok(None) => Err(DecideError::Conflict { record: found }),
            Err(cause) => Err(DecideError::Store { id: found.plan.id, cause }),
        }
    }

    /// Policy's word at the moment of the decision. Stricter than shown stops the decision; looser changes nothing.
    pub(crate) async fn judge_again(&self, who: &Principal, shown: &PlanRecord) -> Result<Judgement, DecideError> {
        let id = &shown.plan.id;
        let now = self.judge(&shown.plan);
        if now.verdict <= shown.judgement.verdict {
            return Ok(now);
        }
        let failed = |error| DecideError::of(id, error);
        if now.verdict == Verdict::Deny {
            let record = self.store.block(&who.project, id, &now, self.cause(who)).await.map_err(failed)?;
            return Err(DecideError::PolicyDenied { record: Box::new(record) });
        }
        let record = self.store.rejudge(&who.project, id, &now, self.cause(who)).await.map_err(failed)?;
        Err(DecideError::JudgementChanged { record: Box::new(record) })
    }

    /// What this machine finds at the moment of the decision, which binds it beside the profile that was `chosen`. Anything
    /// else than shown stops the decision.
    async fn measure_again(
        &self,
        who: &Principal,
        shown: &PlanRecord,
        approval: &Approval,
        demands: &Demands,
        chosen: Binding,
    ) -> Result<Binding, DecideError> {
        let before = shown.measured.as_ref();
        if let Some(seen) = &approval.binding
            && before.map(|known| canonical::binding_digest(&known.binding)).as_ref() != Some(seen)
        {
            return Err(DecideError::BindingChanged { shown: None, record: Box::new(shown.clone()) });
        }
        let now = match &self.runner {
            Some(_) => self.measure(&shown.plan, demands, Some(&chosen.profile_sha256)).await,
            // Another host would run it, and has not measured again.
            None => return bound(before, demands, chosen),
        };
        if now.as_ref().map(|found| &found.measured.binding) == before.map(|known| &known.binding) {
            return bound(now.as_ref().map(|found| &found.measured), demands, chosen);
        }
        let id = &shown.plan.id;
        let stored = self.store.remeasure(&who.project, id, now, self.cause(who)).await;
        let record = stored.map_err(|error| DecideError::of(id, error))?;
        Err(DecideError::BindingChanged { shown: before.cloned().map(Box::new), record: Box::new(record) })
    }

    fn decision(&self, who: &Principal, shown: &PlanRecord, kind: DecisionKind, profile: ProfileName) -> Decision {
        Decision {
            plan: shown.plan.id.clone(),
            // Computed from what is stored, not copied from the row: a decision binds bytes.
            digest: canonical::plan_digest(&shown.plan),
            binding: None,
            decision: kind,
            profile,
            limits: Limits { timeout_s: shown.plan.timeout.seconds(), resources: ResourceLimits::default() },
            approver: who.name.clone(),
            method: DecisionMethod::Token,
            nonce: Nonce::new(self.platform.entropy()),
            ts: self.platform.now(),
        }
    }

    /// Stores a decision; where a target is named, with the claim of its worker in the same commit.
    async fn record_decision(
        &self,
        who: &Principal,
        made: Made,
        target: Option<Name>,
    ) -> Result<(PlanRecord, Option<Claim>), DecideError> {
        let Made { decision, reason, change, judgement, idempotency } = made;
        let id = decision.plan.clone();
        let approval_valid_until = decision.ts.plus(self.config.approval_valid);
        let denial_counts_for = self.config.cool_down.window;
        let cause = self.cause(who);
        let at = cause.at;
        let new = NewDecision {
            decision,
            reason,
            judgement,
            approval_valid_until,
            denial_counts_for,
            profile_change: change,
            idempotency,
            cause,
        };
        reached(Place::DecisionMade);
        let stored = match target {
            Some(target) => {
                let run = RunId::new(self.platform.now(), self.id_entropy());
                self.store.approve_and_claim(&who.project, new, &target, run, self.system_cause()).await
            }
            None => self.store.decide(&who.project, new).await.map(|record| (record, None)),
        };
        reached(Place::DecisionStored);
        match stored {
            Ok(stored) => Ok(stored),
            // It became due between our look and the store's.
            Err(TransitionError::Conflict { found: Status::Pending, record }) if record.expires_at <= at => {
                Err(self.too_late(&id).await)
            }
            Err(error) => Err(DecideError::of(&id, error)),
        }
    }
}

/// A decision that was made and is not stored.
struct Made {
    decision: Decision,
    reason: Option<String>,
    /// What it makes of the confinement that was shown.
    change: Option<ProfileChange>,
    judgement: Judgement,
    idempotency: Option<Idempotency>,
}

/// What a decision binds: what was measured, and the profile that was chosen. Nothing where rules demand more than that.
fn bound(measured: Option<&Measured>, demands: &Demands, chosen: Binding) -> Result<Binding, DecideError> {
    if !demands.binding.is_empty()
        && let Some(why) = not_bound(measured)
    {
        let rules = demands.binding.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(", ");
        return Err(DecideError::NotBound { rules, why });
    }
    Ok(match measured {
        Some(found) => Binding { profile_sha256: chosen.profile_sha256, ..found.binding.clone() },
        None => chosen,
    })
}

/// What of a plan is not bound, if anything is not.
fn not_bound(measured: Option<&Measured>) -> Option<String> {
    let Some(measured) = measured.filter(|known| known.binding.is_measured()) else {
        return Some("nothing could be measured".to_owned());
    };
    measured.scripts.iter().find_map(|script| match &script.found {
        ScriptFound::Bound { .. } => None,
        ScriptFound::Unbound { why } => Some(format!("`{}` is not: {why}", script.named)),
    })
}

#[cfg(test)]
mod tests {
    use provara_domain::{BoundScript, MeasuredScript, ScriptUse, Span};

    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_sha256([byte; 32])
    }

    fn of_profile(profile_sha256: Digest) -> Binding {
        let runner = Name::local_target();
        Binding { runner, cwd_dev_ino: None, shell_sha256: None, scripts: Vec::new(), profile_sha256 }
    }

    fn found(script: Option<ScriptFound>) -> Measured {
        let binding = Binding {
            cwd_dev_ino: Some("1:2".into()),
            shell_sha256: Some(digest(1)),
            scripts: vec![BoundScript { path: "/w/s".into(), sha256: digest(2), size: 3 }],
            ..of_profile(digest(3))
        };
        let span = Span { start: 0, end: 1 };
        let scripts = script.map(|found| MeasuredScript { named: "s".into(), span, how: ScriptUse::Program, found });
        Measured { binding, scripts: scripts.into_iter().collect() }
    }

    #[test]
    fn a_decision_binds_what_was_measured_and_the_profile_that_was_chosen() {
        let nothing = Demands::default();
        let known = found(None);
        let decided = bound(Some(&known), &nothing, of_profile(digest(4))).unwrap();
        assert_eq!(decided, Binding { profile_sha256: digest(4), ..known.binding });
        assert_eq!(bound(None, &nothing, of_profile(digest(4))).unwrap(), of_profile(digest(4)));
    }

    #[test]
    fn what_rules_demand_to_be_bound_is_bound_or_not_approved() {
        let demands = Demands { binding: vec!["a".into(), "b".into()], ..Demands::default() };
        let chosen = || of_profile(digest(4));
        assert!(bound(Some(&found(None)), &demands, chosen()).is_ok());
        let unbound = found(Some(ScriptFound::Unbound { why: "it is a folder".into() }));
        let lost = Measured { binding: chosen(), scripts: Vec::new() };
        for (measured, why) in [
            (Some(&unbound), "`s` is not: it is a folder"),
            (Some(&lost), "nothing could be measured"),
            (None, "nothing could be measured"),
        ] {
            let refused = bound(measured, &demands, chosen()).unwrap_err().to_string();
            let told = format!("the rules `a`, `b` demand that all this command names is bound, and {why};");
            assert!(refused.starts_with(&told), "{refused}");
        }
    }
}
