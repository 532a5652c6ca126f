//! What is looked for, put together, and the ways to look for it.

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::literal::{FOLDED, HEAD, Literal};
use crate::rule::Rules;
use crate::scan::{Follows, Piece, Scan};

/// Finds secrets: those that rules describe and those that are known.
pub struct Redactor {
    pub(crate) rules: Arc<Rules>,
    pub(crate) forms: Vec<Form>,
    /// Without regard to case; what it finds is looked at again.
    pub(crate) keywords: AhoCorasick,
    /// What each keyword begins.
    pub(crate) entries: Vec<Vec<Entry>>,
    /// The keywords that are part of a secret, sorted: even their first byte has to wait.
    secret_heads: Vec<Vec<u8>>,
    /// The longest keyword.
    pub(crate) longest: usize,
    known: Vec<Literal>,
}

/// One way in which a known secret is printed.
pub(crate) struct Form {
    name: String,
    pub(crate) bytes: Vec<u8>,
}

/// What a keyword begins, and how long the keyword is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) machine: Machine,
    pub(crate) length: usize,
}

/// What decides whether there is a secret.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Machine {
    /// The rule of that index.
    Rule(usize),
    /// The known form of that index, from one of its bytes on.
    Form { form: usize, from: usize },
}

/// A secret that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's id, or the known secret's name.
    pub rule: String,
    /// Where it stood, in bytes; in text on the borders of characters. Findings never overlap.
    pub range: Range<usize>,
}

/// A text without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    /// The text, each secret replaced by `[redacted:RULE]`.
    pub text: String,
    /// The secrets, by where they stood in the original.
    pub found: Vec<Finding>,
}

/// There are more secrets to look for than an automaton can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMany;

impl std::fmt::Display for TooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there are too many secrets to look for; name fewer rules")
    }
}

impl std::error::Error for TooMany {}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} rules, {} known forms)", self.rules.rules.len(), self.forms.len())
    }
}

impl Redactor {
    /// Returns what finds the secrets that `rules` describe, and `literals` wherever they stand.
    ///
    /// # Errors
    /// When there are too many.
    pub fn new(rules: Arc<Rules>, literals: &[Literal]) -> Result<Self, TooMany> {
        let mut heads = Heads::default();
        let mut forms: Vec<Form> = Vec::new();
        for (index, rule) in rules.rules.iter().enumerate() {
            for keyword in &rule.keywords {
                heads.add(keyword.as_bytes(), Machine::Rule(index));
            }
        }
        let mut secret_heads: Vec<Vec<u8>> = Vec::new();
        for rule in rules.rules.iter().filter(|rule| rule.groups.is_none()) {
            secret_heads.extend(rule.keywords.iter().map(|keyword| keyword.as_bytes().to_vec()));
        }
        for literal in literals {
            for bytes in literal.forms() {
                let (form, name) = (forms.len(), literal.name().to_owned());
                // The second head finds a form whose first one the printing program broke.
                let starts = if bytes.len() >= FOLDED + HEAD { &[0, HEAD][..] } else { &[0] };
                for from in starts {
                    let head = bytes.get(*from..bytes.len().min(from + HEAD)).unwrap_or_default();
                    heads.add(head, Machine::Form { form, from: *from });
                    secret_heads.push(head.to_ascii_lowercase());
                }
                forms.push(Form { name, bytes });
            }
        }
        secret_heads.sort_unstable();
        secret_heads.dedup();
        let longest = heads.words.iter().map(Vec::len).max().unwrap_or(0);
        let keywords = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&heads.words)
            .map_err(|_| TooMany)?;
        Ok(Self { rules, forms, keywords, entries: heads.entries, secret_heads, longest, known: literals.to_vec() })
    }

    /// Returns what finds these secrets and `literals` too.
    ///
    /// # Errors
    /// When there are too many.
    pub fn and(&self, literals: &[Literal]) -> Result<Self, TooMany> {
        Self::new(Arc::clone(&self.rules), &[self.known.as_slice(), literals].concat())
    }

    /// Returns the secrets in `text`, in order.
    pub fn find(&self, text: &str) -> Vec<Finding> {
        let mut found: Vec<Finding> = Vec::new();
        Scan::default().feed(self, text.as_bytes(), Follows::Nothing, &mut |piece| match piece {
            Piece::Secret(rule, range) => found.push(Finding { rule: rule.to_owned(), range }),
            Piece::Longer(end) => {
                if let Some(last) = found.last_mut() {
                    last.range.end = end;
                }
            }
            Piece::Plain(_) => {}
        });
        // Two secrets may share a character that neither of them ends in.
        found.dedup_by(|later, earlier| {
            let shared = text.floor_char_boundary(later.range.start) < text.ceil_char_boundary(earlier.range.end);
            if shared {
                earlier.range.end = later.range.end;
            }
            shared
        });
        for Finding { range, .. } in &mut found {
            *range = text.floor_char_boundary(range.start)..text.ceil_char_boundary(range.end);
        }
        found
    }

    /// Returns `text` with a mark in the place of each secret.
    pub fn redact_text(&self, text: &str) -> Redacted {
        let found = self.find(text);
        let (mut redacted, mut at) = (String::with_capacity(text.len()), 0);
        for finding in &found {
            redacted.push_str(text.get(at..finding.range.start).unwrap_or_default());
            redacted.push_str(&mark(&finding.rule));
            at = finding.range.end;
        }
        redacted.push_str(text.get(at..).unwrap_or_default());
        Redacted { text: redacted, found }
    }

    /// Of two that found the same, the one whose name tells more comes first.
    pub(crate) fn rank(&self, machine: Machine) -> usize {
        match machine {
            Machine::Form { form, .. } => form,
            Machine::Rule(rule) => self.forms.len() + rule,
        }
    }

    pub(crate) fn name(&self, rank: usize) -> &str {
        let rule = || self.rules.rules.get(rank.checked_sub(self.forms.len())?).map(|rule| rule.id.as_str());
        self.forms.get(rank).map(|form| form.name.as_str()).or_else(rule).unwrap_or_default()
    }

    /// Where what a candidate may claim begins.
    pub(crate) fn held_from(&self, machine: Machine, at: usize, keyword_end: usize) -> usize {
        match machine {
            Machine::Rule(rule) if self.rules.rules.get(rule).is_some_and(|rule| rule.groups.is_some()) => keyword_end,
            Machine::Rule(_) | Machine::Form { .. } => at,
        }
    }

    /// How many of the last bytes may be the beginning of a keyword that is part of a secret.
    pub(crate) fn beginning_at_end(&self, text: &[u8]) -> usize {
        let text = text.to_ascii_lowercase();
        (0..text.len())
            .find(|from| {
                let end = text.get(*from..).unwrap_or_default();
                let at = self.secret_heads.partition_point(|head| head.as_slice() <= end);
                self.secret_heads.get(at).is_some_and(|head| head.starts_with(end))
            })
            .map_or(0, |from| text.len() - from)
    }
}

