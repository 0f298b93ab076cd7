//! Diagnostics as data, for editors and scripts: one JSON object on one line.
//!
//! `{"version":1,"diagnostics":[{"severity","message","place"?,"source"?,"label"?,"related":[{"message","place"}],
//! "hints":[]}]}`, a place being `{"file","line","column","end_line","end_column"}`, all counted from 1, columns in
//! characters, the end exclusive. Adding a key is free, changing one raises the version.

use serde_json::{Value, json};

use super::{Diagnostic, Severity, Sources, Span};

/// Longer source lines are cut.
const LINE: usize = 400;

/// Diagnostics as one line of JSON, its end included.
pub fn json(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    let list: Vec<_> = diagnostics.iter().map(|diagnostic| one(diagnostic, sources)).collect();
    json!({ "version": 1, "diagnostics": list }).to_string() + "\n"
}

fn one(diagnostic: &Diagnostic, sources: &Sources) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut value = json!({ "severity": severity, "message": diagnostic.message });
    if let Some(span) = diagnostic.span {
        value["place"] = place(span, sources);
        value["source"] = sources.line(span).chars().take(LINE).collect::<String>().into();
    }
    if let Some(label) = &diagnostic.label {
        value["label"] = label.as_str().into();
    }
    let related = diagnostic.related.iter();
    value["related"] =
        related.map(|(span, phrase)| json!({ "message": phrase, "place": place(*span, sources) })).collect();
    value["hints"] = diagnostic.hints.clone().into();
    value
}

fn place(span: Span, sources: &Sources) -> Value {
    let (start, end) = (sources.location(span), sources.end(span));
    json!({
        "file": start.path.to_string_lossy(),
        "line": start.line,
        "column": start.column,
        "end_line": end.line,
        "end_column": end.column,
    })
}
