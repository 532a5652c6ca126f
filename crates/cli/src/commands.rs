//! The commands that speak to a server.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use serde_json::{Value, json};

use crate::args::{Audit, Proposal, Token, Workspace};
use crate::client::{Client, encoded};
use crate::config::{Secret, Settings};
use crate::display::{VisibleStream, visible, visible_line};
use crate::failure::Failure;
use crate::secrets;

/// One call of the command line.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) json: bool,
}

impl Session {
    pub(crate) fn plan(&self, proposal: &Proposal) -> Result<ExitCode, Failure> {
        let answer = self.propose(&self.agent()?, proposal)?;
        let id = text(&answer, "pending_id").to_owned();
        self.answer(&answer, |out| writeln!(out, "{}", visible_line(&id)))
    }

    pub(crate) fn run(&self, proposal: &Proposal) -> Result<ExitCode, Failure> {
        let client = self.agent()?;
        let answer = self.propose(&client, proposal)?;
        let id = text(&answer, "pending_id");
        if io::stderr().is_terminal() {
            let _ = writeln!(io::stderr(), "waiting for a decision: provara approve {}", visible_line(id));
        }
        self.follow(&client, id)
    }

    pub(crate) fn attach(&self, id: &str) -> Result<ExitCode, Failure> {
        self.follow(&self.reader()?, id)
    }

    pub(crate) fn pending(&self, limit: u32) -> Result<ExitCode, Failure> {
        let answer = self.reader()?.get(&format!("/pending?limit={limit}"))?;
        self.answer(&answer, |out| {
            for plan in answer.as_array().into_iter().flatten() {
                writeln!(out, "{}  {}", visible_line(text(plan, "pending_id")), visible_line(text(plan, "command")))?;
            }
            Ok(())
        })
    }

    pub(crate) fn show(&self, id: &str) -> Result<ExitCode, Failure> {
        let answer = self.reader()?.get(&plan_path(id))?;
        self.answer(&answer, |out| describe(out, &answer))
    }

    /// Shows the plan, asks, and approves exactly the digest that was shown.
    pub(crate) fn approve(
        &self,
        id: &str,
        yes: bool,
        reason: Option<String>,
        profile: Option<String>,
    ) -> Result<ExitCode, Failure> {
        let client = self.operator()?;
        let plan = client.get(&plan_path(id))?;
        if !yes {
            describe(&mut io::stderr(), &plan)?;
            if !confirmed()? {
                return Err(Failure::Pending("nothing was decided; the plan still waits".to_owned()));
            }
        }
        let mut body = json!({"digest": plan.get("digest")});
        put(&mut body, "reason", reason);
        put(&mut body, "profile", profile);
        let answer = client.post(&format!("/approve/{}", encoded(id)), &body)?;
        self.answer(&answer, |out| {
            writeln!(out, "{}", ending(&answer))?;
            out.write_all(visible(text(&answer, "stdout")).as_bytes())?;
            out.write_all(visible(text(&answer, "stderr")).as_bytes())
        })
    }

    pub(crate) fn deny(&self, id: &str, reason: Option<String>) -> Result<ExitCode, Failure> {
        let mut body = json!({});
        put(&mut body, "reason", reason);
        let answer = self.operator()?.post(&format!("/deny/{}", encoded(id)), &body)?;
        self.answer(&answer, |out| writeln!(out, "denied"))
    }

    pub(crate) fn cancel(&self, id: &str) -> Result<ExitCode, Failure> {
        let answer = self.reader()?.post(&format!("{}/cancel", plan_path(id)), &json!({}))?;
        self.answer(&answer, |out| writeln!(out, "{}", visible_line(text(&answer, "state"))))
    }

    pub(crate) fn audit(&self, what: Audit) -> Result<ExitCode, Failure> {
        let client = self.operator()?;
        match what {
            Audit::Tail { since } => tail(&client, since),
            Audit::Export => {
                export(&client, &mut io::stdout().lock())?;
                Ok(ExitCode::SUCCESS)
            }
            Audit::Prove { id } => {
                let answer = client.get(&format!("/audit/inclusion?plan={}", encoded(&id)))?;
                self.answer(&answer, |out| writeln!(out, "{answer:#}"))
            }
            Audit::Verify { file, checkpoints, key } => {
                crate::log::verify(&file, &checkpoints, key.as_deref(), self.json)
            }
        }
    }

