//! Known attacks on systems like ours, against the whole product. A number in a test's name is its row in
//! `docs/threat-model.md`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::served::{Served, start, until};

/// As many as the server runs at once.
const MAX_RUNS: usize = 32;

/// Characters that a terminal obeys, hides or shows as another.
const HIDDEN: &str = "\u{200b}\u{200d}\u{202e}\u{2066}\u{2028}\u{e000}\u{e0100}\u{e0041}\u{a0}\u{3000}\u{3164}\u{feff}\u{1b}[2K\r\u{9b}1A\u{7f}\u{8}";

/// Whether nothing of [`HIDDEN`] is left, whoever made the text.
fn assert_visible(what: &str, text: &str) {
    let hidden = |c: char| c != '\n' && c != '\t' && (c.is_control() || (HIDDEN.contains(c) && !c.is_ascii_graphic()));
    let found: Vec<_> = text.chars().filter(|c| hidden(*c)).map(char::escape_unicode).collect();
    assert!(found.is_empty(), "{what} shows {found:?}: {text:?}");
}

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn as_operator(server: &Served, arguments: &[&str]) -> Output {
    server.cli(("AGENT_HUB_OPERATOR_TOKEN", &server.operator()), arguments)
}

fn state(server: &Served, id: &str) -> Value {
    server.by(&server.operator(), "GET", &format!("/commands/{id}"), &Value::Null).1["state"].clone()
}

/// A connection that says exactly what it is told to.
struct Raw(TcpStream);

/// One answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Raw {
    fn to(server: &Served) -> Self {
        let stream = TcpStream::connect(server.base.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        Self(stream)
    }

    /// A server that has seen enough may close before all is said.
    fn say(mut self, bytes: &[u8]) -> Self {
        let _ = self.0.write_all(bytes);
        self
    }

    /// No more will come from us.
    fn half_closed(self) -> Self {
        let _ = self.0.shutdown(Shutdown::Write);
        self
    }

    /// Waits a moment only: for what may rightly never be answered.
    fn impatient(self) -> Self {
        self.0.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        self
    }

    /// Everything that comes until the server closes or says no more.
    fn answers(mut self) -> Vec<Answer> {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 1 << 16];
        while let Ok(read @ 1..) = self.0.read(&mut piece) {
            bytes.extend_from_slice(piece.get(..read).unwrap());
        }
        let mut answers = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some(at) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(rest.get(..at).unwrap()).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            let body = rest.get(at + 4..at + 4 + length.unwrap_or(0)).unwrap_or_default();
            rest = rest.get(at + 4 + body.len()..).unwrap_or_default();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            answers.push(Answer { status, body: body.to_vec(), head });
        }
        assert!(rest.is_empty(), "not an answer: {:?}", String::from_utf8_lossy(rest));
        answers
    }
}

/// One request, alone on its connection.
fn raw(server: &Served, request: &[u8]) -> Option<Answer> {
    let mut answers = Raw::to(server).say(request).answers();
    assert!(answers.len() <= 1, "one request had several answers: {answers:?}");
    answers.pop()
}

fn head(server: &Served, token: &str, line: &str) -> String {
    let host = server.base.strip_prefix("http://").unwrap();
    format!("{line} HTTP/1.1\r\nhost: {host}\r\nx-agent-token: {token}\r\nconnection: close\r\n")
}

#[test]
fn attack_01_what_is_shown_is_what_runs_and_too_long_is_refused_whole() {
    let server = Served::new();
    let tail = "; echo the-hidden-tail";
    let long = format!("echo {}{tail}", "x".repeat(10_000 - "echo ".len() - tail.len()));
    let (status, plan) = server.by(&server.agent(), "POST", "/plan", &json!({ "command": long }));
    assert_eq!((status, plan["command"].as_str()), (200, Some(long.as_str())));
    let id = plan["pending_id"].as_str().unwrap();
    let shown = both(&as_operator(&server, &["show", id]));
    assert!(shown.contains("; echo the-hidden-tail"), "`show` cuts: {} bytes", shown.len());
    // A list is cut and says by how much: nobody decides from it.
    let listed = both(&as_operator(&server, &["pending", "--limit=5"]));
    assert!(listed.contains("characters⟧"), "a list is cut without a word: {listed}");
    for path in ["/pending".to_owned(), format!("/commands/{id}")] {
        let seen = server.by(&server.operator(), "GET", &path, &Value::Null).1;
        let seen = if seen.is_array() { seen[0].clone() } else { seen };
        assert_eq!((&seen["command"], &seen["digest"]), (&json!(long), &plan["digest"]), "{path}");
    }
    let other = json!({ "digest": format!("sha256:{}", "0".repeat(64)) });
    let (status, refused) = server.by(&server.operator(), "POST", &format!("/approve/{id}"), &other);
    assert_eq!((status, &refused["code"]), (409, &json!("digest_mismatch")), "{refused}");
    let seen = json!({ "digest": plan["digest"] });
    let (_, run) = server.by(&server.operator(), "POST", &format!("/approve/{id}"), &seen);
    assert!(run["stdout"].as_str().unwrap().ends_with("\nthe-hidden-tail\n"));
    let log = String::from_utf8(as_operator(&server, &["audit", "export"]).stdout).unwrap();
    let decided = log.lines().find(|line| line.contains("plan.approved")).unwrap();
    assert!(decided.contains(plan["digest"].as_str().unwrap()), "another digest was decided than was shown: {decided}");

    let (status, refused) = server.by(&server.agent(), "POST", "/plan", &json!({ "command": format!("{long}x") }));
    assert_eq!((status, &refused["detail"][0]["type"]), (422, &json!("string_too_long")));
    assert_eq!(server.by(&server.operator(), "GET", "/pending", &Value::Null).1, json!([]), "a cut command was queued");
}

#[test]
fn attack_02_no_field_hides_anything_on_a_terminal() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let hidden = |words: &str| format!("{words}{HIDDEN}{words}");
    let propose = |command: &str| {
        let body = json!({
            "command": hidden(command), "note": hidden("note"), "cwd": hidden("folder").replace(['\n', '/'], ""),
            "env": { "A": hidden("value") },
        });
        let (status, plan) = server.by(&agent, "POST", "/plan", &body);
        assert_eq!(status, 200, "{plan}");
        plan["pending_id"].as_str().unwrap().to_owned()
    };
    let id = propose("make");
    let shown = both(&as_operator(&server, &["show", &id]));
    assert_visible("show", &shown);
    for part in ["make⟦U+200B⟧", "note⟦U+200B⟧", "folder⟦U+200B⟧"] {
        assert!(shown.contains(part), "{part} is missing: {shown}");
    }
    assert_visible("pending", &both(&as_operator(&server, &["pending"])));
    assert_visible("cancel", &both(&as_operator(&server, &["cancel", &id])));
    // A reason travels to the agent's terminal, whoever wrote it.
    let id = propose("make");
    assert_eq!(server.by(&operator, "POST", &format!("/deny/{id}"), &json!({ "reason": hidden("no") })).0, 200);
    for what in ["attach", "show"] {
        let told = server.cli(("AGENT_HUB_TOKEN", &agent), &[what, &id]);
        assert_visible(what, &both(&told));
        assert!(both(&told).contains("U+200B"), "{what}: {}", both(&told));
    }
    // The command's own output, as its approver sees it.
    let id = server.plan(&format!("printf '%s\\n' '{}'; printf '\\377\\302' >&2", hidden("out")));
    let approved = as_operator(&server, &["approve", &id, "--yes"]);
    assert_visible("approve", &both(&approved));
    assert!(both(&approved).contains("out⟦U+200B⟧"), "{}", both(&approved));
    // Errors quote what was asked for.
    for arguments in [
        vec!["show", "no\u{1b}[2K\u{202e}id"],
        vec!["approve", "no\u{9b}2K\u{202e}id", "--yes"],
        vec!["cancel", "no\u{1b}[2K\u{200b}id"],
        vec!["token", "revoke", "no\u{1b}[2Kid"],
        vec!["token", "rotate", "no\u{1b}[2Kid"],
        vec!["token", "create", "na\u{1b}[2Kme", "--role", "agent"],
        vec!["token", "create", "name", "--role", "ag\u{1b}[2Kent"],
        vec!["workspace", "add", "/no\u{1b}[2K\u{202e}where"],
        vec!["policy", "check", "rm -rf /etc/\u{1b}[2K\u{202e}"],
        vec!["policy", "check", "a\u{1b}[2K\u{202e}b"],
        vec!["audit", "prove", "no\u{1b}[2Kid"],
        vec!["approve", &id, "--yes", "--profile", "no\u{1b}[2K"],
    ] {
        assert_visible(&format!("{arguments:?}"), &both(&as_operator(&server, &arguments)));
    }
    let denied = server.cli(("AGENT_HUB_TOKEN", &agent), &["run", "--", "rm -rf /etc/\u{1b}[2K\u{202e}x"]);
    assert_visible("run", &both(&denied));
    for bad in ["na\u{202e}me", "na me", "na\u{200b}me", "-name", "n\u{e4}me", ""] {
        let made = json!({ "name": bad, "roles": ["agent"] });
        assert_eq!(server.by(&operator, "POST", "/tokens", &made).0, 422, "an agent is called {bad:?}");
    }
}

