//! Runs and their output.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use provara_domain::{RunId, Stream, TokenId};
use provara_gateway::{Gateway, PlanRecord, RunRecord};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::access::Caller;
use crate::plans::{Page, listed};
use crate::problem::Problem;
use crate::rate::Held;
use crate::routes::App;
use crate::wire;

/// The most of a stream that a JSON answer holds, in bytes.
const IN_JSON: usize = 1 << 20;
/// The most of a stream that one raw answer holds, in bytes.
const IN_PAGE: usize = 1 << 20;

/// Returns a run's output as text, for a JSON answer. What is not UTF-8 is replaced here and kept in the raw bytes.
pub(crate) async fn texts(gateway: &Gateway, run: &RunRecord) -> Result<Map<String, Value>, Problem> {
    let mut fields = Map::new();
    for stream in [Stream::Stdout, Stream::Stderr] {
        let page = gateway.output(&run.id, stream, 0, IN_JSON).await?;
        let held = u64::try_from(page.bytes.len()).unwrap_or(u64::MAX);
        fields.insert(stream.as_str().into(), String::from_utf8_lossy(&page.bytes).into());
        fields.insert(format!("{}_truncated", stream.as_str()), (page.total > held).into());
    }
    Ok(fields)
}

/// `GET /runs`
pub(crate) async fn runs(
    State(app): State<App>,
    Caller(who): Caller,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let records = app.gateway.runs(&who, page.before(), page.limit()).await?;
    Ok(listed(&records, page.limit(), wire::command))
}

/// `GET /runs/{run_id}`
pub(crate) async fn run(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (record, _) = visible(&app, &who, &id).await?;
    let mut value = wire::command(&record);
    if let Some(known) = &record.run
        && let Some(run) = value.get_mut("run").and_then(Value::as_object_mut)
    {
        run.append(&mut texts(&app.gateway, known).await?);
    }
    Ok(axum::Json(value).into_response())
}

/// Which output to read.
#[derive(Debug, Deserialize)]
pub(crate) struct Reading {
    stream: Option<String>,
    offset: Option<u64>,
    follow: Option<String>,
}

/// `GET /runs/{run_id}/output`
pub(crate) async fn output(
    State(app): State<App>,
    Caller(who): Caller,
    Path(id): Path<String>,
    Query(reading): Query<Reading>,
) -> Result<Response, Problem> {
    let (_, id) = visible(&app, &who, &id).await?;
    let stream = match reading.stream.as_deref() {
        None | Some("stdout") => Stream::Stdout,
        Some("stderr") => Stream::Stderr,
        Some(other) => {
            let msg = "Value error, a stream is `stdout` or `stderr`";
            let fault = json!({ "type": "value_error", "loc": ["query", "stream"], "msg": msg, "input": other });
            return Err(Problem::fields(vec![fault]));
        }
    };
    let offset = reading.offset.unwrap_or(0);
    if matches!(reading.follow.as_deref(), Some("1" | "true")) {
        let place = app.streams.take(&who.token).ok_or_else(Problem::too_many_streams)?;
        return Ok(raw(Body::from_stream(follow(app.gateway.clone(), id, stream, offset, place)), &[]));
    }
    let page = app.gateway.output(&id, stream, offset, IN_PAGE).await?;
    let next = page.offset + u64::try_from(page.bytes.len()).unwrap_or(0);
    let mut headers =
        vec![("x-provara-offset", page.offset), ("x-provara-next-offset", next), ("x-provara-total", page.total)];
    if page.gap {
        headers.push(("x-provara-gap", page.offset - offset.min(page.offset)));
    }
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

/// A run's output from `offset` on until the run has ended. The reader's pace is the stream's: nothing is held for it.
fn follow(
    gateway: Gateway,
    id: RunId,
    stream: Stream,
    offset: u64,
    place: Held<TokenId>,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold((gateway, id, offset, place, false), move |(gateway, id, offset, place, done)| async move {
        let mut offset = offset;
        loop {
            if done {
                return None;
            }
            let page = match gateway.output(&id, stream, offset, IN_PAGE).await {
                Ok(page) => page,
                Err(error) => return Some((Err(std::io::Error::other(error)), (gateway, id, offset, place, true))),
            };
            let next = page.offset + u64::try_from(page.bytes.len()).unwrap_or(0);
            if !page.bytes.is_empty() {
                return Some((Ok(page.bytes), (gateway, id, next, place, false)));
            }
            if page.ended {
                return None;
            }
            gateway.output_grown(&id, stream, next).await;
            offset = next;
        }
    })
}

async fn visible(app: &App, who: &provara_domain::Principal, raw: &str) -> Result<(PlanRecord, RunId), Problem> {
    let id = RunId::parse(raw).map_err(|_| Problem::not_found())?;
    let record = app.gateway.run(who, &id).await?.ok_or_else(Problem::not_found)?;
    Ok((record, id))
}
