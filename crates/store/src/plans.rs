//! Plans: proposals, the guarded transitions of the lifecycle, and lists.

use std::sync::Arc;

use provara_domain::{
    Claim, DecisionKind, Digest, EventBody, Judgement, Measurement, Name, Outcome, PlanId, ProfileName, Ran, RunId,
    ScriptText, SpawnFailure, Status, Timeout, Timestamp, Verdict,
};
use rusqlite::types::Value;
use rusqlite::{Connection, ToSql, params, params_from_iter};

use crate::denials::{self, Denials};
use crate::idempotency::{recall, remember};
use crate::measures::{Measures, Step};
use crate::memory::Effect;
use crate::output::{self, Settled};
use crate::sqlite::codec::{self, signed};
use crate::sqlite::writer::{About, RUNS, Tx, derived};
use crate::store::Store;
use crate::types::{
    Cause, Counts, EqualPending, NewDecision, NewPlan, Owner, PlanFilter, PlanRecord, ProposeError, Proposed, Recalled,
    Recovered, StoreError, TransitionError,
};

impl Store {
    /// Stores a plan as `pending`, or as `blocked` when its judgement is `deny`.
    ///
    /// # Errors
    /// When the agent has too many pending plans, the key came with another body, or the store fails.
    pub async fn propose(&self, new: NewPlan) -> Result<Proposed, ProposeError> {
        self.inner.writer.write(move |tx| propose(tx, &new)).await
    }

