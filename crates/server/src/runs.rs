//! Runs and their output.

use std::io;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use provara_domain::{Principal, RunId, Stream, TokenId};
use provara_gateway::{Gateway, PlanRecord, RunRecord};

use crate::access::{Caller, Shown};
use crate::openapi::words;
use crate::plans::{Page, PageParams, listed};
use crate::problem::{Problem, ProblemBody};
use crate::query::Query;
use crate::rate::Held;
use crate::routes::App;
use crate::wire::{self, Texts};

/// The most of a stream that a JSON answer holds, in bytes.
const IN_JSON: usize = 1 << 20;
/// The most of a stream that one raw answer holds, in bytes.
const IN_PAGE: usize = 1 << 20;

/// Returns a run's output as text, for a JSON answer. What is not UTF-8 is replaced here and kept in the raw bytes.
pub(crate) async fn texts(gateway: &Gateway, run: &RunRecord) -> Result<Texts, Problem> {
    let (stdout, stderr) = tokio::try_join!(text(gateway, run, Stream::Stdout), text(gateway, run, Stream::Stderr))?;
    Ok(Texts { stdout, stderr })
}

async fn text(gateway: &Gateway, run: &RunRecord, stream: Stream) -> Result<(String, bool), Problem> {
    let written = match stream {
        Stream::Stdout => run.stdout_bytes,
        Stream::Stderr => run.stderr_bytes,
    };
    // A run without an outcome is counted nowhere and may have written all the same.
    if run.outcome.is_some() && written == 0 {
        return Ok((String::new(), false));
    }
    let page = gateway.output(&run.id, stream, 0, IN_JSON).await?;
    let held = u64::try_from(page.bytes.len()).unwrap_or(u64::MAX);
    Ok((String::from_utf8_lossy(&page.bytes).into_owned(), page.total > held))
}

/// A plan with its run's output.
pub(crate) async fn with_output(gateway: &Gateway, who: &Principal, record: &PlanRecord) -> Result<Response, Problem> {
    let texts = match &record.run {
        Some(run) => Some(texts(gateway, run).await?),
        None => None,
    };
    let command = wire::Command::with_output(record, gateway, texts).confined(gateway.confinement(record));
    if !who.roles.reads_all() {
        return Ok(axum::Json(command).into_response());
    }
    let scripts = gateway.script_texts(who, record).await?;
    let digest = record.measured.as_ref().map(provara_gateway::binding_digest);
    let known = record.measured.as_ref().zip(digest.as_ref());
    let binding = known.map(|(measured, digest)| wire::Binding::new(measured, digest, &scripts));
    Ok(axum::Json(command.bound(binding)).into_response())
}

/// Lists plans that have a run, newest run first.
#[utoipa::path(get, path = "/runs", operation_id = "runs", tag = "runs", params(PageParams),
    responses((status = 200, description = "An agent gets its own", body = Vec<wire::Command>,
        headers(("X-Next-Cursor" = u64, description = "Goes into `before`; absent at the end")))))]
pub(crate) async fn runs(State(app): State<App>, Caller(who): Caller, mut query: Query) -> Result<Response, Problem> {
    let Page { limit, before } = Page::read(&mut query);
    query.done()?;
    let records = app.gateway.runs(&who, before, limit).await?;
    Ok(listed(&records, limit, |record| wire::Command::new(record, &app.gateway)))
}

/// Tells of one run, with its plan.
#[utoipa::path(get, path = "/runs/{id}", operation_id = "run", tag = "runs",
    params(("id" = String, Path, description = "`run_id`")),
    responses((status = 200, description = "With its output", body = wire::Command),
        (status = 404, description = "No such run, or not yours", body = ProblemBody)))]
pub(crate) async fn run(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (record, _) = visible(&app, &who, &id).await?;
    with_output(&app.gateway, &who, &record).await
}

