//! Reading what only the engine understands out of a service's canonical element.
//!
//! The loader checked the shapes already; numbers may stand there as numbers or as text, so both are read.

use std::collections::HashMap;

use serde_json::Value;

/// A mapping of the canonical document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'a>(pub(super) &'a Value);

impl<'a> Document<'a> {
    pub(super) fn value(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A mapping below this one; an absent one is empty.
    pub(super) fn child(self, key: &str) -> Document<'a> {
        Document(self.0.get(key).unwrap_or(&Value::Null))
    }

    pub(super) fn text(self, key: &str) -> Option<String> {
        self.value(key).and_then(scalar).filter(|text| !text.is_empty())
    }

    pub(super) fn integer(self, key: &str) -> Option<i64> {
        self.value(key).and_then(integer)
    }

    pub(super) fn flag(self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A size in bytes, with or without a unit.
    pub(super) fn bytes(self, key: &str) -> Option<i64> {
        self.value(key).and_then(scalar).and_then(|text| bytes(&text))
    }

    /// A time in microseconds: a plain number, or with a unit.
    pub(super) fn micros(self, key: &str) -> Option<i64> {
        let text = self.value(key).and_then(scalar)?;
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let number: f64 = text[..unit_at].parse().ok()?;
        let factor = match &text[unit_at..] {
            "" | "us" | "µs" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            _ => return None,
        };
        Some((number * factor) as i64)
    }

    /// A list of words; a single word counts as one, a mapping as `key=value`. Absent when empty.
    pub(super) fn list(self, key: &str) -> Option<Vec<String>> {
        let words: Vec<String> = match self.value(key)? {
            Value::Array(items) => items.iter().filter_map(scalar).collect(),
            Value::Object(entries) => {
                entries.iter().map(|(key, value)| format!("{key}={}", scalar(value).unwrap_or_default())).collect()
            }
            other => scalar(other).into_iter().collect(),
        };
        (!words.is_empty()).then_some(words)
    }

    /// A mapping of words; a list of `key=value` counts as one. Absent when empty.
    pub(super) fn map(self, key: &str) -> Option<HashMap<String, String>> {
        let map: HashMap<String, String> = match self.value(key)? {
            Value::Object(entries) => {
                entries.iter().map(|(key, value)| (key.clone(), scalar(value).unwrap_or_default())).collect()
            }
            Value::Array(items) => items
                .iter()
                .filter_map(scalar)
                .map(|entry| match entry.split_once('=') {
                    Some((key, value)) => (key.to_owned(), value.to_owned()),
                    None => (entry, String::new()),
                })
                .collect(),
            _ => return None,
        };
        (!map.is_empty()).then_some(map)
    }

    /// The mappings of a list.
    pub(super) fn entries(self, key: &str) -> impl Iterator<Item = Document<'a>> + use<'a> {
        self.value(key).and_then(Value::as_array).into_iter().flatten().map(Document)
    }
}

/// A scalar as compose files write it.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A whole number, as number or text.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A size as the engine's command line reads it: units are powers of 1024.
fn bytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 1.0,
        "k" => 1024.0,
        "m" => 1024.0 * 1024.0,
        "g" => 1024.0 * 1024.0 * 1024.0,
        "t" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(factor as i64),
        Err(_) => number.parse::<f64>().ok().map(|number| (number * factor) as i64),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_and_times_are_read_with_and_without_units() {
        let value = json!({"a": "67108864", "b": "64m", "c": 5, "d": "1.5gb", "e": "2ki", "p": "50ms", "q": 100_000});
        let document = Document(&value);
        assert_eq!(document.bytes("a"), Some(67_108_864));
        assert_eq!(document.bytes("b"), Some(67_108_864));
        assert_eq!(document.bytes("c"), Some(5));
        assert_eq!(document.bytes("d"), Some(1_610_612_736));
        assert_eq!(document.bytes("e"), Some(2048));
        assert_eq!(document.micros("p"), Some(50_000));
        assert_eq!(document.micros("q"), Some(100_000));
    }

    #[test]
    fn lists_and_maps_stand_for_each_other() {
        let value = json!({"map": {"a": 1, "b": "x"}, "list": ["a=1", "c"], "word": "one", "none": []});
        let document = Document(&value);
        assert_eq!(document.list("map").unwrap(), ["a=1", "b=x"]);
        assert_eq!(document.map("list").unwrap()["a"], "1");
        assert_eq!(document.list("word").unwrap(), ["one"]);
        assert_eq!(document.list("none"), None);
    }
}
