//! Expressions: what they call, and what they become.

use super::lex::{escaped, names, plain};
use super::scan::{Commas, Part, Run, Target};
use super::value::{self, Block, Value, binary, index, list};
use crate::reader::Certainty;

/// Binary operators of words, in lower case, from loose to tight.
const WORDS: &[&[&str]] = &[
    &["and", "or", "xor"],
    &["band", "bor", "bxor", "shl", "shr"],
    &[
        "eq",
        "ne",
        "gt",
        "ge",
        "lt",
        "le",
        "like",
        "notlike",
        "match",
        "notmatch",
        "contains",
        "notcontains",
        "in",
        "notin",
        "replace",
        "split",
        "join",
        "is",
        "isnot",
        "as",
    ],
    &[],
    &[],
    &["f"],
    &[],
];

impl Run<'_, '_, '_> {
    pub(super) fn expression(&mut self) -> Value {
        let value = self.binary(0);
        self.blanks();
        if self.peek() == Some('?') && !self.rest().starts_with("?.") {
            let start = self.at;
            self.bump();
            if self.eat("?") {
                self.lines();
                let other = self.binary(0);
                return binary("??", &value, &other);
            }
            self.lines();
            self.binary(0);
            self.lines();
            if !self.eat_char(':') {
                self.opaque(start, "is an expression that is not read");
            }
            self.lines();
            self.binary(0);
            return Value::unknown("$(…)");
        }
        value
    }

    fn binary(&mut self, level: usize) -> Value {
        if level >= WORDS.len() {
            return self.comma_list();
        }
        let mut left = self.binary(level + 1);
        while let Some(operator) = self.operator(level) {
            self.lines();
            let right = self.binary(level + 1);
            left = binary(&operator, &left, &right);
            self.charge(&left);
        }
        left
    }

    /// Takes an operator of this level.
    fn operator(&mut self, level: usize) -> Option<String> {
        let before = self.at;
        self.blanks();
        let found = self.operator_here(level);
        if found.is_none() {
            self.at = before;
        }
        found
    }

    fn operator_here(&mut self, level: usize) -> Option<String> {
        let c = self.peek_plain()?;
        let second = self.second();
        if c == '-' && second.is_some_and(|c| c.is_ascii_alphabetic()) {
            let start = self.at;
            self.bump();
            let word = self.take_while(|c| c.is_ascii_alphabetic()).to_lowercase();
            let bare = word.strip_prefix(['c', 'i']).unwrap_or(&word);
            let known = WORDS.get(level).copied().unwrap_or(&[]);
            if known.contains(&word.as_str()) || (level == 2 && known.contains(&bare)) {
                return Some(word);
            }
            self.at = start;
            return None;
        }
        let plain = match (level, c) {
            (3, '+') if second != Some('=') && second != Some('+') => "+",
            (3, '-') if second != Some('=') && second != Some('-') => "-",
            (4, '*') if second != Some('=') => "*",
            (4, '/') if second != Some('=') => "/",
            (4, '%') if second != Some('=') => "%",
            (6, '.') if second == Some('.') => "..",
            _ => return None,
        };
        for _ in plain.chars() {
            self.bump();
        }
        Some(plain.to_owned())
    }

    fn comma_list(&mut self) -> Value {
        match self.commas {
            Commas::End => self.unary(),
            Commas::Join => self.listed(Self::unary),
        }
    }

    pub(super) fn unary(&mut self) -> Value {
        self.nested(Value::unknown("$(…)"), Self::unary_here)
    }

    fn unary_here(&mut self) -> Value {
        self.blanks();
        let start = self.at;
        let second = self.second();
        match self.peek_plain() {
            Some('!') => {
                self.bump();
                self.unary();
                Value::unknown("$(…)")
            }
            Some(',') => {
                self.bump();
                let value = self.unary();
                Value::List(vec![value])
            }
            Some('+' | '-') if second == self.peek_plain() => {
                self.bump();
                self.bump();
                self.unary();
                self.change_targets();
                Value::unknown("$(…)")
            }
            Some('+') => {
                self.bump();
                self.unary()
            }
            Some('-') if second.is_some_and(|c| c.is_ascii_alphabetic()) => {
                self.bump();
                let word = self.take_while(|c| c.is_ascii_alphabetic()).to_lowercase();
                self.blanks();
                let value = self.unary();
                match word.as_str() {
                    "join" => {
                        let (whole, certainty) = value::join(&value.items(), "");
                        Value::Text(whole, certainty)
                    }
                    "split" | "isplit" | "csplit" => value::words(&value),
                    "not" | "bnot" => Value::unknown("$(…)"),
                    _ => {
                        self.opaque(start, "is an operator that is not known");
                        Value::unknown("$(…)")
                    }
                }
            }
            Some('-') => {
                self.bump();
                let value = self.unary();
                value.number().and_then(i64::checked_neg).map_or_else(|| Value::unknown("$(…)"), Value::Number)
            }
            Some('[') => self.type_or_cast(),
            _ => self.primary(),
        }
    }

    /// `[type]value`, `[type]::member`, `[type]`, and attributes.
    fn type_or_cast(&mut self) -> Value {
        let start = self.at;
        let name = self.type_name();
        if name.contains('(') {
            // An attribute, such as `[Parameter(Mandatory)]`; what follows it is what it speaks of.
            self.lines();
            return if self.begins_operand() { self.unary() } else { Value::Null };
        }
        let short = super::dotnet::short(&name);
        if self.rest().trim_start_matches(' ').starts_with("::") {
            let value = Value::Type(short);
            return self.postfix(value, start, None);
        }
        let before = self.at;
        self.blanks();
        if self.begins_operand() {
            let value = self.unary();
            if short == "ref" {
                // Whoever gets it can give the variable another value.
                self.change_targets();
            }
            return self.cast(&short, value, start);
        }
        self.at = before;
        self.postfix(Value::Type(short), start, None)
    }

    fn begins_operand(&self) -> bool {
        match self.peek_plain() {
            Some('$' | '@' | '(' | '"' | '\'' | '[' | '{') => true,
            Some(c) => {
                c.is_ascii_digit() || (c == '-' && self.second().is_some_and(|c| c.is_ascii_digit() || c == 'j'))
            }
            None => false,
        }
    }

    /// Takes a type's name with its brackets; what stands in parentheses belongs to it.
    fn type_name(&mut self) -> String {
        let start = self.at;
        self.bump();
        let (mut depth, mut name) = (1_u32, String::new());
        while let Some(c) = self.peek() {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                '(' => {
                    name.push(c);
                    let opened = self.at;
                    self.bump();
                    self.bracketed(true, (), |run| {
                        run.method_arguments(opened);
                    });
                    continue;
                }
                '\n' | ';' | '|' => break,
                _ => {}
            }
            self.bump();
            if depth == 0 {
                return name;
            }
            if c != '`' && !plain(c).is_whitespace() {
                name.push(c);
            }
        }
        self.opaque(start, "opens a bracket that does not close as it should");
        name
    }

    fn primary(&mut self) -> Value {
        let start = self.at;
        let mut target = None;
        let value = match self.peek_plain() {
            Some('$') => {
                let (value, name) = self.variable();
                target = name;
                value
            }
            Some('\'') => self.single(),
            Some('"') => self.double(),
            Some('@') => self.at_sign(),
            Some('(') => {
                self.bump();
                let value = self.bracketed(true, Value::unknown("$(…)"), |run| run.inside_parentheses());
                self.close(')', start);
                value
            }
            Some('{') => self.block(),
            Some(c) if c.is_ascii_digit() || c == '.' => self.number_here(),
            Some(c) if c.is_alphabetic() => {
                // In an expression a bare word is an error; it is read as text so that what follows is seen.
                let word = self.take_while(names).to_owned();
                self.opaque(start, "is no expression");
                Value::unknown(word)
            }
            Some(_) => {
                self.bump();
                self.opaque(start, "is no expression");
                Value::unknown("")
            }
            None => Value::Null,
        };
        self.postfix(value, start, target)
    }

    fn number_here(&mut self) -> Value {
        let start = self.at;
        let mut dots = 0_u32;
        while let Some(c) = self.peek() {
            let range = c == '.' && self.second() == Some('.');
            if range || !(c.is_ascii_alphanumeric() || c == '.') || (c == '.' && dots > 0) {
                break;
            }
            dots += u32::from(c == '.');
            self.bump();
        }
        if self.at == start {
            self.bump();
        }
        let text = self.since(start);
        value::number(text).map_or_else(|| Value::unknown(text), Value::Number)
    }

    fn inside_parentheses(&mut self) -> Value {
        self.lines();
        let value = self.statement();
        self.lines();
        value
    }

    /// `@( … )`, `@{ … }`, here-strings, `@name`.
    fn at_sign(&mut self) -> Value {
        let start = self.at;
        match self.second() {
            Some('(') => {
                self.bump();
                self.bump();
                let value = self.bracketed(false, Value::Null, |run| run.statements());
                self.close(')', start);
                list(value.items())
            }
            Some('{') => {
                self.bump();
                self.bump();
                let pairs = self.bracketed(false, Vec::new(), Self::table);
                self.close('}', start);
                Value::Table(pairs)
            }
            Some('\'' | '"') if self.is_here_string() => self.here_string(),
            _ => {
                self.bump();
                let name = self.take_while(names).to_owned();
                self.opaque(start, "spreads what a variable holds");
                Value::unknown(format!("@{name}"))
            }
        }
    }

    fn table(&mut self) -> Vec<(String, Value)> {
        let mut pairs = Vec::new();
        loop {
            self.lines();
            while self.eat_char(';') {
                self.lines();
            }
            let start = self.at;
            let name = match self.peek_plain() {
                None | Some('}') => return pairs,
                Some(c) if names(c) => self.take_while(|c| names(c) || c == '-' || c == '.').to_owned(),
                Some(_) => self.unary().text().0,
            };
            self.blanks();
            if !self.eat_char('=') {
                self.opaque(start, "is a table that is not read");
                if self.at == start {
                    self.bump();
                }
                continue;
            }
            self.lines();
            let value = self.statement();
            pairs.push((name, value));
        }
    }

    /// A script block: what it runs is looked at where it stands, whoever runs it and when.
    pub(super) fn block(&mut self) -> Value {
        let start = self.at;
        self.bump();
        let inside = self.at;
        // Nobody knows whether it runs, nor in whose scope.
        self.perhaps(|run| {
            run.bracketed(false, (), |run| {
                run.statements();
            });
        });
        let source = self.since(inside);
        let source = source.into();
        self.close('}', start);
        Value::Block(Block { source, span: self.span(start) })
    }

    /// A variable, with its name where a value can be given to it.
    pub(super) fn variable(&mut self) -> (Value, Option<String>) {
        let start = self.at;
        self.bump();
        match self.peek() {
            Some('(') => {
                self.bump();
                let value = self.bracketed(false, Value::Null, |run| run.statements());
                self.close(')', start);
                (value, None)
            }
            Some('{') => {
                self.bump();
                let name = self.take_while(|c| c != '}').replace('`', "");
                if !self.eat_char('}') {
                    self.opaque(start, "opens a bracket that does not close as it should");
                }
                (self.lookup(&name), Some(name))
            }
            Some(c) if names(c) || c == ':' => {
                let mut name = self.take_while(names).to_owned();
                if self.peek() == Some(':') && self.second().is_some_and(names) {
                    self.bump();
                    name.push(':');
                    name.push_str(self.take_while(names));
                }
                (self.lookup(&name), Some(name))
            }
            Some(c @ ('?' | '$' | '^')) => {
                self.bump();
                (Value::unknown(format!("${c}")), None)
            }
            _ => (Value::sure("$"), None),
        }
    }

    fn lookup(&mut self, name: &str) -> Value {
        let bare = super::scan::bare(name);
        if let Some(value) = self.world.variables.get(&bare).cloned() {
            self.charge(&value);
            return value;
        }
        super::dotnet::automatic(&bare).unwrap_or_else(|| Value::unknown(format!("${name}")))
    }

    /// Members, elements and calls that follow a value.
    pub(super) fn postfix(&mut self, mut value: Value, start: usize, name: Option<String>) -> Value {
        let mut target = name.map(|name| Target { name, part: Part::Whole });
        let mut held: Option<(Value, String)> = None;
        loop {
            let rest = self.rest();
            let spaced = rest.trim_start_matches(' ');
            if spaced.starts_with("::") && !matches!(value, Value::Number(_)) {
                self.at += rest.len() - spaced.len() + 2;
                let of = value.text().0;
                let Some(member) = self.member() else { break };
                (value, held) = if self.peek() == Some('(') {
                    let given = self.arguments();
                    (self.call_static(&of, &member, &given, start), None)
                } else {
                    (super::dotnet::static_property(&of, &member), Some((Value::Type(of.clone()), member.clone())))
                };
                target = Some(Target { name: format!("[{of}]::{member}"), part: Part::Property(member) });
                continue;
            }
            let optional = rest.starts_with("?.") && rest.chars().nth(2).is_some_and(names);
            let dotted = rest.strip_prefix(if optional { "?." } else { "." });
            let next = dotted.and_then(|after| after.chars().next()).map(plain);
            if next.is_some_and(|c| names(c) || matches!(c, '$' | '\'' | '"' | '(' | ' ' | '\n' | '`'))
                && (!matches!(value, Value::Number(_)) || rest.starts_with(".T"))
                && (!matches!(next, Some(' ' | '\n')) || matches!(self.after_dot(), Some(c) if names(c)))
            {
                self.at += if optional { 2 } else { 1 };
                self.lines();
                let Some(member) = self.member() else { break };
                if matches!(self.peek(), Some('(' | '{')) {
                    let given = if self.peek() == Some('{') { vec![self.block()] } else { self.arguments() };
                    // `$x.Method.Invoke(…)` is `$x.Method(…)`.
                    value = match held.take().filter(|_| member.eq_ignore_ascii_case("invoke")) {
                        Some((Value::Type(of), method)) => self.call_static(&of, &method, &given, start),
                        Some((of, method)) => self.call_method(&of, &method, &given, start),
                        None => self.call_method(&value, &member, &given, start),
                    };
                } else {
                    held = Some((value.clone(), member.clone()));
                    value = super::dotnet::property(&value, &member);
                }
                target = target.map(|target| Target { part: Part::Property(member), ..target });
                continue;
            }
            if rest.starts_with('[') || rest.starts_with("?[") {
                self.eat("?");
                let opened = self.at;
                self.bump();
                let by = self.bracketed(true, Value::Null, Self::inside_parentheses);
                self.close(']', opened);
                value = index(&value, &by);
                target = target.map(|target| Target { part: Part::Element, ..target });
                held = None;
                continue;
            }
            if rest.starts_with("++") || rest.starts_with("--") {
                self.at += 2;
                self.targets.extend(target);
                self.change_targets();
                return Value::unknown("$(…)");
            }
            break;
        }
        self.targets.extend(target);
        value
    }

    fn after_dot(&self) -> Option<char> {
        self.rest().get(1..).unwrap_or("").chars().take(64).find(|c| !c.is_whitespace())
    }

    /// A member's name, which may be made by an expression.
    fn member(&mut self) -> Option<String> {
        self.blanks();
        let start = self.at;
        let name = match self.peek_plain()? {
            '$' => self.variable().0,
            '\'' => self.single(),
            '"' => self.double(),
            '(' => {
                self.bump();
                let value = self.bracketed(true, Value::Null, |run| run.inside_parentheses());
                self.close(')', start);
                value
            }
            _ => Value::sure(self.take_while(|c| names(c) || c == '`' || c == '?').replace('`', "")),
        };
        let (name, certainty) = name.text();
        if certainty == Certainty::Unknown {
            self.opaque(start, "is a member whose name is filled in when it runs");
        }
        (self.at > start).then_some(name)
    }

    pub(super) fn arguments(&mut self) -> Vec<Value> {
        let opened = self.at;
        self.bump();
        self.bracketed(true, Vec::new(), |run| run.method_arguments(opened))
    }

    /// What a method is given, up to its parenthesis.
    fn method_arguments(&mut self, opened: usize) -> Vec<Value> {
        self.commas = Commas::End;
        let mut given = Vec::new();
        loop {
            self.lines();
            let start = self.at;
            match self.peek() {
                None => {
                    self.opaque(opened, "opens a bracket that does not close as it should");
                    return given;
                }
                Some(')') => {
                    self.bump();
                    return given;
                }
                Some(',' | '=') => {
                    self.bump();
                }
                Some(c) if c.is_alphabetic() => {
                    // `Mandatory = $true` in an attribute.
                    let word = self.take_while(names).to_owned();
                    given.push(Value::sure(word));
                }
                Some(_) => given.push(self.expression()),
            }
            if self.at == start {
                self.bump();
            }
        }
    }

    pub(super) fn change_targets(&mut self) {
        for target in std::mem::take(&mut self.targets) {
            self.give(&target.name, Value::unknown(format!("${}", target.name)));
        }
    }

    /// A text in single quotes.
    pub(super) fn single(&mut self) -> Value {
        let start = self.at;
        let mut text = String::new();
        self.bump();
        while let Some(c) = self.bump() {
            if plain(c) == '\'' {
                if self.peek_plain() != Some('\'') {
                    return Value::sure(text);
                }
                self.bump();
            }
            text.push(c);
        }
        self.opaque(start, "opens a quote that never closes");
        Value::unknown(text)
    }

    /// A text in double quotes.
    pub(super) fn double(&mut self) -> Value {
        let start = self.at;
        let (mut text, mut certainty) = (String::new(), Certainty::Sure);
        self.bump();
        while let Some(c) = self.peek() {
            match plain(c) {
                '"' => {
                    self.bump();
                    if self.peek_plain() != Some('"') {
                        return Value::Text(text, certainty);
                    }
                    self.bump();
                    text.push('"');
                }
                _ => self.quoted_piece(&mut text, &mut certainty),
            }
        }
        self.opaque(start, "opens a quote that never closes");
        Value::unknown(text)
    }

    /// One character or expansion of a text that is filled in.
    pub(super) fn quoted_piece(&mut self, text: &mut String, certainty: &mut Certainty) {
        match self.peek() {
            Some('`') => {
                self.bump();
                text.extend(self.bump().map(escaped));
            }
            Some('$') if self.second().is_some_and(|c| names(c) || matches!(c, '(' | '{' | '$' | '?' | '^')) => {
                let targets = std::mem::take(&mut self.targets);
                let (value, _) = self.variable();
                self.targets = targets;
                let (part, known) = value.text();
                text.push_str(&part);
                *certainty = (*certainty).max(known);
                if text.len() > value::MAX_TEXT {
                    text.clear();
                    *certainty = Certainty::Unknown;
                }
            }
            _ => text.extend(self.bump()),
        }
    }

    fn is_here_string(&self) -> bool {
        self.rest().chars().skip(2).find(|c| !matches!(c, ' ' | '\t' | '\r')) == Some('\n')
    }

    fn here_string(&mut self) -> Value {
        let start = self.at;
        self.bump();
        let quote = self.peek_plain().unwrap_or('\'');
        self.take_while(|c| c != '\n');
        self.bump();
        let (mut text, mut certainty) = (String::new(), Certainty::Sure);
        let ends = |run: &Self| {
            let mut next = run.rest().chars();
            next.next().map(plain) == Some(quote) && next.next() == Some('@')
        };
        let mut at_line = true;
        while self.peek().is_some() {
            if at_line && ends(self) {
                self.bump();
                self.bump();
                if text.ends_with('\n') {
                    text.pop();
                }
                return Value::Text(text, certainty);
            }
            at_line = self.peek() == Some('\n');
            if quote == '"' { self.quoted_piece(&mut text, &mut certainty) } else { text.extend(self.bump()) }
        }
        self.opaque(start, "opens a quote that never closes");
        Value::unknown(text)
    }
}
