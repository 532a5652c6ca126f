//! The bench itself, run short against the server that was built beside it: whether it measures, never what.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_provara-bench");

/// What `cargo test --workspace` builds beside us. Not a release build: that takes minutes, and no time is looked at here.
fn server() -> PathBuf {
    let path = PathBuf::from(BENCH).with_file_name("provara");
    assert!(path.exists(), "`{}` is not built; run `cargo build` with the same profile first", path.display());
    path
}

/// The bench with its own folder for whatever it makes.
fn bench(folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(BENCH);
    command.arg("--server").arg(server()).arg("--dir").arg(folder.path()).stdin(Stdio::null());
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn rows(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("`{line}` is no JSON"))).collect()
}

/// The processes whose arguments name `folder`, or whose environment does.
fn processes_of(folder: &tempfile::TempDir) -> Vec<String> {
    let mark = folder.path().to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read =
            |file: &str| String::from_utf8_lossy(&fs::read(entry.path().join(file)).unwrap_or_default()).into_owned();
        if read("environ").contains(mark) {
            found.push(read("cmdline"));
        }
    }
    found
}

fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !seen() {
        assert!(Instant::now() < deadline, "never seen: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const LOAD: &[&str] = &["requests", "ops_per_s", "p50_us", "p99_us", "server_cpu_us_per_op", "client_cpu_us_per_op"];

/// Every measure with how many lines it has in a short run, and the numbers that each of them must hold.
const EXPECTED: &[(&str, usize, &[&str])] = &[
    ("machine", 1, &["long_queue", "processors", "memory_mib"]),
    ("limits", 3, &["ops_per_s", "p50_us", "p99_us"]),
    ("judge", 4, &["judged", "mean_us", "p50_us", "p99_us"]),
    ("confinement", 1, &["bare_p50_us", "p50_us", "p99_us", "overhead_p50_us", "unready_p50_us"]),
    ("plan", 3, LOAD),
    ("pending", 6, LOAD),
    ("status", 6, LOAD),
    ("fill", 2, &["plans", "ops_per_s"]),
    ("rss", 3, &["server_mib", "helper_mib"]),
    ("approve", 2, &["p50_us", "p99_us", "bare_p50_us", "overhead_p50_us"]),
    ("approve_parallel", 1, &["wall_ms", "over_ms"]),
    ("events", 3, &["readers", "plan_p50_us"]),
    ("output", 1, &["bytes", "wall_ms", "growth_mib", "status_worst_us"]),
    ("restart", 2, &["ready_ms", "first_pending_ms", "lost"]),
    ("ratio", 9, &["value"]),
];

#[test]
fn a_short_run_measures_everything_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(&folder).arg("--quick").arg("--table").output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let rows = rows(&output);
    let mut counts = BTreeMap::new();
    for row in &rows {
        let measure = row["measure"].as_str().unwrap();
        *counts.entry(measure).or_insert(0) += 1;
        let (_, _, fields) = EXPECTED.iter().find(|(name, _, _)| *name == measure).unwrap();
        for field in *fields {
            assert!(row[field].as_f64().is_some_and(f64::is_finite), "no `{field}` in {row}");
        }
    }
    assert_eq!(counts, EXPECTED.iter().map(|(name, count, _)| (*name, *count)).collect());
    let of = |measure: &str| rows.iter().filter(move |row| row["measure"] == measure).cloned().collect::<Vec<_>>();
    for row in of("events").iter().filter(|row| row["readers"] != 0) {
        assert_eq!(row["lost"], 0, "{row}");
        assert!(row["p50_us"].is_number() && row["kib_per_reader"].is_number(), "{row}");
    }
    for row in of("restart") {
        assert_eq!(row["lost"], 0, "{row}");
        assert_eq!(row["pending"], 200, "{row}");
    }
    let long: Vec<_> =
        of("pending").iter().filter(|row| row["queue"] == "long").map(|row| row["pending"].clone()).collect();
    assert_eq!(long, [200, 200], "the long queue was not as long as asked for");
    assert!(told(&output).contains("| Measure | Measured | Target | Holds |"), "{}", told(&output));
    assert_eq!(processes_of(&folder), Vec::<String>::new(), "a server was left behind");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a folder was left behind");
}

#[test]
fn without_bubblewrap_confinement_is_measured_and_what_is_missing_is_said_loudly() {
    let folder = tempfile::tempdir().unwrap();
    let programs = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/bash", programs.path().join("bash")).unwrap();
    let output = bench(&folder).args(["confinement", "--quick"]).env("PATH", programs.path()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("warning: bubblewrap is NOT INSTALLED"), "{}", told(&output));
    let row = rows(&output).into_iter().find(|row| row["measure"] == "confinement").unwrap();
    assert_eq!(
        (&row["bwrap"], &row["bwrap_p50_us"], &row["over_bwrap_us"]),
        (&"not installed".into(), &Value::Null, &Value::Null)
    );
    assert!(row["overhead_p50_us"].is_number(), "{row}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a folder was left behind");
}

/// Starts a run that takes minutes, and waits until its server serves.
fn busy(folder: &tempfile::TempDir) -> Child {
    let mut command = bench(folder);
    command.args(["rss", "--quick", "--pending", "1000000"]).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    until("a server that serves", || {
        let made = fs::read_dir(folder.path()).unwrap().flatten();
        made.into_iter().any(|root| root.path().join("runtime/address").exists())
    });
    assert!(!processes_of(folder).is_empty(), "the server is not seen by this test");
    child
}

#[test]
fn ctrl_c_ends_the_server_and_removes_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = busy(&folder);
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(processes_of(&folder), Vec::<String>::new(), "a server was left behind");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a folder was left behind");
}

