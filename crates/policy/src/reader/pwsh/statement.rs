//! Statements: what runs, in which order, and perhaps.

use super::lex::{names, plain};
use super::scan::{Part, Run, Target};
use super::value::{Block, Value, binary, list};
use crate::reader::{Command, Redirection, Word};

/// A list of a `foreach` that is longer is not followed item by item.
const MAX_UNROLLED: usize = 16;

impl Run<'_, '_, '_> {
    /// Reads a whole text.
    pub(super) fn whole(&mut self) -> Value {
        let mut made = self.statements(None).items();
        while self.at < self.text.len() {
            let start = self.at;
            self.bump();
            self.opaque(start, "closes a bracket that was not opened");
            made.extend(self.statements(None).items());
        }
        list(made)
    }

    /// Reads statements up to a closing bracket. Answers what they put out.
    pub(super) fn statements(&mut self, until: Option<char>) -> Value {
        let mut made = Vec::new();
        loop {
            self.lines();
            let start = self.at;
            match self.peek() {
                None | Some('}' | ')') => break,
                Some(';') => {
                    self.bump();
                }
                Some(_) => {
                    let value = self.nested(Value::Null, Self::statement_here);
                    if !matches!(value, Value::Null) {
                        made.push(value);
                    }
                }
            }
            if self.at == start {
                self.bump();
                self.opaque(start, "is not read");
            }
        }
        let _ = until;
        if made.len() == 1 {
            made.pop().unwrap_or(Value::Null)
        } else {
            list(made.iter().flat_map(Value::items).collect())
        }
    }

    pub(super) fn statement(&mut self) -> Value {
        self.nested(Value::Null, Self::statement_here)
    }

    fn statement_here(&mut self) -> Value {
        self.blanks();
        let start = self.at;
        if self.peek() == Some(':') && self.second().is_some_and(names) {
            // A label.
            self.bump();
            self.take_while(names);
            self.lines();
        }
        let word = self.keyword();
        match word.as_str() {
            "if" | "elseif" => self.condition(),
            "while" | "until" => self.in_loop(|run| {
                run.in_parentheses();
                run.body();
            }),
            "switch" => self.switch(),
            "foreach" => self.foreach(),
            "for" => self.in_loop(|run| {
                run.for_head();
                run.body();
            }),
            "do" => self.in_loop(|run| {
                run.body();
                run.lines();
                if matches!(run.keyword().as_str(), "while" | "until") {
                    run.in_parentheses();
                }
            }),
            "try" | "else" | "finally" | "catch" | "trap" => {
                let made = self.attempt();
                if !matches!(word.as_str(), "try") { Value::unknown("$(…)") } else { made }
            }
            "function" | "filter" | "workflow" => self.function(),
            "begin" | "process" | "end" | "dynamicparam" | "clean" | "parallel" | "sequence" | "inlinescript" => {
                self.body()
            }
            "return" | "throw" | "exit" | "break" | "continue" => {
                self.blanks();
                self.world.shown = Some(self.span(start));
                match self.peek() {
                    None | Some(';' | '\n' | '}' | ')' | '\r') => Value::Null,
                    _ => self.statement(),
                }
            }
            "param" => {
                self.blanks();
                self.parameters();
                Value::Null
            }
            "class" | "enum" | "configuration" | "data" | "using" => {
                if word == "using" {
                    self.take_while(|c| c != '\n' && c != ';');
                    self.opaque(start, "loads a module or a type");
                } else {
                    self.take_while(|c| c != '{' && c != '\n');
                    self.opaque(start, "defines a type, which is not read");
                    if self.peek() == Some('{') {
                        self.perhaps(Self::body);
                    }
                }
                Value::Null
            }
            _ => self.chain(start),
        }
    }

    /// Takes a word that begins a statement; nothing where there is none.
    fn keyword(&mut self) -> String {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or("").to_ascii_lowercase();
        let after = rest.get(length..).unwrap_or("");
        let next = after.chars().next().map(plain);
        let blank = after.trim_start_matches(|c| plain(c) == ' ' || c == '\n' || c == '\r').chars().next();
        let found = match word.as_str() {
            "if" | "elseif" | "while" | "until" | "for" | "foreach" | "param" => blank == Some('('),
            "switch" => matches!(blank, Some('(' | '-')),
            "do" | "try" | "else" | "finally" | "begin" | "process" | "end" | "dynamicparam" | "clean" | "parallel"
            | "sequence" | "inlinescript" => blank == Some('{'),
            "catch" | "trap" => matches!(blank, Some('{' | '[')),
            "function" | "filter" | "workflow" | "class" | "enum" | "configuration" | "using" => next == Some(' '),
            "data" => blank == Some('{'),
            "return" | "throw" | "exit" | "break" | "continue" => {
                !next.is_some_and(|c| names(c) || c == '-' || c == '.')
            }
            _ => false,
        };
        if found {
            self.at += length;
            word
        } else {
            String::new()
        }
    }

    fn in_parentheses(&mut self) -> Value {
        self.lines();
        let opened = self.at;
        if !self.eat_char('(') {
            self.opaque(opened, "is control flow that is not read");
            return Value::Null;
        }
        let value = self.bracketed(true, Value::Null, |run| {
            run.lines();
            run.statement()
        });
        self.close(')', opened);
        value
    }

    /// `{ … }`, read where it stands.
    fn body(&mut self) -> Value {
        self.lines();
        let opened = self.at;
        if !self.eat_char('{') {
            self.opaque(opened, "is control flow that is not read");
            return Value::Null;
        }
        let made = self.bracketed(false, Value::Null, |run| run.statements(Some('}')));
        self.close('}', opened);
        made
    }

    fn condition(&mut self) -> Value {
        self.in_parentheses();
        let mut made = self.perhaps(Self::body).items();
        loop {
            let before = self.at;
            self.lines();
            match self.keyword().as_str() {
                "elseif" => {
                    self.in_parentheses();
                    made.extend(self.perhaps(Self::body).items());
                }
                "else" => made.extend(self.perhaps(Self::body).items()),
                _ => {
                    self.at = before;
                    break;
                }
            }
        }
        Value::unknown("$(…)")
    }

    fn attempt(&mut self) -> Value {
        self.lines();
        while self.peek() == Some('[') {
            self.take_while(|c| c != '{' && c != '\n');
            self.lines();
        }
        let made = self.perhaps(Self::body);
        let before = self.at;
        self.lines();
        match self.keyword().as_str() {
            "catch" | "finally" => {
                self.attempt();
            }
            _ => self.at = before,
        }
        made
    }

    /// What runs many times is read twice: what it gives to variables holds when it begins again.
    fn in_loop(&mut self, work: impl Fn(&mut Self)) -> Value {
        let start = self.at;
        let (commands, opaque) = (self.world.reading.commands.len(), self.world.reading.opaque.len());
        let before = self.world.given.len();
        self.perhaps(|run| work(run));
        if self.world.given.len() > before {
            self.world.reading.opaque.truncate(opaque);
            let _ = commands;
            self.at = start;
            self.perhaps(|run| work(run));
        }
        Value::unknown("$(…)")
    }

    fn for_head(&mut self) {
        self.lines();
        let opened = self.at;
        if !self.eat_char('(') {
            self.opaque(opened, "is control flow that is not read");
            return;
        }
        self.bracketed(false, (), |run| {
            run.statements(Some(')'));
        });
        self.close(')', opened);
    }

    fn foreach(&mut self) -> Value {
        self.lines();
        let opened = self.at;
        self.bump();
        let (name, items) = self.bracketed(true, (String::new(), Value::Null), |run| {
            run.lines();
            let name = match run.peek() {
                Some('$') => run.variable().1.unwrap_or_default(),
                _ => String::new(),
            };
            run.lines();
            if !run.take_while(|c| c.is_ascii_alphabetic()).eq_ignore_ascii_case("in") {
                run.opaque(opened, "is control flow that is not read");
            }
            run.lines();
            (name, run.statement())
        });
        self.close(')', opened);
        let body = self.at;
        let known = match &items {
            Value::List(items) if items.len() <= MAX_UNROLLED && !items.is_empty() => items.clone(),
            Value::List(_) => Vec::new(),
            Value::Null => Vec::new(),
            one => vec![one.clone()],
        };
        if known.is_empty() {
            let unknown = Value::unknown(format!("${name}"));
            return self.in_loop(move |run| {
                run.give(&name, unknown.clone());
                run.body();
            });
        }
        let mut made = Vec::new();
        let before = self.world.given.len();
        for item in known {
            self.at = body;
            self.give(&name, item);
            made.extend(self.body().items());
        }
        let given = self.world.given.len();
        if self.world.perhaps > 0 {
            self.world.given.truncate(given);
        }
        let _ = before;
        list(made)
    }

    fn switch(&mut self) -> Value {
        self.lines();
        while self.peek_plain() == Some('-') {
            self.take_while(|c| !matches!(plain(c), ' ' | '\n' | '('));
            self.lines();
        }
        let subject = self.at;
        let value = if self.peek() == Some('(') {
            self.in_parentheses()
        } else {
            // `switch -File x`: its lines are what is looked at.
            self.unary();
            self.lines();
            self.opaque(subject, "reads a file line by line");
            Value::unknown("$_")
        };
        self.give("_", value);
        self.lines();
        let opened = self.at;
        if !self.eat_char('{') {
            self.opaque(opened, "is control flow that is not read");
            return Value::Null;
        }
        self.bracketed(false, (), |run| {
            run.perhaps(|run| {
                loop {
                    run.lines();
                    let start = run.at;
                    match run.peek_plain() {
                        None | Some('}') => break,
                        Some(';') => {
                            run.bump();
                        }
                        Some('{') => {
                            run.body();
                        }
                        Some(c) if c.is_alphabetic() => {
                            run.take_while(|c| !plain(c).is_whitespace() && c != '{');
                        }
                        Some(_) => {
                            run.expression();
                        }
                    }
                    if run.at == start {
                        run.bump();
                    }
                }
            });
        });
        self.close('}', opened);
        Value::unknown("$(…)")
    }

    /// A function's body is read where it stands, with nothing known of what it is given, and again where it is called.
    fn function(&mut self) -> Value {
        self.blanks();
        let start = self.at;
        let name =
            self.take_while(|c| !plain(c).is_whitespace() && !matches!(c, '{' | '(' | '\n' | ';')).replace('`', "");
        let name = super::scan::bare(&name);
        self.lines();
        let mut parameters = String::new();
        if self.peek() == Some('(') {
            let from = self.at;
            self.parameters();
            parameters = format!("param{};", self.since(from));
            self.lines();
        }
        let opened = self.at;
        if !self.eat_char('{') {
            self.opaque(start, "is a function that is not read");
            return Value::Null;
        }
        let inside = self.at;
        self.perhaps(|run| {
            run.bracketed(false, (), |run| {
                run.statements(Some('}'));
            });
        });
        let source = format!("{parameters}{}", self.since(inside));
        self.close('}', opened);
        let block = Block { source: source.into(), span: self.span(start) };
        if self.world.perhaps > 0 || self.world.functions.contains_key(&name) {
            self.opaque(start, super::scan::CHANGES_NAMES);
        }
        self.world.functions.insert(name, block);
        self.world.shown = Some(self.span(start));
        Value::Null
    }

    /// `( [type]$name = default, … )`: each gets what the call gave it, or its default, or nobody knows.
    fn parameters(&mut self) {
        let opened = self.at;
        if !self.eat_char('(') {
            self.opaque(opened, "are parameters that are not read");
            return;
        }
        let mut given = self.world.variables.get("args").map(Value::items).unwrap_or_default().into_iter();
        let named: Vec<(String, Value)> = match self.world.variables.get(" named") {
            Some(Value::Table(pairs)) => pairs.clone(),
            _ => Vec::new(),
        };
        self.bracketed(true, (), |run| {
            loop {
                run.lines();
                let start = run.at;
                match run.peek() {
                    None | Some(')') => return,
                    Some(',') => {
                        run.bump();
                    }
                    Some('[') => {
                        run.attribute();
                    }
                    Some('$') => {
                        let name = run.variable().1.unwrap_or_default();
                        run.lines();
                        let default = if run.eat_char('=') {
                            run.lines();
                            run.commas = super::scan::Commas::End;
                            Some(run.expression())
                        } else {
                            None
                        };
                        let by_name = named
                            .iter()
                            .find(|(known, _)| known.eq_ignore_ascii_case(&name))
                            .map(|(_, value)| value.clone());
                        let value = by_name.or_else(|| given.next());
                        // A default may be overridden by whoever calls it another time.
                        let value = value.unwrap_or_else(|| match default {
                            Some(default) if run.world.calls > 0 => default,
                            _ => Value::unknown(format!("${name}")),
                        });
                        run.give(&name, value);
                    }
                    Some(_) => {
                        run.expression();
                    }
                }
                if run.at == start {
                    run.bump();
                }
            }
        });
        self.close(')', opened);
    }

    fn attribute(&mut self) {
        let mut depth = 0_u32;
        while let Some(c) = self.peek() {
            match c {
                '[' | '(' => depth += 1,
                ']' | ')' => depth = depth.saturating_sub(1),
                '{' => {
                    self.block();
                    continue;
                }
                '\'' => {
                    self.single();
                    continue;
                }
                '"' => {
                    self.double();
                    continue;
                }
                _ => {}
            }
            self.bump();
            if depth == 0 {
                return;
            }
        }
    }

    /// Pipelines joined by `&&` and `||`.
    fn chain(&mut self, start: usize) -> Value {
        let mut made = self.pipeline();
        loop {
            self.blanks();
            let joined = self.rest().starts_with("&&") || self.rest().starts_with("||");
            if !joined {
                break;
            }
            self.at += 2;
            self.lines();
            made = self.perhaps(Self::pipeline);
        }
        if self.peek() == Some('&') {
            self.bump();
        }
        if self.at == start {
            self.bump();
            self.opaque(start, "is not read");
        }
        made
    }

    pub(super) fn pipeline(&mut self) -> Value {
        self.world.pipelines += 1;
        let number = self.world.pipelines;
        let mut piped: Option<Value> = None;
        loop {
            self.blanks();
            let start = self.at;
            let before = (self.world.variables.get("_").cloned(), self.world.variables.get("psitem").cloned());
            if let Some(piped) = &piped {
                let item = match piped {
                    Value::List(items) if items.len() == 1 => items.first().cloned().unwrap_or(Value::Null),
                    Value::List(_) => Value::unknown("$_"),
                    other => other.clone(),
                };
                self.world.variables.insert("_".to_owned(), item.clone());
                self.world.variables.insert("psitem".to_owned(), item);
            }
            let is_first = piped.is_none();
            let made = if self.begins_expression() {
                self.expression_stage(is_first)
            } else {
                self.command(piped.take(), number)
            };
            for (name, value) in [("_", before.0), ("psitem", before.1)] {
                match value {
                    Some(value) => self.world.variables.insert(name.to_owned(), value),
                    None => self.world.variables.remove(name),
                };
            }
            self.blanks();
            let ends_line = self.peek() == Some('\n') || self.rest().starts_with("\r\n");
            let goes_on =
                ends_line && self.rest().trim_start().starts_with('|') && !self.rest().trim_start().starts_with("||");
            if goes_on {
                self.lines();
            }
            if self.peek() != Some('|') || self.rest().starts_with("||") {
                return made;
            }
            self.bump();
            self.lines();
            if self.at == start || self.peek().is_none() {
                return made;
            }
            piped = Some(made);
        }
    }

    fn begins_expression(&self) -> bool {
        let second = self.second();
        match self.peek_plain() {
            Some('$' | '@' | '\'' | '"' | '(' | '[' | '{' | '!' | ',') => true,
            Some('+') => true,
            Some('-') => {
                let rest = self.rest().get(1..).unwrap_or("").to_lowercase();
                second.is_some_and(|c| c.is_ascii_digit() || matches!(c, '$' | '(' | '-'))
                    || ["join", "not", "split", "bnot", "isplit", "csplit"].iter().any(|word| rest.starts_with(word))
            }
            Some(c) if c.is_ascii_digit() => {
                let rest = self.rest();
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len());
                let word = rest.get(..end).unwrap_or("");
                let number =
                    word.chars().all(|c| c.is_ascii_digit() || c == '.') || super::value::number(word).is_some();
                number
                    && !matches!(rest.get(end..).and_then(|rest| rest.chars().next()), Some('\\' | '/' | '-' | '_') if !word.contains('.'))
            }
            _ => false,
        }
    }

    fn expression_stage(&mut self, is_first: bool) -> Value {
        let start = self.at;
        self.targets.clear();
        let value = self.expression();
        self.blanks();
        let rest = self.rest();
        let operator =
            ["??=", "+=", "-=", "*=", "/=", "%=", "="].into_iter().find(|operator| rest.starts_with(operator));
        if let (Some(operator), true) = (operator, is_first) {
            self.at += operator.len();
            let targets = std::mem::take(&mut self.targets);
            self.lines();
            let right = self.statement();
            self.assign(targets, operator, &value, right, start);
            self.world.shown = Some(self.span(start));
            return Value::Null;
        }
        self.targets.clear();
        self.world.shown = Some(self.span(start));
        self.redirections(start, self.world.pipelines);
        value
    }

    fn assign(&mut self, targets: Vec<Target>, operator: &str, before: &Value, right: Value, start: usize) {
        let many = targets.len() > 1;
        for (index, target) in targets.into_iter().enumerate() {
            let value = match (many, &right) {
                (true, Value::List(items)) => items.get(index).cloned().unwrap_or(Value::Null),
                (true, _) => Value::unknown(format!("${}", target.name)),
                _ if operator == "=" => right.clone(),
                _ => binary(operator.trim_end_matches('='), before, &right),
            };
            match target.part {
                Part::Whole => self.give_checked(&target.name, value, start),
                Part::Element => self.give(&target.name, Value::unknown(format!("${}", target.name))),
                Part::Property(name) => self.set_property(&target.name, &name, &value, start),
            }
        }
    }

    /// Variables that change what names mean or what other programs do are told.
    fn give_checked(&mut self, name: &str, value: Value, start: usize) {
        let bare = super::scan::bare(name);
        if let Some((drive, rest)) = bare.split_once(':') {
            match drive {
                "env" => {
                    let span = self.span(start);
                    let text = value.text().0;
                    let pipeline = self.world.pipelines;
                    self.emit(Command {
                        assignments: vec![format!("{}={text}", rest.to_uppercase())],
                        span,
                        pipeline,
                        ..Command::default()
                    });
                }
                "function" | "alias" => self.opaque(start, super::scan::CHANGES_NAMES),
                _ => self.write_drive(&bare, &value, start),
            }
        }
        if matches!(
            bare.as_str(),
            "psdefaultparametervalues" | "psmoduleautoloadingpreference" | "outputencoding" | "errorview"
        ) && bare != "outputencoding"
        {
            self.opaque(start, "changes what commands are given from here on");
        }
        self.give(name, value);
    }

    /// `${C:\file} = …` writes a file.
    fn write_drive(&mut self, path: &str, value: &Value, start: usize) {
        let span = self.span(start);
        let args = vec![super::dotnet::one_word(&Value::sure(path), span), super::dotnet::one_word(value, span)];
        let pipeline = self.world.pipelines;
        self.emit(Command { program: "Set-Content".to_owned(), args, span, pipeline, ..Command::default() });
    }

    fn set_property(&mut self, of: &str, name: &str, value: &Value, start: usize) {
        let held = self.world.variables.get(&super::scan::bare(of)).cloned();
        if let Some(Value::Table(mut pairs)) = held {
            pairs.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            pairs.push((name.to_owned(), value.clone()));
            self.give(of, Value::Table(pairs));
            return;
        }
        let span = self.span(start);
        let program =
            if of.starts_with('[') { format!("{}=", of.to_lowercase()) } else { format!(".{}=", name.to_lowercase()) };
        let mut args: Vec<Word> = Vec::new();
        if !of.starts_with('[') {
            let held = held.unwrap_or_else(|| Value::unknown(format!("${of}")));
            args.push(super::dotnet::one_word(&held, span));
        }
        args.push(super::dotnet::one_word(value, span));
        let pipeline = self.world.pipelines;
        self.emit(Command { program, args, span, pipeline, ..Command::default() });
    }

    /// Takes redirections of an expression.
    fn redirections(&mut self, start: usize, pipeline: usize) {
        let mut found: Vec<Redirection> = Vec::new();
        self.blanks();
        while let Some(redirection) = self.redirection() {
            found.extend(redirection);
            self.blanks();
        }
        if !found.is_empty() {
            let span = self.span(start);
            self.emit(Command { redirections: found, span, pipeline, ..Command::default() });
        }
    }

    /// Takes a redirection; none where there is none.
    pub(super) fn redirection(&mut self) -> Option<Option<Redirection>> {
        let rest = self.rest();
        let body = rest.strip_prefix(|c: char| c.is_ascii_digit() || c == '*').unwrap_or(rest);
        if !body.starts_with('>') && !(body.len() == rest.len() && body.starts_with('<')) {
            return None;
        }
        let start = self.at;
        self.at += rest.len() - body.len();
        let operator = if self.eat(">>") {
            ">>"
        } else if self.eat(">") {
            ">"
        } else {
            "<"
        };
        if operator == "<" {
            self.bump();
        }
        if self.eat("&") {
            self.bump();
            return Some(None);
        }
        self.blanks();
        let value = self.argument();
        let (target, certainty) = value.text();
        if certainty == crate::reader::Certainty::Unknown {
            self.opaque(start, "goes to a file whose name is filled in when it runs");
        }
        if target.eq_ignore_ascii_case("null") || target.is_empty() && matches!(value, Value::Null) {
            return Some(None);
        }
        Some(Some(Redirection { operator: operator.to_owned(), target, certainty }))
    }
}
