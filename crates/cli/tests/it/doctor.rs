//! What `doctor` finds, and that it finds it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::Uid;
use serde_json::Value;

use crate::served::{Served, until};

/// Calls `doctor` in `root` and returns its exit code and its findings.
fn examine(mut doctor: Command, root: &Path) -> (Option<i32>, Vec<Value>) {
    let path = std::env::var_os("PATH").unwrap();
    doctor.env_clear().env("PATH", path).env("AGENT_HUB_ROOT", root).args(["--json", "doctor"]).stdin(Stdio::null());
    let output = doctor.output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| Value::String(format!("{output:?}")));
    let findings = answer["findings"].as_array().unwrap_or_else(|| unreadable(&answer)).clone();
    assert_eq!(answer["ok"], output.status.success(), "{answer}");
    for finding in &findings {
        assert_eq!(finding["cure"] == "", finding["level"] == "ok", "a fault without a cure: {finding}");
    }
    (output.status.code(), findings)
}

fn unreadable(answer: &Value) -> &Vec<Value> {
    assert!(answer.is_object(), "no findings: {answer}");
    answer.as_array().unwrap()
}

fn own() -> Command {
    Command::new(env!("CARGO_BIN_EXE_provara"))
}

fn at<'a>(findings: &'a [Value], level: &str, check: &str) -> Option<&'a str> {
    findings.iter().find(|it| it["level"] == level && it["check"] == check).map(|it| it["text"].as_str().unwrap())
}

#[test]
fn whoever_could_read_the_servers_secrets_is_told_so_and_it_fails() {
    let server = Served::new();
    let (code, found) = examine(own(), server.root.path());
    assert_eq!(code, Some(1));
    for (what, file) in
        [("operator's token", "operator_token.txt"), ("log's key", "log_key"), ("database", "provara.db")]
    {
        let text = at(&found, "fail", what).unwrap();
        assert!(text.starts_with("you can read `") && text.contains(file), "{text}");
    }
    // Only the token's file can be done without.
    let cure = |check: &str| found.iter().find(|it| it["check"] == check).unwrap()["cure"].as_str().unwrap();
    assert!(cure("operator's token").contains("remove the file"));
    for check in ["log's key", "database"] {
        assert!(cure(check).contains("`provara setup`") && !cure(check).contains("remove"), "{check}");
    }
    assert!(at(&found, "warn", "same user").is_some());
    assert!(at(&found, "warn", "checkpoints").is_some());
    assert!(at(&found, "ok", "workspace").is_some() && at(&found, "ok", "HOST").is_some(), "{found:?}");
}

#[test]
fn another_user_can_read_nothing_and_is_told_that_all_is_well() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: only root can call doctor as another user");
        return;
    }
    let server = Served::new();
    // Where this test's program lies, that user may not look.
    let binary = server.root.path().join("provara");
    fs::copy(env!("CARGO_BIN_EXE_provara"), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let mut doctor = Command::new(binary);
    doctor.uid(65_534).gid(65_534).current_dir("/");
    let (code, found) = examine(doctor, server.root.path());
    assert_eq!(
        at(&found, "ok", "secrets"),
        Some("you can read neither the operator's token, nor the log's key, nor the database")
    );
    assert!(at(&found, "warn", "same user").is_none());
    assert_eq!(code, Some(0), "{found:?}");
}

#[test]
fn modes_a_cut_mirror_and_a_clock_that_was_set_back_are_found() {
    let server = Served::new();
    let runtime = server.root.path().join("runtime");
    let mirror = runtime.join("audit/log.jsonl");
    until("a signed mirror", || {
        runtime.join("audit/checkpoint").exists() && fs::read(&mirror).is_ok_and(|all| !all.is_empty())
    });
    server.plan("make x");
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(&runtime, 0o755);
    set(&runtime.join("log_key"), 0o644);
    set(server.root.path(), 0o777);
    let whole = fs::read_to_string(&mirror).unwrap();
    fs::write(&mirror, whole.split_inclusive('\n').take(1).collect::<String>()).unwrap();
    let (_, found) = examine(own(), server.root.path());
    assert!(at(&found, "fail", "runtime").unwrap().contains("has mode 755"), "{found:?}");
    assert!(at(&found, "fail", "folders above").unwrap().contains("can be exchanged"), "{found:?}");
    assert!(found.iter().any(|it| it["text"].as_str().unwrap().starts_with("others can read `")), "{found:?}");
    assert!(at(&found, "fail", "mirror").unwrap().contains("it holds 1 entries"), "{found:?}");
    let ahead = r#"{"position":0,"leaf":"{\"ts\":99999999999}"}"#;
    fs::write(&mirror, format!("{ahead}\n")).unwrap();
    let (_, found) = examine(own(), server.root.path());
    assert!(at(&found, "fail", "clock").unwrap().contains("in the future"), "{found:?}");
    fs::write(&mirror, "torn").unwrap();
    assert_eq!(at(&examine(own(), server.root.path()).1, "fail", "mirror"), Some("its last line is no entry"));
}

#[test]
fn settings_that_open_the_server_are_found_before_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("provara.toml"), "host = \"0.0.0.0\"\nsingle_token = true\nworkspace_dir = \".\"\nallow_host_same_user = true\nbase = \"http://127.0.0.1:1\"\n").unwrap();
    let (code, found) = examine(own(), dir.path());
    assert_eq!(code, Some(1));
    assert!(at(&found, "fail", "HOST").is_some() && at(&found, "fail", "workspace").is_some());
    assert!(at(&found, "warn", "single token").is_some() && at(&found, "warn", "host profile").is_some());
    assert!(at(&found, "warn", "runtime").unwrap().contains("no server was started here yet"));
    assert!(at(&found, "warn", "server").unwrap().contains("no server answers"));
    assert!(!dir.path().join("runtime").exists());
    let human = own().env_clear().env("AGENT_HUB_ROOT", dir.path()).arg("doctor").output().unwrap();
    let human = String::from_utf8(human.stdout).unwrap();
    assert!(
        human.contains("FAIL  HOST: ") && human.contains("\n      cure: ") && human.ends_with("NOT OK\n"),
        "{human}"
    );
}

#[test]
fn a_running_server_says_what_this_host_enforces() {
    let server = Served::new();
    let mut doctor = own();
    doctor.args(["--base", &server.base]);
    let (_, found) = examine(doctor, server.root.path());
    assert!(at(&found, "ok", "server").unwrap().starts_with("version "), "{found:?}");
    assert!(
        found.iter().any(|it| it["check"] == "confinement" && it["text"].as_str().unwrap().contains("commands ")),
        "{found:?}"
    );
}
