//! One line of results: a measure's name and its fields, in order.

use serde::{Serialize, Serializer};
use serde_json::Value;

/// One line of results.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    fields: Vec<(&'static str, Value)>,
}

impl Row {
    pub(crate) fn new(measure: &str) -> Self {
        Self { fields: vec![("measure", measure.into())] }
    }

    /// Adds a field. A number that is not finite, or that could not be had, is null.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Adds a number rounded to three places: more would pretend to an exactness that no measure has.
    pub(crate) fn number(self, name: &'static str, value: impl Into<Option<f64>>) -> Self {
        let rounded = value.into().map(|value| (value * 1000.0).round() / 1000.0);
        self.with(name, rounded)
    }

    /// Returns a field as a number.
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.fields.iter().find(|(field, _)| *field == name)?.1.as_f64()
    }

    /// Whether a field has this value.
    pub(crate) fn is(&self, name: &str, value: &Value) -> bool {
        self.fields.iter().any(|(field, found)| *field == name && found == value)
    }

    /// The line for people.
    pub(crate) fn told(&self) -> String {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut fields = self.fields.iter();
        let name = fields.next().map(|(_, name)| plain(name)).unwrap_or_default();
        fields.fold(format!("{name:16}"), |line, (field, value)| format!("{line} {field}={}", plain(value)))
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.fields.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_what_is_not_finite_is_null() {
        let row = Row::new("plan").with("clients", 16).number("p50_us", 1.23456).number("ratio", f64::NAN);
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(text, r#"{"measure":"plan","clients":16,"p50_us":1.235,"ratio":null}"#);
        assert_eq!(row.told(), "plan             clients=16 p50_us=1.235 ratio=null");
        assert_eq!((row.get("p50_us"), row.get("ratio"), row.get("no")), (Some(1.235), None, None));
        assert!(row.is("clients", &16.into()) && !row.is("clients", &1.into()));
    }
}
