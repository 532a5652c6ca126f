//! A machine in trouble: full and read-only disks, locked databases, no descriptors left, slow disks, torn files. The server says
//! so, loses nothing that it acknowledged, and goes on when the cause goes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const AGENT: &str = "an-agents-token-of-hardship";
const OPERATOR: &str = "an-operators-token-of-hardship";
const PATIENCE: Duration = Duration::from_secs(30);

/// A server whose runtime folder is a small disk of its own.
struct Troubled {
    root: tempfile::TempDir,
    process: Option<Child>,
    base: String,
}

impl Drop for Troubled {
    fn drop(&mut self) {
        self.stop();
        let _ = Command::new("umount").arg(self.root.path().join("runtime")).stderr(Stdio::null()).status();
    }
}

impl Troubled {
    /// Starts a server on a disk of `size`, its arguments after `before`, with `variables` set.
    fn new(size: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = root.path().join("runtime");
        fs::create_dir(&runtime).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("mode=0700,size={size}"), "tmpfs"], &runtime);
        Self { root, process: None, base: String::new() }
    }

    fn runtime(&self) -> std::path::PathBuf {
        self.root.path().join("runtime")
    }

    fn remount(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}")], &self.runtime());
    }

    fn command(&self, before: &[&str], variables: &[(&str, &str)]) -> Command {
        let binary = env!("CARGO_BIN_EXE_provara");
        let mut command = Command::new(before.first().unwrap_or(&binary));
        if let Some((_, rest)) = before.split_first() {
            command.args(rest).arg(binary);
        }
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("AGENT_HUB_ROOT", self.root.path())
            .env("AGENT_HUB_PORT", "0")
            .env("AGENT_HUB_TOKEN", AGENT)
            .env("AGENT_HUB_OPERATOR_TOKEN", OPERATOR)
            .env("AGENT_HUB_RATE_LIMIT_REQUESTS", "1000000")
            .env("AGENT_HUB_MAX_PENDING", "1000000")
            .envs(variables.iter().copied())
            .arg("serve")
            .stdin(Stdio::null());
        command
    }

    fn start(&mut self, before: &[&str], variables: &[(&str, &str)]) {
        let address = self.runtime().join("address");
        let _ = fs::remove_file(&address);
        let log = self.root.path().join("server.log");
        let process = self.command(before, variables).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        self.process = Some(process);
        let deadline = Instant::now() + PATIENCE;
        self.base = loop {
            match fs::read_to_string(&address) {
                Ok(base) if base.ends_with('\n') => break base.trim().to_owned(),
                _ => assert!(Instant::now() < deadline, "{}", fs::read_to_string(&log).unwrap()),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("x-agent-token", token)
            .body(if body.is_null() { String::new() } else { body.to_string() })
            .unwrap();
        let mut response = config.build().new_agent().run(request).unwrap();
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn plan(&self, command: &str) -> (u16, Value) {
        self.ask("POST", "/plan", AGENT, &json!({ "command": command, "note": "n".repeat(900) }))
    }

    /// Plans until it is refused; returns the ids of what was acknowledged, and the refusal.
    fn plan_until_refused(&self) -> (Vec<String>, Value) {
        let mut acknowledged = Vec::new();
        for number in 0..20_000 {
            match self.plan(&format!("echo {number} {}", "x".repeat(2000))) {
                (200, answer) => acknowledged.push(answer["pending_id"].as_str().unwrap().to_owned()),
                (503, answer) => return (acknowledged, answer),
                other => panic!("{other:?}"),
            }
        }
        panic!("the disk never filled");
    }

    fn is_there(&self, id: &str) -> bool {
        self.ask("GET", &format!("/commands/{id}"), AGENT, &Value::Null).1["state"] == "pending"
    }
}

fn mount(options: &[&str], at: &Path) {
    let done = Command::new("mount").args(options).arg(at).output().unwrap();
    assert!(done.status.success(), "these tests mount small disks and need root: {done:?}");
}

/// Another program that holds the database.
struct Lock(Child);

impl Lock {
    fn on(server: &Troubled) -> Self {
        let script = "import sqlite3, sys\n\
                      db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                      db.execute('BEGIN IMMEDIATE')\n\
                      print('locked', flush=True)\n\
                      sys.stdin.read()\n";
        let mut process = Command::new("python3")
            .args(["-c", script])
            .arg(server.runtime().join("provara.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 6];
        process.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        Self(process)
    }

    fn release(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

fn until(what: &str, seen: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !seen() {
        assert!(Instant::now() < deadline, "never seen: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_unavailable(answer: &Value) {
    assert_eq!(answer["code"], "unavailable", "{answer}");
    let words = "the server could not read or write its store; try again, and see its log if it stays so";
    assert_eq!(answer["detail"], words);
}

#[test]
fn a_full_disk_is_told_and_nothing_acknowledged_is_lost_and_room_brings_it_back() {
    let mut server = Troubled::new("6m");
    server.start(&[], &[]);
    let (acknowledged, refusal) = server.plan_until_refused();
    is_unavailable(&refusal);
    assert!(acknowledged.len() > 50, "only {}", acknowledged.len());
    let (status, answer) = server.ask("GET", "/status", "", &Value::Null);
    assert_eq!((status, &answer["pending_count"]), (200, &json!(acknowledged.len())));
    assert!(server.is_there(&acknowledged[0]));
    server.remount("size=64m");
    let (status, more) = server.plan("echo there is room");
    assert_eq!(status, 200, "{more}");
    server.stop();
    server.start(&[], &[]);
    let more = more["pending_id"].as_str().unwrap().to_owned();
    for id in acknowledged.iter().chain([&more]) {
        assert!(server.is_there(id), "{id} was acknowledged");
    }
}

#[test]
fn how_a_run_ended_while_nothing_could_be_written_is_recorded_afterwards() {
    let mut server = Troubled::new("32m");
    server.start(&[], &[]);
    let (_, planned) = server.plan("until [ -e go ]; do sleep 0.02; done; echo went");
    let path = format!("/commands/{}", planned["pending_id"].as_str().unwrap());
    let approve = format!("/approve/{}", planned["pending_id"].as_str().unwrap());
    std::thread::scope(|scope| {
        let approved = scope.spawn(|| server.ask("POST", &approve, OPERATOR, &Value::Null));
        until("running", || server.ask("GET", &path, OPERATOR, &Value::Null).1["state"] == "running");
        let other = Lock::on(&server);
        fs::write(server.root.path().join("workspace/go"), "").unwrap();
        let log = server.root.path().join("server.log");
        until("an outcome that could not be recorded", || {
            fs::read_to_string(&log).unwrap().contains("could not record how a run ended")
        });
        other.release();
        let (status, run) = approved.join().unwrap();
        assert_eq!((status, &run["stdout"], &run["exit_code"]), (200, &json!("went\n"), &json!(0)), "{run}");
        assert_eq!(server.ask("GET", &path, OPERATOR, &Value::Null).1["state"], "finished");
    });
}

#[test]
fn a_start_on_a_read_only_disk_says_why_it_cannot_and_works_once_it_can() {
    let mut server = Troubled::new("32m");
    server.start(&[], &[]);
    assert_eq!(server.plan("echo one").0, 200);
    server.stop();
    // With files open for writing the kernel would refuse this.
    server.remount("ro");
    let refused = server.command(&[], &[]).output().unwrap();
    let words = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains("provara: ") && words.contains("Read-only file system"), "{words}");
    server.remount("rw");
    server.start(&[], &[]);
    assert_eq!(server.plan("echo two").0, 200);
    assert_eq!(server.ask("GET", "/pending", AGENT, &Value::Null).1.as_array().unwrap().len(), 2);
}

#[test]
fn a_database_that_somebody_else_locks_is_told_and_used_again_afterwards() {
    let mut server = Troubled::new("32m");
    server.start(&[], &[]);
    let other = Lock::on(&server);
    let (status, answer) = server.plan("echo one");
    assert_eq!(status, 503);
    is_unavailable(&answer);
    assert_eq!(server.ask("GET", "/pending", AGENT, &Value::Null), (200, json!([])));
    other.release();
    assert_eq!(server.plan("echo two").0, 200);
}

#[test]
fn a_server_without_descriptors_left_answers_again_when_some_are_free() {
    let mut server = Troubled::new("32m");
    server.start(&["prlimit", "--nofile=64", "--"], &[]);
    let address = server.base.trim_start_matches("http://").to_owned();
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET /status HTTP/1.1\r\n").unwrap();
        held.push(stream);
    }
    // The last of them waits in the kernel's queue: it was never accepted.
    let mut last = held.pop().unwrap();
    last.write_all(b"host: localhost\r\nconnection: close\r\n\r\n").unwrap();
    drop(held);
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, planned) = server.plan("echo still here");
    let id = planned["pending_id"].as_str().unwrap();
    let (status, run) = server.ask("POST", &format!("/approve/{id}"), OPERATOR, &Value::Null);
    assert_eq!((status, &run["stdout"]), (200, &json!("still here\n")), "{run}");
}

#[test]
fn a_slow_disk_slows_writers_and_no_reader() {
    let mut server = Troubled::new("32m");
    server.start(&[], &[("PROVARA_FAULTS", "commit.ready=sleep:300")]);
    let server = &server;
    std::thread::scope(|scope| {
        let planned: Vec<_> =
            (0..16).map(|number| scope.spawn(move || server.plan(&format!("echo {number}")).0)).collect();
        let mut read_meanwhile = 0;
        while planned.iter().any(|writer| !writer.is_finished()) {
            assert_eq!(server.ask("GET", "/pending", AGENT, &Value::Null).0, 200);
            read_meanwhile += 1;
        }
        assert!(read_meanwhile > 3, "reads waited for writes: {read_meanwhile} came through");
        assert!(planned.into_iter().all(|writer| writer.join().unwrap() == 200));
    });
}

#[test]
fn a_torn_line_of_the_mirror_is_mended_from_the_store() {
    let mut server = Troubled::new("32m");
    server.start(&[], &[]);
    assert_eq!(server.plan("echo one").0, 200);
    let mirror = server.runtime().join("audit/log.jsonl");
    let lines = |text: &str| text.matches('\n').count();
    let whole = |count: usize| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&mirror).unwrap_or_default();
            if lines(&text) >= count {
                return text;
            }
            assert!(Instant::now() < deadline, "the mirror stays behind: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let before = whole(4);
    server.stop();
    let torn = before.len() - 20;
    fs::OpenOptions::new().write(true).open(&mirror).unwrap().set_len(u64::try_from(torn).unwrap()).unwrap();
    server.start(&[], &[]);
    let after = whole(lines(&before) + 1);
    assert!(after.starts_with(&before), "the mirror is not what it was");
}

#[test]
fn what_was_dropped_of_an_output_is_told_to_whoever_follows_it() {
    let mut server = Troubled::new("32m");
    server.start(&[], &[("AGENT_HUB_OUTPUT_KEEP", "4096")]);
    let (_, planned) = server.plan("head -c 100000 /dev/zero | tr '\\0' x; echo end");
    let id = planned["pending_id"].as_str().unwrap().to_owned();
    let (_, run) = server.ask("POST", &format!("/approve/{id}"), OPERATOR, &Value::Null);
    let follow = |offset: u64| {
        let path = format!("/runs/{}/output?follow=1&offset={offset}", run["run_id"].as_str().unwrap());
        let request = ureq::get(format!("{}{path}", server.base)).header("x-agent-token", OPERATOR);
        let response = request.call().unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let told = (header("x-provara-offset"), header("x-provara-gap"));
        let mut bytes = Vec::new();
        let whole = response.into_body().into_reader().read_to_end(&mut bytes).is_ok();
        (told, bytes, whole)
    };
    let (told, bytes, whole) = follow(0);
    assert_eq!((told, bytes.len(), whole), ((Some("0".to_owned()), None), 2048, false));
    let (told, bytes, whole) = follow(2048);
    // 100,004 bytes were written; the last 2048 are kept.
    assert_eq!(told, (Some("97956".to_owned()), Some("95908".to_owned())));
    assert!(whole && bytes.len() == 2048 && bytes.ends_with(b"xend\n"));
    let attached = Command::new(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", server.root.path())
        .env("AGENT_HUB_TOKEN", AGENT)
        .args(["--base", &server.base, "attach", &id])
        .output()
        .unwrap();
    assert!(attached.status.success(), "{attached:?}");
    assert_eq!(attached.stdout.len(), 4096);
    let words = String::from_utf8(attached.stderr).unwrap();
    assert!(words.contains("95908 bytes of stdout were not kept and are missing here"), "{words}");
}