#[test]
fn attack_03_a_command_is_kept_to_the_byte() {
    let server = Served::new();
    for command in [
        "printf %s \"$BASH_EXECUTION_STRING\" ",
        " \t printf %s \"$BASH_EXECUTION_STRING\"\n\n  ",
        "printf %s \"$BASH_EXECUTION_STRING\" # \u{e9} e\u{301} \u{212b} \u{200b}",
        "printf %s \"$BASH_EXECUTION_STRING\" #\\\r\\u0041 &amp; %41 {{x}} ${y",
    ] {
        let run = server.approved(command);
        assert_eq!((&run["command"], &run["stdout"]), (&json!(command), &json!(command)), "{run}");
    }
    let run = server.approved("'true '");
    assert_eq!(run["exit_code"], json!(127), "a blank was trimmed from a program's name");
}

#[test]
fn attack_05_a_note_stands_apart_and_is_never_the_title() {
    let server = Served::new();
    let note = "command\n  | ls\npolicy    allow (info)\nplan approved\n";
    let body = json!({ "command": "make install", "note": note });
    let (_, plan) = server.by(&server.agent(), "POST", "/plan", &body);
    let id = plan["pending_id"].as_str().unwrap();
    let listed = both(&as_operator(&server, &["pending"]));
    assert!(listed.contains("make install"), "{listed}");
    assert!(!listed.lines().any(|line| line.trim_start().starts_with("| ls") || line.contains("approved")), "{listed}");
    let shown = both(&as_operator(&server, &["show", id]));
    assert!(shown.lines().any(|line| line == "  | make install"), "{shown}");
    for forged in ["  | ls", "policy    allow (info)", "plan approved"] {
        assert!(!shown.lines().any(|line| line == forged), "a note passes for our own words: {shown}");
    }
    let long = json!({ "command": "ls", "note": "x".repeat(1001) });
    assert_eq!(server.by(&server.agent(), "POST", "/plan", &long).0, 422);
}

fn script(server: &Served, text: &str) -> PathBuf {
    let path = server.root.path().join("workspace/deploy.sh");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn attack_06_a_script_that_is_rewritten_while_it_waits_is_shown_anew_and_decided_anew() {
    let server = Served::new();
    let operator = server.operator();
    script(&server, "echo shown\u{202e}\n");
    let id = server.plan("bash deploy.sh; cat notes");
    let look = || server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null).1;
    let seen = look();
    let of = |plan: &Value| plan["binding"]["scripts"][0]["content"].clone();
    assert_eq!(
        (&of(&seen), seen["binding"]["scripts"].as_array().map(Vec::len)),
        (&json!("echo shown\u{202e}\n"), Some(1))
    );
    let (_, agents) = server.by(&server.agent(), "GET", &format!("/commands/{id}"), &Value::Null);
    assert!(agents.get("binding").is_none(), "an agent is told what the server read: {agents}");
    let shown = both(&as_operator(&server, &["show", &id]));
    assert_visible("show", &shown);
    for part in [
        "  | echo shown",
        "script    interpreted, bound, 14 bytes, sha256:",
        "    > deploy.sh",
        "in their turn is not bound",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    script(&server, "echo other; touch done\n");
    let approve = |body: &Value| server.by(&operator, "POST", &format!("/approve/{id}"), body);
    let (status, refused) = approve(&Value::Null);
    assert_eq!((status, &refused["code"]), (409, &json!("binding_changed")), "{refused}");
    let digests = ["binding", "binding_shown"].map(|field| refused[field]["scripts"][0]["sha256"].clone());
    assert!(digests.iter().all(Value::is_string) && digests.first() != digests.last(), "{refused}");
    let now = look();
    assert_eq!((&now["state"], of(&now)), (&json!("pending"), json!("echo other; touch done\n")));
    // Somebody who still looks at the old text approves nothing.
    let (status, refused) = approve(&json!({ "binding_digest": seen["binding"]["digest"] }));
    assert_eq!((status, &refused["code"]), (409, &json!("binding_changed")), "{refused}");
    assert!(!server.root.path().join("workspace/done").exists(), "it ran");
    let (status, run) = approve(&json!({ "binding_digest": now["binding"]["digest"] }));
    assert_eq!((status, &run["stdout"]), (200, &json!("other\n")), "{run}");
    let (_, log) = server.by(&operator, "GET", "/audit?limit=100", &Value::Null);
    assert!(log.to_string().contains("plan.remeasured"), "{log}");
}

#[test]
fn attack_06_a_script_that_is_rewritten_after_the_approval_does_not_run_and_can_be_asked_again() {
    let server = Served::new();
    let operator = server.operator();
    let gate = server.root.path().join("workspace/gate");
    assert!(Command::new("mkfifo").args(["-m", "666"]).arg(&gate).status().unwrap().success());
    let now = [("x-agent-token", operator.as_str()), ("prefer", "respond-async")];
    let approve = |id: &str| server.ask("POST", &format!("/approve/{id}"), &now, "");
    // As many as run at once, so that the next waits between its approval and its run.
    let holders: Vec<String> = (0..MAX_RUNS).map(|_| server.plan("cat gate")).collect();
    for id in &holders {
        assert_eq!(approve(id).0, 202);
    }
    until("room for no more", || holders.iter().all(|id| state(&server, id) == "running"));
    let path = script(&server, "echo approved\n");
    let id = server.plan("bash deploy.sh");
    assert_eq!(approve(&id).0, 202);
    assert_eq!(state(&server, &id), "approved");
    script(&server, "echo other\n");
    drop(fs::File::options().write(true).open(&gate).unwrap());
    until("the end", || state(&server, &id) == "finished");
    let (_, plan) = server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null);
    let message = format!(
        "`{}` has other content; re-open the plan to have it measured and decided anew",
        path.canonicalize().unwrap().display()
    );
    let expected = json!({ "kind": "spawn_failed", "failure": "changed", "message": message });
    assert_eq!((&plan["run"]["outcome"], &plan["run"]["stdout"]), (&expected, &json!("")));
    let (status, again) = server.by(&operator, "POST", &format!("/reopen/{id}"), &Value::Null);
    assert_eq!(status, 200, "{again}");
    let again = again["pending_id"].as_str().unwrap();
    let (_, shown) = server.by(&operator, "GET", &format!("/commands/{again}"), &Value::Null);
    assert_eq!(shown["binding"]["scripts"][0]["content"], "echo other\n");
    let (_, run) = server.by(&operator, "POST", &format!("/approve/{again}"), &Value::Null);
    assert_eq!(run["stdout"], "other\n", "{run}");
}

