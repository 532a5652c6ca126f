//! A machine in trouble: full and read-only disks, locked databases, no descriptors left, slow disks, torn files. The server says
//! so, loses nothing that it acknowledged, and goes on when the cause goes.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::served::{ask, await_address, until};

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

    /// A server on a disk of its own that an error makes read-only, open files or not: what kernels do to a failing disk.
    fn on_a_disk_that_can_fail() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let server = Self { root, process: None, base: String::new() };
        fs::File::create(server.image()).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir(server.runtime()).unwrap();
        succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(server.image()));
        server.mount_image();
        server
    }

    fn image(&self) -> std::path::PathBuf {
        self.root.path().join("disk.img")
    }

    fn mount_image(&self) {
        let image = self.image();
        mount(&["-o", "loop,errors=remount-ro", image.to_str().unwrap()], &self.runtime());
        fs::set_permissions(self.runtime(), fs::Permissions::from_mode(0o700)).unwrap();
    }

    fn fail_the_disk(&self) {
        let source = succeeds(Command::new("findmnt").args(["-no", "SOURCE"]).arg(self.runtime()));
        let device = source.trim().trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test").unwrap();
    }

    /// What an administrator does with such a disk: it is checked, mended and mounted again.
    fn mend_the_disk(&self) {
        succeeds(Command::new("umount").arg(self.runtime()));
        // The helper's processes see the disk too, until they have followed their server.
        let image = self.image();
        until("the disk let go", || succeeds(Command::new("losetup").arg("-j").arg(&image)).is_empty());
        let mended = Command::new("e2fsck").arg("-p").arg(self.image()).output().unwrap();
        assert!(matches!(mended.status.code(), Some(0 | 1)), "{mended:?}");
        self.mount_image();
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
        self.base = await_address(self.root.path());
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        ask(&self.base, method, path, &[("x-agent-token", token)], &body)
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

    fn provara(&self, arguments: &[&str]) -> String {
        succeeds(
            Command::new(env!("CARGO_BIN_EXE_provara"))
                .env_clear()
                .env("AGENT_HUB_ROOT", self.root.path())
                .env("AGENT_HUB_OPERATOR_TOKEN", OPERATOR)
                .args(["--base", &self.base])
                .args(arguments),
        )
    }

    /// The log verifies from exported bytes alone.
    fn log_verifies(&self) {
        let checkpoint = self.ask("GET", "/audit/checkpoint", OPERATOR, &Value::Null).1;
        let file = |name: &str| self.root.path().join(name).to_str().unwrap().to_owned();
        fs::write(file("note"), checkpoint["checkpoint"].as_str().unwrap()).unwrap();
        fs::write(file("key"), checkpoint["key"].as_str().unwrap()).unwrap();
        fs::write(file("log"), self.provara(&["audit", "export"])).unwrap();
        self.provara(&["audit", "verify", &file("log"), "--checkpoint", &file("note"), "--key", &file("key")]);
    }

    fn is_there(&self, id: &str) -> bool {
        self.ask("GET", &format!("/commands/{id}"), AGENT, &Value::Null).1["state"] == "pending"
    }
}

fn mount(options: &[&str], at: &Path) {
    succeeds(Command::new("mount").args(options).arg(at));
}

