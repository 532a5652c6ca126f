//! The wrong turns of somebody who uses Provara for the first time, and what they are told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::served::Served;
use crate::stderr;

fn provara(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut provara = Command::new(env!("CARGO_BIN_EXE_provara"));
    provara.env_clear().envs(environment.iter().copied()).current_dir("/").args(arguments);
    provara.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_server_is_found_in_its_folder_whatever_port_it_took() {
    let server = Served::new();
    let root = server.root.path().to_str().unwrap();
    let found = provara(&["status"], &[("AGENT_HUB_ROOT", root)]);
    assert!(String::from_utf8_lossy(&found.stdout).contains(&server.base), "{found:?}");
    // Said outright, another address counts.
    assert_eq!(
        provara(&["--base", "http://127.0.0.1:1", "status"], &[("AGENT_HUB_ROOT", root)]).status.code(),
        Some(5)
    );
}

#[test]
fn a_file_that_names_another_machine_gets_no_token() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("runtime")).unwrap();
    for forged in [
        "http://192.0.2.1:9",
        "https://example.org",
        "http://127.0.0.1.example.org",
        "http://127.0.0.1@192.0.2.1:9",
        "http://127.0.0.1:1@192.0.2.1:9",
        "http://localhost@192.0.2.1:9",
    ] {
        fs::write(root.path().join("runtime/address"), format!("{forged}\n")).unwrap();
        let environment = [
            ("AGENT_HUB_ROOT", root.path().to_str().unwrap()),
            ("AGENT_HUB_TOKEN", "an-agents-token-of-a-test"),
            ("AGENT_HUB_PORT", "1"),
        ];
        let output = provara(&["pending"], &environment);
        assert_eq!(output.status.code(), Some(5), "{forged}: {output:?}");
        assert!(stderr(&output).contains("no server answers at http://127.0.0.1:1;"), "{forged}: {}", stderr(&output));
    }
}

#[test]
fn a_root_that_is_not_there_a_missing_token_and_a_missing_dash_are_explained() {
    let gone = provara(&["serve"], &[("AGENT_HUB_ROOT", "/nowhere/at/all")]);
    assert_eq!(gone.status.code(), Some(2));
    assert!(stderr(&gone).contains("make it with `mkdir -p`"), "{}", stderr(&gone));
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_str().unwrap();
    let none = provara(&["pending"], &[("AGENT_HUB_ROOT", root)]);
    assert_eq!(none.status.code(), Some(2));
    assert!(
        stderr(&none).contains("--root") && stderr(&none).contains("AGENT_HUB_OPERATOR_TOKEN"),
        "{}",
        stderr(&none)
    );
    for words in [&["plan", "ls", "-l"][..], &["run", "ls"], &["edit", "x", "ls"]] {
        let slip = provara(words, &[]);
        assert_eq!(slip.status.code(), Some(2));
        assert!(stderr(&slip).contains("the command comes after `--`"), "{words:?}: {}", stderr(&slip));
    }
    assert!(!stderr(&provara(&["serve", "--prot", "1"], &[])).contains("comes after"));
    let help = provara(&["plan", "--help"], &[]);
    assert!(help.status.success() && help.stderr.is_empty() && !help.stdout.is_empty());
}

/// A run is looked at by its own id or its plan's, both streams, while it goes on and afterwards.
#[test]
fn logs_print_what_a_run_wrote_and_follow_it_to_its_end() {
    let server = Served::new();
    let operator = server.operator();
    let done = server.approved("printf 'out\\n'; printf 'err\\n' >&2; exit 3");
    let logs = |arguments: &[&str]| {
        let output = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &[&["logs"], arguments].concat());
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), out, err)
    };
    let whole = (Some(0), "out\n".to_owned(), "err\n".to_owned());
    for id in [&done["run_id"], &done["pending_id"]] {
        let id = id.as_str().unwrap();
        assert_eq!(logs(&[id]), whole, "{id}");
        assert_eq!(logs(&["-f", id]), whole, "{id}");
    }
    let large = server.approved("head -c 3000000 /dev/zero | tr '\\0' x");
    assert_eq!(logs(&[large["run_id"].as_str().unwrap()]).1.len(), 3_000_000, "a page for the whole");
    let waiting = server.plan("true");
    let (code, out, err) = logs(&[&waiting]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("the plan is pending"), "{err}");
}

#[test]
fn refusals_say_what_to_do_next_unless_they_are_to_be_quiet() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let id = server.plan("true");
    let told = |token: &str, arguments: &[&str]| stderr(&server.cli(("AGENT_HUB_OPERATOR_TOKEN", token), arguments));
    let unknown = "20260101_120000_0123456789abcdef";
    for (token, arguments, next) in [
        ("a-token-of-another-server", &["pending"][..], "is it a token of this server?"),
        (&agent, &["approve", &id, "--yes"], "use a token with that role"),
        (&operator, &["show", unknown], "`provara history` lists"),
        (&operator, &["approve", "no-id-at-all", "--yes"], "`provara history` lists"),
    ] {
        let said = told(token, arguments);
        assert!(said.starts_with("provara: ") && said.contains(&format!("\n  next: {next}")), "{arguments:?}: {said}");
        let quiet: Vec<&str> = ["--quiet"].into_iter().chain(arguments.iter().copied()).collect();
        assert!(!told(token, &quiet).contains("next:"));
    }
    server.by(&operator, "POST", &format!("/deny/{id}"), &json!({ "reason": "no" }));
    let said = told(&operator, &["approve", &id, "--yes"]);
    assert!(said.contains("next: `provara show ID` tells what became of it"), "{said}");
}

#[test]
fn history_lists_what_became_of_plans_by_state_and_shows_an_agent_its_own_only() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    server.approved("exit 3");
    let hidden = server.plan("echo a\u{202e}b");
    server.by(&operator, "POST", &format!("/deny/{hidden}"), &Value::Null);
    let as_operator = |arguments: &[&str]| {
        let output = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let all = as_operator(&["history"]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 3, "{all}");
    assert!(lines[1].contains("denied") && lines[1].ends_with("echo a⟦U+202E⟧b"), "{all}");
    assert!(lines[2].contains("finished") && lines[2].contains("exited with code 3"), "{all}");
    assert_eq!(as_operator(&["history", "--state", "denied"]).lines().count(), 2);
    assert_eq!(as_operator(&["history", "--state", "lost"]), "nothing was proposed\n");
    let json: Value = serde_json::from_str(&as_operator(&["--json", "history", "--limit", "1"])).unwrap();
    assert_eq!(json[0]["pending_id"], hidden.as_str());
    let wrong = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["history", "--state", "x&limit=500"]);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    let (status, made) = server.by(&operator, "POST", "/tokens", &json!({"name": "other", "roles": ["agent"]}));
    assert!(status < 300, "{made}");
    let token = made["token"].as_str().unwrap();
    let other = server.cli(("AGENT_HUB_OPERATOR_TOKEN", token), &["history"]);
    assert_eq!(String::from_utf8_lossy(&other.stdout), "nothing was proposed\n");
    assert_ne!(agent, token);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: only root can start a server as another user");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = root.path().join("provara");
    fs::copy(env!("CARGO_BIN_EXE_provara"), &binary).unwrap();
    let mut serve = Command::new(&binary);
    std::os::unix::process::CommandExt::uid(&mut serve, 65_534);
    serve.env_clear().env("AGENT_HUB_ROOT", root.path()).env("AGENT_HUB_PORT", "0").arg("serve");
    let output = serve.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("/runtime` cannot be made: ") && said.contains("may this user write"), "{said}");
}
