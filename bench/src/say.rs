//! Results go to stdout, one line each; everything that is said goes to stderr.

use std::io::{self, Write as _};

use crate::row::Row;

/// Says what is being done.
pub(crate) fn progress(text: &str) {
    told(&format!("  … {text}"));
}

#[expect(clippy::print_stderr, reason = "a program of the command line talks to whoever runs it")]
pub(crate) fn told(text: &str) {
    eprintln!("{text}");
}

/// Writes a result at once: whoever interrupts us keeps what was measured.
pub(crate) fn result(row: &Row) -> io::Result<()> {
    told(&row.told());
    let line = serde_json::to_string(row)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Writes a document to stdout.
pub(crate) fn document(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}