fn succeeds(command: &mut Command) -> String {
    let done = command.output().unwrap();
    assert!(done.status.success(), "these tests mount small disks and need root: {done:?}");
    String::from_utf8(done.stdout).unwrap()
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
fn a_disk_that_turns_read_only_under_work_is_told_in_time_and_loses_nothing_acknowledged() {
    let mut server = Troubled::on_a_disk_that_can_fail();
    server.start(&[], &[]);
    let (planned, decided) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let told = |asked: Instant, status: u16, answer: &Value| {
        assert!(asked.elapsed() < PATIENCE / 3, "an answer took {:?}", asked.elapsed());
        assert!(status != 503 || answer["code"] == "unavailable", "{answer}");
        status
    };
    let work = |server: &Troubled| {
        for number in 0.. {
            let asked = Instant::now();
            let (status, answer) = server.plan(&format!("echo {number}"));
            match told(asked, status, &answer) {
                200 => planned.lock().unwrap().push(answer["pending_id"].as_str().unwrap().to_owned()),
                503 => return,
                other => panic!("{other}: {answer}"),
            }
        }
    };
    let decide = |server: &Troubled, route: &str, settled: &'static str| {
        loop {
            let Some(id) = planned.lock().unwrap().pop() else {
                std::thread::yield_now();
                continue;
            };
            let asked = Instant::now();
            let (status, answer) = server.ask("POST", &format!("/{route}/{id}"), OPERATOR, &json!({}));
            match told(asked, status, &answer) {
                200 => decided.lock().unwrap().push((id, settled, answer)),
                // Nothing was said: it may be either, and is not counted among what was acknowledged about it.
                503 => return,
                other => panic!("{other}: {answer}"),
            }
        }
    };
    let of = |what: &str| decided.lock().unwrap().iter().filter(|(_, settled, _)| *settled == what).count();
    let (_, long) = server.plan("until [ -e go ]; do sleep 0.02; done");
    let long = long["pending_id"].as_str().unwrap().to_owned();
    let ((safe_plans, safe_decisions), (status, answer)) = std::thread::scope(|scope| {
        let shared = &server;
        let waits = scope.spawn(|| shared.ask("POST", &format!("/approve/{long}"), OPERATOR, &json!({})));
        for _ in 0..2 {
            scope.spawn(|| work(shared));
        }
        scope.spawn(|| decide(shared, "approve", "finished"));
        scope.spawn(|| decide(shared, "deny", "denied"));
        let running =
            |id: &str| shared.ask("GET", &format!("/commands/{id}"), OPERATOR, &Value::Null).1["state"] == "running";
        until("work of every kind", || of("finished") > 3 && of("denied") > 3 && running(&long));
        let safe = (planned.lock().unwrap().clone(), decided.lock().unwrap().clone());
        shared.fail_the_disk();
        fs::write(shared.root.path().join("workspace/go"), "").unwrap();
        (safe, waits.join().unwrap())
    });
    // It ran to its end, which cannot be recorded: whoever waits is told so instead of waiting for ever.
    assert_eq!(
        (status, &answer["code"], &answer["state"]),
        (503, &json!("unavailable"), &json!("running")),
        "{answer}"
    );
    let id = decided.lock().unwrap()[0].0.clone();
    for _ in 0..3 {
        let asked = Instant::now();
        let (status, answer) = server.plan("echo while it is read-only");
        assert_eq!(told(asked, status, &answer), 503);
    }
    assert_eq!(server.ask("GET", "/status", "", &Value::Null).0, 200);
    let (status, seen) = server.ask("GET", &format!("/commands/{id}"), AGENT, &Value::Null);
    assert_eq!((status, &seen["pending_id"]), (200, &json!(id)));
    assert!(server.process.as_mut().unwrap().try_wait().unwrap().is_none(), "the server died of it");
    server.stop();
    server.mend_the_disk();
    server.start(&[], &[]);
    let exists = |id: &String| server.ask("GET", &format!("/commands/{id}"), AGENT, &Value::Null).0 == 200;
    for id in &safe_plans {
        assert!(exists(id), "{id} was acknowledged");
    }
    // While ext4 gives up its journal, a sync may say that it succeeded and have kept nothing (seen in one of five runs): what
    // was committed in that instant is the disk's word against ours. One commit holds what the four clients asked.
    let gone = planned.lock().unwrap().iter().filter(|id| !exists(id)).count();
    assert!(gone <= 2, "{gone} plans that were acknowledged around the failure are gone");
    let (_, seen) = server.ask("GET", &format!("/commands/{long}"), OPERATOR, &Value::Null);
    assert_eq!(seen["state"], "lost", "{seen}");
    for (id, settled, answer) in &safe_decisions {
        let seen = server.ask("GET", &format!("/commands/{id}"), OPERATOR, &Value::Null).1;
        assert_eq!(seen["state"], *settled, "{seen}");
        if *settled == "finished" {
            assert_eq!(seen["run"]["outcome"], answer["outcome"]);
        }
    }
    assert_eq!(server.plan("echo it is writable again").0, 200);
}

