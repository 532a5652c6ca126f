//! Plans: propose, list, look, decide, stop.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use provara_domain::{CommandText, Digest, EnvName, Name, Note, PlanId, ProfileName, Shell, Status, Timeout};
use provara_gateway::{
    Approval, CommandFilter, Edit, Gateway, Idempotent, PlanRecord, PolicyQuestion, Proposal, Proposed,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::access::Caller;
use crate::body::Fields;
use crate::problem::Problem;
use crate::routes::App;
use crate::{runs, wire};

/// The longest long poll.
const MAX_WAIT: u64 = 60;
/// The longest list.
const MAX_LIMIT: u32 = 500;
/// The longest reason, in characters.
const MAX_REASON: usize = 1000;

/// How a list is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    limit: Option<u32>,
    before: Option<u64>,
    state: Option<String>,
}

impl Page {
    pub(crate) fn limit(&self) -> u32 {
        self.limit.unwrap_or(50).clamp(1, MAX_LIMIT)
    }

    pub(crate) const fn before(&self) -> Option<u64> {
        self.before
    }
}

/// `POST /plan`
pub(crate) async fn plan(
    State(app): State<App>,
    Caller(who): Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let proposal = proposal(&headers, &body)?;
    match app.gateway.propose(&who, proposal).await? {
        Proposed::Queued(record) | Proposed::Repeated(record) => {
            let url = format!("{}/commands/{}", app.config.public_url, record.plan.id);
            Ok(axum::Json(wire::queued(&record, url)).into_response())
        }
        Proposed::Blocked(record) => Err(denied_by_policy(&record)),
    }
}

fn denied_by_policy(record: &PlanRecord) -> Problem {
    let reasons: Vec<&str> = record.judgement.reasons.iter().map(|reason| reason.text.as_str()).collect();
    let text = format!("policy denies this command and it was not run: {}", reasons.join("; "));
    Problem::caller(StatusCode::FORBIDDEN, "policy_denied", text)
        .with("pending_id", record.plan.id.as_str())
        .with("judgement", wire::judgement(&record.judgement))
}

fn proposal(headers: &HeaderMap, body: &[u8]) -> Result<Proposal, Problem> {
    let mut fields = Fields::required(body)?;
    let command = fields.needed_text("command", 1, CommandText::MAX_CHARS);
    let command = fields.checked("command", command, CommandText::parse);
    let cwd = fields.text("cwd", 0, 500);
    let timeout = timeout(&mut fields);
    let note = fields.text("note", 0, Note::MAX_CHARS);
    let note = fields.checked("note", note, Note::parse);
    let shell = shell(&mut fields);
    let target = name(&mut fields, "target");
    let profile = name(&mut fields, "profile");
    let env = fields.texts("env").unwrap_or_default();
    let mut checked_env = std::collections::BTreeMap::new();
    for (key, value) in env {
        let bad = value.contains('\0') || value.len() > 32 * 1024;
        match EnvName::parse(key.clone()) {
            Ok(name) if !bad => drop(checked_env.insert(name, value)),
            Ok(_) => {
                fields.fault("env", "value_error", "Value error, a value has a NUL or is too long", key.into(), None)
            }
            Err(error) => fields.fault("env", "value_error", &format!("Value error, {error}"), key.into(), None),
        }
    }
    let stdin = fields.text("stdin", 0, 1 << 20).map(String::into_bytes);
    let stdin_b64 = fields.text("stdin_b64", 0, 1 << 20);
    let decoded = fields.checked("stdin_b64", stdin_b64, |text| STANDARD.decode(text));
    let expires = fields.integer("expires_s", 1, 30 * 86_400).and_then(|seconds| u64::try_from(seconds).ok());
    let dedupe = fields.flag("dedupe").unwrap_or(false);
    fields.done()?;
    let Some(command) = command else { return Err(Problem::fields(Vec::new())) };
    Ok(Proposal {
        command,
        shell,
        cwd,
        env: checked_env,
        stdin: stdin.or(decoded),
        timeout: timeout.unwrap_or(Timeout::DEFAULT),
        note,
        target,
        profile,
        expires: expires.map(Duration::from_secs),
        dedupe,
        idempotency: idempotency(headers, "POST /plan", body)?,
    })
}

fn timeout(fields: &mut Fields) -> Option<Timeout> {
    let (min, max) = (i64::from(Timeout::MIN_SECONDS), i64::from(Timeout::MAX_SECONDS));
    let seconds = fields.integer("timeout_s", min, max)?;
    u32::try_from(seconds).ok().and_then(|seconds| Timeout::from_seconds(seconds).ok())
}

