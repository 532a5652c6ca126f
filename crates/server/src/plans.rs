//! Plans: propose, list, look, decide, stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use provara_domain::{
    CommandText, Digest, EnvName, Name, Note, PlanId, ProfileName, Resource, ResourceLimits, Shell, Status, Timeout,
};
use provara_gateway::{
    Approval, DecideError, Edit, Gateway, Idempotent, PlanFilter, PlanRecord, PolicyQuestion, Proposal, Proposed,
    Rendering,
};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::access::Caller;
use crate::body::{Body, Fields};
use crate::openapi::words;
use crate::problem::{Problem, ProblemBody};
use crate::query::Query;
use crate::routes::App;
use crate::{lax, requests, runs, wire};

/// The longest long poll.
const MAX_WAIT: i64 = 60;
/// The longest list.
const MAX_LIMIT: i64 = 500;
/// How long a list is that nobody gave a length.
const LIMIT: u32 = 50;
/// The longest reason, in characters.
const MAX_REASON: usize = 1000;

/// Which part of a list is asked for.
pub(crate) struct Page {
    pub(crate) limit: u32,
    pub(crate) before: Option<u64>,
}

impl Page {
    pub(crate) fn read(query: &mut Query) -> Self {
        let limit = query.integer("limit", 1, MAX_LIMIT).and_then(|limit| u32::try_from(limit).ok());
        Self { limit: limit.unwrap_or(LIMIT), before: query.position("before") }
    }
}

/// What `Page` reads, for the document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents what `Page` reads")]
pub(crate) struct PageParams {
    /// How many at most.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// Where to go on: what `X-Next-Cursor` of the answer before said.
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    before: Option<u64>,
}

/// Proposes a command.
///
/// Policy judges it at once: what it denies is answered with 403 `policy_denied` and never troubles a person.
#[utoipa::path(post, path = "/plan", operation_id = "plan", tag = "plans", request_body = requests::PlanRequest,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "The same key and body within 24 h is the same plan; the same key with another body is 422")),
    responses((status = 200, description = "It waits for a decision", body = wire::Queued)))]
pub(crate) async fn plan(State(app): State<App>, Caller(who): Caller, body: Body) -> Result<Response, Problem> {
    let mut fields = body.required()?;
    let read = proposal(&mut fields);
    fields.done()?;
    let Some(mut proposal) = read else { return Err(Problem::fields(Vec::new())) };
    proposal.idempotency = idempotency(&body.headers, "POST /plan", &body.bytes)?;
    match app.gateway.propose(&who, proposal).await? {
        Proposed::Queued(record) | Proposed::Repeated(record) => {
            let url = format!("{}/commands/{}", app.config.public_url, record.plan.id);
            Ok(axum::Json(wire::Queued::new(&record, url)).into_response())
        }
        Proposed::Blocked(record) => Err(denied_by_policy(&record)),
    }
}

fn denied_by_policy(record: &PlanRecord) -> Problem {
    let reasons: Vec<&str> = record.judgement.reasons.iter().map(|reason| reason.text.as_str()).collect();
    let text = format!("policy denies this command and it was not run: {}", reasons.join("; "));
    Problem::caller(StatusCode::FORBIDDEN, "policy_denied", text)
        .with("pending_id", record.plan.id.as_str())
        .judged(&record.judgement)
}

/// Reads a proposal; its idempotency is in the headers. `None` where a fault was noted.
pub(crate) fn proposal(fields: &mut Fields) -> Option<Proposal> {
    let command = fields.needed_text("command", 1, CommandText::MAX_CHARS);
    let command = fields.checked("command", command, CommandText::parse);
    let cwd = fields.text("cwd", 0, 500);
    let timeout = timeout(fields);
    let note = fields.text("note", 0, Note::MAX_CHARS);
    let note = fields.checked("note", note, Note::parse);
    let shell = shell(fields);
    let target = name(fields, "target");
    let profile = name(fields, "profile");
    let env = fields.texts("env").unwrap_or_default();
    let mut checked_env = BTreeMap::new();
    for (key, value) in env {
        let bad = value.contains('\0') || value.len() > 32 * 1024;
        match EnvName::parse(key.clone()) {
            Ok(name) if !bad => drop(checked_env.insert(name, value)),
            Ok(_) => fields.wrong("env", "a value has a NUL or is too long", key),
            Err(error) => fields.wrong("env", error, key),
        }
    }
    let stdin = fields.text("stdin", 0, 1 << 20).map(String::into_bytes);
    let stdin_b64 = fields.text("stdin_b64", 0, 1 << 20);
    let decoded = fields.checked("stdin_b64", stdin_b64, |text| STANDARD.decode(text));
    let expires = fields.integer("expires_s", 1, 30 * 86_400).and_then(|seconds| u64::try_from(seconds).ok());
    let dedupe = fields.flag("dedupe").unwrap_or(false);
    Some(Proposal {
        command: command?,
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
        idempotency: None,
    })
}