    /// Returns a plan, if `owner` may see it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn plan(&self, project: &Name, owner: Owner, id: &PlanId) -> Result<Option<PlanRecord>, StoreError> {
        let (project, id) = (project.clone(), id.clone());
        self.inner.readers.read(move |conn| visible(conn, &project, &owner, "id", id.as_str())).await
    }

    /// Returns plans, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn plans(&self, project: &Name, owner: Owner, filter: PlanFilter) -> Result<Vec<PlanRecord>, StoreError> {
        let project = project.clone();
        self.inner
            .readers
            .read(move |conn| {
                // Of one moment, so that nobody is shown a plan that no longer belongs into the list.
                let snapshot = conn.unchecked_transaction()?;
                let listed = revisions(&snapshot, &project, &owner, &filter)?;
                listed.into_iter().map(|(seq, _)| by_seq(&snapshot, seq)).collect()
            })
            .await
    }

    /// Returns a project's counts, as of the last commit.
    pub fn counts(&self, project: &Name) -> Counts {
        self.inner.memory.counts(project)
    }

    /// Returns what was counted since the store was opened.
    pub fn measures(&self) -> &Measures {
        &self.inner.memory.measures
    }

    /// Stores a new judgement of a plan that stays `pending`.
    ///
    /// # Errors
    /// When it is not pending, or the store fails.
    pub async fn rejudge(
        &self,
        project: &Name,
        id: &PlanId,
        judgement: &Judgement,
        cause: Cause,
    ) -> Result<PlanRecord, TransitionError> {
        let judgement = judgement.clone();
        self.change_in(project, id, cause, move |tx, found, cause| {
            guard(&found, found.status == Status::Pending)?;
            let body = EventBody::PlanRejudged {
                verdict: judgement.verdict,
                rules: rules(&judgement),
                policy: judgement.policy.digest.clone(),
            };
            let judgement = codec::json("judgement", &judgement)?;
            step(tx, &found, &[("judgement", judgement.into())], body, cause)
        })
        .await
    }

    /// Stores a new measurement of a plan that stays `pending`, with its texts in the place of the old ones.
    ///
    /// # Errors
    /// When it is not pending, or the store fails.
    pub async fn remeasure(
        &self,
        project: &Name,
        id: &PlanId,
        measurement: Option<Measurement>,
        cause: Cause,
    ) -> Result<PlanRecord, TransitionError> {
        self.change_in(project, id, cause, move |tx, found, cause| {
            guard(&found, found.status == Status::Pending)?;
            let measured = measurement.as_ref().map(|known| &known.measured);
            let binding = measured.map(|measured| provara_audit::canonical::binding_digest(&measured.binding));
            let stored = measured.map(|measured| codec::json("measured", measured)).transpose()?;
            delete_texts(tx.conn, &found.plan.id)?;
            insert_texts(tx.conn, &found.plan.id, measurement.as_ref())?;
            step(tx, &found, &[("measured", stored.into())], EventBody::PlanRemeasured { binding }, cause)
        })
        .await
    }

    /// Returns the texts of a plan's bound scripts.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn script_texts(&self, project: &Name, id: &PlanId) -> Result<Vec<ScriptText>, StoreError> {
        let (project, id) = (project.clone(), id.clone());
        self.inner
            .readers
            .read(move |conn| {
                let mut query = conn.prepare_cached(
                    "SELECT sha256, content FROM scripts WHERE plan = ?1 \
                     AND EXISTS (SELECT 1 FROM plans WHERE id = ?1 AND project = ?2)",
                )?;
                let mut rows = query.query(params![id.as_str(), project.as_str()])?;
                let mut texts = Vec::new();
                while let Some(row) = rows.next()? {
                    texts.push(codec::script_text(row)?);
                }
                Ok(texts)
            })
            .await
    }

    /// Stores the one decision on a pending plan.
    ///
    /// # Errors
    /// When it is not pending, is due to expire, or its digest is another than the one decided on, or the store fails.
    pub async fn decide(&self, project: &Name, new: NewDecision) -> Result<PlanRecord, TransitionError> {
        let (id, cause) = (new.decision.plan.clone(), new.cause.clone());
        self.change_in(project, &id, cause, move |tx, found, _| decide(tx, &found, new)).await
    }

    /// Stores an approval and claims the plan in the same commit, for a worker that has room for it: two events, and no
    /// commit between them. Without a claim where the plan is for another target.
    ///
    /// # Errors
    /// As [`Store::decide`]; nothing is claimed then.
    pub async fn approve_and_claim(
        &self,
        project: &Name,
        new: NewDecision,
        target: &Name,
        run: RunId,
        cause: Cause,
    ) -> Result<(PlanRecord, Option<Claim>), TransitionError> {
        let (id, target) = (new.decision.plan.clone(), target.clone());
        self.change_in(project, &id, new.cause.clone(), move |tx, found, _| {
            // Looked at before anything is written: once the approval is, the claim may not be refused.
            let claimable = new.decision.decision == DecisionKind::Approve
                && found.plan.target == target
                && cause.at < new.approval_valid_until;
            let decided = decide(tx, &found, new)?;
            let claim = if claimable { Some(claim(tx, &decided, &target, run, &cause)?) } else { None };
            Ok((decided, claim))
        })
        .await
    }

    /// Refuses a pending or approved plan, because policy does now.
    ///
    /// # Errors
    /// When it is neither, or the store fails.
    pub async fn block(
        &self,
        project: &Name,
        id: &PlanId,
        judgement: &Judgement,
        cause: Cause,
    ) -> Result<PlanRecord, TransitionError> {
        let judgement = judgement.clone();
        self.change_in(project, id, cause, move |tx, found, cause| {
            let body = blocked_body(&found.digest, &judgement);
            let set = [("judgement", codec::json("judgement", &judgement)?.into())];
            transition(tx, &found, Status::Blocked, &set, body, cause)
        })
        .await
    }

    /// Expires a plan that is due: one that changed since [`Store::due`] named it stays.
    ///
    /// # Errors
    /// When it is not due, or the store fails.
    pub async fn expire(&self, id: &PlanId, cause: Cause) -> Result<PlanRecord, TransitionError> {
        self.change(id, cause, |tx, found, cause| {
            let until = match (&found.status, &found.decision) {
                (Status::Approved, Some(decision)) => decision.approval_valid_until,
                _ => found.expires_at,
            };
            guard(&found, until <= cause.at)?;
            transition(tx, &found, Status::Expired, &[], EventBody::PlanExpired, cause)
        })
        .await
    }

    /// Takes a pending plan back.
    ///
    /// # Errors
    /// When it is not pending, or the store fails.
    pub async fn withdraw(&self, project: &Name, id: &PlanId, cause: Cause) -> Result<PlanRecord, TransitionError> {
        self.change_in(project, id, cause, |tx, found, cause| {
            transition(tx, &found, Status::Withdrawn, &[], EventBody::PlanWithdrawn, cause)
        })
        .await
    }

    /// Stops an approved plan before its run.
    ///
    /// # Errors
    /// When it is not approved, or the store fails.
    pub async fn cancel_approved(
        &self,
        project: &Name,
        id: &PlanId,
        cause: Cause,
    ) -> Result<PlanRecord, TransitionError> {
        self.change_in(project, id, cause, |tx, found, cause| {
            transition(tx, &found, Status::Cancelled, &[], EventBody::PlanCancelled, cause)
        })
        .await
    }

    /// Replaces a pending plan by its edit, in one commit; returns the new one.
    ///
    /// # Errors
    /// When the old one is not pending, or the store fails.
    pub async fn supersede(&self, old: &PlanId, new: NewPlan) -> Result<PlanRecord, TransitionError> {
        self.change_in(&new.plan.project.clone(), old, new.cause.clone(), move |tx, found, cause| {
            let by = new.plan.id.clone();
            let set = [("superseded_by", by.as_str().to_owned().into())];
            transition(tx, &found, Status::Superseded, &set, EventBody::PlanSuperseded { by }, cause)?;
            let denied = denials::of(tx.conn, &new)?;
            Ok(insert(tx, &new, Some(&found.plan.id), denied, &derived(cause, 1))?)
        })
        .await
    }

    /// Proposes a plan anew that expired, was lost, or found its binding changed: once. The old one stays as it is.
    ///
    /// # Errors
    /// When the old one is none of these or was re-opened before, or the store fails.
    pub async fn reopen(&self, old: &PlanId, new: NewPlan) -> Result<PlanRecord, TransitionError> {
        self.change_in(&new.plan.project.clone(), old, new.cause.clone(), move |tx, found, cause| {
            let unopened = !has_successor(tx.conn, &found.plan.id)?;
            guard(&found, is_reopenable(&found) && unopened && found.erased_at.is_none())?;
            let denied = denials::of(tx.conn, &new)?;
            Ok(insert(tx, &new, Some(&found.plan.id), denied, cause)?)
        })
        .await
    }

    /// Lets a running plan run longer.
    ///
    /// # Errors
    /// When it is not running, or the store fails.
    pub async fn extend(
        &self,
        project: &Name,
        id: &PlanId,
        timeout: Timeout,
        cause: Cause,
    ) -> Result<PlanRecord, TransitionError> {
        self.change_in(project, id, cause, move |tx, found, cause| {
            guard(&found, found.status == Status::Running)?;
            let timeout_s = timeout.seconds();
            step(tx, &found, &[("run_timeout_s", timeout_s.into())], EventBody::PlanExtended { timeout_s }, cause)
        })
        .await
    }

    /// Logs that somebody runs a pending plan in a throw-away copy of its workspace.
    ///
    /// # Errors
    /// When it is not pending, or the store fails.
    pub async fn begin_preview(
        &self,
        project: &Name,
        id: &PlanId,
        profile: ProfileName,
        cause: Cause,
    ) -> Result<PlanRecord, TransitionError> {
        self.change_in(project, id, cause, |tx, found, cause| {
            guard(&found, found.status == Status::Pending && found.expires_at > cause.at)?;
            step(tx, &found, &[], EventBody::PlanPreviewStarted { profile }, cause)
        })
        .await
    }

    /// Logs how that ended, whatever became of the plan meanwhile.
    ///
    /// # Errors
    /// When there is no such plan, or the store fails.
    pub async fn end_preview(
        &self,
        project: &Name,
        id: &PlanId,
        outcome: Outcome,
        changes: Digest,
        cause: Cause,
    ) -> Result<PlanRecord, TransitionError> {
        self.change_in(project, id, cause, |tx, found, cause| {
            step(tx, &found, &[], EventBody::PlanPreviewed { outcome, changes }, cause)
        })
        .await
    }

    /// Logs that somebody asked for the end of a run.
    ///
    /// # Errors
    /// When it is not running, or the store fails.
    pub async fn request_cancel(
        &self,
        project: &Name,
        id: &PlanId,
        cause: Cause,
    ) -> Result<PlanRecord, TransitionError> {
        self.change_in(project, id, cause, |tx, found, cause| {
            guard(&found, found.status == Status::Running)?;
            let run = run_of(&found)?;
            step(tx, &found, &[], EventBody::RunCancelRequested { run }, cause)
        })
        .await
    }

    /// Returns the one permission to run an approved plan while its approval is valid.
    ///
    /// # Errors
    /// When it is not approved, for another target, or no longer valid, or the store fails.
    pub async fn claim(&self, target: &Name, id: &PlanId, run: RunId, cause: Cause) -> Result<Claim, TransitionError> {
        let target = target.clone();
        self.change(id, cause, move |tx, found, cause| claim(tx, &found, &target, run, cause)).await
    }

    /// Returns approved plans of a target, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn claimable(&self, target: &Name, limit: u32) -> Result<Vec<PlanId>, StoreError> {
        let target = target.clone();
        self.inner
            .readers
            .read(move |conn| {
                let sql = "SELECT id FROM plans WHERE target = ?1 AND status = 'approved' ORDER BY seq LIMIT ?2";
                ids(conn, sql, vec![target.as_str().to_owned().into(), limit.into()])
            })
            .await
    }

    /// Stores how a run ended, its output made durable first. A run that was called lost may still be recorded, by whoever
    /// held its claim: the event says `late`, and both stay.
    ///
    /// # Errors
    /// When there is no such run or it is recorded already, or the store fails.
    pub async fn record(&self, ran: impl Into<Arc<Ran>>, cause: Cause) -> Result<PlanRecord, TransitionError> {
        let (ran, spools) = (ran.into(), Arc::clone(&self.inner.spools));
        let run = ran.run.clone();
        let streams = self.inner.files.read(move |_| spools.settle(&run)).await?;
        self.inner.writer.write(move |tx| record(tx, &ran, &streams, &cause)).await
    }

    /// Returns plans that expire at `now`: pending ones nobody answered, approved ones nobody claimed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn due(&self, now: Timestamp, limit: u32) -> Result<Vec<PlanId>, StoreError> {
        self.inner
            .readers
            .read(move |conn| {
                let pending = "SELECT id FROM plans WHERE status = 'pending' AND expires_at <= ?1 \
                     ORDER BY expires_at LIMIT ?2";
                let approved = "SELECT id FROM plans WHERE status = 'approved' AND approval_valid_until <= ?1 \
                     ORDER BY approval_valid_until LIMIT ?2";
                let mut due = ids(conn, pending, vec![now.as_millis().into(), limit.into()])?;
                due.extend(ids(conn, approved, vec![now.as_millis().into(), limit.into()])?);
                due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                Ok(due)
            })
            .await
    }

    /// Marks every run as lost that a server before us began and did not record. MUST be called before any claim.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn recover(&self, cause: Cause) -> Result<Recovered, StoreError> {
        self.inner
            .writer
            .write(move |tx| {
                let sql = "SELECT id FROM plans WHERE project IN (SELECT project FROM counts) AND status = 'running' \
                     ORDER BY seq";
                let running = ids(tx.conn, sql, Vec::new())?;
                for (nth, id) in running.iter().enumerate() {
                    let found = by_key(tx.conn, "id", id.as_str())?.ok_or(StoreError::Corrupt { what: "plan" })?;
                    let cause = recovery_cause(&cause, nth);
                    lose(tx, &found, &cause).map_err(store_error)?;
                }
                Ok(Recovered { lost: running })
            })
            .await
    }

    /// Records that how a run ended can never be known: whoever watched it died.
    ///
    /// # Errors
    /// When it is not running, or the store fails.
    pub async fn lose(&self, id: &PlanId, cause: Cause) -> Result<PlanRecord, TransitionError> {
        self.change(id, cause, |tx, found, cause| {
            guard(&found, found.status == Status::Running)?;
            lose(tx, &found, cause)?;
            Ok(by_key(tx.conn, "id", found.plan.id.as_str())?.ok_or(StoreError::Corrupt { what: "plan" })?)
        })
        .await
    }

    /// Returns the plan of a run, if `owner` may see it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run(&self, project: &Name, owner: Owner, id: &RunId) -> Result<Option<PlanRecord>, StoreError> {
        let (project, id) = (project.clone(), id.clone());
        self.inner.readers.read(move |conn| visible(conn, &project, &owner, "run_id", id.as_str())).await
    }

    /// Returns plans that have a run, newest plan first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn runs(
        &self,
        project: &Name,
        owner: Owner,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<PlanRecord>, StoreError> {
        // What has a run stands in one of these, and leaves them never.
        let statuses = vec![Status::Running, Status::Finished, Status::Lost];
        self.plans(project, owner, PlanFilter { statuses, before, limit }).await
    }

    /// Changes a plan of `project` on somebody's behalf; another project's does not exist for them.
    pub(crate) async fn change_in<T, F>(
        &self,
        project: &Name,
        id: &PlanId,
        cause: Cause,
        change: F,
    ) -> Result<T, TransitionError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>, PlanRecord, &Cause) -> Result<T, TransitionError> + Send + 'static,
    {
        let project = project.clone();
        self.change(id, cause, move |tx, found, cause| {
            if found.plan.project == project { change(tx, found, cause) } else { Err(TransitionError::NotFound) }
        })
        .await
    }

    /// Changes a plan on the server's own behalf, which serves every project.
    async fn change<T, F>(&self, id: &PlanId, cause: Cause, change: F) -> Result<T, TransitionError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>, PlanRecord, &Cause) -> Result<T, TransitionError> + Send + 'static,
    {
        let id = id.clone();
        self.inner
            .writer
            .write(move |tx| {
                let found = by_key(tx.conn, "id", id.as_str())?.ok_or(TransitionError::NotFound)?;
                change(tx, found, &cause)
            })
            .await
    }
}

