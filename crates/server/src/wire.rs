//! What clients see of the domain's types. Converted by hand: the domain may change, the wire may not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use provara_domain::{Judgement, Outcome, Role};
use provara_gateway::{PlanRecord, RunRecord, TokenRecord};
use serde_json::{Map, Value, json};

/// A judgement with every reason.
pub(crate) fn judgement(judgement: &Judgement) -> Value {
    json!({
        "verdict": judgement.verdict,
        "severity": judgement.severity,
        "reasons": judgement.reasons,
        "policy": judgement.policy,
    })
}

/// What a new plan is answered with: the documented fields and ours.
pub(crate) fn queued(record: &PlanRecord, url: String) -> Value {
    json!({
        "pending_id": record.plan.id,
        "queued": true,
        "command": record.plan.command.as_str(),
        "state": record.status,
        "digest": record.digest,
        "judgement": judgement(&record.judgement),
        "expires_at": record.expires_at.rfc3339(),
        "url": url,
    })
}

/// One line of the queue.
pub(crate) fn pending(record: &PlanRecord) -> Value {
    let mut fields = plan_fields(record);
    fields.insert("judgement".into(), judgement(&record.judgement));
    Value::Object(fields)
}

/// A plan with what became of it. Output is added by whoever may read it.
pub(crate) fn command(record: &PlanRecord) -> Value {
    let mut fields = plan_fields(record);
    fields.insert("judgement".into(), judgement(&record.judgement));
    fields.insert("superseded_by".into(), json!(record.superseded_by));
    fields.insert("origin".into(), json!(record.origin));
    fields.insert("decision".into(), decision(record));
    fields.insert("run".into(), record.run.as_ref().map_or(Value::Null, run));
    Value::Object(fields)
}

fn plan_fields(record: &PlanRecord) -> Map<String, Value> {
    let plan = &record.plan;
    let value = json!({
        "pending_id": plan.id,
        "command": plan.command.as_str(),
        "cwd": plan.cwd.as_str(),
        "timeout_s": plan.timeout.seconds(),
        "note": record.note.as_ref().map(provara_domain::Note::as_str),
        "ts": record.queued_at.unix_seconds(),
        "queued_at": record.queued_at.rfc3339(),
        "expires_at": record.expires_at.rfc3339(),
        "agent": plan.agent,
        "shell": plan.shell,
        "env": plan.env,
        "stdin_b64": plan.stdin.as_ref().map(|bytes| STANDARD.encode(bytes)),
        "target": plan.target,
        "profile": plan.profile,
        "digest": record.digest,
        "state": record.status,
        "revision": record.revision,
        "erased_at": record.erased_at.map(provara_domain::Timestamp::rfc3339),
    });
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn decision(record: &PlanRecord) -> Value {
    let Some(known) = &record.decision else { return Value::Null };
    json!({
        "decision": known.decision.decision,
        "approver": known.decision.approver,
        "method": known.decision.method,
        "profile": known.decision.profile,
        "digest": known.digest,
        "reason": known.reason,
        "at": known.decision.ts.rfc3339(),
    })
}

/// A run.
pub(crate) fn run(run: &RunRecord) -> Value {
    json!({
        "run_id": run.id,
        "started_at": run.started_at.rfc3339(),
        "timeout_s": run.timeout.seconds(),
        "duration_ms": run.duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        "outcome": run.outcome.as_ref().map(outcome),
        "exit_code": run.outcome.as_ref().and_then(Outcome::exit_code),
        "enforced": run.enforced,
        "stdout_bytes": run.stdout_bytes,
        "stderr_bytes": run.stderr_bytes,
    })
}

fn outcome(outcome: &Outcome) -> Value {
    json!(outcome)
}

/// A token's record.
pub(crate) fn token(record: &TokenRecord) -> Value {
    json!({
        "id": record.id,
        "name": record.name,
        "roles": record.roles.iter().map(Role::as_str).collect::<Vec<_>>(),
        "created_at": record.created_at.rfc3339(),
        "revoked_at": record.revoked_at.map(provara_domain::Timestamp::rfc3339),
    })
}
