//! `run` and `attach`: waiting for the decision, copying the output as it comes, ending as the command ended. A server that
//! goes away is waited for; an interrupt leaves the plan as it is and says how to come back.

use std::io::{self, IsTerminal as _, Read as _, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::{Following, Proposal};
use crate::client::{Client, ClientError, encoded};
use crate::commands::{Session, plan_path};
use crate::describe::{ending, text};
use crate::display::{self, VisibleStream, visible};
use crate::failure::Failure;
use crate::interrupt::{Armed, at_interrupt};
use crate::progress::Progress;

/// How long until a server that went away is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Where copying an output ends.
#[derive(Clone, Copy)]
enum Until {
    /// With the run.
    Ended,
    /// With what was written so far.
    Now,
}

/// A plan being followed.
struct Followed<'a> {
    session: &'a Session,
    client: Client,
    following: &'a Following,
    id: String,
}

impl Session {
    pub(crate) fn run(&self, proposal: &Proposal, following: &Following) -> Result<ExitCode, Failure> {
        let client = self.agent()?;
        // Before the plan is there an interrupt has nothing to leave behind.
        let armed = at_interrupt(|| {});
        let answer = self.propose(&client, proposal)?;
        drop(armed);
        let id = text(&answer, "pending_id").to_owned();
        if io::stderr().is_terminal() {
            self.advise(&format!("waiting for a decision: provara approve {id}"));
        }
        Followed { session: self, client, following, id }.until_the_end()
    }

    pub(crate) fn attach(&self, id: &str, following: &Following) -> Result<ExitCode, Failure> {
        Followed { session: self, client: self.reader()?, following, id: id.to_owned() }.until_the_end()
    }

