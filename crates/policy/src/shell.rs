//! bash and POSIX sh: what a text is made of, and what its words become.

mod parse;
pub(crate) mod simulate;
pub(crate) mod values;
mod words;

use std::cell::OnceCell;
use std::rc::Rc;

use provara_domain::{Shell, Span};

pub(crate) use self::parse::parse;

/// How deep commands within commands are followed.
pub(crate) const MAX_DEPTH: u32 = 20;

/// A text, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) nodes: Vec<Node>,
    /// What could not be read, and why.
    pub(crate) opaque: Vec<(Span, &'static str)>,
    /// Whether it nests deeper than is read.
    pub(crate) too_deep: bool,
    pub(crate) steps: u64,
}

/// A command, or commands that belong together.
#[derive(Debug)]
pub(crate) enum Node {
    Simple(Simple),
    /// Joined by pipes, left to right; two at least.
    Pipe(Vec<Node>),
    /// Runs perhaps: what stands after `&&` or `||`.
    Perhaps(Box<Node>),
    Group(Group),
    /// A name for commands.
    Function {
        name: String,
        body: Rc<Vec<Node>>,
    },
}

/// Commands within one: `{ … }`, `( … )`, `if`, `while`, `for`, `case`, `[[ … ]]`.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) kind: Kind,
    pub(crate) body: Vec<Node>,
    /// Words that are filled in before: the list of a `for`, the word and the patterns of a `case`, the inside of `[[ … ]]`.
    pub(crate) words: Vec<Text>,
    pub(crate) redirections: Vec<Redirect>,
    pub(crate) span: Span0,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Braces,
    Subshell,
    /// Its body runs perhaps, or many times.
    Conditional,
    /// So does that of `for NAME in …`.
    For(String),
    /// Only its words matter.
    Test,
}

pub(crate) use crate::reader::Span0;

/// A simple command.
#[derive(Debug, Default)]
pub(crate) struct Simple {
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) words: Vec<Text>,
    pub(crate) redirections: Vec<Redirect>,
    pub(crate) span: Span0,
}

/// `NAME=value`, `NAME+=value`, `NAME=(values)`.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    pub(crate) adds: bool,
    pub(crate) values: Vec<Text>,
}

/// One redirection.
#[derive(Debug, Clone)]
pub(crate) struct Redirect {
    /// With the descriptor's number before it.
    pub(crate) operator: String,
    pub(crate) target: Text,
    /// What a here-document holds.
    pub(crate) body: Option<Rc<OnceCell<Text>>>,
}

/// A word as it is written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Text {
    pub(crate) parts: Vec<Part>,
    pub(crate) span: Span0,
}

/// A piece of a word.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// Characters that stand for themselves, but for patterns where they are not quoted.
    Plain { text: String, quoted: bool },
    /// `$name`, `${name…}`.
    Variable { name: String, change: Change, quoted: bool, written: String },
    /// `$( … )` and backticks.
    Output { body: Rc<Vec<Node>>, quoted: bool, written: String },
    /// `<( … )`, `>( … )`.
    Process { body: Rc<Vec<Node>>, written: String },
    /// `$(( … ))`: what stands in it is filled in too.
    Number { inside: Vec<Part>, written: String },
    /// `{a,b}`.
    Braces(Vec<Vec<Part>>),
}

/// What `${name…}` makes of the value.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Nothing,
    Length,
    /// `${!name}`
    Indirect,
    /// `:-`, `-`, `:=`, `=`
    Default {
        word: Vec<Part>,
        assigns: bool,
    },
    /// `:+`, `+`
    Instead(Vec<Part>),
    /// `#`, `##`
    CutFront {
        pattern: Vec<Part>,
        longest: bool,
    },
    /// `%`, `%%`
    CutBack {
        pattern: Vec<Part>,
        longest: bool,
    },
    /// `/`, `//`
    Replace {
        pattern: Vec<Part>,
        by: Vec<Part>,
        all: bool,
    },
    /// `:offset:length`
    Slice(Vec<Part>),
    Upper {
        all: bool,
    },
    Lower {
        all: bool,
    },
    /// Something else.
    Other(Vec<Part>),
}

impl Text {
    /// Returns the word where nothing in it is filled in later.
    pub(crate) fn literal(&self) -> Option<String> {
        let mut whole = String::new();
        for part in &self.parts {
            let Part::Plain { text, .. } = part else { return None };
            whole.push_str(text);
        }
        Some(whole)
    }

    /// Returns the word as well as it can be told without values: expansions as they are written.
    pub(crate) fn written(&self) -> String {
        fn add(parts: &[Part], whole: &mut String) {
            for part in parts {
                match part {
                    Part::Plain { text, .. } => whole.push_str(text),
                    Part::Variable { written, .. }
                    | Part::Output { written, .. }
                    | Part::Process { written, .. }
                    | Part::Number { written, .. } => whole.push_str(written),
                    Part::Braces(choices) => choices.iter().for_each(|choice| add(choice, whole)),
                }
            }
        }
        let mut whole = String::new();
        add(&self.parts, &mut whole);
        whole
    }

    /// Whether any of it is quoted.
    pub(crate) fn is_quoted(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Plain { quoted: true, .. }))
    }
}

/// Whether something means one thing in bash and another in other shells.
pub(crate) const fn is_bash(shell: Shell) -> bool {
    matches!(shell, Shell::Bash)
}

/// Whether a variable of the shell can be called so.
pub(crate) fn is_variable_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
