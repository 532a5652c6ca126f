//! Every route on one page.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use provara_domain::{ProfileName, Timestamp, TokenId};
use provara_gateway::{Gateway, Pages};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::{Caller, Reader, guard};
use crate::problem::{Problem, ProblemBody};
use crate::rate::{Bucket, Streams, Windows};
use crate::{erase, events, evidence, metrics, openapi, people, plans, profiles, runs, wire};

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

/// What every route gets: one thing to share, for every layer takes one for every request.
pub(crate) type App = Arc<Shared>;

pub(crate) struct Shared {
    pub(crate) gateway: Gateway,
    pub(crate) config: ServerConfig,
    pub(crate) agents: Windows<IpAddr>,
    /// What agents ask policy has windows of its own: asking first must not use up the room to plan.
    pub(crate) checks: Windows<IpAddr>,
    pub(crate) people: Windows<TokenId>,
    pub(crate) failures: Windows<IpAddr>,
    pub(crate) streams: Streams<TokenId>,
    pub(crate) pending: Pages,
    pub(crate) metrics: metrics::Edge,
    pub(crate) documents: openapi::Documents,
    pub(crate) started_at: Timestamp,
}

/// Returns the whole service.
pub fn router(gateway: Gateway, config: ServerConfig) -> Router {
    let app = Arc::new(Shared {
        agents: Windows::new(config.agents),
        checks: Windows::new(config.agents),
        people: Windows::new(config.people),
        failures: Windows::new(config.failures),
        streams: Streams::new(MAX_STREAMS),
        metrics: metrics::Edge::new(),
        documents: openapi::Documents::new(config.version),
        pending: gateway.pages(plans::pending_rendering(&gateway)),
        started_at: gateway.now(),
        gateway,
        config,
    });
    let (routes, _) = routes().split_for_parts();
    routes
        .fallback(unknown)
        .layer(from_fn(framework_errors))
        // `guard` has bounded the body already.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// Every route, with what `/openapi.json` tells of it.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(health))
        .routes(routes!(alive))
        .routes(routes!(ready))
        .routes(routes!(plans::plan))
        .routes(routes!(plans::pending))
        .routes(routes!(plans::approve))
        .routes(routes!(plans::deny))
        .routes(routes!(plans::edit))
        .routes(routes!(plans::reopen))
        .routes(routes!(plans::commands))
        .routes(routes!(plans::command))
        .routes(routes!(plans::preview))
        .routes(routes!(plans::cancel))
        .routes(routes!(plans::extend))
        .routes(routes!(runs::runs))
        .routes(routes!(runs::run))
        .routes(routes!(runs::output))
        .routes(routes!(events::events))
        .routes(routes!(metrics::metrics))
        .routes(routes!(policy))
        .routes(routes!(profiles::profiles))
        .routes(routes!(plans::check))
        .routes(routes!(evidence::entries))
        .routes(routes!(evidence::checkpoint))
        .routes(routes!(evidence::inclusion))
        .routes(routes!(evidence::consistency))
        .routes(routes!(erase::erase))
        .routes(routes!(people::tokens, people::create_token))
        .routes(routes!(people::revoke_token))
        .routes(routes!(people::workspaces, people::add_workspace, people::remove_workspace))
        .routes(routes!(openapi::json))
        .routes(routes!(openapi::docs))
        .routes(routes!(openapi::style))
}

/// Tells how much waits, and which version this is.
#[utoipa::path(get, path = "/status", operation_id = "status", tag = "server", security(()),
    responses((status = 200, description = "For anyone", body = wire::ServerStatus)))]
async fn status(State(app): State<App>) -> Response {
    let counts = app.gateway.counts();
    axum::Json(wire::ServerStatus {
        ok: true,
        pending_count: counts.pending,
        denied_count: counts.denied + counts.blocked,
        token_required: true,
        single_token: app.gateway.config().single_token,
        version: app.config.version,
    })
    .into_response()
}

/// Tells how the server is.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "server",
    responses((status = 200, description = "For people also what the host can enforce", body = wire::Health)))]
