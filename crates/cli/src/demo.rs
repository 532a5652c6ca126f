//! `provara demo`: the whole of Provara in a scratch folder, in a minute. A server, an agent, your decisions, the log.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, encoded};
use crate::config::{Secret, Settings};
use crate::display::visible;
use crate::failure::Failure;

/// The agent: real work through `provara run`.
const AGENT: &str = include_str!("../../../examples/diagnose.sh");
/// How long the server may take to start.
const START: Duration = Duration::from_secs(30);
/// How often the queue is looked at while the agent works.
const LOOK: Duration = Duration::from_millis(100);

/// Who decides in the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decider {
    Person,
    YesToAll,
}

/// A child process that does not outlive the demo.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the demo and fails if any part of it did.
pub(crate) fn demo(decider: Decider) -> Result<ExitCode, Failure> {
    let scratch = tempfile::Builder::new().prefix("provara-demo-").tempdir()?;
    // The user that commands run as has to get through to the workspace; the runtime folder below is closed to it.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    let binary = std::env::current_exe()?;
    say("Provara's demo: an agent looks at this machine; it holds no shell, and you decide on each command.")?;
    let mut server = Ended(start_server(&binary, scratch.path())?);
    let base = wait_for_address(&mut server.0, scratch.path())?;
    let token = |name: &str| fs::read_to_string(scratch.path().join("runtime").join(name));
    let settings = Settings::load(&[("ROOT", scratch.path().display().to_string()), ("BASE", base.clone())], [])?;
    let operator = Client::new(&settings, Some(Secret::new(token("operator_token.txt")?.trim().to_owned())))?;

    say(&format!("server: {base}, embedded store in {}", scratch.path().display()))?;
    let script = scratch.path().join("diagnose.sh");
    fs::write(&script, AGENT)?;
    let agent = Command::new("bash")
        .arg(&script)
        .env("PROVARA", &binary)
        .env("AGENT_HUB_BASE", &base)
        .env("AGENT_HUB_ROOT", scratch.path())
        .env("AGENT_HUB_TOKEN", token("agent_hub_token.txt")?.trim())
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| {
            Failure::Other(format!("the demo's agent is a bash script, and bash cannot be started: {error}"))
        })?;
    let mut agent = Ended(agent);
    let worked = decide_until_done(&operator, &mut agent.0, decider)?;

    let verified = verify(&operator, scratch.path(), &binary)?;
    let stopped = stop(&mut server.0)?;
    say(match (worked, verified && stopped) {
        (true, true) => {
            "demo: all well; nothing is left behind. Next, in earnest: mkdir -p ~/provara; provara --root ~/provara serve"
        }
        (false, true) => "demo: the agent did not get all that it asked for, or could not use it; see above",
        (_, false) => "demo: something failed; see above",
    })?;
    Ok(if worked && verified && stopped { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

fn start_server(binary: &Path, root: &Path) -> io::Result<Child> {
    let mut server = Command::new(binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with(crate::config::PREFIX)) {
        server.env_remove(name);
    }
    server
        .arg("serve")
        .env("AGENT_HUB_ROOT", root)
        .env("AGENT_HUB_PORT", "0")
        .env("AGENT_HUB_LOG_LEVEL", "ERROR")
        .env("AGENT_HUB_OPERATOR_TOKEN_FILE", "1")
        .stdin(Stdio::null())
        .stderr(fs::File::create(root.join("server.log"))?)
        .spawn()
}

fn wait_for_address(server: &mut Child, root: &Path) -> Result<String, Failure> {
    let (path, deadline) = (root.join("runtime/address"), Instant::now() + START);
    loop {
        if let Ok(base) = fs::read_to_string(&path)
            && base.ends_with('\n')
        {
            return Ok(base.trim().to_owned());
        }
        if server.try_wait()?.is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(root.join("server.log")).unwrap_or_default();
            return Err(Failure::Other(format!("the server did not start: {}", visible(&log))));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Decides on what the agent proposes until the agent is done. Returns whether it did its work.
fn decide_until_done(operator: &Client, agent: &mut Child, decider: Decider) -> Result<bool, Failure> {
    loop {
        let waiting = operator.get("/pending?limit=50")?;
        for plan in waiting.as_array().into_iter().flatten().rev() {
            decide(operator, plan, decider)?;
        }
        if let Some(status) = agent.try_wait()? {
            return Ok(status.success());
        }
        thread::sleep(LOOK);
    }
}

fn decide(operator: &Client, plan: &Value, decider: Decider) -> Result<(), Failure> {
    let field = |name: &str| plan.get(name).and_then(Value::as_str).unwrap_or_default();
    let id = encoded(field("pending_id"));
    say(&format!("\n>> the agent asks to run: {}", visible(field("command"))))?;
    say(&format!(
        "   in {}, profile {}; it says: {}",
        visible(field("cwd")),
        field("profile"),
        visible(field("note"))
    ))?;
    let yes = match decider {
        Decider::YesToAll => true,
        Decider::Person => ask()?,
    };
    if yes {
        say("   approved")?;
        let body = json!({ "digest": field("digest") });
        operator.post(&format!("/approve/{id}"), &body)?;
    } else {
        say("   denied")?;
        operator.post(&format!("/deny/{id}"), &json!({ "reason": "denied in the demo" }))?;
    }
    Ok(())
}

fn ask() -> io::Result<bool> {
    let mut out = io::stdout();
    write!(out, "   approve? [y/N] ")?;
    out.flush()?;
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        say("nobody answers, which is no yes; --yes decides for you")?;
    }
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Exports the log and checks it as a stranger would, with nothing but files.
fn verify(operator: &Client, folder: &Path, binary: &Path) -> Result<bool, Failure> {
    let checkpoint = operator.get("/audit/checkpoint")?;
    let text = |name: &str| checkpoint.get(name).and_then(Value::as_str).unwrap_or_default();
    let path = |name: &str| -> PathBuf { folder.join(name) };
    fs::write(path("kept.note"), text("checkpoint"))?;
    fs::write(path("log.vkey"), text("key"))?;
    let mut file = fs::File::create(path("log.jsonl"))?;
    crate::evidence::export(operator, &mut file)?;
    say("\nthe log, checked from exported bytes alone:")?;
    let status = Command::new(binary)
        .args(["audit", "verify"])
        .arg(path("log.jsonl"))
        .arg("--checkpoint")
        .arg(path("kept.note"))
        .arg("--key")
        .arg(path("log.vkey"))
        .status()?;
    Ok(status.success())
}

fn stop(server: &mut Child) -> io::Result<bool> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.id()).map_err(io::Error::other)?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    Ok(server.wait()?.success())
}
