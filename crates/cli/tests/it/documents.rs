//! Every console example of the documents, run in order in one shell against a real server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::served::Served;

/// One command of a document, how it should end, and what it should print.
struct Example {
    command: String,
    code: i32,
    expected: Vec<String>,
}

/// The commands of every console block: `$ ` begins one, `> ` continues it, other lines are what it prints.
fn examples(document: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    for block in document.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                let (command, code) = command.split_once("    # exit ").unwrap_or((command, "0"));
                found.push(Example { command: command.to_owned(), code: code.parse().unwrap(), expected: Vec::new() });
            } else if let Some(more) = line.strip_prefix("> ") {
                let example = found.last_mut().unwrap();
                example.command = format!("{}\n{more}", example.command);
            } else {
                found.last_mut().unwrap().expected.push(line.to_owned());
            }
        }
    }
    found
}

/// Whether `printed` is as the document shows it: `…` stands for some of a line, and alone for any number of lines.
fn is_as_shown(expected: &[String], printed: &[&str]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "…" => (0..=printed.len()).any(|n| is_as_shown(rest, &printed[n..])),
        Some((line, rest)) => {
            printed.split_first().is_some_and(|(first, more)| is_line_as_shown(line, first) && is_as_shown(rest, more))
        }
    }
}

fn is_line_as_shown(expected: &str, printed: &str) -> bool {
    match expected.split_once('…') {
        None => expected == printed,
        Some((before, after)) => printed.strip_prefix(before).is_some_and(|rest| {
            let borders = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            borders.into_iter().any(|at| is_line_as_shown(after, &rest[at..]))
        }),
    }
}

/// Runs the document's examples in order in one shell, and compares how each ends and what it prints. What prints nothing in
/// the document may print nothing.
fn run_as_shown(document: &str, folder: &Path, environment: &[(&str, &str)]) {
    let examples = examples(document);
    assert!(examples.len() >= 4, "only {} examples were found", examples.len());
    let mut script = "set -u; trap 'kill $(jobs -p) 2>/dev/null' EXIT\n".to_owned();
    for (n, Example { command, .. }) in examples.iter().enumerate() {
        script.push_str(&format!("exec >out.{n} 2>&1\n{command}\necho $? >code.{n}\n"));
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_provara")).parent().unwrap();
    let status = Command::new("timeout")
        .args(["60", "bash", "-c", &script])
        .env_clear()
        .env("PATH", format!("{}:{}", binary.display(), std::env::var("PATH").unwrap()))
        .env("AGENT_HUB_PORT", "0")
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    for (n, Example { command, code, expected }) in examples.iter().enumerate() {
        let read = |name: &str| fs::read_to_string(folder.join(format!("{name}.{n}"))).unwrap_or_default();
        let (printed, ended) = (read("out"), read("code"));
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(ended.trim(), code.to_string(), "`{command}` printed {printed} ({status})");
        assert!(is_as_shown(expected, &lines), "`{command}` printed\n{printed}\ninstead of\n{}", expected.join("\n"));
    }
}

#[test]
fn what_differs_from_a_document_is_seen() {
    let shown = |expected: &str, printed: &str| {
        let expected: Vec<String> = expected.lines().map(str::to_owned).collect();
        is_as_shown(&expected, &printed.lines().collect::<Vec<_>>())
    };
    assert!(
        shown("a\n…\nz", "a\nb\nc\nz") && shown("a\n…\nz", "a\nz") && shown("id 2…  x", "id 2026  x") && shown("", "")
    );
    assert!(!shown("a", "a\nb") && !shown("a\nb", "a") && !shown("", "x") && !shown("id 2…  x", "id 2026  y"));
    assert!(!shown("a\n…\nz", "a\nb") && !shown("…x", "xy"));
}

#[test]
fn every_example_of_the_tour_works() {
    let folder = tempfile::tempdir().unwrap();
    // Commands run as another user, who has to get in.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    run_as_shown(include_str!("../../../../docs/tour.md"), folder.path(), &[]);
}

#[test]
fn every_example_for_agent_developers_works() {
    let server = Served::new();
    let (folder, agent, done) = (tempfile::tempdir().unwrap(), server.agent(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| approve_while(&server, &done, "df -P"));
        let ended = std::panic::catch_unwind(|| {
            let environment = [("AGENT_HUB_BASE", server.base.as_str()), ("AGENT_HUB_TOKEN", agent.as_str())];
            run_as_shown(include_str!("../../../../docs/agents.md"), folder.path(), &environment);
        });
        done.store(true, Ordering::SeqCst);
        ended.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    });
}

#[test]
fn every_example_for_auditors_works_with_no_server_left() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::new();
    server.approved("true");
    let (_, checkpoint) = server.by(&server.operator(), "GET", "/audit/checkpoint", &Value::Null);
    for (file, field) in [("kept.note", "checkpoint"), ("log.vkey", "key")] {
        fs::write(folder.path().join(file), checkpoint[field].as_str().unwrap()).unwrap();
    }
    let operator = server.operator();
    let export = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["audit", "export"]);
    fs::write(folder.path().join("log.jsonl"), export.stdout).unwrap();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crosscheck.py"), folder.path().join("crosscheck.py")).unwrap();
    drop(server);
    run_as_shown(include_str!("../../../../docs/auditor.md"), folder.path(), &[]);
}

/// Whoever begins with the index or the front page finds every document, and every link of every document leads somewhere.
#[test]
fn every_link_leads_somewhere_and_every_document_is_in_the_index() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let names = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<_> = names.filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect();
    let index = read(&root.join("docs/README.md"));
    let fronts = ["README.md", "CHANGELOG.md", "ARCHITECTURE.md"].map(|name| root.join(name));
    for page in pages.iter().chain(&fronts) {
        for link in read(page).split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let file = link.split('#').next().unwrap();
            let there = page.parent().unwrap().join(file);
            assert!(link.starts_with("http") || file.is_empty() || there.exists(), "{}: {link}", page.display());
        }
    }
    for page in &pages {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(name == "README.md" || index.contains(&format!("({name})")), "{name} is not in docs/README.md");
    }
}

/// Every test that the front page names is one.
#[test]
fn the_front_page_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = String::new();
    let mut folders = vec![root.join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let readme = include_str!("../../../../README.md");
    let claims = readme.split("## What holds").nth(1).unwrap().split("\n## ").next().unwrap();
    let names: Vec<&str> = claims.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        assert!(sources.contains(&format!("fn {name}(")), "no test is called {name}");
    }
}

/// Approves what the document leaves to somebody else, until told to end.
fn approve_while(server: &Served, done: &AtomicBool, part: &str) {
    while !done.load(Ordering::SeqCst) {
        let (_, pending) = server.by(&server.operator(), "GET", "/pending", &Value::Null);
        for plan in pending.as_array().into_iter().flatten() {
            if plan["command"].as_str().unwrap().contains(part) {
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
        scope.spawn(|| approve_while(&server, &done, "approved-by-somebody"));
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
