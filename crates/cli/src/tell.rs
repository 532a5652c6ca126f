//! The server's own log: for people on a terminal, JSON otherwise. No command's text and no token is ever written to it; should
//! an error of somebody else's quote one, every line goes through redaction.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, PoisonError, RwLock};

use provara_redact::Redactor;
use serde_json::Value;
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

/// What every line of the log goes through.
static REDACTOR: RwLock<Option<Arc<Redactor>>> = RwLock::new(None);

/// Lets every line go through `redactor` from now on.
pub(crate) fn redact_by(redactor: Arc<Redactor>) {
    *REDACTOR.write().unwrap_or_else(PoisonError::into_inner) = Some(redactor);
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// Writes lines of the log, less their secrets. A line comes in one piece.
struct Redacting<W> {
    form: Form,
    to: W,
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let redactor = REDACTOR.read().unwrap_or_else(PoisonError::into_inner).clone();
        match redactor {
            Some(redactor) => self.to.write_all(&redacted(&redactor, self.form, line))?,
            None => self.to.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn redacted(redactor: &Redactor, form: Form, line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let redacted = redactor.redact_text(&text);
    if redacted.found.is_empty() {
        return line.to_vec();
    }
    // A mark in the place of a quotation mark would leave a line that no reader of JSON takes.
    if form == Form::Json && serde_json::from_str::<Value>(&redacted.text).is_err() {
        return b"{\"level\":\"WARN\",\"fields\":{\"message\":\"[redacted: this line held a secret]\"}}\n".to_vec();
    }
    redacted.text.into_bytes()
}

/// Starts the log. Later calls change nothing.
pub(crate) fn start(level: LogLevel, redactor: Arc<Redactor>) -> Telling {
    redact_by(redactor);
    let form = if io::stderr().is_terminal() { Form::Text } else { Form::Json };
    let filter = EnvFilter::new(match level {
        LogLevel::Error => "error",
        LogLevel::Warning => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    });
    let lines = fmt::layer().with_writer(move || Redacting { form, to: io::stderr() });
    let lines = if form == Form::Text {
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

#[cfg(test)]
mod tests {
    use provara_redact::{Literal, Rules};

    use super::*;

    #[test]
    fn a_line_of_the_log_tells_no_secret_and_stays_json() {
        let known = [Literal::new("agent-token", "pv_agent_\"quoted\""), Literal::new("odd", "\",\"message")];
        let redactor = Redactor::new(Arc::new(Rules::builtin().unwrap()), &known).unwrap();
        let line = |message: &str| serde_json::json!({ "level": "ERROR", "message": message }).to_string() + "\n";
        let told = |message: &str| {
            let told = redacted(&redactor, Form::Json, line(message).as_bytes());
            let told = String::from_utf8(told).unwrap();
            assert!(told.ends_with('\n') && serde_json::from_str::<Value>(&told).is_ok(), "{told}");
            told
        };
        assert_eq!(
            told("nothing of it"),
            "{\"level\":\"WARN\",\"fields\":{\"message\":\"[redacted: this line held a secret]\"}}\n"
        );
        let redactor = Redactor::new(Arc::new(Rules::builtin().unwrap()), &known[..1]).unwrap();
        let told =
            |message: &str| String::from_utf8(redacted(&redactor, Form::Json, line(message).as_bytes())).unwrap();
        assert_eq!(told("nothing of it"), line("nothing of it"));
        assert_eq!(told("it was pv_agent_\"quoted\"!"), line("it was [redacted:agent-token]!"));
        assert_eq!(told("postgres://me:hunter2@db"), line("postgres://me:[redacted:url-password]@db"));
        assert_eq!(told("{\"password\": \"hunter2!\"}"), line("{\"password\": \"[redacted:quoted-password]\"}"));
    }
}
