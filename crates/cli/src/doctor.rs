//! What is wrong with an installation, why that matters, and how to mend it. Looks as whoever calls: above all it asks what
//! this user, and so every program that they start, could read or replace.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, ExitCode, Stdio};

use nix::unistd::Uid;
use provara_audit::export::Line;
use provara_runner::Mounts;
use serde_json::{Value, json};

use crate::client::Client;
use crate::commands::{Session, unix_now};
use crate::config::Settings;
use crate::describe::text;
use crate::display::visible_line;
use crate::failure::Failure;
use crate::paint::Tone;
use crate::prepare::{self, Listening};
use crate::profiles;

/// Less free space than this fails; ten times as much is worth a warning.
const LITTLE_SPACE: u64 = 100 << 20;
/// How far another clock's future is still the same present, in seconds.
const SAME_TIME: f64 = 5.0;
/// How soon a certificate's end is worth a warning.
const MONTH: &str = "2592000";

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
struct Finding {
    level: Level,
    check: &'static str,
    text: String,
    cure: &'static str,
}

struct Findings(Vec<Finding>);

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl Findings {
    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.0.push(Finding { level: Level::Ok, check, text: text.into(), cure: "" });
    }

    fn warn(&mut self, check: &'static str, text: impl Into<String>, cure: &'static str) {
        self.0.push(Finding { level: Level::Warn, check, text: text.into(), cure });
    }

    fn fail(&mut self, check: &'static str, text: impl Into<String>, cure: &'static str) {
        self.0.push(Finding { level: Level::Fail, check, text: text.into(), cure });
    }
}

/// Looks at everything and reports. Ends with 1 when something fails.
pub(crate) fn doctor(session: &Session) -> Result<ExitCode, Failure> {
    let settings = &session.settings;
    let mut found = Findings(Vec::new());
    folders(&mut found, settings)?;
    secrets(&mut found, settings);
    exposure(&mut found, settings);
    profiles_of(&mut found, settings)?;
    certificate(&mut found, settings);
    space(&mut found, settings);
    log(&mut found, settings);
    tools(&mut found, settings);
    server(&mut found, session);
    let bad = found.0.iter().any(|finding| finding.level == Level::Fail);
    let findings: Vec<Value> = found
        .0
        .iter()
        .map(|it| json!({ "level": it.level.as_str(), "check": it.check, "text": it.text, "cure": it.cure }))
        .collect();
    session.answer(&json!({ "ok": !bad, "findings": findings }), |out, paint| {
        for (n, finding) in found.0.iter().enumerate() {
            let tone = match finding.level {
                Level::Ok => Tone::Good,
                Level::Warn => Tone::Careful,
                Level::Fail => Tone::Bad,
            };
            let level = paint.paint(tone, &format!("{:4}", finding.level.as_str().to_uppercase()));
            writeln!(out, "{level}  {}: {}", finding.check, visible_line(&finding.text))?;
            // What is cured alike is listed first, and its cure told once.
            let alike = found.0.get(n + 1).is_some_and(|next| next.cure == finding.cure);
            if !finding.cure.is_empty() && !alike {
                writeln!(out, "      cure: {}", finding.cure)?;
            }
        }
        let count = |level| found.0.iter().filter(|finding| finding.level == level).count();
        let (fails, warns) = (count(Level::Fail), count(Level::Warn));
        writeln!(out, "\n{} looked at: {fails} wrong, {warns} worth a thought", found.0.len())?;
        writeln!(out, "{}", if bad { "NOT OK" } else { "OK" })
    })?;
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn folders(found: &mut Findings, settings: &Settings) -> io::Result<()> {
    let binary = std::env::current_exe()?;
    match prepare::check_folders(settings, &binary) {
        Ok(()) => found.ok("workspace", "holds nothing of Provara's own"),
        Err(refusal) => {
            found.fail("workspace", refusal.to_string(), "set AGENT_HUB_WORKSPACE_DIR to a folder of its own")
        }
    }
    let meta = match fs::metadata(&settings.runtime) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("`{}` is not there: no server was started here yet", settings.runtime.display());
            found.warn("runtime", text, "run `provara serve`, or name the right folder with --root");
            return Ok(());
        }
        Err(error) => {
            found.ok("runtime", format!("`{}` is closed to you: {error}", settings.runtime.display()));
            return Ok(());
        }
    };
    if meta.mode() & 0o077 == 0 {
        found.ok("runtime", format!("`{}` is its owner's alone", settings.runtime.display()));
    } else {
        let text = format!("`{}` has mode {:03o}; others can look in", settings.runtime.display(), meta.mode() & 0o777);
        found.fail("runtime", text, "chmod 700 the runtime folder");
    }
    // Whoever can rename a folder above can put another runtime folder, with another operator's token, in its place.
    for above in prepare::resolved(&settings.runtime).ancestors().skip(1) {
        let Ok(meta) = fs::metadata(above) else { continue };
        if meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0 {
            let text = format!("`{}` can be written by others, so the folders in it can be exchanged", above.display());
            found.fail("folders above", text, "chmod go-w that folder");
        }
        if meta.uid() != 0 && fs::metadata(&settings.runtime).is_ok_and(|own| own.uid() != meta.uid()) {
            let text = format!("`{}` belongs to another user than the runtime folder", above.display());
            found.fail("folders above", text, "give the folder to the server's user or to root");
        }
    }
    Ok(())
}

