//! Node → the canonical document, by the tables of [`super::spec`]; says what is unknown, missing or of the wrong kind.
//!
//! The document is what `config --format json` prints: long forms, durations as Go writes them, sizes in bytes, zero
//! values left out, free keys sorted. The same walk over a single file, its result dropped, checks that file alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::{Map as Object, Value};

use super::node::{self, Data, Directive, Map, Node, Path};
use super::spec::{ENV_FILE, Field, Keys, Kind, Presence, Record};
use super::{canon, values, words};
use crate::diag::{Diagnostic, Diagnostics};
use crate::model::quantity::go_duration;

const DURATION: &str = "a duration such as `30s`";

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One file of several: what it lacks may come from another.
    Part,
    /// All files together.
    Whole,
}

/// Walks nodes by the tables.
pub struct Printer<'d> {
    /// What is wrong so far.
    pub diagnostics: &'d mut Diagnostics,
    /// What is looked at.
    pub scope: Scope,
}

impl Printer<'_> {
    /// A mapping with known keys as JSON; nothing when it is something else.
    pub fn record(&mut self, node: &Node, record: &'static Record, path: &Path<'_>) -> Option<Value> {
        let Some(map) = node.as_map() else {
            self.wrong(node, path, "a mapping");
            return None;
        };
        if self.diagnostics.is_full() {
            return None;
        }
        self.unknown_keys(map, record, path);
        let mut object = Object::new();
        for field in record.fields {
            let value = match map.get(field.name).filter(|node| node.directive != Directive::Reset) {
                Some(node) => self.field(node, field, &path.key(field.name)),
                None => self.absent(node, record, field, path),
            };
            if let Some(value) = value
                && !field.printed.is_empty()
            {
                self.put(&mut object, field.printed, value);
            }
        }
        if record.extensions && self.scope == Scope::Whole {
            for (key, node) in map.iter().filter(|(key, _)| key.text.starts_with("x-")) {
                object.insert(key.text.to_string(), node.raw());
            }
        }
        Some(Value::Object(object))
    }

    /// Of a part nothing is printed, so nothing is kept.
    fn put(&self, object: &mut Object<String, Value>, key: &str, value: Value) {
        if self.scope == Scope::Whole {
            object.insert(key.to_owned(), value);
        }
    }

    fn text(&self, text: &str) -> Value {
        match self.scope {
            Scope::Part => Value::Null,
            Scope::Whole => Value::String(text.to_owned()),
        }
    }

    fn absent(&mut self, node: &Node, record: &Record, field: &Field, path: &Path<'_>) -> Option<Value> {
        match (field.presence, &field.kind) {
            (Presence::Required, _) if self.scope == Scope::Whole => {
                let place = if path.is_root() { String::new() } else { format!(" in `{path}`") };
                self.diagnostics.push(
                    Diagnostic::error(node.span, format!("`{}` is missing{place}", field.name))
                        .label(format!("{} needs `{}`", record.name, field.name)),
                );
                None
            }
            (Presence::Required | Presence::Optional, _) => None,
            (Presence::Printed, Kind::Record(record)) => {
                let mut object = Object::new();
                for field in record.fields {
                    if matches!(field.kind, Kind::Argv) {
                        object.insert(field.printed.to_owned(), Value::Null);
                    }
                }
                Some(Value::Object(object))
            }
            (Presence::Printed, Kind::Text) => Some(Value::from("")),
            (Presence::Printed, Kind::WholeBytes(_)) => Some(Value::from("0")),
            (Presence::Printed, Kind::Count(..) | Kind::Numeral(..)) => Some(Value::from(0)),
            (Presence::Printed, _) => Some(Value::Null),
        }
    }

    fn field(&mut self, node: &Node, field: &'static Field, path: &Path<'_>) -> Option<Value> {
        let value = self.value(node, &field.kind, path)?;
        if self.scope == Scope::Part {
            return None;
        }
        let zero = match (&value, &field.kind) {
            _ if field.presence == Presence::Printed => false,
            (_, Kind::Flag | Kind::Count(..) | Kind::Duration | Kind::Record(_) | Kind::Argv) => false,
            (Value::Null, Kind::Any) => false,
            (Value::Null, _) => true,
            (Value::Bool(value), kind) => !value && (!matches!(kind, Kind::Strict) || field.name != "required"),
            (Value::String(text), Kind::Bytes | Kind::BytesText | Kind::WholeBytes(_)) => text == "0",
            (Value::String(text), _) => text.is_empty(),
            (Value::Number(number), _) => number.as_f64() == Some(0.0),
            (Value::Array(list), _) => list.is_empty(),
            (Value::Object(_), Kind::Nullable(_)) => false,
            (Value::Object(object), _) => object.is_empty(),
        };
        (!zero).then_some(value)
    }

    fn unknown_keys(&mut self, map: &Map, record: &Record, path: &Path<'_>) {
        for (key, node) in map {
            let extension = key.text.starts_with("x-") && record.extensions;
            if extension
                || node.directive == Directive::Reset
                || record.fields.iter().any(|field| field.name == &*key.text)
            {
                continue;
            }
            if self.diagnostics.is_full() {
                return;
            }
            let message = match path.service() {
                Some(service) => format!("unknown key `{}` in service `{service}`", key.text),
                None if path.is_root() => format!("unknown key `{}` at the top level", key.text),
                None => format!("unknown key `{}` in `{path}`", key.text),
            };
            let mut diagnostic = Diagnostic::error(key.span, message).label("not a key of the compose specification");
            if record.name.starts_with("x-wasm") {
                diagnostic.label = Some("not a key of `x-wasm`".into());
            }
            if let Some(similar) = values::similar(&key.text, record.fields.iter().map(|field| field.name)) {
                diagnostic = diagnostic.hint(format!("did you mean `{similar}`?"));
            }
            self.diagnostics.push(diagnostic);
        }
    }

    /// A value of a kind as JSON; nothing when it is of another kind, which is reported.
    pub fn value(&mut self, node: &Node, kind: &'static Kind, path: &Path<'_>) -> Option<Value> {
        if self.scope == Scope::Part && node.is_null() {
            return None;
        }
        match kind {
            Kind::Any => Some(if self.scope == Scope::Whole { node.raw() } else { Value::Null }),
            Kind::Text => match &node.data {
                Data::Text(text) => Some(self.text(text)),
                _ => self.wrong(node, path, "a string"),
            },
            Kind::ContainerName => self.container_name(node, path),
            Kind::TextOrNull => match &node.data {
                Data::Null => Some(Value::Null),
                Data::Text(text) => Some(self.text(text)),
                _ => self.wrong(node, path, "a string"),
            },
            Kind::Choice(choices) => self.choice(node, choices, path),
            Kind::Scalar | Kind::Variable | Kind::Label | Kind::Setting => match (&node.data, kind) {
                (Data::Null, Kind::Variable) => Some(Value::Null),
                (Data::Null, Kind::Label | Kind::Setting) => Some(Value::String(String::new())),
                (Data::Bool(_), Kind::Setting) => self.wrong(node, path, "a string or a number"),
                (Data::Date(_), _) => self.wrong(node, path, "a string, a number or a boolean"),
                (Data::Text(text), _) => Some(self.text(text)),
                _ => match node.scalar() {
                    Some(text) => Some(Value::String(text)),
                    None => self.wrong(node, path, "a string, a number or a boolean"),
                },
            },
            Kind::Number => match &node.data {
                Data::Text(text) => Some(self.text(text)),
                Data::Int(_) | Data::Float(_) => node.scalar().map(Value::String),
                _ => self.wrong(node, path, "a string or a number"),
            },
            Kind::Whole => match &node.data {
                Data::Text(_) | Data::Int(_) => node.scalar().map(Value::String),
                _ => self.wrong(node, path, "a string or a whole number"),
            },
            Kind::Word => match &node.data {
                Data::Text(_) | Data::Bool(_) => node.scalar().map(Value::String),
                _ => self.wrong(node, path, "a string or a boolean"),
            },
            Kind::Bool | Kind::Flag => self.boolean(node, path),
            Kind::Strict => match node.data {
                Data::Bool(value) => Some(Value::Bool(value)),
                _ => self.wrong(node, path, "`true` or `false`"),
            },
            Kind::Integer(low, high) | Kind::Count(low, high) => self.integer(node, *low, *high, path),
            Kind::Cut => match &node.data {
                Data::Float(value) if value.is_finite() => {
                    self.integer(&node.at(Data::Float(value.trunc())), i64::MIN, i64::MAX, path)
                }
                _ => self.integer(node, i64::MIN, i64::MAX, path),
            },
            Kind::Numeral(low, high) => match &node.data {
                Data::Text(_) => self.wrong(node, path, "a whole number, without quotes"),
                _ => self.integer(node, *low, *high, path),
            },
            Kind::Float => self.float(node, path),
            Kind::WholeBytes(least) => match &node.data {
                Data::Float(_) => self.wrong(node, path, "a whole number of bytes"),
                Data::Int(value) if *value < i128::from(*least) => self.wrong(node, path, &format!("at least {least}")),
                _ => self.bytes(node, false, path),
            },
            Kind::Bytes | Kind::BytesText => self.bytes(node, matches!(kind, Kind::BytesText), path),
            Kind::Duration | Kind::Delay => self.duration(node, matches!(kind, Kind::Delay), path),
            Kind::Argv => self.argv(node, path),
            Kind::Shell => match &node.data {
                Data::Text(text) => Some(Value::from(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()])),
                Data::List(list) if !list.is_empty() => self.list(node, &Kind::Text, path),
                _ => self.wrong(node, path, "a string for the shell, or a list of words"),
            },
            Kind::Hosts => self.hosts(node, path),
            Kind::Mode => self.mode(node, path),
            Kind::Ulimit => self.ulimit(node, path),
            Kind::DeviceCount => match &node.data {
                Data::Text(text) if text.eq_ignore_ascii_case("all") => Some(Value::from(-1)),
                Data::Text(_) | Data::Int(_) => self.integer(node, i64::MIN, i64::MAX, path),
                _ => self.wrong(node, path, "a number, or `all`"),
            },
            Kind::Test => match &node.data {
                Data::Text(text) => Some(Value::from(vec!["CMD-SHELL".to_owned(), text.clone()])),
                Data::List(_) => self.value(node, &Kind::List(&Kind::Text), path),
                _ => self.wrong(node, path, "a command as a string, or a list beginning with `CMD` or `CMD-SHELL`"),
            },
            Kind::Ssh => self.ssh(node, path),
            Kind::Options => match &node.data {
                Data::List(list) => {
                    Some(list.iter().filter_map(|node| self.value(node, &Kind::Scalar, path)).collect())
                }
                _ => Some(Value::Array(vec![self.value(node, &Kind::Scalar, path)?])),
            },
            Kind::EnvFile => self.env_file(node, path),
            Kind::List(inner) => self.list(node, inner, path),
            Kind::Set(inner) => {
                let value = self.list(node, inner, path)?;
                self.duplicates(node, path);
                Some(value)
            }
            Kind::Map(names, inner) => self.map(node, *names, inner, path),
            Kind::Record(record) => self.record(node, record, path),
            Kind::Nullable(_) if node.is_null() => Some(Value::Null),
            Kind::Nullable(record) => self.record(node, record, path),
        }
    }

    fn wrong(&mut self, node: &Node, path: &Path<'_>, wanted: &str) -> Option<Value> {
        if self.diagnostics.is_full() {
            return None;
        }
        let mut diagnostic =
            node.error(format!("`{path}` must be {wanted}")).label(format!("this is {}", node.describe()));
        match (wanted, &node.data) {
            ("a string", Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Date(_)) => {
                diagnostic = diagnostic.hint("put it in quotes");
            }
            (DURATION, Data::Int(number)) => diagnostic = diagnostic.hint(format!("with its unit: `{number}s`")),
            ("a list", Data::Text(_) | Data::Int(_)) => diagnostic = diagnostic.hint("put it in brackets: `[…]`"),
            _ => {}
        }
        self.diagnostics.push(diagnostic);
        None
    }

    fn invalid(&mut self, node: &Node, path: &Path<'_>, what: String) -> Option<Value> {
        self.diagnostics.push(node.error(format!("`{path}`: {what}")));
        None
    }

    /// As in compose, a legal beginning anywhere is enough; the engine is stricter.
    fn container_name(&mut self, node: &Node, path: &Path<'_>) -> Option<Value> {
        let Some(text) = node.as_text() else { return self.wrong(node, path, "a string") };
        let legal = text.as_bytes().windows(2).any(|pair| {
            pair[0].is_ascii_alphanumeric() && (pair[1].is_ascii_alphanumeric() || b"_.-".contains(&pair[1]))
        });
        if !legal {
            let what =
                format!("`{text}` is not a container's name; it has two or more of letters, digits, `_`, `.` and `-`");
            return self.invalid(node, path, what);
        }
        Some(Value::String(text.to_owned()))
    }

    fn choice(&mut self, node: &Node, choices: &[&str], path: &Path<'_>) -> Option<Value> {
        let Some(text) = node.as_text() else { return self.wrong(node, path, "a string") };
        if choices.contains(&text) {
            return Some(self.text(text));
        }
        let all = choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
        let mut diagnostic = node.error(format!("`{text}` is not a value of `{path}`")).hint(format!("one of {all}"));
        if let Some(similar) = values::similar(text, choices.iter().copied()) {
            diagnostic = diagnostic.hint(format!("did you mean `{similar}`?"));
        }
        self.diagnostics.push(diagnostic);
        None
    }

    fn boolean(&mut self, node: &Node, path: &Path<'_>) -> Option<Value> {
        match &node.data {
            Data::Bool(value) => Some(Value::Bool(*value)),
            Data::Text(text) => match values::boolean(text) {
                Some(value) => {
                    if !matches!(text.to_lowercase().as_str(), "true" | "false") {
                        self.diagnostics.push(Diagnostic::warning(
                            node.span,
                            format!("`{text}` as a boolean is not YAML 1.2; write `{value}`"),
                        ));
                    }
                    Some(Value::Bool(value))
                }
                None => self.wrong(node, path, "`true` or `false`"),
            },
            _ => self.wrong(node, path, "`true` or `false`"),
        }
    }

    fn integer(&mut self, node: &Node, low: i64, high: i64, path: &Path<'_>) -> Option<Value> {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number well inside the range")]
        let value = match &node.data {
            Data::Int(value) => Some(*value),
            Data::Float(value) if value.abs() < 1e15 && value.fract() == 0.0 => Some(*value as i128),
            Data::Text(text) => text.parse::<i64>().ok().map(i128::from),
            _ => None,
        };
        match value {
            None => self.wrong(node, path, "a whole number"),
            Some(value) if value < i128::from(low) || value > i128::from(high) => {
                let range = match (low, high) {
                    (low, i64::MAX) => format!("at least {low}"),
                    (low, high) => format!("from {low} to {high}"),
                };
                self.invalid(node, path, format!("`{value}` is out of range; it must be {range}"))
            }
            Some(value) => Some(node::integer(value)),
        }
    }

    fn float(&mut self, node: &Node, path: &Path<'_>) -> Option<Value> {
        let text = match &node.data {
            Data::Int(_) | Data::Float(_) => node.scalar(),
            Data::Text(text) => Some(text.clone()),
            _ => None,
        };
        match text.and_then(|text| text.parse::<f32>().ok()).filter(|value| value.is_finite()) {
            Some(value) => value.to_string().parse().ok().map(node::float),
            None => self.wrong(node, path, "a number"),
        }
    }

    fn bytes(&mut self, node: &Node, text_only: bool, path: &Path<'_>) -> Option<Value> {
        let size = match &node.data {
            Data::Int(_) if text_only => return self.wrong(node, path, "a string"),
            Data::Int(value) => *value,
            Data::Float(_) if !text_only => 0,
            Data::Text(text) => match values::bytes(text) {
                Ok(size) => size.into(),
                Err(what) => {
                    let wrong = node.error(format!("`{path}`: {what}"));
                    self.diagnostics.push(wrong.hint("write it as `64m`, `1.5g`, or a number of bytes"));
                    return None;
                }
            },
            _ => return self.wrong(node, path, "a size such as `64m`"),
        };
        Some(Value::String(size.to_string()))
    }

    fn duration(&mut self, node: &Node, omit_zero: bool, path: &Path<'_>) -> Option<Value> {
        let Some(text) = node.as_text() else { return self.wrong(node, path, DURATION) };
        match values::duration(text) {
            Ok(0) if omit_zero => Some(Value::String(String::new())),
            Ok(nanos) => {
                let printed = go_duration(std::time::Duration::from_nanos(
                    u64::try_from(nanos.unsigned_abs()).unwrap_or(u64::MAX),
                ));
                Some(Value::String(if nanos < 0 { format!("-{printed}") } else { printed }))
            }
            Err(what) => {
                self.diagnostics
                    .push(node.error(format!("`{path}`: {what}")).hint("write it as `1m30s`, `500ms`, `2h`"));
                None
            }
        }
    }

    fn argv(&mut self, node: &Node, path: &Path<'_>) -> Option<Value> {
        match &node.data {
            Data::Null => Some(Value::Null),
            Data::Text(text) => match words::split(text) {
                Some(words) => Some(Value::from(words)),
                None => self.invalid(node, path, "a quote, backslash or parenthesis is left open".into()),
            },
            Data::List(_) => self.list(node, &Kind::Text, path),
            _ => self.wrong(node, path, "a string, or a list of strings"),
        }
    }

    fn hosts(&mut self, node: &Node, path: &Path<'_>) -> Option<Value> {
        let Some(list) = node.as_list() else {
            return self.wrong(node, path, "a mapping of names to addresses, or a list of `name=address`");
        };
        let mut hosts = Vec::new();
        for item in list {
            let Some(text) = item.as_text() else {
                self.wrong(item, path, "`name=address`");
                continue;
            };
            match text.split_once('=').or_else(|| text.split_once(':')) {
                Some((name, addresses)) if !name.is_empty() && !name.contains(':') => {
                    for address in addresses.split(',') {
                        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                        hosts.push(format!("{name}={}", bare.filter(|bare| !bare.is_empty()).unwrap_or(address)));
                    }
                }
                _ => {
                    self.diagnostics.push(
                        item.error(format!("`{text}` is not a host and its address"))
                            .hint("write `name=address`, as in `somehost=162.242.195.82`"),
                    );
                }
            }
        }
        hosts.sort();
        Some(Value::from(hosts))
    }

    fn mode(&mut self, node: &Node, path: &Path<'_>) -> Option<Value> {
        let mode = match &node.data {
            Data::Int(value) => Some(*value),
            Data::Text(text) => i128::from_str_radix(text, 8).ok(),
            _ => None,
        };
        match mode {
            Some(mode) if mode >= 0 => Some(Value::String(format!("0{mode:o}"))),
            _ => self.wrong(node, path, "permission bits such as `0440`"),
        }
    }

    fn ulimit(&mut self, node: &Node, path: &Path<'_>) -> Option<Value> {
        let Some(map) = node.as_map() else { return self.integer(node, i64::MIN, i64::MAX, path) };
        let mut object = Object::new();
        for key in map.keys().filter(|key| !matches!(&*key.text, "soft" | "hard") && !key.text.starts_with("x-")) {
            self.diagnostics.push(Diagnostic::error(key.span, format!("unknown key `{}` in `{path}`", key.text)));
        }
        for key in ["soft", "hard"] {
            match map.get(key) {
                Some(node) => {
                    let value = self.integer(node, i64::MIN, i64::MAX, &path.key(key))?;
                    if value.as_i64() != Some(0) {
                        object.insert(key.to_owned(), value);
                    }
                }
                None if self.scope == Scope::Whole => {
                    self.diagnostics.push(Diagnostic::error(node.span, format!("`{key}` is missing in `{path}`")));
                }
                None => {}
            }
        }
        Some(Value::Object(object))
    }

    fn ssh(&mut self, node: &Node, path: &Path<'_>) -> Option<Value> {
        let Some(map) = node.as_map() else { return self.wrong(node, path, "a list of `id=path`, or `default`") };
        let mut entries = Vec::new();
        for (key, value) in map {
            match value.scalar().filter(|path| !path.is_empty()) {
                Some(path) => entries.push(format!("{}={path}", key.text)),
                None => entries.push(key.text.to_string()),
            }
        }
        entries.sort();
        Some(Value::from(entries))
    }

    /// Compose prints a required file as its path alone.
    fn env_file(&mut self, node: &Node, path: &Path<'_>) -> Option<Value> {
        let value = self.record(node, &ENV_FILE, path)?;
        if value.get("required").and_then(Value::as_bool) == Some(true) {
            return value.get("path").cloned();
        }
        Some(value)
    }

    fn list(&mut self, node: &Node, inner: &'static Kind, path: &Path<'_>) -> Option<Value> {
        let scope = self.scope;
        let Some(list) = node.as_list() else { return self.wrong(node, path, "a list") };
        let element = path.element();
        let values = list.iter().filter_map(|node| self.value(node, inner, &element));
        Some(Value::Array(match scope {
            Scope::Whole => values.collect(),
            Scope::Part => {
                values.for_each(drop);
                Vec::new()
            }
        }))
    }

    fn duplicates(&mut self, node: &Node, path: &Path<'_>) {
        let mut seen = HashMap::new();
        for node in node.as_list().unwrap_or_default() {
            match seen.entry((std::mem::discriminant(&node.data), node.scalar())) {
                Entry::Vacant(vacant) => {
                    vacant.insert(node);
                }
                Entry::Occupied(earlier) if *earlier.get() == node => self.diagnostics.push(
                    node.error(format!("`{path}` lists {} twice", node.describe()))
                        .related(earlier.get().span, "first here"),
                ),
                Entry::Occupied(_) => {}
            }
        }
    }

    /// A list that could be widened has become a mapping before; what is left of it has an element that could not.
    fn no_mapping(&mut self, node: &Node, path: &Path<'_>) -> Option<Value> {
        if path.parent().is_none_or(Path::is_root) || !canon::takes_list(path.last()) {
            return self.wrong(node, path, "a mapping");
        }
        match node.as_list().and_then(|list| list.iter().find(|node| node.as_text().is_none())) {
            Some(element) => self.wrong(element, &path.element(), "a string"),
            None => self.wrong(node, path, "a mapping or a list"),
        }
    }

    fn map(&mut self, node: &Node, names: Keys, inner: &'static Kind, path: &Path<'_>) -> Option<Value> {
        let Some(map) = node.as_map() else { return self.no_mapping(node, path) };
        let mut entries: Vec<_> = map.iter().filter(|(_, node)| node.directive != Directive::Reset).collect();
        entries.sort_by(|a, b| a.0.text.cmp(&b.0.text));
        let mut object = Object::new();
        for (key, node) in entries {
            let extension = key.text.starts_with("x-") && names == Keys::Loose;
            let fits = match names {
                Keys::Free => true,
                Keys::Named | Keys::Loose => {
                    !key.text.is_empty()
                        && key.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
                }
                Keys::Lower => !key.text.is_empty() && key.text.bytes().all(|byte| byte.is_ascii_lowercase()),
            };
            if !fits && !extension && names != Keys::Loose {
                let allowed = match names {
                    Keys::Lower => "lower-case letters",
                    Keys::Free | Keys::Named | Keys::Loose => "letters, digits, `.`, `_` and `-`",
                };
                self.diagnostics.push(
                    Diagnostic::error(key.span, format!("`{}` is not a name `{path}` can have", key.text))
                        .hint(format!("names there are {allowed}")),
                );
                continue;
            }
            if let Some(value) = self.value(node, inner, &path.key(&key.text)) {
                self.put(&mut object, &key.text, value);
            }
        }
        Some(Value::Object(object))
    }
}
