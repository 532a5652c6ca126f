//! Previews, through the whole product: for whoever decides, on the record, and kept nowhere.

use std::fs;

use serde_json::{Value, json};

use super::served::{Served, marked, sleeps, until};

fn preview(server: &Served, token: &str, id: &str) -> (u16, Value) {
    server.by(token, "POST", &format!("/commands/{id}/preview"), &Value::Null)
}

/// The leaves of the log that are about `id`.
fn events(server: &Served, id: &str) -> Vec<String> {
    let (_, log) = server.by(&server.operator(), "GET", "/audit?limit=500", &Value::Null);
    let lines = log.as_str().unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|entry| entry["leaf"].as_str().unwrap().to_owned()).filter(|leaf| leaf.contains(id)).collect()
}

#[test]
fn a_preview_is_the_approvers_alone_and_on_the_record() {
    let server = Served::new();
    let workspace = server.root.path().join("workspace");
    fs::write(workspace.join("old"), "as it was\n").unwrap();
    let id = server.plan("echo words-of-the-command; echo x >made-by-it; rm -f old; exit 4");
    let (status, seen) = preview(&server, &server.operator(), &id);
    assert_eq!(status, 200, "{seen}");
    assert_eq!((&seen["exit_code"], &seen["stdout"]), (&json!(4), &json!("words-of-the-command\n")));
    let told = |change: &Value| format!("{} {} {}", change["kind"], change["type"], change["path"]);
    let changes: Vec<String> = seen["changes"].as_array().unwrap().iter().map(told).collect();
    assert_eq!(changes[0], r#""created" "file" "made-by-it""#, "{seen}");
    assert!(workspace.join("old").exists() && !workspace.join("made-by-it").exists());

    let logged = events(&server, &id);
    let of = |kind: &str| logged.iter().find(|leaf| leaf.contains(&format!(r#""type":"{kind}""#))).unwrap().clone();
    assert!(of("plan.preview_started").contains(r#""name":"operator""#), "{logged:?}");
    assert!(of("plan.previewed").contains(r#""name":"operator""#), "{logged:?}");
    let digest = seen["changes_sha256"].as_str().unwrap();
    assert!(of("plan.previewed").contains(digest), "{}", of("plan.previewed"));

    // No agent asks for one, or finds anything of it.
    assert_eq!(preview(&server, &server.agent(), &id).0, 403);
    for path in [format!("/commands/{id}"), "/pending".to_owned(), "/runs".to_owned()] {
        let (_, found) = server.by(&server.agent(), "GET", &path, &Value::Null);
        assert!(!found.to_string().contains("\"words-of-the-command\\n\""), "{path}: {found}");
        assert!(!found.to_string().contains("changes"), "{path}: {found}");
    }
    let (_, known) = server.by(&server.agent(), "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!((&known["state"], &known["run"]), (&json!("pending"), &Value::Null));

    // It stays one plan, which is decided and runs once.
    let (status, ran) =
        server.by(&server.operator(), "POST", &format!("/approve/{id}"), &json!({ "digest": seen["digest"] }));
    assert_eq!((status, &ran["exit_code"]), (200, &json!(4)));
    assert!(workspace.join("made-by-it").exists());
    let (status, late) = preview(&server, &server.operator(), &id);
    assert_eq!((status, &late["code"], &late["state"]), (409, &json!("plan_not_pending"), &json!("finished")));
    assert_eq!(preview(&server, &server.operator(), "20260101_120000_0123456789abcdef").0, 404);
}

#[test]
fn a_denied_plan_is_not_previewed() {
    let server = Served::new();
    let (_, blocked) = server.by(&server.agent(), "POST", "/plan", &json!({ "command": "rm -rf /" }));
    assert_eq!(blocked["code"], "policy_denied");
    let (status, refused) = preview(&server, &server.operator(), blocked["pending_id"].as_str().unwrap());
    assert_eq!((status, &refused["code"]), (409, &json!("plan_not_pending")));
    let id = server.plan("make");
    assert_eq!(server.by(&server.operator(), "POST", &format!("/deny/{id}"), &Value::Null).0, 200);
    assert_eq!(preview(&server, &server.operator(), &id).0, 409);
}

#[test]
fn a_preview_tells_no_secret_that_a_run_would_not() {
    let server = Served::new();
    let plan = json!({ "command": "cat; echo \"$MY_SECRET\" >&2", "stdin": server.agent(),
        "env": { "MY_SECRET": "kx-of-the-environment" } });
    let (_, made) = server.by(&server.agent(), "POST", "/plan", &plan);
    let (_, seen) = preview(&server, &server.operator(), made["pending_id"].as_str().unwrap());
    assert_eq!(
        (&seen["stdout"], &seen["stderr"], &seen["redactions"]),
        (&json!("[redacted:agent-token]"), &json!("[redacted:variable-my-secret]\n"), &json!(2))
    );
}

#[test]
fn four_go_on_at_once_and_a_stopping_server_ends_them() {
    let mut server = Served::new();
    let mark = marked(311);
    let id = server.plan(&format!("sleep {mark}"));
    let operator = server.operator();
    let count = || {
        let found = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).starts_with(&format!("sleep\0{mark}"))
        });
        found.count()
    };
    let pid = server.process.id().to_string();
    let ended: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| preview(&server, &operator, &id))).collect();
        until("four previews", || count() == 4);
        let (status, fifth) = preview(&server, &operator, &id);
        assert_eq!((status, &fifth["code"]), (429, &json!("too_many_previews")), "{fifth}");
        // None of them takes the place of a run.
        assert_eq!(server.approved("echo ran")["exit_code"], 0);
        assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (status, seen) in ended {
        assert_eq!((status, &seen["outcome"]["kind"]), (200, &json!("cancelled")), "{seen}");
    }
    assert!(server.process.wait().unwrap().success());
    assert!(!sleeps(&mark));
}

#[test]
fn the_command_line_shows_what_would_change() {
    let server = Served::new();
    let id = server.plan("echo hi; echo x >$'odd\\e[31m\\nname'; ln -s /etc link");
    let shown = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &server.operator()), &["preview", &id]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success(), "{text} {}", String::from_utf8_lossy(&shown.stderr));
    assert!(text.starts_with("exited with code 0, in a copy of the workspace; nothing was changed\n"), "{text}");
    assert!(text.contains("  created   link    link -> /etc (mode 0777)\n"), "{text}");
    assert!(!text.contains('\u{1b}') && text.ends_with("--- stdout\nhi\n"), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
    let json = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &server.operator()), &["--json", "preview", &id]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["changes"].as_array().unwrap().len(), 2, "{json}");
}
