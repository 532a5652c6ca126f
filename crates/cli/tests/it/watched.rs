//! What a running server tells those who watch it: its metrics, its log, and the documents about both.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::served::{Served, start, until};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

/// A server that logs all that it can.
fn talkative() -> Served {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.path().join(".env"), "AGENT_HUB_LOG_LEVEL=TRACE\n").unwrap();
    let (process, base) = start(root.path());
    Served { root, process, base }
}

#[test]
fn no_line_of_the_log_tells_what_was_proposed_printed_or_shown_as_a_token() {
    let server = talkative();
    let (agent, operator) = (server.agent(), server.operator());
    let traceparent = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
    let headers = [
        ("x-agent-token", agent.as_str()),
        ("traceparent", traceparent.as_str()),
        ("idempotency-key", "zmark-key"),
        ("user-agent", "zmark-client"),
    ];
    let plan = json!({
        "command": "echo zmark-command $ZMARK; cat; printf 'zm%s' ark-out; cat ./zmark-file",
        "note": "zmark-note",
        "env": { "ZMARK": "zmark-value" },
        "stdin": "zmark-stdin",
    });
    let (status, planned) = server.ask("POST", "/plan", &headers, &plan.to_string());
    assert_eq!(status, 200, "{planned}");
    let id = planned["pending_id"].as_str().unwrap();
    let terms = json!({ "reason": "zmark-reason" });
    let (status, run) = server.by(&operator, "POST", &format!("/approve/{id}"), &terms);
    assert_eq!(status, 200, "{run}");
    assert!(run["stdout"].as_str().unwrap().contains("zmark-value\nzmark-stdinzmark-out"), "{run}");
    let run = run["run_id"].as_str().unwrap();
    server.by(&agent, "GET", &format!("/runs/{run}/output?stream=zmark-stream"), &Value::Null);
    server.by(&agent, "GET", &format!("/runs/{run}/output"), &Value::Null);
    let denied = server.plan("make zmark-denied");
    server.by(&operator, "POST", &format!("/edit/{denied}"), &json!({ "command": "make zmark-edited" }));
    server.by(&agent, "POST", "/plan", &json!({ "command": "rm -rf / zmark-blocked" }));
    server.by(&agent, "POST", "/plan", &json!({ "command": "ls", "cwd": "/zmark-cwd" }));
    server.by(&agent, "POST", "/policy/check", &json!({ "command": "zmark-asked" }));
    server.ask("POST", "/plan", &[("x-agent-token", &agent)], "{\"command\": zmark-broken");
    server.ask("GET", "/zmark-path?q=zmark-query", &[("x-agent-token", "zmark-token")], "");
    // Our own client sends no such method.
    let mut raw = TcpStream::connect(server.base.strip_prefix("http://").unwrap()).unwrap();
    raw.write_all(b"ZMARK /status HTTP/1.1\r\nhost: zmark.example\r\ntraceparent: zmark\r\nconnection: close\r\n\r\n")
        .unwrap();
    raw.read_to_end(&mut Vec::new()).unwrap();
    server.by(&agent, "GET", "/commands/zmark-id", &Value::Null);
    let (_, made) = server.by(&operator, "POST", "/tokens", &json!({ "name": "other", "roles": ["agent"] }));
    let other = made["token"].as_str().unwrap();
    assert_eq!(server.by(other, "GET", "/pending", &Value::Null).0, 200);

    let log = server.root.path().join("server.log");
    // The last request's line: then everything before it is there.
    until("the last request's line", || fs::read_to_string(&log).unwrap().contains("\"principal\":\"other\""));
    let text = fs::read_to_string(&log).unwrap();
    let told = text.to_lowercase().lines().filter(|line| line.contains("zmark")).count();
    assert_eq!(told, 0, "{}", text.lines().find(|line| line.to_lowercase().contains("zmark")).unwrap_or_default());
    for secret in [&agent, &operator, other] {
        assert!(!text.contains(secret), "a token is in the log");
    }
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let answered = |route: &str| -> Vec<&Value> {
        let of_it = |line: &&Value| line["fields"]["message"] == "answered" && line["span"]["route"] == route;
        lines.iter().filter(of_it).map(|line| &line["span"]).collect()
    };
    let first = answered("/plan")[0];
    assert_eq!(
        (&first["method"], &first["principal"], &first["status"], &first["trace_id"]),
        (&json!("POST"), &json!("agent"), &json!(200), &json!(TRACE_ID))
    );
    let decided = answered("/approve/{id}")[0];
    assert_eq!((&decided["principal"], &decided["trace_id"]), (&json!("operator"), &Value::Null));
    assert_eq!(decided["request_id"].as_str().map(str::len), Some(32));
    assert!(answered("/status").iter().any(|span| span["method"] == "other" && span["status"] == 403));
    assert!(answered("unmatched").iter().any(|span| span["status"] == 401));
}