fn propose(tx: &mut Tx<'_>, new: &NewPlan) -> Result<Proposed, ProposeError> {
    let project = &new.plan.project;
    if let Some(key) = &new.idempotency {
        match recall(tx.conn, project, key, new.cause.at)? {
            Some(Recalled::Same(found)) => return Ok(Proposed::Repeated(*found)),
            Some(Recalled::OtherBody) => return Err(ProposeError::IdempotencyMismatch),
            None => {}
        }
    }
    let same = match new.equal {
        EqualPending::Answers => equal_pending(tx.conn, new)?,
        EqualPending::StaysApart => None,
    };
    let proposed = match same {
        Some(found) => Proposed::Repeated(found),
        None => {
            let waits = new.judgement.verdict != Verdict::Deny;
            let denied = if waits { denials::of(tx.conn, new)? } else { None };
            if let Some(denied) = &denied
                && let Some(until) = denied.hold_until(new.cool_down)
            {
                return Err(ProposeError::CoolDown { denied: denied.before.clone(), until });
            }
            let pending = tx.counted(project, &new.plan.agent, Status::Pending);
            if waits && pending >= u64::from(new.pending_cap) {
                return Err(ProposeError::PendingCap { cap: new.pending_cap });
            }
            Proposed::New(insert(tx, new, None, denied, &new.cause)?)
        }
    };
    if let Some(key) = &new.idempotency {
        let (Proposed::New(record) | Proposed::Repeated(record)) = &proposed;
        remember(tx.conn, project, key, &record.plan.id, new.cause.at)?;
    }
    Ok(proposed)
}

