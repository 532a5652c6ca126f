//! What PowerShell's expressions become, as far as the text alone says.

use std::rc::Rc;

use regex::RegexBuilder;

use crate::reader::{Certainty, Span0};

/// Texts that are longer are not kept.
pub(super) const MAX_TEXT: usize = 1 << 16;
/// Lists that are longer are not kept.
const MAX_LIST: usize = 1 << 13;
/// Texts and patterns that are longer are not matched.
const MAX_MATCHED: usize = 1 << 12;
const MAX_PATTERN: usize = 64;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    /// With [`Certainty::Unknown`], some or all of it is known only when it runs.
    Text(String, Certainty),
    Number(i64),
    Truth(bool),
    List(Vec<Value>),
    /// A table of names and values.
    Table(Vec<(String, Value)>),
    Block(Block),
    Type(String),
    /// Something made by `New-Object` and its like.
    Object(String),
    /// What `Get-Command` answers.
    Named(String),
}

/// A script block.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) source: Rc<str>,
    pub(super) span: Span0,
}

impl Value {
    pub(super) fn sure(text: impl Into<String>) -> Self {
        Self::Text(text.into(), Certainty::Sure)
    }

    pub(super) fn unknown(written: impl Into<String>) -> Self {
        Self::Text(written.into(), Certainty::Unknown)
    }

    /// Returns it as text, with how sure that is.
    pub(super) fn text(&self) -> (String, Certainty) {
        match self {
            Self::Null => (String::new(), Certainty::Sure),
            Self::Text(text, certainty) => (text.clone(), *certainty),
            Self::Number(number) => (number.to_string(), Certainty::Sure),
            Self::Truth(true) => ("True".to_owned(), Certainty::Sure),
            Self::Truth(false) => ("False".to_owned(), Certainty::Sure),
            Self::List(items) => join(items, " "),
            Self::Table(pairs) => {
                let mut certainty = Certainty::Sure;
                let mut parts = Vec::new();
                for (name, value) in pairs {
                    let (text, known) = value.text();
                    certainty = certainty.max(known);
                    parts.push(format!("{name}={text}"));
                }
                (format!("@{{{}}}", parts.join("; ")), certainty)
            }
            Self::Block(block) => (block.source.to_string(), Certainty::Sure),
            Self::Type(name) | Self::Named(name) => (name.clone(), Certainty::Sure),
            Self::Object(name) => (name.clone(), Certainty::Unknown),
        }
    }

    /// Returns it as an argument shows it.
    pub(super) fn argument(&self) -> (String, Certainty) {
        match self {
            Self::Truth(true) => ("$true".to_owned(), Certainty::Sure),
            Self::Truth(false) => ("$false".to_owned(), Certainty::Sure),
            Self::Null => ("$null".to_owned(), Certainty::Sure),
            Self::List(items) => {
                let shown: Vec<_> = items.iter().map(Self::argument).collect();
                let certainty = shown.iter().map(|(_, certainty)| *certainty).max().unwrap_or_default();
                (shown.into_iter().map(|(text, _)| text).collect::<Vec<_>>().join(","), certainty)
            }
            other => other.text(),
        }
    }

    /// Returns it as text where all of it is known.
    pub(super) fn known(&self) -> Option<String> {
        let (text, certainty) = self.text();
        (certainty != Certainty::Unknown).then_some(text)
    }

    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Truth(truth) => Some(i64::from(*truth)),
            Self::Text(text, Certainty::Sure) => number(text),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> Vec<Self> {
        match self {
            Self::List(items) => items.clone(),
            Self::Null => Vec::new(),
            other => vec![other.clone()],
        }
    }

    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Text(_, certainty) => *certainty == Certainty::Unknown,
            Self::Object(_) => true,
            Self::List(items) => items.iter().any(Self::is_open),
            Self::Table(pairs) => pairs.iter().any(|(_, value)| value.is_open()),
            _ => false,
        }
    }
}

/// Returns the number that a text spells, by tens or by sixteens.
pub(super) fn number(text: &str) -> Option<i64> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    match lower.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => lower.parse().ok(),
    }
}

