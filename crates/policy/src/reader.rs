//! What a text runs, as far as a small and sure reader can tell.

mod bash;
mod cmd;
pub(crate) mod pwsh;

use provara_domain::{Shell, Span};

/// What a text runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The simple commands, in the order of the text. Best effort inside opaque text: good enough to deny by, and never
    /// enough to allow by, since then `opaque` is not empty.
    pub commands: Vec<Command>,
    /// What could not be read, and why, in plain words.
    pub opaque: Vec<(Span, &'static str)>,
    /// Whether the text nests deeper than is read. Such a text MUST be denied: anything may hide below.
    pub too_deep: bool,
    /// How many characters were looked at, nested text counted again at each level.
    pub steps: u64,
    /// Texts that the text makes and runs, with what stands for them.
    pub texts: Vec<(Span, String)>,
}

/// One simple command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// The program's word, quotes and escapes resolved; empty when there are only assignments or redirections.
    pub program: String,
    /// The words after it.
    pub args: Vec<Word>,
    /// Where it reads from and writes to.
    pub redirections: Vec<Redirection>,
    /// `NAME=value` words before the program.
    pub assignments: Vec<String>,
    /// The whole command in the text.
    pub span: Span0,
    /// Commands with the same number are joined by pipes, left to right.
    pub pipeline: usize,
    /// What is piped to it, where that binds to its parameters as arguments do.
    pub input: Vec<Word>,
}

/// How sure it is that a word is what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Certainty {
    /// It is exactly that.
    #[default]
    Sure,
    /// It is that, or something else that stands elsewhere in the text.
    Perhaps,
    /// Some of it is a variable that the text does not set. Nobody but the server's own environment does then.
    Unset,
    /// Some of it is filled in when it runs.
    Unknown,
}

/// One word after the program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// The word, quotes and escapes resolved; expansions stand as they are written.
    pub text: String,
    /// Whether the shell would match it against names of files.
    pub glob: bool,
    /// Whether it is known now.
    pub certainty: Certainty,
    /// The bytes that spell it.
    pub span: Span0,
    /// Where it is a list, each of its items.
    pub items: Vec<Word>,
}

/// One redirection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirection {
    /// The operator, `>`, `>>`, `2>&` and so on.
    pub operator: String,
    /// The word after it.
    pub target: String,
    /// Whether the target is known now.
    pub certainty: Certainty,
}

/// A span that is filled in while reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span0 {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl From<Span0> for Span {
    fn from(span: Span0) -> Self {
        Self { start: span.start, end: span.end }
    }
}

/// Texts that take more than this are not read to their end by the judge; they are denied.
pub const MAX_STEPS: u64 = 400_000;

/// How deep substitutions are followed.
pub const MAX_DEPTH: u32 = 6;

/// Returns what `text` runs in `shell`. Never panics; work is linear in the text for each level of nesting, and the
/// levels are bounded by [`MAX_DEPTH`]. Every span lies on character borders of `text`.
pub fn read(text: &str, shell: Shell) -> Reading {
    let mut reading = Reading { opaque: hidden(text), ..Reading::default() };
    reading.steps += u64::try_from(text.len()).unwrap_or(u64::MAX);
    match shell {
        Shell::Bash | Shell::Sh => bash::read_into(text, shell, &mut reading),
        Shell::Pwsh => pwsh::read_into(text, &mut reading),
    }
    reading.commands.sort_by_key(|command| (command.span.start, command.span.end));
    // What runs more than once may have been read more than once.
    reading.commands.dedup_by(|a, b| {
        a.span == b.span && a.program == b.program && a.args == b.args && a.redirections == b.redirections
    });
    reading.opaque.sort_by_key(|(span, _)| (span.start, span.end));
    reading.opaque.dedup();
    reading
}

/// Returns where `text` has something that a person does not see as it runs.
pub(crate) fn hidden(text: &str) -> Vec<(Span, &'static str)> {
    let why = "has a control or invisible character, so what you see may not be what runs";
    let hidden = text.char_indices().filter(|(_, c)| is_hidden(*c));
    // A flood of them says no more than the first.
    hidden.take(64).map(|(at, c)| (Span { start: at, end: at + c.len_utf8() }, why)).collect()
}

/// Returns whether `c` has no visible form of its own or changes how its neighbours look.
pub fn is_hidden(c: char) -> bool {
    let code = u32::from(c);
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(code,
            0xAD | 0x34F | 0x61C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
            | 0x2028..=0x202F | 0x205F..=0x206F | 0x3164 | 0xA0 | 0x1680 | 0x2000..=0x200A | 0x3000
            | 0x2800 | 0xE000..=0xF8FF | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFC | 0x1D173..=0x1D17A
            | 0xE0000..=0x10_FFFF)
}
