//! Every route on one page.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use provara_domain::{Timestamp, TokenId};
use provara_gateway::Gateway;
use serde_json::json;

use crate::access::{Caller, Reader, guard};
use crate::problem::Problem;
use crate::rate::{Bucket, Streams, Windows};
use crate::{erase, events, evidence, people, plans, runs};

/// How many event streams and followed outputs one token holds open: half of all connections.
const MAX_STREAMS: usize = 2048;

/// What the operator decided about the edge.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Names that a Host header may carry, without port.
    pub allowed_hosts: Vec<String>,
    /// Origins of pages that may call, `http://localhost:3000`.
    pub origins: Vec<String>,
    /// What an address without a token, or with an agent's, may ask for.
    pub agents: Bucket,
    /// What a person's token may ask for.
    pub people: Bucket,
    /// How many wrong tokens an address may show.
    pub failures: Bucket,
    /// Proxies whose word about a client's address counts.
    pub trusted_proxies: Vec<IpAddr>,
    /// Where people find this server, without a slash at the end.
    pub public_url: String,
    /// The version that `/status` tells.
    pub version: &'static str,
}

/// What every route gets.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) gateway: Gateway,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) agents: Arc<Windows<IpAddr>>,
    pub(crate) people: Arc<Windows<TokenId>>,
    pub(crate) failures: Arc<Windows<IpAddr>>,
    pub(crate) streams: Arc<Streams<TokenId>>,
    started_at: Timestamp,
}

/// Returns the whole service.
pub fn router(gateway: Gateway, config: ServerConfig) -> Router {
    let app = App {
        agents: Arc::new(Windows::new(config.agents)),
        people: Arc::new(Windows::new(config.people)),
        failures: Arc::new(Windows::new(config.failures)),
        streams: Arc::new(Streams::new(MAX_STREAMS)),
        started_at: gateway.now(),
        gateway,
        config: Arc::new(config),
    };
    Router::new()
        .route("/status", get(status))
        .route("/health", get(health))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/plan", post(plans::plan))
        .route("/pending", get(plans::pending))
        .route("/approve/{id}", post(plans::approve))
        .route("/deny/{id}", post(plans::deny))
        .route("/edit/{id}", post(plans::edit))
        .route("/reopen/{id}", post(plans::reopen))
        .route("/commands", get(plans::commands))
        .route("/commands/{id}", get(plans::command))
        .route("/commands/{id}/cancel", post(plans::cancel))
        .route("/commands/{id}/extend", post(plans::extend))
        .route("/runs", get(runs::runs))
        .route("/runs/{id}", get(runs::run))
        .route("/runs/{id}/output", get(runs::output))
        .route("/events", get(events::events))
        .route("/policy", get(policy))
        .route("/policy/check", post(plans::check))
        .route("/audit", get(evidence::entries))
        .route("/audit/checkpoint", get(evidence::checkpoint))
        .route("/audit/inclusion", get(evidence::inclusion))
        .route("/audit/consistency", get(evidence::consistency))
        .route("/erase", post(erase::erase))
        .route("/tokens", get(people::tokens).post(people::create_token))
        .route("/tokens/{id}", delete(people::revoke_token))
        .route("/workspaces", get(people::workspaces).post(people::add_workspace).delete(people::remove_workspace))
        .fallback(unknown)
        .layer(from_fn(framework_errors))
        // `guard` has bounded the body already.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

async fn status(State(app): State<App>) -> Response {
    let counts = app.gateway.counts();
    axum::Json(json!({
        "ok": true,
        "pending_count": counts.pending,
        "denied_count": counts.denied + counts.blocked,
        "token_required": true,
        "single_token": app.gateway.config().single_token,
        "version": app.config.version,
    }))
    .into_response()
}

async fn health(State(app): State<App>, Caller(who): Caller) -> Response {
    let counts = app.gateway.counts();
    let now = app.gateway.now();
    let mut answer = json!({
        "status": "healthy",
        "uptime_seconds": now.since(app.started_at).as_secs_f64(),
        "memory_mb": resident_mib(),
        "pending_count": counts.pending,
        "runs_count": counts.runs,
        "timestamp": now.rfc3339(),
    });
    if let (Some(fields), false) = (answer.as_object_mut(), who.is_only_agent()) {
        fields.insert("confinement".into(), json!(app.gateway.host_report()));
    }
    axum::Json(answer).into_response()
}

/// Memory that the server holds, in MiB; 0 where the system does not say.
fn resident_mib() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|line| line.split(' ').nth(1)?.parse::<u32>().ok()).unwrap_or(0);
    f64::from(pages) * 4096.0 / f64::from(1u32 << 20)
}

async fn ready(State(app): State<App>) -> Result<&'static str, Problem> {
    if app.gateway.is_stopping() {
        let text = "the server is stopping";
        return Err(Problem::caller(StatusCode::SERVICE_UNAVAILABLE, "stopping", text));
    }
    Ok("ready")
}

async fn policy(State(app): State<App>, _: Reader) -> Response {
    let rules: Vec<_> = app.gateway.policy_rules().collect();
    axum::Json(json!({ "policy": app.gateway.policy_version(), "rules": rules })).into_response()
}

/// A path with a slash at its end is sent to the one without, as clients of the original expect.
async fn unknown(uri: Uri) -> Response {
    let path = uri.path();
    // A path of slashes only must not become another host's address.
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() < path.len() && trimmed.starts_with('/') && !trimmed.starts_with("//") {
        let to = uri.query().map_or_else(|| trimmed.to_owned(), |query| format!("{trimmed}?{query}"));
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response();
    }
    Problem::not_found().into_response()
}

/// Gives the framework's own refusals the documented shape.
async fn framework_errors(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let plain = response.extensions().get::<crate::problem::IsProblem>().is_none();
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            let allow = response.headers().get(header::ALLOW).cloned();
            let mut problem = Problem::caller(status, "method_not_allowed", "Method Not Allowed").into_response();
            if let Some(allow) = allow {
                problem.headers_mut().insert(header::ALLOW, allow);
            }
            problem
        }
        StatusCode::BAD_REQUEST if plain => {
            let fault = json!({ "type": "value_error", "loc": ["query"], "msg": "Value error, the query cannot be read", "input": null });
            Problem::fields(vec![fault]).into_response()
        }
        _ => response,
    }
}

/// The address of a connection's other end, for the rate limit.
pub(crate) type Peer = SocketAddr;
