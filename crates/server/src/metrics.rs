//! `GET /metrics`: what the server counted, as Prometheus reads it. Every name here is explained in `docs/metrics.md`.
//!
//! A label's value is a word of ours: a state, a verdict, a route's template. Nothing that a client, an agent or a command
//! chose becomes one, so nobody can fill a monitoring system or write into it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::{MatchedPath, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use provara_domain::{Status, Timestamp};
use provara_gateway::{Gateway, Vitals};
use provara_metrics::{Counter, Histogram, Kind, Page};

use crate::access::Caller;
use crate::problem::Problem;
use crate::process;
use crate::routes::App;

/// From an answer out of memory to the longest that a client waits for a run.
const OF_REQUESTS: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000, 60_000_000, 600_000_000];
/// Status classes, from the first digit on.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// The route of what no route matched: the path itself is the client's, and is not told.
pub(crate) const UNMATCHED: &str = "unmatched";

/// What the edge counts.
pub(crate) struct Edge {
    /// By route's template. It grows by the router's own routes and by nothing else.
    routes: RwLock<HashMap<Arc<str>, Arc<Route>>>,
    unmatched: Route,
    pub(crate) limited: Limited,
    pub(crate) rejected_tokens: Counter,
}

/// Requests that a rate limit refused, by the bucket that was empty.
#[derive(Default)]
pub(crate) struct Limited {
    pub(crate) agents: Counter,
    pub(crate) people: Counter,
    pub(crate) failures: Counter,
}

struct Route {
    classes: [Counter; CLASSES.len()],
    took: Histogram,
}

impl Route {
    fn new() -> Self {
        Self { classes: Default::default(), took: Histogram::of_time(&OF_REQUESTS) }
    }

    fn count(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.classes.get(class) {
            counter.add_one();
        }
        self.took.took(took);
    }
}

impl Edge {
    pub(crate) fn new() -> Self {
        Self {
            routes: RwLock::default(),
            unmatched: Route::new(),
            limited: Limited::default(),
            rejected_tokens: Counter::default(),
        }
    }

    /// Counts a request that was answered after `took`. Only a template's first request writes to the map.
    pub(crate) fn answered(&self, route: Option<&MatchedPath>, status: StatusCode, took: Duration) {
        let Some(route) = route.map(MatchedPath::as_str) else { return self.unmatched.count(status, took) };
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(route).cloned();
        known.unwrap_or_else(|| self.begin(route)).count(status, took);
    }

    fn begin(&self, route: &str) -> Arc<Route> {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(Arc::from(route)).or_insert_with(|| Arc::new(Route::new())))
    }

    /// Every route that was asked for, in the order of their names, and last what no route matched.
    fn all(&self, mut each: impl FnMut(&str, &Route)) {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_by(|(one, _), (other, _)| one.cmp(other));
        routes.iter().for_each(|(name, route)| each(name, route));
        each(UNMATCHED, &self.unmatched);
    }
}

/// Tells what can be watched, in Prometheus's text format 0.0.4.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "server",
    responses((status = 200, description = "For people and machines, not for agents",
        content_type = "text/plain; version=0.0.4; charset=utf-8", body = String)))]
pub(crate) async fn metrics(State(app): State<App>, Caller(who): Caller) -> Result<Response, Problem> {
    if who.is_only_agent() {
        return Err(Problem::forbidden("an agent may not see the server's metrics"));
    }
    let mut page = Page::default();
    plans(&mut page, &app.gateway);
    runs(&mut page, &app.gateway);
    store(&mut page, &app.gateway);
    log(&mut page, &app.gateway.vitals());
    edge(&mut page, &app);
    process::write(&mut page);
    build(&mut page, &app);
    Ok(([(header::CONTENT_TYPE, Page::CONTENT_TYPE)], page.finish()).into_response())
}

fn plans(page: &mut Page, gateway: &Gateway) {
    let (counts, measures) = (gateway.counts(), gateway.measures());
    let mut plans = page.family("provara_plans", Kind::Gauge, "Plans in each state.");
    for status in Status::ALL {
        plans.sample(&[("state", status.as_str())], counts.of(status));
    }
    let help = "Judgements recorded on plans since the start, by verdict.";
    let mut judgements = page.family("provara_judgements_total", Kind::Counter, help);
    measures.judgements().for_each(|(verdict, count)| judgements.sample(&[("verdict", verdict)], count));
    let help = "Answers that people gave to waiting plans since the start, by kind.";
    let mut decisions = page.family("provara_decisions_total", Kind::Counter, help);
    measures.answers().for_each(|(kind, count)| decisions.sample(&[("decision", kind)], count));
    let help = "Time from the queue to a person's answer.";
    page.family("provara_decision_wait_seconds", Kind::Histogram, help).histogram(&[], &measures.answered_after);
}

