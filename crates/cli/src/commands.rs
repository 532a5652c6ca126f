//! The commands about plans that speak to a server, and what all of those share: who asks, and how an answer is given.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use provara_domain::Resource;
use serde_json::{Value, json};

use crate::args::Proposal;
use crate::client::{Client, encoded};
use crate::config::{Secret, Settings};
use crate::describe::{Page, ending, text, write_preview};
use crate::display::{self, visible, visible_line};
use crate::failure::Failure;
use crate::interrupt::at_interrupt;
use crate::paint::Paint;
use crate::progress::Progress;
use crate::table::Cell;
use crate::{clock, secrets, table};

/// The most that a command may be given to read: what the API takes.
const MAX_STDIN: u64 = 1 << 20;

/// One call of the command line.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

/// What an approver says with a yes.
pub(crate) struct Yes {
    /// Not asked again.
    pub(crate) certain: bool,
    pub(crate) reason: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) timeout: Option<u32>,
    /// `NAME=NUMBER` each.
    pub(crate) limits: Vec<String>,
    /// Not waiting for the command's end.
    pub(crate) no_wait: bool,
}

/// What an approver changes.
pub(crate) struct Change {
    pub(crate) cwd: Option<String>,
    pub(crate) timeout: Option<u32>,
    pub(crate) note: Option<String>,
    pub(crate) command: Vec<String>,
}

impl Session {
    pub(crate) fn plan(&self, proposal: &Proposal) -> Result<ExitCode, Failure> {
        let answer = self.propose(&self.agent()?, proposal)?;
        let id = visible_line(text(&answer, "pending_id"));
        self.answer(&answer, |out, _| writeln!(out, "{id}"))?;
        self.suggest(&format!("it waits for a person; follow it with `provara attach {id}`"));
        Ok(ExitCode::SUCCESS)
    }

    pub(crate) fn status(&self, id: Option<&str>, wait: Option<u32>) -> Result<ExitCode, Failure> {
        let Some(id) = id else {
            let client = Client::new(&self.settings, None)?;
            let answer = client.get("/status")?;
            return self.answer(&answer, |out, _| {
                let count = |field: &str| answer.get(field).and_then(Value::as_u64).unwrap_or(0);
                writeln!(out, "server    {}", visible_line(client.base()))?;
                writeln!(out, "version   {}", visible_line(text(&answer, "version")))?;
                writeln!(out, "pending   {}\ndenied    {}", count("pending_count"), count("denied_count"))?;
                if answer.get("single_token").and_then(Value::as_bool) == Some(true) {
                    writeln!(out, "warning   one token proposes and approves")?;
                }
                Ok(())
            });
        };
        let waiting = wait.map(|seconds| format!("?wait={seconds}")).unwrap_or_default();
        let answer = self.reader()?.get(&format!("{}{waiting}", plan_path(id)))?;
        let state = text(&answer, "state");
        self.answer(&answer, |out, _| writeln!(out, "{}", visible_line(state)))?;
        Ok(match state {
            "denied" | "blocked" => ExitCode::from(3),
            "pending" | "expired" => ExitCode::from(4),
            "lost" => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        })
    }

