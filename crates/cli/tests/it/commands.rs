//! Every command as a user types it: whole outputs, shapes of `--json`, exit codes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex::Regex;
use serde_json::{Value, json};

use crate::served::{Served, marked, sleeps, until};

/// What changes from run to run, by a word that does not.
pub(crate) fn masked(server: &Served, text: &str) -> String {
    let mut text = text.replace(&server.base, "BASE").replace(server.root.path().to_str().unwrap(), "ROOT");
    for (pattern, word) in [
        (r"\d{8}_\d{6}_[0-9a-f]{16}", "ID"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (r"sha256:[0-9a-f]{64}", "DIGEST"),
        (r"\b[0-9a-f]{64}\b", "HASH"),
        (r"\b\d+s\b", "AGE"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, word).into_owned();
    }
    text
}

fn command(server: &Served, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_provara"));
    command.env_clear().env("AGENT_HUB_ROOT", server.root.path()).args(["--base", &server.base]).args(arguments);
    command.stdin(Stdio::null());
    command
}

/// Calls with both tokens where the server put them, and returns code, stdout and stderr, masked.
fn call(server: &Served, arguments: &[&str]) -> (Option<i32>, String, String) {
    told(server, &command(server, arguments).output().unwrap())
}

fn told(server: &Served, output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| masked(server, std::str::from_utf8(bytes).unwrap());
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The answer of a call that must work, unmasked.
fn answer(server: &Served, arguments: &[&str]) -> String {
    let output = command(server, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn json_answer(server: &Served, arguments: &[&str]) -> Value {
    let text = answer(server, &[&["--json"], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

/// A `run` at work, once its plan waits.
fn running(server: &Served, arguments: &[&str]) -> (Child, String) {
    let known = |server: &Served| json_answer(server, &["pending"]).as_array().unwrap().len();
    let before = known(server);
    let child = command(server, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the plan", || known(server) > before);
    (child, json_answer(server, &["pending"])[0]["pending_id"].as_str().unwrap().to_owned())
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_plan_reads_like_this_from_proposal_to_receipt() {
    let server = Served::new();
    fs::write(server.root.path().join("input"), b"one\x1b[2J\n\xfftwo").unwrap();
    let input = server.root.path().join("input");
    let id = answer(
        &server,
        &[
            "plan",
            "--note",
            "so that\npolicy    allow (info)",
            "--stdin",
            input.to_str().unwrap(),
            "--env",
            "WHAT=a\u{200b}b",
            "--timeout",
            "20",
            "--expires",
            "3600",
            "--profile",
            "workspace",
            "--target",
            "local",
            "--",
            "make x; cat; echo $WHAT",
        ],
    );
    let (_, list, _) = call(&server, &["pending"]);
    assert_eq!(
        list,
        "ID                                AGE  AGENT  VERDICT  SEVERITY  PROFILE    COMMAND\n\
         ID  AGE   agent  ask      medium    workspace  make x; cat; echo $WHAT\n\
         workspace: writes only below workspace/ and a private tmp; no network; reads everything but Provara's own files and \
         credential folders; inherits LANG, LC_ALL and TZ; at most 4096 processes and 4096 open files each\n"
    );
    let (code, shown, _) = call(&server, &["show", &id]);
    let expected = "plan      ID
state     pending
agent     agent
asked     TIME (AGE ago)
expires   TIME
target    local
profile   workspace
  - writes only below workspace/ and a private tmp; no network; reads everything but Provara's own files and credential folders; inherits LANG, LC_ALL and TZ; at most 4096 processes and 4096 open files each
shell     bash
cwd       ROOT/workspace
time-out  20 s
digest    DIGEST
command
  | make x; cat; echo $WHAT
env
  | WHAT=a⟦U+200B⟧b
stdin     12 bytes
  | one⟦U+001B⟧[2J
  | ⟦0xFF⟧two
binding   DIGEST
          working directory and shell are bound
the agent says (its words; nobody checked them)
  | so that
  | policy    allow (info)
policy    ask (medium)
";
    assert!(code == Some(0) && shown.starts_with(expected), "{shown}");
    // Each reason with what it speaks of.
    assert!(shown.contains("\n    > make x\n"), "{shown}");
    let (code, out, err) = call(&server, &["approve", &id, "--yes", "--reason", "fine"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("exited with code 0\none⟦U+001B⟧[2J\n\u{fffd}two") || out.contains("⟦U+FFFD⟧two"), "{out}");
    let (_, after, _) = call(&server, &["show", &id]);
    let ended = "decision  approved by operator at TIME\n  | fine\nrun       ID\nbegan     TIME\noutcome   exited with code 0\nwritten   ";
    assert!(after.contains(ended) && after.contains("\nstdout\n  | one"), "{after}");
    assert_eq!(call(&server, &["pending"]).1, "nothing waits\n");
}

#[test]
fn a_list_cuts_and_says_so_and_what_is_decided_on_is_never_cut() {
    let server = Served::new();
    let long = format!("echo {}; echo the end", "x".repeat(5000));
    let id = server.plan(&long);
    let (_, list, _) = call(&server, &["pending"]);
    assert!(list.contains("xxx ⟦+4959 characters⟧\n") && !list.contains("the end"), "{list}");
    let (_, shown, _) = call(&server, &["show", &id]);
    assert!(shown.contains(&format!("  | {long}\n")), "the command was cut");
    // Approving without a terminal to ask on decides nothing.
    let asked = Command::new("setsid")
        .arg("--wait")
        .arg(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", server.root.path())
        .args(["--base", &server.base, "approve", &id])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (code, _, err) = told(&server, &asked);
    assert_eq!(code, Some(2));
    assert!(
        err.contains(&format!("  | {long}\n")) && err.ends_with("look with `provara show`, then give --yes\n"),
        "{err}"
    );
    assert_eq!(call(&server, &["status", &id]), (Some(4), "pending\n".into(), String::new()));
}

#[test]
fn json_has_the_documented_shapes() {
    let server = Served::new();
    let plan = json_answer(&server, &["plan", "--", "make a"]);
    assert_eq!(
        keys(&plan),
        ["command", "denied_before", "digest", "expires_at", "judgement", "pending_id", "queued", "state", "url"]
    );
    let id = plan["pending_id"].as_str().unwrap();
    let list = json_answer(&server, &["pending"]);
    assert_eq!((list.as_array().unwrap().len(), list[0]["pending_id"].as_str()), (1, Some(id)));
    let shown = json_answer(&server, &["show", id]);
    assert_eq!((&shown["state"], &shown["stdin_b64"], &shown["env"]), (&json!("pending"), &Value::Null, &json!({})));
    let status = json_answer(&server, &["status"]);
    assert_eq!(keys(&status), ["denied_count", "ok", "pending_count", "single_token", "token_required", "version"]);
    let edited = json_answer(&server, &["edit", id, "--", "make b"]);
    assert_eq!((&edited["command"], &edited["origin"]), (&json!("make b"), &json!(id)));
    let id = edited["pending_id"].as_str().unwrap();
    let run = json_answer(&server, &["approve", id, "--yes"]);
    assert_eq!((&run["pending_id"], &run["outcome"]["kind"]), (&json!(id), &json!("exited")));
    let checked = json_answer(&server, &["policy", "check", "rm -rf /"]);
    assert_eq!(checked["judgement"]["verdict"], "deny");
    assert!(json_answer(&server, &["policy", "show"])["rules"].as_array().unwrap().len() > 10);
    assert_eq!(json_answer(&server, &["policy", "test"])["ok"], true);
    let tokens = json_answer(&server, &["token", "list"]);
    assert_eq!(keys(&tokens[0]), ["created_at", "id", "name", "revoked_at", "roles"]);
    assert!(json_answer(&server, &["workspace", "list"])[0].as_str().unwrap().ends_with("/workspace"));
    let proof = json_answer(&server, &["audit", "prove", id]);
    assert_eq!(keys(&proof), ["entries", "root", "size"]);
    assert_eq!(keys(&json_answer(&server, &["audit", "checkpoint"])), ["checkpoint", "key"]);
    let tail = answer(&server, &["--json", "audit", "tail", "--since", "0", "--count", "3"]);
    let lines: Vec<Value> = tail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["position"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    for line in answer(&server, &["audit", "export"]).lines() {
        assert_eq!(keys(&serde_json::from_str(line).unwrap()), ["leaf", "position"]);
    }
    // What goes wrong is one value too: the server's own words where it has some.
    let refused = command(&server, &["--json", "plan", "--", "rm -rf /"]).output().unwrap();
    let refusal: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((refused.status.code(), &refusal["code"]), (Some(3), &json!("policy_denied")));
    let gone = Command::new(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", server.root.path())
        .args(["--base", "http://127.0.0.1:1", "--json", "status"])
        .output()
        .unwrap();
    let gone: Value = serde_json::from_slice(&gone.stdout).unwrap();
    assert_eq!((keys(&gone), &gone["code"]), (vec!["code", "detail"], &json!("unreachable")));
}

#[test]
fn the_exit_code_says_how_it_ended() {
    let server = Served::new();
    let code = |arguments: &[&str]| call(&server, arguments).0;
    assert_eq!(code(&["status"]), Some(0));
    assert_eq!(code(&["nonsense"]), Some(2));
    assert_eq!(code(&["plan", "--env", "noname", "--", "make x"]), Some(2));
    assert_eq!(call(&server, &["plan", "--", "rm -rf /"]).0, Some(3), "policy denies");
    assert_eq!(code(&["show", "20260101_000000_0123456789abcdef"]), Some(1));
    assert_eq!(code(&["show", "../tokens"]), Some(1));
    assert_eq!(code(&["--base", "http://127.0.0.1:1", "status"]), Some(2), "given twice");
    let wrong =
        command(&server, &["pending"]).env("AGENT_HUB_OPERATOR_TOKEN", "not-a-token-of-this-server").output().unwrap();
    assert_eq!(wrong.status.code(), Some(3), "a wrong token");

    let denied = server.plan("make denied");
    assert_eq!(code(&["deny", &denied, "--reason", "no\u{1b}[2J"]), Some(0));
    assert_eq!(call(&server, &["status", &denied]), (Some(3), "denied\n".into(), String::new()));
    let (code_, out, err) = call(&server, &["attach", &denied]);
    assert_eq!(
        (code_, out.as_str(), err.as_str()),
        (Some(125), "", "provara: a person denied this command: no⟦U+001B⟧[2J\n")
    );
    let withdrawn = server.plan("make withdrawn");
    assert_eq!(call(&server, &["cancel", &withdrawn]).1, "withdrawn\n");
    assert_eq!(
        call(&server, &["attach", &withdrawn]),
        (Some(125), String::new(), "provara: withdrawn: it was taken back before a decision\n".into())
    );
    let expired = answer(&server, &["plan", "--expires", "1", "--", "make expired"]);
    until("the expiry", || call(&server, &["status", &expired]).1 == "expired\n");
    assert_eq!(code(&["status", &expired]), Some(4));
    assert_eq!(call(&server, &["attach", &expired]).0, Some(125));
    let again = answer(&server, &["reopen", &expired]);
    assert_eq!(call(&server, &["status", &again]), (Some(4), "pending\n".into(), String::new()));
    assert_eq!(
        call(&server, &["approve", &denied, "--yes"]),
        (
            Some(1),
            String::new(),
            "provara: plan ID is denied and can no longer be decided\n  next: `provara show ID` tells what became of it\n"
                .into()
        )
    );
}

#[test]
fn run_ends_with_the_commands_code_and_with_125_where_provara_ended_it() {
    let server = Served::new();
    let ended = |arguments: &[&str], decide: &dyn Fn(&str)| {
        let (child, id) = running(&server, arguments);
        decide(&id);
        told(&server, &child.wait_with_output().unwrap())
    };
    let approve = |id: &str| drop(answer(&server, &["approve", id, "--yes", "--no-wait"]));
    let (code, out, err) = ended(&["run", "--", "echo out; echo err >&2; exit 7"], &approve);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(7), "out\n", "err\n"));
    let (code, _, err) = ended(&["run", "--timeout", "1", "--", "sleep 30"], &approve);
    assert_eq!(
        (code, err.as_str()),
        (Some(125), "provara: the command did not end by itself: timed_out: it was ended at its time-out\n")
    );
    let (code, _, err) = ended(&["run", "--", &format!("sleep {}", marked(4801))], &|id| {
        approve(id);
        until("the command", || sleeps(&marked(4801)));
        drop(answer(&server, &["cancel", id]));
    });
    assert_eq!(
        (code, err.as_str()),
        (Some(125), "provara: the command did not end by itself: cancelled: somebody asked for its end\n")
    );
    let (code, _, err) = ended(&["run", "--", "kill -9 $$"], &approve);
    assert_eq!(
        (code, err.as_str()),
        (Some(125), "provara: the command did not end by itself: signalled: signal 9 ended it\n")
    );
    let (code, _, err) = ended(&["run", "--cwd", "not-there", "--", "make x"], &approve);
    assert_eq!(code, Some(125));
    assert!(err.starts_with("provara: the command did not end by itself: spawn_failed (missing): "), "{err}");
    let (code, _, err) = ended(&["run", "--", "make policy"], &|id| drop(answer(&server, &["deny", id])));
    assert_eq!((code, err.as_str()), (Some(125), "provara: a person denied this command\n"));
    let (code, out, err) = call(&server, &["run", "--", "rm -rf /"]);
    assert_eq!((code, out.as_str()), (Some(125), ""));
    assert!(err.starts_with("provara: policy denies this command and it was not run: "), "{err}");
    // The command's own 125 is told from ours by a silent stderr.
    assert_eq!(ended(&["run", "--", "exit 125"], &approve), (Some(125), String::new(), String::new()));
    let (child, id) = running(&server, &["--json", "run", "--", "echo hi"]);
    approve(&id);
    let plan: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(
        (&plan["state"], &plan["run"]["stdout"], &plan["run"]["exit_code"]),
        (&json!("finished"), &json!("hi\n"), &json!(0))
    );
}

#[test]
fn run_follows_an_edit_and_reads_its_input_from_a_pipe() {
    let server = Served::new();
    let mut child = command(&server, &["run", "--stdin", "-", "--", "make x"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"b\na\n").unwrap();
    let mut id = String::new();
    until("the plan", || {
        id = json_answer(&server, &["pending"])[0]["pending_id"].as_str().unwrap_or_default().to_owned();
        !id.is_empty()
    });
    let edited = answer(&server, &["edit", &id, "--", "sort"]);
    drop(answer(&server, &["approve", &edited, "--yes"]));
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"a\nb\n"[..]));
}

#[test]
fn an_interrupt_leaves_the_plan_and_says_how_to_come_back() {
    let server = Served::new();
    let at_work = |arguments: &[&str]| {
        let (mut child, id) = running(&server, arguments);
        drop(answer(&server, &["approve", &id, "--yes", "--no-wait"]));
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
        (told(&server, &child.wait_with_output().unwrap()), id)
    };
    let ((code, _, err), id) = at_work(&["run", "--", &format!("echo at work; sleep {}", marked(4803))]);
    let words = "\nprovara: left; the plan goes on. Come back: provara attach ID. End it: provara cancel ID\n";
    assert_eq!((code, err.as_str()), (Some(130), words));
    assert_eq!(call(&server, &["status", &id]).1, "running\n");
    assert!(sleeps(&marked(4803)), "the interrupt reached the command");
    drop(answer(&server, &["cancel", &id]));
    let ((code, _, err), _) =
        at_work(&["run", "--cancel-on-interrupt", "--", &format!("echo at work; sleep {}", marked(4802))]);
    assert_eq!(code, Some(130));
    assert!(err.starts_with("\nprovara: cancel was asked for; the plan is "), "{err}");
    until("the end of both", || !sleeps(&marked(4802)) && !sleeps(&marked(4803)));
}

#[test]
fn a_server_that_goes_away_is_waited_for_and_not_for_ever() {
    let mut server = Served::new();
    let port = server.base.rsplit(':').next().unwrap().to_owned();
    let (patient, id) = running(&server, &["run", "--", "echo back"]);
    let (hasty, _) = running(&server, &["run", "--retry-for", "1", "--", "make hasty"]);
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let (code, _, err) = told(&server, &hasty.wait_with_output().unwrap());
    assert_eq!(code, Some(125));
    assert!(
        err.starts_with(
            "the plan goes on without you; come back: provara attach ID\nprovara: no server answers at BASE"
        ),
        "{err}"
    );
    fs::remove_file(server.root.path().join("runtime/address")).unwrap();
    fs::write(server.root.path().join(".env"), format!("AGENT_HUB_PORT={port}\n")).unwrap();
    (server.process, server.base) = restart(server.root.path(), &port);
    drop(answer(&server, &["approve", &id, "--yes"]));
    let output = patient.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"back\n"[..]), "{output:?}");
}

/// A server of that folder at the same port as before.
fn restart(root: &Path, port: &str) -> (Child, String) {
    let process = Command::new(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", root)
        .env("AGENT_HUB_PORT", port)
        .arg("serve")
        .stdin(Stdio::null())
        .stderr(fs::File::create(root.join("server.log")).unwrap())
        .spawn()
        .unwrap();
    let mut base = String::new();
    until("the server", || {
        base = fs::read_to_string(root.join("runtime/address")).unwrap_or_default().trim().to_owned();
        !base.is_empty()
    });
    (process, base)
}

#[test]
fn tokens_are_made_listed_rotated_in_one_step_and_ended() {
    let server = Served::new();
    let secret = answer(&server, &["token", "create", "ci", "--role", "agent"]);
    assert!(secret.starts_with("pv_agent_"), "{secret}");
    let (_, list, _) = call(&server, &["token", "list"]);
    let row = list.lines().find(|line| line.contains("  ci ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["ID", "ci", "agent", "TIME", "valid"]);
    let tokens = json_answer(&server, &["token", "list"]);
    let id = tokens.as_array().unwrap().iter().find(|token| token["name"] == "ci").unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let head = server.by(&server.operator(), "GET", "/audit", &Value::Null).1.as_str().unwrap().lines().count();
    let (code, new, err) = call(&server, &["token", "rotate", &id]);
    assert_eq!((code, err.as_str()), (Some(0), "token ID is shown this once:\n"));
    let new = new.trim_end();
    assert!(new.starts_with("pv_agent_") && new != secret);
    assert_eq!(server.by(&secret, "GET", "/pending", &Value::Null).0, 401, "the old one still works");
    assert_eq!(server.by(new, "GET", "/pending", &Value::Null).0, 200);
    let log = server.by(&server.operator(), "GET", &format!("/audit?from={head}"), &Value::Null).1;
    let types: Vec<bool> = log.as_str().unwrap().lines().map(|line| line.contains("token.created")).collect();
    assert_eq!((types, log.as_str().unwrap().matches("token.revoked").count()), (vec![true, false], 1));
    assert_eq!(call(&server, &["token", "rotate", &id]).0, Some(1), "a revoked token was rotated");
    let both = json!({ "replaces": id, "roles": ["admin"] });
    assert_eq!(server.by(&server.operator(), "POST", "/tokens", &both).0, 422);
    let mine = json!({ "replaces": id });
    assert_eq!(server.by(&server.agent(), "POST", "/tokens", &mine).0, 403);
    assert_eq!(call(&server, &["--quiet", "token", "rotate", "20260101_000000_0123456789abcdef"]).0, Some(1));
    let id =
        json_answer(&server, &["token", "list"]).as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(call(&server, &["token", "revoke", &id]), (Some(0), "revoked\n".into(), String::new()));
    assert_eq!(server.by(new, "GET", "/pending", &Value::Null).0, 401);
}

#[test]
fn workspaces_policy_and_the_log_read_like_this() {
    let server = Served::new();
    let more = server.root.path().join("more");
    fs::create_dir(&more).unwrap();
    let path = more.to_str().unwrap();
    assert_eq!(
        call(&server, &["workspace", "add", path]),
        (Some(0), "commands may work in ROOT/more\n".into(), String::new())
    );
    let listed: Vec<Vec<String>> = call(&server, &["workspace", "list"])
        .1
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect();
    assert_eq!(listed, [["PATH", "FROM"], ["ROOT/workspace", "configuration"], ["ROOT/more", "added"]]);
    fs::remove_dir(&more).unwrap();
    assert_eq!(call(&server, &["workspace", "remove", path]).1, "commands may no longer work in ROOT/more\n");

    let (code, checked, _) = call(&server, &["policy", "check", "echo hi && rm -rf /"]);
    assert_eq!(code, Some(0));
    assert!(checked.starts_with("policy    deny (") && checked.contains("\n    > rm -rf /\n"), "{checked}");
    let (_, rules, _) = call(&server, &["policy", "show"]);
    assert!(rules.starts_with("RULE ") && rules.trim_end().ends_with("DIGEST"), "{rules}");
    assert!(call(&server, &["policy", "test"]).1.contains("rules hold with all their examples\npolicy DIGEST\n"));

    let id = server.plan("make x");
    let (_, tail, _) = call(&server, &["audit", "tail", "--since", "0", "--count", "1"]);
    assert_eq!(tail.split_whitespace().collect::<Vec<_>>().get(1..3), Some(&["TIME", "token.created"][..]), "{tail}");
    let (code, proof, _) = call(&server, &["audit", "prove", &id]);
    assert!(
        code == Some(0)
            && proof.starts_with("size      ")
            && proof.contains("  plan.queued          agent            ID\n  HASH\n"),
        "{proof}"
    );
    assert!(proof.ends_with("hold the root against a checkpoint that you kept\n"), "{proof}");
    assert_eq!(call(&server, &["audit", "prove", "99999"]).0, Some(1));
    let (note, key) = (server.root.path().join("note"), server.root.path().join("key"));
    fs::write(&note, answer(&server, &["audit", "checkpoint"]) + "\n").unwrap();
    fs::write(&key, answer(&server, &["audit", "checkpoint", "--key"])).unwrap();
    let log = server.root.path().join("log.jsonl");
    fs::write(&log, answer(&server, &["audit", "export"]) + "\n").unwrap();
    let arguments = [
        "audit",
        "verify",
        log.to_str().unwrap(),
        "--checkpoint",
        note.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    let (code, verified, _) = call(&server, &arguments);
    assert!(code == Some(0) && verified.ends_with("\nOK\n"), "{verified}");
}

#[test]
fn dedupe_and_an_idempotency_key_answer_with_the_same_plan() {
    let server = Served::new();
    let first = answer(&server, &["plan", "--dedupe", "--", "make x"]);
    assert_eq!(answer(&server, &["plan", "--dedupe", "--", "make x"]), first);
    assert_ne!(answer(&server, &["plan", "--", "make x"]), first);
    let keyed = answer(&server, &["plan", "--idempotency-key", "k1", "--", "make y"]);
    assert_eq!(answer(&server, &["plan", "--idempotency-key", "k1", "--", "make y"]), keyed);
    assert_eq!(call(&server, &["plan", "--idempotency-key", "k1", "--", "make z"]).0, Some(1));
    let (child, id) = running(&server, &["run", "--timeout", "2", "--", "sleep 4"]);
    drop(answer(&server, &["approve", &id, "--yes", "--no-wait"]));
    until("the run", || call(&server, &["status", &id]).1 == "running\n");
    assert_eq!(call(&server, &["extend", &id, "60"]).1, "may run 60 s from its start\n");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0), "the extension did not hold");
}

/// Runs with a terminal for stdout and stderr, and returns what it would have shown.
pub(crate) fn on_a_terminal(mut command: Command) -> String {
    let pty = nix::pty::openpty(None, None).unwrap();
    let theirs = fs::File::from(pty.slave);
    let mut child = command.stdout(theirs.try_clone().unwrap()).stderr(theirs).spawn().unwrap();
    drop(command);
    let mut ours = fs::File::from(pty.master);
    let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
    // The last holder of the other end closes it, and then reading fails.
    while let Ok(read @ 1..) = ours.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..read]);
    }
    child.wait().unwrap();
    String::from_utf8(shown).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_gets_no_odd_character_and_colour_only_where_it_is_wanted() {
    let server = Served::new();
    let odd = "echo \u{1b}[2J\u{202e}\u{200b}\u{9b}\u{430}";
    let (status, plan) = server.by(&server.agent(), "POST", "/plan", &json!({ "command": odd, "note": odd }));
    assert_eq!(status, 200, "{plan}");
    let id = plan["pending_id"].as_str().unwrap();
    let raw = ["\u{1b}[2J", "\u{202e}", "\u{200b}", "\u{9b}"];
    for arguments in [
        &["pending"][..],
        &["show", id],
        &["policy", "check", odd],
        &["status", odd],
        &["token", "create", odd, "--role", "agent"],
        &["workspace", "remove", odd],
        &["show", odd],
        &["audit", "prove", odd],
        &["approve", id, "--yes", "--profile", odd],
        &["--json", "pending"],
        &["--json", "show", id],
        &["--json", "show", odd],
        &["attach", odd],
        &["edit", id, "--cwd", odd],
        &["--base", odd, "status"],
        &["--root", odd, "status"],
    ] {
        let shown = on_a_terminal(command(&server, arguments));
        assert!(!raw.iter().any(|bad| shown.contains(bad)), "{arguments:?}: {shown:?}");
    }
    let json = on_a_terminal(command(&server, &["--json", "show", id]));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["command"], odd, "{json}");
    let coloured = |setting: Option<(&str, &str)>| {
        let mut pending = command(&server, &["pending"]);
        pending.env("TERM", "xterm").envs(setting);
        on_a_terminal(pending).contains("\u{1b}[1m")
    };
    assert!(coloured(None));
    assert!(!coloured(Some(("NO_COLOR", "1"))));
    let piped = |setting: Option<(&str, &str)>| {
        let output = command(&server, &["pending"]).env("TERM", "xterm").envs(setting).output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains("\u{1b}[1m")
    };
    assert!(!piped(None));
    assert!(piped(Some(("CLICOLOR_FORCE", "1"))));
}

#[test]
fn what_takes_long_shows_on_a_terminal_that_it_lives_unless_it_shall_be_quiet() {
    let server = Served::new();
    let shown = |quiet: &[&str]| {
        let id = server.plan("sleep 2; echo slept");
        on_a_terminal(command(&server, &[quiet, &["approve", &id, "--yes"]].concat()))
    };
    assert!(shown(&[]).contains("\r\u{1b}[Kapproved; the command runs (1 s)"));
    assert_eq!(shown(&["--quiet"]), "exited with code 0\nslept\n");
}

#[test]
fn manual_pages_and_completions_are_made_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_provara")).env_clear().arg("man").arg(dir.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    for name in [
        "provara",
        "provara-run",
        "provara-audit",
        "provara-audit-verify",
        "provara-token-rotate",
        "provara-workspace-add",
    ] {
        let page = fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")) && page.contains("Example:"), "{name}: {page}");
    }
    assert!(!dir.path().join("provara-__helper.1").exists());
    if Command::new("man").arg("--version").output().is_ok() {
        for page in fs::read_dir(dir.path()).unwrap() {
            let path = page.unwrap().path();
            let rendered =
                Command::new("man").args(["--warnings", "-l"]).arg(&path).env("MANPAGER", "cat").output().unwrap();
            assert!(rendered.status.success() && rendered.stderr.is_empty(), "{path:?}: {rendered:?}");
        }
    } else {
        assert!(std::env::var_os("CI").is_none(), "man is missing, and in CI nothing is skipped");
        eprintln!("SKIPPED: man is not installed, so no page was rendered");
    }
    for shell in ["bash", "zsh", "fish"] {
        let made =
            Command::new(env!("CARGO_BIN_EXE_provara")).env_clear().args(["completions", shell]).output().unwrap();
        assert!(made.status.success() && String::from_utf8(made.stdout).unwrap().contains("cancel-on-interrupt"));
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error_to_complain_of() {
    let server = Served::new();
    let script = format!("'{}' --base '{}' policy show | head -n 1", env!("CARGO_BIN_EXE_provara"), server.base);
    let output = Command::new("bash").args(["-c", &script]).env("AGENT_HUB_ROOT", server.root.path()).output().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
}
