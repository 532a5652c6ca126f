//! `provara serve` from its first start to its end, and what it refuses.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::served::{Served, marked, sleeps, until};

fn serve(root: &Path, settings: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg("20")
        .arg(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", root)
        .env("AGENT_HUB_PORT", "0");
    command.envs(settings.iter().map(|(name, value)| (format!("AGENT_HUB_{name}"), value)));
    command.arg("serve").args(arguments).stdin(Stdio::null());
    command
}

fn refused(root: &Path, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = serve(root, settings, &[]).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn pid(server: &Served) -> Pid {
    Pid::from_raw(i32::try_from(server.process.id()).unwrap())
}

#[test]
fn a_start_that_is_refused_says_why_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    symlink(root, root.join("loop")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (settings, code, words) in [
        (&[("PROT", "1")][..], 2, "did you mean `AGENT_HUB_PORT`?"),
        (&[("PORT", "70000")], 2, "is not a port number, 0 to 65535"),
        (&[("WORKSPACE_DIR", ".")], 2, "it holds or lies in ROOT"),
        (&[("WORKSPACE_DIR", "loop")], 2, "it holds or lies in ROOT"),
        (&[("WORKSPACE_DIR", "runtime/x")], 2, "it holds or lies in the runtime folder"),
        (&[("WORKSPACE_DIR", "policies")], 2, "it holds or lies in policy"),
        (&[("RUNTIME_DIR", "workspace/run")], 2, "it holds or lies in the runtime folder"),
        (&[("TLS_KEY", "workspace/key"), ("TLS_CERT", "cert")], 2, "it holds or lies in the certificate's key"),
        (
            &[("CHECKPOINT_SINKS", "file:/tmp"), ("WORKSPACE_DIR", "/tmp/x-of-a-sink")],
            2,
            "it holds or lies in a checkpoint's copy",
        ),
        (&[("HOST", "0.0.0.0")], 2, "can be reached from other machines"),
        (&[("HOST", "0.0.0.0"), ("SINGLE_TOKEN", "1")], 2, "SINGLE_TOKEN=1 is for this machine only"),
        (&[("TLS_CERT", "c")], 2, "TLS_CERT and TLS_KEY go together"),
        (&[("TLS_CERT", "c"), ("TLS_KEY", "k")], 2, "cannot be used for TLS"),
        (&[("HOST", "127.0.0.1"), ("PORT", &port)], 1, "another program listens there; name another AGENT_HUB_PORT"),
        (&[("HOST", "192.0.2.1"), ("TLS_CERT", "c"), ("TLS_KEY", "k")], 2, "cannot be used for TLS"),
    ] {
        let (found, stderr) = refused(root, settings);
        assert!(found == Some(code) && stderr.contains(words), "{settings:?}: {found:?} {stderr}");
        assert!(
            !root.join("runtime").exists() && !root.join("workspace").exists(),
            "{settings:?} left something behind"
        );
    }
    fs::write(root.join(".env"), "AGENT_HUB_LOG_LEVEL=INFO\n").unwrap();
    fs::set_permissions(root.join(".env"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(refused(root, &[]).1.contains("can be written by others; run: chmod go-w"));
    if nix::unistd::Uid::effective().is_root() {
        fs::set_permissions(root.join(".env"), fs::Permissions::from_mode(0o600)).unwrap();
        nix::unistd::chown(&root.join(".env"), Some(nix::unistd::Uid::from_raw(65_533)), None).unwrap();
        assert!(refused(root, &[]).1.contains("belongs to another user"));
    }
}

#[test]
fn the_first_start_makes_private_things_says_where_and_never_tells_a_token() {
    let server = Served::new();
    let runtime = server.root.path().join("runtime");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&runtime), 0o700);
    for name in ["agent_hub_token.txt", "operator_token.txt", "log_key"] {
        assert_eq!(mode(&runtime.join(name)), 0o600, "{name}");
    }
    let log = fs::read_to_string(server.root.path().join("server.log")).unwrap();
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|entry| entry["level"].is_string()), "not JSON: {line}");
    }
    for said in ["listens on", "agent_hub_token.txt", "operator_token.txt", "provara pending"] {
        assert!(log.contains(said), "{said} is missing: {log}");
    }
    assert!(!log.contains(&server.agent()) && !log.contains(&server.operator()));
}

