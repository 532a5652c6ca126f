//! What clients may rely on over HTTP: repeated requests, lists, waiting, and who may do what.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use provara_audit::checkpoint::{self, VerifierKey};
use provara_audit::merkle::{self, Hash};
use serde_json::{Value, json};
use ureq::http::HeaderMap;

use super::served::{Served, start, until};

/// Longer than anything here takes, shorter than any wait that is asked for.
const SOON: Duration = Duration::from_secs(15);

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Asks as whoever holds `token`, nobody where it is empty. A body that never ends is not read.
fn call(server: &Served, token: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", server.base));
    if !token.is_empty() {
        request = request.header("x-agent-token", token);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    let agent = config.timeout_global(Some(Duration::from_secs(60))).build().new_agent();
    let mut response = agent.run(request.body(body).unwrap()).unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let endless = headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let text = if endless { String::new() } else { response.body_mut().read_to_string().unwrap() };
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

fn id_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["pending_id"].as_str().unwrap().to_owned()
}

fn token(server: &Served, name: &str, role: &str) -> (String, String) {
    let made = json!({ "name": name, "roles": [role] });
    let (status, answer) = server.by(&server.operator(), "POST", "/tokens", &made);
    assert_eq!(status, 201, "{answer}");
    let text = |field: &str| answer[field].as_str().unwrap().to_owned();
    (text("token"), text("id"))
}

fn configured(env: &str) -> Served {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.path().join(".env"), env).unwrap();
    let (process, base) = start(root.path());
    Served { root, process, base }
}

fn command(server: &Served, id: &str) -> Value {
    let (status, answer) = server.by(&server.operator(), "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!(status, 200, "{answer}");
    answer
}

fn approve_later(server: &Served, id: &str) {
    let path = format!("/approve/{id}");
    let answer = call(server, &server.operator(), "POST", &path, &[("prefer", "wait=1, Respond-Async")], &Value::Null);
    assert_eq!((answer.status, &answer.body["state"]), (202, &json!("approved")), "{}", answer.body);
}

#[test]
fn a_repeated_proposal_has_the_first_answer() {
    let server = Served::new();
    let (agent, other) = (server.agent(), token(&server, "other", "agent").0);
    let plan =
        |token: &str, key: &str, body: Value| call(&server, token, "POST", "/plan", &[("idempotency-key", key)], &body);
    let body = json!({ "command": "make" });
    let first = id_of(&plan(&agent, "k", body.clone()));
    assert_eq!(id_of(&plan(&agent, "k", body.clone())), first);
    let mismatch = plan(&agent, "k", json!({ "command": "make clean" }));
    assert_eq!((mismatch.status, &mismatch.body["code"]), (422, &json!("idempotency_mismatch")));
    assert!(mismatch.body["detail"].is_string() && mismatch.body["request_id"].is_string(), "{}", mismatch.body);
    assert_ne!(id_of(&plan(&agent, "l", body.clone())), first);
    assert_ne!(id_of(&plan(&other, "k", body.clone())), first, "one agent's key answered another's");
    for bad in ["", &"k".repeat(256)] {
        let refused = plan(&agent, bad, body.clone());
        assert_eq!((refused.status, &refused.body["detail"][0]["loc"]), (422, &json!(["header", "idempotency-key"])));
    }
    let at_once = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(|| id_of(&plan(&agent, "m", body.clone())))).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect::<std::collections::BTreeSet<_>>()
    });
    assert_eq!(at_once.len(), 1, "{at_once:?}");
    let refused = json!({ "command": "rm -rf /" });
    let [one, two] = [0, 1].map(|_| plan(&agent, "n", refused.clone()));
    assert_eq!((one.status, two.status), (403, 403));
    assert_eq!(one.body["pending_id"], two.body["pending_id"]);
}

