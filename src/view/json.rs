//! JSON as the reference tool writes it: Go's escapes, keys in the order given, one object a line.

use std::io;

use serde_json::{Map, Value};

use super::Out;
use super::progress::{Stage, told};
use crate::event::Stamped;

/// Writes an object on a line of its own.
pub fn object(object: Map<String, Value>, out: Out<'_>) -> io::Result<()> {
    writeln!(out, "{}", text(&Value::Object(object)))
}

/// A value as Go's `encoding/json` writes it: what HTML could mistake is escaped.
pub fn text(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match c {
            // Outside of strings JSON has none of these, so every one of them stands in a string.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

/// Writes the progress that an event tells of: `{"id":"Container a-1","status":"Created"}`.
pub fn progress(stamped: &Stamped, err: Out<'_>) -> io::Result<()> {
    let Some((id, status, stage)) = told(&stamped.event) else { return Ok(()) };
    let mut line = Map::new();
    let mut put = |key: &str, value: &str| line.insert(key.to_owned(), Value::from(value));
    put("id", id);
    put("status", status);
    if let Stage::Failed { error } = &stage {
        put("error", error);
    }
    object(line, err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_html_could_mistake_is_escaped_as_in_go() {
        let value = serde_json::json!({ "z": "a<b>&\u{2028}\"é", "a": 1 });
        insta::assert_snapshot!(text(&value), @r#"{"z":"a\u003cb\u003e\u0026\u2028\"é","a":1}"#);
    }
}
