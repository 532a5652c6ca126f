//! Rules and streams, from outside.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod corpus;
mod fuzz;
mod rule_files;
mod streams;

use std::sync::{Arc, LazyLock};

use provara_redact::{Literal, Redactor, Rules, Stream};

/// As a server has them: the built-in rules, and a token that is known.
static REDACTOR: LazyLock<Arc<Redactor>> = LazyLock::new(|| {
    let known = [Literal::new("agent-token", TOKEN), Literal::new("environment", "hunter2 & friends")];
    Arc::new(Redactor::new(Arc::new(Rules::builtin().unwrap()), &known).unwrap())
});

/// No rule would know it.
const TOKEN: &str = "An-Agents_token.that/is~known+to=us";

/// What comes out of a stream that gets `pieces` one by one, and how many secrets it replaced.
fn streamed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u64) {
    let (mut stream, mut out) = (Stream::new(Arc::clone(&REDACTOR)), Vec::new());
    pieces.into_iter().for_each(|piece| stream.push(piece, &mut out));
    let redactions = stream.finish(&mut out);
    (out, redactions)
}

fn whole(text: &[u8]) -> (Vec<u8>, u64) {
    streamed([text])
}

fn shown(text: &str) -> String {
    REDACTOR.redact_text(text).text
}
