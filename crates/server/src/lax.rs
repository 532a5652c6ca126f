//! How FastAPI's clients may spell numbers and truth: `30`, `"30"`, `30.0` and `" +3_0 "` are one number.

use serde_json::{Number, Value, json};

use crate::problem;

/// What is wrong with one value, before it is known where the value stood.
#[derive(Debug)]
pub(crate) struct Fault {
    kind: &'static str,
    msg: String,
    ctx: Option<Value>,
}

impl Fault {
    pub(crate) fn new(kind: &'static str, msg: impl Into<String>, ctx: Option<Value>) -> Self {
        Self { kind, msg: msg.into(), ctx }
    }

    pub(crate) fn missing() -> Self {
        Self::new("missing", "Field required", None)
    }

    /// Names the place of the fault, `["body", "timeout_s"]`, and what stood there.
    pub(crate) fn at<L: Into<Value>>(self, loc: impl IntoIterator<Item = L>, input: Value) -> problem::Fault {
        problem::Fault {
            kind: self.kind,
            loc: loc.into_iter().map(Into::into).collect(),
            msg: self.msg,
            input,
            ctx: self.ctx,
        }
    }
}

/// The most digits that are read; what is longer is no number to anybody.
const MAX_DIGITS: usize = 4300;

/// Reads a whole number. One beyond every integer is the largest or smallest there is: bounds decide about it.
pub(crate) fn integer(value: &Value) -> Result<i64, Fault> {
    match value {
        Value::Bool(flag) => Ok(i64::from(*flag)),
        Value::Number(number) => whole(number),
        Value::String(text) => spelled(text),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(Fault::new("int_type", "Input should be a valid integer", None))
        }
    }
}

fn whole(number: &Number) -> Result<i64, Fault> {
    if let Some(number) = number.as_i64() {
        return Ok(number);
    }
    if number.is_u64() {
        return Ok(i64::MAX);
    }
    match number.as_f64() {
        Some(float) if float.fract() != 0.0 => {
            let msg = "Input should be a valid integer, got a number with a fractional part";
            Err(Fault::new("int_from_float", msg, None))
        }
        Some(float) => match format!("{float:.0}").parse() {
            Ok(number) => Ok(number),
            Err(_) if float.is_sign_negative() => Ok(i64::MIN),
            Err(_) => Ok(i64::MAX),
        },
        None => Err(too_large()),
    }
}

fn spelled(text: &str) -> Result<i64, Fault> {
    let broken = || {
        let msg = "Input should be a valid integer, unable to parse string as an integer";
        Fault::new("int_parsing", msg, None)
    };
    let text = text.trim();
    if text.len() > MAX_DIGITS {
        return Err(too_large());
    }
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let digits = match digits.split_once('.') {
        Some((digits, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => digits,
        Some(_) => return Err(broken()),
        None => digits,
    };
    // `3_0` is thirty; `_30`, `30_` and `3__0` are nothing.
    if !digits.split('_').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(broken());
    }
    let digits = digits.replace('_', "");
    Ok(match (digits.parse::<i64>(), negative) {
        (Ok(number), false) => number,
        (Ok(number), true) => -number,
        (Err(_), false) => i64::MAX,
        (Err(_), true) => i64::MIN,
    })
}

fn too_large() -> Fault {
    Fault::new("int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size", None)
}

/// Compares a number with its bounds.
pub(crate) fn within(number: i64, min: i64, max: i64) -> Result<i64, Fault> {
    if number < min {
        let msg = format!("Input should be greater than or equal to {min}");
        return Err(Fault::new("greater_than_equal", msg, Some(json!({ "ge": min }))));
    }
    if number > max {
        let msg = format!("Input should be less than or equal to {max}");
        return Err(Fault::new("less_than_equal", msg, Some(json!({ "le": max }))));
    }
    Ok(number)
}

/// Reads a yes or no.
pub(crate) fn flag(value: &Value) -> Result<bool, Fault> {
    let word = match value {
        Value::Bool(flag) => return Ok(*flag),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => "0".to_owned(),
            Some(1.0) => "1".to_owned(),
            Some(float) if float.fract() == 0.0 => String::new(),
            _ => return Err(Fault::new("bool_type", "Input should be a valid boolean", None)),
        },
        Value::String(text) => text.to_ascii_lowercase(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            return Err(Fault::new("bool_type", "Input should be a valid boolean", None));
        }
    };
    match word.as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err(Fault::new("bool_parsing", "Input should be a valid boolean, unable to interpret input", None)),
    }
}