fn equal_pending(conn: &Connection, new: &NewPlan) -> Result<Option<PlanRecord>, StoreError> {
    let columns = codec::PLAN_COLUMNS;
    let mut query = conn.prepare_cached(&format!(
        "SELECT {columns} FROM plans \
         WHERE project = ?1 AND agent = ?2 AND dedupe = ?3 AND status = 'pending' AND dedupe IS NOT NULL LIMIT 1"
    ))?;
    let mut rows = query.query(params![new.plan.project.as_str(), new.plan.agent.as_str(), new.dedupe.as_str()])?;
    rows.next()?.map(codec::plan_record).transpose()
}

/// Stores a new plan with its first event.
fn insert(
    tx: &mut Tx<'_>,
    new: &NewPlan,
    origin: Option<&PlanId>,
    denied: Option<Denials>,
    cause: &Cause,
) -> Result<PlanRecord, StoreError> {
    let (plan, judgement) = (&new.plan, &new.judgement);
    let (status, body) = match judgement.verdict {
        Verdict::Deny => (Status::Blocked, blocked_body(&new.digest, judgement)),
        Verdict::Allow | Verdict::Ask => (Status::Pending, queued_body(new, origin)),
    };
    let mut statement = tx.conn.prepare_cached(
        "INSERT INTO plans (project, id, agent, target, status, revision, plan, stdin, digest, dedupe, note, judgement, \
         queued_at, expires_at, origin, denied_before, denied_before_at, denied_before_plan, \
         measured) VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
    )?;
    let measured = new.measurement.as_ref().map(|known| &known.measured);
    statement.execute(params![
        plan.project.as_str(),
        plan.id.as_str(),
        plan.agent.as_str(),
        plan.target.as_str(),
        status.as_str(),
        codec::plan_json(plan)?,
        plan.stdin,
        new.digest.as_str(),
        (new.equal == EqualPending::Answers).then(|| new.dedupe.as_str()),
        new.note.as_ref().map(provara_domain::Note::as_str),
        codec::json("judgement", judgement)?,
        cause.at.as_millis(),
        new.expires_at.as_millis(),
        origin.map(PlanId::as_str),
        denied.as_ref().map(|denied| denied.before.count),
        denied.as_ref().map(|denied| denied.before.last_at.as_millis()),
        denied.as_ref().map(|denied| denied.last.as_str()),
        measured.map(|measured| codec::json("measured", measured)).transpose()?,
    ])?;
    insert_texts(tx.conn, &plan.id, new.measurement.as_ref())?;
    let seq = codec::count(tx.conn.last_insert_rowid())?;
    tx.count_move(&plan.project, &plan.agent, None, Some(status));
    tx.effect(Effect::Counted(Step::Judged(judgement.verdict)));
    tx.event(&plan.project, About::Plan { id: &plan.id, agent: &plan.agent, revision: 1 }, body, cause)?;
    Ok(PlanRecord {
        seq,
        plan: plan.clone(),
        digest: new.digest.clone(),
        note: new.note.clone(),
        judgement: judgement.clone(),
        measured: measured.cloned(),
        status,
        revision: 1,
        queued_at: cause.at,
        expires_at: new.expires_at,
        decision: None,
        superseded_by: None,
        origin: origin.cloned(),
        run: None,
        erased_at: None,
        denied_before: denied.map(|denied| denied.before),
    })
}

