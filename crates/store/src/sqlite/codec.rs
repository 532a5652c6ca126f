//! Rows to domain types and back. The stored forms are private to this file, so that the domain's types may change.

use std::collections::BTreeMap;
use std::time::Duration;

use provara_domain::{
    Binding, CommandText, Decision, DecisionKind, DecisionMethod, Digest, EnvName, Limits, Name, Nonce, Note, Plan,
    PlanId, PlanKind, ProfileName, Roles, RunId, ScriptText, Shell, Status, Timeout, Timestamp, TokenId, WorkingDir,
};
use rusqlite::Row;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::{DecisionRecord, DeniedBefore, LogEntry, PlanRecord, RunRecord, StoreError, TokenRecord};

pub(crate) const PLAN_COLUMNS: &str = "seq, project, id, agent, target, status, revision, plan, stdin, digest, note, judgement, queued_at, \
     expires_at, decision, decision_digest, reason, approval_valid_until, superseded_by, origin, run_id, run_started_at, \
     run_duration_ms, run_outcome, run_enforced, run_timeout_s, stdout_bytes, stderr_bytes, run_usage, run_written, redactions, erased_at, measured, \
     denied_before, denied_before_at, (SELECT denied.reason FROM plans denied WHERE denied.id = plans.denied_before_plan) AS denied_before_reason";

pub(crate) const LOG_COLUMNS: &str = "position, kind, project, agent, plan, leaf, ts";

pub(crate) const TOKEN_COLUMNS: &str = "id, name, roles, project, created_at, revoked_at, secret";

#[derive(Serialize, Deserialize)]
struct PlanJson {
    kind: PlanKind,
    command: String,
    shell: Shell,
    cwd: String,
    env: BTreeMap<String, String>,
    tty: bool,
    timeout_s: u32,
    profile: ProfileName,
    nonce: String,
}

#[derive(Serialize, Deserialize)]
struct DecisionJson {
    digest: Digest,
    binding: Option<Binding>,
    decision: DecisionKind,
    profile: ProfileName,
    limits: Limits,
    approver: Name,
    method: DecisionMethod,
    nonce: String,
    ts: Timestamp,
}

/// Returns the stored form of what has no column of its own.
pub(crate) fn plan_json(plan: &Plan) -> Result<String, StoreError> {
    let env = plan.env.iter().map(|(name, value)| (name.as_str().to_owned(), value.clone())).collect();
    json(
        "plan",
        &PlanJson {
            kind: plan.kind,
            command: plan.command.as_str().to_owned(),
            shell: plan.shell,
            cwd: plan.cwd.as_str().to_owned(),
            env,
            tty: plan.tty,
            timeout_s: plan.timeout.seconds(),
            profile: plan.profile.clone(),
            nonce: plan.nonce.to_string(),
        },
    )
}

/// Returns the stored form of `decision`.
pub(crate) fn decision_json(decision: &Decision) -> Result<String, StoreError> {
    json(
        "decision",
        &DecisionJson {
            digest: decision.digest.clone(),
            binding: decision.binding.clone(),
            decision: decision.decision,
            profile: decision.profile.clone(),
            limits: decision.limits,
            approver: decision.approver.clone(),
            method: decision.method,
            nonce: decision.nonce.to_string(),
            ts: decision.ts,
        },
    )
}

pub(crate) fn json<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt { what })
}

fn from_json<T: DeserializeOwned>(what: &'static str, raw: &str) -> Result<T, StoreError> {
    serde_json::from_str(raw).map_err(|_| StoreError::Corrupt { what })
}

/// Returns the plan in a row of [`PLAN_COLUMNS`].
pub(crate) fn plan_record(row: &Row<'_>) -> Result<PlanRecord, StoreError> {
    let id = plan_id(&text(row, "id")?)?;
    Ok(PlanRecord {
        seq: number(row, "seq")?,
        plan: plan(row, id.clone())?,
        digest: digest(&text(row, "digest")?)?,
        note: maybe(row, "note")?.map(Note::parse).transpose().map_err(|_| corrupt("note"))?,
        judgement: from_json("judgement", &text(row, "judgement")?)?,
        measured: maybe(row, "measured")?.map(|raw| from_json("measured", &raw)).transpose()?,
        status: Status::parse(&text(row, "status")?).ok_or(corrupt("status"))?,
        revision: number(row, "revision")?,
        queued_at: Timestamp::from_millis(row.get("queued_at")?),
        expires_at: Timestamp::from_millis(row.get("expires_at")?),
        decision: decision(row, id)?,
        superseded_by: maybe(row, "superseded_by")?.map(|raw| plan_id(&raw)).transpose()?,
        origin: maybe(row, "origin")?.map(|raw| plan_id(&raw)).transpose()?,
        run: run(row)?,
        erased_at: row.get::<_, Option<i64>>("erased_at")?.map(Timestamp::from_millis),
        denied_before: denied_before(row)?,
    })
}

fn plan(row: &Row<'_>, id: PlanId) -> Result<Plan, StoreError> {
    let stored: PlanJson = from_json("plan", &text(row, "plan")?)?;
    let bad = || corrupt("plan");
    let env = stored
        .env
        .into_iter()
        .map(|(name, value)| EnvName::parse(name).map(|name| (name, value)))
        .collect::<Result<_, _>>()
        .map_err(|_| bad())?;
    Ok(Plan {
        kind: stored.kind,
        id,
        project: name(&text(row, "project")?)?,
        agent: name(&text(row, "agent")?)?,
        command: CommandText::parse(stored.command).map_err(|_| bad())?,
        shell: stored.shell,
        cwd: WorkingDir::parse(stored.cwd).map_err(|_| bad())?,
        env,
        stdin: row.get("stdin")?,
        tty: stored.tty,
        timeout: Timeout::from_seconds(stored.timeout_s).map_err(|_| bad())?,
        target: name(&text(row, "target")?)?,
        profile: stored.profile,
        nonce: Nonce::parse(&stored.nonce).ok_or_else(bad)?,
    })
}

