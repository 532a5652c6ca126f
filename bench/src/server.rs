//! A server of our own, in a folder of its own. Whatever becomes of us, it ends.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::{Ask, Client, Target, Who};
use crate::failure::Failure;

/// A start takes milliseconds; a slow disk and a debug build get this long.
const START: Duration = Duration::from_secs(60);
/// A stopping server gives running commands ten seconds.
const END: Duration = Duration::from_secs(30);
/// How often a file or a process is looked at while we wait for it.
const LOOK: Duration = Duration::from_millis(1);
/// Ends the server when our end of its input closes, which the kernel does even when we are killed.
const GUARD: &str = r#"read -r _; kill -9 "$1""#;

/// Where a server is to be made, and of which program.
#[derive(Debug, Clone)]
pub(crate) struct Workshop {
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
}

/// A server that nobody else uses.
pub(crate) struct Server {
    program: PathBuf,
    root: TempDir,
    secrets: [String; 2],
    running: Option<Running>,
}

struct Running {
    server: Child,
    guard: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        // In this order: until we have waited for the server its number is nobody else's, so the guard cannot hit another.
        let _ = self.server.kill();
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.server.wait();
    }
}

impl Workshop {
    /// Returns a server over an empty folder, and how long it took until it answered.
    pub(crate) async fn make(&self) -> Result<Server, Failure> {
        if !self.program.is_file() {
            return Err(Failure::NoProgram { path: self.program.clone() });
        }
        let failed = || Failure::io(self.folder.display().to_string());
        let root = tempfile::Builder::new().prefix("provara-bench-").tempdir_in(&self.folder).map_err(failed())?;
        // Commands may run as another user, who has to get to the workspace.
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).map_err(failed())?;
        let mut server = Server { program: self.program.clone(), root, secrets: [secret()?, secret()?], running: None };
        server.start().await?;
        Ok(server)
    }
}

impl Server {
    /// Starts it again over what it left, and returns how long it took until it answered.
    pub(crate) async fn start(&mut self) -> Result<Duration, Failure> {
        // What a killed server left would be taken for the new one's.
        let _ = fs::remove_file(self.root.path().join("runtime/address"));
        let begun = Instant::now();
        let running = spawn(&self.program, self.root.path(), &self.secrets)?;
        let running = self.running.insert(running);
        running.address = address(self.root.path(), &mut running.server).await?;
        let target = self.target()?;
        Client::connect(&target).await?.ask(&Ask::get(Who::Nobody, "/status")).await?;
        Ok(begun.elapsed())
    }

    /// Ends it by `signal` and waits for the end, which it returns the time of.
    pub(crate) async fn end(&mut self, signal: Signal) -> Result<Duration, Failure> {
        let Some(mut running) = self.running.take() else { return Ok(Duration::ZERO) };
        let begun = Instant::now();
        kill(pid(&running.server), signal)
            .map_err(|error| Failure::Io { what: "the server's process".into(), cause: error.into() })?;
        while running.server.try_wait().map_err(Failure::io("the server's process"))?.is_none() {
            if begun.elapsed() > END {
                return Err(Failure::NotEnded { seconds: END.as_secs() });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(begun.elapsed())
    }

    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let [agent, approver] = &self.secrets;
        let header = |secret: &str| HeaderValue::from_str(secret).map_err(|_| Failure::Token { path: PathBuf::new() });
        let running = self.running.as_ref();
        Ok(Target {
            address: running.map_or_else(String::new, |running| running.address.clone()),
            agent: header(agent)?,
            approver: header(approver)?,
            process: running.map(|running| running.server.id()),
        })
    }
}

fn spawn(program: &Path, root: &Path, [agent, approver]: &[String; 2]) -> Result<Running, Failure> {
    let log = File::create(root.join("server.log")).map_err(Failure::io("server.log"))?;
    let server = Command::new(program)
        .env_clear()
        .env("AGENT_HUB_ROOT", root)
        .env("AGENT_HUB_PORT", "0")
        .env("AGENT_HUB_TOKEN", agent)
        .env("AGENT_HUB_OPERATOR_TOKEN", approver)
        // A load is what is to be measured, not how it is refused.
        .env("AGENT_HUB_RATE_LIMIT_REQUESTS", "1000000000")
        .env("AGENT_HUB_MAX_PENDING", "100000000")
        .env("AGENT_HUB_LOG_LEVEL", "WARNING")
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C is for us; we end the server.
        .process_group(0)
        .spawn()
        .map_err(Failure::io(program.display().to_string()))?;
    let guard = Command::new("sh")
        .args(["-c", GUARD, "sh"])
        .arg(server.id().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    match guard {
        Ok(guard) => Ok(Running { server, guard, address: String::new() }),
        Err(cause) => {
            let mut server = server;
            let _ = server.kill();
            let _ = server.wait();
            Err(Failure::Io { what: "sh".into(), cause })
        }
    }
}

async fn address(root: &Path, server: &mut Child) -> Result<String, Failure> {
    let (file, deadline) = (root.join("runtime/address"), Instant::now() + START);
    loop {
        if let Ok(base) = fs::read_to_string(&file)
            && base.ends_with('\n')
        {
            return host_and_port(base.trim());
        }
        let ended = server.try_wait().map_err(Failure::io("the server's process"))?.is_some();
        if ended || Instant::now() > deadline {
            let said = fs::read_to_string(root.join("server.log")).unwrap_or_default();
            return Err(Failure::NotStarted { said: said.trim().to_owned() });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Returns host and port of `http://HOST:PORT`.
pub(crate) fn host_and_port(base: &str) -> Result<String, Failure> {
    let found = base.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let plain = |rest: &&str| !rest.is_empty() && !rest.contains(['/', '?', '#', '@']);
    match found.filter(plain) {
        Some(authority) if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            Ok(authority.to_owned())
        }
        Some(authority) if !authority.contains(':') => Ok(format!("{authority}:80")),
        _ => Err(Failure::Base { base: base.to_owned() }),
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

fn secret() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Io { what: "the kernel's randomness".into(), cause: std::io::Error::other(error) })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        let taken = |base| host_and_port(base).ok();
        assert_eq!(taken("http://127.0.0.1:8787"), Some("127.0.0.1:8787".to_owned()));
        assert_eq!(taken("http://localhost/"), Some("localhost:80".to_owned()));
        assert_eq!(taken("http://[::1]:80"), Some("[::1]:80".to_owned()));
        for base in ["https://a:1", "a:1", "http://", "http://a:1/b", "http://u@a:1", "http://a:99999"] {
            assert_eq!(taken(base), None, "{base}");
        }
    }
}