fn insert_texts(conn: &Connection, id: &PlanId, measurement: Option<&Measurement>) -> Result<(), StoreError> {
    for script in measurement.iter().flat_map(|known| &known.texts) {
        let sql = "INSERT INTO scripts (plan, sha256, content) VALUES (?1, ?2, ?3)";
        conn.prepare_cached(sql)?.execute(params![id.as_str(), script.sha256.as_str(), script.text])?;
    }
    Ok(())
}

pub(crate) fn delete_texts(conn: &Connection, id: &PlanId) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM scripts WHERE plan = ?1")?.execute([id.as_str()])?;
    Ok(())
}

fn queued_body(new: &NewPlan, origin: Option<&PlanId>) -> EventBody {
    EventBody::PlanQueued {
        digest: new.digest.clone(),
        verdict: new.judgement.verdict,
        rules: rules(&new.judgement),
        policy: new.judgement.policy.digest.clone(),
        origin: origin.cloned(),
    }
}

fn blocked_body(digest: &provara_domain::Digest, judgement: &Judgement) -> EventBody {
    EventBody::PlanBlocked { digest: digest.clone(), rules: rules(judgement), policy: judgement.policy.digest.clone() }
}

fn rules(judgement: &Judgement) -> Vec<String> {
    judgement.reasons.iter().map(|reason| reason.rule.clone()).collect()
}

