//! How a command of ours ends when it does not end well.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::client::ClientError;
use crate::config::ConfigError;

/// Why there is no result. The exit codes are documented in `--help`.
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
    Denied(String),
    #[error("{0}")]
    Pending(String),
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_) | Self::Usage(_) => 2,
            Self::Denied(_) | Self::Client(ClientError::Refused { status: 401 | 403, .. }) => 3,
            Self::Pending(_) => 4,
            Self::Client(ClientError::Unreachable { .. }) => 5,
            Self::Client(_) | Self::Io(_) | Self::Other(_) => 1,
        })
    }
}

/// Tells the person why, with every cause. A closed stderr is nobody listening.
pub(crate) fn complain(failure: &Failure) {
    let mut text = format!("provara: {failure}");
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let _ = writeln!(io::stderr(), "{}", crate::display::visible(&text));
}
