//! What goes out of a command, and files of rules about secrets.

use std::sync::{Arc, LazyLock};

use provara_redact::{Literal, Redactor, Rules, Stream, WINDOW};

/// Known to every stream here, and to no rule.
const KNOWN: &str = "An-Agents_token.that/is~known+to=us";

static REDACTOR: LazyLock<Arc<Redactor>> = LazyLock::new(|| {
    let rules = Rules::builtin().expect("the built-in rules load");
    Arc::new(Redactor::new(Arc::new(rules), &[Literal::new("known", KNOWN)]).expect("they fit"))
});

/// Parts of output: secrets, beginnings of secrets, and what joins or separates them.
pub const OUTPUT: &[&str] = &[
    KNOWN,
    "An-Agents_",
    "QW4tQWdlbnRzX3Rva2VuLnRoYXQvaXN+a25vd24rdG89dXM=",
    "AKIAQ7ZR2MK4XW4VT3BN",
    "AKIA",
    "ghp_Q7zR2mK9xW4vT8bN5cJ1Q7zR2mK9xW4vT8bN",
    "ghp_",
    "eyJhbGciOiJIUzI1NiJ9",
    ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----END RSA PRIVATE KEY-----",
    "\nMIIEowIBAAKCAQEAq7zR2mK9xW4vT8bN5cJ1q7zR2mK9xW4vT8bN5cJ1aaaaaaaa\n",
    "password = \"",
    "password: hunter2hunter2\n",
    "://user:hunter2@example.org/",
    "Authorization: Basic dXNlcjpodW50ZXIy",
    "token=",
    "\"",
    "\n",
    "\r\n",
    " ",
    "\\n",
    "=",
    "@",
    "[redacted:known]",
];

/// Parts of files of rules.
pub const RULES: &[&str] = &[
    "[[rules]]\n",
    "id = \"a\"\n",
    "regex = 'abc[0-9]{3}'\n",
    "regex = '(a*)*b'\n",
    "regex = '[a-z]{1,1000}{1,100}'\n",
    "regex = '\\b(abc)?()'\n",
    "keywords = [\"abc\"]\n",
    "secretGroup = 1\n",
    "secretGroup = -1\n",
    "entropy = 3.5\n",
    "entropy = nan\n",
    "[rules.allowlist]\nregexes = ['.']\n",
    "[[rules.allowlists]]\ncondition = \"AND\"\nstopwords = [\"x\"]\n",
    "[allowlist]\nregexes = ['^$']\n",
    "[rules.examples]\nmatch = [\"abc123\"]\nno_match = [\"x\"]\n",
    "\n",
    "'''",
    "\u{0}",
];

/// Cut in two ways, by what the first bytes say, a text comes out the same; the known secret never does, and what is held
/// back is bounded.
pub fn stream(bytes: &[u8]) {
    let size = usize::from(bytes.first().copied().unwrap_or(1) % 61) + 1;
    let whole = cut(bytes, bytes.len().max(1));
    assert_eq!(cut(bytes, size), whole, "in pieces of {size}");
    assert!(!whole.windows(KNOWN.len()).any(|part| part == KNOWN.as_bytes()));
    let text = String::from_utf8_lossy(bytes);
    for finding in REDACTOR.find(&text) {
        assert!(text.get(finding.range).is_some_and(|secret| !secret.is_empty()));
    }
}

fn cut(bytes: &[u8], size: usize) -> Vec<u8> {
    let (mut stream, mut out) = (Stream::new(Arc::clone(&REDACTOR)), Vec::new());
    for piece in bytes.chunks(size) {
        stream.push(piece, &mut out);
        assert!(stream.kept() <= 2 * (WINDOW + size) + 256, "{} bytes are kept", stream.kept());
    }
    stream.finish(&mut out);
    out
}

/// A file of rules is loaded and then works, or is refused with words.
pub fn rule_file(bytes: &[u8]) {
    match Rules::parse(&String::from_utf8_lossy(bytes)) {
        Ok(rules) => {
            let redactor = Redactor::new(Arc::new(rules), &[]).expect("a few rules fit");
            redactor.redact_text("abc123 abc abc0123 xabc");
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            assert!(errors.0.iter().all(|error| !error.what.is_empty() && !error.mend.is_empty()));
        }
    }
}