#[test]
fn attack_08_a_working_directory_that_is_another_folder_is_decided_anew() {
    let server = Served::new();
    let at = |name: &str| server.root.path().join("workspace").join(name);
    for name in ["work", "other"] {
        fs::create_dir(at(name)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let body = json!({ "command": "ls", "cwd": "work" });
    let id = server.by(&server.agent(), "POST", "/plan", &body).1["pending_id"].as_str().unwrap().to_owned();
    fs::rename(at("work"), at("away")).unwrap();
    fs::rename(at("other"), at("work")).unwrap();
    let (status, refused) = server.by(&server.operator(), "POST", &format!("/approve/{id}"), &Value::Null);
    assert_eq!((status, &refused["code"]), (409, &json!("binding_changed")), "{refused}");
    assert_ne!(refused["binding"]["cwd_dev_ino"], refused["binding_shown"]["cwd_dev_ino"]);
}

#[test]
fn a_rule_demands_that_all_is_bound_and_nothing_else_is_measured() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let rules = root.path().join("policies/projects");
    fs::create_dir_all(&rules).unwrap();
    let rule = "[[rule]]\nid = 'strict'\ncategory = 'c'\nseverity = 'low'\nverdict = 'ask'\nreason = 'r'\ndemand_binding = \
                true\n[rule.match]\nprogram = ['bash', 'touch']\n[rule.examples]\nmatch = ['bash x']\nno_match = ['ls']\n";
    fs::write(rules.join("own.toml"), rule).unwrap();
    let (process, base) = start(root.path());
    let server = Served { root, process, base };
    let operator = server.operator();
    let look = |id: &str| server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null).1;
    let approve = |id: &str| server.by(&operator, "POST", &format!("/approve/{id}"), &Value::Null);
    let bound = |run: &Value| run["enforced"]["mechanisms"].to_string().contains("binding_checked");
    let plain = server.plan("ls");
    assert_eq!(look(&plain)["binding"], Value::Null);
    assert_eq!(approve(&plain).0, 200);
    assert!(!bound(&look(&plain)["run"]), "{}", look(&plain)["run"]);
    let touch = server.plan("touch x");
    assert!(look(&touch)["binding"]["cwd_dev_ino"].is_string(), "{}", look(&touch)["binding"]);
    assert_eq!(approve(&touch).0, 200);
    assert!(bound(&look(&touch)["run"]), "{}", look(&touch)["run"]);
    for (command, why) in [
        ("bash deploy.sh", "`deploy.sh` is not: it is not there now"),
        ("bash \"$WHAT\"", "is not: its name is known only at run time"),
    ] {
        let (status, refused) = approve(&server.plan(command));
        assert_eq!((status, &refused["code"]), (409, &json!("binding_demanded")), "{refused}");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("the rules `strict` demand") && detail.contains(why), "{detail}");
    }
    script(&server, "echo deployed\n");
    let (status, run) = approve(&server.plan("bash deploy.sh"));
    assert_eq!((status, &run["stdout"]), (200, &json!("deployed\n")), "{run}");
    let (_, policy) = server.by(&operator, "GET", "/policy", &Value::Null);
    let own = policy["rules"].as_array().unwrap().iter().find(|rule| rule["id"] == "strict").unwrap();
    assert_eq!(own["demand_binding"], true);
}

#[test]
fn attack_08_the_environment_is_bound_and_seen() {
    let server = Served::new();
    let agent = server.agent();
    let plan = |env: Value| {
        let body = json!({ "command": "make", "env": env, "dedupe": true });
        let (status, plan) = server.by(&agent, "POST", "/plan", &body);
        assert_eq!(status, 200, "{plan}");
        (plan["pending_id"].as_str().unwrap().to_owned(), plan["digest"].clone())
    };
    let (plain, plain_digest) = plan(json!({}));
    for name in ["BASH_ENV", "LD_PRELOAD", "NODE_OPTIONS", "GIT_EXTERNAL_DIFF", "GIT_SSH_COMMAND", "PATH", "IFS"] {
        let (id, digest) = plan(json!({ name: "./x" }));
        assert_ne!(id, plain, "a plan with {name} was taken for one without");
        assert_ne!(digest, plain_digest, "{name} is not bound");
        let shown = both(&as_operator(&server, &["show", &id]));
        assert!(shown.contains(name) && shown.contains("./x"), "{name} is not shown: {shown}");
    }
    // What an allow rule says of `ls` is not said of `ls` with a variable of the agent's choosing.
    let verdict = |env: Value| {
        let (_, plan) = server.by(&agent, "POST", "/plan", &json!({ "command": "ls", "env": env }));
        (plan["judgement"]["verdict"].clone(), plan["judgement"]["reasons"].to_string())
    };
    assert_eq!(verdict(json!({})).0, "allow");
    let (asked, why) = verdict(json!({ "BASH_ENV": "./x" }));
    assert!(asked == "ask" && why.contains("sets BASH_ENV: a variable can change"), "{asked} {why}");
    for bad in ["BASH_FUNC_ls%%", "A=B", "A B", "", "1A", "A\u{0}B", "\u{c4}"] {
        let body = json!({ "command": "make", "env": { bad: "x" } });
        assert_eq!(server.by(&agent, "POST", "/plan", &body).0, 422, "{bad:?} names a variable");
    }
    for bad in [json!({ "A": "x\u{0}" }), json!({ "A": 1 }), json!(["A"]), json!("A=1")] {
        assert_eq!(server.by(&agent, "POST", "/plan", &json!({ "command": "make", "env": bad })).0, 422, "{bad}");
    }
    // What the server itself was started with reaches no command.
    let run = server.approved("env");
    let names: BTreeSet<_> =
        run["stdout"].as_str().unwrap().lines().filter_map(|line| line.split('=').next()).collect();
    let expected = ["HOME", "LANG", "LC_ALL", "OLDPWD", "PATH", "PWD", "SHLVL", "TZ", "_"];
    assert!(names.iter().all(|name| expected.contains(name)), "{names:?}");
}