/// What stands in the place of a secret.
fn mark(rule: &str) -> String {
    format!("[redacted:{rule}]")
}

/// Keywords and what they begin.
#[derive(Default)]
struct Heads {
    words: Vec<Vec<u8>>,
    entries: Vec<Vec<Entry>>,
    known: std::collections::HashMap<Vec<u8>, usize>,
}

impl Heads {
    fn add(&mut self, word: &[u8], machine: Machine) {
        let word = word.to_ascii_lowercase();
        let entry = Entry { machine, length: word.len() };
        let next = self.words.len();
        let at = *self.known.entry(word.clone()).or_insert(next);
        if at == next {
            self.words.push(word);
            self.entries.push(Vec::new());
        }
        if let Some(entries) = self.entries.get_mut(at) {
            entries.push(entry);
        }
    }
}

/// Redacts bytes as they come.
///
/// What leaves is what came, in order, with marks in the place of secrets, and the same however it was cut. Held back is only
/// what may be the beginning of a secret: until the next bytes decide, until [`WINDOW`](crate::WINDOW) bytes of it are there,
/// or until the end.
#[derive(Debug)]
pub struct Stream {
    by: Arc<Redactor>,
    scan: Scan,
    redactions: u64,
}

impl Stream {
    /// Returns a stream that nothing came through yet.
    pub fn new(by: Arc<Redactor>) -> Self {
        Self { by, scan: Scan::default(), redactions: 0 }
    }

    /// Takes `bytes` and puts what is decided at the end of `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.feed(bytes, Follows::More, out);
    }

    /// Returns how many bytes are in memory: a few more than are held back, and never more than twice
    /// [`WINDOW`](crate::WINDOW) and what is a keyword's length.
    pub fn kept(&self) -> usize {
        self.scan.kept()
    }

    /// Puts what was held back at the end of `out`, and returns how many secrets were replaced in all.
    pub fn finish(mut self, out: &mut Vec<u8>) -> u64 {
        self.feed(&[], Follows::Nothing, out);
        self.redactions
    }

    fn feed(&mut self, bytes: &[u8], follows: Follows, out: &mut Vec<u8>) {
        let redactions = &mut self.redactions;
        self.scan.feed(&self.by, bytes, follows, &mut |piece| match piece {
            Piece::Plain(bytes) => out.extend_from_slice(bytes),
            Piece::Secret(rule, _) => {
                *redactions += 1;
                out.extend_from_slice(mark(rule).as_bytes());
            }
            Piece::Longer(_) => {}
        });
    }
}