/// Whoever reads one of these can approve, sign, or read everything.
fn secrets(found: &mut Findings, settings: &Settings) {
    const REMOVE: &str =
        "keep the token where only you get at it and remove the file: the server knows the token by its hash";
    // The server needs these itself.
    const APART: &str = "run the server as a user that no agent runs as; `provara setup` installs one";
    let files = [
        ("operator's token", settings.operator_token_path(), REMOVE),
        ("log's key", settings.log_key_path(), APART),
        ("database", settings.runtime.join("provara.db"), APART),
    ];
    let mut readable = false;
    for (what, path, cure) in files {
        if fs::File::open(&path).is_ok() {
            readable = true;
            let text = format!("you can read `{}`, and so can every program that you start", path.display());
            found.fail(what, text, cure);
        }
        if fs::metadata(&path).is_ok_and(|meta| meta.mode() & 0o077 != 0) {
            found.fail(
                what,
                format!("others can read `{}`", path.display()),
                "chmod 600 it, and replace what it holds",
            );
        }
    }
    if !readable {
        found.ok("secrets", "you can read neither the operator's token, nor the log's key, nor the database");
    }
    let owner = fs::metadata(&settings.runtime).ok().map(|meta| meta.uid());
    if owner == Some(Uid::effective().as_raw()) {
        let text = "you are the user that the server runs as; an agent that runs as you could act as the server";
        found.warn("same user", text, "run agents, or the server, as another user");
    }
}

fn exposure(found: &mut Findings, settings: &Settings) {
    match prepare::check_listening(settings, Listening::Safely) {
        Err(refusal) => {
            found.fail("HOST", refusal.to_string(), "listen on 127.0.0.1, or give AGENT_HUB_TLS_CERT and _KEY")
        }
        Ok(()) if settings.is_loopback() => found.ok("HOST", "only this machine can reach the server"),
        Ok(()) => found.warn(
            "HOST",
            format!("`{}` can be reached from other machines, by TLS", settings.host),
            "let a firewall say from which",
        ),
    }
    if settings.single_token {
        let text = "one token proposes and approves: nothing keeps an agent from approving its own commands";
        found.warn("single token", text, "unset AGENT_HUB_SINGLE_TOKEN and use two tokens");
    }
    if settings.allow_host_same_user {
        let text = "the profile `host` may run as the server's own user; such a command can approve others";
        found.warn("host profile", text, "unset AGENT_HUB_ALLOW_HOST_SAME_USER, or run the server as root with RUN_AS");
    }
    if settings.redact_output == provara_gateway::OutputRedaction::Off {
        let text = "secrets that commands write are kept, and told to everybody who may read the output";
        found.warn("redaction", text, "unset AGENT_HUB_REDACT_OUTPUT");
    }
    if settings.checkpoint_sinks.is_empty() {
        let text = "checkpoints are kept beside the log only; who cuts the log can cut them too";
        found.warn("checkpoints", text, "send them away: set AGENT_HUB_CHECKPOINT_SINKS");
    }
}

fn profiles_of(found: &mut Findings, settings: &Settings) -> io::Result<()> {
    match profiles::loaded(settings, &std::env::current_exe()?, Mounts::Available) {
        Ok(loaded) => {
            let names: Vec<&str> = loaded.iter().map(|profile| profile.name().as_str()).collect();
            found.ok("profiles", names.join(", "));
        }
        Err(failure) => {
            found.fail("profiles", failure.to_string(), "mend profiles.toml; try it with `provara profile check`")
        }
    }
    Ok(())
}

fn certificate(found: &mut Findings, settings: &Settings) {
    let Some(path) = &settings.tls_cert else { return };
    let lasts = |seconds: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-checkend", seconds, "-in"]).arg(path);
        openssl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().map(|status| status.success())
    };
    match (lasts("0"), lasts(MONTH)) {
        (Ok(true), Ok(true)) => found.ok("certificate", "valid for more than 30 days"),
        (Ok(true), _) => found.warn("certificate", "ends within 30 days", "renew it, and start the server again"),
        (Ok(false), _) => {
            found.fail("certificate", "has ended, or cannot be read", "renew it, and start the server again")
        }
        (Err(_), _) => found.warn("certificate", "its end cannot be looked up without openssl", "install openssl"),
    }
}

fn space(found: &mut Findings, settings: &Settings) {
    let there = prepare::resolved(&settings.runtime);
    let Some(stat) = there.ancestors().find_map(|path| nix::sys::statvfs::statvfs(path).ok()) else { return };
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let text = format!("{} MiB are free where the runtime folder is", free >> 20);
    match free {
        0..LITTLE_SPACE => {
            found.fail("disk", text, "make room: without it nothing can be recorded, and so nothing runs")
        }
        _ if free < 10 * LITTLE_SPACE => found.warn("disk", text, "make room before commands and the log need it"),
        _ => found.ok("disk", text),
    }
}