#[test]
fn a_workspace_that_would_expose_our_files_is_refused_when_it_is_added_later() {
    let server = Served::new();
    let root = server.root.path();
    symlink(root.join("runtime"), root.join("innocent")).unwrap();
    fs::create_dir(root.join("policies")).unwrap();
    for path in [
        root.to_path_buf(),
        root.join("runtime"),
        root.join("runtime/audit"),
        root.join("innocent"),
        root.join("policies"),
        "/".into(),
    ] {
        let added =
            server.cli(("AGENT_HUB_OPERATOR_TOKEN", &server.operator()), &["workspace", "add", path.to_str().unwrap()]);
        assert_eq!(added.status.code(), Some(1), "{path:?}");
    }
}

#[test]
fn a_workspace_that_a_later_configuration_would_expose_is_one_no_more() {
    let mut server = Served::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().canonicalize().unwrap();
    let added =
        server.cli(("AGENT_HUB_OPERATOR_TOKEN", &server.operator()), &["workspace", "add", path.to_str().unwrap()]);
    assert!(added.status.success(), "{added:?}");
    kill(pid(&server), Signal::SIGTERM).unwrap();
    assert!(server.process.wait().unwrap().success());
    // From now on a checkpoint is kept where commands may write.
    let sink = format!("AGENT_HUB_CHECKPOINT_SINKS=file:{}\n", path.join("kept").display());
    fs::write(server.root.path().join(".env"), sink).unwrap();
    (server.process, server.base) = crate::served::start(server.root.path());
    let (_, listed) = server.by(&server.operator(), "GET", "/workspaces", &Value::Null);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let log = fs::read_to_string(server.root.path().join("server.log")).unwrap();
    assert!(log.contains("it is no workspace any more"), "{log}");
}

#[test]
fn sigterm_gives_a_running_command_its_grace_and_its_approver_an_answer() {
    let mut server = Served::new();
    let id = server.plan("touch begun; sleep 1; echo done");
    let operator = server.operator();
    let (status, run) = std::thread::scope(|scope| {
        let approval = scope.spawn(|| server.by(&operator, "POST", &format!("/approve/{id}"), &Value::Null));
        until("the command", || server.root.path().join("workspace/begun").exists());
        kill(pid(&server), Signal::SIGTERM).unwrap();
        approval.join().unwrap()
    });
    assert_eq!((status, &run["stdout"], &run["exit_code"]), (200, &json!("done\n"), &json!(0)), "{run}");
    assert!(server.process.wait().unwrap().success());
    assert!(!server.root.path().join("runtime/address").exists());
}

#[test]
fn ctrl_c_on_the_servers_terminal_leaves_runs_their_grace_and_a_second_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_provara"));
    command.env_clear().env("AGENT_HUB_ROOT", dir.path()).env("AGENT_HUB_PORT", "0").arg("serve").process_group(0);
    let process =
        command.stdin(Stdio::null()).stderr(fs::File::create(dir.path().join("server.log")).unwrap()).spawn().unwrap();
    let mut base = String::new();
    until("the server", || {
        base = fs::read_to_string(dir.path().join("runtime/address")).unwrap_or_default().trim().to_owned();
        !base.is_empty()
    });
    let mut server = Served { root: dir, process, base };
    let id = server.plan(&format!("trap '' TERM; touch begun; sleep {}", marked(4903)));
    let approve = [("x-agent-token", &*server.operator()), ("prefer", "respond-async")];
    assert_eq!(server.ask("POST", &format!("/approve/{id}"), &approve, "").0, 202);
    until("the command", || server.root.path().join("workspace/begun").exists());
    // As a terminal does: to the whole group. A helper in it would end now, and the run with it.
    killpg(pid(&server), Signal::SIGINT).unwrap();
    until("the stopping", || {
        fs::read_to_string(server.root.path().join("server.log")).unwrap().contains("stopping: no new work")
    });
    assert!(sleeps(&marked(4903)), "the run got no grace");
    kill(pid(&server), Signal::SIGTERM).unwrap();
    let ended = server.process.wait().unwrap();
    assert_eq!(ended.code(), Some(1));
    until("the end of the tree", || !sleeps(&marked(4903)));
}

/// A sink whose certificate a private authority signed gets checkpoints from a server that was told of the authority.
fn checkpoints_reach_a_sink_of(authority: &Path) {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificates = CertificateDer::pem_file_iter(authority.join("cert.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(authority.join("key.pem")).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}/", sink.local_addr().unwrap());
    let ca = authority.join("ca.pem");
    let variables = [("AGENT_HUB_CHECKPOINT_SINKS", &*address), ("AGENT_HUB_CA_CERT", ca.to_str().unwrap())];
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (process, base) = crate::served::start_with(root.path(), &variables);
    let _server = Served { root, process, base };
    let (stream, _) = sink.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(config).unwrap(), stream);
    let (mut said, mut piece) = (String::new(), [0; 4096]);
    while !said.contains("\n\u{2014} ") {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{said}");
        said += &String::from_utf8_lossy(&piece[..read]);
    }
    assert!(said.starts_with("POST / HTTP/1.1\r\n"), "{said}");
}

