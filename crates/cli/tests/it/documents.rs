//! Every console example of the documents, run in order in one shell against a real server.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::served::Served;

/// Approves the one plan that the document leaves to somebody else, until told to end.
fn approve_what_somebody_approves(server: &Served, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) {
        let (_, pending) = server.by(&server.operator(), "GET", "/pending", &Value::Null);
        for plan in pending.as_array().into_iter().flatten() {
            if plan["command"].as_str().unwrap().contains("approved-by-somebody") {
                let path = format!("/approve/{}", plan["pending_id"].as_str().unwrap());
                let _ = server.by(&server.operator(), "POST", &path, &Value::Null);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_example_of_the_command_lines_document_works() {
    let server = Served::new();
    let document = include_str!("../../../../docs/cli.md");
    let mut script = "set -u\n".to_owned();
    let mut examples = 0;
    for block in document.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            let example = line.strip_prefix("$ ").unwrap();
            let (example, code) = example.split_once("    # exit ").unwrap_or((example, "0"));
            examples += 1;
            let told = format!("echo example {examples} ended with $code >&2; exit 1;");
            script.push_str(&format!(
                "{example}
code=$?; [ $code = {code} ] || {{ {told} }}
"
            ));
        }
    }
    assert!(examples > 25, "only {examples} examples were found");
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_provara")).parent().unwrap();
    let done = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| approve_what_somebody_approves(&server, &done));
        let output = Command::new("timeout")
            .args(["60", "bash", "-c", &script])
            .env_clear()
            .env("PATH", format!("{}:{}", binary.display(), std::env::var("PATH").unwrap()))
            .env("AGENT_HUB_ROOT", server.root.path())
            .env("AGENT_HUB_BASE", &server.base)
            .current_dir(server.root.path())
            .stdin(Stdio::null())
            .output();
        done.store(true, Ordering::SeqCst);
        output.unwrap()
    });
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(fs::read_to_string(server.root.path().join("log.jsonl")).unwrap().contains("plan.approved"));
}

#[test]
fn the_manual_names_every_command_and_every_exit_code() {
    let help = Command::new(env!("CARGO_BIN_EXE_provara")).env_clear().arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let readme = concat!(include_str!("../../../../docs/cli.md"), include_str!("../../../../README.md"));
    let changes = include_str!("../../../../CHANGELOG.md");
    for line in commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let name = line.split_whitespace().next().unwrap();
        let told = readme.contains(&format!("provara {name}")) || changes.contains(&format!("`{name}`"));
        assert!(told || readme.contains(&format!("`{name}`")) || name == "help", "`{name}` is in no document");
    }
}
