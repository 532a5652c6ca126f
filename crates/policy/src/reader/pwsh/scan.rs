//! Where the reading of a text stands, and what is known there.

use std::collections::HashMap;
use std::rc::Rc;

use super::lex::plain;
use super::value::{Block, Value};
use crate::reader::{Command, MAX_DEPTH, MAX_STEPS, Reading, Span0};

/// How many braces, brackets and parentheses within each other are read. Below it anything may hide.
const MAX_NESTING: u32 = 28;
/// How many functions within each other are followed with what they were given; their bodies are read in any case.
const MAX_CALLS: u32 = 4;
pub(super) const CHANGES_NAMES: &str = "changes what names mean from here on";

/// What is known of names at a place.
pub(super) struct World<'r> {
    pub(super) reading: &'r mut Reading,
    pub(super) variables: HashMap<String, Value>,
    pub(super) aliases: HashMap<String, String>,
    pub(super) functions: HashMap<String, Block>,
    /// Names of variables in the order in which they were given a value.
    pub(super) given: Vec<String>,
    /// How many conditions and loops stand around the place.
    pub(super) perhaps: u32,
    pub(super) nesting: u32,
    pub(super) calls: u32,
    pub(super) pipelines: usize,
    /// Where an expression stands that puts out its value.
    pub(super) shown: Option<Span0>,
}

/// The reading of one text: the whole, or one that is made and run by it.
pub(super) struct Run<'t, 'w, 'r> {
    pub(super) text: &'t str,
    pub(super) at: usize,
    /// Where `text` begins in the whole.
    pub(super) base: usize,
    /// What stands for all of it, where it is no slice of the whole.
    pub(super) fixed: Option<Span0>,
    pub(super) depth: u32,
    /// Whether a line's end is a blank, as it is within parentheses.
    pub(super) loose: bool,
    /// Whether a comma ends an expression, as it does among a method's arguments.
    pub(super) commas: Commas,
    /// What an `=` that follows would assign to.
    pub(super) targets: Vec<Target>,
    pub(super) world: &'w mut World<'r>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commas {
    Join,
    End,
}

/// Something that can be assigned to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) part: Part,
}

#[derive(Debug, Clone)]
pub(super) enum Part {
    Whole,
    /// An element, by its index.
    Element,
    /// A property of what the variable holds.
    Property(String),
}

impl<'t, 'w, 'r> Run<'t, 'w, 'r> {
    pub(super) const fn new(text: &'t str, base: usize, world: &'w mut World<'r>) -> Self {
        Self {
            text,
            at: 0,
            base,
            fixed: None,
            depth: 0,
            loose: false,
            commas: Commas::Join,
            targets: Vec::new(),
            world,
        }
    }

    pub(super) fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn peek_plain(&self) -> Option<char> {
        self.peek().map(plain)
    }

    pub(super) fn second(&self) -> Option<char> {
        self.rest().chars().nth(1).map(plain)
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        self.world.reading.steps += 1;
        if self.world.reading.steps > MAX_STEPS {
            self.world.reading.too_deep = true;
            self.at = self.text.len();
        }
        Some(c)
    }

    pub(super) fn eat(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    pub(super) fn eat_char(&mut self, c: char) -> bool {
        let found = self.peek_plain() == Some(c);
        if found {
            self.bump();
        }
        found
    }

    /// Takes characters while `is` holds.
    pub(super) fn take_while(&mut self, is: impl Fn(char) -> bool) -> &'t str {
        let start = self.at;
        while self.peek().is_some_and(&is) {
            self.bump();
        }
        self.text.get(start..self.at).unwrap_or("")
    }