#[test]
fn a_repeated_approval_has_the_first_answer_even_after_a_crash() {
    let mut server = Served::new();
    let operator = server.operator();
    let approve = |server: &Served, id: &str, key: Option<&str>, body: Value| {
        let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
        call(server, &operator, "POST", &format!("/approve/{id}"), &headers, &body)
    };
    let id = server.plan("sleep 0.5; echo once >> marks; cat marks");
    let both = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| approve(&server, &id, Some("k"), Value::Null))).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    let again = approve(&server, &id, Some("k"), Value::Null);
    for answer in both.iter().chain([&again]) {
        assert_eq!((answer.status, &answer.body["stdout"]), (200, &json!("once\n")), "{}", answer.body);
        assert_eq!(answer.body["run_id"], again.body["run_id"], "it ran twice");
    }
    for (key, body, status, code) in [
        (Some("k"), json!({ "reason": "another" }), 422, "idempotency_mismatch"),
        (Some("l"), Value::Null, 409, "plan_not_pending"),
        (None, Value::Null, 409, "plan_not_pending"),
    ] {
        let refused = approve(&server, &id, key, body);
        assert_eq!((refused.status, &refused.body["code"]), (status, &json!(code)), "{key:?}");
    }
    let agents =
        call(&server, &server.agent(), "POST", &format!("/approve/{id}"), &[("idempotency-key", "k")], &Value::Null);
    assert_eq!(agents.status, 403, "a key opened what a role does not");
    let (bob, _) = token(&server, "bob", "approver");
    let bobs = call(&server, &bob, "POST", &format!("/approve/{id}"), &[("idempotency-key", "k")], &Value::Null);
    assert_eq!(bobs.status, 409, "one approver's key answered another's");
    // The same key for another plan is another request.
    let second = server.plan("echo second");
    assert_eq!(approve(&server, &second, Some("k"), Value::Null).body["stdout"], "second\n");
    let later = call(
        &server,
        &operator,
        "POST",
        &format!("/approve/{second}"),
        &[("idempotency-key", "k"), ("prefer", "respond-async")],
        &Value::Null,
    );
    assert_eq!((later.status, &later.body["state"]), (202, &json!("finished")));

    server.process.kill().unwrap();
    server.process.wait().unwrap();
    fs::remove_file(server.root.path().join("runtime/address")).unwrap();
    (server.process, server.base) = start(server.root.path());
    let after = approve(&server, &id, Some("k"), Value::Null);
    assert_eq!((after.status, &after.body["run_id"]), (200, &again.body["run_id"]), "{}", after.body);
    assert_eq!(after.body["stdout"], "once\n");
}

#[test]
fn an_equal_waiting_plan_answers_when_asked_to() {
    let server = Served::new();
    let agent = server.agent();
    let plan = |body: Value| id_of(&call(&server, &agent, "POST", "/plan", &[], &body));
    let asked = || json!({ "command": "make", "dedupe": true });
    let first = plan(asked());
    assert_eq!(plan(asked()), first);
    assert_ne!(plan(json!({ "command": "make" })), first);
    assert_ne!(plan(json!({ "command": "make", "dedupe": true, "timeout_s": 7 })), first);
    server.by(&server.operator(), "POST", &format!("/deny/{first}"), &Value::Null);
    assert_ne!(plan(asked()), first);
}

