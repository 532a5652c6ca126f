//! Server-sent events: the log as it grows, resumed exactly where a reader stopped.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use provara_domain::{Principal, TokenId};
use provara_gateway::{Gateway, LogEntry, RunProgress};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::access::{Caller, Shown};
use crate::lax;
use crate::problem::Problem;
use crate::query::Query;
use crate::rate::Held;
use crate::routes::App;

/// How often a silent stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How many entries are read at once while catching up.
const BATCH: u32 = 256;
/// How many bytes of live entries one write carries, about.
const MAX_FRAMES: usize = 64 * 1024;
/// The type of what tells how far a run is. It is no entry of the log, so it has no `id` and is never sent again.
const PROGRESS: &str = "run.progress";

type Notices = broadcast::Receiver<Arc<Vec<RunProgress>>>;

struct Reader {
    gateway: Gateway,
    who: Principal,
    types: Option<Vec<String>>,
    /// Entries as they are committed; absent while the reader still catches up from the store, at its own pace.
    live: Option<broadcast::Receiver<Arc<LogEntry>>>,
    /// How far runs are, for a reader who wants that.
    notices: Option<Notices>,
    /// The position that comes next.
    next: u64,
    ended: bool,
    /// SHA-256 of the token that opened the stream.
    secret: [u8; 32],
    _place: Held<TokenId>,
}

/// Sends the log as it grows, as server-sent events.
///
/// `id` is the position in the log. With none given it begins with what comes next; a comment every 15 s says that it lives.
/// `run.progress` tells how far a run is, at most once a second: it has no `id` and is never sent again.
#[utoipa::path(get, path = "/events", operation_id = "events", tag = "events",
    params(("since" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991_i64,
            description = "The last position seen; the stream goes on after it"),
        ("types" = Option<String>, Query, description = "Types to send, separated by commas; all of them by default"),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `since`, and wins over it")),
    responses((status = 200, description = "A stream without an end; an agent gets its own plans' events",
        content_type = "text/event-stream", body = String)))]