#[test]
fn a_killed_bench_takes_its_server_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = busy(&folder);
    child.kill().unwrap();
    child.wait().unwrap();
    until("the end of the server", || processes_of(&folder).is_empty());
}

#[test]
fn what_cannot_be_measured_is_said_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| Command::new(BENCH).args(arguments).stdin(Stdio::null()).output().unwrap();
    let missing = run(&["rss", "--quick", "--server", "/nonexistent/provara"]);
    assert_eq!(missing.status.code(), Some(1));
    let expected = "error: no server program at `/nonexistent/provara`; build it by `cargo build --release`, or name one by --server\n";
    assert!(told(&missing).ends_with(expected), "{}", told(&missing));
    let silent = run(&["rss", "--quick", "--server", "/bin/false"]);
    assert!(told(&silent).ends_with("error: server did not start; it said: \n"), "{}", told(&silent));
    let tokens = folder.path().join("token");
    fs::File::create(&tokens).unwrap().write_all(b"a token of nobody").unwrap();
    let tokens = tokens.to_str().unwrap();
    let nobody = ["--base", "http://127.0.0.1:9", "--agent-token-file", tokens, "--approver-token-file", tokens];
    let nobody = run(&[&["status", "--quick"], nobody.as_slice()].concat());
    assert!(told(&nobody).contains("error: no connection to 127.0.0.1:9: "), "{}", told(&nobody));
}

/// A server that somebody runs, with everyday settings but for what one of them is about to be.
struct Theirs {
    server: Child,
    base: String,
    _root: tempfile::TempDir,
    tokens: [String; 2],
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn theirs(environment: &[(&str, &str)]) -> Theirs {
    let root = tempfile::tempdir().unwrap();
    let server = Command::new(server())
        .env_clear()
        .env("AGENT_HUB_ROOT", root.path())
        .env("AGENT_HUB_PORT", "0")
        .env("AGENT_HUB_OPERATOR_TOKEN_FILE", "1")
        .envs(environment.iter().copied())
        .arg("serve")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = root.path().join("runtime/address");
    until("the server's address", || fs::read_to_string(&address).is_ok_and(|text| text.ends_with('\n')));
    let base = fs::read_to_string(&address).unwrap().trim().to_owned();
    let token = |file: &str| root.path().join("runtime").join(file).to_str().unwrap().to_owned();
    let tokens = [token("agent_hub_token.txt"), token("operator_token.txt")];
    Theirs { server, base, _root: root, tokens }
}

fn measure(theirs: &Theirs, arguments: &[&str]) -> Output {
    let [agent, approver] = &theirs.tokens;
    Command::new(BENCH)
        .args(arguments)
        .args(["--quick", "--base", &theirs.base, "--agent-token-file", agent, "--approver-token-file", approver])
        .args(["--pid", &theirs.server.id().to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn somebodys_server_is_measured_with_a_warning_and_is_left_running() {
    let theirs = theirs(&[("AGENT_HUB_RATE_LIMIT_REQUESTS", "1000000"), ("AGENT_HUB_MAX_PENDING", "1000000")]);
    let output = measure(&theirs, &["plan", "rss", "restart"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let warning = "keeps every plan that this makes; 0 wait there now, and nothing takes them back";
    assert!(told(&output).contains(warning), "{}", told(&output));
    let rows = rows(&output);
    let restart = rows.iter().find(|row| row["measure"] == "restart").unwrap();
    let refused = "a server that somebody else started is not restarted; leave --base out to measure that";
    assert_eq!(restart["error"], refused);
    assert_eq!(rows.iter().filter(|row| row["measure"] == "plan" && row["requests"].is_number()).count(), 2);
    let again = measure(&theirs, &["status"]);
    assert!(again.status.success(), "the server was not left running: {}", told(&again));
}

#[test]
fn everyday_limits_are_named_with_the_setting_that_lifts_them() {
    let error = |environment: &[(&str, &str)], measure_of: &str| {
        let output = measure(&theirs(environment), &["plan"]);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        let failed = rows(&output).into_iter().find(|row| row["measure"] == measure_of).unwrap();
        failed["error"].as_str().unwrap().to_owned()
    };
    let rate = error(&[("AGENT_HUB_RATE_LIMIT_REQUESTS", "10")], "plan");
    assert!(rate.ends_with("; raise AGENT_HUB_RATE_LIMIT_REQUESTS for the measurement"), "{rate}");
    let cap = error(&[("AGENT_HUB_RATE_LIMIT_REQUESTS", "1000000"), ("AGENT_HUB_MAX_PENDING", "5")], "plan");
    assert!(cap.ends_with("; raise AGENT_HUB_MAX_PENDING for the measurement"), "{cap}");
}