    pub(crate) fn pending(&self, limit: u32) -> Result<ExitCode, Failure> {
        let answer = self.reader()?.get(&format!("/pending?limit={limit}"))?;
        let now = unix_now();
        let plans = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let denied = |plan: &Value| plan.pointer("/denied_before/count").and_then(Value::as_u64);
        // A column that is empty nearly always would only narrow the commands.
        let some_denied = plans.iter().any(|plan| denied(plan).is_some());
        let row = |plan: &Value| {
            let judgement = plan.get("judgement").unwrap_or(&Value::Null);
            let since = plan.get("ts").and_then(Value::as_f64).map(|ts| table::age(now - ts)).unwrap_or_default();
            let own = |field: &str| Cell::of(text(plan, field));
            let of = |field: &str| Cell::of(text(judgement, field));
            let command = Cell::first_line(text(plan, "command"));
            let times = some_denied.then(|| Cell::of(&denied(plan).map(|n| format!("{n}x")).unwrap_or_default()));
            let known =
                [own("pending_id"), Cell::of(&since), own("agent"), of("verdict"), of("severity"), own("profile")];
            known.into_iter().chain(times).chain([command]).collect()
        };
        let rows: Vec<Vec<Cell>> = plans.iter().map(row).collect();
        let columns: &[&str] = match some_denied {
            true => &["ID", "AGE", "AGENT", "VERDICT", "SEVERITY", "PROFILE", "DENIED", "COMMAND"],
            false => &["ID", "AGE", "AGENT", "VERDICT", "SEVERITY", "PROFILE", "COMMAND"],
        };
        let profiles = if rows.is_empty() { Value::Null } else { self.profiles_at_hand()? };
        self.answer(&answer, |out, paint| {
            if rows.is_empty() {
                return writeln!(out, "nothing waits");
            }
            table::write(out, paint, columns, &rows)?;
            let asked = |profile: &&Value| plans.iter().any(|plan| text(plan, "profile") == text(profile, "name"));
            for profile in profiles.as_array().into_iter().flatten().filter(asked) {
                writeln!(out, "{}: {}", visible_line(text(profile, "name")), visible_line(text(profile, "words")))?;
            }
            Ok(())
        })?;
        if !rows.is_empty() {
            self.suggest("see all of one with `provara show ID`; then `provara approve ID` or `provara deny ID`");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What was proposed and what became of it, newest first.
    pub(crate) fn history(&self, limit: u32, state: Option<&str>) -> Result<ExitCode, Failure> {
        let state = state.map(|state| format!("&state={}", encoded(state))).unwrap_or_default();
        let answer = self.reader()?.get(&format!("/commands?limit={limit}{state}"))?;
        let now = unix_now();
        let row = |plan: &Value| {
            let own = |field: &str| Cell::of(text(plan, field));
            let since = plan.get("ts").and_then(Value::as_f64).map(|ts| table::age(now - ts)).unwrap_or_default();
            let run = plan.get("run").filter(|run| run.get("outcome").is_some_and(|outcome| !outcome.is_null()));
            let end = run.map(ending).unwrap_or_default();
            // Its first words: `show` has the rest.
            let end = end.split([':', '(']).next().unwrap_or_default().trim_end();
            let command = Cell::first_line(text(plan, "command"));
            vec![own("pending_id"), Cell::of(&since), own("agent"), own("state"), Cell::of(end), command]
        };
        let rows: Vec<Vec<Cell>> = answer.as_array().into_iter().flatten().map(row).collect();
        self.answer(&answer, |out, paint| match rows.is_empty() {
            true => writeln!(out, "nothing was proposed"),
            false => table::write(out, paint, &["ID", "AGE", "AGENT", "STATE", "ENDING", "COMMAND"], &rows),
        })
    }

    /// What profiles allow, where whoever calls may know it and reads words.
    fn profiles_at_hand(&self) -> Result<Value, Failure> {
        match self.known_operator()? {
            Some(token) if !self.json => Ok(Client::new(&self.settings, Some(token))?.get("/profiles")?),
            _ => Ok(Value::Null),
        }
    }

    pub(crate) fn show(&self, id: &str) -> Result<ExitCode, Failure> {
        let answer = self.reader()?.get(&plan_path(id))?;
        self.answer(&answer, |out, paint| page(out, paint, &io::stdout()).plan(&answer))?;
        if text(&answer, "state") == "pending" {
            let id = visible_line(id);
            self.suggest(&format!("decide with `provara approve {id}`, or `provara deny {id} --reason TEXT`"));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Shows the plan, asks, and approves exactly the digest that was shown.
    pub(crate) fn approve(&self, id: &str, yes: Yes) -> Result<ExitCode, Failure> {
        yes.limits.iter().try_for_each(|limit| lowered(limit).map(drop))?;
        let client = self.operator()?;
        let mut plan = client.get(&plan_path(id))?;
        if let Some(name) = &yes.profile {
            chosen(&client, &mut plan, name)?;
        }
        if !yes.certain {
            let mut err = io::stderr().lock();
            page(&mut err, Paint::of(&io::stderr()), &io::stderr()).plan(&plan)?;
            if !confirmed()? {
                return Err(Failure::Pending("nothing was decided; the plan still waits".to_owned()));
            }
        }
        let mut body = json!({"digest": plan.get("digest")});
        let binding = plan.get("binding").and_then(|binding| binding.get("digest")).and_then(Value::as_str);
        put(&mut body, "binding_digest", binding);
        put(&mut body, "reason", yes.reason);
        put(&mut body, "profile", yes.profile);
        put(&mut body, "profile_sha256", plan.pointer("/confinement/sha256").cloned());
        put(&mut body, "timeout_s", yes.timeout);
        for limit in &yes.limits {
            let (name, most) = lowered(limit)?;
            put(&mut body, name, Some(most));
        }
        let path = format!("/approve/{}", encoded(id));
        if yes.no_wait {
            let answer = client.post_with(&path, &body, &[("prefer", "respond-async")])?;
            return self.answer(&answer, |out, _| writeln!(out, "approved"));
        }
        let armed = at_interrupt({
            let advice = format!("\nprovara: left; once approved it runs without you. See it: provara attach {id}");
            move || drop(writeln!(io::stderr(), "{}", visible(&advice)))
        });
        let waiting = Progress::start(self.quiet, "approved; the command runs");
        let answer = client.post(&path, &body)?;
        drop((waiting, armed));
        self.answer(&answer, |out, _| {
            writeln!(out, "{}", visible_line(&ending(&answer)))?;
            for stream in ["stdout", "stderr"] {
                out.write_all(visible(text(&answer, stream)).as_bytes())?;
                if answer.get(format!("{stream}_truncated")).and_then(Value::as_bool) == Some(true) {
                    writeln!(out, "\n⟦{stream} goes on; `provara attach {}` shows all⟧", visible_line(id))?;
                }
            }
            Ok(())
        })
    }

    pub(crate) fn deny(&self, id: &str, reason: Option<String>) -> Result<ExitCode, Failure> {
        let mut body = json!({});
        put(&mut body, "reason", reason);
        let answer = self.operator()?.post(&format!("/deny/{}", encoded(id)), &body)?;
        self.answer(&answer, |out, _| writeln!(out, "denied"))
    }

    pub(crate) fn edit(&self, id: &str, change: Change) -> Result<ExitCode, Failure> {
        let Change { cwd, timeout, note, command } = change;
        let command = (!command.is_empty()).then(|| script(&command));
        if cwd.is_none() && timeout.is_none() && note.is_none() && command.is_none() {
            return Err(Failure::Usage("nothing to change; give --cwd, --timeout, --note or -- COMMAND".to_owned()));
        }
        let mut body = json!({});
        put(&mut body, "command", command);
        put(&mut body, "cwd", cwd);
        put(&mut body, "timeout_s", timeout);
        put(&mut body, "note", note);
        self.made(&self.operator()?.post(&format!("/edit/{}", encoded(id)), &body)?)
    }

    pub(crate) fn reopen(&self, id: &str) -> Result<ExitCode, Failure> {
        self.made(&self.operator()?.post(&format!("/reopen/{}", encoded(id)), &json!({}))?)
    }

    pub(crate) fn extend(&self, id: &str, seconds: u32) -> Result<ExitCode, Failure> {
        let path = format!("{}/extend", plan_path(id));
        let answer = self.operator()?.post(&path, &json!({ "timeout_s": seconds }))?;
        self.answer(&answer, |out, _| writeln!(out, "may run {seconds} s from its start"))
    }

    pub(crate) fn preview(&self, id: &str) -> Result<ExitCode, Failure> {
        let client = self.operator()?;
        let waiting = Progress::start(self.quiet, "it runs in a copy of the workspace");
        let answer = client.post(&format!("{}/preview", plan_path(id)), &json!({}))?;
        drop(waiting);
        self.answer(&answer, |out, _| write_preview(out, &answer))
    }

    pub(crate) fn cancel(&self, id: &str) -> Result<ExitCode, Failure> {
        let answer = self.reader()?.post(&format!("{}/cancel", plan_path(id)), &json!({}))?;
        self.answer(&answer, |out, _| writeln!(out, "{}", visible_line(text(&answer, "state"))))
    }

    /// A plan that an approver made of another: its id is what the next command needs.
    fn made(&self, answer: &Value) -> Result<ExitCode, Failure> {
        self.answer(answer, |out, _| writeln!(out, "{}", visible_line(text(answer, "pending_id"))))
    }

    pub(crate) fn propose(&self, client: &Client, proposal: &Proposal) -> Result<Value, Failure> {
        let mut body = json!({"command": script(&proposal.command)});
        put(&mut body, "cwd", proposal.cwd.clone());
        put(&mut body, "timeout_s", proposal.timeout);
        put(&mut body, "note", proposal.note.clone());
        put(&mut body, "shell", proposal.shell.clone());
        put(&mut body, "profile", proposal.profile.clone());
        put(&mut body, "target", proposal.target.clone());
        put(&mut body, "expires_s", proposal.expires);
        put(&mut body, "dedupe", proposal.dedupe.then_some(true));
        put(&mut body, "stdin_b64", proposal.stdin.as_deref().map(input).transpose()?);
        if !proposal.env.is_empty() {
            put(&mut body, "env", Some(json!(variables(&proposal.env)?)));
        }
        let key = proposal.idempotency_key.as_deref().map(|key| ("idempotency-key", key));
        Ok(client.post_with("/plan", &body, key.as_slice())?)
    }

    pub(crate) fn answer(
        &self,
        answer: &Value,
        human: impl FnOnce(&mut dyn Write, Paint) -> io::Result<()>,
    ) -> Result<ExitCode, Failure> {
        let mut out = io::stdout().lock();
        if self.json {
            display::write_json(&mut out, answer)?
        } else {
            human(&mut out, Paint::of(&io::stdout()))?
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Says something that is not the answer.
    pub(crate) fn advise(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{}", visible(line));
        }
    }

    /// Tells a person on a terminal what usually comes next. Scripts are not told: nobody reads it there.
    fn suggest(&self, line: &str) {
        if !self.json && io::stderr().is_terminal() {
            self.advise(&format!("next: {line}"));
        }
    }

    pub(crate) fn agent(&self) -> Result<Client, Failure> {
        let token = match self.settings.token.clone() {
            Some(token) => Some(token),
            None => kept(&self.settings.agent_token_path())?,
        };
        let missing = || {
            Failure::Usage(format!(
                "no token: there is none that you may read in `{}`; name the server's folder with --root, or set \
                 AGENT_HUB_TOKEN (an agent's) or AGENT_HUB_OPERATOR_TOKEN (yours)",
                self.settings.runtime.display()
            ))
        };
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
    pub(crate) fn reader(&self) -> Result<Client, Failure> {
        match self.known_operator()? {
            Some(token) => Ok(Client::new(&self.settings, Some(token))?),
            None => self.agent(),
        }
    }

    pub(crate) fn known_operator(&self) -> Result<Option<Secret>, Failure> {
        match self.settings.operator_token.clone() {
            Some(token) => Ok(Some(token)),
            None => kept(&self.settings.operator_token_path()),
        }
    }
}

/// Where a description on `stream` goes.
pub(crate) fn page<'a, S: std::os::fd::AsFd + io::IsTerminal>(
    out: &'a mut dyn Write,
    paint: Paint,
    stream: &S,
) -> Page<'a> {
    let width = terminal_size::terminal_size_of(stream).map(|(width, _)| usize::from(width.0));
    // A terminal that does not tell its width is taken for the usual one.
    let width = width.or(stream.is_terminal().then_some(80)).filter(|_| stream.is_terminal());
    Page { out, paint, width, now: unix_now() }
}

pub(crate) fn unix_now() -> f64 {
    clock::now().unix_seconds()
}

/// A token file that this user may not read is as good as none: it is somebody else's.
fn kept(path: &Path) -> Result<Option<Secret>, Failure> {
    match secrets::read_private(path) {
        Ok(found) => Ok(found),
        Err(error) if error.raw_os_error() == Some(nix::libc::EACCES) => Ok(None),
        Err(error) => Err(Failure::Other(format!("`{}` cannot be used: {error}", path.display()))),
    }
}

pub(crate) fn plan_path(id: &str) -> String {
    format!("/commands/{}", encoded(id))
}

pub(crate) fn put<T: Into<Value>>(body: &mut Value, field: &str, value: Option<T>) {
    if let (Some(fields), Some(value)) = (body.as_object_mut(), value) {
        fields.insert(field.to_owned(), value.into());
    }
}

/// What the command is to read, encoded; `-` is our own input.
fn input(path: &Path) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::Usage(format!("`{}` cannot be read: {error}", path.display()));
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_STDIN + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_STDIN + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    let encoded = STANDARD.encode(bytes);
    if u64::try_from(encoded.len()).is_ok_and(|length| length > MAX_STDIN) {
        return Err(Failure::Usage(
            "a command reads at most 768 KiB; write more into a file of its workspace".to_owned(),
        ));
    }
    Ok(encoded)
}

fn variables(words: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let split = |word: &String| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    // The word is not repeated: it may be a secret that was given without its name.
    let bad = || Failure::Usage("--env takes NAME=VALUE".to_owned());
    words.iter().map(|word| split(word).ok_or_else(bad)).collect()
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

/// Puts the words of the profile that was chosen where those of the plan's own stand: what is shown is what is approved. One
/// that is not there the server refuses by itself.
fn chosen(client: &Client, plan: &mut Value, name: &str) -> Result<(), Failure> {
    let all = client.get("/profiles")?;
    let found = all.as_array().into_iter().flatten().find(|profile| text(profile, "name") == name);
    let rules = plan.pointer("/confinement/rules").cloned().unwrap_or_else(|| json!([]));
    let words = found.map(|profile| {
        json!({ "profile": name, "words": profile.get("words"), "sha256": profile.get("sha256"), "rules": rules })
    });
    if let Some(fields) = plan.as_object_mut() {
        fields.remove("confinement");
    }
    put(plan, "confinement", words);
    Ok(())
}

/// The name and the number of a limit that is lowered.
fn lowered(limit: &str) -> Result<(&'static str, u64), Failure> {
    let parsed =
        limit.split_once('=').and_then(|(name, most)| Some((Resource::parse(name)?.as_str(), most.parse().ok()?)));
    parsed.ok_or_else(|| {
        let all = Resource::ALL.map(Resource::as_str).join(", ");
        Failure::Usage(format!("--limit takes NAME=NUMBER; the names are {all}"))
    })
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
    fn a_variable_without_a_name_is_refused_without_being_repeated() {
        assert!(variables(&["A=b=c".to_owned()]).unwrap().get("A").is_some_and(|value| value == "b=c"));
        let refused = variables(&["secret-by-mistake".to_owned()]).unwrap_err().to_string();
        assert!(!refused.contains("secret"), "{refused}");
    }
}