#[test]
fn a_full_queue_says_so_and_when_to_come_back() {
    let server = configured("AGENT_HUB_MAX_PENDING=3\n");
    let ids: Vec<_> = (0..3).map(|n| server.plan(&format!("make {n}"))).collect();
    let full = call(&server, &server.agent(), "POST", "/plan", &[], &json!({ "command": "make 4" }));
    assert_eq!((full.status, &full.body["code"]), (429, &json!("pending_cap")));
    assert!(full.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert!(full.body["detail"].as_str().unwrap().contains("3 pending plans"), "{}", full.body);
    assert!(full.body["request_id"].is_string());
    let (other, _) = token(&server, "other", "agent");
    assert_eq!(call(&server, &other, "POST", "/plan", &[], &json!({ "command": "make" })).status, 200);
    let first = ids.first().unwrap();
    assert_eq!(server.by(&server.agent(), "POST", &format!("/commands/{first}/cancel"), &Value::Null).0, 200);
    server.plan("make 4");
}

#[test]
fn a_denied_command_says_so_when_it_comes_again_and_is_refused_after_as_many_denials_as_configured() {
    let server = configured("AGENT_HUB_DENIALS_BEFORE_COOL_DOWN=2\nAGENT_HUB_COOL_DOWN_SECONDS=600\n");
    let (agent, operator) = (server.agent(), server.operator());
    let propose = || call(&server, &agent, "POST", "/plan", &[], &json!({ "command": "make install" }));
    let deny = |id: &str, body: Value| assert_eq!(server.by(&operator, "POST", &format!("/deny/{id}"), &body).0, 200);
    let first = propose();
    assert_eq!(first.body["denied_before"], Value::Null);
    deny(&id_of(&first), json!({ "reason": "use \u{1b}[2J `make test`" }));
    let second = propose();
    let before = &second.body["denied_before"];
    assert_eq!((&before["count"], &before["reason"]), (&json!(1), &json!("use \u{1b}[2J `make test`")));
    assert!(before["last_at"].as_str().unwrap().ends_with('Z'), "{before}");
    let (_, pending) = server.by(&operator, "GET", "/pending", &Value::Null);
    assert_eq!((&pending[0]["denied_before"], pending.as_array().unwrap().len()), (before, 1));
    // And in words, for whoever decides.
    let as_operator = |arguments: &[&str]| {
        let output = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), arguments);
        String::from_utf8(output.stdout).unwrap()
    };
    let (id, listed) = (id_of(&second), as_operator(&["pending"]));
    assert!(listed.contains("DENIED") && listed.contains(" 1x "), "{listed}");
    let shown = as_operator(&["show", &id]);
    assert!(
        shown.contains("people denied the same once in") && shown.contains("  | use ⟦U+001B⟧[2J `make test`"),
        "{shown}"
    );
    deny(&id, Value::Null);
    assert!(!as_operator(&["pending"]).contains("DENIED"));
    let held = propose();
    assert_eq!((held.status, &held.body["code"]), (429, &json!("cool_down")), "{}", held.body);
    let seconds: u64 = held.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=600).contains(&seconds), "{seconds}");
    let detail = held.body["detail"].as_str().unwrap();
    assert!(detail.starts_with("a person denied this command 2 times lately, last at "), "{detail}");
    assert!(
        detail.ends_with(&format!(", without a reason; propose another, or this one again in {seconds} s")),
        "{detail}"
    );
    assert_eq!(
        (&held.body["denied_before"]["count"], &held.body["denied_before"]["reason"]),
        (&json!(2), &Value::Null)
    );
    let (other, _) = token(&server, "other", "agent");
    assert_eq!(call(&server, &other, "POST", "/plan", &[], &json!({ "command": "make install" })).status, 200);
    // Off: every time is told and none refused.
    let off = configured("AGENT_HUB_DENIALS_BEFORE_COOL_DOWN=0\n");
    for count in 0..6_u64 {
        let made = call(&off, &off.agent(), "POST", "/plan", &[], &json!({ "command": "make install" }));
        assert_eq!(made.body["denied_before"]["count"].as_u64().unwrap_or_default(), count, "{}", made.body);
        assert_eq!(off.by(&off.operator(), "POST", &format!("/deny/{}", id_of(&made)), &Value::Null).0, 200);
    }
}

#[test]
fn pages_go_on_where_the_last_one_ended() {
    let server = Served::new();
    let mut expected: Vec<_> = (0..7).map(|n| server.plan(&format!("make {n}"))).collect();
    expected.reverse();
    for path in ["/pending?", "/commands?", "/commands?state=pending,denied&"] {
        let (mut seen, mut sizes, mut cursor) = (Vec::new(), Vec::new(), String::new());
        loop {
            let path = format!("{path}limit=3{cursor}");
            let answer = call(&server, &server.agent(), "GET", &path, &[], &Value::Null);
            assert_eq!(answer.status, 200, "{}", answer.body);
            let items = answer.body.as_array().unwrap();
            sizes.push(items.len());
            seen.extend(items.iter().map(|item| item["pending_id"].as_str().unwrap().to_owned()));
            let Some(next) = answer.header("x-next-cursor") else { break };
            cursor = format!("&before={next}");
            // What comes meanwhile is newer than every page to come.
            expected.insert(0, server.plan("make later"));
        }
        let known = expected.split_off(expected.len() - seen.len());
        assert_eq!(seen, known, "{path}");
        assert!(sizes.iter().rev().skip(1).all(|size| *size == 3), "{sizes:?}");
        expected.extend(known);
    }
    for bad in ["/commands?state=nonsense", "/pending?limit=x", "/pending?before=-1"] {
        assert_eq!(call(&server, &server.agent(), "GET", bad, &[], &Value::Null).status, 422, "{bad}");
    }
}