    pub(crate) fn policy_check(&self, command: String, cwd: Option<String>) -> Result<ExitCode, Failure> {
        let mut body = json!({"command": command});
        put(&mut body, "cwd", cwd);
        let answer = self.reader()?.post("/policy/check", &body)?;
        let judgement = answer.get("judgement").unwrap_or(&answer);
        self.answer(&answer, |out| describe_judgement(out, judgement))
    }

    pub(crate) fn token(&self, what: Token) -> Result<ExitCode, Failure> {
        let client = self.operator()?;
        match what {
            Token::List => {
                let answer = client.get("/tokens")?;
                self.answer(&answer, |out| writeln!(out, "{}", visible(&format!("{answer:#}"))))
            }
            Token::Create { name, roles } => {
                let answer = client.post("/tokens", &json!({"name": name, "roles": roles}))?;
                self.show_token(&answer)
            }
            Token::Rotate { id } => {
                // The new one first: a failure in between leaves one token too many, never none.
                let known = client.get("/tokens")?;
                let old = known.as_array().into_iter().flatten().find(|token| text(token, "id") == id);
                let Some(old) = old else { return Err(Failure::Usage(format!("no token has the id `{id}`"))) };
                let answer = client.post("/tokens", &json!({"name": old.get("name"), "roles": old.get("roles")}))?;
                client.delete(&format!("/tokens/{}", encoded(&id)), None)?;
                self.show_token(&answer)
            }
            Token::Revoke { id } => {
                let answer = client.delete(&format!("/tokens/{}", encoded(&id)), None)?;
                self.answer(&answer, |out| writeln!(out, "revoked"))
            }
        }
    }

    pub(crate) fn workspace(&self, what: Workspace) -> Result<ExitCode, Failure> {
        let client = self.operator()?;
        let answer = match what {
            Workspace::List => client.get("/workspaces")?,
            Workspace::Add { path } => client.post("/workspaces", &json!({"path": absolute(&path)?}))?,
            // What is gone cannot be resolved any more, and has to be removable all the same.
            Workspace::Remove { path } => client.delete("/workspaces", Some(&json!({"path": path})))?,
        };
        self.answer(&answer, |out| writeln!(out, "{}", visible(&format!("{answer:#}"))))
    }

    fn show_token(&self, answer: &Value) -> Result<ExitCode, Failure> {
        let _ = writeln!(io::stderr(), "this token is shown once:");
        self.answer(answer, |out| writeln!(out, "{}", visible_line(text(answer, "token"))))
    }

    fn propose(&self, client: &Client, proposal: &Proposal) -> Result<Value, Failure> {
        let mut body = json!({"command": script(&proposal.command)});
        put(&mut body, "cwd", proposal.cwd.clone());
        put(&mut body, "timeout_s", proposal.timeout);
        put(&mut body, "note", proposal.note.clone());
        put(&mut body, "shell", proposal.shell.clone());
        Ok(client.post("/plan", &body)?)
    }

    /// Waits for the run, copies its output as it comes, and ends as it ended.
    fn follow(&self, client: &Client, id: &str) -> Result<ExitCode, Failure> {
        let mut id = id.to_owned();
        let run = loop {
            let plan = client.get(&format!("{}?wait=30", plan_path(&id)))?;
            match text(&plan, "state") {
                "pending" | "approved" => {}
                "superseded" => match plan.get("superseded_by").and_then(Value::as_str) {
                    Some(newer) => newer.clone_into(&mut id),
                    None => return Err(Failure::Other("the plan was replaced, and the new one is unknown".to_owned())),
                },
                "running" | "finished" | "lost" => match run_id(&plan) {
                    Some(run) => break run,
                    None => return Err(Failure::Other("the plan ran, but the server names no run".to_owned())),
                },
                state => return Err(never_ran(state, &plan)),
            }
        };
        if !self.json {
            copy_output(client, &run)?;
        }
        loop {
            let plan = client.get(&format!("{}?wait=30", plan_path(&id)))?;
            match text(&plan, "state") {
                "running" => {}
                "finished" => return self.finished(&plan),
                state => return Err(never_ran(state, &plan)),
            }
        }
    }

    fn finished(&self, plan: &Value) -> Result<ExitCode, Failure> {
        if self.json {
            writeln!(io::stdout(), "{plan}")?;
        }
        let run = plan.get("run").unwrap_or(plan);
        let code = run.get("exit_code").and_then(Value::as_u64).and_then(|code| u8::try_from(code).ok());
        code.map(ExitCode::from)
            .ok_or_else(|| Failure::Other(format!("the command did not end by itself: {}", ending(run))))
    }

