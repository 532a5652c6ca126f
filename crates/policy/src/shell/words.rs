//! Words: quotes, escapes, and what is filled in.

use std::rc::Rc;

use super::parse::Parser;
use super::{Change, Node, Part, Text};

/// A sequence `{1..9}` with more members is not spelled out.
const MAX_SEQUENCE: i64 = 64;
/// How far the end of braces is looked for.
const MAX_BRACES: usize = 500;

/// Where a word ends, besides at blanks and operators.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Word,
    /// At `,` or `}`: inside of braces.
    Choice,
}

/// Why a name that goes on in the next line is not read.
const JOINED: &str = "joins lines in the middle of what steers the shell";

impl Parser<'_> {
    /// Takes the word that stands here.
    pub(super) fn word(&mut self) -> Text {
        let start = self.at;
        let dollars = std::mem::take(&mut self.lone_dollar);
        let parts = self.parts(End::Word);
        // Bash does not split the value in `$(echo a b)$`, as if the last dollar quoted it.
        if self.lone_dollar && parts.iter().any(|part| !matches!(part, Part::Plain { .. })) {
            self.opaque(start, "ends in a dollar, which bash itself reads in a way of its own");
        }
        self.lone_dollar = dollars;
        let home = self.text.get(start..self.at).and_then(|word| word.strip_prefix('~'));
        if home.is_some_and(|of| of.starts_with(|c: char| matches!(c, '+' | '-') || c.is_ascii_digit())) {
            self.opaque(start, "names a folder that only the shell knows");
        }
        Text { parts, span: self.span(start) }
    }

    fn parts(&mut self, end: End) -> Vec<Part> {
        let mut parts = Vec::new();
        while let Some(c) = self.peek() {
            let start = self.at;
            match c {
                '<' | '>' if self.rest().get(1..).is_some_and(|next| next.starts_with('(')) => self.process(&mut parts),
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                ',' | '}' if end == End::Choice => break,
                '\\' => {
                    self.bump();
                    match self.bump() {
                        Some('\n') => {}
                        Some(next) => plain(&mut parts, next, true),
                        None => self.opaque(start, "ends in a backslash"),
                    }
                }
                '\'' => {
                    self.bump();
                    self.single(&mut parts, start);
                }
                '"' => {
                    self.bump();
                    self.double(&mut parts, start);
                }
                '$' | '`' => self.expansion(&mut parts, false),
                '{' => self.braces(&mut parts),
                _ => {
                    self.bump();
                    plain(&mut parts, c, false);
                }
            }
        }
        parts
    }

    fn single(&mut self, parts: &mut Vec<Part>, start: usize) {
        let rest = self.rest();
        let length = rest.find('\'').unwrap_or(rest.len());
        let text = rest.get(..length).unwrap_or("");
        parts.push(Part::Plain { text: text.to_owned(), quoted: true });
        self.at += length;
        self.script.steps += u64::try_from(length).unwrap_or(u64::MAX);
        if !self.eat("'") {
            self.opaque(start, "opens a quote that never closes");
        }
    }

    fn double(&mut self, parts: &mut Vec<Part>, start: usize) {
        let mut inside = self.quoted_parts(&['"']);
        if inside.is_empty() {
            inside.push(Part::Plain { text: String::new(), quoted: true });
        }
        parts.append(&mut inside);
        if !self.eat("\"") {
            self.opaque(start, "opens a quote that never closes");
        }
    }

    /// What stands between double quotes or in a here-document, up to one of `ends`.
    pub(super) fn quoted_parts(&mut self, ends: &[char]) -> Vec<Part> {
        let mut parts = Vec::new();
        while let Some(c) = self.peek() {
            match c {
                _ if ends.contains(&c) => break,
                '\\' => {
                    self.bump();
                    match self.peek() {
                        Some('\n') => {
                            self.bump();
                        }
                        Some(next) if "$`\\".contains(next) || ends.contains(&next) => {
                            self.bump();
                            plain(&mut parts, next, true);
                        }
                        _ => plain(&mut parts, '\\', true),
                    }
                }
                '$' | '`' => self.expansion(&mut parts, true),
                _ => {
                    self.bump();
                    plain(&mut parts, c, true);
                }
            }
        }
        parts
    }

    fn expansion(&mut self, parts: &mut Vec<Part>, quoted: bool) {
        let start = self.at;
        if self.eat("`") {
            return self.backticks(parts, quoted, start);
        }
        self.bump();
        match self.peek() {
            Some('(') => {
                if self.rest().starts_with("((")
                    && let Some(inside) = self.arithmetic_inside(2)
                {
                    let written = self.written(start);
                    return parts.push(Part::Number { inside, written });
                }
                self.bump();
                let body = Rc::new(self.commands_to_parenthesis(start));
                parts.push(Part::Output { body, quoted, written: self.written(start) });
            }
            Some('{') => self.parameter(parts, quoted, start),
            Some('\'') if !quoted => {
                self.bash_only(start);
                self.bump();
                self.ansi_c(parts, start);
            }
            Some('"') if !quoted => {
                self.bump();
                self.double(parts, start);
            }
            // The old form of arithmetic.
            Some('[') => {
                self.opaque(start, "is filled in when it runs, so its value is not known now");
                plain(parts, '$', quoted);
            }
            // The shell joins lines before it looks what the dollar begins: `"$\⏎(rm x)"` runs `rm`.
            Some('\\') if self.rest().starts_with("\\\n") => {
                self.opaque(start, JOINED);
                plain(parts, '$', quoted);
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let rest = self.rest();
                let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                self.variable(parts, length, quoted, start);
                if self.rest().starts_with("\\\n") {
                    self.opaque(start, JOINED);
                }
            }
            Some(c) if c.is_ascii_digit() || "?!$#@*-".contains(c) => self.variable(parts, 1, quoted, start),
            // A dollar before anything else stands for itself.
            _ => {
                self.lone_dollar = true;
                plain(parts, '$', quoted);
            }
        }
    }

    fn variable(&mut self, parts: &mut Vec<Part>, length: usize, quoted: bool, start: usize) {
        let name = self.rest().get(..length).unwrap_or("").to_owned();
        self.at += length;
        self.script.steps += 1;
        parts.push(Part::Variable { name, change: Change::Nothing, quoted, written: self.written(start) });
    }

    fn written(&self, start: usize) -> String {
        self.text.get(start..self.at).unwrap_or("").to_owned()
    }

    /// `$(` is taken; commands to the parenthesis that ends them.
    fn commands_to_parenthesis(&mut self, start: usize) -> Vec<Node> {
        let rest = self.rest();
        let base = self.at;
        let (nodes, taken, closed) = self.nested(rest, base);
        self.at += taken;
        if !closed {
            self.opaque(start, "opens a parenthesis that never closes");
        }
        nodes
    }

    /// Reads commands in place, so that quotes and words inside decide where they end.
    fn nested(&mut self, rest: &str, base: usize) -> (Vec<Node>, usize, bool) {
        let (base, span) = (self.base + base, self.span(base));
        let whole = self.whole;
        self.within(rest, Some(base), span, |inner| {
            inner.whole = whole;
            let nodes = inner.inside_parenthesis();
            let taken = inner.at;
            let closed = rest.as_bytes().get(taken.wrapping_sub(1)) == Some(&b')') && !inner.script.too_deep;
            (nodes, taken, closed)
        })
    }

    fn backticks(&mut self, parts: &mut Vec<Part>, quoted: bool, start: usize) {
        let mut inside = String::new();
        let mut closed = false;
        while let Some(c) = self.bump() {
            match c {
                '`' => {
                    closed = true;
                    break;
                }
                '\\' => match self.bump() {
                    Some(next) if "$`\\".contains(next) || (quoted && next == '"') => inside.push(next),
                    Some(next) => inside.extend(['\\', next]),
                    None => {}
                },
                _ => inside.push(c),
            }
        }
        if !closed {
            self.opaque(start, "opens a quote that never closes");
        }
        let span = self.span(start);
        let body = Rc::new(self.within(&inside, None, span, |inner| inner.all()));
        parts.push(Part::Output { body, quoted, written: self.written(start) });
    }

    fn process(&mut self, parts: &mut Vec<Part>) {
        let start = self.at;
        self.bash_only(start);
        self.at += 2;
        let body = Rc::new(self.commands_to_parenthesis(start));
        parts.push(Part::Process { body, written: self.written(start) });
    }

    /// At the parentheses of arithmetic; answers what is filled in within them, none where they are none.
    pub(super) fn arithmetic_inside(&mut self, open: usize) -> Option<Vec<Part>> {
        let start = self.at;
        let rest = self.rest().get(open..)?;
        let mut depth = 0_u32;
        let mut end = None;
        // The bound keeps a flood of openings cheap; who counts longer than this is asked.
        for (at, byte) in rest.bytes().enumerate().take(MAX_BRACES) {
            match byte {
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b')' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
            self.script.steps += 1;
        }
        let end = end.filter(|end| rest.get(*end..).is_some_and(|rest| rest.starts_with("))")))?;
        let inside = rest.get(..end)?;
        let base = self.base + start + open;
        let span = self.span(start);
        let whole = self.whole;
        let parts = self.within(inside, Some(base), span, |inner| {
            inner.whole = whole;
            inner.quoted_parts(&[])
        });
        self.at = start + open + end + 2;
        Some(parts)
    }

    /// `${`: the brace stands here.
    fn parameter(&mut self, parts: &mut Vec<Part>, quoted: bool, start: usize) {
        self.bump();
        let mut change = Change::Nothing;
        if self.rest().starts_with('#') && !self.rest().starts_with("#}") {
            self.bump();
            change = Change::Length;
        } else if self.rest().starts_with('!') && !self.rest().starts_with("!}") {
            self.bump();
            change = Change::Indirect;
        }
        let rest = self.rest();
        let mut length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if length == 0 && rest.starts_with(['@', '*', '?', '-', '$', '!', '#']) {
            length = 1;
        }
        let name = rest.get(..length).unwrap_or("").to_owned();
        self.at += length;
        if name.is_empty() {
            self.opaque(start, "is filled in when it runs, so its value is not known now");
        }
        if self.eat("[") {
            // An index is counted, and counting can run commands.
            let index = self.quoted_parts(&[']']);
            self.eat("]");
            let plain =
                matches!(index.as_slice(), [Part::Plain { text, .. }] if text == "@" || text == "*" || text == "0");
            if !plain {
                change = Change::Other(index);
            }
        }
        if !self.rest().starts_with('}') {
            let made = self.change();
            change = if matches!(change, Change::Nothing) { made } else { Change::Other(inside_of(made)) };
        }
        if !self.eat("}") {
            self.opaque(start, "opens a brace that never closes");
        }
        parts.push(Part::Variable { name, change, quoted, written: self.written(start) });
    }

    fn change(&mut self) -> Change {
        let start = self.at;
        if self.eat(":-") || self.eat("-") {
            return Change::Default { word: self.braced(&['}']), assigns: false };
        }
        if self.eat(":=") || self.eat("=") {
            return Change::Default { word: self.braced(&['}']), assigns: true };
        }
        if self.eat(":+") || self.eat("+") {
            return Change::Instead(self.braced(&['}']));
        }
        if self.eat(":?") || self.eat("?") {
            return Change::Other(self.braced(&['}']));
        }
        let front = self.eat("#");
        if front || self.eat("%") {
            let longest = self.eat(if front { "#" } else { "%" });
            let pattern = self.braced(&['}']);
            return if front { Change::CutFront { pattern, longest } } else { Change::CutBack { pattern, longest } };
        }
        self.bash_only(start);
        if self.eat("/") {
            let all = self.eat("/");
            let pattern = self.braced(&['}', '/']);
            let by = if self.eat("/") { self.braced(&['}']) } else { Vec::new() };
            return Change::Replace { pattern, by, all };
        }
        if self.eat(":") {
            return Change::Slice(self.braced(&['}']));
        }
        for (sign, upper) in [("^", true), (",", false)] {
            if self.eat(sign) {
                let all = self.eat(sign);
                let pattern = self.braced(&['}']);
                if !pattern.is_empty() {
                    return Change::Other(pattern);
                }
                return if upper { Change::Upper { all } } else { Change::Lower { all } };
            }
        }
        // `${x@P}` runs what the value says.
        self.opaque(start, "is filled in by a form that is not read");
        Change::Other(self.braced(&['}']))
    }

    /// The word within `${name…}`: quotes hold inside.
    fn braced(&mut self, ends: &[char]) -> Vec<Part> {
        let mut parts = Vec::new();
        if self.depth > super::MAX_DEPTH {
            self.script.too_deep = true;
            self.at = self.text.len();
            return parts;
        }
        self.depth += 1;
        while let Some(c) = self.peek() {
            let start = self.at;
            match c {
                _ if ends.contains(&c) => break,
                '\\' => {
                    self.bump();
                    if let Some(next) = self.bump()
                        && next != '\n'
                    {
                        plain(&mut parts, next, true);
                    }
                }
                '\'' => {
                    self.bump();
                    self.single(&mut parts, start);
                }
                '"' => {
                    self.bump();
                    self.double(&mut parts, start);
                }
                '$' | '`' => self.expansion(&mut parts, false),
                _ => {
                    self.bump();
                    plain(&mut parts, c, false);
                }
            }
        }
        self.depth -= 1;
        parts
    }

    /// `{a,b}` and `{1..3}` stand for several words; other braces for themselves.
    fn braces(&mut self, parts: &mut Vec<Part>) {
        let start = self.at;
        let Some(found) = self.braces_ahead() else {
            self.bump();
            return plain(parts, '{', false);
        };
        self.bash_only(start);
        // Braces come first: `$x{a,b}` is `$xa` and `$xb`.
        if matches!(parts.last(), Some(Part::Variable { written, .. }) if !written.ends_with('}')) {
            self.opaque(start, "puts braces behind a variable's name, which then is another name");
        }
        if self.depth > super::MAX_DEPTH {
            self.script.too_deep = true;
            self.at = self.text.len();
            return;
        }
        if let Braces::Sequence(words) = found {
            let rest = self.rest();
            self.at += rest.find('}').map_or(rest.len(), |at| at + 1);
            let choice = |text: String| vec![Part::Plain { text, quoted: false }];
            return parts.push(Part::Braces(words.into_iter().map(choice).collect()));
        }
        self.depth += 1;
        self.bump();
        let mut choices = Vec::new();
        loop {
            choices.push(self.parts(End::Choice));
            if !self.eat(",") {
                break;
            }
        }
        if !self.eat("}") {
            self.opaque(start, "opens a brace that is not read");
        }
        self.depth -= 1;
        parts.push(Part::Braces(choices));
    }

    fn braces_ahead(&mut self) -> Option<Braces> {
        let rest = self.rest();
        let (mut depth, mut comma) = (0_u32, false);
        let mut quote = None;
        let mut previous = None;
        for (at, byte) in rest.bytes().enumerate().take(MAX_BRACES) {
            self.script.steps += 1;
            let escaped = previous == Some(b'\\');
            previous = if escaped { None } else { Some(byte) };
            match (quote, byte) {
                _ if escaped => {}
                (Some(open), _) if open == byte => quote = None,
                (Some(_), _) => {}
                (None, b'\'' | b'"') => quote = Some(byte),
                (None, b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')') => return None,
                (None, b'{') => depth += 1,
                (None, b',') if depth == 1 => comma = true,
                (None, b'}') => {
                    depth -= 1;
                    if depth == 0 {
                        return if comma {
                            Some(Braces::List)
                        } else {
                            sequence(rest.get(1..at)?).map(Braces::Sequence)
                        };
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// `$'…'`.
    fn ansi_c(&mut self, parts: &mut Vec<Part>, start: usize) {
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            let Some(c) = self.bump() else {
                self.opaque(start, "opens a quote that never closes");
                break;
            };
            match c {
                '\'' => break,
                '\\' => self.escape(&mut bytes),
                _ => push_char(&mut bytes, c),
            }
        }
        // A NUL ends the string, as bash has it.
        let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.truncate(length);
        parts.push(Part::Plain { text: String::from_utf8_lossy(&bytes).into_owned(), quoted: true });
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) {
        let Some(c) = self.bump() else { return };
        match c {
            'x' => {
                let value = self.number(16, 2, 0);
                bytes.extend(u8::try_from(value & 0xff));
            }
            'u' | 'U' => {
                let value = self.number(16, if c == 'u' { 4 } else { 8 }, 0);
                if let Some(c) = char::from_u32(value) {
                    push_char(bytes, c);
                }
            }
            '0'..='7' => {
                let value = self.number(8, 2, c.to_digit(8).unwrap_or(0));
                bytes.extend(u8::try_from(value & 0xff));
            }
            'c' => {
                let control = self.bump().map_or(0, |c| u32::from(c) & 0x1f);
                bytes.extend(u8::try_from(control));
            }
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'r' => bytes.push(b'\r'),
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'e' | 'E' => bytes.push(27),
            'f' => bytes.push(12),
            'v' => bytes.push(11),
            '\\' | '\'' | '"' | '?' => push_char(bytes, c),
            other => {
                bytes.push(b'\\');
                push_char(bytes, other);
            }
        }
    }

    fn number(&mut self, radix: u32, most: u32, first: u32) -> u32 {
        let mut value = first;
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else { break };
            self.bump();
            value = value.wrapping_mul(radix).wrapping_add(digit);
        }
        value
    }
}

enum Braces {
    List,
    Sequence(Vec<String>),
}

fn sequence(inside: &str) -> Option<Vec<String>> {
    let (first, last) = inside.split_once("..")?;
    if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
        let (low, high) = (first.min(last), first.max(last));
        if high.saturating_sub(low) > MAX_SEQUENCE {
            // Its ends speak for it.
            return Some(vec![low.to_string(), high.to_string()]);
        }
        return Some((low..=high).map(|number| number.to_string()).collect());
    }
    let mut letters = [first, last].into_iter().map(|end| {
        let mut chars = end.chars();
        chars.next().filter(|c| c.is_ascii_alphabetic() && chars.next().is_none())
    });
    let (first, last) = (letters.next()??, letters.next()??);
    Some((first.min(last)..=first.max(last)).map(|c| c.to_string()).collect())
}

fn inside_of(change: Change) -> Vec<Part> {
    match change {
        Change::Nothing | Change::Length | Change::Indirect | Change::Upper { .. } | Change::Lower { .. } => Vec::new(),
        Change::Default { word, .. } => word,
        Change::Instead(parts) | Change::Slice(parts) | Change::Other(parts) => parts,
        Change::CutFront { pattern, .. } | Change::CutBack { pattern, .. } => pattern,
        Change::Replace { mut pattern, by, .. } => {
            pattern.extend(by);
            pattern
        }
    }
}

fn plain(parts: &mut Vec<Part>, c: char, quoted: bool) {
    if let Some(Part::Plain { text, quoted: before }) = parts.last_mut()
        && *before == quoted
    {
        return text.push(c);
    }
    parts.push(Part::Plain { text: c.to_string(), quoted });
}

fn push_char(bytes: &mut Vec<u8>, c: char) {
    let mut buffer = [0; 4];
    bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
}