#[test]
fn tls_is_served_and_a_private_authority_is_believed_only_where_it_is_named() {
    if Command::new("openssl").arg("version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "openssl is missing, and in CI nothing is skipped");
        eprintln!("SKIPPED: openssl is not installed, so there is no certificate to serve with");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    let ssl = |line: &str| {
        let output = Command::new("openssl").args(line.split(' ')).current_dir(root).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    ssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 90",
    );
    ssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem -subj /CN=localhost");
    fs::write(root.join("ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    ssl("x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 60 -extfile ext");
    fs::write(root.join("provara.toml"), "tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\nport = 0\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_provara"));
    command.env_clear().env("AGENT_HUB_ROOT", root).arg("serve").stdin(Stdio::null());
    let process = command.stderr(fs::File::create(root.join("server.log")).unwrap()).spawn().unwrap();
    let mut base = String::new();
    until("the server", || {
        base = fs::read_to_string(root.join("runtime/address")).unwrap_or_default().trim().to_owned();
        !base.is_empty()
    });
    assert!(base.starts_with("https://"), "{base}");
    let server = Served { root: dir, process, base };
    let asked = |authority: &[(&str, &str)]| {
        Command::new(env!("CARGO_BIN_EXE_provara"))
            .env_clear()
            .env("AGENT_HUB_ROOT", server.root.path())
            .envs(authority.iter().copied())
            .args(["--base", &server.base, "pending"])
            .output()
            .unwrap()
    };
    assert_eq!(asked(&[]).status.code(), Some(5), "a stranger's certificate was believed");
    let believed = asked(&[("AGENT_HUB_CA_CERT", "ca.pem")]);
    assert_eq!(String::from_utf8_lossy(&believed.stdout), "nothing waits\n", "{believed:?}");
    assert_eq!(asked(&[("AGENT_HUB_CA_CERT", "key.pem")]).status.code(), Some(1));
    checkpoints_reach_a_sink_of(server.root.path());
    let doctor = Command::new(env!("CARGO_BIN_EXE_provara"))
        .env_clear()
        .env("AGENT_HUB_ROOT", server.root.path())
        .env("PATH", std::env::var_os("PATH").unwrap())
        .args(["--json", "doctor"])
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let certificate =
        found["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "certificate").unwrap();
    assert_eq!((&certificate["level"], &certificate["text"]), (&json!("ok"), &json!("valid for more than 30 days")));
}

#[test]
fn no_log_of_any_level_tells_what_is_not_its_business() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join(".env"), "AGENT_HUB_LOG_LEVEL=TRACE\n").unwrap();
    let (process, base) = crate::served::start(dir.path());
    let mut server = Served { root: dir, process, base };
    let body = json!({ "command": "echo MARK-COMMAND $WHAT; cat; echo MARK-ERR >&2", "note": "MARK-NOTE", "env": { "WHAT": "MARK-ENV" }, "stdin": "MARK-STDIN" });
    let (status, plan) = server.by(&server.agent(), "POST", "/plan", &body);
    assert_eq!(status, 200, "{plan}");
    let id = plan["pending_id"].as_str().unwrap().to_owned();
    let (_, run) =
        server.by(&server.operator(), "POST", &format!("/approve/{id}"), &json!({ "reason": "MARK-REASON" }));
    assert_eq!(run["stdout"], "MARK-COMMAND MARK-ENV\nMARK-STDIN", "{run}");
    let denied = server.plan("make MARK-DENIED");
    assert_eq!(
        server.by(&server.operator(), "POST", &format!("/deny/{denied}"), &json!({ "reason": "MARK-WHY" })).0,
        200
    );
    assert_eq!(server.by("MARK-WRONG-TOKEN", "GET", "/pending", &Value::Null).0, 401);
    assert_eq!(server.by(&server.agent(), "POST", "/plan", &json!({ "command": "rm -rf / # MARK-BLOCKED" })).0, 403);
    assert_eq!(server.by(&server.agent(), "POST", "/plan", &json!({ "command": 7, "note": "MARK-BAD" })).0, 422);
    let made = server.by(&server.operator(), "POST", "/tokens", &json!({ "name": "x", "roles": ["agent"] })).1;
    kill(pid(&server), Signal::SIGTERM).unwrap();
    assert!(server.process.wait().unwrap().success());
    let log = fs::read_to_string(server.root.path().join("server.log")).unwrap();
    assert!(
        log.contains("\"TRACE\"") || log.contains("\"DEBUG\"") || log.contains("\"INFO\""),
        "nothing was logged: {log}"
    );
    for secret in ["MARK-", &server.agent(), &server.operator(), made["token"].as_str().unwrap()] {
        let told = BufReader::new(log.as_bytes()).lines().map_while(Result::ok).find(|line| line.contains(secret));
        assert_eq!(told, None, "the log tells {secret}");
    }
}

#[test]
fn the_log_is_for_people_on_a_terminal_and_the_operators_token_is_shown_there_once_and_kept_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_provara"));
    command.env_clear().env("AGENT_HUB_ROOT", dir.path()).env("AGENT_HUB_PORT", "0").arg("serve");
    let process = command.stdin(Stdio::null()).stderr(fs::File::from(pty.slave)).spawn().unwrap();
    drop(command);
    let mut lines = BufReader::new(fs::File::from(pty.master)).lines();
    let mut said = Vec::new();
    while !said.last().is_some_and(|line: &String| line.contains("next: ")) {
        said.push(lines.next().unwrap().unwrap());
    }
    let mut base = String::new();
    until("the server", || {
        base = fs::read_to_string(dir.path().join("runtime/address")).unwrap_or_default().trim().to_owned();
        !base.is_empty()
    });
    let mut server = Served { root: dir, process, base };
    assert!(said.iter().any(|line| line.contains("listens on http://127.0.0.1:")), "{said:?}");
    assert!(!said.iter().any(|line| line.starts_with('{')), "{said:?}");
    let token = said.iter().find_map(|line| line.split("kept nowhere: ").nth(1)).unwrap().trim().to_owned();
    assert_eq!(server.by(&token, "GET", "/tokens", &Value::Null).0, 200);
    assert!(!server.root.path().join("runtime/operator_token.txt").exists());
    kill(pid(&server), Signal::SIGTERM).unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.contains("stopping: no new work")), "{rest:?}");
    assert!(server.process.wait().unwrap().success());
    // The next start knows the token by its hash, and makes no other.
    (server.process, server.base) = crate::served::start(server.root.path());
    assert_eq!(server.by(&token, "GET", "/tokens", &Value::Null).0, 200);
    assert!(!server.root.path().join("runtime/operator_token.txt").exists());
}