#[test]
fn silence_expires_wakes_whoever_waits_and_is_reopened_once() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let id = id_of(&call(&server, &agent, "POST", "/plan", &[], &json!({ "command": "echo late", "expires_s": 1 })));
    let begun = Instant::now();
    let (_, seen) = server.by(&agent, "GET", &format!("/commands/{id}?wait=30"), &Value::Null);
    assert_eq!(seen["state"], "expired");
    assert!(begun.elapsed() < SOON, "woken after {:?}", begun.elapsed());
    for route in ["approve", "deny", "edit"] {
        let body = json!({ "reason": "x" });
        let body = if route == "edit" { json!({ "command": "ls" }) } else { body };
        let (status, late) = server.by(&operator, "POST", &format!("/{route}/{id}"), &body);
        assert_eq!((status, &late["state"]), (409, &json!("expired")), "{route}: {late}");
    }
    let (status, anew) = server.by(&operator, "POST", &format!("/reopen/{id}"), &Value::Null);
    assert_eq!((status, &anew["origin"], &anew["state"]), (200, &json!(id), &json!("pending")), "{anew}");
    let (status, twice) = server.by(&operator, "POST", &format!("/reopen/{id}"), &Value::Null);
    assert_eq!((status, &twice["code"], &twice["state"]), (409, &json!("not_reopenable"), &json!("expired")));
    assert!(twice["detail"].as_str().unwrap().contains(" is expired and cannot be re-opened: "), "{twice}");
    let again = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["reopen", &id]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("next: `provara show ID` tells"), "it was sent back to what is refused: {said}");
    let anew = anew["pending_id"].as_str().unwrap();
    let (status, run) = server.by(&operator, "POST", &format!("/approve/{anew}"), &Value::Null);
    assert_eq!((status, &run["stdout"]), (200, &json!("late\n")), "{run}");
    assert_eq!(server.by(&operator, "POST", &format!("/reopen/{anew}"), &Value::Null).0, 409, "it was not silent");
}

#[test]
fn an_edit_replaces_the_plan_for_whoever_waits_for_it() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let old = server.plan("ecko edited; exit 3");
    let following = Command::new(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", server.root.path())
        .env("AGENT_HUB_TOKEN", &agent)
        .args(["--base", &server.base, "attach", &old])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let edit = json!({ "command": "echo edited; exit 3", "timeout_s": 9 });
    let (status, new) = server.by(&operator, "POST", &format!("/edit/{old}"), &edit);
    assert_eq!(status, 200, "{new}");
    assert_eq!(
        (&new["origin"], &new["command"], &new["timeout_s"], &new["agent"]),
        (&json!(old), &json!("echo edited; exit 3"), &json!(9), &command(&server, &old)["agent"])
    );
    let (_, seen) = server.by(&agent, "GET", &format!("/commands/{old}?wait=30"), &Value::Null);
    assert_eq!((&seen["state"], &seen["superseded_by"]), (&json!("superseded"), &new["pending_id"]));
    assert_eq!(
        server.by(&operator, "POST", &format!("/approve/{old}"), &Value::Null).0,
        409,
        "the old text was approved"
    );
    let new = new["pending_id"].as_str().unwrap();
    assert_eq!(server.by(&operator, "POST", &format!("/approve/{new}"), &Value::Null).0, 200);
    let ended = following.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(3), &b"edited\n"[..]));
    // What policy denies as an edit is blocked, not queued.
    let third = server.plan("make");
    let (_, blocked) = server.by(&operator, "POST", &format!("/edit/{third}"), &json!({ "command": "rm -rf /" }));
    assert_eq!(blocked["state"], "blocked", "{blocked}");
}