fn shell(fields: &mut Fields) -> Option<Shell> {
    let raw = fields.text("shell", 1, 16);
    fields.checked("shell", raw, |word| Shell::parse(&word).ok_or("a shell is `bash`, `sh` or `pwsh`"))
}

fn name(fields: &mut Fields, field: &str) -> Option<Name> {
    let raw = fields.text(field, 1, 64);
    fields.checked(field, raw, |word| Name::parse(&word))
}

fn idempotency(headers: &HeaderMap, route: &'static str, body: &[u8]) -> Result<Option<Idempotent>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) => {
            Ok(Some(Idempotent { key: key.to_owned(), route, body_sha256: Sha256::digest(body).into() }))
        }
        _ => Err(Problem::fields(vec![json!({
            "type": "value_error", "loc": ["header", "idempotency-key"],
            "msg": "Value error, a key is 1 to 255 ASCII characters", "input": null,
        })])),
    }
}

/// `GET /pending`
pub(crate) async fn pending(
    State(app): State<App>,
    Caller(who): Caller,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let filter = CommandFilter { statuses: vec![Status::Pending], before: page.before, limit: page.limit() };
    let records = app.gateway.commands(&who, filter).await?;
    Ok(listed(&records, page.limit(), wire::pending))
}

/// `GET /commands`
pub(crate) async fn commands(
    State(app): State<App>,
    Caller(who): Caller,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let mut statuses = Vec::new();
    for word in page.state.iter().flat_map(|words| words.split(',')) {
        statuses.push(Status::parse(word).ok_or_else(|| {
            let msg = "Value error, not a state of a plan";
            Problem::fields(vec![
                json!({ "type": "value_error", "loc": ["query", "state"], "msg": msg, "input": word }),
            ])
        })?);
    }
    let filter = CommandFilter { statuses, before: page.before, limit: page.limit() };
    let records = app.gateway.commands(&who, filter).await?;
    Ok(listed(&records, page.limit(), wire::command))
}

/// A list as documented, an array; where it goes on is in a header.
pub(crate) fn listed(records: &[PlanRecord], limit: u32, shape: fn(&PlanRecord) -> Value) -> Response {
    let items: Vec<Value> = records.iter().map(shape).collect();
    let full = u32::try_from(items.len()).is_ok_and(|count| count == limit);
    let mut response = axum::Json(items).into_response();
    if let Some(last) = records.last().filter(|_| full) {
        response.headers_mut().insert("x-next-cursor", last.seq.into());
    }
    response
}

/// How long to wait, and from which revision on.
#[derive(Debug, Deserialize)]
pub(crate) struct Wait {
    wait: Option<u64>,
    revision: Option<u64>,
}

/// `GET /commands/{id}`
pub(crate) async fn command(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    Query(Wait { wait, revision }): Query<Wait>,
) -> Result<Response, Problem> {
    let id = plan_id(&id)?;
    let mut record = app.gateway.command(&who, &id).await?;
    if let Some(seconds) = wait {
        let seen = revision.unwrap_or(record.revision);
        if !record.status.is_settled() || record.revision > seen {
            let patience = Duration::from_secs(seconds.min(MAX_WAIT));
            record = app.gateway.wait(&who, &id, seen, patience).await?;
        }
    }
    Ok(axum::Json(with_output(&app.gateway, &record).await?).into_response())
}

async fn with_output(gateway: &Gateway, record: &PlanRecord) -> Result<Value, Problem> {
    let mut value = wire::command(record);
    if let Some(known) = &record.run
        && let Some(run) = value.get_mut("run").and_then(Value::as_object_mut)
    {
        run.append(&mut runs::texts(gateway, known).await?);
    }
    Ok(value)
}