fn timeouts() -> (i64, i64) {
    (i64::from(Timeout::MIN_SECONDS), i64::from(Timeout::MAX_SECONDS))
}

fn timeout(fields: &mut Fields) -> Option<Timeout> {
    let (min, max) = timeouts();
    seconds(fields.integer("timeout_s", min, max)?)
}

fn seconds(number: i64) -> Option<Timeout> {
    u32::try_from(number).ok().and_then(|seconds| Timeout::from_seconds(seconds).ok())
}

fn shell(fields: &mut Fields) -> Option<Shell> {
    let raw = fields.text("shell", 1, 16);
    fields.checked("shell", raw, |word| Shell::parse(&word).ok_or("a shell is `bash`, `sh` or `pwsh`"))
}

fn name(fields: &mut Fields, field: &'static str) -> Option<Name> {
    let raw = fields.text(field, 1, 64);
    fields.checked(field, raw, |word| Name::parse(&word))
}

fn idempotency(headers: &HeaderMap, route: &'static str, body: &[u8]) -> Result<Option<Idempotent>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) => {
            Ok(Some(Idempotent { key: key.to_owned(), route, body_sha256: Sha256::digest(body).into() }))
        }
        _ => {
            let fault = lax::Fault::new("value_error", "Value error, a key is 1 to 255 ASCII characters", None);
            Err(Problem::fields(vec![fault.at(["header", "idempotency-key"], Value::Null)]))
        }
    }
}

/// Lists what waits for a decision, newest first.
#[utoipa::path(get, path = "/pending", operation_id = "pending", tag = "plans", params(PageParams),
    responses((status = 200, description = "An agent gets its own", body = Vec<wire::Plan>,
        headers(("X-Next-Cursor" = u64, description = "Goes into `before`; absent at the end")))))]
pub(crate) async fn pending(
    State(app): State<App>,
    Caller(who): Caller,
    mut query: Query,
) -> Result<Response, Problem> {
    let Page { limit, before } = Page::read(&mut query);
    query.done()?;
    let filter = PlanFilter { statuses: vec![Status::Pending], before, limit };
    let page = app.gateway.page(&who, &app.pending, filter).await?;
    let json = HeaderValue::from_static("application/json");
    let mut response = ([(header::CONTENT_TYPE, json)], page.body).into_response();
    if let Some(next) = page.next {
        response.headers_mut().insert("x-next-cursor", next.into());
    }
    Ok(response)
}

/// Returns how `/pending` looks. What is asked for most is made once for everybody.
pub(crate) fn pending_rendering(gateway: &Gateway) -> Rendering {
    let gateway = gateway.clone();
    Rendering { item: Arc::new(move |record| serde_json::to_vec(&wire::Plan::new(record, &gateway)).ok()), list: array }
}

/// A JSON array of values that are JSON already.
fn array(items: &[Bytes]) -> Vec<u8> {
    let mut all = Vec::with_capacity(items.iter().map(|item| item.len() + 1).sum::<usize>() + 2);
    all.push(b'[');
    for (nth, item) in items.iter().enumerate() {
        if nth > 0 {
            all.push(b',');
        }
        all.extend_from_slice(item);
    }
    all.push(b']');
    all
}

/// Lists plans with what became of them, newest first.
#[utoipa::path(get, path = "/commands", operation_id = "commands", tag = "plans",
    params(PageParams, ("state" = inline(Option<words::States>), Query)),
    responses((status = 200, description = "An agent gets its own", body = Vec<wire::Command>,
        headers(("X-Next-Cursor" = u64, description = "Goes into `before`; absent at the end")))))]
pub(crate) async fn commands(
    State(app): State<App>,
    Caller(who): Caller,
    mut query: Query,
) -> Result<Response, Problem> {
    let Page { limit, before } = Page::read(&mut query);
    let statuses = query.words("state", Status::parse, &Status::ALL.map(Status::as_str));
    query.done()?;
    let filter = PlanFilter { statuses, before, limit };
    let records = app.gateway.commands(&who, filter).await?;
    Ok(listed(&records, limit, |record| wire::Command::new(record, &app.gateway)))
}