#[test]
fn a_cancel_ends_what_has_not_ended() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let cancel = |token: &str, id: &str| server.by(token, "POST", &format!("/commands/{id}/cancel"), &Value::Null);
    let pending = server.plan("make");
    let (status, answer) = cancel(&agent, &pending);
    assert_eq!((status, &answer["state"]), (200, &json!("withdrawn")));

    let running = server.plan("sleep 1000");
    approve_later(&server, &running);
    until("the run", || command(&server, &running)["state"] == "running");
    let (status, answer) = cancel(&agent, &running);
    assert_eq!(
        (status, &answer["state"]),
        (200, &json!("running")),
        "the wish is recorded, the end comes with the run"
    );
    until("the end", || command(&server, &running)["state"] == "finished");
    let ended = command(&server, &running);
    assert_eq!((&ended["run"]["outcome"]["kind"], &ended["run"]["exit_code"]), (&json!("cancelled"), &Value::Null));

    let denied = server.plan("make");
    server.by(&operator, "POST", &format!("/deny/{denied}"), &Value::Null);
    for (id, state) in [(&pending, "withdrawn"), (&running, "finished"), (&denied, "denied")] {
        for token in [&agent, &operator] {
            let (status, answer) = cancel(token, id);
            assert_eq!((status, &answer["code"], &answer["state"]), (409, &json!("plan_settled"), &json!(state)));
        }
    }
    let none = "20250115_143022_a1b2c3d4";
    assert_eq!((cancel(&agent, none).0, cancel(&operator, "../x").0), (404, 404));
}

#[test]
fn what_is_no_id_is_told_what_one_looks_like_and_what_is_missing_is_named() {
    let server = Served::new();
    let operator = server.operator();
    let none = "20250115_143022_a1b2c3d4";
    for (method, route, missing) in [
        ("GET", "/commands/ID", format!("no plan has the id {none}")),
        ("POST", "/approve/ID", format!("no plan has the id {none}")),
        ("POST", "/commands/ID/cancel", format!("no plan has the id {none}")),
        ("GET", "/runs/ID", format!("no run has the id {none}")),
        ("GET", "/runs/ID/output", format!("no run has the id {none}")),
        ("DELETE", "/tokens/ID", "no such token".to_owned()),
    ] {
        let ask = |id: &str| server.by(&operator, method, &route.replace("ID", id), &Value::Null);
        let (status, answer) = ask("no-id");
        assert_eq!((status, &answer["code"]), (404, &json!("not_found")), "{route}: {answer}");
        let form = "this is no id; one is YYYYMMDD_HHMMSS_ and 8 to 32 lowercase hexadecimal digits";
        assert_eq!(answer["detail"], form, "{route}");
        let (status, answer) = ask(none);
        assert_eq!(
            (status, &answer["code"], &answer["detail"]),
            (404, &json!("not_found"), &json!(missing)),
            "{route}"
        );
    }
}

#[test]
fn a_run_is_given_more_time_and_never_less() {
    let server = Served::new();
    let operator = server.operator();
    let extend = |id: &str, body: Value| server.by(&operator, "POST", &format!("/commands/{id}/extend"), &body);
    let asked = json!({ "command": "sleep 2; echo done", "timeout_s": 1 });
    let id = id_of(&call(&server, &server.agent(), "POST", "/plan", &[], &asked));
    assert_eq!(extend(&id, json!({ "timeout_s": 30 })).0, 409, "it does not run yet");
    approve_later(&server, &id);
    until("the extension", || extend(&id, json!({ "timeout_s": 30 })).0 == 200);
    for (body, status, code) in [
        (json!({ "timeout_s": 30 }), 409, "not_longer"),
        (json!({ "timeout_s": 5 }), 409, "not_longer"),
        (json!({ "timeout_s": 3601 }), 422, "validation_error"),
        (json!({}), 422, "validation_error"),
    ] {
        let (found, answer) = extend(&id, body);
        assert_eq!(found, status, "{answer}");
        assert!(status == 422 || answer["code"] == code, "{answer}");
    }
    until("the end", || command(&server, &id)["state"] == "finished");
    let ended = command(&server, &id);
    assert_eq!((&ended["run"]["stdout"], &ended["run"]["timeout_s"]), (&json!("done\n"), &json!(30)), "{ended}");
}