#[test]
fn attack_20_no_decision_route_moves_for_an_agent_or_for_nobody() {
    let server = Served::new();
    let (agent, id) = (server.agent(), server.plan("make install"));
    let (_, token) = server.by(&server.operator(), "POST", "/tokens", &json!({ "name": "x", "roles": ["auditor"] }));
    let token = token["id"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (method, path, body) in [
        ("POST", format!("/approve/{id}"), Value::Null),
        ("POST", format!("/approve/{id}"), json!({ "profile": "host" })),
        ("POST", format!("/deny/{id}"), json!({ "reason": "x" })),
        ("POST", format!("/edit/{id}"), json!({ "command": "ls" })),
        ("POST", format!("/reopen/{id}"), Value::Null),
        ("POST", format!("/commands/{id}/extend"), json!({ "timeout_s": 900 })),
        ("POST", "/tokens".to_owned(), json!({ "name": "me", "roles": ["approver"] })),
        ("DELETE", format!("/tokens/{token}"), Value::Null),
        ("POST", "/workspaces".to_owned(), json!({ "path": folder.path() })),
        ("DELETE", "/workspaces".to_owned(), json!({ "path": folder.path() })),
    ] {
        assert_eq!(server.by(&agent, method, &path, &body).0, 403, "the agent: {method} {path}");
        for nobody in ["pv_operator_", "null", "undefined", "0", "*"] {
            // Guessing has a limit of its own.
            assert!(matches!(server.by(nobody, method, &path, &body).0, 401 | 429), "{nobody}: {method} {path}");
        }
        assert_eq!(server.ask(method, &path, &[], &body.to_string()).0, 401, "nobody: {method} {path}");
        assert_eq!(server.ask(method, &path, &[("x-agent-token", "")], &body.to_string()).0, 401, "{method} {path}");
    }
    assert_eq!(state(&server, &id), "pending");
    let (_, all) = server.by(&server.operator(), "GET", "/tokens", &Value::Null);
    assert!(
        all.as_array().unwrap().iter().all(|token| token["name"] != "me" && token["revoked_at"].is_null()),
        "{all}"
    );
}

#[test]
fn attack_21_there_is_no_way_to_start_without_tokens() {
    let server = Served::new();
    assert_eq!(server.ask("GET", "/status", &[], "").1["token_required"], true);
    let served: Vec<_> =
        ["TOKEN=", "OPERATOR_TOKEN=", "TOKEN= ", "TOKEN=short", "NO_AUTH=1", "AUTH=0", "TOKEN_REQUIRED=0"]
            .iter()
            .filter(|setting| {
                let root = tempfile::tempdir().unwrap();
                fs::write(root.path().join(".env"), format!("AGENT_HUB_{setting}\nAGENT_HUB_PORT=0\n")).unwrap();
                let mut process = Command::new(env!("CARGO_BIN_EXE_provara"))
                    .env_clear()
                    .env("AGENT_HUB_ROOT", root.path())
                    .arg("serve")
                    .stdin(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                let mut ended = None;
                until("an address or an end", || {
                    ended = process.try_wait().unwrap();
                    ended.is_some()
                        || fs::read_to_string(root.path().join("runtime/address")).is_ok_and(|it| it.ends_with('\n'))
                });
                let Ok(base) = fs::read_to_string(root.path().join("runtime/address")) else { return false };
                let open = ureq::get(format!("{}/pending", base.trim())).call().is_ok();
                let _ = process.kill();
                process.wait().unwrap();
                open
            })
            .collect();
    assert!(served.is_empty(), "without a token, by {served:?}");
}

#[test]
fn attack_22_a_page_reaches_nothing_by_whatever_name_it_calls_us() {
    let server = Served::new();
    let (token, id) = (server.operator(), server.plan("make install"));
    let port = server.base.rsplit(':').next().unwrap().to_owned();
    let post = |hosts: &[&str], more: &str, target: &str| {
        let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
        let request = format!(
            "POST {target} HTTP/1.1\r\n{hosts}x-agent-token: {token}\r\n{more}connection: close\r\ncontent-length: 0\r\n\r\n"
        );
        raw(&server, request.as_bytes()).map(|answer| answer.status)
    };
    let approve = format!("/approve/{id}");
    let ours = format!("localhost:{port}");
    for host in [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example#localhost",
        "localhost@evil.example",
        "localhost evil.example",
        "0.0.0.0",
        "0",
        "2130706433",
        "[::]",
        "[::ffff:127.0.0.1]",
        "127.1",
        "",
        "localhost.",
        "localhost:1@evil.example",
        "[::1]evil.example",
        "[::1",
        "\u{fe}",
    ] {
        assert!(matches!(post(&[host], "", &approve), Some(400 | 403)), "Host {host:?}");
    }
    assert!(matches!(post(&[], "", &approve), Some(400 | 403)), "no Host");
    assert!(matches!(post(&[&ours, "evil.example"], "", &approve), Some(400 | 403)), "two Hosts, the first ours");
    assert!(matches!(post(&["evil.example", &ours], "", &approve), Some(400 | 403)), "two Hosts, the last ours");
    let absolute = format!("http://evil.example{approve}");
    assert!(matches!(post(&[&ours], "", &absolute), Some(400 | 403)), "a whole address names another host");
    let origins = [
        "http://evil.example",
        "null",
        "http://localhost",
        "http://localhost:1",
        "https://localhost.evil.example",
        "file://",
        "http://127.0.0.1.evil.example",
        "http://localhost:80@evil.example",
        "",
        "chrome-extension://x",
        "HTTP://LOCALHOST",
    ];
    for origin in origins {
        assert_eq!(post(&[&ours], &format!("origin: {origin}\r\n"), &approve), Some(403), "Origin {origin:?}");
    }
    let two = format!("origin: http://localhost:{port}\r\norigin: http://evil.example\r\n");
    assert!(matches!(post(&[&ours], &two, &approve), Some(400 | 403)), "two Origins");
    // A preflight of a stranger is told nothing that lets it go on.
    for (method, path) in [("OPTIONS", approve.as_str()), ("GET", "/events"), ("GET", "/status")] {
        let request = format!(
            "{}origin: http://evil.example\r\naccess-control-request-method: POST\r\n\r\n",
            head(&server, &token, &format!("{method} {path}"))
        );
        let answer = raw(&server, request.as_bytes()).unwrap();
        assert_eq!(answer.status, 403);
        assert!(!answer.head.contains("access-control-allow"), "{}", answer.head);
    }
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let asked = head(&server, &token, "GET /events").replace("connection: close\r\n", "");
    let mut stream = Raw::to(&server).say(format!("{asked}origin: http://evil.example\r\n{upgrade}").as_bytes());
    let mut first = [0; 12];
    stream.0.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 403");
    assert_eq!(state(&server, &id), "pending");
}

#[test]
fn attack_23_nothing_but_a_plain_post_changes_anything() {
    let server = Served::new();
    let (token, id) = (server.operator(), server.plan("make install"));
    let paths =
        [format!("/approve/{id}"), format!("/deny/{id}"), format!("/commands/{id}/cancel"), format!("/edit/{id}")];
    for path in &paths {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "post", "PROPFIND", "X"] {
            let answer = raw(&server, format!("{}\r\n", head(&server, &token, &format!("{method} {path}"))).as_bytes());
            assert!(answer.as_ref().is_some_and(|it| matches!(it.status, 400 | 405)), "{method} {path}: {answer:?}");
        }
        for with in ["x-http-method-override", "x-http-method", "x-method-override"] {
            let request = format!("{}{with}: POST\r\n\r\n", head(&server, &token, &format!("GET {path}?_method=POST")));
            assert_eq!(raw(&server, request.as_bytes()).unwrap().status, 405, "{with}");
        }
        // A link that carries its own key.
        for query in ["token", "access_token", "x-agent-token", "X-Agent-Token", "api_key", "authorization"] {
            let target = format!("{path}?{query}={token}");
            assert_eq!(server.ask("POST", &target, &[], "").0, 401, "a token was taken from {query} in the address");
        }
        for cookie in ["token", "session", "x-agent-token"] {
            let cookie = format!("{cookie}={token}");
            assert_eq!(server.ask("POST", path, &[("cookie", &cookie)], "").0, 401);
        }
        let basic = [("authorization", format!("Basic {token}")), ("proxy-authorization", format!("Bearer {token}"))];
        for (name, value) in &basic {
            assert_eq!(server.ask("POST", path, &[(name, value)], "").0, 401, "{name}: {value}");
        }
    }
    for path in [
        "/pending",
        "/commands",
        "/events?since=0",
        "/runs",
        "/tokens",
        "/workspaces",
        "/audit",
        "/plan",
        "/policy/check",
    ] {
        let request = format!("{}\r\n", head(&server, &token, &format!("HEAD {path}")));
        let answers = Raw::to(&server).say(request.as_bytes()).answers_of_head();
        assert!(matches!(answers, 200 | 405), "HEAD {path}: {answers}");
    }
    assert_eq!(state(&server, &id), "pending");
    assert_eq!(server.by(&token, "GET", "/runs", &Value::Null).1, json!([]));
}

#[test]
fn attack_27_a_decision_is_about_one_plan_that_is_named() {
    let server = Served::new();
    let (token, first) = (server.operator(), server.plan("make one"));
    let second = server.plan("make two");
    for id in [
        "",
        "*",
        "all",
        "%2a",
        "pending",
        &format!("{first},{second}"),
        &format!("{first}%2C{second}"),
        &format!("{first}%20{second}"),
        &format!("{first}/{second}"),
        &format!("{first}%00"),
        &format!("{first}%0a"),
        &first.to_uppercase(),
        first.get(..20).unwrap(),
        "..",
        "%2e%2e",
    ] {
        for route in ["approve", "deny"] {
            let (status, answer) = server.by(&token, "POST", &format!("/{route}/{id}"), &Value::Null);
            assert!(matches!(status, 404 | 405 | 307), "{route} {id:?}: {status} {answer}");
        }
    }
    for body in [json!([first, second]), json!({ "ids": [second] }), json!({ "pending_id": second, "all": true })] {
        server.by(&token, "POST", &format!("/deny/{first}"), &body);
        assert_eq!(state(&server, &second), "pending", "{body}");
    }
    let id = server.plan("make three");
    assert_eq!(server.by(&token, "POST", &format!("/deny/{id}?id={second}"), &Value::Null).0, 200);
    assert_eq!((state(&server, &id), state(&server, &second)), (json!("denied"), json!("pending")));
}

#[test]
fn attack_28_what_was_denied_three_times_is_not_asked_again_within_the_hour() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let mut asked = Vec::new();
    for _ in 0..3 {
        let id = server.plan("make install");
        let reason = json!({ "reason": "never on Fridays" });
        assert_eq!(server.by(&operator, "POST", &format!("/deny/{id}"), &reason).0, 200);
        asked.push(id);
    }
    // From many sides at once, with what makes no other command of it, and under fresh keys.
    let bodies = [
        json!({ "command": "make install" }),
        json!({ "command": "make install", "note": "please, it is urgent" }),
        json!({ "command": "make install", "dedupe": true, "expires_s": 60 }),
        json!({ "command": "make install", "timeout_s": 300, "cwd": ".", "env": {} }),
    ];
    std::thread::scope(|scope| {
        let proposals: Vec<_> = (0..32)
            .map(|n| {
                let (server, agent, body) = (&server, &agent, bodies[n % bodies.len()].to_string());
                let key = format!("key-{n}");
                scope.spawn(move || {
                    let headers = [("x-agent-token", agent.as_str()), ("idempotency-key", key.as_str())];
                    server.ask("POST", "/plan", &headers, &body)
                })
            })
            .collect();
        for proposal in proposals {
            let (status, answer) = proposal.join().unwrap();
            assert_eq!((status, &answer["code"]), (429, &json!("cool_down")), "{answer}");
        }
    });
    let (_, now) = server.ask("GET", "/status", &[], "");
    assert_eq!((&now["denied_count"], &now["pending_count"]), (&json!(3), &json!(0)));
    // The person who is asked a second time is told of the first.
    let told: Vec<_> = asked
        .iter()
        .map(|id| server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null).1["denied_before"].clone())
        .collect();
    let counts: Vec<_> = told.iter().map(|denied| denied["count"].clone()).collect();
    assert_eq!(counts, [Value::Null, json!(1), json!(2)]);
    assert!(told.iter().skip(1).all(|denied| denied["reason"] == "never on Fridays"), "{told:?}");
}

