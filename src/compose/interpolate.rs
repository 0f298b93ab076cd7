//! `${VAR…}` in scalars.
//!
//! `$VAR`, `${VAR}`, `${VAR:-word}`, `${VAR-word}`, `${VAR:?word}`, `${VAR?word}`, `${VAR:+word}`, `${VAR+word}`, `$$`
//! (compose specification, "Interpolation"); words nest. A `$` before anything else stays as it is. Knows nothing of
//! the keys it walks over: a value that must be a number is read as one where it is decoded.

use std::collections::BTreeMap;

use super::limits;
use super::node::{Data, Node};
use crate::diag::{Diagnostic, Diagnostics, Span};

/// The variables a project sees.
pub type Environment = BTreeMap<String, String>;

/// A reference to a variable in a text, as `config --variables` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reference {
    /// The variable.
    pub name: String,
    /// What stands in for it when it is unset.
    pub default: String,
    /// What stands in for it when it is set.
    pub alternate: String,
    /// Loading fails without it.
    pub required: bool,
}

/// Why a text cannot be interpolated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `${` without a name or without its end.
    Malformed,
    /// Words within words beyond the limit.
    TooDeep,
    /// More bytes than these.
    TooLong(usize),
    /// `${VAR:?reason}`.
    Required {
        /// The variable.
        name: String,
        /// What the file says about it.
        reason: String,
    },
}

/// Replaces the variables in all scalars below `node`.
pub fn interpolate(node: &mut Node, environment: &Environment, diagnostics: &mut Diagnostics) {
    Interpolation { environment, diagnostics, spent: 0 }.at(node);
}

struct Interpolation<'e, 'd> {
    environment: &'e Environment,
    diagnostics: &'d mut Diagnostics,
    /// Bytes that came of variables so far.
    spent: usize,
}

impl Interpolation<'_, '_> {
    fn at(&mut self, node: &mut Node) {
        match &mut node.data {
            Data::Text(text) if text.contains('$') => {
                let mut seen = Seen::default();
                let replaced = match self.spent {
                    spent if spent > limits::EXPANDED_BYTES => Err(Fault::TooLong(limits::EXPANDED_BYTES)),
                    _ => substitute(text, &|name| self.environment.get(name).cloned(), &mut seen),
                };
                match replaced {
                    Ok(replaced) => {
                        for name in seen.blank {
                            self.diagnostics.push(unset(node.span, &name));
                        }
                        self.spent += replaced.len();
                        *text = replaced;
                        node.variables = Some(seen.used.into());
                    }
                    Err(fault) => self.diagnostics.push(fault.diagnostic(node.span, text)),
                }
            }
            Data::List(list) => list.iter_mut().for_each(|node| self.at(node)),
            Data::Map(map) => map.values_mut().for_each(|node| self.at(node)),
            _ => {}
        }
    }
}

fn unset(span: Span, name: &str) -> Diagnostic {
    Diagnostic::warning(span, format!("the variable `{name}` is not set; an empty string takes its place"))
}

impl Fault {
    /// The fault as an error at a place.
    pub fn diagnostic(&self, span: Span, text: &str) -> Diagnostic {
        match self {
            Self::Malformed => Diagnostic::error(span, format!("`{}` is not a valid interpolation", text.trim_end()))
                .hint("write `${NAME}` or `${NAME:-default}`; a literal `$` is written `$$`"),
            Self::TooDeep => {
                Diagnostic::error(span, format!("variables are nested deeper than {} levels", limits::NESTED_VARIABLES))
            }
            Self::TooLong(bytes) => {
                Diagnostic::error(span, format!("variables make more than {} of text", limits::mebibytes(*bytes)))
            }
            Self::Required { name, reason } if reason.is_empty() => {
                Diagnostic::error(span, format!("the variable `{name}` is required and has no value"))
                    .hint(format!("set `{name}` in the environment or in `.env`"))
            }
            Self::Required { name, reason } => {
                Diagnostic::error(span, format!("the variable `{name}` is required and has no value: {reason}"))
                    .hint(format!("set `{name}` in the environment or in `.env`"))
            }
        }
    }
}

/// Messages name so many variables of a text.
const NAMED: usize = 8;

/// What a substitution came across.
#[derive(Debug, Default)]
pub struct Seen {
    /// The first variables with their values.
    pub used: Vec<(String, Option<String>)>,
    /// Unset variables that had nothing to stand in for them.
    pub blank: Vec<String>,
}

/// Replaces the variables in a text.
pub fn substitute(text: &str, lookup: &dyn Fn(&str) -> Option<String>, seen: &mut Seen) -> Result<String, Fault> {
    nested(text, lookup, seen, 0)
}

fn nested(text: &str, lookup: &dyn Fn(&str) -> Option<String>, seen: &mut Seen, depth: usize) -> Result<String, Fault> {
    if depth > limits::NESTED_VARIABLES {
        return Err(Fault::TooDeep);
    }
    let limit = text.len() + limits::TEXT_BYTES;
    let mut result = String::with_capacity(text.len());
    for part in parts(text)? {
        match part {
            Part::Literal(literal) => result.push_str(literal),
            Part::Variable { name, operation } => {
                let value = lookup(name);
                if seen.used.len() < NAMED && !seen.used.iter().any(|(used, _)| used == name) {
                    seen.used.push((name.to_owned(), value.clone()));
                }
                let Some(Operation { empty_counts, action, word }) = operation else {
                    if value.is_none() {
                        seen.blank.push(name.to_owned());
                    }
                    append(&mut result, value.as_deref().unwrap_or(""), limit)?;
                    continue;
                };
                let word = nested(word, lookup, seen, depth + 1)?;
                let given = value.as_deref().is_some_and(|value| !empty_counts || !value.is_empty());
                let text = match (action, given) {
                    (Action::Default, false) | (Action::Alternate, true) => &word,
                    (Action::Require, false) => {
                        return Err(Fault::Required { name: name.to_owned(), reason: word });
                    }
                    (Action::Default | Action::Require, true) | (Action::Alternate, false) => {
                        value.as_deref().unwrap_or("")
                    }
                };
                append(&mut result, text, limit)?;
            }
        }
    }
    Ok(result)
}

