//! Reading a request's body as FastAPI's clients know it: every fault of every field at once, in the documented shape.

use std::collections::BTreeMap;
use std::fmt;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::lax;
use crate::problem::{Fault, Problem};

/// How deep a body may nest. No request of ours nests deeper than two.
const MAX_DEPTH: usize = 16;
/// How many faults of one body are told.
const MAX_FAULTS: usize = 100;

/// A JSON value in which a repeated key is an error: two readers must not see two requests in one text.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(Unambiguous(item)) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Value::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut fields = serde_json::Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    let Unambiguous(value) = map.next_value()?;
                    if fields.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format_args!("duplicate key `{key}`")));
                    }
                }
                Ok(Value::Object(fields))
            }
        }
        deserializer.deserialize_any(Reader).map(Unambiguous)
    }
}

/// A request's body as it came, with the headers that say what it is.
pub(crate) struct Body {
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = BytesRejection;
    async fn from_request(request: Request, state: &S) -> Result<Self, BytesRejection> {
        let headers = request.headers().clone();
        Ok(Self { headers, bytes: Bytes::from_request(request, state).await? })
    }
}

impl Body {
    /// The fields of a body that must be there.
    pub(crate) fn required(&self) -> Result<Fields, Problem> {
        if self.bytes.is_empty() {
            return Err(Problem::fields(vec![lax::Fault::missing().at(["body"], Value::Null)]));
        }
        Fields::read(self, false)
    }

    /// The fields of a body that may be empty.
    pub(crate) fn optional(&self) -> Result<Fields, Problem> {
        if self.bytes.is_empty() { Ok(Fields::default()) } else { Fields::read(self, true) }
    }
}

/// A body's fields, being checked.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    fields: serde_json::Map<String, Value>,
    pub(crate) faults: Vec<Fault>,
    /// The whole body, read again where a fault has to tell it.
    body: Bytes,
    #[cfg(test)]
    pub(crate) asked: Vec<&'static str>,
}

impl Fields {
    fn read(body: &Body, may_be_null: bool) -> Result<Self, Problem> {
        let value = if says_json(&body.headers) {
            read(&body.bytes).map_err(|fault| Problem::fields(vec![*fault]))?
        } else {
            String::from_utf8_lossy(&body.bytes).into_owned().into()
        };
        match value {
            Value::Object(fields) => Ok(Self { fields, body: body.bytes.clone(), ..Self::default() }),
            Value::Null if may_be_null => Ok(Self::default()),
            other => {
                let msg = "Input should be a valid dictionary or object to extract fields from";
                let fault = lax::Fault::new("model_attributes_type", msg, None);
                Err(Problem::fields(vec![fault.at(["body"], echoed(other))]))
            }
        }
    }

    /// Takes a text of `min` to `max` characters; `None` where it is absent or null.
    pub(crate) fn text(&mut self, name: &'static str, min: usize, max: usize) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => {
                let chars = text.chars().count();
                let (kind, msg, ctx) = if chars < min {
                    let msg = format!("String should have at least {}", characters(min));
                    ("string_too_short", msg, json!({ "min_length": min }))
                } else if chars > max {
                    let msg = format!("String should have at most {}", characters(max));
                    ("string_too_long", msg, json!({ "max_length": max }))
                } else {
                    return Some(text);
                };
                self.note(name, lax::Fault::new(kind, msg, Some(ctx)), text.into());
                None
            }
            other => {
                self.note(name, no_text(), other);
                None
            }
        }
    }

    /// Takes a text that must be there.
    pub(crate) fn needed_text(&mut self, name: &'static str, min: usize, max: usize) -> Option<String> {
        match self.fields.get(name) {
            None => self.missing(name),
            Some(Value::Null) => self.note(name, no_text(), Value::Null),
            Some(_) => {}
        }
        self.text(name, min, max)
    }

    /// Takes a whole number of `min` to `max`.
    pub(crate) fn integer(&mut self, name: &'static str, min: i64, max: i64) -> Option<i64> {
        let input = self.take(name)?;
        lax::integer(&input)
            .and_then(|number| lax::within(number, min, max))
            .map_err(|fault| self.note(name, fault, input))
            .ok()
    }

    /// Takes a whole number that must be there.
    pub(crate) fn needed_integer(&mut self, name: &'static str, min: i64, max: i64) -> Option<i64> {
        match self.fields.get(name) {
            None => self.missing(name),
            Some(Value::Null) => {
                let fault = lax::Fault::new("int_type", "Input should be a valid integer", None);
                self.note(name, fault, Value::Null);
            }
            Some(_) => {}
        }
        self.integer(name, min, max)
    }

    /// Takes a yes or no.
    pub(crate) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let input = self.take(name)?;
        lax::flag(&input).map_err(|fault| self.note(name, fault, input)).ok()
    }

    /// Takes an object of texts.
    pub(crate) fn texts(&mut self, name: &'static str) -> Option<BTreeMap<String, String>> {
        match self.take(name)? {
            Value::Object(fields) => {
                let mut texts = BTreeMap::new();
                for (key, value) in fields {
                    match value {
                        Value::String(text) => drop(texts.insert(key, text)),
                        other => self.note_at(["body", name, &key], no_text(), other),
                    }
                }
                Some(texts)
            }
            other => {
                self.note(name, lax::Fault::new("dict_type", "Input should be a valid dictionary", None), other);
                None
            }
        }
    }

    /// Returns whether the body states `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Takes a list of texts that must be there.
    pub(crate) fn needed_list(&mut self, name: &'static str) -> Option<Vec<String>> {
        match self.fields.get(name) {
            None => self.missing(name),
            Some(Value::Null) => self.note(name, no_list(), Value::Null),
            Some(_) => {}
        }
        match self.take(name)? {
            Value::Array(items) => {
                let mut texts = Vec::new();
                for (at, item) in items.into_iter().enumerate() {
                    match item {
                        Value::String(text) => texts.push(text),
                        other => self.note_at([Value::from("body"), name.into(), at.into()], no_text(), other),
                    }
                }
                Some(texts)
            }
            other => {
                self.note(name, no_list(), other);
                None
            }
        }
    }

    /// Takes a field; what is null was not sent.
    fn take(&mut self, name: &'static str) -> Option<Value> {
        #[cfg(test)]
        self.asked.push(name);
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// Notes that a field has to be there.
    fn missing(&mut self, name: &'static str) {
        let input = read(&self.body).unwrap_or_default();
        self.note(name, lax::Fault::missing(), input);
    }

    fn note(&mut self, name: &'static str, fault: lax::Fault, input: Value) {
        self.note_at(["body", name], fault, input);
    }

    fn note_at<L: Into<Value>>(&mut self, loc: impl IntoIterator<Item = L>, fault: lax::Fault, input: Value) {
        // More than anybody reads; a hostile body must not be answered by something larger than itself.
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault.at(loc, echoed(input)));
        }
    }

    /// Notes what only the caller can see to be wrong with a field.
    pub(crate) fn wrong(&mut self, name: &'static str, why: impl fmt::Display, input: impl Into<Value>) {
        self.note(name, lax::Fault::new("value_error", format!("Value error, {why}"), None), input.into());
    }

    /// Checks a text with `check` and notes what it says against it.
    pub(crate) fn checked<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        raw: Option<String>,
        check: impl FnOnce(String) -> Result<T, E>,
    ) -> Option<T> {
        let raw = raw?;
        check(raw.clone()).map_err(|error| self.wrong(name, error, raw)).ok()
    }

    /// Returns every fault found, if any was.
    pub(crate) fn done(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::fields(self.faults)) }
    }
}

