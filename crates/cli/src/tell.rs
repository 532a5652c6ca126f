//! The server's own log: for people on a terminal, JSON otherwise. No command's text and no token is ever written to it.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogLevel;

/// Starts the log. Later calls change nothing.
pub(crate) fn start(level: LogLevel) {
    let filter = EnvFilter::new(match level {
        LogLevel::Error => "error",
        LogLevel::Warning => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a log was started before, which only tests do.
    let _ = if std::io::stderr().is_terminal() {
        let colour = std::env::var_os("NO_COLOR").is_none();
        tracing::subscriber::set_global_default(builder.with_ansi(colour).finish())
    } else {
        // A request has one span, so the list of them would say everything twice.
        tracing::subscriber::set_global_default(builder.json().with_span_list(false).finish())
    };
}
