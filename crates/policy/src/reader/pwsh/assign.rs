//! What becomes of an expression's value: it is assigned, shown, or goes to a file.

use super::scan::{Part, Run, Target};
use super::value::{Value, binary};
use crate::reader::{Command, Redirection, Word};

impl Run<'_, '_, '_> {
    pub(super) fn expression_stage(&mut self, is_first: bool) -> Value {
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
                Part::Element => self.give_checked(&target.name, Value::unknown(format!("${}", target.name)), start),
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
        let reads = body.len() == rest.len() && body.starts_with('<');
        if !(reads || body.starts_with('>')) {
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