async fn health(State(app): State<App>, Caller(who): Caller) -> Response {
    let counts = app.gateway.counts();
    let now = app.gateway.now();
    let confinement = match app.gateway.host_report().filter(|_| !who.is_only_agent()) {
        Some(report) => Some(wire::Confinement::new(report, app.gateway.tried_profiles().await)),
        None => None,
    };
    axum::Json(wire::Health {
        status: "healthy",
        uptime_seconds: now.since(app.started_at).as_secs_f64(),
        memory_mb: resident_mib(),
        pending_count: counts.pending,
        runs_count: counts.runs,
        timestamp: now.rfc3339(),
        confinement,
    })
    .into_response()
}

/// Memory that the server holds, in MiB; 0 where the system does not say.
fn resident_mib() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|line| line.split(' ').nth(1)?.parse::<u32>().ok()).unwrap_or(0);
    f64::from(pages) * 4096.0 / f64::from(1u32 << 20)
}

/// Says that the process lives.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "server", security(()),
    responses((status = 200, description = "`ok`", content_type = "text/plain", body = String)))]
async fn alive() -> &'static str {
    "ok"
}

/// Says whether requests are welcome.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "server", security(()),
    responses((status = 200, description = "`ready`", content_type = "text/plain", body = String),
        (status = 503, description = "The server is stopping", body = ProblemBody)))]
async fn ready(State(app): State<App>) -> Result<&'static str, Problem> {
    if app.gateway.is_stopping() {
        let text = "the server is stopping";
        return Err(Problem::caller(StatusCode::SERVICE_UNAVAILABLE, "stopping", text));
    }
    Ok("ready")
}

/// Shows the rules in force.
#[utoipa::path(get, path = "/policy", operation_id = "policy", tag = "policy",
    responses((status = 200, description = "For people", body = wire::PolicyInForce)))]
async fn policy(State(app): State<App>, _: Reader) -> Response {
    let rules = app.gateway.policy_rules().map(|rule| wire::Rule {
        id: &rule.id,
        category: &rule.category,
        severity: rule.severity,
        verdict: rule.verdict,
        shells: &rule.shells,
        reason: &rule.reason,
        force_profile: rule.force_profile.as_ref().map(ProfileName::as_str),
        forbid_profiles: rule.forbid_profiles.iter().map(ProfileName::as_str).collect(),
        demand_binding: rule.demands_binding(),
        examples: wire::Examples { matching: &rule.examples.matching, not_matching: &rule.examples.not_matching },
    });
    let rules = rules.collect();
    axum::Json(wire::PolicyInForce { policy: app.gateway.policy_version().into(), rules }).into_response()
}

/// A path with a slash at its end is sent to the one without, as clients of the original expect.
async fn unknown(uri: Uri) -> Response {
    let path = uri.path();
    let trimmed = path.trim_end_matches('/');
    // What begins with two slashes is another host's address, and browsers take a backslash in an answer for a slash.
    let ours = trimmed.strip_prefix('/').is_some_and(|rest| !rest.starts_with(['/', '\\']));
    if trimmed.len() < path.len() && ours {
        let to = uri.query().map_or_else(|| trimmed.to_owned(), |query| format!("{trimmed}?{query}"));
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response();
    }
    Problem::not_found().into_response()
}

/// Gives the framework's own refusals the documented shape.
async fn framework_errors(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let plain = response.extensions().get::<Arc<crate::problem::Unsent>>().is_none();
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            let allow = response.headers().get(header::ALLOW).cloned();
            let mut problem = Problem::caller(status, "method_not_allowed", "Method Not Allowed").into_response();
            if let Some(allow) = allow {
                problem.headers_mut().insert(header::ALLOW, allow);
            }
            problem
        }
        // A path that is no UTF-8 names nothing.
        StatusCode::BAD_REQUEST if plain => Problem::not_found().into_response(),
        _ => response,
    }
}

/// The address of a connection's other end, for the rate limit.
pub(crate) type Peer = SocketAddr;
