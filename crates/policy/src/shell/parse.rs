//! From text to commands, by the shell's grammar. What is not in it is opaque, and read on as well as it can be.

use std::cell::OnceCell;
use std::rc::Rc;

use provara_domain::{Shell, Span};

use super::{
    Assignment, Group, Kind, MAX_DEPTH, Node, Part, Redirect, Script, Simple, Span0, Text, is_bash, is_variable_name,
};

/// Words that begin or go on with a compound command where a command's name could stand.
const RESERVED: &[&str] = &[
    "if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "select", "function",
    "time", "coproc", "!", "{", "}", "[[",
];
const NOT_EVERYWHERE: &str = "means one thing in bash and another in other shells";

/// Returns what `text` is made of. Never panics; work is linear in the text.
pub(crate) fn parse(text: &str, shell: Shell) -> Script {
    let mut parser = Parser::new(text, 0, shell, 0);
    let nodes = parser.all();
    parser.script.nodes = nodes;
    parser.script
}

pub(super) struct Parser<'t> {
    pub(super) text: &'t str,
    pub(super) at: usize,
    /// Where `text` begins in the whole; none where it is no slice of it, and then this span stands for all of it.
    pub(super) base: usize,
    pub(super) whole: Option<Span0>,
    pub(super) shell: Shell,
    pub(super) depth: u32,
    pub(super) script: Script,
    /// Whether the word that is read has a dollar that begins nothing.
    pub(super) lone_dollar: bool,
    /// Here-documents whose bodies begin at the next line.
    pending: Vec<Pending>,
}

