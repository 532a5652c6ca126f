//! A server under a supervisor. The test plays systemd: it listens, hands the socket over, and hears what it is told.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::served::{Served, until};

fn folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    root
}

/// Starts a server as systemd does: the socket at descriptor 3, its number in LISTEN_PID.
fn activated(root: &std::path::Path, listener: TcpListener, variables: &[(&str, &str)]) -> Child {
    let script = "export LISTEN_PID=$$ WATCHDOG_PID=$$; exec 3<&0 </dev/null; exec \"$0\" serve $ARGUMENTS";
    Command::new("/bin/sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_provara")])
        .env_clear()
        .envs([("AGENT_HUB_ROOT", root.to_str().unwrap()), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "provara.socket")])
        .envs(variables.iter().copied())
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stderr(fs::File::create(root.join("server.log")).unwrap())
        .spawn()
        .unwrap()
}

fn heard(socket: &UnixDatagram) -> Option<String> {
    let mut buffer = [0; 4096];
    let read = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8(buffer[..read].to_vec()).unwrap())
}

/// The environment of every process below `pid`.
fn environments_below(pid: u32) -> Vec<String> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    // Threads start processes too.
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let all: Vec<String> = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    let mut found = Vec::new();
    for child in all.join(" ").split_whitespace().chain(children.split_whitespace()) {
        let raw = fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
        found.push(String::from_utf8_lossy(&raw).into_owned());
        found.extend(environments_below(child.parse().unwrap()));
    }
    found
}

#[test]
fn a_supervisor_hands_the_socket_over_and_hears_ready_signs_of_life_and_the_end() {
    let root = folder();
    let notify = UnixDatagram::bind(root.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Asked before there is anybody: the question waits in the socket, which is what activation is for.
    let mut early = TcpStream::connect(address).unwrap();
    write!(early, "GET /status HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").unwrap();
    let socket = root.path().join("notify");
    let variables =
        [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "1000000"), ("AGENT_HUB_PORT", "1")];
    let process = activated(root.path(), listener, &variables);
    let server = Served { root, process, base: format!("http://{address}") };
    let log = || fs::read_to_string(server.root.path().join("server.log")).unwrap();
    assert_eq!(heard(&notify).unwrap_or_else(log), format!("READY=1\nSTATUS=listening on http://{address}\n"));
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for _ in 0..3 {
        assert_eq!(heard(&notify).as_deref(), Some("WATCHDOG=1\n"));
    }

    // What is ours is not the command's, nor the helper's.
    let seen = server.approved("env; ls -l /proc/self/fd");
    let seen = seen["stdout"].as_str().unwrap();
    let below = environments_below(server.process.id());
    assert!(!below.is_empty(), "no helper was found");
    for word in ["NOTIFY_SOCKET", "LISTEN_", "WATCHDOG", "socket:"] {
        assert!(!seen.contains(word), "{word} reached the command: {seen}");
        assert!(!below.iter().any(|environment| environment.contains(word)), "{word} reached the helper");
    }

    // No sign of life while the store does not answer, and one again as soon as it does.
    let hold = rusqlite::Connection::open(server.root.path().join("runtime/provara.db")).unwrap();
    hold.execute_batch("BEGIN IMMEDIATE").unwrap();
    let held = Instant::now();
    notify.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    while heard(&notify).is_some() {
        assert!(held.elapsed() < Duration::from_secs(4), "signs of life while the store could not write");
    }
    hold.execute_batch("ROLLBACK").unwrap();
    drop(hold);
    notify.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(heard(&notify).as_deref(), Some("WATCHDOG=1\n"));

    kill(Pid::from_raw(i32::try_from(server.process.id()).unwrap()), Signal::SIGTERM).unwrap();
    let mut last = heard(&notify).unwrap();
    while last == "WATCHDOG=1\n" {
        last = heard(&notify).unwrap();
    }
    assert!(last.starts_with("STOPPING=1\n"), "{last}");
    let mut server = server;
    until("the end", || server.process.try_wait().unwrap().is_some());
    assert!(server.process.wait().unwrap().success());
}

#[test]
fn a_socket_open_to_other_machines_is_refused_like_such_a_host_and_a_strangers_variables_are_ignored() {
    let root = folder();
    let mut process = activated(root.path(), TcpListener::bind("0.0.0.0:0").unwrap(), &[]);
    assert_eq!(process.wait().unwrap().code(), Some(2));
    let said = fs::read_to_string(root.path().join("server.log")).unwrap();
    assert!(said.contains("`0.0.0.0` can be reached from other machines"), "{said}");
    // A check looks at the same socket, whatever HOST says.
    let check = [("ARGUMENTS", "--check"), ("AGENT_HUB_HOST", "127.0.0.1")];
    let mut process = activated(root.path(), TcpListener::bind("0.0.0.0:0").unwrap(), &check);
    assert_eq!(process.wait().unwrap().code(), Some(2));
    let mut process = activated(root.path(), TcpListener::bind("127.0.0.1:0").unwrap(), &check);
    assert_eq!(process.wait().unwrap().code(), Some(0));
    let mut process = activated(root.path(), TcpListener::bind("127.0.0.1:0").unwrap(), &[("LISTEN_FDS", "2")]);
    assert_eq!(process.wait().unwrap().code(), Some(2));

    // Another process's LISTEN_PID, and a supervisor in the kernel's own space of names.
    let name = format!("provara-test-{}-{:?}", std::process::id(), Instant::now());
    let notify = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", root.path())
        .envs([("AGENT_HUB_PORT", "0"), ("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("WATCHDOG_USEC", "x")])
        .env("NOTIFY_SOCKET", format!("@{name}"))
        .arg("serve")
        .stdin(Stdio::null())
        .stderr(fs::File::create(root.path().join("server.log")).unwrap())
        .spawn()
        .unwrap();
    let mut server = Served { root, process, base: String::new() };
    let ready = heard(&notify).unwrap_or_else(|| fs::read_to_string(server.root.path().join("server.log")).unwrap());
    server.base = ready.trim().strip_prefix("READY=1\nSTATUS=listening on ").unwrap().to_owned();
    assert_eq!(server.ask("GET", "/status", &[], "").1["ok"], Value::Bool(true));
}
