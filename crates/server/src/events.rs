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
use provara_gateway::{Gateway, LogEntry};
use serde_json::Value;
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

struct Reader {
    gateway: Gateway,
    who: Principal,
    types: Option<Vec<String>>,
    live: broadcast::Receiver<Arc<LogEntry>>,
    /// The position that comes next.
    next: u64,
    /// Entries up to here are in the store and have not been read yet.
    catch_up_to: u64,
    ended: bool,
    /// SHA-256 of the token that opened the stream.
    secret: [u8; 32],
    _place: Held<TokenId>,
}

/// Sends the log as it grows, as server-sent events.
///
/// `id` is the position in the log. With none given it begins with what comes next; a comment every 15 s says that it lives.
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
    // Subscribed before the head is read: what comes in between is seen twice rather than not at all, and then skipped.
    let live = app.gateway.subscribe();
    let head = app.gateway.head();
    let last = match headers.get("last-event-id").map(|value| value.to_str().ok().and_then(|id| id.parse::<u64>().ok()))
    {
        None => None,
        Some(Some(position)) => Some(position),
        // To go on from somewhere else would lose events without a word.
        Some(None) => {
            let fault = lax::Fault::new("value_error", "Value error, not a position of the log", None);
            return Err(Problem::fields(vec![fault.at(["header", "last-event-id"], Value::Null)]));
        }
    };
    // Both name the last position that was seen.
    let next = last.or(since).map_or(head, |seen| seen.saturating_add(1));
    let types = types.map(|list| list.split(',').map(str::to_owned).collect());
    let reader = Reader {
        gateway: app.gateway.clone(),
        who,
        types,
        live,
        next,
        catch_up_to: head,
        ended: false,
        secret,
        _place: place,
    };
    let frames = stream::unfold(reader, |mut reader| async move {
        let frame = reader.next_frame().await?;
        Some((Ok::<_, Infallible>(frame), reader))
    });
    let mut response = Body::from_stream(frames).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Reader {
    async fn next_frame(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if self.next < self.catch_up_to {
            return Some(self.catch_up().await);
        }
        // One deadline for the whole wait: entries that this reader does not get must not silence the heartbeat.
        let silent_until = tokio::time::Instant::now() + HEARTBEAT;
        loop {
            match tokio::time::timeout_at(silent_until, self.live.recv()).await {
                // A revoked token ends what it opened.
                Err(_) if self.gateway.authenticate(&self.secret).is_none() => return Some(self.end("token_revoked")),
                Err(_) => return Some(Bytes::from_static(b": still here\n\n")),
                Ok(Ok(entry)) if entry.position < self.next => {}
                Ok(Ok(entry)) => {
                    self.next = entry.position + 1;
                    if self.wants(&entry) {
                        return Some(frame(&entry));
                    }
                }
                // Too slow: told so, and let go. Coming back with the last id misses nothing.
                Ok(Err(RecvError::Lagged(_))) => return Some(self.end("too_slow")),
                Ok(Err(RecvError::Closed)) => return Some(self.end("server_stopping")),
            }
        }
    }

    /// The next entries of the store, in one piece.
    async fn catch_up(&mut self) -> Bytes {
        let Ok(entries) = self.gateway.entries(&self.who, self.next, BATCH).await else {
            return self.end("unavailable");
        };
        let full = u32::try_from(entries.len()).is_ok_and(|count| count == BATCH);
        let last = entries.last().map(|entry| entry.position + 1);
        self.next = last.filter(|_| full).unwrap_or(self.catch_up_to.max(last.unwrap_or(0)));
        let mut frames = Vec::from(&b": caught up\n\n"[..]);
        for entry in entries.iter().filter(|entry| self.wants(entry)) {
            frames.extend_from_slice(&frame(entry));
        }
        frames.into()
    }

    fn wants(&self, entry: &LogEntry) -> bool {
        Gateway::may_see(&self.who, entry) && self.types.as_ref().is_none_or(|types| types.contains(&entry.kind))
    }

    fn end(&mut self, why: &str) -> Bytes {
        self.ended = true;
        let last = self.next.saturating_sub(1);
        format!("event: dropped\ndata: {{\"reason\":\"{why}\",\"last_event_id\":{last}}}\n\n").into()
    }
}

/// One entry as an event. A leaf is canonical JSON and so has no line break.
fn frame(entry: &LogEntry) -> Bytes {
    let mut frame = format!("id: {}\nevent: {}\ndata: ", entry.position, entry.kind).into_bytes();
    frame.extend_from_slice(&entry.leaf);
    frame.extend_from_slice(b"\n\n");
    frame.into()
}
