//! Reading a request's body as FastAPI's clients know it: every fault of every field at once, in the documented shape.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::problem::Problem;

/// How deep a body may nest. No request of ours nests deeper than two.
const MAX_DEPTH: usize = 16;

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

/// A body's fields, being checked.
pub(crate) struct Fields {
    fields: serde_json::Map<String, Value>,
    faults: Vec<Value>,
}

impl Fields {
    /// Reads a body that must be there.
    pub(crate) fn required(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Err(Problem::fields(vec![
                json!({ "type": "missing", "loc": ["body"], "msg": "Field required", "input": null }),
            ]));
        }
        Self::optional(body)
    }

    /// Reads a body that may be empty.
    pub(crate) fn optional(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Ok(Self { fields: serde_json::Map::new(), faults: Vec::new() });
        }
        match read(body) {
            Ok(Value::Object(fields)) => Ok(Self { fields, faults: Vec::new() }),
            Ok(other) => Err(Problem::fields(vec![json!({
                "type": "model_attributes_type", "loc": ["body"],
                "msg": "Input should be a valid dictionary or object to extract fields from", "input": echoed(other),
            })])),
            Err(fault) => Err(Problem::fields(vec![fault])),
        }
    }

    /// Takes a text of `min` to `max` characters; `None` where it is absent or null.
    pub(crate) fn text(&mut self, name: &str, min: usize, max: usize) -> Option<String> {
        match self.fields.remove(name)? {
            Value::Null => None,
            Value::String(text) => {
                let chars = text.chars().count();
                if chars < min {
                    let msg = format!("String should have at least {}", characters(min));
                    self.fault(name, "string_too_short", &msg, text.into(), Some(json!({ "min_length": min })));
                    None
                } else if chars > max {
                    let msg = format!("String should have at most {}", characters(max));
                    self.fault(name, "string_too_long", &msg, text.into(), Some(json!({ "max_length": max })));
                    None
                } else {
                    Some(text)
                }
            }
            other => {
                self.fault(name, "string_type", "Input should be a valid string", other, None);
                None
            }
        }
    }

    /// Takes a text that must be there.
    pub(crate) fn needed_text(&mut self, name: &str, min: usize, max: usize) -> Option<String> {
        match self.fields.get(name) {
            None => {
                let input = Value::Object(self.fields.clone());
                self.fault(name, "missing", "Field required", input, None);
                None
            }
            Some(Value::Null) => {
                self.fields.remove(name);
                self.fault(name, "string_type", "Input should be a valid string", Value::Null, None);
                None
            }
            Some(_) => self.text(name, min, max),
        }
    }

    /// Takes a whole number of `min` to `max`, also where it is spelled as a text, as FastAPI does.
    pub(crate) fn integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        let input = self.fields.remove(name)?;
        if input.is_null() {
            return None;
        }
        let number = match &input {
            Value::Number(number) if number.as_f64().is_some_and(|float| float.abs() >= 9e15) => {
                Ok(if number.as_f64().is_some_and(f64::is_sign_negative) { i64::MIN } else { i64::MAX })
            }
            Value::Number(number) if number.is_f64() => {
                let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15);
                match whole.and_then(|float| format!("{float:.0}").parse::<i64>().ok()) {
                    Some(whole) => Ok(whole),
                    None => {
                        Err(("int_from_float", "Input should be a valid integer, got a number with a fractional part"))
                    }
                }
            }
            Value::Number(number) => number
                .as_i64()
                .ok_or(("int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size")),
            Value::String(text) => text
                .trim()
                .parse::<i64>()
                .map_err(|_| ("int_parsing", "Input should be a valid integer, unable to parse string as an integer")),
            _ => Err(("int_type", "Input should be a valid integer")),
        };
        match number {
            Ok(number) if number < min => {
                let msg = format!("Input should be greater than or equal to {min}");
                self.fault(name, "greater_than_equal", &msg, input, Some(json!({ "ge": min })));
                None
            }
            Ok(number) if number > max => {
                let msg = format!("Input should be less than or equal to {max}");
                self.fault(name, "less_than_equal", &msg, input, Some(json!({ "le": max })));
                None
            }
            Ok(number) => Some(number),
            Err((kind, msg)) => {
                self.fault(name, kind, msg, input, None);
                None
            }
        }
    }

    /// Takes a yes or no.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.fields.remove(name)? {
            Value::Null => None,
            Value::Bool(flag) => Some(flag),
            other => {
                self.fault(name, "bool_type", "Input should be a valid boolean", other, None);
                None
            }
        }
    }

    /// Takes an object of texts.
    pub(crate) fn texts(&mut self, name: &str) -> Option<BTreeMap<String, String>> {
        let input = self.fields.remove(name)?;
        let Value::Object(fields) = &input else {
            if !input.is_null() {
                self.fault(name, "dict_type", "Input should be a valid dictionary", input, None);
            }
            return None;
        };
        let texts: Option<BTreeMap<String, String>> =
            fields.iter().map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        if texts.is_none() {
            self.fault(name, "string_type", "Each value should be a valid string", input, None);
        }
        texts
    }

    /// Takes a list of texts.
    pub(crate) fn list(&mut self, name: &str) -> Option<Vec<String>> {
        let input = self.fields.remove(name)?;
        let list = input.as_array().map(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        match list {
            Some(Some(list)) => Some(list),
            _ => {
                self.fault(name, "list_type", "Input should be a valid list of strings", input, None);
                None
            }
        }
    }

    /// Returns whether the body states `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Notes a fault that only the caller can see.
    pub(crate) fn fault(&mut self, name: &str, kind: &str, msg: &str, input: Value, ctx: Option<Value>) {
        let mut fault = json!({ "type": kind, "loc": ["body", name], "msg": msg, "input": echoed(input) });
        if let (Some(ctx), Some(fault)) = (ctx, fault.as_object_mut()) {
            fault.insert("ctx".into(), ctx);
        }
        self.faults.push(fault);
    }

    /// Checks a text with `check` and notes what it says against it.
    pub(crate) fn checked<T, E: fmt::Display>(
        &mut self,
        name: &str,
        raw: Option<String>,
        check: impl FnOnce(String) -> Result<T, E>,
    ) -> Option<T> {
        let raw = raw?;
        match check(raw.clone()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(name, "value_error", &format!("Value error, {error}"), raw.into(), None);
                None
            }
        }
    }

    /// Returns every fault found, if any was.
    pub(crate) fn done(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::fields(self.faults)) }
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

fn read(body: &[u8]) -> Result<Value, Value> {
    let invalid = |at: usize, why: &str| json!({ "type": "json_invalid", "loc": ["body", at], "msg": "JSON decode error", "input": {}, "ctx": { "error": why } });
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

    #[test]
    fn a_faults_place_counts_from_the_bodys_start() {
        let fault = read(b"{\n  \"a\": 1,\n  x}").unwrap_err();
        assert_eq!(fault["loc"], json!(["body", 14]));
    }

    #[test]
    fn a_fault_never_echoes_megabytes() {
        let body = json!({ "command": "x".repeat(3_000_000) }).to_string();
        let mut fields = Fields::required(body.as_bytes()).unwrap();
        assert_eq!(fields.needed_text("command", 1, 10_000), None);
        assert!(fields.faults[0].to_string().len() < 100_000);
    }

    #[test]
    fn a_number_beyond_every_integer_is_too_large_and_not_broken() {
        let mut fields = Fields::required(br#"{"timeout_s":99999999999999999999}"#).unwrap();
        assert_eq!(fields.integer("timeout_s", 1, 3600), None);
        assert_eq!(fields.faults[0]["type"], "less_than_equal");
    }
}