/// `POST /approve/{id}`
pub(crate) async fn approve(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = plan_id(&id)?;
    let mut fields = Fields::optional(&body)?;
    let digest = fields.text("digest", 1, 80);
    let digest = fields.checked("digest", digest, |text| Digest::parse(&text));
    let reason = fields.text("reason", 0, MAX_REASON);
    let profile = name(&mut fields, "profile").map(ProfileName::new);
    fields.done()?;
    let record = app.gateway.approve(&who, &id, Approval { digest, reason, profile }).await?;
    let later = headers.get_all("prefer").iter().any(|value| {
        value.to_str().is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case("respond-async")))
    });
    if later {
        return Ok((StatusCode::ACCEPTED, axum::Json(wire::command(&record))).into_response());
    }
    let record = app.gateway.settled(&who, &id).await?;
    let Some(known) = record.run.as_ref().filter(|_| record.status.is_settled()) else {
        if !record.status.is_settled() {
            let text = "the server is stopping; your decision is kept, and what is not begun yet runs when the server is back soon enough";
            return Err(Problem::caller(StatusCode::SERVICE_UNAVAILABLE, "stopping", text)
                .with("state", record.status.as_str())
                .retry_after(5));
        }
        let text = format!("the plan was approved and then became {}; it was not run", record.status);
        return Err(Problem::caller(StatusCode::CONFLICT, "not_run", text).with("state", record.status.as_str()));
    };
    let mut answer = match wire::run(known) {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    answer.append(&mut runs::texts(&app.gateway, known).await?);
    answer.insert("pending_id".into(), record.plan.id.as_str().into());
    answer.insert("cwd".into(), record.plan.cwd.as_str().into());
    answer.insert("command".into(), record.plan.command.as_str().into());
    answer.insert("state".into(), record.status.as_str().into());
    Ok(axum::Json(answer).into_response())
}

/// `POST /deny/{id}`
pub(crate) async fn deny(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = plan_id(&id)?;
    let mut fields = Fields::optional(&body)?;
    let reason = fields.text("reason", 0, MAX_REASON);
    fields.done()?;
    let record = app.gateway.deny(&who, &id, reason).await?;
    Ok(axum::Json(wire::command(&record)).into_response())
}

/// `POST /edit/{id}`
pub(crate) async fn edit(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = plan_id(&id)?;
    let mut fields = Fields::required(&body)?;
    let command = fields.text("command", 1, CommandText::MAX_CHARS);
    let command = fields.checked("command", command, CommandText::parse);
    let cwd = fields.text("cwd", 0, 500);
    let timeout = timeout(&mut fields);
    let note = fields.text("note", 0, Note::MAX_CHARS);
    let note = fields.checked("note", note, Note::parse);
    fields.done()?;
    let record = app.gateway.edit(&who, &id, Edit { command, cwd, timeout, note }).await?;
    Ok(axum::Json(wire::command(&record)).into_response())
}

/// `POST /reopen/{id}`
pub(crate) async fn reopen(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let record = app.gateway.reopen(&who, &plan_id(&id)?).await?;
    Ok(axum::Json(wire::command(&record)).into_response())
}

/// `POST /commands/{id}/cancel`
pub(crate) async fn cancel(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let record = app.gateway.cancel(&who, &plan_id(&id)?).await?;
    Ok(axum::Json(wire::command(&record)).into_response())
}

/// `POST /commands/{id}/extend`
pub(crate) async fn extend(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = plan_id(&id)?;
    let mut fields = Fields::required(&body)?;
    let asked = timeout(&mut fields);
    fields.done()?;
    let Some(asked) = asked else {
        let fault = json!({ "type": "missing", "loc": ["body", "timeout_s"], "msg": "Field required", "input": {} });
        return Err(Problem::fields(vec![fault]));
    };
    let record = app.gateway.extend(&who, &id, asked).await?;
    Ok(axum::Json(wire::command(&record)).into_response())
}

/// `POST /policy/check`
pub(crate) async fn check(State(app): State<App>, Caller(who): Caller, body: Bytes) -> Result<Response, Problem> {
    let mut fields = Fields::required(&body)?;
    let command = fields.needed_text("command", 1, CommandText::MAX_CHARS);
    let command = fields.checked("command", command, CommandText::parse);
    let shell = shell(&mut fields);
    let cwd = fields.text("cwd", 0, 500);
    fields.done()?;
    let Some(command) = command else { return Err(Problem::fields(Vec::new())) };
    let explanation = app.gateway.check_policy(&PolicyQuestion { command, shell, cwd })?;
    if who.is_only_agent() {
        // What an agent needs to mend its command, and no more to probe the rules by.
        return Ok(axum::Json(wire::judgement(&explanation.judgement)).into_response());
    }
    Ok(axum::Json(explanation).into_response())
}

/// An id that is none names nothing.
pub(crate) fn plan_id(raw: &str) -> Result<PlanId, Problem> {
    PlanId::parse(raw).map_err(|_| Problem::not_found())
}