#[test]
fn a_clock_that_jumps_loses_nothing_runs_nothing_twice_and_expires_only_what_its_time_is_up_for() {
    let mut server = Troubled::new("64m");
    let error = server.root.path().join("clock-error");
    let set = |seconds: i64| {
        fs::write(error.with_extension("new"), seconds.to_string()).unwrap();
        fs::rename(error.with_extension("new"), &error).unwrap();
    };
    set(0);
    let clock = [(provara_faults::CLOCK_VARIABLE, error.to_str().unwrap())];
    server.start(&[], &clock);
    let mut planned: Vec<String> = Vec::new();
    let mut plan = |server: &Troubled, body: &Value| {
        let (status, answer) = server.ask("POST", "/plan", AGENT, body);
        assert_eq!(status, 200, "{answer}");
        planned.push(answer["pending_id"].as_str().unwrap().to_owned());
        planned.last().unwrap().clone()
    };
    let state = |server: &Troubled, id: &str| {
        server.ask("GET", &format!("/commands/{id}"), OPERATOR, &Value::Null).1["state"].as_str().unwrap().to_owned()
    };
    let patient = plan(&server, &json!({ "command": "echo patient" }));
    let hasty = plan(&server, &json!({ "command": "echo hasty", "expires_s": 600 }));
    let long =
        plan(&server, &json!({ "command": "until [ -e go ]; do sleep 0.02; done; echo went", "timeout_s": 300 }));
    let later = format!("/commands/{long}");
    std::thread::scope(|scope| {
        let (shared, long_one) = (&server, &long);
        let ran = scope.spawn(move || shared.ask("POST", &format!("/approve/{long_one}"), OPERATOR, &Value::Null));
        until("running", || shared.ask("GET", &later, OPERATOR, &Value::Null).1["state"] == "running");
        let mut number = 0;
        for (jump, hastys) in [(-3600, "pending"), (3600, "expired"), (-3600, "expired"), (0, "expired")] {
            set(jump);
            // Longer than what looks for expired plans rests, and with work going on.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(1500) {
                number += 1;
                let id = plan(shared, &json!({ "command": format!("echo {number} >> ran; echo {number}") }));
                let (status, run) = shared.ask("POST", &format!("/approve/{id}"), OPERATOR, &Value::Null);
                assert_eq!((status, &run["stdout"]), (200, &json!(format!("{number}\n"))), "at {jump}: {run}");
            }
            until("the clock's own work", || state(shared, &hasty) == hastys);
            assert_eq!(state(shared, &patient), "pending");
            assert_eq!(state(shared, &long), "running", "a run's time is not the clock's");
        }
        fs::write(shared.root.path().join("workspace/go"), "").unwrap();
        let (status, run) = ran.join().unwrap();
        assert_eq!((status, &run["stdout"], &run["exit_code"]), (200, &json!("went\n"), &json!(0)), "{run}");
        let took = run["duration_ms"].as_u64().unwrap();
        assert!((1_000..120_000).contains(&took), "{took} ms by a clock that jumped");
        let ran = fs::read_to_string(shared.root.path().join("workspace/ran")).unwrap();
        let each_once: String = (1..=number).map(|number| format!("{number}\n")).collect();
        assert_eq!(ran, each_once);
    });
    // An hour back is also what a restart may find.
    server.stop();
    set(-3600);
    server.start(&[], &clock);
    assert_eq!((state(&server, &patient), state(&server, &hasty)), ("pending".to_owned(), "expired".to_owned()));
    plan(&server, &json!({ "command": "echo after the restart" }));
    let listed = server.ask("GET", "/commands?limit=500", OPERATOR, &Value::Null).1;
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|plan| plan["pending_id"].as_str().unwrap()).collect();
    planned.reverse();
    assert_eq!(listed, planned, "newest first, whatever the clock said");
    server.log_verifies();
}

