//! `kill -9` everywhere: agents plan, people decide, and the server or its helper dies at every place there is, over and over
//! on the same folder. What was acknowledged must be there, nothing may run twice, no process may stay, the log must verify.
//!
//! The ordinary tests run this for seconds; `cargo xtask soak` runs the same for as long as told and prints the seed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use provara_faults::{Place, VARIABLE};
use serde_json::{Value, json};

const AGENT: &str = "an-agents-token-of-the-soak";
const OPERATOR: &str = "an-operators-token-of-the-soak";
/// How long anything that has to happen may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn whatever_dies_nothing_acknowledged_is_lost_and_nothing_runs_twice() {
    let seconds = number("PROVARA_SOAK_SECONDS").unwrap_or(6);
    let seed = number("PROVARA_SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed);
    println!("seed {seed} (repeat with PROVARA_SOAK_SEED={seed})");
    let soak = Soak::new(seed);
    let summary = soak.run(Duration::from_secs(seconds));
    println!("{summary:#}");
    if let Some(path) = std::env::var_os("PROVARA_SOAK_SUMMARY") {
        fs::write(path, format!("{summary:#}\n")).unwrap();
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Numbers that a seed fixes (SplitMix64).
struct Dice(AtomicU64);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What somebody asked of a plan, and whether the server said that it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Approve,
    ApproveLater,
    Deny,
    Cancel,
}

/// What the outside world knows of one plan.
#[derive(Debug, Default)]
struct Known {
    token: String,
    wish: Option<(Wish, bool)>,
    /// The answer of a synchronous approval.
    result: Option<Value>,
}

struct Soak {
    root: tempfile::TempDir,
    dice: Dice,
    /// Stands in every command's text, and so in the arguments of every process that a command leaves.
    mark: String,
    next: AtomicU64,
    /// Acknowledged plans by their ids.
    plans: Mutex<HashMap<String, Known>>,
    /// Acknowledged plans that nobody has decided on.
    open: Mutex<Vec<(String, String)>>,
    audited: Mutex<HashSet<String>>,
    tally: Mutex<BTreeMap<String, u64>>,
}

/// A server at work.
struct Serving {
    process: Child,
    base: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Soak {
    fn new(seed: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            root,
            dice: Dice(AtomicU64::new(seed)),
            mark: format!("soak{}x", std::process::id()),
            next: AtomicU64::new(0),
            plans: Mutex::default(),
            open: Mutex::default(),
            audited: Mutex::default(),
            tally: Mutex::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn count(&self, what: &str) {
        *locked(&self.tally).entry(what.to_owned()).or_default() += 1;
    }

    fn run(&self, length: Duration) -> Value {
        let begun = Instant::now();
        let (mut round, mut last_audit) = (0u64, Instant::now());
        while begun.elapsed() < length {
            self.round(round);
            self.nothing_is_left();
            round += 1;
            if last_audit.elapsed() > Duration::from_secs(20) {
                self.audit(false);
                last_audit = Instant::now();
            }
        }
        self.audit(true);
        let tally = locked(&self.tally).clone();
        let kills: u64 = tally.iter().filter(|(what, _)| what.starts_with("kill ")).map(|(_, n)| n).sum();
        json!({
            "seconds": begun.elapsed().as_secs(),
            "rounds": round,
            "kills": kills,
            "acknowledged_plans": locked(&self.plans).len(),
            "counts": tally,
        })
    }

    /// One life of a server: it starts, works, and dies in the way that is this round's turn.
    fn round(&self, round: u64) {
        let places = u64::try_from(Place::ALL.len()).unwrap();
        let turn = usize::try_from(round % (places + 3)).unwrap();
        let life = Duration::from_millis(60 + self.dice.roll(500));
        let fault = Place::ALL.get(turn).map(|place| format!("{}=kill:{}", place.as_str(), 1 + self.dice.roll(12)));
        let Some(mut server) = self.start(fault.as_deref()) else {
            self.count(&format!("kill at {}", place(&fault.unwrap_or_default())));
            return;
        };
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| self.be_agent(&server.base, &over));
                scope.spawn(|| self.be_approver(&server.base, &over));
            }
            let until = Instant::now() + life;
            while Instant::now() < until && alive(&server) {
                std::thread::sleep(Duration::from_millis(5));
            }
            // A fault in the helper's processes leaves the server alive: it goes on, and dies of ours.
            let died_of_it = !alive(&server);
            let pid = Pid::from_raw(i32::try_from(server.process.id()).unwrap());
            let how = match (turn.checked_sub(Place::ALL.len()), &fault) {
                (Some(1), _) => {
                    for helper in children(pid) {
                        let _ = kill(helper, Signal::SIGKILL);
                    }
                    // The server goes on with a new helper for a while.
                    std::thread::sleep(Duration::from_millis(50 + self.dice.roll(100)));
                    "kill the helper, then the server".to_owned()
                }
                (Some(2), _) => {
                    let _ = kill(pid, Signal::SIGTERM);
                    let deadline = Instant::now() + PATIENCE;
                    while alive(&server) {
                        assert!(Instant::now() < deadline, "the server does not stop when told to");
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    "stop in order".to_owned()
                }
                (_, Some(fault)) if died_of_it => format!("kill at {}", place(fault)),
                (_, Some(fault)) if in_the_helper(place(fault)) => format!("kill at {}, then the server", place(fault)),
                _ => "kill at a random moment".to_owned(),
            };
            let _ = kill(pid, Signal::SIGKILL);
            over.store(true, Ordering::SeqCst);
            self.count(&how);
        });
        let _ = server.process.wait();
    }

    /// Starts a server on the one folder. Nothing, if the fault ended it before it served.
    fn start(&self, fault: Option<&str>) -> Option<Serving> {
        let address = self.path("runtime/address");
        let _ = fs::remove_file(&address);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("server.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_provara"));
        command
            .env_clear()
            .envs(fault.map(|fault| (VARIABLE, fault)))
            .env("AGENT_HUB_ROOT", self.root.path())
            .env("AGENT_HUB_PORT", "0")
            .env("AGENT_HUB_TOKEN", AGENT)
            .env("AGENT_HUB_OPERATOR_TOKEN", OPERATOR)
            .env("AGENT_HUB_RATE_LIMIT_REQUESTS", "1000000000")
            .env("AGENT_HUB_MAX_PENDING", "100000000")
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut process = command.spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(base) = fs::read_to_string(&address).ok().filter(|base| base.ends_with('\n')) {
                return Some(Serving { process, base: base.trim().to_owned() });
            }
            if let Some(status) = process.try_wait().unwrap() {
                let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
                assert!(killed && fault.is_some(), "the server did not start: {status}; {}", self.last_words());
                return None;
            }
            assert!(Instant::now() < deadline, "the server does not start: {}", self.last_words());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.path("server.log")).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    /// Plans until the server is gone.
    fn be_agent(&self, base: &str, over: &AtomicBool) {
        let client = Client::new(base, AGENT);
        while !over.load(Ordering::SeqCst) {
            let token = format!("{}{}", self.mark, self.next.fetch_add(1, Ordering::SeqCst));
            let command = command(&token, self.dice.roll(8));
            let Some((status, answer)) = client.post("/plan", &json!({ "command": command })) else { return };
            if status == 503 {
                return;
            }
            assert_eq!(status, 200, "{answer}");
            let id = answer["pending_id"].as_str().unwrap().to_owned();
            locked(&self.plans).insert(id.clone(), Known { token: token.clone(), ..Known::default() });
            locked(&self.open).push((id, token));
        }
    }

    /// Decides on whatever is open until the server is gone.
    fn be_approver(&self, base: &str, over: &AtomicBool) {
        let (person, agent) = (Client::new(base, OPERATOR), Client::new(base, AGENT));
        while !over.load(Ordering::SeqCst) {
            let Some((id, _)) = locked(&self.open).pop() else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            let wish = match self.dice.roll(20) {
                0..=3 => Wish::Approve,
                4..=5 => Wish::ApproveLater,
                6..=13 => Wish::Deny,
                14..=17 => Wish::Cancel,
                // Stays pending for ever: restarts must keep it so.
                _ => continue,
            };
            self.knows(&id, |known| known.wish = Some((wish, false)));
            let asked = match wish {
                Wish::Approve => person.post(&format!("/approve/{id}"), &json!({})),
                Wish::ApproveLater => person.post_later(&format!("/approve/{id}")),
                Wish::Deny => person.post(&format!("/deny/{id}"), &json!({ "reason": "no" })),
                Wish::Cancel => agent.post(&format!("/commands/{id}/cancel"), &json!({})),
            };
            let Some((status, answer)) = asked else { return };
            if status == 503 {
                continue;
            }
            assert!(matches!(status, 200 | 202 | 409), "{wish:?} of {id} was answered {status}: {answer}");
            self.knows(&id, |known| {
                known.wish = Some((wish, status < 300));
                known.result = (wish == Wish::Approve && status == 200).then_some(answer);
            });
        }
    }

    fn knows(&self, id: &str, change: impl FnOnce(&mut Known)) {
        if let Some(known) = locked(&self.plans).get_mut(id) {
            change(known);
        }
    }

    /// No process of any command outlives its server.
    fn nothing_is_left(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still there: {left:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn processes(&self) -> Vec<String> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let arguments = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let texts = arguments.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
        texts.filter(|text| text.contains(&self.mark)).collect()
    }

    /// Compares what the server says with what the outside world knows.
    fn audit(&self, last: bool) {
        let server = self.start(None).unwrap();
        let client = Client::new(&server.base, OPERATOR);
        let deadline = Instant::now() + PATIENCE * 4;
        while client.get("/commands?state=approved,running&limit=1").as_array().is_none_or(|open| !open.is_empty()) {
            assert!(Instant::now() < deadline, "approved plans are not run after a restart");
            std::thread::sleep(Duration::from_millis(20));
        }
        let ran = fs::read_to_string(self.path("workspace/ran.log")).unwrap_or_default();
        let mut times: HashMap<&str, u32> = HashMap::new();
        ran.lines().for_each(|token| *times.entry(token).or_default() += 1);
        let mut seen = HashSet::new();
        let mut cursor = String::new();
        'pages: loop {
            let (page, next) = client.page(&format!("/commands?limit=500{cursor}"));
            for plan in &page {
                let id = plan["pending_id"].as_str().unwrap();
                if locked(&self.audited).contains(id) {
                    break 'pages;
                }
                seen.insert(id.to_owned());
                self.check(plan, &times);
            }
            match next {
                Some(next) => cursor = format!("&before={next}"),
                None => break,
            }
        }
        let missing: Vec<_> = {
            let (plans, audited) = (locked(&self.plans), locked(&self.audited));
            plans.keys().filter(|id| !seen.contains(*id) && !audited.contains(*id)).cloned().collect()
        };
        assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
        // The open ones are decided on later and have to be looked at again.
        let open: HashSet<_> = locked(&self.open).drain(..).map(|(id, _)| id).collect();
        drop(open);
        locked(&self.audited).extend(seen);
        self.check_log(&client, &server, last);
    }

    fn check(&self, plan: &Value, times: &HashMap<&str, u32>) {
        let id = plan["pending_id"].as_str().unwrap();
        let state = plan["state"].as_str().unwrap();
        let text = plan["command"].as_str().unwrap();
        let token = text.split_whitespace().nth(1).unwrap();
        let ran = times.get(token).copied().unwrap_or(0);
        let exited = plan["run"]["outcome"]["kind"] == "exited";
        self.count(&format!(
            "ended {state}{}",
            plan["run"]["outcome"]["kind"].as_str().map_or(String::new(), |kind| format!(" {kind}"))
        ));
        match (state, exited) {
            ("finished", true) => assert_eq!(ran, 1, "{id} exited and ran {ran} times: {plan}"),
            ("finished" | "lost", _) => assert!(ran <= 1, "{id} ran {ran} times: {plan}"),
            _ => assert_eq!(ran, 0, "{id} is {state} and ran: {plan}"),
        }
        let plans = locked(&self.plans);
        // The reply of a plan that nobody here knows was lost on its way.
        let Some(known) = plans.get(id) else { return };
        assert_eq!(known.token, token);
        let fits = match known.wish {
            None => state == "pending",
            Some((Wish::Deny, true)) => state == "denied",
            Some((Wish::Deny, false)) => matches!(state, "pending" | "denied"),
            Some((Wish::Cancel, true)) => matches!(state, "withdrawn"),
            Some((Wish::Cancel, false)) => matches!(state, "pending" | "withdrawn"),
            Some((Wish::Approve | Wish::ApproveLater, true)) => matches!(state, "finished" | "lost"),
            Some((Wish::Approve | Wish::ApproveLater, false)) => matches!(state, "pending" | "finished" | "lost"),
        };
        assert!(fits, "{known:?} is {state}: {plan}");
        if let Some(result) = &known.result {
            // What was answered was durable: it reads the same for ever.
            assert_eq!((&plan["run"]["outcome"], &plan["run"]["run_id"]), (&result["outcome"], &result["run_id"]));
            assert_eq!(plan["run"]["stdout_bytes"], result["stdout_bytes"]);
        }
    }

    /// The log verifies from exported bytes against every checkpoint kept so far.
    fn check_log(&self, client: &Client, server: &Serving, last: bool) {
        let checkpoint = client.get("/audit/checkpoint");
        let kept = self.path(&format!("kept-{}", locked(&self.audited).len()));
        fs::write(&kept, checkpoint["checkpoint"].as_str().unwrap()).unwrap();
        fs::write(self.path("vkey"), checkpoint["key"].as_str().unwrap()).unwrap();
        if !last {
            return;
        }
        let export = self.provara(&server.base, &["audit", "export"]);
        fs::write(self.path("log.jsonl"), &export).unwrap();
        let log = self.path("log.jsonl");
        let mut arguments = vec!["audit".to_owned(), "verify".to_owned(), text(&log)];
        for entry in fs::read_dir(self.root.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("kept-") {
                arguments.extend(["--checkpoint".to_owned(), text(&entry.path())]);
            }
        }
        arguments.extend(["--key".to_owned(), text(&self.path("vkey"))]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.provara(&server.base, &arguments);
        // The mirror has caught up with what every crash left of it.
        let mirror = self.path("runtime/audit/log.jsonl");
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&mirror).unwrap().len() < u64::try_from(export.len()).unwrap() {
            assert!(Instant::now() < deadline, "the mirror stays behind");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(fs::read(&mirror).unwrap().starts_with(&export), "the mirror is not the log");
        self.events_are_the_log(&server.base, export.iter().filter(|byte| **byte == b'\n').count());
        let left = fs::read_dir(self.path("runtime/output")).unwrap().count();
        let lost =
            locked(&self.tally).iter().filter(|(what, _)| what.starts_with("ended")).map(|(_, n)| n).sum::<u64>();
        assert!(u64::try_from(left).unwrap() <= 2 * lost, "{left} spools for {lost} runs");
    }

    /// Whoever reads all events gets every position once.
    fn events_are_the_log(&self, base: &str, entries: usize) {
        let mut stream = TcpStream::connect(base.trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /events?since=0 HTTP/1.1\r\nhost: localhost\r\nx-agent-token: {OPERATOR}\r\n\r\n").unwrap();
        let (mut next, mut last) = (1, None);
        for line in BufReader::new(stream).lines() {
            let line = line.unwrap();
            match line.strip_prefix("id: ") {
                Some(position) => last = position.parse().ok(),
                None if line.starts_with("event: ") => {
                    assert_eq!(last, Some(next), "an event is missing or told twice");
                    next += 1;
                }
                None => {}
            }
            if next == entries {
                return;
            }
        }
        panic!("the events ended at {next} of {entries}");
    }

    fn provara(&self, base: &str, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(env!("CARGO_BIN_EXE_provara"))
            .env_clear()
            .env("AGENT_HUB_ROOT", self.root.path())
            .env("AGENT_HUB_OPERATOR_TOKEN", OPERATOR)
            .args(["--base", base])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
        output.stdout
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Each leaves its token once where it ran; some leave processes, some much output.
fn command(token: &str, kind: u64) -> String {
    let rest = match kind {
        0 => format!("(sleep 60; true) & (setsid bash -c 'sleep 60; # {token}' &)"),
        1 => "head -c 200000 /dev/zero | tr '\\0' x".to_owned(),
        2 => "trap '' TERM; sleep 0.05".to_owned(),
        _ => "true".to_owned(),
    };
    format!("echo {token} >> ran.log; {rest}; echo {token}")
}

/// The place that a fault names.
fn place(fault: &str) -> &str {
    fault.split('=').next().unwrap_or_default()
}

fn in_the_helper(place: &str) -> bool {
    ["helper.", "supervisor.", "init.", "shell."].iter().any(|process| place.starts_with(process))
}

/// Whether the process is there and no zombie.
fn alive(server: &Serving) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.process.id()));
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or("Z").starts_with('Z'))
}