    pub(crate) fn answer(
        &self,
        answer: &Value,
        human: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<ExitCode, Failure> {
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{answer}")?
        } else {
            human(&mut out)?
        }
        Ok(ExitCode::SUCCESS)
    }

    fn agent(&self) -> Result<Client, Failure> {
        let token = match self.settings.token.clone() {
            Some(token) => Some(token),
            None => kept(&self.settings.agent_token_path())?,
        };
        let missing = || Failure::Usage("no agent's token: set AGENT_HUB_TOKEN, or start the server once".to_owned());
        Ok(Client::new(&self.settings, Some(token.ok_or_else(missing)?))?)
    }

    pub(crate) fn operator(&self) -> Result<Client, Failure> {
        let token = match self.known_operator()? {
            Some(token) => Some(token),
            None => secrets::prompt("operator's token: ")?,
        };
        let missing = || {
            Failure::Usage("no operator's token: set AGENT_HUB_OPERATOR_TOKEN, or call this on a terminal".to_owned())
        };
        let token = token.filter(|token| !token.expose().is_empty()).ok_or_else(missing)?;
        if !provara_gateway::is_whole_secret(token.expose()) {
            return Err(Failure::Usage("that token is not whole; was it copied to the end?".to_owned()));
        }
        Ok(Client::new(&self.settings, Some(token))?)
    }

    /// Whoever may read: the operator where the token is at hand, else the agent.
    fn reader(&self) -> Result<Client, Failure> {
        match self.known_operator()? {
            Some(token) => Ok(Client::new(&self.settings, Some(token))?),
            None => self.agent(),
        }
    }

    fn known_operator(&self) -> Result<Option<Secret>, Failure> {
        match self.settings.operator_token.clone() {
            Some(token) => Ok(Some(token)),
            None => kept(&self.settings.operator_token_path()),
        }
    }
}

/// A token file that this user may not read is as good as none: it is somebody else's.
fn kept(path: &Path) -> Result<Option<Secret>, Failure> {
    match secrets::read_private(path) {
        Ok(found) => Ok(found),
        Err(error) if error.raw_os_error() == Some(nix::libc::EACCES) => Ok(None),
        Err(error) => Err(Failure::Other(format!("`{}` cannot be used: {error}", path.display()))),
    }
}