/// A list as documented, an array; where it goes on is in a header.
pub(crate) fn listed<'a, T: Serialize>(
    records: &'a [PlanRecord],
    limit: u32,
    shown: impl Fn(&'a PlanRecord) -> T,
) -> Response {
    let full = u32::try_from(records.len()).is_ok_and(|count| count == limit);
    let mut response = axum::Json(records.iter().map(shown).collect::<Vec<_>>()).into_response();
    if let Some(last) = records.last().filter(|_| full) {
        response.headers_mut().insert("x-next-cursor", last.seq.into());
    }
    response
}

/// Tells what became of a plan, and waits for it if asked to.
#[utoipa::path(get, path = "/commands/{id}", operation_id = "command", tag = "plans",
    params(("id" = String, Path, description = "`pending_id`"),
        ("wait" = Option<u32>, Query, minimum = 0, maximum = 60,
            description = "Seconds to wait for the next change; a plan that is settled is answered at once"),
        ("revision" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991_i64,
            description = "The revision that you know; the present one by default")),
    responses((status = 200, description = "The plan, with its run's output", body = wire::Command),
        (status = 404, description = "No such plan, or not yours", body = ProblemBody)))]
pub(crate) async fn command(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Response, Problem> {
    let id = PlanId::parse(&id)?;
    let wait = query.integer("wait", 0, MAX_WAIT).and_then(|seconds| u64::try_from(seconds).ok());
    let revision = query.position("revision");
    query.done()?;
    let mut record = app.gateway.command(&who, &id).await?;
    if let Some(seconds) = wait {
        let seen = revision.unwrap_or(record.revision);
        if !record.status.is_settled() || record.revision > seen {
            record = app.gateway.wait(&who, &id, seen, Duration::from_secs(seconds)).await?;
        }
    }
    runs::with_output(&app.gateway, &who, &record).await
}

/// The frame of what is asked about one plan: its id, the body's fields, and every fault of them at once.
fn about<T>(
    id: &str,
    fields: Result<Fields, Problem>,
    read: impl FnOnce(&mut Fields) -> T,
) -> Result<(PlanId, T), Problem> {
    let id = PlanId::parse(id)?;
    let mut fields = fields?;
    let read = read(&mut fields);
    fields.done()?;
    Ok((id, read))
}

fn answered(app: &App, record: &PlanRecord) -> Response {
    axum::Json(wire::Command::new(record, &app.gateway)).into_response()
}

/// Approves a plan and waits for its run.
///
/// The decision stands even if the client goes away. Policy judges again: where it became stricter, nothing is approved.
#[utoipa::path(post, path = "/approve/{id}", operation_id = "approve", tag = "decisions",
    params(("id" = String, Path, description = "`pending_id`"),
        ("Prefer" = Option<String>, Header, description = "`respond-async` answers 202 at once"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "The same request with the same key within 24 hours is answered by what the first one did")),
    request_body = Option<requests::ApproveRequest>,
    responses((status = 200, description = "It ran", body = wire::Ran),
        (status = 202, description = "It is approved and will run", body = wire::Command),
        (status = 404, description = "No such plan", body = ProblemBody),
        (status = 409, description = "Already decided, another digest, a stricter judgement, a binding that changed or lacks what \
            rules demand, a profile that rules do not let it run with or that is another by now, or not run after all",
            body = ProblemBody)))]
pub(crate) async fn approve(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let (id, approval) = about(&id, body.optional(), approval)?;
    let approval = Approval { idempotency: idempotency(&body.headers, "POST /approve", &body.bytes)?, ..approval };
    let record = app.gateway.approve(&who, &id, approval).await?;
    if asks_not_to_wait(&body.headers) {
        return Ok((StatusCode::ACCEPTED, answered(&app, &record)).into_response());
    }
    let record = app.gateway.settled(&who, &id).await?;
    if !record.status.is_settled() {
        let (code, text) = if app.gateway.is_stopping() {
            ("stopping", "the approval is recorded and the server is stopping; look at the plan after its next start")
        } else {
            ("unavailable", "the approval is recorded and the server cannot write its store; look at the plan later")
        };
        let problem = Problem::caller(StatusCode::SERVICE_UNAVAILABLE, code, text).retry_after(5);
        return Err(problem.with("pending_id", id.as_str()).with("state", record.status.as_str()));
    }
    let Some(run) = &record.run else {
        let text = format!("the plan was approved and then became {}; it was not run", record.status);
        return Err(Problem::caller(StatusCode::CONFLICT, "not_run", text).with("state", record.status.as_str()));
    };
    let texts = runs::texts(&app.gateway, run).await?;
    Ok(axum::Json(wire::Ran::new(&record, run, texts)).into_response())
}