fn children(pid: Pid) -> Vec<Pid> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let all = fs::read_to_string(path).unwrap_or_default();
    all.split_whitespace().filter_map(|child| child.parse().ok().map(Pid::from_raw)).collect()
}

/// A client whose server may die at any moment.
struct Client {
    agent: ureq::Agent,
    base: String,
    token: &'static str,
}

impl Client {
    fn new(base: &str, token: &'static str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        Self { agent: config.build().new_agent(), base: base.to_owned(), token }
    }

    /// The status and the answer; nothing when the server is gone.
    fn send(
        &self,
        method: &str,
        path: &str,
        body: String,
        more: &[(&str, &str)],
    ) -> Option<(u16, Value, Option<String>)> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("x-agent-token", self.token)
            .header("content-type", "application/json");
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let mut response = self.agent.run(request.body(body).unwrap()).ok()?;
        let next = response.headers().get("x-next-cursor").map(|value| value.to_str().unwrap().to_owned());
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string().ok()?;
        Some((response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)), next))
    }

    fn post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        self.send("POST", path, body.to_string(), &[]).map(|(status, answer, _)| (status, answer))
    }

    fn post_later(&self, path: &str) -> Option<(u16, Value)> {
        let later = [("prefer", "respond-async")];
        self.send("POST", path, "{}".to_owned(), &later).map(|(status, answer, _)| (status, answer))
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer, _) = self.send("GET", path, String::new(), &[]).unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    fn page(&self, path: &str) -> (Vec<Value>, Option<String>) {
        let (status, answer, next) = self.send("GET", path, String::new(), &[]).unwrap();
        assert_eq!(status, 200, "{answer}");
        (answer.as_array().unwrap().clone(), next)
    }
}