    /// Prints what a run wrote. Its id or its plan's will do: both look alike.
    pub(crate) fn logs(&self, id: &str, follow: bool) -> Result<ExitCode, Failure> {
        let client = self.reader()?;
        let run = match client.get(&format!("/runs/{}", encoded(id))) {
            Ok(_) => id.to_owned(),
            Err(error) if error.is_unknown() => {
                let plan = client.get(&plan_path(id))?;
                run_id(&plan).ok_or_else(|| never_ran(text(&plan, "state"), &plan))?
            }
            Err(error) => return Err(error.into()),
        };
        let following = Following::default();
        let until = if follow { Until::Ended } else { Until::Now };
        Followed { session: self, client, following: &following, id: id.to_owned() }.copy_output(&run, until)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Followed<'_> {
    fn until_the_end(mut self) -> Result<ExitCode, Failure> {
        let mut armed = self.armed();
        let waiting = Progress::start(self.session.quiet, "waiting for a decision");
        let run = loop {
            let plan = self.looked_at()?;
            match text(&plan, "state") {
                "pending" | "approved" => {}
                "superseded" => match plan.get("superseded_by").and_then(Value::as_str) {
                    Some(newer) => {
                        newer.clone_into(&mut self.id);
                        drop(armed);
                        armed = self.armed();
                    }
                    None => return Err(never_ran("superseded", &plan)),
                },
                state @ ("running" | "finished" | "lost") => match run_id(&plan) {
                    Some(run) => break run,
                    None => return Err(never_ran(state, &plan)),
                },
                state => return Err(never_ran(state, &plan)),
            }
        };
        drop(waiting);
        if !self.session.json {
            self.copy_output(&run, Until::Ended)?;
        }
        let ended = loop {
            let plan = self.looked_at()?;
            match text(&plan, "state") {
                "running" => {}
                "finished" => break self.finished(plan),
                state => break Err(never_ran(state, &plan)),
            }
        };
        drop(armed);
        ended
    }

    /// The plan as it is after its next change, or after a while.
    fn looked_at(&self) -> Result<Value, Failure> {
        let path = format!("{}?wait=30", plan_path(&self.id));
        let mut patience = Patience::of(self.following);
        loop {
            match self.client.get(&path) {
                Err(error) if error.may_pass() && patience.lasts() => thread::sleep(AGAIN),
                Err(error) => return Err(self.gone(error)),
                Ok(plan) => return Ok(plan),
            }
        }
    }

    fn finished(&self, plan: Value) -> Result<ExitCode, Failure> {
        let run = plan.get("run").unwrap_or(&plan);
        let code = run.get("exit_code").and_then(Value::as_u64).and_then(|code| u8::try_from(code).ok());
        let Some(code) = code else {
            let text = format!("the command did not end by itself: {}", ending(run));
            return Err(Failure::Ended { text, code: 1, plan: Box::new(plan) });
        };
        if self.session.json {
            display::write_json(&mut io::stdout().lock(), &plan)?;
        }
        Ok(ExitCode::from(code))
    }

    fn armed(&self) -> Armed {
        let (client, id) = (self.client.clone(), self.id.clone());
        let cancels = self.following.cancel_on_interrupt;
        at_interrupt(move || {
            let told = if cancels {
                match client.post(&format!("{}/cancel", plan_path(&id)), &json!({})) {
                    Ok(plan) => format!("cancel was asked for; the plan is {}", text(&plan, "state")),
                    Err(error) => format!("it could not be cancelled: {error}; try `provara cancel {id}`"),
                }
            } else {
                format!("left; the plan goes on. Come back: provara attach {id}. End it: provara cancel {id}")
            };
            let _ = writeln!(io::stderr(), "\nprovara: {}", visible(&told));
        })
    }

    fn gone(&self, error: ClientError) -> Failure {
        if error.may_pass() {
            self.session.advise(&format!("the plan goes on without you; come back: provara attach {}", self.id));
        }
        error.into()
    }

    /// Both streams at once: a command that fills one while we wait on the other would never end.
    fn copy_output(&self, run: &str, until: Until) -> Result<(), Failure> {
        thread::scope(|scope| {
            let other =
                scope.spawn(move || self.copy((run, "stderr"), until, io::stderr(), io::stderr().is_terminal()));
            let first = self.copy((run, "stdout"), until, io::stdout(), io::stdout().is_terminal());
            let second = other.join().unwrap_or_else(|_| Err(io::Error::other("reading stderr failed").into()));
            first.and(second)
        })
    }

    /// A terminal gets everything visible; a pipe or a file gets the command's bytes. Goes on where it stopped when the
    /// server comes back.
    fn copy(
        &self,
        (run, stream): (&str, &str),
        until: Until,
        mut to: impl Write,
        made_visible: bool,
    ) -> Result<(), Failure> {
        let mut shown = VisibleStream::default();
        let mut buffer = vec![0; 16 << 10];
        let mut offset = 0u64;
        let mut patience = Patience::of(self.following);
        loop {
            let follow = u8::from(matches!(until, Until::Ended));
            let path = format!("/runs/{}/output?stream={stream}&offset={offset}&follow={follow}", encoded(run));
            let begun_at = offset;
            let mut from = match self.client.stream_from(&path) {
                Ok((begins, from)) => {
                    if begins > offset {
                        let dropped = begins - offset;
                        self.session.advise(&format!("{dropped} bytes of {stream} were not kept and are missing here"));
                    }
                    offset = begins;
                    from
                }
                Err(error) if error.may_pass() && patience.lasts() => {
                    thread::sleep(AGAIN);
                    continue;
                }
                Err(error) => return Err(self.gone(error)),
            };
            while let Ok(read) = from.read(&mut buffer) {
                // Without following, what comes is a page: the end is a page with nothing in it.
                if read == 0 && matches!(until, Until::Now) && offset > begun_at {
                    break;
                }
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
                offset += u64::try_from(read).unwrap_or(0);
                patience = Patience::of(self.following);
            }
            if matches!(until, Until::Now) && offset > begun_at {
                continue;
            }
            if !patience.lasts() {
                return Err(self.gone(ClientError::Cut { base: self.client.base().to_owned() }));
            }
            thread::sleep(AGAIN);
        }
    }
}

/// How long a server that went away is waited for. Begins with the first failure.
struct Patience {
    most: Duration,
    until: Option<Instant>,
}

impl Patience {
    fn of(following: &Following) -> Self {
        Self { most: Duration::from_secs(u64::from(following.retry_for)), until: None }
    }

    fn lasts(&mut self) -> bool {
        Instant::now() < *self.until.get_or_insert_with(|| Instant::now() + self.most)
    }
}

fn run_id(plan: &Value) -> Option<String> {
    plan.get("run")?.get("run_id")?.as_str().map(str::to_owned)
}

/// A plan that did not run, or whose end nobody knows.
fn never_ran(state: &str, plan: &Value) -> Failure {
    let reason = plan.get("decision").map(|decision| text(decision, "reason")).filter(|reason| !reason.is_empty());
    let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let (code, text) = match state {
        "denied" => (3, format!("a person denied this command{why}")),
        "blocked" => (3, "policy denied this command".to_owned()),
        "expired" => (4, "expired: nobody decided in time, or it was not begun in time".to_owned()),
        "withdrawn" => (1, "withdrawn: it was taken back before a decision".to_owned()),
        "cancelled" => (1, "cancelled: it was stopped before it ran".to_owned()),
        "lost" => (1, "lost: the server died while the command ran; its outcome is unknown".to_owned()),
        state => (1, format!("the plan is {state}")),
    };
    Failure::Ended { text, code, plan: Box::new(plan.clone()) }
}
