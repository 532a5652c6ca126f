//! Before any route: is this request meant for us, from whom is it, and is there room for it?

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::HttpBody as _;
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use provara_domain::{Principal, Role};
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use crate::problem::{self, Problem};
use crate::rate::Left;
use crate::routes::App;
use crate::seats::Seat;
use crate::trace;

/// The largest request body, in bytes: a command of 10,000 characters, its environment and 1 MiB of input.
const MAX_BODY: usize = 4 << 20;
/// How long a client may take to send its request's body.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// SHA-256 of the token that was shown.
#[derive(Clone, Copy)]
pub(crate) struct Shown(pub(crate) [u8; 32]);

/// Whoever showed a valid token.
pub(crate) struct Caller(pub(crate) Principal);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        parts.extensions.get::<Principal>().cloned().map(Self).ok_or_else(|| {
            let text = "a valid token is needed, in the header X-Agent-Token or as Authorization: Bearer";
            Problem::caller(StatusCode::UNAUTHORIZED, "unauthorized", text)
        })
    }
}

/// Whoever may read what is not their own.
pub(crate) struct Reader;

impl FromRequestParts<App> for Reader {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Caller(who) = Caller::from_request_parts(parts, app).await?;
        if who.roles.reads_all() {
            return Ok(Self);
        }
        Err(Problem::forbidden("only an approver, auditor or admin may see this"))
    }
}

/// The one road into the server: request id, Host, Origin, token, rate limit, then the route, then the headers.
pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = format!("{:032x}", app.gateway.entropy());
    let span = trace::span(&request, route.as_ref(), &id);
    let response = answer(&app, request, next, &id).instrument(span.clone()).await;
    app.metrics.answered(route.as_ref(), response.status(), begun.elapsed());
    span.record("status", response.status().as_u16());
    span.in_scope(|| tracing::debug!(seconds = begun.elapsed().as_secs_f64(), "answered"));
    response
}

async fn answer(app: &App, mut request: Request, next: Next, id: &str) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let admitted = admit(app, &mut request);
    // Only now: a token has to be known before anybody may hold a place by a slow body or by waiting.
    let known = admitted.is_ok() && request.extensions().get::<Principal>().is_some();
    let served = request.extensions().get::<Arc<Seat>>().filter(|_| known).map(Seat::serve);
    let (response, left) = match admitted {
        Ok(left) if preflight(&request) => (StatusCode::NO_CONTENT.into_response(), left),
        Ok(left) => match with_whole_body(request).await {
            Ok(request) => (next.run(request).await, left),
            Err(problem) => (problem.into_response(), left),
        },
        Err(refusal) => {
            let (problem, left) = *refusal;
            (problem.into_response(), left)
        }
    };
    let mut response = identify(response, id);
    if let Some(served) = served {
        response = response.map(|body| served.until_sent(body));
    }
    let headers = response.headers_mut();
    if let Some(left) = left {
        rate_headers(headers, left);
    }
    cors_headers(app, headers, origin);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// The request with its body at hand: bounded in size and in time, whatever the route then makes of it.
async fn with_whole_body(request: Request) -> Result<Request, Problem> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let too_large =
        || Problem::caller(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the request's body is too large");
    let stated = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if stated.is_some_and(|length| length > MAX_BODY) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_PATIENCE, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(whole)) => Ok(Request::from_parts(parts, whole.to_bytes().into())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::caller(StatusCode::BAD_REQUEST, "body_broken", "the request's body cannot be read")),
        Err(_) => {
            let text = format!("the request's body took longer than {} s", BODY_PATIENCE.as_secs());
            Err(Problem::caller(StatusCode::REQUEST_TIMEOUT, "body_too_slow", text))
        }
    }
}

type Refusal = Box<(Problem, Option<Left>)>;

fn admit(app: &App, request: &mut Request) -> Result<Option<Left>, Refusal> {
    let headers = request.headers();
    // A page that resolves its own name to this address would be refused here: the name is not ours.
    if !names_us(app, request) {
        let text = "the request names no host of this server, or several; see AGENT_HUB_ALLOWED_HOSTS";
        return Err(Box::new((Problem::caller(StatusCode::FORBIDDEN, "host_not_allowed", text), None)));
    }
    if !headers.get_all(header::ORIGIN).iter().all(|origin| allowed_origin(app, origin)) {
        let text = "the Origin header names a page that this server does not serve";
        return Err(Box::new((Problem::caller(StatusCode::FORBIDDEN, "origin_not_allowed", text), None)));
    }
    // RFC 3986, section 2: such bytes are percent-encoded. A proxy before us may decode them to another address than we do.
    if !request.uri().path_and_query().is_none_or(|target| target.as_str().is_ascii()) {
        let text = "the request's address holds bytes beyond ASCII; percent-encode them";
        return Err(Box::new((Problem::caller(StatusCode::BAD_REQUEST, "address_not_ascii", text), None)));
    }
    let client = client_address(app, request);
    let now = app.gateway.now();
    let shown = token_of(request.headers());
    let secret: Option<[u8; 32]> = shown.as_deref().map(|token| Sha256::digest(token).into());
    let who = secret.and_then(|secret| app.gateway.authenticate(&secret));
    if shown.is_some() && who.is_none() {
        // Guessing has a bucket of its own, so that a guesser cannot use up what honest clients of the address have.
        let left = app.failures.take(&client, now);
        app.metrics.rejected_tokens.add_one();
        if !left.allowed {
            app.metrics.limited.failures.add_one();
        }
        return Err(Box::new((if left.allowed { wrong_token() } else { too_many(left) }, Some(left))));
    }
    if let Some(who) = &who {
        tracing::Span::current().record("principal", who.name.as_str());
    }
    let person = who.as_ref().filter(|who| !who.is_only_agent());
    let left = match person {
        Some(_) if never_limited(request) => None,
        Some(person) => Some(app.people.take(&person.token, now)),
        None if who.is_some() && request.uri().path() == "/policy/check" => Some(app.checks.take(&client, now)),
        None => Some(app.agents.take(&client, now)),
    };
    if let Some(left) = left.filter(|left| !left.allowed) {
        let limited = &app.metrics.limited;
        if person.is_some() { &limited.people } else { &limited.agents }.add_one();
        return Err(Box::new((too_many(left), Some(left))));
    }
    if let (Some(who), Some(secret)) = (who, secret) {
        request.extensions_mut().insert(who);
        request.extensions_mut().insert(Shown(secret));
    }
    Ok(left)
}

