//! How a command of ours ends when it does not end well.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::display;

/// Why there is no result. The exit codes are documented in `docs/cli.md`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("input or output failed")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Pending(String),
    /// A plan that ended otherwise than by its command's own exit.
    #[error("{text}")]
    Ended { text: String, code: u8, plan: Box<Value> },
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_) | Self::Usage(_) => 2,
            Self::Client(ClientError::Refused { status: 401 | 403, .. }) => 3,
            Self::Pending(_) => 4,
            Self::Client(ClientError::Unreachable { .. } | ClientError::Cut { .. }) => 5,
            Self::Ended { code, .. } => *code,
            Self::Client(_) | Self::Io(_) | Self::Other(_) => 1,
        })
    }

    /// The one value that `--json` answers: the server's own where it gave one.
    fn json(&self, text: &str) -> Value {
        let code = match self {
            Self::Client(ClientError::Refused { body, .. }) if body.is_object() => return (**body).clone(),
            Self::Ended { plan, .. } => return (**plan).clone(),
            Self::Client(ClientError::Unreachable { .. } | ClientError::Cut { .. }) => "unreachable",
            Self::Config(_) | Self::Usage(_) => "usage",
            Self::Pending(_) => "pending",
            Self::Client(_) | Self::Io(_) | Self::Other(_) => "failed",
        };
        json!({ "detail": text, "code": code })
    }

    /// What helps, where the server's words do not say it: they are written for programs as well.
    fn next_step(&self) -> Option<&'static str> {
        let Self::Client(ClientError::Refused { status, code, body, .. }) = self else { return None };
        let state = body.get("state").and_then(Value::as_str).unwrap_or_default();
        match (*status, code.as_str(), state) {
            (401, ..) => Some(
                "is it a token of this server? AGENT_HUB_TOKEN and AGENT_HUB_OPERATOR_TOKEN go before the files in ROOT/runtime",
            ),
            (403, "forbidden", _) => Some("use a token with that role: AGENT_HUB_OPERATOR_TOKEN for what people do"),
            (403, "policy_denied", _) => {
                Some("`provara policy check COMMAND` shows the part that is meant; change that")
            }
            (404, "not_found", _) => Some("`provara history` lists the plans that you may see"),
            (409, "preview_unavailable", _) => Some("`provara show ID` shows the plan; decide by what it says"),
            (409, "not_reopenable", _) => Some("`provara show ID` tells what became of it"),
            (409, _, "expired") => Some("`provara reopen ID` lets it wait again, as a new plan"),
            (409, "plan_not_pending", _) => Some("`provara show ID` tells what became of it"),
            (409, "digest_mismatch" | "judgement_changed" | "binding_changed", _) => {
                Some("look again with `provara show ID`, then decide")
            }
            (422, ..) => Some("the command's --help names what it takes"),
            (429, "cool_down", _) => Some("ask the person who denied it, or propose another command"),
            (429, ..) => Some("wait a little; `provara pending` shows what fills the queue"),
            _ => None,
        }
    }

    /// Nobody reads our output any more; there is nobody to tell.
    fn is_nobody_listening(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Tells the person why, with every cause, and what to do next. A closed stderr is nobody listening.
pub(crate) fn complain(failure: &Failure, as_json: bool, quiet: bool) {
    if failure.is_nobody_listening() {
        return;
    }
    let mut text = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    if as_json {
        let _ = display::write_json(&mut io::stdout().lock(), &failure.json(&text));
    }
    // Further lines are marked: none of them may pass for a message of its own.
    let _ = writeln!(io::stderr(), "provara: {}", display::visible(&text.replace('\n', "\n  | ")));
    if let Some(next) = failure.next_step().filter(|_| !quiet) {
        let _ = writeln!(io::stderr(), "  next: {next}");
    }
}