pub(crate) fn approval(fields: &mut Fields) -> Approval {
    let digest = fields.text("digest", 1, 80);
    let digest = fields.checked("digest", digest, |text| Digest::parse(&text));
    let binding = fields.text("binding_digest", 1, 80);
    let binding = fields.checked("binding_digest", binding, |text| Digest::parse(&text));
    let reason = fields.text("reason", 0, MAX_REASON);
    let profile = name(fields, "profile").map(ProfileName::new);
    let timeout = timeout(fields);
    let limits = limits(fields);
    let seen = fields.text("profile_sha256", 1, 80);
    let profile_sha256 = fields.checked("profile_sha256", seen, |text| Digest::parse(&text));
    Approval { digest, binding, reason, profile, profile_sha256, timeout, limits, idempotency: None }
}

fn limits(fields: &mut Fields) -> ResourceLimits {
    let within = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Resource::ALL.into_iter().fold(ResourceLimits::default(), |limits, resource| {
        let asked = fields.integer(resource.as_str(), within(resource.least()), within(ResourceLimits::MOST));
        let most = asked.and_then(|number| u64::try_from(number).ok());
        most.and_then(|most| limits.with(resource, most).ok()).unwrap_or(limits)
    })
}

fn asks_not_to_wait(headers: &HeaderMap) -> bool {
    headers.get_all("prefer").iter().any(|value| {
        value.to_str().is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case("respond-async")))
    })
}

/// Denies a plan.
#[utoipa::path(post, path = "/deny/{id}", operation_id = "deny", tag = "decisions",
    params(("id" = String, Path, description = "`pending_id`")), request_body = Option<requests::DenyRequest>,
    responses((status = 200, description = "It is denied", body = wire::Command),
        (status = 404, description = "No such plan", body = ProblemBody),
        (status = 409, description = "Already decided", body = ProblemBody)))]
pub(crate) async fn deny(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let (id, reason) = about(&id, body.optional(), denial)?;
    Ok(answered(&app, &app.gateway.deny(&who, &id, reason).await?))
}

pub(crate) fn denial(fields: &mut Fields) -> Option<String> {
    fields.text("reason", 0, MAX_REASON)
}

/// Replaces a plan by an edited one, which is judged and waits anew.
#[utoipa::path(post, path = "/edit/{id}", operation_id = "edit", tag = "decisions",
    params(("id" = String, Path, description = "`pending_id`")), request_body = requests::EditRequest,
    responses((status = 200, description = "The new plan", body = wire::Command),
        (status = 404, description = "No such plan", body = ProblemBody),
        (status = 409, description = "Already decided", body = ProblemBody)))]
pub(crate) async fn edit(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let (id, edit) = about(&id, body.required(), changes)?;
    Ok(answered(&app, &app.gateway.edit(&who, &id, edit).await?))
}

pub(crate) fn changes(fields: &mut Fields) -> Edit {
    let command = fields.text("command", 1, CommandText::MAX_CHARS);
    let command = fields.checked("command", command, CommandText::parse);
    let cwd = fields.text("cwd", 0, 500);
    let timeout = timeout(fields);
    let note = fields.text("note", 0, Note::MAX_CHARS);
    let note = fields.checked("note", note, Note::parse);
    Edit { command, cwd, timeout, note }
}

/// Plans anew what expired, was not run because something had changed, or whose run was lost.
///
/// A new plan, judged and decided anew, once for each: the old one never runs again.
#[utoipa::path(post, path = "/reopen/{id}", operation_id = "reopen", tag = "decisions",
    params(("id" = String, Path, description = "`pending_id`")),
    responses((status = 200, description = "The new plan", body = wire::Command),
        (status = 404, description = "No such plan", body = ProblemBody),
        (status = 409, description = "Not in a state to be re-opened", body = ProblemBody)))]
pub(crate) async fn reopen(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    match app.gateway.reopen(&who, &PlanId::parse(&id)?).await {
        Err(DecideError::Conflict { record }) => Err(not_reopenable(&record)),
        reopened => Ok(answered(&app, &reopened?)),
    }
}

