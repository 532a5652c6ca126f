//! The server's own log: for people on a terminal, JSON otherwise. No command's text and no token is ever written to it.

use std::io::{self, IsTerminal as _, Write as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry};

use crate::config::LogLevel;
#[cfg(feature = "otel")]
use crate::otel;

/// The log at work.
#[must_use = "what waits to be sent is sent by ending it"]
pub(crate) struct Telling {
    #[cfg(feature = "otel")]
    spans: Option<otel::Exporting>,
}

impl Telling {
    /// Sends what waits to be sent, in bounded time.
    pub(crate) fn end(self) {
        #[cfg(feature = "otel")]
        drop(self.spans);
    }
}

/// Starts the log. Later calls change nothing.
pub(crate) fn start(level: LogLevel) -> Telling {
    let filter = EnvFilter::new(match level {
        LogLevel::Error => "error",
        LogLevel::Warning => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    });
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.with_ansi(std::env::var_os("NO_COLOR").is_none()).boxed()
    } else {
        // A request has one span, so the list of them would say everything twice.
        lines.json().with_span_list(false).boxed()
    };
    let subscriber = registry().with(lines.with_filter(filter));
    #[cfg(feature = "otel")]
    let (subscriber, spans, complaint) = match otel::start() {
        Ok(Some((spans, exporting))) => (subscriber.with(Some(spans)), Some(exporting), None),
        Ok(None) => (subscriber.with(None), None, None),
        Err(complaint) => (subscriber.with(None), None, Some(complaint)),
    };
    // An error means that a log was started before, which only tests do.
    let _ = tracing::subscriber::set_global_default(subscriber);
    #[cfg(feature = "otel")]
    if let Some(complaint) = complaint {
        tracing::warn!(complaint);
    }
    Telling {
        #[cfg(feature = "otel")]
        spans,
    }
}

/// Tells whoever started the server something: in plain lines on a terminal, as an entry of the log otherwise, so that a log
/// of JSON is nothing else.
pub(crate) fn say(line: &str) {
    if io::stderr().is_terminal() {
        let _ = writeln!(io::stderr(), "{line}");
    } else {
        tracing::info!("{line}");
    }
}

/// As [`say`], for what should not stay so.
pub(crate) fn warn(line: &str) {
    if io::stderr().is_terminal() {
        let _ = writeln!(io::stderr(), "warning: {line}");
    } else {
        tracing::warn!("{line}");
    }
}