pub(crate) async fn events(
    State(app): State<App>,
    Caller(who): Caller,
    Extension(Shown(secret)): Extension<Shown>,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (since, types) = (query.position("since"), query.text("types"));
    query.done()?;
    let place = app.streams.take(&who.token).ok_or_else(Problem::too_many_streams)?;
    let next = first_position(&app.gateway, &headers, since)?;
    let types: Option<Vec<String>> = types.map(|list| list.split(',').map(str::to_owned).collect());
    let gateway = app.gateway.clone();
    let wanted = types.as_ref().is_none_or(|types| types.iter().any(|kind| kind == PROGRESS));
    let notices = wanted.then(|| gateway.subscribe_progress());
    let reader = Reader { gateway, who, types, live: None, notices, next, ended: false, secret, _place: place };
    let frames = stream::unfold(reader, |mut reader| async move {
        let frame = reader.next_frame().await?;
        Some((Ok::<_, Infallible>(frame), reader))
    });
    let mut response = Body::from_stream(frames).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// The position after the last one that the reader has seen; the present head where it has seen none.
fn first_position(gateway: &Gateway, headers: &HeaderMap, since: Option<u64>) -> Result<u64, Problem> {
    let head = gateway.head();
    let (place, seen) = match headers.get("last-event-id") {
        None => (["query", "since"], since),
        Some(value) => {
            let place = ["header", "last-event-id"];
            match value.to_str().ok().and_then(|id| id.parse().ok()) {
                Some(position) => (place, Some(position)),
                // To go on from somewhere else would lose events without a word.
                None => return Err(no_position(place, "not a position of the log", value.to_str().ok())),
            }
        }
    };
    match seen {
        None => Ok(head),
        Some(seen) if seen < head => Ok(seen + 1),
        // Another log, or this one before its tail was cut: waiting for that position would skip what comes before it.
        Some(seen) => {
            let why = format!("the log has {head} entries only; is this the server that the position came from?");
            Err(no_position(place, &why, Some(&seen.to_string())))
        }
    }
}

fn no_position(place: [&str; 2], why: &str, input: Option<&str>) -> Problem {
    let fault = lax::Fault::new("value_error", format!("Value error, {why}"), None);
    Problem::fields(vec![fault.at(place, input.map_or(Value::Null, Value::from))])
}

impl Reader {
    async fn next_frame(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let Some(mut live) = self.live.take() else { return Some(self.catch_up().await) };
        // One deadline for the whole wait: entries that this reader does not get must not silence the heartbeat.
        let silent_until = tokio::time::Instant::now() + HEARTBEAT;
        let frame = loop {
            let received = tokio::select! {
                // What was committed before the end is told before the end.
                biased;
                received = live.recv() => received,
                // Whoever caused an entry is answered before it comes here, so that the end may overtake it.
                () = self.gateway.quiet() => {
                    let told = self.next >= self.gateway.head();
                    break if told { self.end("server_stopping") } else { return Some(self.catch_up().await) };
                }
                notices = next_notices(&mut self.notices) => {
                    if self.is_revoked() {
                        break self.end("token_revoked");
                    }
                    let frames: String =
                        notices.iter().filter(|notice| notice.is_for(&self.who)).map(notice_frame).collect();
                    if frames.is_empty() {
                        continue;
                    }
                    break frames.into();
                }
                () = tokio::time::sleep_until(silent_until) => break self.heartbeat(),
            };
            match received {
                // A revoked token ends what it opened.
                Ok(_) if self.is_revoked() => break self.end("token_revoked"),
                Ok(entry) => {
                    let mut frames = Vec::new();
                    self.take(&entry, &mut frames);
                    self.take_waiting(&mut live, &mut frames);
                    if !frames.is_empty() {
                        break frames.into();
                    }
                }
                // Too slow: told so, and let go. Coming back with the last id misses nothing.
                Err(RecvError::Lagged(_)) => break self.end("too_slow"),
                Err(RecvError::Closed) => break self.end("server_stopping"),
            }
        };
        self.live = Some(live);
        Some(frame)
    }

    /// Adds what waits already: one write serves many entries. That this reader lagged is for the next call to find.
    fn take_waiting(&mut self, live: &mut broadcast::Receiver<Arc<LogEntry>>, frames: &mut Vec<u8>) {
        while frames.len() < MAX_FRAMES
            && let Ok(entry) = live.try_recv()
        {
            self.take(&entry, frames);
        }
    }

    fn take(&mut self, entry: &LogEntry, frames: &mut Vec<u8>) {
        if entry.position >= self.next {
            self.next = entry.position + 1;
            self.push(entry, frames);
        }
    }

    /// The next entries of the store, in one piece. The last piece goes over to the live ones without a gap: the reader
    /// subscribes before it looks, and what it then sees twice is skipped by its position.
    async fn catch_up(&mut self) -> Bytes {
        let live = self.gateway.subscribe();
        let head = self.gateway.head();
        let Ok(entries) = self.gateway.entries(&self.who, self.next, BATCH).await else {
            return self.end("unavailable");
        };
        let after = entries.last().map_or(self.next, |last| last.position + 1);
        if u32::try_from(entries.len()).is_ok_and(|count| count < BATCH) {
            self.next = after.max(head);
            self.live = Some(live);
        } else {
            self.next = after;
        }
        let mut frames = Vec::new();
        entries.iter().for_each(|entry| self.push(entry, &mut frames));
        // An id without data is no event to a reader, only the place to come back to: what it did not get in between, since it
        // filters or has just begun, it need not be shown again, and nothing after it is missed.
        let last = self.next.checked_sub(1).map_or(String::new(), |last| format!("id: {last}\n"));
        frames.extend_from_slice(format!(": caught up\n{last}\n").as_bytes());
        frames.into()
    }

    /// Adds an entry as an event, if this reader gets it. A leaf is canonical JSON and so has no line break.
    fn push(&self, entry: &LogEntry, frames: &mut Vec<u8>) {
        let wanted = self.types.as_ref().is_none_or(|types| types.contains(&entry.kind));
        if wanted && Gateway::may_see(&self.who, entry) {
            frames.extend_from_slice(format!("id: {}\nevent: {}\ndata: ", entry.position, entry.kind).as_bytes());
            frames.extend_from_slice(&entry.leaf);
            frames.extend_from_slice(b"\n\n");
        }
    }

    fn heartbeat(&mut self) -> Bytes {
        if self.is_revoked() { self.end("token_revoked") } else { Bytes::from_static(b": still here\n\n") }
    }

    fn is_revoked(&self) -> bool {
        self.gateway.authenticate(&self.secret).is_none()
    }

    fn end(&mut self, why: &str) -> Bytes {
        self.ended = true;
        let last = self.next.saturating_sub(1);
        format!("event: dropped\ndata: {{\"reason\":\"{why}\",\"last_event_id\":{last}}}\n\n").into()
    }
}

/// The next notices, or never. One who is too slow for them misses some: they are about what is now.
async fn next_notices(notices: &mut Option<Notices>) -> Arc<Vec<RunProgress>> {
    while let Some(open) = notices {
        match open.recv().await {
            Ok(found) => return found,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => *notices = None,
        }
    }
    std::future::pending().await
}

/// In the shape of an entry, less what only an entry of the log has.
fn notice_frame(notice: &RunProgress) -> String {
    let far = notice.progress;
    let body = json!({
        "run": notice.run,
        "elapsed_ms": u64::try_from(far.elapsed.as_millis()).unwrap_or(u64::MAX),
        "stdout_bytes": far.stdout_bytes,
        "stderr_bytes": far.stderr_bytes,
        "processes": far.processes,
    });
    let data = json!({ "type": PROGRESS, "plan": notice.plan, "body": body });
    format!("event: {PROGRESS}\ndata: {data}\n\n")
}
