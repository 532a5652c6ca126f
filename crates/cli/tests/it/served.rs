//! The whole product: a real server of the real binary, real commands, and what an attacker would try.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A server in a folder of its own, ended with the test.
pub(crate) struct Served {
    pub(crate) root: tempfile::TempDir,
    pub(crate) process: Child,
    pub(crate) base: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn start(root: &Path) -> (Child, String) {
    start_with(root, &[])
}

/// A server with some more of an environment.
pub(crate) fn start_with(root: &Path, environment: &[(&str, &str)]) -> (Child, String) {
    // What a killed server left would be taken for the new one's.
    let _ = fs::remove_file(root.join("runtime/address"));
    let process = Command::new(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", root)
        .env("AGENT_HUB_PORT", "0")
        .env("AGENT_HUB_RATE_LIMIT_REQUESTS", "100000")
        .envs(environment.iter().copied())
        .arg("serve")
        .stdin(Stdio::null())
        .stderr(fs::File::create(root.join("server.log")).unwrap())
        .spawn()
        .unwrap();
    (process, await_address(root))
}

/// Waits until the server in `root` answers, and returns where.
pub(super) fn await_address(root: &Path) -> String {
    let (address, deadline) = (root.join("runtime/address"), Instant::now() + Duration::from_secs(30));
    loop {
        match fs::read_to_string(&address) {
            Ok(base) if base.ends_with('\n') => return base.trim().to_owned(),
            _ => assert!(Instant::now() < deadline, "{}", fs::read_to_string(root.join("server.log")).unwrap()),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Served {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (process, base) = start(root.path());
        Self { root, process, base }
    }

    pub(crate) fn token(&self, file: &str) -> String {
        fs::read_to_string(self.root.path().join("runtime").join(file)).unwrap().trim().to_owned()
    }

    pub(crate) fn agent(&self) -> String {
        self.token("agent_hub_token.txt")
    }

    pub(crate) fn operator(&self) -> String {
        self.token("operator_token.txt")
    }

    /// Asks with whatever headers, and returns the status and the body.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_owned()).unwrap();
        let agent = config.timeout_global(Some(Duration::from_secs(60))).build().new_agent();
        let mut response = agent.run(request).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) fn by(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(method, path, &[("x-agent-token", token), ("content-type", "application/json")], &body)
    }

    pub(crate) fn plan(&self, command: &str) -> String {
        let (status, answer) = self.by(&self.agent(), "POST", "/plan", &json!({ "command": command }));
        assert_eq!(status, 200, "{answer}");
        answer["pending_id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn approved(&self, command: &str) -> Value {
        let id = self.plan(command);
        let (status, answer) = self.by(&self.operator(), "POST", &format!("/approve/{id}"), &Value::Null);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub(crate) fn cli(&self, token: (&str, &str), arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_provara"))
            .env_clear()
            .env("AGENT_HUB_ROOT", self.root.path())
            .env(token.0, token.1)
            .args(["--base", &self.base])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

pub(crate) fn alive(mark: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(mark)
    })
}

/// How long a sleep lasts that only this process asks for: a mark to find it by, also while another checkout is tested.
pub(crate) fn marked(seconds: u32) -> String {
    format!("{seconds}.{}", std::process::id())
}

pub(crate) fn sleeps(mark: &str) -> bool {
    alive(&format!("sleep\0{mark}"))
}

pub(crate) fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !seen() {
        assert!(Instant::now() < deadline, "never seen: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_plan_is_approved_run_and_answered_as_documented() {
    let server = Served::new();
    let (status, plan) =
        server.by(&server.agent(), "POST", "/plan", &json!({ "command": "echo hi; echo no >&2; exit 3" }));
    assert_eq!(
        (status, &plan["queued"], &plan["command"]),
        (200, &json!(true), &json!("echo hi; echo no >&2; exit 3"))
    );
    let id = plan["pending_id"].as_str().unwrap();
    let (_, pending) = server.by(&server.operator(), "GET", "/pending?limit=50", &Value::Null);
    assert_eq!((&pending[0]["pending_id"], &pending[0]["timeout_s"]), (&json!(id), &json!(300)));
    let (status, run) =
        server.by(&server.operator(), "POST", &format!("/approve/{id}"), &json!({ "digest": plan["digest"] }));
    assert_eq!(status, 200, "{run}");
    assert_eq!(
        (&run["exit_code"], &run["stdout"], &run["stderr"], &run["outcome"]["kind"]),
        (&json!(3), &json!("hi\n"), &json!("no\n"), &json!("exited"))
    );
    let (_, seen) = server.by(&server.agent(), "GET", &format!("/commands/{id}?wait=1"), &Value::Null);
    assert_eq!((&seen["state"], &seen["run"]["stdout"]), (&json!("finished"), &json!("hi\n")));
    let (status, again) = server.by(&server.operator(), "POST", &format!("/approve/{id}"), &Value::Null);
    assert_eq!((status, &again["code"], &again["state"]), (409, &json!("plan_not_pending"), &json!("finished")));
    let (_, now) = server.ask("GET", "/status", &[], "");
    assert_eq!((&now["ok"], &now["pending_count"], &now["token_required"]), (&json!(true), &json!(0), &json!(true)));
}

#[test]
fn an_agent_is_refused_every_decision_and_sees_no_other_agents_plan() {
    let server = Served::new();
    let id = server.plan("make install");
    for route in ["approve", "deny", "edit", "reopen"] {
        let (status, _) = server.by(&server.agent(), "POST", &format!("/{route}/{id}"), &json!({ "reason": "x" }));
        assert_eq!(status, 403, "{route}");
    }
    let (status, _) =
        server.by(&server.agent(), "POST", &format!("/commands/{id}/extend"), &json!({ "timeout_s": 900 }));
    assert_eq!(status, 403);
    for route in ["/tokens", "/policy", "/audit", "/audit/checkpoint", "/workspaces"] {
        assert_eq!(server.by(&server.agent(), "GET", route, &Value::Null).0, 403, "{route}");
    }
    let made = json!({ "name": "other", "roles": ["agent"] });
    let (status, other) = server.by(&server.operator(), "POST", "/tokens", &made);
    assert_eq!(status, 201, "{other}");
    let other = other["token"].as_str().unwrap();
    let listed = server.cli(("AGENT_HUB_TOKEN", other), &["pending"]);
    assert!(listed.status.success(), "our own client refused a token that our server made");
    assert_eq!(server.by(other, "GET", &format!("/commands/{id}"), &Value::Null).0, 404);
    assert_eq!(server.by(other, "POST", &format!("/commands/{id}/cancel"), &Value::Null).0, 404);
    assert_eq!(server.by(other, "GET", "/pending", &Value::Null).1, json!([]));
    let both = json!({ "name": "both", "roles": ["agent", "approver"] });
    assert_eq!(server.by(&server.operator(), "POST", "/tokens", &both).0, 422, "one token may not propose and decide");
    for token in ["", "pv_agent_wrong"] {
        assert_eq!(server.by(token, "GET", "/pending", &Value::Null).0, 401);
    }
}

#[test]
fn a_denied_command_says_why_and_a_denied_plan_tells_the_reason() {
    let server = Served::new();
    let (status, answer) = server.by(&server.agent(), "POST", "/plan", &json!({ "command": "rm -rf /" }));
    assert_eq!(
        (status, &answer["code"], &answer["judgement"]["verdict"]),
        (403, &json!("policy_denied"), &json!("deny"))
    );
    assert!(answer["pending_id"].is_string() && answer["request_id"].is_string());
    let id = server.plan("make install");
    let (status, _) =
        server.by(&server.operator(), "POST", &format!("/deny/{id}"), &json!({ "reason": "not on Fridays" }));
    assert_eq!(status, 200);
    let (_, seen) = server.by(&server.agent(), "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!((&seen["state"], &seen["decision"]["reason"]), (&json!("denied"), &json!("not on Fridays")));
}

#[test]
fn faults_of_a_body_have_the_documented_shapes() {
    let server = Served::new();
    let fault = |body: &str| {
        let token = server.agent();
        let (status, answer) = server.ask("POST", "/plan", &[("x-agent-token", &token)], body);
        assert_eq!(status, 422, "{body}: {answer}");
        (answer["detail"][0]["type"].clone(), answer["detail"][0]["loc"].clone())
    };
    for (body, kind, loc) in [
        ("", "missing", json!(["body"])),
        ("{}", "missing", json!(["body", "command"])),
        (r#"{"command":""}"#, "string_too_short", json!(["body", "command"])),
        (r#"{"command":7}"#, "string_type", json!(["body", "command"])),
        (r#"{"command":"ls","timeout_s":0}"#, "greater_than_equal", json!(["body", "timeout_s"])),
        (r#"{"command":"ls","timeout_s":3601}"#, "less_than_equal", json!(["body", "timeout_s"])),
        (r#"{"command":"ls","timeout_s":"x"}"#, "int_parsing", json!(["body", "timeout_s"])),
        (r#"{"command":"ls","timeout_s":1.5}"#, "int_from_float", json!(["body", "timeout_s"])),
        ("[]", "model_attributes_type", json!(["body"])),
    ] {
        assert_eq!(fault(body), (json!(kind), loc), "{body}");
    }
    let too_long = json!({ "command": "x".repeat(10_001) }).to_string();
    assert_eq!(fault(&too_long).0, "string_too_long");
    assert_eq!(fault(r#"{"command":"ls","command":"rm x"}"#).0, "json_invalid", "two readers could see two commands");
    assert_eq!(fault("{").0, "json_invalid");
    assert_eq!(fault(&"[".repeat(100_000)).0, "json_invalid");
    let number_as_text = json!({ "command": "ls", "timeout_s": "30" });
    assert_eq!(server.by(&server.agent(), "POST", "/plan", &number_as_text).0, 200);
    for (method, path, status) in [("GET", "/none", 404), ("GET", "/plan", 405), ("GET", "/status/", 307)] {
        assert_eq!(server.ask(method, path, &[], "").0, status, "{method} {path}");
    }
    let (_, none) = server.ask("GET", "/none", &[], "");
    assert_eq!(none["detail"], "Not Found");
}

#[test]
fn a_page_in_a_browser_gets_nowhere() {
    let server = Served::new();
    let token = server.operator();
    for headers in [
        [("host", "evil.example"), ("x-agent-token", token.as_str())],
        [("origin", "http://evil.example"), ("x-agent-token", token.as_str())],
    ] {
        assert_eq!(server.ask("GET", "/pending", &headers, "").0, 403, "{headers:?}");
    }
    let id = server.plan("make install");
    for path in [format!("/approve/{id}"), format!("/deny/{id}")] {
        assert_eq!(server.by(&token, "GET", &path, &Value::Null).0, 405);
    }
    assert_eq!(server.by(&token, "GET", &format!("/commands/{id}"), &Value::Null).1["state"], "pending");
}

#[test]
fn run_ends_with_the_commands_own_code_and_shows_its_output() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let running = Command::new(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", server.root.path())
        .env("AGENT_HUB_TOKEN", &agent)
        .args(["--base", &server.base, "run", "--", "echo live; exit 42"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut id = String::new();
    until("the plan", || {
        let (_, pending) = server.by(&operator, "GET", "/pending", &Value::Null);
        id = pending[0]["pending_id"].as_str().unwrap_or_default().to_owned();
        !id.is_empty()
    });
    let approved = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["approve", &id, "--yes"]);
    assert!(approved.status.success(), "{}", String::from_utf8_lossy(&approved.stderr));
    let ended = running.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(42), &b"live\n"[..]));
}

#[test]
fn hidden_text_is_shown_to_whoever_decides() {
    let server = Served::new();
    let id = server.plan("echo ok\u{202e}\u{200b}\u{1b}[2K #");
    let shown = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &server.operator()), &["show", &id]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("ok⟦U+202E⟧⟦U+200B⟧⟦U+001B⟧[2K"), "{shown}");
}

#[test]
fn an_approved_command_cannot_reach_the_server() {
    let server = Served::new();
    let runtime = server.root.path().join("runtime");
    let pid = server.process.id();
    for command in [
        format!("cat {}/operator_token.txt", runtime.display()),
        format!("cat {}/log_key", runtime.display()),
        format!("cat {}/provara.db", runtime.display()),
        format!("chmod 777 {}/operator_token.txt", runtime.display()),
        format!("python3 -c 'import os; os.setxattr(\"{}/provara.db\", \"user.x\", b\"1\")'", runtime.display()),
        format!("cat /proc/{pid}/environ"),
        format!("cat /proc/{pid}/cmdline"),
        format!("exec 3<>/dev/tcp/127.0.0.1/{}", server.base.rsplit(':').next().unwrap()),
    ] {
        let id = match server.by(&server.agent(), "POST", "/plan", &json!({ "command": command })) {
            (200, plan) => plan["pending_id"].as_str().unwrap().to_owned(),
            // Policy stops some of these before a person sees them; what is asked here is the sandbox.
            (403, refused) => {
                assert_eq!(refused["code"], "policy_denied");
                continue;
            }
            other => unreachable(&other),
        };
        let (status, run) = server.by(&server.operator(), "POST", &format!("/approve/{id}"), &Value::Null);
        assert_eq!(status, 200, "{run}");
        assert_ne!(run["exit_code"], json!(0), "`{command}` worked: {run}");
        assert!(!run["stdout"].as_str().unwrap().contains("pv_"), "{run}");
    }
    let mode = fs::metadata(runtime.join("operator_token.txt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn unreachable(answer: &(u16, Value)) -> String {
    assert_eq!(answer.0, 200, "{}", answer.1);
    String::new()
}

#[test]
fn events_resume_exactly_where_a_reader_stopped() {
    let server = Served::new();
    for n in 0..3 {
        server.plan(&format!("make {n}"));
    }
    let read = |since: u64, count: usize| -> Vec<String> {
        let url = format!("{}/events?since={since}&types=plan.queued", server.base);
        let response = ureq::get(&url).header("x-agent-token", server.agent()).call().unwrap();
        let lines = BufReader::new(response.into_body().into_reader()).lines();
        lines.map_while(Result::ok).filter(|line| line.starts_with("id: ")).take(count).collect()
    };
    let all = read(0, 3);
    assert_eq!(all.len(), 3);
    let first: u64 = all.first().unwrap().strip_prefix("id: ").unwrap().parse().unwrap();
    assert_eq!(read(first, 2), all.get(1..).unwrap());
}

#[test]
fn a_second_server_on_one_folder_is_refused() {
    let server = Served::new();
    let second = Command::new(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", server.root.path())
        .env("AGENT_HUB_PORT", "0")
        .arg("serve")
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another server"));
}

#[test]
fn a_killed_server_calls_its_run_lost_and_leaves_no_process() {
    let mut server = Served::new();
    let (apart, here) = (marked(4711), marked(4712));
    let id = server.plan(&format!("setsid sleep {apart} & sleep {here}"));
    let waiting = server.plan("make later");
    let (status, _) = server.ask(
        "POST",
        &format!("/approve/{id}"),
        &[("x-agent-token", &server.operator()), ("prefer", "respond-async")],
        "",
    );
    assert_eq!(status, 202);
    until("the command at work", || sleeps(&apart) && sleeps(&here));
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    until("the end of the tree", || !sleeps(&apart) && !sleeps(&here));
    fs::remove_file(server.root.path().join("runtime/address")).unwrap();
    (server.process, server.base) = start(server.root.path());
    let (_, seen) = server.by(&server.agent(), "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!((&seen["state"], &seen["run"]["outcome"]), (&json!("lost"), &Value::Null));
    let (_, seen) = server.by(&server.agent(), "GET", &format!("/commands/{waiting}"), &Value::Null);
    assert_eq!(seen["state"], "pending");
    // It is never run again; a person may propose the same anew, once, and decides on that.
    let (status, late) = server.by(&server.operator(), "POST", &format!("/approve/{id}"), &Value::Null);
    assert_eq!((status, &late["state"]), (409, &json!("lost")), "{late}");
    let reopen = format!("/reopen/{id}");
    let (status, anew) = server.by(&server.operator(), "POST", &reopen, &Value::Null);
    assert_eq!((status, &anew["state"], &anew["origin"]), (200, &json!("pending"), &json!(id)), "{anew}");
    assert!(anew["pending_id"] != json!(id) && anew["run"].is_null() && anew["decision"].is_null(), "{anew}");
    assert_eq!(server.by(&server.operator(), "POST", &reopen, &Value::Null).0, 409);
    let (_, seen) = server.by(&server.agent(), "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!((&seen["state"], &seen["run"]["outcome"]), (&json!("lost"), &Value::Null));
}

#[test]
fn a_stopped_server_ends_in_order_and_the_log_holds() {
    let mut server = Served::new();
    assert_eq!(server.approved("echo done")["stdout"], "done\n");
    let (_, checkpoint) = server.by(&server.operator(), "GET", "/audit/checkpoint", &Value::Null);
    let dir = server.root.path();
    fs::write(dir.join("kept.note"), checkpoint["checkpoint"].as_str().unwrap()).unwrap();
    fs::write(dir.join("key"), checkpoint["key"].as_str().unwrap()).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.process.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(server.process.wait().unwrap().success());
    let (_process, _) = (start(dir).0, ());
    let mirror = dir.join("runtime/audit/log.jsonl");
    until("the whole mirror", || {
        fs::read_to_string(&mirror).is_ok_and(|lines| lines.matches("server.st").count() >= 3)
    });
    let (note, key) = (dir.join("kept.note"), dir.join("key"));
    let verify = |file: &Path| {
        Command::new(env!("CARGO_BIN_EXE_provara"))
            .env_clear()
            .args(["audit", "verify"])
            .arg(file)
            .arg("--checkpoint")
            .arg(&note)
            .arg("--key")
            .arg(&key)
            .output()
            .unwrap()
    };
    let good = verify(&mirror);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stdout));
    let text = fs::read_to_string(&mirror).unwrap();
    assert!(!text.contains("echo done"), "the log tells a command's text");
    let forged = dir.join("forged.jsonl");
    fs::write(&forged, text.replacen("operator", "operatos", 1)).unwrap();
    assert!(!verify(&forged).status.success());
    let mut process = _process;
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn a_reader_that_shares_no_code_with_us_agrees_about_the_log() {
    for needed in ["python3", "openssl"] {
        if Command::new(needed).arg("--help").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "{needed} is missing, and in CI nothing is skipped");
            eprintln!("SKIPPED: {needed} is not installed, so the log was not checked independently");
            return;
        }
    }
    let server = Served::new();
    server.approved("echo \u{fc}n\u{ef}c\u{f6}de");
    let (_, _) = server.by(&server.operator(), "POST", &format!("/deny/{}", server.plan("make x")), &Value::Null);
    let (_, checkpoint) = server.by(&server.operator(), "GET", "/audit/checkpoint", &Value::Null);
    let path = |name: &str| server.root.path().join(name);
    fs::write(path("note"), checkpoint["checkpoint"].as_str().unwrap()).unwrap();
    fs::write(path("key"), checkpoint["key"].as_str().unwrap()).unwrap();
    let exported = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &server.operator()), &["audit", "export"]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let check = |log: &[u8]| {
        fs::write(path("log.jsonl"), log).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crosscheck.py");
        Command::new("python3").arg(script).args([path("log.jsonl"), path("note"), path("key")]).output().unwrap()
    };
    let good = check(&exported.stdout);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let forged = String::from_utf8(exported.stdout).unwrap().replacen("operator", "operatos", 1);
    assert!(!check(forged.as_bytes()).status.success(), "the independent reader believes anything");
}

#[test]
fn the_demo_does_the_whole_job() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_provara")).args(["demo", "--yes"]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("demo: all well"), "{text}");
}