/// Sends a run's output, less its secrets, a MiB at a time or as it comes.
#[utoipa::path(get, path = "/runs/{id}/output", operation_id = "output", tag = "runs",
    params(("id" = String, Path, description = "`run_id`"), ("stream" = inline(Option<words::WhichStream>), Query),
        ("offset" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991_i64,
            description = "The first byte wanted, counted in the bytes that came to be kept: what was written, with `[redacted:RULE]` in the place of secrets"),
        ("follow" = Option<bool>, Query, description = "Whether to send on until the run has ended")),
    responses((status = 200, description = "Raw bytes", content_type = "application/octet-stream",
        body = inline(words::Bytes), headers(
            ("X-Provara-Offset" = u64, description = "Where these bytes begin"),
            ("X-Provara-Next-Offset" = u64, description = "Where to go on; not with `follow`"),
            ("X-Provara-Total" = u64, description = "How many bytes came to be kept so far; not with `follow`"),
            ("X-Provara-Gap" = u64, description = "How many bytes before these were not kept, where some were not"))),
        (status = 404, description = "No such run, or not yours", body = ProblemBody)))]
pub(crate) async fn output(
    State(app): State<App>,
    Caller(who): Caller,
    Extension(Shown(secret)): Extension<Shown>,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Response, Problem> {
    let (_, id) = visible(&app, &who, &id).await?;
    let streams = [Stream::Stdout, Stream::Stderr].map(|stream| (stream.as_str(), stream));
    let stream = query.word("stream", &streams).unwrap_or(Stream::Stdout);
    let offset = query.position("offset").unwrap_or(0);
    let follows = query.flag("follow").unwrap_or(false);
    query.done()?;
    let page = app.gateway.output(&id, stream, offset, IN_PAGE).await?;
    let next = page.offset + u64::try_from(page.bytes.len()).unwrap_or(0);
    let mut headers = vec![("x-provara-offset", page.offset)];
    if page.gap {
        headers.push(("x-provara-gap", page.offset - offset.min(page.offset)));
    }
    if follows {
        let place = app.streams.take(&who.token).ok_or_else(Problem::too_many_streams)?;
        let following =
            Following { gateway: app.gateway.clone(), secret, run: id, stream, next, ended: false, _place: place };
        let first = stream::iter(Some(page.bytes).filter(|bytes| !bytes.is_empty()).map(Ok));
        let rest = stream::try_unfold(following, Following::more);
        return Ok(raw(Body::from_stream(first.chain(rest)), &headers));
    }
    headers.extend([("x-provara-next-offset", next), ("x-provara-total", page.total)]);
    Ok(raw(Body::from(page.bytes), &headers))
}

fn raw(body: Body, numbers: &[(&'static str, u64)]) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    // Never something that a browser would show: the bytes are a stranger's.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    for (name, number) in numbers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(*number));
    }
    response
}

/// A run's output as it comes, until the run has ended. The reader's pace is the stream's: nothing is held for it.
struct Following {
    gateway: Gateway,
    /// SHA-256 of the token that opened the stream.
    secret: [u8; 32],
    run: RunId,
    stream: Stream,
    /// The byte that comes next.
    next: u64,
    /// Whether the last page was the output's end.
    ended: bool,
    _place: Held<TokenId>,
}

impl Following {
    /// The next bytes. An error breaks the answer off, so that nobody takes what came for the whole: a reader that comes
    /// back with its offset is told what it may still have, and what was dropped.
    async fn more(mut self) -> io::Result<Option<(Bytes, Self)>> {
        while !self.ended {
            self.gateway.output_grown(&self.run, self.stream, self.next).await;
            if self.gateway.authenticate(&self.secret).is_none() {
                return Err(io::Error::other("the token was revoked"));
            }
            let page = self.gateway.output(&self.run, self.stream, self.next, IN_PAGE).await;
            let page = page.map_err(io::Error::other)?;
            if page.gap {
                // What was read before has to leave first: an answer that breaks off takes what is still buffered with it.
                tokio::task::yield_now().await;
                return Err(io::Error::other("the reader did not keep up, and bytes were dropped"));
            }
            self.next = page.offset + u64::try_from(page.bytes.len()).unwrap_or(0);
            // A full page may have more behind it, also of a run that has ended.
            self.ended = page.ended && page.bytes.is_empty();
            if !page.bytes.is_empty() {
                return Ok(Some((page.bytes, self)));
            }
        }
        Ok(None)
    }
}

async fn visible(app: &App, who: &provara_domain::Principal, raw: &str) -> Result<(PlanRecord, RunId), Problem> {
    let id = RunId::parse(raw)?;
    let absent = || Problem::caller(StatusCode::NOT_FOUND, "not_found", format!("no run has the id {id}"));
    let record = app.gateway.run(who, &id).await?.ok_or_else(absent)?;
    Ok((record, id))
}