pub(super) fn list(items: Vec<Value>) -> Value {
    if items.len() > MAX_LIST { Value::unknown("@(…)") } else { Value::List(items) }
}

fn text(text: String, certainty: Certainty) -> Value {
    if text.len() > MAX_TEXT { Value::unknown("…") } else { Value::Text(text, certainty) }
}

pub(super) fn join(items: &[Value], between: &str) -> (String, Certainty) {
    let (mut whole, mut certainty) = (String::new(), Certainty::Sure);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            whole.push_str(between);
        }
        let (text, known) = item.text();
        certainty = certainty.max(known);
        whole.push_str(&text);
        if whole.len() > MAX_TEXT {
            return ("…".to_owned(), Certainty::Unknown);
        }
    }
    (whole, certainty)
}

/// Returns what a binary operator, in lower case and without its dash, makes of two values.
pub(super) fn binary(operator: &str, left: &Value, right: &Value) -> Value {
    let named = operator.strip_prefix(['c', 'i']).filter(|rest| NAMED.contains(rest)).unwrap_or(operator);
    let cased = operator != named && operator.starts_with('c');
    match named {
        "+" => add(left, right),
        "-" | "/" | "%" | "bxor" | "band" | "bor" | "shl" | "shr" => numbers(named, left, right),
        "*" => times(left, right),
        "f" => format(left, right),
        "join" => {
            let (between, certainty) = right.text();
            let (whole, known) = join(&left.items(), &between);
            Value::Text(whole, known.max(certainty))
        }
        "split" => split(left, right, cased),
        "replace" => replace(left, right, cased),
        "as" => super::dotnet::cast(&right.text().0.to_lowercase(), left),
        ".." => range(left, right),
        "??" if matches!(left, Value::Null) => right.clone(),
        _ => Value::unknown("$(…)"),
    }
}

/// Operators that also exist with `c` and `i` before them.
const NAMED: &[&str] = &[
    "split",
    "replace",
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
];

fn add(left: &Value, right: &Value) -> Value {
    match (left, right) {
        (Value::List(items), right) => {
            let mut items = items.clone();
            items.extend(right.items());
            list(items)
        }
        (Value::Number(a), right) => match right.number().and_then(|b| a.checked_add(b)) {
            Some(sum) => Value::Number(sum),
            None => concat(left, right),
        },
        (Value::Null, right) => right.clone(),
        (Value::Table(pairs), Value::Table(more)) => Value::Table(pairs.iter().chain(more).cloned().collect()),
        _ => concat(left, right),
    }
}

fn concat(left: &Value, right: &Value) -> Value {
    let ((a, known), (b, certainty)) = (left.text(), right.text());
    text(a + &b, known.max(certainty))
}

fn numbers(operator: &str, left: &Value, right: &Value) -> Value {
    let (Some(a), Some(b)) = (left.number(), right.number()) else { return Value::unknown("$(…)") };
    let made = match operator {
        "-" => a.checked_sub(b),
        "/" => a.checked_rem(b).filter(|rest| *rest == 0).and_then(|_| a.checked_div(b)),
        "%" => a.checked_rem(b),
        "bxor" => Some(a ^ b),
        "band" => Some(a & b),
        "bor" => Some(a | b),
        "shl" => u32::try_from(b).ok().and_then(|by| a.checked_shl(by)),
        _ => u32::try_from(b).ok().and_then(|by| a.checked_shr(by)),
    };
    made.map_or_else(|| Value::unknown("$(…)"), Value::Number)
}

fn times(left: &Value, right: &Value) -> Value {
    match (left, right.number()) {
        (Value::Number(a), Some(b)) => a.checked_mul(b).map_or_else(|| Value::unknown("$(…)"), Value::Number),
        (Value::Text(part, certainty), Some(times)) => match usize::try_from(times) {
            Ok(times) if part.len().saturating_mul(times) <= MAX_TEXT => Value::Text(part.repeat(times), *certainty),
            _ => Value::unknown("$(…)"),
        },
        _ => Value::unknown("$(…)"),
    }
}