fn not_reopenable(record: &PlanRecord) -> Problem {
    let text = format!(
        "plan {} is {} and cannot be re-opened: only what expired, was lost or was not run because something had changed \
         can be, once, and before it is erased; plan the command anew",
        record.plan.id, record.status
    );
    Problem::caller(StatusCode::CONFLICT, "not_reopenable", text).with("state", record.status.as_str())
}

/// Runs a plan in a throw-away copy of its workspace, and tells what it would do.
///
/// It really runs there, confined as it would be but with no network and for half a minute at most; everything else is read-only.
/// The log has who asked, and the digest of what changed. The plan stays as it is; nothing of the answer is kept.
#[utoipa::path(post, path = "/commands/{id}/preview", operation_id = "preview", tag = "decisions",
    params(("id" = String, Path, description = "`pending_id`")),
    responses((status = 200, description = "What it did in the copy", body = wire::Preview),
        (status = 404, description = "No such plan", body = ProblemBody),
        (status = 409, description = "It does not wait for a decision any more (`plan_not_pending`), policy is stricter by now, or \
            this host cannot preview it (`preview_unavailable`)", body = ProblemBody),
        (status = 429, description = "Too many go on at once (`too_many_previews`)", body = ProblemBody)))]
pub(crate) async fn preview(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let preview = app.gateway.preview(&who, &PlanId::parse(&id)?).await?;
    Ok(axum::Json(wire::Preview::new(&preview)).into_response())
}

/// Withdraws a plan that waits, or ends its run.
#[utoipa::path(post, path = "/commands/{id}/cancel", operation_id = "cancel", tag = "plans",
    params(("id" = String, Path, description = "`pending_id`")),
    responses((status = 200, description = "As it is now; a run ends a little later", body = wire::Command),
        (status = 404, description = "No such plan, or not yours", body = ProblemBody),
        (status = 409, description = "Already settled", body = ProblemBody)))]
pub(crate) async fn cancel(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    Ok(answered(&app, &app.gateway.cancel(&who, &PlanId::parse(&id)?).await?))
}

/// Gives a run more time.
#[utoipa::path(post, path = "/commands/{id}/extend", operation_id = "extend", tag = "decisions",
    params(("id" = String, Path, description = "`pending_id`")), request_body = requests::ExtendRequest,
    responses((status = 200, description = "As it is now", body = wire::Command),
        (status = 404, description = "No such plan", body = ProblemBody),
        (status = 409, description = "It does not run, or would not get longer", body = ProblemBody)))]
pub(crate) async fn extend(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let (id, asked) = about(&id, body.required(), extension)?;
    let Some(asked) = asked else { return Err(Problem::fields(Vec::new())) };
    Ok(answered(&app, &app.gateway.extend(&who, &id, asked).await?))
}

pub(crate) fn extension(fields: &mut Fields) -> Option<Timeout> {
    let (min, max) = timeouts();
    seconds(fields.needed_integer("timeout_s", min, max)?)
}

/// Judges a command without planning it.
///
/// An agent gets the judgement; people also get the commands that were found and the rules that were asked.
#[utoipa::path(post, path = "/policy/check", operation_id = "check", tag = "policy", request_body = requests::CheckRequest,
    responses((status = 200, description = "Whatever the verdict", body = wire::Checked)))]
pub(crate) async fn check(State(app): State<App>, Caller(who): Caller, body: Body) -> Result<Response, Problem> {
    let mut fields = body.required()?;
    let read = question(&mut fields);
    fields.done()?;
    let Some(question) = read else { return Err(Problem::fields(Vec::new())) };
    let explanation = app.gateway.check_policy(&question)?;
    let answer = if who.is_only_agent() {
        // What an agent needs to mend its command, and no more to probe the rules by.
        wire::Checked::Judgement((&explanation.judgement).into())
    } else {
        wire::Checked::Explained((&explanation).into())
    };
    Ok(axum::Json(answer).into_response())
}

pub(crate) fn question(fields: &mut Fields) -> Option<PolicyQuestion> {
    let command = fields.needed_text("command", 1, CommandText::MAX_CHARS);
    let command = fields.checked("command", command, CommandText::parse);
    let shell = shell(fields);
    let cwd = fields.text("cwd", 0, 500);
    Some(PolicyQuestion { command: command?, shell, cwd })
}