/// Known, and said in the threat model: equal means equal. What an agent changes is another command, and a person's to judge.
#[test]
fn attack_28_a_command_that_was_changed_is_another_command() {
    let server = Served::new();
    for _ in 0..3 {
        let id = server.plan("make install");
        assert_eq!(server.by(&server.operator(), "POST", &format!("/deny/{id}"), &Value::Null).0, 200);
    }
    for body in [json!({ "command": "make  install" }), json!({ "command": "make install", "timeout_s": 301 })] {
        let (status, answer) = server.by(&server.agent(), "POST", "/plan", &body);
        assert_eq!((status, &answer["denied_before"]), (200, &Value::Null), "{answer}");
    }
}

#[test]
fn attack_31_a_command_changes_nothing_that_guards_it() {
    let mut server = Served::new();
    let root = server.root.path().canonicalize().unwrap();
    let binary = env!("CARGO_BIN_EXE_provara");
    // A policy of the project's own, and files that are missing: what is not there must not be made either.
    let policies = root.join("policies/projects");
    fs::create_dir_all(&policies).unwrap();
    fs::write(policies.join("own.toml"), "rule = []\n").unwrap();
    let missing = [".env", "provara.toml", "profiles.toml", "policies/projects/evil.toml", "runtime/evil", "evil"]
        .map(|name| root.join(name));
    let existing = [
        policies.join("own.toml"),
        PathBuf::from(binary),
        root.join("runtime/operator_token.txt"),
        root.join("runtime/log_key"),
        root.join("runtime/provara.db"),
    ];
    let before: Vec<_> = existing.iter().take(4).map(|path| fs::read(path).unwrap()).collect();
    let mut commands: Vec<String> = Vec::new();
    for path in missing.iter().chain(&existing) {
        let path = path.display();
        commands.push(format!("printf 'AGENT_HUB_SINGLE_TOKEN=1\\n' > {path}"));
        commands.push(format!("cp /bin/true {path}"));
        commands.push(format!("ln -sf /tmp/x {path}"));
        commands.push(format!("python3 -c 'import os; os.rename(\"x\", \"{path}\")'"));
    }
    for path in [root.as_path(), &root.join("runtime"), &root.join("policies"), &policies] {
        let path = path.display();
        commands.push(format!("python3 -c 'import os; os.rename(\"{path}\", \"{path}.old\")'"));
        commands.push(format!("python3 -c 'import os; os.chmod(\"{path}\", 0o777)'"));
        commands.push(format!("rmdir {path}"));
    }
    commands.push(format!("ln -s {} ../link", root.display()));
    for profile in ["workspace", "host"] {
        for command in &commands {
            let (status, plan) =
                server.by(&server.agent(), "POST", "/plan", &json!({ "command": format!("touch x; {command}") }));
            if status == 403 {
                assert_eq!(plan["code"], "policy_denied");
                continue;
            }
            let id = plan["pending_id"].as_str().unwrap();
            let body = json!({ "profile": profile, "reason": "an attack" });
            let (status, run) = server.by(&server.operator(), "POST", &format!("/approve/{id}"), &body);
            assert_eq!(status, 200, "{run}");
            assert_ne!(run["exit_code"], json!(0), "`{command}` worked as {profile}: {run}");
        }
    }
    let made: Vec<_> = missing.iter().filter(|path| path.symlink_metadata().is_ok()).collect();
    assert!(made.is_empty(), "a command made {made:?}");
    let after: Vec<_> = existing.iter().take(4).map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after, "a command changed our own files");
    assert_eq!(server.by(&server.operator(), "GET", "/workspaces", &Value::Null).1, json!([root.join("workspace")]));
    // And after a restart it is the same server.
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    fs::remove_file(root.join("runtime/address")).unwrap();
    (server.process, server.base) = start(&root);
    assert_eq!(server.ask("GET", "/status", &[], "").1["single_token"], false);
}

#[test]
fn attack_32_what_cannot_be_confined_as_approved_is_not_run() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let none = root.path().join("none");
    let own = format!(
        "[[profile]]\nname = 'away'\nuser = 'no-such-user'\n[[profile]]\nname = 'gone'\nextends = 'workspace'\nwritable = \
         ['workspace', '{}']\n",
        none.display()
    );
    fs::write(root.path().join("profiles.toml"), own).unwrap();
    let (process, base) = start(root.path());
    let server = Served { root, process, base };
    let approve = |profile: &str| {
        let id = server.plan("echo ran");
        let body = json!({ "profile": profile, "reason": "x" });
        server.by(&server.operator(), "POST", &format!("/approve/{id}"), &body)
    };
    for profile in ["none", "auto", "off", "Workspace", "HOST", "host ", ""] {
        let (status, answer) = approve(profile);
        assert!(status != 200 && !answer.to_string().contains("ran\\n"), "{profile:?}: {status} {answer}");
    }
    for (profile, failure, told) in
        [("away", "confinement", "runs as `no-such-user`"), ("gone", "missing", "is not there; make it")]
    {
        let (_, answer) = approve(profile);
        let outcome = &answer["outcome"];
        assert_eq!((&outcome["kind"], &outcome["failure"]), (&json!("spawn_failed"), &json!(failure)), "{answer}");
        assert!(outcome["message"].as_str().unwrap().contains(told) && answer["stdout"] == "", "{answer}");
    }
    let run = server.approved("echo ran");
    let held: Vec<_> = run["enforced"]["mechanisms"].as_array().into_iter().flatten().collect();
    assert_eq!(run["stdout"], "ran\n");
    assert!(!held.is_empty(), "what held is not on the record: {}", run["enforced"]);
}