#[test]
fn the_level_of_the_log_is_kept_and_a_check_starts_nothing() {
    let quiet = tempfile::tempdir().unwrap();
    fs::set_permissions(quiet.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(quiet.path().join(".env"), "AGENT_HUB_LOG_LEVEL=ERROR\n").unwrap();
    let (process, base) = crate::served::start(quiet.path());
    let mut server = Served { root: quiet, process, base };
    kill(pid(&server), Signal::SIGTERM).unwrap();
    assert!(server.process.wait().unwrap().success());
    assert_eq!(fs::read_to_string(server.root.path().join("server.log")).unwrap(), "");

    let dir = tempfile::tempdir().unwrap();
    let checked = serve(dir.path(), &[], &["--check"]).output().unwrap();
    assert!(checked.status.success() && checked.stdout.ends_with(b"\nOK\n"), "{checked:?}");
    let open =
        |arguments: &[&str]| serve(dir.path(), &[("HOST", "0.0.0.0")], arguments).output().unwrap().status.code();
    assert_eq!((open(&["--check"]), open(&["--check", "--insecure-listen"])), (Some(2), Some(0)));
    assert!(!dir.path().join("runtime").exists());
    fs::create_dir_all(dir.path().join("policies/projects")).unwrap();
    fs::write(dir.path().join("policies/projects/bad.toml"), "nonsense").unwrap();
    // A rule file without an end is not read to its end.
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("policies/projects/endless.toml")).unwrap();
    let (code, said) = refused(dir.path(), &[]);
    assert!(
        code == Some(2) && said.contains("endless.toml` cannot be read: it has more than 262144 bytes"),
        "{code:?} {said}"
    );
    fs::remove_file(dir.path().join("policies/projects/endless.toml")).unwrap();
    assert_eq!(serve(dir.path(), &[], &["--check"]).output().unwrap().status.code(), Some(2));
    assert_eq!(refused(dir.path(), &[]).0, Some(2));
    assert!(!dir.path().join("runtime").exists(), "a policy that cannot be read left half a start behind");
}