fn no_list() -> lax::Fault {
    lax::Fault::new("list_type", "Input should be a valid list", None)
}

fn no_text() -> lax::Fault {
    lax::Fault::new("string_type", "Input should be a valid string", None)
}

/// Whether the body says that it is JSON, or does not say what it is. FastAPI reads what says otherwise as a text.
fn says_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.split_once('/') {
        Some(("application", subtype)) => subtype == "json" || subtype.ends_with("+json"),
        _ => essence.is_empty(),
    }
}

/// What a fault tells back of the input: enough to know it by, never megabytes.
fn echoed(input: Value) -> Value {
    const MOST: usize = 20_000;
    match input {
        Value::String(text) if text.chars().count() > MOST => text.chars().take(MOST).collect::<String>().into(),
        Value::Array(_) | Value::Object(_) if input.to_string().len() > MOST => Value::Null,
        other => other,
    }
}

fn characters(count: usize) -> String {
    if count == 1 { "1 character".to_owned() } else { format!("{count} characters") }
}

fn read(body: &[u8]) -> Result<Value, Box<Fault>> {
    let invalid = |at: usize, why: &str| {
        let fault = lax::Fault::new("json_invalid", "JSON decode error", Some(json!({ "error": why })));
        Box::new(fault.at([Value::from("body"), at.into()], json!({})))
    };
    if depth(body) > MAX_DEPTH {
        return Err(invalid(0, "the body nests too deeply"));
    }
    match serde_json::from_slice::<Unambiguous>(body) {
        Ok(Unambiguous(value)) => Ok(value),
        Err(error) => Err(invalid(offset(body, error.line(), error.column()), &error.to_string())),
    }
}

/// The place of an error counted in bytes of the whole body, as clients know it, from a line and a column counted from 1.
fn offset(body: &[u8], line: usize, column: usize) -> usize {
    let before: usize = body.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    before + column.saturating_sub(1)
}

/// An upper bound of how deep a text nests: brackets within strings count too, which only makes it stricter.
fn depth(body: &[u8]) -> usize {
    let (mut now, mut most) = (0usize, 0usize);
    let mut in_string = false;
    let mut escaped = false;
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Body { headers: HeaderMap::new(), bytes: body.to_owned().into() }.required().unwrap()
    }

    #[test]
    fn a_faults_place_counts_from_the_bodys_start() {
        let fault = read(b"{\n  \"a\": 1,\n  x}").unwrap_err();
        assert_eq!(fault.loc, [json!("body"), json!(14)]);
    }

    #[test]
    fn a_fault_never_echoes_megabytes() {
        let mut fields = fields(&json!({ "command": "x".repeat(3_000_000) }).to_string());
        assert_eq!(fields.needed_text("command", 1, 10_000), None);
        assert!(json!(fields.faults).to_string().len() < 100_000);
    }

    #[test]
    fn a_body_full_of_faults_is_answered_briefly() {
        let names: BTreeMap<String, u32> = (0..5000).map(|n| (format!("V{n}"), n)).collect();
        let mut fields = fields(&json!({ "env": names }).to_string());
        fields.texts("env");
        assert_eq!(fields.faults.len(), MAX_FAULTS);
    }
}