pub(crate) fn guard(found: &PlanRecord, holds: bool) -> Result<(), TransitionError> {
    if holds { Ok(()) } else { Err(conflict(found)) }
}

fn conflict(found: &PlanRecord) -> TransitionError {
    TransitionError::Conflict { found: found.status, record: Box::new(found.clone()) }
}

/// Moves a plan to another status, if the lifecycle's table says that it may follow.
fn transition(
    tx: &mut Tx<'_>,
    found: &PlanRecord,
    to: Status,
    set: &[(&str, Value)],
    body: EventBody,
    cause: &Cause,
) -> Result<PlanRecord, TransitionError> {
    let changed = update(tx, found, Some(to), set)?;
    guard(found, changed)?;
    let plan = &found.plan;
    tx.count_move(&plan.project, &plan.agent, Some(found.status), Some(to));
    Ok(logged(tx, found, body, cause)?)
}

/// Changes a plan that keeps its status.
pub(crate) fn step(
    tx: &mut Tx<'_>,
    found: &PlanRecord,
    set: &[(&str, Value)],
    body: EventBody,
    cause: &Cause,
) -> Result<PlanRecord, TransitionError> {
    let changed = update(tx, found, None, set)?;
    guard(found, changed)?;
    Ok(logged(tx, found, body, cause)?)
}

fn update(tx: &Tx<'_>, found: &PlanRecord, to: Option<Status>, set: &[(&str, Value)]) -> Result<bool, StoreError> {
    let mut sql = "UPDATE plans SET revision = revision + 1".to_owned();
    let mut values: Vec<Value> = vec![signed(found.seq).into(), signed(found.revision).into()];
    let status = to.map(|to| ("status", Value::from(to.as_str().to_owned())));
    for (column, value) in set.iter().cloned().chain(status) {
        values.push(value);
        sql.push_str(&format!(", {column} = ?{}", values.len()));
    }
    sql.push_str(" WHERE seq = ?1 AND revision = ?2");
    if let Some(to) = to {
        let from: Vec<String> = to.previous().map(|status| format!("'{}'", status.as_str())).collect();
        sql.push_str(&format!(" AND status IN ({})", from.join(", ")));
    }
    let mut statement = tx.conn.prepare_cached(&sql)?;
    Ok(statement.execute(params_from_iter(values))? == 1)
}

fn logged(tx: &mut Tx<'_>, found: &PlanRecord, body: EventBody, cause: &Cause) -> Result<PlanRecord, StoreError> {
    let plan = &found.plan;
    let revision = found.revision.saturating_add(1);
    if let Some(step) = Step::of(found, &body, cause.at) {
        tx.effect(Effect::Counted(step));
    }
    tx.event(&plan.project, About::Plan { id: &plan.id, agent: &plan.agent, revision }, body, cause)?;
    by_key(tx.conn, "id", plan.id.as_str())?.ok_or(StoreError::Corrupt { what: "plan" })
}