fn append(result: &mut String, text: &str, limit: usize) -> Result<(), Fault> {
    if result.len() + text.len() > limit {
        return Err(Fault::TooLong(limits::TEXT_BYTES));
    }
    result.push_str(text);
    Ok(())
}

/// All references in the scalars below `node`, by name.
pub fn references(node: &Node, found: &mut BTreeMap<String, Reference>) {
    match &node.data {
        Data::Text(text) => references_in(text, found, 0),
        Data::List(list) => list.iter().for_each(|node| references(node, found)),
        Data::Map(map) => map.values().for_each(|node| references(node, found)),
        _ => {}
    }
}

fn references_in(text: &str, found: &mut BTreeMap<String, Reference>, depth: usize) {
    if depth > limits::NESTED_VARIABLES {
        return;
    }
    for part in parts(text).unwrap_or_default() {
        let Part::Variable { name, operation } = part else { continue };
        let mut reference = Reference { name: name.to_owned(), ..Reference::default() };
        if let Some(operation) = operation {
            match operation.action {
                Action::Default => reference.default = operation.word.to_owned(),
                Action::Alternate => reference.alternate = operation.word.to_owned(),
                Action::Require => reference.required = true,
            }
            if !reference.required {
                references_in(operation.word, found, depth + 1);
            }
        }
        found.entry(name.to_owned()).or_insert(reference);
    }
}

enum Part<'t> {
    Literal(&'t str),
    Variable { name: &'t str, operation: Option<Operation<'t>> },
}

struct Operation<'t> {
    /// With a colon: an empty value is as good as none.
    empty_counts: bool,
    action: Action,
    word: &'t str,
}

#[derive(Clone, Copy)]
enum Action {
    Default,
    Require,
    Alternate,
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, Fault> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('$') {
        parts.push(Part::Literal(&rest[..at]));
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            parts.push(Part::Literal("$"));
            rest = tail;
        } else if let Some(inside) = after.strip_prefix('{') {
            let end = closing_brace(inside).ok_or(Fault::Malformed)?;
            parts.push(braced(&inside[..end])?);
            rest = &inside[end + 1..];
        } else {
            let length = name_length(after);
            if length == 0 {
                parts.push(Part::Literal("$"));
            } else {
                parts.push(Part::Variable { name: &after[..length], operation: None });
            }
            rest = &after[length..];
        }
    }
    parts.push(Part::Literal(rest));
    Ok(parts)
}

/// The brace that closes an open one, braces in between paired; failing that, the last one there is.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 1;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    text.rfind('}')
}

fn braced(text: &str) -> Result<Part<'_>, Fault> {
    let length = name_length(text);
    let (name, rest) = text.split_at(length);
    if name.is_empty() {
        return Err(Fault::Malformed);
    }
    if rest.is_empty() {
        return Ok(Part::Variable { name, operation: None });
    }
    let (empty_counts, rest) = rest.strip_prefix(':').map_or((false, rest), |rest| (true, rest));
    let mut characters = rest.chars();
    let action = match characters.next() {
        Some('-') => Action::Default,
        Some('?') => Action::Require,
        Some('+') => Action::Alternate,
        _ => return Err(Fault::Malformed),
    };
    Ok(Part::Variable { name, operation: Some(Operation { empty_counts, action, word: characters.as_str() }) })
}

fn name_length(text: &str) -> usize {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    if starts { end } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> String {
        let lookup = |name: &str| match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        match substitute(text, &lookup, &mut Seen::default()) {
            Ok(text) => text,
            Err(fault) => format!("{fault:?}"),
        }
    }

    #[test]
    fn every_form() {
        for (text, wanted) in [
            ("$SET-${SET}", "value-value"),
            ("${UNSET:-a}${EMPTY:-b}${EMPTY-c}", "ab"),
            ("${UNSET-${EMPTY:-${SET}}}", "value"),
            ("${SET:+a}${EMPTY:+b}${EMPTY+c}", "ac"),
            ("$$SET $1 $", "$SET $1 $"),
            ("${UNSET:-{\"a\": {}}}", "{\"a\": {}}"),
            ("${UNSET:-a:?b}", "a:?b"),
            ("${EMPTY:?must be $SET}", "Required { name: \"EMPTY\", reason: \"must be value\" }"),
            ("${}", "Malformed"),
            ("${a.b}", "Malformed"),
            ("${SET", "Malformed"),
        ] {
            assert_eq!(run(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_it_may_cost_is_bounded() {
        let nested = |levels: usize| "${UNSET:-".repeat(levels) + &"}".repeat(levels);
        assert_eq!(run(&nested(limits::NESTED_VARIABLES)), "");
        assert_eq!(run(&nested(1_000_000)), "TooDeep");
        let long = |name: &str| (name == "LONG").then(|| "x".repeat(limits::TEXT_BYTES));
        assert!(substitute("$LONG", &long, &mut Seen::default()).is_ok());
        assert_eq!(substitute("$LONG$LONG$LONG", &long, &mut Seen::default()), Err(Fault::TooLong(limits::TEXT_BYTES)));
    }
}