#[test]
fn a_long_poll_ends_with_the_change_and_not_with_the_wait() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    for n in 0..5 {
        let id = server.plan(&format!("make {n}"));
        let woken = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let (status, seen) =
                    server.by(&agent, "GET", &format!("/commands/{id}?wait=30&revision=1"), &Value::Null);
                (status, seen["state"].clone(), Instant::now())
            });
            assert_eq!(server.by(&operator, "POST", &format!("/deny/{id}"), &Value::Null).0, 200);
            let decided = Instant::now();
            let (status, state, at) = waiting.join().unwrap();
            assert_eq!((status, state), (200, json!("denied")));
            at.saturating_duration_since(decided)
        });
        assert!(woken < Duration::from_secs(5), "woken {woken:?} after the decision");
    }
    let id = server.plan("make");
    let begun = Instant::now();
    let (_, same) = server.by(&agent, "GET", &format!("/commands/{id}?wait=1"), &Value::Null);
    assert_eq!((&same["state"], &same["revision"]), (&json!("pending"), &json!(1)));
    assert!(begun.elapsed() >= Duration::from_secs(1), "a wait for nothing ended after {:?}", begun.elapsed());
    // What changed before the question is told at once.
    let begun = Instant::now();
    server.by(&agent, "GET", &format!("/commands/{id}?wait=30&revision=0"), &Value::Null);
    assert!(begun.elapsed() < SOON);
}