fn decide(tx: &mut Tx<'_>, found: &PlanRecord, new: NewDecision) -> Result<PlanRecord, TransitionError> {
    let NewDecision {
        decision,
        reason,
        judgement,
        approval_valid_until,
        denial_counts_for,
        profile_change,
        idempotency,
        cause,
    } = new;
    // What was seen is what is decided on, and in time, whoever calls.
    guard(found, found.digest == decision.digest && cause.at < found.expires_at)?;
    let to = match decision.decision {
        DecisionKind::Approve => Status::Approved,
        DecisionKind::Deny => Status::Denied,
    };
    let decision_digest = provara_audit::canonical::decision_digest(&decision);
    let set = [
        ("decision", codec::decision_json(&decision)?.into()),
        ("decision_digest", decision_digest.as_str().to_owned().into()),
        ("reason", reason.into()),
        ("judgement", codec::json("judgement", &judgement)?.into()),
        ("approval_valid_until", approval_valid_until.as_millis().into()),
    ];
    let policy = judgement.policy.digest;
    let body = EventBody::PlanDecided { decision: Box::new(decision), decision_digest, policy, profile_change };
    let decided = transition(tx, found, to, &set, body, &cause)?;
    if to == Status::Denied {
        denials::keep(tx.conn, &found.plan, cause.at, denial_counts_for)?;
    }
    if let Some(key) = &idempotency {
        remember(tx.conn, &found.plan.project, key, &found.plan.id, cause.at)?;
    }
    Ok(decided)
}

fn claim(
    tx: &mut Tx<'_>,
    found: &PlanRecord,
    target: &Name,
    run: RunId,
    cause: &Cause,
) -> Result<Claim, TransitionError> {
    let stored = found.decision.as_ref().ok_or_else(|| conflict(found))?;
    guard(found, found.plan.target == *target && cause.at < stored.approval_valid_until)?;
    let decision = &stored.decision;
    let set = [
        ("run_id", run.as_str().to_owned().into()),
        ("run_started_at", cause.at.as_millis().into()),
        ("run_timeout_s", decision.limits.timeout_s.into()),
    ];
    transition(tx, found, Status::Running, &set, EventBody::RunStarted { run: run.clone() }, cause)?;
    tx.count(&found.plan.project, &found.plan.agent, RUNS, 1);
    tx.effect(Effect::RunBegan(run.clone()));
    let (profile, limits, binding) = (decision.profile.clone(), decision.limits, decision.binding.clone());
    #[expect(clippy::disallowed_methods, reason = "the row was moved to `running` in this very change")]
    Ok(Claim::issued_by_store(found.plan.clone(), run, profile, limits, binding))
}

fn record(tx: &mut Tx<'_>, ran: &Ran, streams: &[Settled; 2], cause: &Cause) -> Result<PlanRecord, TransitionError> {
    let found = by_key(tx.conn, "run_id", ran.run.as_str())?.ok_or(TransitionError::NotFound)?;
    // An output that came after the erasure would be kept for ever.
    guard(&found, found.erased_at.is_none())?;
    let [stdout, stderr] = streams;
    let duration_ms = u64::try_from(ran.duration.as_millis()).unwrap_or(u64::MAX);
    let set = [
        ("run_started_at", ran.started_at.as_millis().into()),
        ("run_duration_ms", signed(duration_ms).into()),
        ("run_outcome", codec::json("outcome", &ran.outcome)?.into()),
        ("run_enforced", codec::json("enforced", &ran.enforced)?.into()),
        ("run_usage", ran.usage.as_ref().map(|usage| codec::json("usage", usage)).transpose()?.into()),
        ("run_written", ran.written.as_ref().map(|written| codec::json("written", written)).transpose()?.into()),
        ("stdout_bytes", signed(ran.stdout_bytes).into()),
        ("stderr_bytes", signed(ran.stderr_bytes).into()),
        ("redactions", signed(ran.redactions).into()),
    ];
    let body = EventBody::RunFinished {
        run: ran.run.clone(),
        outcome: ran.outcome.clone(),
        enforced: ran.enforced.clone(),
        duration_ms,
        stdout_sha256: stdout.sha256.clone(),
        stderr_sha256: stderr.sha256.clone(),
        late: found.status == Status::Lost,
    };
    let record = transition(tx, &found, Status::Finished, &set, body, cause)?;
    let inlined = output::inline(tx.conn, record.plan.project.as_str(), &ran.run, streams)?;
    tx.effect(Effect::RunEnded { run: ran.run.clone(), inlined });
    Ok(record)
}

fn lose(tx: &mut Tx<'_>, found: &PlanRecord, cause: &Cause) -> Result<(), TransitionError> {
    let run = run_of(found)?;
    transition(tx, found, Status::Lost, &[], EventBody::RunLost { run: run.clone() }, cause)?;
    tx.effect(Effect::RunEnded { run, inlined: false });
    Ok(())
}