#[test]
fn attack_34_no_sink_but_the_answers_tells_a_secret() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let secret = |what: &str| format!("hunter2-{what}-hunter2");
    let plan = json!({
        "command": format!("cat; echo {} >&2; echo $A", secret("command")), "note": secret("note"),
        "env": { "A": secret("env") }, "stdin": secret("stdin"),
    });
    let (status, made) = server.by(&agent, "POST", "/plan", &plan);
    assert_eq!(status, 200, "{made}");
    let id = made["pending_id"].as_str().unwrap();
    let (_, run) = server.by(&operator, "POST", &format!("/approve/{id}"), &json!({ "reason": secret("reason") }));
    assert_eq!(run["stdout"], format!("{}{}\n", secret("stdin"), secret("env")), "{run}");
    for broken in [r#"{"command":"hunter2-broken-hunter2","#, r#"{"command":"hunter2-nul-hunter2\u0000"}"#] {
        assert_eq!(server.ask("POST", "/plan", &[("x-agent-token", &agent)], broken).0, 422);
    }
    assert_eq!(server.ask("GET", "/pending", &[("x-agent-token", &secret("token"))], "").0, 401);
    assert_eq!(server.ask("GET", "/pending?limit=hunter2-query-hunter2", &[("x-agent-token", &agent)], "").0, 422);
    let exported = as_operator(&server, &["audit", "export"]);
    assert!(exported.status.success() && exported.stdout.len() > 500);
    let mirror = server.root.path().join("runtime/audit/log.jsonl");
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    until("the mirror", || fs::read(&mirror).is_ok_and(|known| lines(&known) >= lines(&exported.stdout)));
    let sinks = [
        ("the export", exported.stdout),
        ("the mirror", fs::read(&mirror).unwrap()),
        ("the server's log", fs::read(server.root.path().join("server.log")).unwrap()),
        ("/status", server.ask("GET", "/status", &[], "").1.to_string().into_bytes()),
        ("/health", server.by(&agent, "GET", "/health", &Value::Null).1.to_string().into_bytes()),
        ("/metrics", server.by(&operator, "GET", "/metrics", &Value::Null).1.to_string().into_bytes()),
    ];
    for (sink, bytes) in sinks {
        let text = String::from_utf8_lossy(&bytes);
        for secret in ["hunter2", agent.as_str(), operator.as_str()] {
            assert!(!text.contains(secret), "{sink} tells {secret:?}: {text}");
        }
    }
}

impl Raw {
    /// The status of an answer that has no body although it states a length; an event stream is not read to its end.
    fn answers_of_head(mut self) -> u16 {
        let mut first = [0; 12];
        self.0.read_exact(&mut first).unwrap();
        let _ = self.0.shutdown(Shutdown::Both);
        std::str::from_utf8(&first[9..]).unwrap().parse().unwrap()
    }
}