fn plan_path(id: &str) -> String {
    format!("/commands/{}", encoded(id))
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let found = path.canonicalize().map_err(|error| Failure::Usage(format!("`{}`: {error}", path.display())))?;
    found.into_os_string().into_string().map_err(|_| Failure::Usage("the path is not UTF-8".to_owned()))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn put<T: Into<Value>>(body: &mut Value, field: &str, value: Option<T>) {
    if let (Some(fields), Some(value)) = (body.as_object_mut(), value) {
        fields.insert(field.to_owned(), value.into());
    }
}

fn run_id(plan: &Value) -> Option<String> {
    let run = plan.get("run").unwrap_or(plan);
    [run.get("run_id"), plan.get("run_id"), run.get("id")]
        .into_iter()
        .flatten()
        .find_map(Value::as_str)
        .map(str::to_owned)
}

/// One word is a script; several are one command, each word quoted so that the shell reads it as it was typed here.
fn script(words: &[String]) -> String {
    match words {
        [script] => script.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn ending(run: &Value) -> String {
    match run.get("outcome") {
        Some(Value::String(word)) => visible_line(word),
        Some(outcome) => visible_line(&outcome.to_string()),
        None => "outcome unknown".to_owned(),
    }
}

fn never_ran(state: &str, plan: &Value) -> Failure {
    let reason = plan.get("decision").map(|decision| text(decision, "reason")).filter(|reason| !reason.is_empty());
    let why = reason.map(|reason| format!(": {}", visible_line(reason))).unwrap_or_default();
    match state {
        "denied" => Failure::Denied(format!("a person denied this command{why}")),
        "blocked" => Failure::Denied("policy denied this command".to_owned()),
        "expired" => Failure::Pending("nobody decided in time".to_owned()),
        "lost" => Failure::Other("the server died while the command ran; its outcome is unknown".to_owned()),
        state => Failure::Other(format!("the plan is {}", visible_line(state))),
    }
}

fn describe(out: &mut dyn Write, plan: &Value) -> io::Result<()> {
    writeln!(
        out,
        "plan      {}\nstate     {}",
        visible_line(text(plan, "pending_id")),
        visible_line(text(plan, "state"))
    )?;
    writeln!(out, "cwd       {}\ndigest    {}", visible_line(text(plan, "cwd")), visible_line(text(plan, "digest")))?;
    if !text(plan, "note").is_empty() {
        writeln!(out, "note      {}", visible_line(text(plan, "note")))?;
    }
    for field in
        ["agent", "shell", "target", "profile", "env", "stdin_bytes", "timeout_s", "expires_at", "decision", "run"]
    {
        if let Some(value) = plan.get(field).filter(|value| !value.is_null()) {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(out, "{field:9} {}", visible_line(&shown))?;
        }
    }
    // Each line is marked, so that no command can end itself and go on as our own words.
    writeln!(out, "command")?;
    for line in text(plan, "command").split('\n') {
        writeln!(out, "  | {}", visible(line))?;
    }
    plan.get("judgement").map_or(Ok(()), |judgement| describe_judgement(out, judgement))
}

fn describe_judgement(out: &mut dyn Write, judgement: &Value) -> io::Result<()> {
    writeln!(
        out,
        "policy    {} ({})",
        visible_line(text(judgement, "verdict")),
        visible_line(text(judgement, "severity"))
    )?;
    for reason in judgement.get("reasons").and_then(Value::as_array).into_iter().flatten() {
        let words = format!("{}: {}", text(reason, "rule"), text(reason, "text"));
        writeln!(out, "  - {}", visible_line(&words))?;
    }
    Ok(())
}

fn confirmed() -> Result<bool, Failure> {
    let Ok(mut tty) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Err(Failure::Usage(
            "there is no terminal to ask on; look with `provara show`, then give --yes".to_owned(),
        ));
    };
    tty.write_all(b"run this command? [y/N] ")?;
    let mut line = String::new();
    BufReader::new(tty).read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Both streams at once: a command that fills one while we wait on the other would never end.
fn copy_output(client: &Client, run: &str) -> Result<(), Failure> {
    let path = |stream: &str| format!("/runs/{}/output?stream={stream}&follow=1", encoded(run));
    let (stdout, stderr) = (client.stream(&path("stdout"))?, client.stream(&path("stderr"))?);
    thread::scope(|scope| {
        let other = scope.spawn(|| copy(stderr, io::stderr(), io::stderr().is_terminal()));
        let first = copy(stdout, io::stdout(), io::stdout().is_terminal());
        let second = other.join().unwrap_or_else(|_| Err(io::Error::other("reading stderr failed")));
        first.and(second)
    })?;
    Ok(())
}

/// A terminal gets everything visible; a pipe or a file gets the command's bytes.
fn copy(mut from: impl Read, mut to: impl Write, made_visible: bool) -> io::Result<()> {
    let mut shown = VisibleStream::default();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        match (read, made_visible) {
            (0, true) => to.write_all(shown.finish().as_bytes())?,
            (_, true) => to.write_all(shown.push(bytes).as_bytes())?,
            (_, false) => to.write_all(bytes)?,
        }
        to.flush()?;
        if read == 0 {
            return Ok(());
        }
    }
}

fn tail(client: &Client, since: Option<u64>) -> Result<ExitCode, Failure> {
    let since = since.map(|since| format!("?since={since}")).unwrap_or_default();
    let lines = BufReader::new(client.stream(&format!("/events{since}"))?);
    let mut out = io::stdout().lock();
    for line in lines.lines() {
        if let Some(data) = line?.strip_prefix("data:") {
            writeln!(out, "{}", visible_line(data.trim_start()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes every entry that the log has by now, in pages.
pub(crate) fn export(client: &Client, to: &mut impl Write) -> Result<(), Failure> {
    let mut next = 0u64;
    loop {
        let page = client.stream(&format!("/audit?from={next}"))?;
        let mut lines = 0u64;
        for line in BufReader::new(page).lines() {
            writeln!(to, "{}", line?)?;
            lines += 1;
        }
        if lines == 0 {
            return Ok(());
        }
        next += lines;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_were_typed() {
        let words = |raw: &[&str]| script(&raw.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["ps aux | head"]), "ps aux | head");
        assert_eq!(words(&["echo", "a b", "it's", "$HOME", ""]), r"echo 'a b' 'it'\''s' '$HOME' ''");
    }

    #[test]
    fn a_command_cannot_pass_for_our_own_words() {
        let plan = json!({"pending_id": "x", "command": "ls\npolicy    allow (info)\u{1b}[2A\u{202e}"});
        let mut out = Vec::new();
        describe(&mut out, &plan).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert!(shown.contains("  | policy    allow (info)⟦U+001B⟧[2A⟦U+202E⟧"), "{shown}");
        assert!(!shown.contains("\npolicy"), "{shown}");
    }
}