    pub(super) fn since(&self, start: usize) -> &'t str {
        self.text.get(start..self.at).unwrap_or("")
    }

    pub(super) fn span(&self, start: usize) -> Span0 {
        let (start, end) = (start.min(self.at), self.at.max(start));
        self.fixed.unwrap_or(Span0 { start: self.base + start, end: self.base + end })
    }

    pub(super) fn opaque(&mut self, start: usize, why: &'static str) {
        let span = self.span(start);
        self.world.reading.opaque.push((span.into(), why));
    }

    /// Takes blanks, comments and continued lines; line ends too where they are blanks.
    pub(super) fn blanks(&mut self) {
        while let Some(c) = self.peek_plain() {
            let rest = self.rest();
            match c {
                ' ' | '\r' => {
                    self.bump();
                }
                '\n' if self.loose => {
                    self.bump();
                }
                '`' if rest.starts_with("`\n") || rest.starts_with("`\r\n") => {
                    self.bump();
                    self.bump();
                }
                '#' => {
                    self.take_while(|c| c != '\n');
                }
                '<' if rest.starts_with("<#") => self.comment(),
                _ => break,
            }
        }
    }

    /// Takes blanks and line ends.
    pub(super) fn lines(&mut self) {
        let before = std::mem::replace(&mut self.loose, true);
        self.blanks();
        self.loose = before;
    }

    fn comment(&mut self) {
        let start = self.at;
        match self.rest().find("#>") {
            Some(length) => {
                self.at += length + 2;
                self.world.reading.steps += u64::try_from(length).unwrap_or(0);
            }
            None => {
                self.at = self.text.len();
                self.opaque(start, "opens a comment that never closes");
            }
        }
    }

    /// Reads something within something; not where that is nested too deeply.
    pub(super) fn nested<T>(&mut self, otherwise: T, work: impl FnOnce(&mut Self) -> T) -> T {
        if self.world.nesting >= MAX_NESTING {
            self.world.reading.too_deep = true;
            self.at = self.text.len();
            return otherwise;
        }
        self.world.nesting += 1;
        let made = work(self);
        self.world.nesting -= 1;
        made
    }

    /// Reads within brackets of some kind, where line ends are blanks or not.
    pub(super) fn bracketed<T>(&mut self, loose: bool, otherwise: T, work: impl FnOnce(&mut Self) -> T) -> T {
        let (before, commas) = (self.loose, self.commas);
        (self.loose, self.commas) = (loose, Commas::Join);
        let targets = std::mem::take(&mut self.targets);
        let made = self.nested(otherwise, work);
        (self.loose, self.commas) = (before, commas);
        self.targets = targets;
        made
    }

    /// Takes a closing bracket, or says that it is missing.
    pub(super) fn close(&mut self, c: char, opened: usize) {
        let before = std::mem::replace(&mut self.loose, true);
        self.blanks();
        self.loose = before;
        if !self.eat_char(c) {
            self.opaque(opened, "opens a bracket that does not close as it should");
        }
    }

    /// Reads a text that the script makes and runs.
    pub(super) fn code(&mut self, text: &str, span: Span0) -> Value {
        if self.depth >= MAX_DEPTH {
            self.world.reading.too_deep = true;
            return Value::unknown("$(…)");
        }
        self.world.reading.steps += u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.world.reading.texts.push((span.into(), text.to_owned()));
        let mut inner = Run::new(text, 0, self.world);
        (inner.fixed, inner.depth) = (Some(span), self.depth + 1);
        inner.nested(Value::Null, Self::whole_of)
    }

    fn whole_of(run: &mut Run<'_, '_, '_>) -> Value {
        run.whole()
    }

    /// Reads a line of `cmd.exe` that the script runs.
    pub(super) fn command_line(&mut self, text: &str, span: Span0) {
        if self.depth >= MAX_DEPTH {
            self.world.reading.too_deep = true;
            return;
        }
        self.world.reading.texts.push((span.into(), text.to_owned()));
        let (depth, pipeline) = (self.depth + 1, self.world.pipelines + 1);
        self.world.pipelines = crate::reader::cmd::read_into(text, span, pipeline, self.world.reading);
        let _ = depth;
    }

    /// Reads a block again, now that it is known what it is given.
    pub(super) fn again(&mut self, block: &Block) -> Value {
        if self.world.calls >= MAX_CALLS {
            self.world
                .reading
                .opaque
                .push((block.span.into(), "is called from within itself, or through too many others"));
            return Value::unknown("$(…)");
        }
        let source = Rc::clone(&block.source);
        self.world.calls += 1;
        let mut inner = Run::new(&source, 0, self.world);
        (inner.fixed, inner.depth) = (Some(block.span), self.depth);
        let made = inner.nested(Value::Null, Self::whole_of);
        self.world.calls -= 1;
        made
    }

    pub(super) fn emit(&mut self, command: Command) {
        self.world.reading.commands.push(command);
    }

    pub(super) fn give(&mut self, name: &str, value: Value) {
        let name = bare(name);
        self.world.given.push(name.clone());
        self.world.variables.insert(name, value);
    }

    /// Nothing is known of any variable from here on.
    pub(super) fn forget(&mut self) {
        for value in self.world.variables.values_mut() {
            *value = Value::unknown("$(…)");
        }
    }

    /// Reads what runs perhaps, or more than once.
    pub(super) fn perhaps<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.world.given.len();
        self.world.perhaps += 1;
        let made = work(self);
        self.world.perhaps -= 1;
        let given: Vec<String> = self.world.given.get(before..).unwrap_or(&[]).to_vec();
        for name in given {
            let value = Value::unknown(format!("${name}"));
            self.world.variables.insert(name, value);
        }
        made
    }
}

/// `global:x`, `script:x` and `x` are one variable here.
pub(super) fn bare(name: &str) -> String {
    let lower = name.to_lowercase();
    let scopes = ["global:", "script:", "local:", "private:", "using:", "variable:"];
    let stripped = scopes.into_iter().find_map(|scope| lower.strip_prefix(scope)).map(str::to_owned);
    stripped.unwrap_or(lower)
}
