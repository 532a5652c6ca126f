//! What the server tells those who watch it, and what it never tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use provara_domain::{Name, Role, Roles};
use provara_gateway::{Approval, NewPrincipal};
use provara_server::{Bucket, ServerConfig, router};
use provara_testkit::{agent, approver, proposal};
use sha2::{Digest as _, Sha256};

use crate::{Edge, config, json, request};

impl Edge {
    async fn get(&self, path: &str, token: &str) -> axum::http::Response<Body> {
        self.ask(request("GET", path, token).body(Body::empty()).unwrap()).await
    }

    async fn metrics(&self) -> String {
        let answer = self.get("/metrics", "operator").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 24).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

/// The value of one series, named as it is written.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    assert!(line.is_some(), "no {series} in\n{page}");
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn people_and_machines_may_see_it_and_an_agent_may_not() {
    let edge = Edge::new().await;
    for (name, role) in [("auditor", Role::Auditor), ("elsewhere", Role::Runner)] {
        let new = NewPrincipal {
            name: Name::parse(name).unwrap(),
            roles: Roles::of(&[role]),
            secret_sha256: Sha256::digest(name).into(),
        };
        edge.world.gateway.create_token(&approver(), new).await.unwrap();
    }
    let anybody = axum::http::Request::get("/metrics").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(edge.ask(anybody).await.status(), 401);
    let refused = edge.get("/metrics", "agent").await;
    assert_eq!(refused.status(), 403);
    assert_eq!(json(refused).await["detail"], "an agent may not see the server's metrics");
    for token in ["operator", "auditor", "elsewhere"] {
        assert_eq!(edge.get("/metrics", token).await.status(), 200, "{token}");
    }
}

/// A reader of the text format that forgives nothing: what it accepts, Prometheus does.
fn strictly_read(page: &str) -> BTreeMap<String, &str> {
    let (mut kinds, mut series) = (BTreeMap::new(), BTreeSet::new());
    let mut family = "";
    let mut lines = page.lines();
    let name_of = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(name_of(name) && help.ends_with('.'), "{line}");
            let (typed, kind) = lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
            assert_eq!(typed, name);
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert_eq!(kinds.insert(name.to_owned(), kind), None, "{name} comes twice");
            family = name;
            continue;
        }
        let (sample, number) = line.rsplit_once(' ').unwrap();
        assert!(number.parse::<f64>().is_ok_and(|number| number >= 0.0), "{line}");
        assert!(series.insert(sample), "{sample} comes twice");
        let name = sample.split('{').next().unwrap();
        let suffixes: &[&str] =
            if kinds.get(family) == Some(&"histogram") { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line} is not of {family}");
    }
    kinds
}

#[tokio::test]
async fn the_page_is_well_formed_and_its_histograms_add_up() {
    let edge = Edge::new().await;
    edge.plan("ls").await;
    let page = edge.metrics().await;
    let kinds = strictly_read(&page);
    for (name, _) in kinds.iter().filter(|(_, kind)| **kind == "histogram") {
        let mut below = BTreeMap::new();
        for line in page.lines().filter(|line| line.starts_with(&format!("{name}_bucket"))) {
            let (labels, count) = line.rsplit_once(' ').unwrap();
            let (others, le) = labels.split_once("le=").unwrap();
            let count: u64 = count.parse().unwrap();
            let before = below.insert(others.to_owned(), (le.to_owned(), count));
            assert!(before.is_none_or(|(_, before)| before <= count), "{line} is less than the range before it");
        }
        for (others, (le, count)) in below {
            assert_eq!(le, "\"+Inf\"}", "{name}");
            let labels = others.strip_prefix(&format!("{name}_bucket")).unwrap().trim_end_matches(['{', ',']);
            let whole = if labels.is_empty() { String::new() } else { format!("{labels}}}") };
            assert!(page.contains(&format!("\n{name}_count{whole} {count}\n")), "{name}{whole}");
        }
    }
    assert!(page.contains("provara_http_request_seconds_count{route=\"/plan\"} 1\n"), "{page}");
}