#[test]
fn a_clock_that_jumps_back_locks_nobody_out() {
    let mut server = Troubled::new("32m");
    let error = server.root.path().join("clock-error");
    let clock = [(provara_faults::CLOCK_VARIABLE, error.to_str().unwrap()), ("AGENT_HUB_RATE_LIMIT_REQUESTS", "3")];
    server.start(&[], &clock);
    let mut last = (0, Value::Null);
    until("a full window", || {
        last = server.plan("echo too much");
        last.0 == 429
    });
    fs::write(&error, "-3600").unwrap();
    assert_eq!(server.plan("echo an hour ago").0, 200, "{last:?}");
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
fn a_server_without_descriptors_left_makes_room_and_runs_again_when_some_are_free() {
    let mut server = Troubled::new("32m");
    server.start(&["prlimit", "--nofile=64", "--"], &[]);
    let address = server.base.trim_start_matches("http://").to_owned();
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(&address).unwrap();
        let _ = stream.write_all(b"GET /status HTTP/1.1\r\n");
        held.push(stream);
    }
    // While they are held there are none left, and still one that says nothing makes room for whoever asks.
    assert_eq!(server.ask("GET", "/status", "", &Value::Null).0, 200);
    drop(held);
    let (_, planned) = server.plan("echo still here");
    let id = planned["pending_id"].as_str().unwrap();
    let (status, run) = server.ask("POST", &format!("/approve/{id}"), OPERATOR, &Value::Null);
    assert_eq!((status, &run["stdout"]), (200, &json!("still here\n")), "{run}");
}

/// Some connect without a pause and say nothing; some say a byte now and then; some ask without a token and keep their
/// connection. All places are taken many times over, and whoever has a token is served.
#[test]
fn attack_28_whoever_keeps_connecting_leaves_room_for_a_token_and_what_is_served_goes_on() {
    let mut server = Troubled::new("32m");
    server.start(&["prlimit", "--nofile=512", "--"], &[]);
    let (places, server) = (256, &server);
    let address = server.base.trim_start_matches("http://");
    let mut events = TcpStream::connect(address).unwrap();
    events.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(events, "GET /events HTTP/1.1\r\nhost: localhost\r\nx-agent-token: {OPERATOR}\r\n\r\n").unwrap();
    let mut events = BufReader::new(events);
    let mut line = String::new();
    events.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    let decided = |planned: (u16, Value)| {
        assert_eq!(planned.0, 200, "{planned:?}");
        server.ask("POST", &format!("/approve/{}", planned.1["pending_id"].as_str().unwrap()), OPERATOR, &Value::Null)
    };
    let (over, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let run = std::thread::scope(|scope| {
        let long = scope.spawn(|| decided(server.plan("until [ -e go ]; do sleep 0.05; done; echo went")));
        until("the long run", || server.ask("GET", "/commands?state=running", OPERATOR, &Value::Null).1[0].is_object());
        scope.spawn(|| {
            let mut held = VecDeque::new();
            while !over.load(Ordering::SeqCst) && opened.load(Ordering::SeqCst) < 20_000 {
                let mut stream = TcpStream::connect(address).unwrap();
                let _ = match opened.fetch_add(1, Ordering::SeqCst) % 8 {
                    0 => stream.write_all(b"GET /status HTTP/1.1\r\nhost: localhost\r\n\r\n"),
                    1 => stream.write_all(b"POST /plan HTTP/1.1\r\nhost: "),
                    _ => Ok(()),
                };
                held.push_back(stream);
                if held.len() > places + 200 {
                    drop(held.pop_front());
                }
                if let Some(slow) = held.get_mut(places / 2) {
                    let _ = slow.write_all(b"x");
                }
            }
        });
        until("every place taken", || opened.load(Ordering::SeqCst) > 2 * places);
        let mut slowest = Duration::ZERO;
        for number in 0..10 {
            let begun = Instant::now();
            let (status, run) = decided(server.plan(&format!("echo {number}")));
            assert_eq!((status, &run["stdout"]), (200, &json!(format!("{number}\n"))), "{run}");
            slowest = slowest.max(begun.elapsed());
        }
        over.store(true, Ordering::SeqCst);
        println!("{} connections; a plan and its approval took {slowest:?} at most", opened.load(Ordering::SeqCst));
        assert!(slowest < PATIENCE / 3, "{slowest:?}");
        fs::write(server.root.path().join("workspace/go"), "").unwrap();
        long.join().unwrap()
    });
    assert_eq!((run.0, &run.1["stdout"]), (200, &json!("went\n")), "{}", run.1);
    // The stream, the oldest connection of all, was never cut: it tells of every run.
    let mut told = events.lines().map_while(Result::ok).filter(|line| line == "event: run.finished");
    assert_eq!(told.by_ref().take(11).count(), 11, "the stream of events ended");
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
        let mut text = String::new();
        until("a mirror that has caught up", || {
            text = fs::read_to_string(&mirror).unwrap_or_default();
            lines(&text) >= count
        });
        text
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