fn decision(row: &Row<'_>, plan: PlanId) -> Result<Option<DecisionRecord>, StoreError> {
    let Some(raw) = maybe(row, "decision")? else { return Ok(None) };
    let stored: DecisionJson = from_json("decision", &raw)?;
    let decision = Decision {
        plan,
        digest: stored.digest,
        binding: stored.binding,
        decision: stored.decision,
        profile: stored.profile,
        limits: stored.limits,
        approver: stored.approver,
        method: stored.method,
        nonce: Nonce::parse(&stored.nonce).ok_or(corrupt("decision"))?,
        ts: stored.ts,
    };
    Ok(Some(DecisionRecord {
        decision,
        digest: digest(&text(row, "decision_digest")?)?,
        reason: maybe(row, "reason")?,
        approval_valid_until: Timestamp::from_millis(row.get("approval_valid_until")?),
    }))
}

fn denied_before(row: &Row<'_>) -> Result<Option<DeniedBefore>, StoreError> {
    let Some(count) = row.get("denied_before")? else { return Ok(None) };
    let last_at = Timestamp::from_millis(row.get("denied_before_at")?);
    Ok(Some(DeniedBefore { count, last_at, reason: maybe(row, "denied_before_reason")? }))
}

fn run(row: &Row<'_>) -> Result<Option<RunRecord>, StoreError> {
    let Some(id) = maybe(row, "run_id")? else { return Ok(None) };
    Ok(Some(RunRecord {
        id: run_id(&id)?,
        started_at: Timestamp::from_millis(row.get("run_started_at")?),
        duration: row.get::<_, Option<i64>>("run_duration_ms")?.map(count).transpose()?.map(Duration::from_millis),
        outcome: maybe(row, "run_outcome")?.map(|raw| from_json("outcome", &raw)).transpose()?,
        enforced: maybe(row, "run_enforced")?.map(|raw| from_json("enforced", &raw)).transpose()?,
        usage: maybe(row, "run_usage")?.map(|raw| from_json("usage", &raw)).transpose()?,
        written: maybe(row, "run_written")?.map(|raw| from_json("written", &raw)).transpose()?,
        stdout_bytes: number(row, "stdout_bytes")?,
        stderr_bytes: number(row, "stderr_bytes")?,
        redactions: number(row, "redactions")?,
        timeout: Timeout::from_seconds(row.get("run_timeout_s")?).map_err(|_| corrupt("timeout"))?,
    }))
}

/// Returns the digest and the text of a script in a row of both.
pub(crate) fn script_text(row: &Row<'_>) -> Result<ScriptText, StoreError> {
    Ok(ScriptText { sha256: digest(&text(row, "sha256")?)?, text: text(row, "content")? })
}

/// Returns the entry in a row of [`LOG_COLUMNS`].
pub(crate) fn log_entry(row: &Row<'_>) -> Result<LogEntry, StoreError> {
    Ok(LogEntry {
        position: number(row, "position")?,
        kind: text(row, "kind")?,
        project: name(&text(row, "project")?)?,
        agent: maybe(row, "agent")?.map(|raw| name(&raw)).transpose()?,
        plan: maybe(row, "plan")?.map(|raw| plan_id(&raw)).transpose()?,
        leaf: row.get::<_, Vec<u8>>("leaf")?.into(),
        ts: Timestamp::from_millis(row.get("ts")?),
    })
}

/// Returns the token in a row of [`TOKEN_COLUMNS`], and the digest of its secret.
pub(crate) fn token(row: &Row<'_>) -> Result<(TokenRecord, [u8; 32]), StoreError> {
    let roles: Roles = from_json("roles", &text(row, "roles")?)?;
    let record = TokenRecord {
        id: TokenId::parse(&text(row, "id")?).map_err(|_| corrupt("token"))?,
        name: name(&text(row, "name")?)?,
        roles,
        project: name(&text(row, "project")?)?,
        created_at: Timestamp::from_millis(row.get("created_at")?),
        revoked_at: row.get::<_, Option<i64>>("revoked_at")?.map(Timestamp::from_millis),
    };
    Ok((record, row.get("secret")?))
}

pub(crate) fn name(raw: &str) -> Result<Name, StoreError> {
    Name::parse(raw).map_err(|_| corrupt("name"))
}

pub(crate) fn plan_id(raw: &str) -> Result<PlanId, StoreError> {
    PlanId::parse(raw).map_err(|_| corrupt("plan id"))
}

pub(crate) fn run_id(raw: &str) -> Result<RunId, StoreError> {
    RunId::parse(raw).map_err(|_| corrupt("run id"))
}

fn digest(raw: &str) -> Result<Digest, StoreError> {
    Digest::parse(raw).map_err(|_| corrupt("digest"))
}

/// SQLite's integers have a sign; ours that never do are checked on the way in and out.
pub(crate) fn count(raw: i64) -> Result<u64, StoreError> {
    u64::try_from(raw).map_err(|_| corrupt("number"))
}

pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn number(row: &Row<'_>, column: &str) -> Result<u64, StoreError> {
    count(row.get(column)?)
}

fn text(row: &Row<'_>, column: &str) -> Result<String, StoreError> {
    Ok(row.get(column)?)
}

fn maybe(row: &Row<'_>, column: &str) -> Result<Option<String>, StoreError> {
    Ok(row.get(column)?)
}

const fn corrupt(what: &'static str) -> StoreError {
    StoreError::Corrupt { what }
}