/// Every metric that a live server tells of, with its kind, and the whole page.
fn told() -> (Vec<(String, String)>, String) {
    let server = Served::new();
    server.approved("echo hi");
    let operator = server.operator();
    let mut page = String::new();
    // The mirror and the checkpoint come a moment after the start.
    until("a page with everything", || {
        page = server.by(&operator, "GET", "/metrics", &Value::Null).1.as_str().unwrap().to_owned();
        ["\nprovara_mirror_lag_entries ", "\nprovara_checkpoint_age_seconds ", "route=\"/metrics\""]
            .iter()
            .all(|needed| page.contains(needed))
    });
    assert!(page.contains("\nprovara_runs_total{outcome=\"exited\"} 1\n"), "{page}");
    assert!(page.contains("\nprovara_plans{state=\"finished\"} 1\n"), "{page}");
    assert!(page.contains("\nprovara_start_wait_seconds_count 1\n"), "{page}");
    assert!(page.contains("\nprovara_run_duration_seconds_count 1\n"), "{page}");
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types = types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
    (types, page)
}

#[test]
fn the_documents_name_every_metric_and_none_that_is_not_told() {
    let (told, page) = told();
    let documented: Vec<(String, String)> = document("metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter(|row| row.starts_with("provara_") || row.starts_with("process_"))
        .map(|row| {
            let (name, rest) = row.split_once('`').unwrap();
            (name.to_owned(), rest.split('|').nth(1).unwrap().trim().to_owned())
        })
        .collect();
    let set = |list: &[(String, String)]| list.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(set(&documented), set(&told));
    assert_eq!(documented.len(), told.len(), "a metric is explained twice");

    let dashboard: Value = serde_json::from_str(&document("dashboard.json")).unwrap();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39));
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    let mut expressions = Vec::new();
    expressions_of(&dashboard, &mut expressions);
    assert!(expressions.len() > 20, "{expressions:?}");
    let text = document("metrics.md");
    expressions.extend(text.lines().filter_map(|line| line.trim().strip_prefix("expr: ")));
    for expression in expressions {
        let names = names_in(expression);
        assert!(!names.is_empty(), "{expression} asks for nothing");
        for name in names {
            let family = told.iter().find(|(family, kind)| {
                let parts: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                parts.iter().any(|part| name == format!("{family}{part}"))
            });
            assert!(family.is_some(), "{expression} asks for {name}, which no server tells");
            for (label, value) in matchers(expression, &name) {
                let wanted = format!("{label}=\"{value}\"");
                let found = page.lines().any(|line| line.starts_with(&format!("{name}{{")) && line.contains(&wanted));
                assert!(found, "{expression}: no series of {name} has {wanted}");
            }
        }
    }
}

fn expressions_of<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(["expr", "definition"].iter().filter_map(|name| fields.get(*name)?.as_str()));
            fields.values().for_each(|field| expressions_of(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions_of(item, found)),
        _ => {}
    }
}

fn names_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("provara_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// The `label="value"` pairs behind the metric's name.
fn matchers<'a>(expression: &'a str, name: &str) -> Vec<(&'a str, &'a str)> {
    let behind = expression.split_once(&format!("{name}{{")).and_then(|(_, rest)| rest.split_once('}'));
    let pairs = behind.map_or("", |(inside, _)| inside).split(',').filter_map(|pair| pair.split_once("=\""));
    pairs.map(|(label, value)| (label, value.trim_end_matches('"'))).collect()
}

#[test]
fn an_agent_sees_no_metrics_of_the_real_server() {
    let server = Served::new();
    let (status, answer) = server.by(&server.agent(), "GET", "/metrics", &Value::Null);
    assert_eq!((status, &answer["code"]), (403, &json!("forbidden")));
    assert_eq!(server.ask("GET", "/metrics", &[], "").0, 401);
}