fn runs(page: &mut Page, gateway: &Gateway) {
    let (measures, vitals) = (gateway.measures(), gateway.vitals());
    let help = "Time from the approval to the run.";
    page.family("provara_start_wait_seconds", Kind::Histogram, help).histogram(&[], &measures.started_after);
    let help = "Commands that this server's worker runs now.";
    page.family("provara_worker_running", Kind::Gauge, help).sample(&[], vitals.running);
    let help = "Commands that this server's worker may run at once.";
    page.family("provara_worker_slots", Kind::Gauge, help).sample(&[], vitals.max_runs);
    let help = "Runs that ended since the start, by outcome.";
    let mut outcomes = page.family("provara_runs_total", Kind::Counter, help);
    measures.outcomes().for_each(|(outcome, count)| outcomes.sample(&[("outcome", outcome)], count));
    let help = "Time that a started command ran.";
    page.family("provara_run_duration_seconds", Kind::Histogram, help).histogram(&[], &measures.ran_for);
}

fn store(page: &mut Page, gateway: &Gateway) {
    let measures = gateway.measures();
    let help = "Time that a commit took, the disk's part included.";
    page.family("provara_store_commit_seconds", Kind::Histogram, help).histogram(&[], &measures.committed_within);
    let help = "Changes that shared one commit.";
    page.family("provara_store_commit_changes", Kind::Histogram, help).histogram(&[], &measures.changes_a_commit);
    let help = "Commits since the start that were taken back because the store failed.";
    let failed = measures.failed_commits.get();
    page.family("provara_store_failed_commits_total", Kind::Counter, help).sample(&[], failed);
}

fn log(page: &mut Page, vitals: &Vitals) {
    let Vitals { now, log_entries, signed, mirrored, .. } = *vitals;
    page.family("provara_log_entries", Kind::Gauge, "Entries of the log.").sample(&[], log_entries);
    let help = "Time since the newest checkpoint was signed.";
    let mut age = page.family("provara_checkpoint_age_seconds", Kind::Gauge, help);
    signed.iter().for_each(|(_, at)| age.sample(&[], seconds_since(now, *at)));
    let help = "Entries of the log that no checkpoint covers yet.";
    let mut unsigned = page.family("provara_checkpoint_lag_entries", Kind::Gauge, help);
    signed.iter().for_each(|(covered, _)| unsigned.sample(&[], log_entries.saturating_sub(*covered)));
    let help = "Entries of the log that its mirror does not hold yet.";
    let mut behind = page.family("provara_mirror_lag_entries", Kind::Gauge, help);
    mirrored.iter().for_each(|held| behind.sample(&[], log_entries.saturating_sub(*held)));
}

fn edge(page: &mut Page, app: &App) {
    let edge = &app.metrics;
    let help = "Requests answered since the start, by route and status class.";
    let mut requests = page.family("provara_http_requests_total", Kind::Counter, help);
    edge.all(|route, counted| {
        for (class, count) in CLASSES.iter().zip(&counted.classes) {
            requests.sample(&[("route", route), ("status", class)], count.get());
        }
    });
    let help = "Time until a request's answer began, waiting that the client asked for included.";
    let mut took = page.family("provara_http_request_seconds", Kind::Histogram, help);
    edge.all(|route, counted| took.histogram(&[("route", route)], &counted.took));
    let help = "Event streams and followed outputs that are open now.";
    page.family("provara_http_open_streams", Kind::Gauge, help).sample(&[], app.streams.open());
    let help = "Requests that a rate limit refused since the start, by the bucket that was empty.";
    let mut limited = page.family("provara_http_rate_limited_total", Kind::Counter, help);
    let Limited { agents, people, failures } = &edge.limited;
    for (bucket, counter) in [("agents", agents), ("people", people), ("failures", failures)] {
        limited.sample(&[("bucket", bucket)], counter.get());
    }
    let help = "Requests since the start whose token is not known or was revoked.";
    let rejected = edge.rejected_tokens.get();
    page.family("provara_http_rejected_tokens_total", Kind::Counter, help).sample(&[], rejected);
}

fn build(page: &mut Page, app: &App) {
    let help = "Time since the server started.";
    let up = seconds_since(app.gateway.now(), app.started_at);
    page.family("provara_uptime_seconds", Kind::Gauge, help).sample(&[], up);
    let help = "Always 1; the version is its label.";
    page.family("provara_build_info", Kind::Gauge, help).sample(&[("version", app.config.version)], 1);
}

fn seconds_since(now: Timestamp, earlier: Timestamp) -> f64 {
    now.since(earlier).as_secs_f64()
}