fn plan_request(token: &str, host: &str, framing: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /plan HTTP/1.1\r\nhost: {host}\r\nx-agent-token: {token}\r\n{framing}\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn attack_35_a_body_that_two_readers_read_differently_is_refused() {
    let server = Served::new();
    let (agent, host) = (server.agent(), server.base.strip_prefix("http://").unwrap());
    let ask = |body: &[u8]| {
        let framing = format!("content-length: {}\r\nconnection: close\r\n", body.len());
        raw(&server, &plan_request(&agent, host, &framing, body)).unwrap()
    };
    let deep = [b"{\"command\":".to_vec(), b"[".repeat(2 << 20), b"]".repeat(1 << 20)].concat();
    let in_text = [br#"{"command":"ls","x":"#.to_vec(), b"{\"a\":".repeat(700_000)].concat();
    let wide = [br#"{"command":"ls","x":["#.to_vec(), b"[],".repeat(1_300_000), b"[]]".to_vec()].concat();
    let bodies: [(&str, &[u8]); 25] = [
        ("a key twice", br#"{"command":"ls","command":"rm x"}"#),
        ("a key twice, spelled by an escape", br#"{"command":"ls","comm\u0061nd":"rm x"}"#),
        ("a key twice below", br#"{"command":"ls","env":{"A":"1","A":"2"}}"#),
        ("a key twice where nobody looks", br#"{"command":"ls","x":[{"a":1,"a":2}]}"#),
        ("a byte order mark", b"\xef\xbb\xbf{\"command\":\"ls\"}"),
        ("UTF-16", b"\xff\xfe{\x00}\x00"),
        ("bytes that are no UTF-8", b"{\"command\":\"l\xffs\"}"),
        ("an overlong encoding", b"{\"command\":\"l\xc0\xafs\"}"),
        ("a surrogate as bytes", b"{\"command\":\"l\xed\xa0\x80s\"}"),
        ("half a pair of surrogates", br#"{"command":"l\ud800s"}"#),
        ("the other half", br#"{"command":"l\udc00s"}"#),
        ("a pair the wrong way round", br#"{"command":"\udc00\ud800"}"#),
        ("a NUL", br#"{"command":"ls\u0000rm"}"#),
        ("a NUL as a byte", b"{\"command\":\"ls\0rm\"}"),
        ("a raw line feed in a text", b"{\"command\":\"ls\nrm\"}"),
        ("a number beyond all", br#"{"command":"ls","timeout_s":1e400}"#),
        ("a number that is none", br#"{"command":"ls","timeout_s":NaN}"#),
        ("a comment", b"{\"command\":\"ls\"/*,*/}"),
        ("a second value", br#"{"command":"ls"}{"command":"rm x"}"#),
        ("a comma too many", br#"{"command":"ls",}"#),
        ("single quotes", b"{'command':'ls'}"),
        ("no body but a form", b"command=ls"),
        ("lists in lists", &deep),
        ("objects in objects", &in_text),
        ("nothing but a blank", b" "),
    ];
    for (what, body) in bodies {
        let answer = ask(body);
        assert_eq!(answer.status, 422, "{what}: {:?}", answer.json());
        let fault = &answer.json()["detail"][0];
        assert!(fault["type"].is_string() && fault["loc"].is_array() && fault["msg"].is_string(), "{what}: {fault}");
        assert!(answer.json()["request_id"].is_string() && answer.body.len() < 100_000, "{what}: {fault}");
    }
    let (_, now) = server.ask("GET", "/status", &[], "");
    assert_eq!(now["pending_count"], 0, "one of them was planned");
    // What is wide but shallow is read, and holds no more than its own size allows.
    assert!(matches!(ask(&wide).status, 200 | 422));
    // A key of another case is another key. It is not taken, not shown and not run.
    let shadowed = ask(br#"{"Command":"rm x","command":"ls","COMMAND":"rm y","command ":"rm z"}"#);
    if shadowed.status == 200 {
        assert_eq!(shadowed.json()["command"], "ls");
    }
}

#[test]
fn attack_35_a_request_is_read_in_one_way_or_not_at_all() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let host = server.base.strip_prefix("http://").unwrap();
    let id = server.plan("make install");
    let smuggled = format!(
        "POST /deny/{id} HTTP/1.1\r\nhost: {host}\r\nx-agent-token: {operator}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    let body = br#"{"command":"ls"}"#;
    let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n", smuggled.as_bytes()].concat();
    let counted = [&body[..], smuggled.as_bytes()].concat();
    let length = body.len();
    for (what, framing, sent) in [
        ("two lengths", format!("content-length: {length}\r\ncontent-length: {}\r\n", counted.len()), &counted),
        ("two lengths in one", format!("content-length: {length}, {}\r\n", counted.len()), &counted),
        ("a signed length", format!("content-length: +{length}\r\n"), &counted),
        ("a length in hex", "content-length: 0x10\r\n".to_owned(), &counted),
        ("a negative length", "content-length: -1\r\n".to_owned(), &counted),
        ("an endless length", format!("content-length: {}\r\n", "9".repeat(40)), &counted),
        ("a length before a colon with a blank", format!("content-length : {length}\r\n"), &counted),
        ("a folded length", format!("content-length:\r\n {length}\r\n"), &counted),
        ("a length and chunks", format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"), &chunked),
        ("chunks and a length", format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"), &chunked),
        ("chunks, spelled oddly", "transfer-encoding: xchunked\r\n".to_owned(), &chunked),
        ("chunks that are not last", "transfer-encoding: chunked, identity\r\n".to_owned(), &chunked),
        ("a NUL in a header", "x: a\0b\r\n".to_owned(), &counted),
        ("a carriage return in a header", "x: a\rb: c\r\n".to_owned(), &counted),
        ("a name with a blank", "x y: z\r\n".to_owned(), &counted),
    ] {
        let answers = Raw::to(&server).say(&plan_request(&agent, host, &framing, sent)).impatient().answers();
        let seen: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        // RFC 9112, 6.3: chunks override a length, and then the connection ends with the answer.
        let overridden = what.ends_with("length and chunks") || what.ends_with("chunks and a length");
        let fits = matches!(seen.as_slice(), [] | [400 | 413 | 422 | 501]) || (overridden && seen == [200]);
        assert!(fits, "{what}: {seen:?}");
        assert_eq!(state(&server, &id), "pending", "{what} hid a request in a body");
    }
    for chunks in [
        "-1\r\n",
        "g\r\n",
        "ffffffffffffffffff\r\n",
        "10;\n{\"command\":\"ls\"}\r\n0\r\n\r\n",
        "10\r\n{\"command\":\"ls\"}x\r\n0\r\n\r\n",
        "10 \n",
    ] {
        let sent = [chunks.as_bytes(), smuggled.as_bytes()].concat();
        let request = plan_request(&agent, host, "transfer-encoding: chunked\r\n", &sent);
        let answers = Raw::to(&server).say(&request).impatient().answers();
        assert!(answers.iter().all(|answer| answer.status >= 400) && answers.len() <= 1, "{chunks:?}: {answers:?}");
    }
    for headers in [
        format!("x-agent-token: {agent}\r\nx-agent-token: {operator}\r\n"),
        format!("x-agent-token: {operator}\r\nx-agent-token: {agent}\r\n"),
        format!("x-agent-token: {agent}\r\nauthorization: Bearer {operator}\r\n"),
        format!("authorization: Bearer {operator}\r\nauthorization: Bearer {agent}\r\n"),
        format!("x-agent-token: {operator}\r\nx-agent-token: \r\n"),
        format!("x-agent-token: {agent}, {operator}\r\n"),
        format!("x-agent-token: {operator}x\r\n"),
        format!("x-agent-token: {}\r\n", operator.to_uppercase()),
        format!("x_agent_token: {operator}\r\n"),
    ] {
        let request = format!(
            "POST /deny/{id} HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\ncontent-length: 0\r\n\r\n"
        );
        assert_eq!(raw(&server, request.as_bytes()).unwrap().status, 401, "{headers}");
    }
    assert_eq!(state(&server, &id), "pending");
    let planned = server.by(&operator, "GET", "/pending", &Value::Null).1;
    let commands: Vec<_> = planned.as_array().unwrap().iter().map(|plan| plan["command"].clone()).collect();
    assert_eq!(commands, [json!("ls"), json!("ls"), json!("make install")], "{planned}");
}

#[test]
fn attack_35_requests_one_after_the_other_keep_their_own_answers() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let host = server.base.strip_prefix("http://").unwrap();
    let get = |token: &str, more: &str| {
        format!("GET /health HTTP/1.1\r\nhost: {host}\r\nx-agent-token: {token}\r\n{more}\r\n")
    };
    // A person's request in front must lend its rights to none behind it.
    let piped = [
        get(&operator, ""),
        get("pv_agent_wrong", ""),
        get(&agent, ""),
        get("", ""),
        get(&agent, "connection: close\r\n"),
    ];
    let answers = Raw::to(&server).say(piped.concat().as_bytes()).answers();
    let seen: Vec<_> = answers.iter().map(|answer| (answer.status, answer.json()["confinement"].is_null())).collect();
    assert_eq!(seen, [(200, false), (401, true), (200, true), (401, true), (200, true)]);
    // One that is broken ends the connection: nobody knows where the next one begins.
    let broken = format!("{}GET  /health HTTP/1.1\r\n\r\n{}", get(&agent, ""), get(&operator, ""));
    let answers = Raw::to(&server).say(broken.as_bytes()).answers();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 400]);
    let many: String = (0..1000).map(|_| get(&agent, "")).collect();
    let answers = Raw::to(&server).say(many.as_bytes()).half_closed().answers();
    assert!(answers.len() <= 1000 && answers.iter().all(|answer| answer.status == 200));
}

#[test]
fn attack_35_heads_that_no_client_sends_are_refused_and_cost_nothing() {
    let server = Served::new();
    let (agent, id) = (server.agent(), server.plan("make install"));
    let line = |line: &str| head(&server, &agent, line);
    let many: String = (0..5000).map(|n| format!("x-{n}: y\r\n")).collect();
    let refused = [
        ("many headers", format!("{}{many}\r\n", line("GET /health"))),
        ("a huge value", format!("{}x: {}\r\n\r\n", line("GET /health"), "y".repeat(1 << 20))),
        ("a huge token", format!("{}\r\n", line("GET /health").replace(&agent, &"t".repeat(1 << 20)))),
        ("a huge address", format!("{}\r\n", line(&format!("GET /health?{}", "y".repeat(1 << 20))))),
        ("a huge method", format!("{}\r\n", line(&format!("{} /health", "Y".repeat(1 << 20))))),
        ("an endless line", "y".repeat(2 << 20)),
        ("another version", line("GET /health").replace("HTTP/1.1", "HTTP/3.1") + "\r\n"),
        ("a preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("no version", "GET /health\r\n\r\n".to_owned()),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned()),
        ("CONNECT", format!("{}\r\n", line("CONNECT evil.example:443"))),
        ("a star", format!("{}\r\n", line("OPTIONS *"))),
        ("a blank in the address", format!("{}\r\n", line("GET /hea lth"))),
        ("a NUL in the address", format!("{}\r\n", line("GET /health\0"))),
    ];
    let unreadable = |byte: u8| {
        let request = format!("{}\r\n", line("GET /health?~")).into_bytes();
        request.into_iter().map(|sent| if sent == b'~' { byte } else { sent }).collect::<Vec<_>>()
    };
    let refused = refused.map(|(what, request)| (what, request.into_bytes()));
    let bytes = [("a lone continuation byte", unreadable(0x80)), ("a byte that no UTF-8 has", unreadable(0xfe))];
    for (what, request) in refused.into_iter().chain(bytes) {
        let answer = Raw::to(&server).say(&request).half_closed().answers();
        assert!(answer.iter().all(|answer| answer.status >= 400), "{what}: {:?}", answer.first().map(|it| it.status));
    }
    // Ways to write a path that a proxy and we could take for two.
    for path in [
        format!("/x/../approve/{id}"),
        format!("/./approve/{id}"),
        format!("//approve/{id}"),
        format!("/approve//{id}"),
        format!("/%61pprove/{id}"),
        format!("/approve%2f{id}"),
        format!("/approve/./{id}"),
        format!("/approve/{id}/"),
        format!("/approve/{id};x"),
        format!("/approve\\{id}"),
        format!("/approve/{id}%23"),
        format!("/approve/{id}.json"),
        format!("/approve/%2e%2e/approve/{id}"),
        format!("/APPROVE/{id}"),
        "/approve/%ff%fe".to_owned(),
        "/approve/%00".to_owned(),
        "/approve/%".to_owned(),
        "/approve/%zz".to_owned(),
        format!("/approve/{}", "a".repeat(30_000)),
        "/commands/..%2f..%2fetc%2fpasswd".to_owned(),
        "/runs/..%2f../output".to_owned(),
    ] {
        let request =
            format!("{}content-length: 0\r\n\r\n", head(&server, &server.operator(), &format!("POST {path}")));
        let status = raw(&server, request.as_bytes()).unwrap().status;
        assert!(matches!(status, 307 | 400 | 404 | 405 | 414 | 422 | 431), "{path}: {status}");
        assert_eq!(state(&server, &id), "pending", "{path}");
    }
    // An id is its own text, percent-encoded or not.
    let encoded: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(server.by(&agent, "GET", &format!("/commands/{encoded}"), &Value::Null).1["pending_id"], json!(id));
    for query in [
        "limit=%00",
        "limit=%ff",
        "limit=99999999999999999999",
        "limit=1e3",
        "before=%2e%2e",
        "limit=-0x1",
        "state=%00",
        "limit=\u{fe}",
    ] {
        let answer = raw(&server, format!("{}\r\n", line(&format!("GET /commands?{query}"))).as_bytes()).unwrap();
        assert!(matches!(answer.status, 400 | 422), "{query}: {}", answer.status);
    }
    assert_eq!(server.ask("GET", "/status", &[], "").0, 200);
}

/// Sending on must stay on this host: an HTTP client takes the token with it.
#[test]
fn attack_35_a_redirect_names_no_other_host() {
    let server = Served::new();
    for path in [
        "//evil.example/",
        "/\\evil.example/",
        "/%5cevil.example/",
        "/.//evil.example/",
        "/x//evil.example//",
        "///",
        "/@evil.example/",
        "/http://evil.example/",
        "/\t/evil.example/",
    ] {
        let Some(answer) = raw(&server, format!("{}\r\n", head(&server, "", &format!("GET {path}"))).as_bytes()) else {
            continue;
        };
        let to = answer.head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or("/");
        // Browsers never send a backslash, but take one in an answer for a slash.
        let same = to.starts_with('/') && !to.get(1..).unwrap().starts_with(['/', '\\']);
        assert!(same, "{path} is sent to {to}");
    }
}

/// Kilobytes that the server holds.
fn resident(server: &Served) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Lets this process, and the servers that it starts, hold `needed` connections. False where the system does not.
fn many_descriptors(needed: u64) -> bool {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < needed {
        assert!(std::env::var_os("CI").is_none(), "only {hard} open files are allowed, and in CI nothing is skipped");
        return false;
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(100_000), hard).unwrap();
    true
}

#[test]
fn attack_21_ten_thousand_wrong_tokens_cost_no_memory_and_lock_nobody_else_out() {
    let server = Served::new();
    let host = server.base.strip_prefix("http://").unwrap();
    server.plan("make");
    let before = resident(&server);
    let (mut refused, mut slowed) = (0, 0);
    for batch in 0..100 {
        let asked: String = (0..100)
            .map(|n| {
                let close = if n == 99 { "connection: close\r\n" } else { "" };
                format!(
                    "GET /pending HTTP/1.1\r\nhost: {host}\r\nx-agent-token: pv_agent_{batch:050}{n}\r\n{close}\r\n"
                )
            })
            .collect();
        for answer in Raw::to(&server).say(asked.as_bytes()).answers() {
            match answer.status {
                401 => refused += 1,
                429 => slowed += 1,
                other => panic!("a wrong token was answered {other}"),
            }
        }
    }
    assert_eq!(refused + slowed, 10_000);
    assert!(refused <= 40, "{refused} guesses in two windows at most");
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 16 << 10, "10,000 wrong tokens hold {grown} KiB");
    assert_eq!(server.by(&server.agent(), "GET", "/pending", &Value::Null).0, 200);
    assert_eq!(server.by(&server.operator(), "GET", "/pending", &Value::Null).0, 200);
}

#[test]
fn attack_28_no_header_makes_another_client_of_a_client() {
    let server = Served::with(&[("AGENT_HUB_RATE_LIMIT_REQUESTS", "5")]);
    let agent = server.agent();
    let mut seen = Vec::new();
    for n in 0..12 {
        let forged = format!("203.0.113.{n}");
        let headers = [
            ("x-agent-token", agent.as_str()),
            ("x-forwarded-for", forged.as_str()),
            ("forwarded", &format!("for={forged}")),
            ("x-real-ip", &forged),
            ("cf-connecting-ip", &forged),
            ("true-client-ip", &forged),
            ("via", &forged),
        ];
        seen.push(server.ask("GET", "/pending", &headers, "").0);
    }
    assert_eq!(seen, [[200; 5].as_slice(), &[429; 7]].concat());
    // What an agent used up, a person still has.
    assert_eq!(server.by(&server.operator(), "GET", "/pending", &Value::Null).0, 200);
}

#[test]
fn attack_28_an_agent_that_only_waits_leaves_room_for_whoever_decides() {
    if !many_descriptors(8_000) {
        eprintln!("SKIPPED: the system allows fewer than 8_000 open files");
        return;
    }
    let server = Served::with(&[("AGENT_HUB_RATE_LIMIT_REQUESTS", "100")]);
    let (agent, operator) = (server.agent(), server.operator());
    let id = server.plan("make install");
    let wait =
        head(&server, &agent, &format!("GET /commands/{id}?wait=60")).replace("connection: close\r\n", "") + "\r\n";
    let mut waiting: Vec<Raw> = (0..1000).map(|_| Raw::to(&server).say(wait.as_bytes())).collect();
    // The last ones are past the documented limit, and are told so at once.
    let mut first = [0; 12];
    waiting.last_mut().unwrap().0.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 429");
    assert_eq!(server.by(&operator, "POST", &format!("/deny/{id}"), &Value::Null).0, 200);
    waiting.first_mut().unwrap().0.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200", "whoever waited rightly was not told");
}

#[test]
fn attack_28_five_thousand_streams_of_one_agent_leave_room_for_others() {
    if !many_descriptors(12_000) {
        eprintln!("SKIPPED: the system allows fewer than 12_000 open files");
        return;
    }
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let host = server.base.strip_prefix("http://").unwrap();
    let follow = format!("GET /events HTTP/1.1\r\nhost: {host}\r\nx-agent-token: {agent}\r\nconnection: close\r\n\r\n");
    let before = resident(&server);
    let mut streams: Vec<Raw> = Vec::new();
    let (mut open, mut refused) = (0, 0);
    for _ in 0..5000 {
        let mut stream = Raw::to(&server).say(follow.as_bytes());
        let mut first = [0; 12];
        stream.0.read_exact(&mut first).unwrap();
        match &first {
            b"HTTP/1.1 200" => open += 1,
            b"HTTP/1.1 429" => refused += 1,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
        streams.push(stream);
    }
    assert_eq!((open, refused), (2048, 2952));
    let grown = resident(&server).saturating_sub(before) / open;
    assert!(grown < 256, "a stream holds {grown} KiB");
    let id = server.plan("echo served");
    let (status, run) = server.by(&operator, "POST", &format!("/approve/{id}"), &Value::Null);
    assert_eq!((status, &run["stdout"]), (200, &json!("served\n")), "{run}");
    drop(streams);
    until("room for a stream again", || {
        let mut stream = Raw::to(&server).say(follow.as_bytes());
        let mut first = [0; 12];
        stream.0.read_exact(&mut first).unwrap();
        &first == b"HTTP/1.1 200"
    });
}

/// A connection has no owner before it has said something. It cannot keep its place in silence.
#[test]
fn attack_28_connections_that_say_nothing_whole_give_their_places_back() {
    let server = Served::new();
    let slow: Vec<Raw> = (0..100).map(|_| Raw::to(&server).say(b"POST /plan HTTP/1.1\r\nhost: ")).collect();
    for mut stream in slow {
        let mut left = Vec::new();
        let _ = stream.0.read_to_end(&mut left);
        assert!(left.is_empty() || left.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&left));
    }
}

/// Every `.rs` file below `folder`, joined.
fn sources(folder: &std::path::Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_table_of_attacks_names_tests_that_exist() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut code = String::new();
    sources(crates, &mut code);
    let is_test = |name: &str| code.contains(&format!("fn {name}("));
    let model = fs::read_to_string(crates.join("../docs/threat-model.md")).unwrap();
    let rows: Vec<Vec<&str>> = model
        .lines()
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| cells.get(1).is_some_and(|number| number.parse::<u32>().is_ok()))
        .collect();
    let numbers: Vec<u32> = rows.iter().map(|row| row[1].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=35).collect::<Vec<_>>());
    let mut named = BTreeSet::new();
    for row in &rows {
        let names: Vec<&str> = row[3].split('`').skip(1).step_by(2).filter(|name| name.contains('_')).collect();
        assert!(!names.is_empty() || row[3].contains("ater, with"), "row {} names no test and no owner", row[1]);
        for name in names {
            assert!(is_test(name), "row {} names `{name}`, which is nowhere", row[1]);
            named.insert(name);
            if let Some(number) = name.strip_prefix("attack_") {
                assert_eq!(number.get(..2).unwrap().parse::<u32>().unwrap(), row[1].parse::<u32>().unwrap(), "{name}");
            }
        }
    }
    let made = code.split("fn attack_").skip(1).filter_map(|rest| rest.split_once("()"));
    for (name, _) in made.filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_digit())) {
        assert!(named.contains(format!("attack_{name}").as_str()), "attack_{name} is in no row");
    }
}