/// `"{1}{0}" -f 'b', 'a'`. A form that lays out or rounds is left alone.
pub(super) fn format(left: &Value, right: &Value) -> Value {
    let ((pattern, mut certainty), values) = (left.text(), right.items());
    let (mut whole, mut rest) = (String::new(), pattern.as_str());
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        whole.push_str(before);
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            whole.extend(from.chars().next());
            rest = after;
            continue;
        }
        let inside = from.strip_prefix('{').and_then(|from| from.split_once('}'));
        let value = inside.and_then(|(index, _)| values.get(index.trim().parse::<usize>().ok()?));
        let (Some((_, after)), Some(value)) = (inside, value) else { return Value::unknown(pattern) };
        let (part, known) = value.text();
        certainty = certainty.max(known);
        whole.push_str(&part);
        rest = after;
        if whole.len() > MAX_TEXT {
            return Value::unknown("…");
        }
    }
    whole.push_str(rest);
    text(whole, certainty)
}

fn pattern(pattern: &Value, cased: bool) -> Option<regex::Regex> {
    let pattern = pattern.known().filter(|pattern| pattern.len() <= MAX_PATTERN)?;
    RegexBuilder::new(&pattern).case_insensitive(!cased).size_limit(1 << 16).dfa_size_limit(1 << 16).build().ok()
}

fn matched(value: &Value) -> Option<(String, Certainty)> {
    let (text, certainty) = value.text();
    (certainty != Certainty::Unknown && text.len() <= MAX_MATCHED).then_some((text, certainty))
}

fn split(left: &Value, right: &Value, cased: bool) -> Value {
    let by = right.items();
    let (Some(regex), Some((text, certainty))) = (by.first().and_then(|by| pattern(by, cased)), matched(left)) else {
        return Value::unknown("$(…)");
    };
    if by.len() > 1 {
        return Value::unknown("$(…)");
    }
    list(regex.split(&text).map(|part| Value::Text(part.to_owned(), certainty)).collect())
}

fn replace(left: &Value, right: &Value, cased: bool) -> Value {
    let by = right.items();
    let new = by.get(1).map_or_else(|| Some(String::new()), Value::known);
    let (Some(regex), Some(new)) = (by.first().and_then(|by| pattern(by, cased)), new) else {
        return Value::unknown("$(…)");
    };
    let one = |value: &Value| match matched(value) {
        Some((whole, certainty)) => text(regex.replace_all(&whole, new.as_str()).into_owned(), certainty),
        None => Value::unknown("$(…)"),
    };
    match left {
        Value::List(items) => list(items.iter().map(one).collect()),
        other => one(other),
    }
}

fn range(left: &Value, right: &Value) -> Value {
    let (Some(from), Some(to)) = (left.number(), right.number()) else { return Value::unknown("$(…)") };
    if from.abs_diff(to) > 4_096 {
        return Value::unknown("$(…)");
    }
    let numbers: Vec<Value> = if from <= to {
        (from..=to).map(Value::Number).collect()
    } else {
        (to..=from).rev().map(Value::Number).collect()
    };
    Value::List(numbers)
}

/// `'abc'[0]`, `(1, 2)[-1..0]`, `$table['name']`.
pub(super) fn index(of: &Value, by: &Value) -> Value {
    if let Value::Table(pairs) = of {
        let name = by.text().0;
        let found = pairs.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
        return found.map_or(Value::Null, |(_, value)| value.clone());
    }
    if of.is_open() && !matches!(of, Value::List(_)) {
        return Value::unknown("$(…)");
    }
    let items: Vec<Value> = match of {
        Value::Text(text, certainty) => text.chars().map(|c| Value::Text(c.to_string(), *certainty)).collect(),
        other => other.items(),
    };
    let at = |by: &Value| {
        let index = by.number()?;
        let length = i64::try_from(items.len()).ok()?;
        let index = usize::try_from(if index < 0 { index + length } else { index }).ok()?;
        Some(items.get(index).cloned().unwrap_or(Value::Null))
    };
    match by {
        Value::List(many) => list(many.iter().filter_map(at).collect()),
        one => at(one).unwrap_or_else(|| Value::unknown("$(…)")),
    }
}
