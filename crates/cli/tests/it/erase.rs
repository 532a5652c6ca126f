//! Erasing through the real server: who may, what is left, and that the log still holds.

use std::fs;

use serde_json::{Value, json};

use crate::served::{Served, start_with, until};

const MARK: &str = "a-word-that-must-go";

#[test]
fn an_admin_erases_a_settled_plan_and_nobody_else_does() {
    let server = Served::new();
    let run = server.approved(&format!("echo {MARK}"));
    let id = run["pending_id"].as_str().unwrap();
    let erase = |token: &str, body: Value| server.by(token, "POST", "/erase", &body);
    let operator = server.operator();
    let (status, made) =
        server.by(&operator, "POST", "/tokens", &json!({"name": "eve", "roles": ["approver", "auditor"]}));
    assert_eq!(status, 201, "{made}");
    for token in [&server.agent(), made["token"].as_str().unwrap()] {
        let (status, answer) = erase(token, json!({ "plan": id }));
        assert_eq!((status, &answer["code"]), (403, &json!("forbidden")), "{answer}");
    }
    for (body, status) in [
        (json!({}), 422),
        (json!({"plan": id, "before": "2026-01-01"}), 422),
        (json!({"before": "2026-02-30"}), 422),
        (json!({"before": "yesterday!"}), 422),
        (json!({"plan": 7}), 422),
        (json!({"plan": "../x"}), 404),
        (json!({"plan": "20260101_120000_0123456789abcdef"}), 404),
    ] {
        assert_eq!(erase(&operator, body.clone()).0, status, "{body}");
    }
    let waiting = server.plan("echo waits");
    let (status, answer) = erase(&operator, json!({ "plan": waiting }));
    assert_eq!((status, &answer["code"], &answer["state"]), (409, &json!("not_erasable"), &json!("pending")));
    assert_eq!(erase(&operator, json!({"before": "2020-01-01"})), (200, json!({"erased": 0, "more": false})));

    let erased = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["erase", "--plan", id, "--yes"]);
    assert_eq!(String::from_utf8_lossy(&erased.stdout), "erased 1\n", "{erased:?}");
    assert_eq!(erase(&operator, json!({ "plan": id })).0, 409);
    let (_, plan) = server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!((&plan["command"], &plan["state"]), (&json!("[erased]"), &json!("finished")));
    assert!(plan["erased_at"].is_string() && !plan.to_string().contains(MARK), "{plan}");
    assert!(plan["digest"].is_string() && plan["run"]["exit_code"] == 0, "{plan}");
    let unsure = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["erase", "--before", "2099-01-01"]);
    assert_eq!(unsure.status.code(), Some(2), "it did not ask");

    // What a stranger checks is as it was, and one entry more.
    let exported = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["audit", "export"]);
    let log = String::from_utf8(exported.stdout).unwrap();
    assert!(log.contains("plan.erased") && !log.contains(MARK), "{log}");
    let kept = server.root.path().join("runtime/audit/checkpoint");
    let signed = || fs::read_to_string(&kept).ok()?.lines().nth(1)?.parse::<usize>().ok();
    until("a checkpoint over the erasure", || signed() == Some(log.lines().count()));
    // A backup made now has nothing of it either, and holds together.
    let to = tempfile::tempdir().unwrap();
    let to = to.path().join("b");
    let backup = server.cli(("AGENT_HUB_LOG_LEVEL", "INFO"), &["backup", to.to_str().unwrap()]);
    assert!(backup.status.success(), "{backup:?}");
    assert!(!fs::read(to.join("provara.db")).unwrap().windows(MARK.len()).any(|it| it == MARK.as_bytes()));
}

fn denied(server: &Served, command: &str) -> String {
    let id = server.plan(command);
    assert_eq!(server.by(&server.operator(), "POST", &format!("/deny/{id}"), &Value::Null).0, 200);
    id
}

#[test]
fn what_is_older_than_the_retention_is_erased_by_the_server_itself_and_what_is_younger_stays() {
    let mut server = Served::new();
    let ids: Vec<String> = (0..250).map(|n| denied(&server, &format!("echo {n}"))).collect();
    let young = server.approved("echo young")["pending_id"].as_str().unwrap().to_owned();
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    // Two days pass for all but one.
    let conn = rusqlite::Connection::open(server.root.path().join("runtime/provara.db")).unwrap();
    for sql in [
        "UPDATE plans SET queued_at = queued_at - 172800000 WHERE id <> ?1",
        "UPDATE log SET ts = ts - 172800000 WHERE plan <> ?1",
    ] {
        conn.execute(sql, [&young]).unwrap();
    }
    drop(conn);
    let root = server.root.path().to_owned();
    (server.process, server.base) = start_with(&root, &[("AGENT_HUB_RETENTION_DAYS", "1")]);
    let operator = server.operator();
    let look = |id: &str| server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null).1;
    until("the last of several steps", || look(ids.last().unwrap())["erased_at"].is_string());
    assert!(ids.iter().step_by(25).all(|id| look(id)["command"] == "[erased]"));
    assert_eq!((&look(&young)["command"], &look(&young)["erased_at"]), (&json!("echo young"), &Value::Null));
}