fn run_of(found: &PlanRecord) -> Result<RunId, StoreError> {
    found.run.as_ref().map(|run| run.id.clone()).ok_or(StoreError::Corrupt { what: "run" })
}

fn store_error(error: TransitionError) -> StoreError {
    match error {
        TransitionError::Store(error) => error,
        TransitionError::NotFound | TransitionError::Conflict { .. } => StoreError::Corrupt { what: "running plan" },
    }
}

/// Each lost run has an event of its own, and any number of runs may be lost.
fn recovery_cause(cause: &Cause, nth: usize) -> Cause {
    let nth = u128::try_from(nth).unwrap_or(u128::MAX);
    derived(&Cause { entropy: crate::types::Entropy(cause.entropy.0.wrapping_add(nth)), ..cause.clone() }, 2)
}

fn is_reopenable(found: &PlanRecord) -> bool {
    let outcome = found.run.as_ref().and_then(|run| run.outcome.as_ref());
    match found.status {
        Status::Expired | Status::Lost => true,
        Status::Finished => {
            matches!(outcome, Some(Outcome::SpawnFailed { failure: SpawnFailure::Changed, .. }))
        }
        Status::Pending
        | Status::Approved
        | Status::Running
        | Status::Denied
        | Status::Blocked
        | Status::Withdrawn
        | Status::Superseded
        | Status::Cancelled => false,
    }
}

fn has_successor(conn: &Connection, id: &PlanId) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached("SELECT 1 FROM plans WHERE origin = ?1")?.exists([id.as_str()])?)
}

pub(crate) fn by_key(
    conn: &Connection,
    key: &'static str,
    value: impl ToSql,
) -> Result<Option<PlanRecord>, StoreError> {
    let columns = codec::PLAN_COLUMNS;
    let mut query = conn.prepare_cached(&format!("SELECT {columns} FROM plans WHERE {key} = ?1"))?;
    let mut rows = query.query([value])?;
    rows.next()?.map(codec::plan_record).transpose()
}

fn visible(
    conn: &Connection,
    project: &Name,
    owner: &Owner,
    key: &'static str,
    value: &str,
) -> Result<Option<PlanRecord>, StoreError> {
    let found = by_key(conn, key, value)?.filter(|found| found.plan.project == *project);
    Ok(match owner {
        Owner::Everyone => found,
        Owner::Only(agent) => found.filter(|found| found.plan.agent == *agent),
    })
}

/// Returns one plan by its place in the order of arrival.
pub(crate) fn by_seq(conn: &Connection, seq: u64) -> Result<PlanRecord, StoreError> {
    by_key(conn, "seq", signed(seq))?.ok_or(StoreError::Corrupt { what: "plan" })
}

/// Returns place and revision of each plan of a list: one index range a status, merged. However long the queue is, at most
/// `limit` entries of each are read.
pub(crate) fn revisions(
    conn: &Connection,
    project: &Name,
    owner: &Owner,
    filter: &PlanFilter,
) -> Result<Vec<(u64, u64)>, StoreError> {
    // An index of all of an agent's plans, whatever their status, would cost every plan more than this costs a list.
    let mut statuses = if filter.statuses.is_empty() { Status::ALL.to_vec() } else { filter.statuses.clone() };
    statuses.sort_unstable();
    statuses.dedup();
    let before = filter.before.map_or(i64::MAX, signed);
    let (mine, agent) = match owner {
        Owner::Everyone => ("", None),
        Owner::Only(agent) => ("AND agent = ?4", Some(agent)),
    };
    let mut found = Vec::new();
    for status in statuses {
        let mut query = conn.prepare_cached(&format!(
            "SELECT seq, revision FROM plans WHERE project = ?1 {mine} AND status = '{}' AND seq < ?2 \
             ORDER BY seq DESC LIMIT ?3",
            status.as_str()
        ))?;
        let mut values: Vec<Value> = vec![project.as_str().to_owned().into(), before.into(), filter.limit.into()];
        values.extend(agent.map(|agent| agent.as_str().to_owned().into()));
        let mut rows = query.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            found.push((codec::count(row.get(0)?)?, codec::count(row.get(1)?)?));
        }
    }
    found.sort_unstable_by_key(|(seq, _)| std::cmp::Reverse(*seq));
    found.truncate(usize::try_from(filter.limit).unwrap_or(usize::MAX));
    Ok(found)
}

fn ids(conn: &Connection, sql: &'static str, values: Vec<Value>) -> Result<Vec<PlanId>, StoreError> {
    let mut query = conn.prepare_cached(sql)?;
    let mut rows = query.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(codec::plan_id(&row.get::<_, String>(0)?)?);
    }
    Ok(found)
}