#[tokio::test]
async fn the_lifecycle_is_counted_as_it_happened() {
    let edge = Edge::new().await;
    let gateway = &edge.world.gateway;
    let denied = edge.plan("make a").await["pending_id"].as_str().unwrap().to_owned();
    edge.plan("make b").await;
    edge.plan("rm -rf /").await;
    edge.world.platform.pass(42);
    gateway.deny(&approver(), &provara_domain::PlanId::parse(&denied).unwrap(), None).await.unwrap();
    let approved = match gateway.propose(&agent(), proposal("ls")).await.unwrap() {
        provara_gateway::Proposed::Queued(record) => record.plan.id,
        other => panic!("{other:?}"),
    };
    gateway.approve(&approver(), &approved, Approval::default()).await.unwrap();
    gateway.checkpoint().await.unwrap();
    edge.world.platform.pass(7);
    edge.plan("make c").await;
    let page = edge.metrics().await;
    for (series, expected) in [
        ("provara_plans{state=\"pending\"}", 2.0),
        ("provara_plans{state=\"approved\"}", 1.0),
        ("provara_plans{state=\"denied\"}", 1.0),
        ("provara_plans{state=\"blocked\"}", 1.0),
        ("provara_plans{state=\"running\"}", 0.0),
        ("provara_judgements_total{verdict=\"deny\"}", 1.0),
        ("provara_decisions_total{decision=\"approve\"}", 1.0),
        ("provara_decisions_total{decision=\"deny\"}", 1.0),
        ("provara_decisions_total{decision=\"edit\"}", 0.0),
        ("provara_decision_wait_seconds_sum", 42.0),
        ("provara_worker_running", 0.0),
        ("provara_worker_slots", 0.0),
        ("provara_checkpoint_age_seconds", 7.0),
        ("provara_checkpoint_lag_entries", 1.0),
        ("provara_uptime_seconds", 49.0),
        ("provara_build_info{version=\"test\"}", 1.0),
    ] {
        assert_eq!(value(&page, series), expected, "{series}");
    }
    let entries = u32::try_from(gateway.head()).unwrap();
    assert_eq!(value(&page, "provara_log_entries"), f64::from(entries));
    assert!(!page.contains("\nprovara_mirror_lag_entries "), "nobody keeps a mirror here");
    gateway.note_mirrored(u64::from(entries - 1));
    assert_eq!(value(&edge.metrics().await, "provara_mirror_lag_entries"), 1.0);
}

#[tokio::test]
async fn nothing_that_a_client_chose_becomes_a_label() {
    let edge = Edge::new().await;
    let marker = "zmarker";
    for path in ["/zmarker", "/commands/zmarker", "/runs/zmarker/output?stream=zmarker", "/zmarker%22%7D%0a/x"] {
        edge.get(path, "agent").await;
    }
    edge.plan("echo zmarker").await;
    let strange = axum::http::Method::from_bytes(b"ZMARKER").unwrap();
    edge.ask(request("GET", "/plan", marker).method(strange).body(Body::empty()).unwrap()).await;
    let page = edge.metrics().await;
    strictly_read(&page);
    assert!(!page.to_lowercase().contains(marker), "{page}");
    assert_eq!(value(&page, "provara_http_requests_total{route=\"/commands/{id}\",status=\"4xx\"}"), 1.0);
    assert_eq!(value(&page, "provara_http_requests_total{route=\"unmatched\",status=\"4xx\"}"), 2.0);
    let before = page.lines().count();
    for number in 0..200 {
        edge.get(&format!("/{number}"), "agent").await;
        edge.get(&format!("/commands/{number}"), "agent").await;
    }
    // `/metrics` has been asked for once by then, so it has become a route of its own.
    let own = page.lines().filter(|line| line.contains("route=\"/plan\"")).count();
    assert_eq!(edge.metrics().await.lines().count(), before + own, "the page grows with what clients ask");
}

#[tokio::test]
async fn refusals_and_open_streams_are_counted() {
    let mut edge = Edge::new().await;
    let bucket = Bucket { requests: 3, window: Duration::from_secs(60) };
    let failures = Bucket { requests: 2, window: Duration::from_secs(60) };
    edge.router = router(edge.world.gateway.clone(), ServerConfig { agents: bucket, failures, ..config() });
    for _ in 0..5 {
        edge.get("/pending", "agent").await;
        edge.get("/pending", "nobody's token").await;
    }
    let streams = [edge.get("/events", "operator").await, edge.get("/events", "operator").await];
    let page = edge.metrics().await;
    for (series, expected) in [
        ("provara_http_rate_limited_total{bucket=\"agents\"}", 2.0),
        ("provara_http_rate_limited_total{bucket=\"people\"}", 0.0),
        ("provara_http_rate_limited_total{bucket=\"failures\"}", 3.0),
        ("provara_http_rejected_tokens_total", 5.0),
        ("provara_http_open_streams", 2.0),
    ] {
        assert_eq!(value(&page, series), expected, "{series}");
    }
    drop(streams);
    assert_eq!(value(&edge.metrics().await, "provara_http_open_streams"), 0.0);
}

#[tokio::test]
async fn the_process_tells_what_it_uses() {
    let edge = Edge::new().await;
    let page = edge.metrics().await;
    let of = |series| value(&page, series);
    assert!(of("process_resident_memory_bytes") > f64::from(1 << 20), "{page}");
    assert!(of("process_virtual_memory_bytes") >= of("process_resident_memory_bytes"));
    assert!((3.0..=of("process_max_fds")).contains(&of("process_open_fds")));
    assert!(of("process_cpu_seconds_total") >= 0.0);
}