fn wrong_token() -> Problem {
    Problem::caller(StatusCode::UNAUTHORIZED, "unauthorized", "this token is not known or was revoked")
}

fn too_many(left: Left) -> Problem {
    let text = format!("too many requests; try again in {} s", left.resets_in);
    Problem::caller(StatusCode::TOO_MANY_REQUESTS, "rate_limited", text).retry_after(left.resets_in)
}

/// Stopping something must always work for a person.
fn never_limited(request: &Request) -> bool {
    let path = request.uri().path();
    request.method() == Method::POST && (path.starts_with("/deny/") || path.ends_with("/cancel"))
}

fn preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ORIGIN)
}

/// `X-Agent-Token`, or else a bearer token. Two different ones at once are no token: it is not ours to choose.
fn token_of(headers: &HeaderMap) -> Option<String> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned).unwrap_or_default();
    let mut all: Vec<String> = headers.get_all("x-agent-token").iter().map(text).collect();
    all.extend(headers.get_all(header::AUTHORIZATION).iter().map(|value| {
        let value = text(value);
        match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim().to_owned(),
            _ => value,
        }
    }));
    all.dedup();
    match all.as_slice() {
        [] => None,
        [one] => Some(one.clone()).filter(|token| !token.is_empty()),
        // Something was shown, and it is not valid.
        _ => Some("\u{0}".to_owned()),
    }
}

/// Whether everything that names a host names one of ours: the Host header, of which there is one, and the request's
/// target where that is a whole address. A proxy before us may believe another of them than we do.
fn names_us(app: &App, request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let ours = |host: &str| app.config.allowed_hosts.iter().any(|known| known.eq_ignore_ascii_case(host_name(host)));
    let target = request.uri().authority().is_none_or(|target| ours(target.as_str()));
    target && host.to_str().is_ok_and(ours)
}

/// The name before the port. What is neither, as in `localhost:x@evil.example`, names nobody.
fn host_name(host: &str) -> &str {
    let (name, rest) = match host.strip_prefix('[') {
        Some(inner) => inner.split_once(']').unwrap_or_default(),
        None => host.split_at_checked(host.find(':').unwrap_or(host.len())).unwrap_or_default(),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { "" }
}

fn allowed_origin(app: &App, origin: &HeaderValue) -> bool {
    origin.to_str().is_ok_and(|origin| app.config.origins.iter().any(|allowed| allowed == origin))
}

/// The address that the rate limit counts by. A proxy's word about it counts only where the operator said so.
fn client_address(app: &App, request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let peer = peer.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    if !app.config.trusted_proxies.contains(&peer) {
        return peer;
    }
    let forwarded = request.headers().get_all("x-forwarded-for").iter().next_back();
    let last = forwarded.and_then(|value| value.to_str().ok()).and_then(|list| list.rsplit(',').next());
    last.and_then(|address| address.trim().parse().ok()).unwrap_or(peer)
}

fn rate_headers(headers: &mut HeaderMap, left: Left) {
    let policy = format!("\"default\";q={};w={}", left.limit, left.window);
    let state = format!("\"default\";r={};t={}", left.remaining, left.resets_in);
    for (name, value) in [("ratelimit-policy", policy), ("ratelimit", state)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn cors_headers(app: &App, headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    let Some(origin) = origin.filter(|origin| allowed_origin(app, origin)) else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, idempotency-key, last-event-id, prefer, x-agent-token",
        ),
        (
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            "ratelimit, ratelimit-policy, retry-after, x-next-cursor, x-provara-gap, x-provara-next-offset, \
             x-provara-offset, x-provara-total, x-request-id",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Puts the request id into the headers and, for a problem, into the body.
fn identify(response: Response, id: &str) -> Response {
    let mut response = problem::tell(response, id);
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), value);
    }
    response
}

/// Refuses whoever has not `role`.
pub(crate) fn needs(who: &Principal, role: Role) -> Result<(), Problem> {
    if who.roles.has(role) {
        return Ok(());
    }
    Err(Problem::forbidden(&format!("this needs the role `{}`", role.as_str())))
}