/// Who may do what. Columns: nobody, an agent, another agent, an auditor, an admin, an approver.
const ROLES: [(&str, &str, &str, [u16; 6]); 38] = [
    ("GET", "/status", "", [200, 200, 200, 200, 200, 200]),
    ("GET", "/healthz", "", [200, 200, 200, 200, 200, 200]),
    ("GET", "/readyz", "", [200, 200, 200, 200, 200, 200]),
    ("GET", "/none", "", [404, 404, 404, 404, 404, 404]),
    ("GET", "/health", "", [401, 200, 200, 200, 200, 200]),
    ("POST", "/plan", r#"{"command":"make"}"#, [401, 200, 200, 403, 403, 403]),
    ("GET", "/pending", "", [401, 200, 200, 200, 200, 200]),
    ("GET", "/commands", "", [401, 200, 200, 200, 200, 200]),
    ("GET", "/commands/{plan}", "", [401, 200, 404, 200, 200, 200]),
    ("GET", "/commands/{plan}?wait=1&revision=0", "", [401, 200, 404, 200, 200, 200]),
    ("POST", "/approve/{plan}", "", [401, 403, 403, 403, 403, 200]),
    ("POST", "/deny/{plan}", "", [401, 403, 403, 403, 403, 200]),
    ("POST", "/edit/{plan}", r#"{"command":"ls"}"#, [401, 403, 403, 403, 403, 200]),
    ("POST", "/reopen/{plan}", "", [401, 403, 403, 403, 403, 409]),
    ("POST", "/commands/{plan}/preview", "", [401, 403, 403, 403, 403, 200]),
    ("POST", "/commands/{plan}/cancel", "", [401, 200, 404, 403, 403, 200]),
    ("POST", "/commands/{plan}/extend", r#"{"timeout_s":900}"#, [401, 403, 403, 403, 403, 409]),
    ("GET", "/runs", "", [401, 200, 200, 200, 200, 200]),
    ("GET", "/runs/{run}", "", [401, 200, 404, 200, 200, 200]),
    ("GET", "/runs/{run}/output", "", [401, 200, 404, 200, 200, 200]),
    ("GET", "/runs/{run}/output?follow=1", "", [401, 200, 404, 200, 200, 200]),
    ("GET", "/events", "", [401, 200, 200, 200, 200, 200]),
    ("POST", "/policy/check", r#"{"command":"ls"}"#, [401, 200, 200, 200, 200, 200]),
    ("GET", "/metrics", "", [401, 403, 403, 200, 200, 200]),
    ("GET", "/policy", "", [401, 403, 403, 200, 200, 200]),
    ("GET", "/profiles", "", [401, 403, 403, 200, 200, 200]),
    ("GET", "/audit", "", [401, 403, 403, 200, 403, 200]),
    ("GET", "/audit/checkpoint", "", [401, 403, 403, 200, 403, 200]),
    ("GET", "/audit/inclusion?position=0", "", [401, 403, 403, 200, 403, 200]),
    ("GET", "/audit/inclusion?plan={plan}", "", [401, 403, 403, 200, 403, 200]),
    ("GET", "/audit/consistency?old=1", "", [401, 403, 403, 200, 403, 200]),
    ("POST", "/erase", r#"{"before":"2020-01-01"}"#, [401, 403, 403, 403, 200, 403]),
    ("GET", "/tokens", "", [401, 403, 403, 403, 200, 403]),
    ("POST", "/tokens", r#"{"name":"new","roles":["auditor"]}"#, [401, 403, 403, 403, 201, 403]),
    ("DELETE", "/tokens/{token}", "", [401, 403, 403, 403, 204, 403]),
    ("GET", "/workspaces", "", [401, 403, 403, 200, 200, 200]),
    ("POST", "/workspaces", r#"{"path":"{folder}"}"#, [401, 403, 403, 403, 201, 403]),
    ("DELETE", "/workspaces", r#"{"path":"{folder}"}"#, [401, 403, 403, 403, 204, 403]),
];

#[test]
fn every_route_answers_every_role_as_the_table_says() {
    let server = Served::new();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let run = server.approved("echo ran")["run_id"].as_str().unwrap().to_owned();
    let holders = [
        ("nobody", String::new()),
        ("the agent", server.agent()),
        ("another agent", token(&server, "other", "agent").0),
        ("an auditor", token(&server, "reader", "auditor").0),
        ("an admin", token(&server, "keeper", "admin").0),
        ("an approver", token(&server, "decider", "approver").0),
    ];
    let mut wrong = Vec::new();
    for (method, path, body, expected) in ROLES {
        for ((who, holder), expected) in holders.iter().zip(expected) {
            // Each cell has a plan and a token of its own, so that no answer depends on the one before.
            let mut path = path.replace("{run}", &run);
            if path.contains("{plan}") {
                path = path.replace("{plan}", &server.plan("echo x"));
            }
            if path.contains("{token}") {
                path = path.replace("{token}", &token(&server, "spare", "auditor").1);
            }
            let body = body.replace("{folder}", folder.to_str().unwrap());
            let body = serde_json::from_str(&body).unwrap_or(Value::Null);
            let answer = call(&server, holder, method, &path, &[], &body);
            if answer.status != expected {
                wrong.push(format!("{method} {path} by {who}: {} instead of {expected}", answer.status));
            }
            if answer.status >= 400 {
                let fields = ["detail", "code", "request_id"].map(|field| answer.body[field].is_string());
                assert_eq!(fields, [true; 3], "{method} {path} by {who}: {}", answer.body);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let routes = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../server/src/routes.rs")).unwrap();
    for route in routes.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split_once('"')) {
        let path = route.0.replace("{id}", "{").replace('{', "");
        let known = ROLES.iter().any(|(_, known, ..)| {
            let known = known.split('?').next().unwrap();
            ["{plan}", "{run}", "{token}"].iter().fold(known.to_owned(), |path, field| path.replace(field, "")) == path
        });
        assert!(known, "the route {} is not in the table", route.0);
    }
}

fn hash(raw: &Value) -> Hash {
    let raw = raw.as_str().unwrap();
    let mut bytes = [0; 32];
    assert_eq!(raw.len(), 64, "{raw}");
    for (byte, pair) in bytes.iter_mut().zip(raw.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    }
    Hash(bytes)
}

fn hashes(raw: &Value) -> Vec<Hash> {
    raw.as_array().unwrap().iter().map(hash).collect()
}

#[test]
fn proofs_convince_somebody_who_has_the_answers_alone() {
    let server = Served::new();
    let (auditor, _) = token(&server, "reader", "auditor");
    let ask = |path: &str| {
        let (status, answer) = server.by(&auditor, "GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    };
    let signed = || {
        let answer = ask("/audit/checkpoint");
        let key = VerifierKey::parse(answer["key"].as_str().unwrap()).unwrap();
        checkpoint::open(answer["checkpoint"].as_str().unwrap(), &key).unwrap()
    };
    let id = server.plan("make");
    let before = signed();
    server.by(&server.operator(), "POST", &format!("/deny/{id}"), &Value::Null);
    for n in 0..9 {
        server.plan(&format!("make {n}"));
    }
    let after = signed();
    assert!(after.size > before.size);

    let proof = ask(&format!("/audit/consistency?old={}&new={}", before.size, after.size));
    let path = hashes(&proof["proof"]);
    merkle::verify_consistency(before.size, after.size, &path, &before.root, &after.root).unwrap();
    let mut forged = before.root;
    forged.0[0] ^= 1;
    assert!(merkle::verify_consistency(before.size, after.size, &path, &forged, &after.root).is_err());

    let proof = ask(&format!("/audit/inclusion?plan={id}&size={}", after.size));
    assert_eq!(hash(&proof["root"]), after.root);
    let entries = proof["entries"].as_array().unwrap();
    let mut kinds = Vec::new();
    for entry in entries {
        let leaf = entry["leaf"].as_str().unwrap();
        let position = entry["position"].as_u64().unwrap();
        let of = |leaf: &str| {
            let leaf = merkle::leaf_hash(leaf.as_bytes());
            merkle::verify_inclusion(&leaf, position, after.size, &hashes(&entry["proof"]), &after.root)
        };
        of(leaf).unwrap();
        assert!(of(&leaf.replacen(&id, "20250115_143022_a1b2c3d4", 1)).is_err(), "any leaf is proved");
        let leaf: Value = serde_json::from_str(leaf).unwrap();
        assert_eq!(leaf["plan"], json!(id));
        kinds.push(leaf["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds, ["plan.queued", "plan.denied"]);
    for beyond in
        ["/audit/inclusion?position=9999", "/audit/inclusion?position=0&size=9999", "/audit/consistency?old=9999"]
    {
        assert_eq!(server.by(&auditor, "GET", beyond, &Value::Null).0, 404, "{beyond}");
    }
}

#[test]
fn a_token_counts_from_its_making_to_its_end_and_not_a_request_longer() {
    let server = Served::new();
    let operator = server.operator();
    let (old, id) = token(&server, "worker", "agent");
    assert_eq!(server.by(&old, "GET", "/pending", &Value::Null).0, 200);
    let plan = id_of(&call(&server, &old, "POST", "/plan", &[], &json!({ "command": "make" })));
    // Rotated: the new one first, then the old one goes. The holder, and what it proposed, stay the same.
    let (new, _) = token(&server, "worker", "agent");
    assert_eq!(server.by(&operator, "DELETE", &format!("/tokens/{id}"), &Value::Null).0, 204);
    for _ in 0..3 {
        let (status, answer) = server.by(&old, "GET", "/pending", &Value::Null);
        assert_eq!((status, &answer["code"]), (401, &json!("unauthorized")));
    }
    assert_eq!(server.by(&new, "GET", &format!("/commands/{plan}"), &Value::Null).0, 200);
    assert_eq!(server.by(&operator, "DELETE", &format!("/tokens/{id}"), &Value::Null).0, 204, "twice is as once");
    assert_eq!(server.by(&operator, "DELETE", "/tokens/20250115_143022_a1b2c3d4", &Value::Null).0, 404);
    let (_, listed) = server.by(&operator, "GET", "/tokens", &Value::Null);
    let of = |id: &str| listed.as_array().unwrap().iter().find(|token| token["id"] == id).unwrap().clone();
    assert!(of(&id)["revoked_at"].is_string());
    assert!(!listed.to_string().contains(&new) && !listed.to_string().contains("secret"), "{listed}");
}
