//! What a text runs, as far as a small and sure reader can tell.

mod bash;
mod pwsh;

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
        Shell::Pwsh => pwsh::read_into(text, 0, 0, &mut reading),
    }
    reading.commands.sort_by_key(|command| (command.span.start, command.span.end));
    reading.opaque.sort_by_key(|(span, _)| (span.start, span.end));
    reading.opaque.dedup();
    reading
}

/// Begins to read `text`, which stands at `base` in the whole; none where that is nested too deeply.
fn begin<'a, 'r>(
    text: &'a str,
    base: usize,
    depth: u32,
    reading: &'r mut Reading,
) -> Option<(Cursor<'a>, Builder<'r>)> {
    if depth > MAX_DEPTH {
        reading.too_deep = true;
        return None;
    }
    Some((Cursor { text, at: 0, base }, Builder::new(reading)))
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

/// The characters of a text with their places.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// Where `text` begins in the whole.
    base: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    /// Its place in the whole text.
    fn here(&self) -> usize {
        self.base + self.at
    }

    fn line_end(&mut self) {
        let rest = self.rest();
        self.at += rest.find('\n').unwrap_or(rest.len());
    }

    /// Takes up to the parenthesis that closes one already taken; quotes inside are skipped. Answers the inside.
    fn until_parenthesis(&mut self) -> &'a str {
        let start = self.at;
        let mut depth = 1_u32;
        let mut quote = None;
        while let Some(c) = self.peek() {
            match (quote, c) {
                (Some(open), c) if open == c => quote = None,
                (Some('"') | None, '\\') => {
                    self.bump();
                }
                (None, '\'' | '"') => quote = Some(c),
                (None, '(') => depth += 1,
                (None, ')') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let inside = self.text.get(start..self.at).unwrap_or("");
                self.bump();
                return inside;
            }
            self.bump();
        }
        self.text.get(start..).unwrap_or("")
    }
}

/// Gathers the words of one command after the other.
struct Builder<'r> {
    reading: &'r mut Reading,
    current: Command,
    begun: bool,
    pipeline: usize,
}

impl<'r> Builder<'r> {
    fn new(reading: &'r mut Reading) -> Self {
        // Numbers of pipelines only need to differ; every pipeline that is read in between takes at least one more.
        let pipeline = reading.commands.len() + usize::try_from(reading.steps).unwrap_or(0) + 1;
        Self { reading, current: Command::default(), begun: false, pipeline }
    }

    fn opaque(&mut self, start: usize, end: usize, why: &'static str) {
        self.reading.opaque.push((Span { start, end }, why));
    }

    fn begin(&mut self, start: usize, end: usize) {
        if !self.begun {
            self.begun = true;
            self.current.span.start = start;
        }
        self.current.span.end = end;
    }

    fn end(&mut self, piped: bool) {
        if self.begun {
            let mut command = std::mem::take(&mut self.current);
            command.pipeline = self.pipeline;
            self.reading.commands.push(command);
            self.begun = false;
        }
        if !piped {
            self.pipeline = self.pipeline.wrapping_add(1);
        }
    }
}
