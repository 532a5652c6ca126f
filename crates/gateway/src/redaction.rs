//! Secrets in what commands write: replaced in the stream, before anything keeps or sends it.

use std::sync::Arc;

use bytes::Bytes;
use provara_domain::{Outcome, PathName, Plan, Stream, Written, WrittenPath};
use provara_redact::{Finding, Literal, Redactor, TooMany};
use provara_store::PlanRecord;

use crate::gateway::{Gateway, Inner};

/// Whether secrets in what commands write are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputRedaction {
    /// Replaced by marks and counted.
    On,
    /// Kept as they are, because the operator says so.
    Off,
}

impl Gateway {
    /// Returns the secrets in a plan's command, to be marked for those who see it whole.
    pub fn secrets(&self, record: &PlanRecord) -> Vec<Finding> {
        self.inner.redactor.find(record.plan.command.as_str())
    }
}

/// Returns what finds secrets in what a run of `plan` writes; nothing where all of it is kept. What its environment calls
/// secret is one too, whatever it looks like.
pub(crate) fn of_a_run(inner: &Inner, plan: &Plan) -> Result<Option<Arc<Redactor>>, TooMany> {
    if inner.config.output == OutputRedaction::Off {
        return Ok(None);
    }
    let own: Vec<Literal> =
        plan.env.iter().filter_map(|(name, value)| Literal::of_variable(name.as_str(), value)).collect();
    Ok(Some(if own.is_empty() { Arc::clone(&inner.redactor) } else { Arc::new(inner.redactor.and(&own)?) }))
}

/// Redacts the names of what a run wrote, as what it prints: a name is as good a way out. Returns how many secrets it replaced.
pub(crate) fn names(redactor: &Redactor, written: &mut Written) -> u64 {
    let mut replaced = 0;
    for WrittenPath { path, .. } in &mut written.paths {
        let text = match &*path {
            PathName::Text(text) => text.into(),
            PathName::Bytes(bytes) => String::from_utf8_lossy(bytes),
        };
        let redacted = redactor.redact_text(&text);
        if !redacted.found.is_empty() {
            replaced += u64::try_from(redacted.found.len()).unwrap_or(u64::MAX);
            *path = PathName::Text(redacted.text);
        }
    }
    replaced
}

/// Redacts both streams of one run.
pub(crate) struct OutputGate(Option<[provara_redact::Stream; 2]>);

impl OutputGate {
    /// Returns the gate for a run whose secrets `redactor` finds.
    pub(crate) fn new(redactor: Option<&Arc<Redactor>>) -> Self {
        let stream = |redactor| provara_redact::Stream::new(Arc::clone(redactor));
        Self(redactor.map(|redactor| [stream(redactor), stream(redactor)]))
    }

    /// Returns what of a stream may be kept, now that `bytes` came.
    pub(crate) fn pass(&mut self, stream: Stream, bytes: Bytes) -> Bytes {
        let Some([stdout, stderr]) = &mut self.0 else { return bytes };
        let mut out = Vec::with_capacity(bytes.len());
        match stream {
            Stream::Stdout => stdout.push(&bytes, &mut out),
            Stream::Stderr => stderr.push(&bytes, &mut out),
        }
        out.into()
    }

    /// Returns what was still held back of each stream, and how many secrets were replaced in all.
    pub(crate) fn end(self) -> ([(Stream, Bytes); 2], u64) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let [stdout, stderr] =
            self.0.map_or([0, 0], |[stdout, stderr]| [stdout.finish(&mut out), stderr.finish(&mut err)]);
        ([(Stream::Stdout, out.into()), (Stream::Stderr, err.into())], stdout.saturating_add(stderr))
    }
}

/// An outcome as it may be recorded. Why something could not be started names paths and what the system said.
pub(crate) fn told(redactor: &Redactor, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::SpawnFailed { failure, message } => {
            Outcome::SpawnFailed { failure, message: redactor.redact_text(&message).text }
        }
        other @ (Outcome::Exited { .. }
        | Outcome::Signalled { .. }
        | Outcome::TimedOut
        | Outcome::Cancelled
        | Outcome::LimitExceeded { .. }) => other,
    }
}

#[cfg(test)]
mod tests {
    use provara_domain::{SpawnFailure, WrittenHow};
    use provara_redact::Rules;

    use super::*;

    #[test]
    fn why_a_run_did_not_start_tells_no_secret() {
        let known = [Literal::new("agent-token", "an-agents-token-of-a-test")];
        let redactor = Redactor::new(Arc::new(Rules::builtin().unwrap()), &known).unwrap();
        let failed =
            |message: &str| Outcome::SpawnFailed { failure: SpawnFailure::Missing, message: message.to_owned() };
        let outcome = told(&redactor, failed("`/srv/an-agents-token-of-a-test` is not there"));
        assert_eq!(outcome, failed("`/srv/[redacted:agent-token]` is not there"));
        assert_eq!(told(&redactor, Outcome::TimedOut), Outcome::TimedOut);
    }

    #[test]
    fn a_file_name_tells_no_secret() {
        let known = [Literal::new("agent-token", "an-agents-token-of-a-test")];
        let redactor = Redactor::new(Arc::new(Rules::builtin().unwrap()), &known).unwrap();
        let path = |path: &[u8]| WrittenPath { path: path.to_vec().into(), change: WrittenHow::Created };
        let all = [b"a/an-agents-token-of-a-test".as_slice(), b"\xffan-agents-token-of-a-test", b"b\xff", b"c"];
        let mut written = Written { count: 4, paths: all.map(path).into(), unseen: Vec::new() };
        assert_eq!(names(&redactor, &mut written), 2);
        let told =
            [b"a/[redacted:agent-token]".as_slice(), "\u{fffd}[redacted:agent-token]".as_bytes(), b"b\xff", b"c"];
        assert_eq!(written.paths, told.map(path));
    }
}