/// The mirror beside the store, as far as this user may read it.
fn log(found: &mut Findings, settings: &Settings) {
    let folder = settings.runtime.join("audit");
    let Ok(file) = fs::File::open(folder.join("log.jsonl")) else { return };
    let (mut entries, mut last) = (0u64, String::new());
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        entries += 1;
        last = line;
    }
    let leaf: Option<Line> = serde_json::from_str(&last).ok();
    let leaf: Option<Value> = leaf.and_then(|line| serde_json::from_str(&line.leaf).ok());
    let ahead = leaf.and_then(|leaf| leaf.get("ts")?.as_f64()).map(|ts| ts - unix_now());
    match ahead {
        Some(ahead) if ahead > SAME_TIME => found.fail(
            "clock",
            format!(
                "the log's last entry is {ahead:.0} s in the future: this clock was set back, or that one was wrong"
            ),
            "set the clock by NTP; plans expire by it",
        ),
        Some(_) => found.ok("clock", "not before the log's last entry"),
        None if entries == 0 => {}
        None => found.fail("mirror", "its last line is no entry", "start the server again; it mends the mirror"),
    }
    // The mirror is written first, the checkpoint after it.
    let signed = fs::read_to_string(folder.join("checkpoint")).ok();
    let signed = signed.and_then(|note| note.lines().nth(1)?.parse::<u64>().ok());
    match signed {
        Some(signed) if signed > entries => found.fail(
            "mirror",
            format!("it holds {entries} entries, and {signed} are signed: somebody cut it, or the disk was full"),
            "start the server again; it completes the mirror from the store",
        ),
        Some(_) => found.ok("mirror", format!("{entries} entries, all that are signed among them")),
        None => {}
    }
}

fn tools(found: &mut Findings, settings: &Settings) {
    let there = |name: &str| {
        let version = Command::new(name).arg("version").stdin(Stdio::null()).output();
        version.is_ok_and(|output| output.status.success())
    };
    if settings.checkpoint_sinks.iter().any(|sink| sink.starts_with("git:")) && !there("git") {
        found.fail("git", "a checkpoint sink needs git, and it is not installed", "install git");
    }
    if there("openssl") {
        found.ok("openssl", "installed: the log can be checked without Provara");
    } else {
        found.warn("openssl", "not installed; only Provara itself can check the log here", "install openssl");
    }
}

/// What the running server says of itself and of this host.
fn server(found: &mut Findings, session: &Session) {
    const START: &str = "run `provara serve`";
    let reached = Client::new(&session.settings, None).and_then(|client| client.get("/status"));
    let version = match reached {
        Ok(status) => text(&status, "version").to_owned(),
        Err(error) => return found.warn("server", error.to_string(), START),
    };
    found.ok("server", format!("version {version} answers"));
    let person =
        session.known_operator().ok().flatten().and_then(|token| Client::new(&session.settings, Some(token)).ok());
    let Some(client) = person else {
        let text = "what this host can enforce is told to people only";
        return found.warn("confinement", text, "set AGENT_HUB_OPERATOR_TOKEN for this call");
    };
    let health = match client.get("/health") {
        Ok(health) => health,
        Err(error) => return found.fail("confinement", error.to_string(), "give the operator's token of this server"),
    };
    let report = health.get("confinement").unwrap_or(&Value::Null);
    if !text(report, "problem").is_empty() {
        let problem = text(report, "problem");
        return found.fail("confinement", format!("commands are not run here: {problem}"), prepare::cure(problem));
    }
    found.ok("confinement", format!("commands run as {}", text(report, "run_as")));
    for mechanism in report.get("mechanisms").and_then(Value::as_array).into_iter().flatten() {
        if mechanism.get("held").and_then(Value::as_bool) != Some(true) {
            let text = format!("{} does not hold: {}", text(mechanism, "name"), text(mechanism, "detail"));
            found.warn("confinement", text, "a newer kernel, or fewer limits around the server, may give it");
        }
    }
    profiles_here(found, report);
}

/// Which profiles this host can hold, as the server tried.
fn profiles_here(found: &mut Findings, report: &Value) {
    let all = report.get("profiles").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let (bad, good): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|it| !text(it, "problem").is_empty());
    let good: Vec<&str> = good.into_iter().map(|profile| text(profile, "name")).collect();
    if !good.is_empty() {
        found.ok("confinement", format!("profiles that hold here: {}", good.join(", ")));
    }
    for profile in bad {
        let (name, problem) = (text(profile, "name"), text(profile, "problem"));
        let cure =
            "until then a plan that is approved with it ends as spawn_failed; start the server again to try anew";
        found.warn("confinement", format!("the profile {name} does not hold here: {problem}"), cure);
    }
}
