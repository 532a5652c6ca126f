//! Why something could not be measured.

use std::io;
use std::path::PathBuf;

use hyper::StatusCode;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no server program at `{}`; build it by `cargo build --release`, or name one by --server", path.display())]
    NoProgram { path: PathBuf },
    #[error("server did not start; it said: {said}")]
    NotStarted { said: String },
    #[error("server did not end within {seconds} s")]
    NotEnded { seconds: u64 },
    #[error("`{base}` is no address that can be measured; give http://HOST:PORT without a path")]
    Base { base: String },
    #[error("token in `{}` cannot be used; it has to be printable ASCII on one line", path.display())]
    Token { path: PathBuf },
    #[error("no connection to {address}")]
    Connect {
        address: String,
        #[source]
        cause: io::Error,
    },
    #[error("{route} was not answered")]
    Http {
        route: String,
        #[source]
        cause: hyper::Error,
    },
    #[error("{route} was not answered in time")]
    Silent { route: String },
    #[error("{route} was answered with {status}: {body}{}", advice(*status, body))]
    Refused { route: String, status: StatusCode, body: String },
    #[error("answer of {route} is not what was expected: {why}")]
    Unexpected { route: &'static str, why: String },
    #[error("could not use `{what}`")]
    Io {
        what: String,
        #[source]
        cause: io::Error,
    },
    #[error("`{}` line {line} is no JSON object; give a file that this program wrote", path.display())]
    Results { path: PathBuf, line: usize },
    #[error("`{}` lacks the lines `{begin}` and `{end}`, between which the table goes", path.display())]
    NoMarks { path: PathBuf, begin: &'static str, end: &'static str },
    #[error("built-in policy cannot be used: {0}")]
    Policy(String),
    #[error("confinement cannot be measured: {0}; try `provara doctor`")]
    Confinement(String),
    #[error("measures failed: {names}")]
    Some { names: String },
    #[error("a server that somebody else started is not restarted; leave --base out to measure that")]
    NotOurs,
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |cause| Self::Io { what, cause }
    }

    /// The failure with its causes, in one line.
    pub(crate) fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}

/// The two refusals that an installation with everyday settings gives to a load.
fn advice(status: StatusCode, body: &str) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS if body.contains("pending_cap") => {
            "; raise AGENT_HUB_MAX_PENDING for the measurement"
        }
        StatusCode::TOO_MANY_REQUESTS => "; raise AGENT_HUB_RATE_LIMIT_REQUESTS for the measurement",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; look at the token files: one agent's, one approver's",
        _ => "",
    }
}
