//! Reading a query as FastAPI's clients know it: the last of repeated keys counts, unknown keys do not, and every fault of
//! every field is told at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::{Value, json};

use crate::lax;
use crate::problem::{Fault, Problem};

/// The largest position or offset that may be asked for: the largest whole number that every JSON reader keeps exact.
pub(crate) const MAX_POSITION: i64 = (1 << 53) - 1;

/// A query's fields, being checked.
pub(crate) struct Query {
    fields: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::read(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    pub(crate) fn read(query: &str) -> Self {
        // Collecting keeps the last of repeated keys.
        Self { fields: form_urlencoded::parse(query.as_bytes()).into_owned().collect(), faults: Vec::new() }
    }

    /// Takes a whole number of `min` to `max`.
    pub(crate) fn integer(&mut self, name: &'static str, min: i64, max: i64) -> Option<i64> {
        let text = self.fields.remove(name)?;
        let number = lax::integer(&text.as_str().into()).and_then(|number| lax::within(number, min, max));
        number.map_err(|fault| self.faults.push(fault.at(["query", name], text.into()))).ok()
    }

    /// Takes a whole number from 0 on.
    pub(crate) fn position(&mut self, name: &'static str) -> Option<u64> {
        self.integer(name, 0, MAX_POSITION).and_then(|number| u64::try_from(number).ok())
    }

    /// Takes a whole number from 0 on that must be there.
    pub(crate) fn needed_position(&mut self, name: &'static str) -> Option<u64> {
        if !self.fields.contains_key(name) {
            self.missing(name);
        }
        self.position(name)
    }

    /// Takes a yes or no.
    pub(crate) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let text = self.fields.remove(name)?;
        lax::flag(&text.as_str().into()).map_err(|fault| self.faults.push(fault.at(["query", name], text.into()))).ok()
    }

    /// Whether a field is there.
    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.fields.contains_key(name)
    }

    /// Takes a text as it is.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        self.fields.remove(name)
    }

    /// Takes one of a fixed list of words.
    pub(crate) fn word<T: Copy>(&mut self, name: &'static str, all: &[(&str, T)]) -> Option<T> {
        let text = self.fields.remove(name)?;
        let found = all.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let expected = either(all.iter().map(|(word, _)| *word));
            let fault =
                lax::Fault::new("enum", format!("Input should be {expected}"), Some(json!({ "expected": expected })));
            self.faults.push(fault.at(["query", name], text.into()));
        }
        found
    }

    /// Takes words of a fixed list, separated by commas.
    pub(crate) fn words<T>(&mut self, name: &'static str, parse: fn(&str) -> Option<T>, all: &[&str]) -> Vec<T> {
        let Some(text) = self.fields.remove(name) else { return Vec::new() };
        let found: Option<Vec<T>> = text.split(',').map(parse).collect();
        found.unwrap_or_else(|| {
            let expected = either(all.iter().copied());
            let ctx = json!({ "expected": expected });
            let fault = lax::Fault::new("enum", format!("Input should be {expected}, separated by commas"), Some(ctx));
            self.faults.push(fault.at(["query", name], text.into()));
            Vec::new()
        })
    }

    /// Notes that a field has to be there.
    pub(crate) fn missing(&mut self, name: &'static str) {
        self.faults.push(lax::Fault::missing().at(["query", name], Value::Null));
    }

    /// Returns every fault found, if any was.
    pub(crate) fn done(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::fields(self.faults)) }
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields.fmt(f)
    }
}

/// `'a', 'b' or 'c'`.
fn either<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("'{word}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