struct Pending {
    delimiter: String,
    literal: bool,
    tabs: bool,
    body: Rc<OnceCell<Text>>,
}

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str, base: usize, shell: Shell, depth: u32) -> Self {
        Self {
            text,
            at: 0,
            base,
            whole: None,
            shell,
            depth,
            script: Script::default(),
            lone_dollar: false,
            pending: Vec::new(),
        }
    }

    /// Reads `text`, which stands somewhere within this, by `work`.
    pub(super) fn within<T>(
        &mut self,
        text: &str,
        base: Option<usize>,
        span: Span0,
        work: impl FnOnce(&mut Parser<'_>) -> T,
    ) -> T {
        let mut inner = Parser::new(text, base.unwrap_or(0), self.shell, self.depth + 1);
        inner.whole = self.whole.or_else(|| base.is_none().then_some(span));
        if inner.depth > MAX_DEPTH {
            inner.script.too_deep = true;
            inner.at = text.len();
        }
        let made = work(&mut inner);
        self.script.opaque.append(&mut inner.script.opaque);
        self.script.too_deep |= inner.script.too_deep;
        self.script.steps += inner.script.steps;
        made
    }

    pub(super) fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        self.script.steps += 1;
        Some(c)
    }

    pub(super) fn eat(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
            self.script.steps += 1;
        }
        found
    }

    /// The part of the whole text from `start` to here.
    pub(super) fn span(&self, start: usize) -> Span0 {
        self.whole.unwrap_or(Span0 { start: self.base + start, end: self.base + self.at })
    }

    pub(super) fn opaque(&mut self, start: usize, why: &'static str) {
        let span = self.span(start);
        // A flood of them says no more than the first.
        if self.script.opaque.len() < 64 {
            self.script.opaque.push((Span::from(span), why));
        }
    }

    pub(super) fn bash_only(&mut self, start: usize) {
        if !is_bash(self.shell) {
            self.opaque(start, NOT_EVERYWHERE);
        }
    }

    /// Everything to the end, whatever it is.
    pub(super) fn all(&mut self) -> Vec<Node> {
        let mut nodes = self.list();
        while self.at < self.text.len() {
            let start = self.at;
            self.bump();
            self.opaque(start, "does not belong here, so the shell may read it otherwise");
            // What follows is read for what it is worth.
            if matches!(self.text.as_bytes().get(start), Some(b')' | b';' | b'&' | b'|')) || self.at_blank() {
                nodes.append(&mut self.list());
                continue;
            }
            self.reserved_left();
            nodes.append(&mut self.list());
        }
        self.bodies();
        nodes
    }

    /// What stands after `$(`, up to the parenthesis that ends it, which is taken.
    pub(super) fn inside_parenthesis(&mut self) -> Vec<Node> {
        let mut nodes = self.list();
        while self.at < self.text.len() && !self.rest().starts_with(')') {
            let start = self.at;
            self.bump();
            self.opaque(start, "does not belong here, so the shell may read it otherwise");
            self.reserved_left();
            nodes.append(&mut self.list());
        }
        self.eat(")");
        nodes
    }

    fn at_blank(&self) -> bool {
        self.peek().is_none_or(char::is_whitespace)
    }

    /// Skips a reserved word that nothing waits for.
    fn reserved_left(&mut self) {
        while self.peek().is_some_and(|c| c.is_ascii_alphabetic()) {
            self.bump();
        }
    }

    /// Commands up to what ends them: the end, `)`, `;;`, or a reserved word that goes on with something outside.
    fn list(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        loop {
            self.blanks_and_lines();
            let rest = self.rest();
            if rest.is_empty() || rest.starts_with(')') || rest.starts_with(";;") || rest.starts_with(";&") {
                return nodes;
            }
            if matches!(self.reserved(), Some("then" | "elif" | "else" | "fi" | "do" | "done" | "esac" | "}")) {
                return nodes;
            }
            let (before, begun) = (self.at, nodes.len());
            self.and_or(&mut nodes);
            self.blanks();
            if self.eat(";") {
                if self.rest().starts_with(';') || self.rest().starts_with('&') {
                    self.at -= 1;
                    return nodes;
                }
            } else if self.rest().starts_with('&') && !self.rest().starts_with("&&") {
                self.bump();
                // Beside this shell goes another one: what it sets is not set here.
                let body = nodes.split_off(begun);
                nodes.push(Node::Group(Group { kind: Kind::Subshell, body, ..Group::default() }));
            } else if self.at == before {
                return nodes;
            }
        }
    }

    fn and_or(&mut self, nodes: &mut Vec<Node>) {
        let mut first = true;
        loop {
            let before = self.at;
            let node = self.pipeline();
            nodes.extend(node.map(|node| if first { node } else { Node::Perhaps(Box::new(node)) }));
            self.blanks();
            if self.eat("&&") || self.eat("||") {
                first = false;
                self.blanks_and_lines();
                if self.at == self.text.len() {
                    self.opaque(before, "ends where a command is missing");
                    return;
                }
                continue;
            }
            return;
        }
    }

    fn pipeline(&mut self) -> Option<Node> {
        loop {
            self.blanks();
            match self.reserved() {
                Some("!") => self.at += 1,
                Some("time") => {
                    self.at += 4;
                    self.blanks();
                    if self.rest().starts_with("-p ") {
                        self.at += 2;
                    }
                }
                _ => break,
            }
            self.script.steps += 1;
        }
        let mut stages: Vec<Node> = self.command().into_iter().collect();
        loop {
            self.blanks();
            let start = self.at;
            if !self.rest().starts_with('|') || self.rest().starts_with("||") {
                break;
            }
            self.bump();
            if self.eat("&") {
                self.bash_only(start);
            }
            self.blanks_and_lines();
            match self.command() {
                Some(stage) => stages.push(stage),
                None => {
                    self.opaque(start, "is a pipe to nothing");
                    break;
                }
            }
        }
        if stages.len() > 1 { Some(Node::Pipe(stages)) } else { stages.pop() }
    }

    /// Returns the reserved word that stands here, unquoted and whole.
    fn reserved(&self) -> Option<&'static str> {
        let rest = self.rest();
        let length = rest.find(|c: char| c.is_whitespace() || ";&|()<>".contains(c)).unwrap_or(rest.len());
        let word = rest.get(..length)?;
        RESERVED.iter().find(|known| **known == word).copied()
    }

    fn command(&mut self) -> Option<Node> {
        self.blanks();
        let start = self.at;
        if self.depth > MAX_DEPTH {
            self.script.too_deep = true;
            self.at = self.text.len();
            return None;
        }
        self.depth += 1;
        let node = self.compound().or_else(|| self.simple());
        self.depth -= 1;
        if let Some(Node::Group(group)) = node {
            return Some(Node::Group(self.tail(group, start)));
        }
        node
    }

    /// The redirections after a compound command.
    fn tail(&mut self, mut group: Group, start: usize) -> Group {
        loop {
            self.blanks();
            match self.redirection() {
                Some(redirect) => group.redirections.push(redirect),
                None => break,
            }
        }
        group.span = self.span(start);
        group
    }

    fn compound(&mut self) -> Option<Node> {
        let start = self.at;
        let rest = self.rest();
        if rest.starts_with("((") {
            // `((a))` counts; `((a); b)` is two groups.
            if let Some(inside) = self.arithmetic_inside(2) {
                self.bash_only(start);
                let words = vec![Text { parts: inside, span: self.span(start) }];
                return Some(Node::Group(Group { kind: Kind::Test, words, ..Group::default() }));
            }
        }
        if self.eat("(") {
            let body = self.list();
            self.expect(")", start);
            return Some(Node::Group(Group { kind: Kind::Subshell, body, ..Group::default() }));
        }
        let word = self.reserved()?;
        self.at += word.len();
        self.script.steps += 1;
        let group = match word {
            "{" => {
                let body = self.list();
                self.expect("}", start);
                Group { body, ..Group::default() }
            }
            "if" => self.branches(start),
            "while" | "until" => {
                let mut body = self.list();
                self.expect("do", start);
                body.append(&mut self.list());
                self.expect("done", start);
                Group { kind: Kind::Conditional, body, ..Group::default() }
            }
            "for" | "select" => self.for_loop(start),
            "case" => self.case(start),
            "[[" => self.double_brackets(start),
            "function" => {
                self.bash_only(start);
                self.blanks();
                let name = self.word().written();
                self.blanks();
                if self.eat("(") {
                    self.blanks();
                    self.expect(")", start);
                }
                return Some(self.function(name, start));
            }
            "coproc" => {
                self.bash_only(start);
                self.blanks();
                // A name may stand before a compound command.
                let named = self.rest().split_once(char::is_whitespace).is_some_and(|(name, after)| {
                    !RESERVED.contains(&name) && after.trim_start().starts_with(['{', '('])
                });
                if named {
                    self.word();
                }
                let body = self.command().into_iter().collect();
                Group { kind: Kind::Conditional, body, ..Group::default() }
            }
            _ => {
                self.opaque(start, "does not belong here, so the shell may read it otherwise");
                return None;
            }
        };
        Some(Node::Group(group))
    }

    fn branches(&mut self, start: usize) -> Group {
        let mut body = self.list();
        self.expect("then", start);
        body.append(&mut self.list());
        loop {
            match self.reserved() {
                Some("elif") => {
                    self.at += 4;
                    body.append(&mut self.list());
                    self.expect("then", start);
                    body.append(&mut self.list());
                }
                Some("else") => {
                    self.at += 4;
                    body.append(&mut self.list());
                }
                _ => break,
            }
            self.script.steps += 1;
        }
        self.expect("fi", start);
        Group { kind: Kind::Conditional, body, ..Group::default() }
    }

    fn for_loop(&mut self, start: usize) -> Group {
        self.blanks();
        let mut words = Vec::new();
        let mut kind = Kind::Conditional;
        if self.rest().starts_with("((") {
            self.bash_only(start);
            match self.arithmetic_inside(2) {
                Some(parts) => words.push(Text { parts, span: self.span(start) }),
                None => self.opaque(start, "is a loop that is not read"),
            }
        } else {
            kind = Kind::For(self.word().written());
            self.blanks_and_lines();
            let rest = self.rest();
            if rest.starts_with("in") && rest.get(2..).is_some_and(|after| after.starts_with([' ', '\t', '\n', ';'])) {
                self.at += 2;
                loop {
                    self.blanks();
                    if self.peek().is_none_or(|c| "\n;&|()<>".contains(c)) {
                        break;
                    }
                    words.push(self.word());
                }
            }
        }
        self.blanks();
        self.eat(";");
        self.blanks_and_lines();
        let body = if self.reserved() == Some("{") {
            self.at += 1;
            let body = self.list();
            self.expect("}", start);
            body
        } else {
            self.expect("do", start);
            let body = self.list();
            self.expect("done", start);
            body
        };
        Group { kind, body, words, ..Group::default() }
    }

    fn case(&mut self, start: usize) -> Group {
        self.blanks();
        let mut group = Group { kind: Kind::Conditional, words: vec![self.word()], ..Group::default() };
        self.blanks_and_lines();
        self.expect("in", start);
        loop {
            self.blanks_and_lines();
            if self.reserved() == Some("esac") || self.rest().is_empty() {
                break;
            }
            let arm = self.at;
            self.eat("(");
            loop {
                self.blanks_and_lines();
                let before = self.at;
                group.words.push(self.word());
                self.blanks();
                if self.eat("|") {
                    continue;
                }
                if self.eat(")") || self.at == before {
                    break;
                }
            }
            group.body.append(&mut self.list());
            let ended = self.eat(";;&") || self.eat(";;") || self.eat(";&");
            if !ended && self.reserved() != Some("esac") {
                self.opaque(arm, "is a branch that is not read");
                if self.at == arm {
                    self.bump();
                }
                if !self.rest().starts_with(')') {
                    break;
                }
            }
        }
        self.expect("esac", start);
        group
    }

    fn double_brackets(&mut self, start: usize) -> Group {
        self.bash_only(start);
        let mut group = Group { kind: Kind::Test, ..Group::default() };
        loop {
            self.blanks_and_lines();
            if self.rest().is_empty() {
                self.opaque(start, "opens brackets that never close");
                break;
            }
            if self.eat("]]") {
                break;
            }
            if self.peek().is_some_and(|c| ";&|()<>".contains(c)) && !self.rest().starts_with("<(") {
                self.bump();
                continue;
            }
            let before = self.at;
            group.words.push(self.word());
            if self.at == before {
                self.bump();
            }
        }
        group
    }

    fn function(&mut self, name: String, start: usize) -> Node {
        self.blanks_and_lines();
        let body = match self.command() {
            Some(node) => vec![node],
            None => {
                self.opaque(start, "is a function without commands");
                Vec::new()
            }
        };
        Node::Function { name, body: Rc::new(body) }
    }

    /// Takes what must stand here, after blanks and lines.
    fn expect(&mut self, what: &'static str, start: usize) {
        self.blanks_and_lines();
        let found = if what.len() == 1 { self.rest().starts_with(what) } else { self.word_is(what) };
        if found {
            self.at += what.len();
            self.script.steps += 1;
        } else {
            self.opaque(start, "begins something that is not ended as it must");
        }
    }

    fn word_is(&self, word: &str) -> bool {
        self.rest()
            .strip_prefix(word)
            .is_some_and(|after| after.chars().next().is_none_or(|c| c.is_whitespace() || ";&|()<>".contains(c)))
    }

    fn simple(&mut self) -> Option<Node> {
        let start = self.at;
        let mut simple = Simple::default();
        loop {
            self.blanks();
            if let Some(redirect) = self.redirection() {
                simple.redirections.push(redirect);
                continue;
            }
            match self.peek() {
                None | Some('\n' | ';' | '&' | '|' | ')') => break,
                Some('(') => {
                    if let Some(node) = self.named_function(&simple, start) {
                        return Some(node);
                    }
                    self.opaque(start, "has a parenthesis that is not read");
                    self.bump();
                    let mut inner = self.list();
                    self.eat(")");
                    inner.insert(0, Node::Simple(std::mem::take(&mut simple)));
                    return Some(Node::Group(Group { kind: Kind::Conditional, body: inner, ..Group::default() }));
                }
                Some(_) => self.simple_word(&mut simple, start),
            }
        }
        if simple.words.is_empty() && simple.assignments.is_empty() && simple.redirections.is_empty() {
            return None;
        }
        simple.span = self.span(start);
        // A span does not hold the blanks before the next separator.
        let taken = self.text.get(start..self.at).unwrap_or("");
        if self.whole.is_none() {
            simple.span.end -= taken.len() - taken.trim_end_matches([' ', '\t']).len();
        }
        Some(Node::Simple(simple))
    }

    fn named_function(&mut self, simple: &Simple, start: usize) -> Option<Node> {
        let [name] = simple.words.as_slice() else { return None };
        let name = name.literal().filter(|_| !name.is_quoted() && simple.assignments.is_empty())?;
        let after = self.rest().get(1..)?.trim_start_matches([' ', '\t']);
        if !after.starts_with(')') || !simple.redirections.is_empty() {
            return None;
        }
        self.at = self.text.len() - after.len() + 1;
        Some(self.function(name, start))
    }

    fn simple_word(&mut self, simple: &mut Simple, start: usize) {
        let before = self.at;
        let word = self.word();
        if self.at == before {
            // Nothing takes it, and it must go on.
            self.bump();
            self.opaque(before, "does not belong here, so the shell may read it otherwise");
            return;
        }
        let declares = simple
            .words
            .first()
            .and_then(Text::literal)
            .is_some_and(|name| matches!(name.as_str(), "export" | "declare" | "local" | "readonly" | "typeset"));
        if simple.words.is_empty() || declares {
            if let Some(assignment) = self.assignment(&word) {
                if declares {
                    // The word stays an argument as well, so that everything about it is told.
                    simple.words.push(word);
                }
                simple.assignments.push(assignment);
                return;
            }
            let spelled = self.text.get(before..self.at).unwrap_or("");
            if simple.words.is_empty()
                && spelled.contains("\\\n")
                && word.literal().is_some_and(|text| RESERVED.contains(&text.as_str()))
            {
                self.opaque(start, "joins lines in the middle of a word that steers the shell");
            }
        }
        simple.words.push(word);
    }

    fn assignment(&mut self, word: &Text) -> Option<Assignment> {
        let Some((Part::Plain { text, quoted: false }, rest)) = word.parts.split_first() else { return None };
        if text.split_once('[').is_some_and(|(bare, index)| is_variable_name(bare) && !index.contains(']')) {
            // To bash all up to the other bracket is one word, blanks and signs included.
            self.opaque(word.span.start, "is an index that is not read");
        }
        let (name, value) = text.split_once('=')?;
        let (name, adds) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
        let (bare, index) = name.split_once('[').map_or((name, None), |(bare, index)| (bare, Some(index)));
        if !is_variable_name(bare) || index.is_some_and(|index| !index.ends_with(']')) {
            return None;
        }
        let mut values = Vec::new();
        if value.is_empty() && rest.is_empty() && self.rest().starts_with('(') {
            let start = self.at;
            self.bash_only(start);
            self.bump();
            loop {
                self.blanks_and_lines();
                if self.eat(")") || self.rest().is_empty() {
                    break;
                }
                let before = self.at;
                values.push(self.word());
                if self.at == before {
                    self.bump();
                    self.opaque(start, "is a list that is not read");
                }
            }
        } else {
            let mut parts = vec![Part::Plain { text: value.to_owned(), quoted: false }];
            parts.extend(rest.iter().cloned());
            values.push(Text { parts, span: word.span });
        }
        Some(Assignment { name: bare.to_owned(), adds: adds || index.is_some(), values })
    }

    /// Takes a redirection if one stands here.
    fn redirection(&mut self) -> Option<Redirect> {
        let start = self.at;
        let rest = self.rest();
        let digits = rest.bytes().take(5).take_while(u8::is_ascii_digit).count();
        let named = rest.strip_prefix('{').and_then(|inner| {
            let (name, after) = inner.get(..inner.len().min(40)).unwrap_or(inner).split_once('}')?;
            (is_variable_name(name) && after.starts_with(['<', '>'])).then_some(name.len() + 2)
        });
        let prefix = named.unwrap_or(digits);
        let after = rest.get(prefix..)?;
        let operators = ["&>>", "&>", "<<<", "<<-", "<<", "<>", "<&", ">>", ">&", ">|", "<", ">"];
        let operator = operators.into_iter().find(|operator| after.starts_with(operator))?;
        let process = matches!(operator, "<" | ">") && after.get(1..).is_some_and(|next| next.starts_with('('));
        if process || digits > 4 || (operator.starts_with('&') && prefix > 0) {
            return None;
        }
        self.at += prefix + operator.len();
        self.script.steps += 1;
        if matches!(operator, "&>" | "&>>" | "<<<") || named.is_some() {
            self.bash_only(start);
        }
        self.blanks();
        let before = self.at;
        let target = self.word();
        if before == self.at {
            self.opaque(start, "redirects to nothing");
        }
        // After `>&` bash takes quotes off twice, so a quoted target is not what it looks like.
        if operator == ">&" && target.is_quoted() {
            self.opaque(start, "is a redirection that is not read");
        }
        let body = matches!(operator, "<<" | "<<-").then(|| {
            let body = Rc::new(OnceCell::new());
            let literal = target.is_quoted();
            let delimiter = target.written();
            self.pending.push(Pending { delimiter, literal, tabs: operator == "<<-", body: Rc::clone(&body) });
            body
        });
        let operator = format!("{}{operator}", rest.get(..prefix).unwrap_or(""));
        Some(Redirect { operator, target, body })
    }

    /// Reads the here-documents that begin at this line.
    fn bodies(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            let start = self.at;
            let mut body = String::new();
            let mut closed = false;
            while self.at < self.text.len() {
                let line = self.logical_line(pending.literal);
                let line = if pending.tabs { line.trim_start_matches('\t') } else { &line };
                if line.strip_suffix('\n').unwrap_or(line) == pending.delimiter {
                    closed = true;
                    break;
                }
                body.push_str(line);
            }
            let span = self.span(start);
            if !closed {
                self.opaque(start, "is a here-document that never ends");
            }
            let text = if pending.literal {
                Text { parts: vec![Part::Plain { text: body, quoted: true }], span }
            } else {
                let parts = self.within(&body, None, span, |inner| inner.quoted_parts(&[]));
                Text { parts, span }
            };
            // INVARIANT: each body is filled once, here.
            let _ = pending.body.set(text);
        }
    }

    /// A line of a here-document; where it is no literal one, lines that end in a backslash go on in the next.
    fn logical_line(&mut self, literal: bool) -> String {
        let mut whole = String::new();
        loop {
            let rest = self.rest();
            let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
            let line = rest.get(..length).unwrap_or("");
            self.at += length;
            self.script.steps += u64::try_from(length).unwrap_or(u64::MAX);
            let bare = line.strip_suffix('\n').unwrap_or(line);
            let backslashes = bare.len() - bare.trim_end_matches('\\').len();
            if !literal && backslashes % 2 == 1 && line.ends_with('\n') {
                whole.push_str(bare.strip_suffix('\\').unwrap_or(bare));
                continue;
            }
            whole.push_str(line);
            return whole;
        }
    }

    pub(super) fn blanks(&mut self) {
        loop {
            let start = self.at;
            let before = self.text.get(..start).and_then(|text| text.chars().next_back());
            if self.eat("\\\n") {
                let after = self.peek();
                let steers = |c: Option<char>| c.is_some_and(|c| "&|;<>$`".contains(c));
                if steers(before) && steers(after) {
                    self.opaque(start, "joins lines in the middle of what steers the shell");
                }
                continue;
            }
            match self.peek() {
                Some(' ' | '\t') => {
                    self.bump();
                }
                Some('#') if before.is_none_or(|c| c.is_whitespace() || ";&|()".contains(c)) => {
                    let rest = self.rest();
                    self.at += rest.find('\n').unwrap_or(rest.len());
                    self.script.steps += 1;
                }
                _ => return,
            }
        }
    }

    pub(super) fn blanks_and_lines(&mut self) {
        loop {
            self.blanks();
            if !self.eat("\n") {
                return;
            }
            self.bodies();
        }
    }
}
