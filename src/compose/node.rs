//! The tree a compose file is until it is decoded: scalars, lists and maps that know where they stand in the files.
//!
//! Knows nothing of YAML syntax and nothing of compose's vocabulary. Every node and every key carries its [`Span`];
//! phases rewrite values and keep spans, so that whatever is found wrong later still points at what was typed.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use indexmap::IndexMap;
use serde_json::Value;

use crate::diag::{Diagnostic, Span};

/// Names of variables and their values, as far as they are set.
pub type Variables = Rc<[(String, Option<String>)]>;

/// A value of a compose file and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What compose is told to do with it while merging.
    pub directive: Directive,
    /// The variables its text came from, with their values; none for most.
    pub variables: Option<Variables>,
    /// The value.
    pub data: Data,
}

/// The tags compose gives a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Directive {
    /// No tag: merged by the rules.
    #[default]
    Merge,
    /// `!reset`: what is merged so far is dropped, and this too.
    Reset,
    /// `!override`: what is merged so far is dropped, this stays.
    Override,
}

/// The kinds of values.
#[derive(Debug, Clone)]
pub enum Data {
    /// `null`, `~`, nothing.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// A date, which YAML 1.1 makes of `2024-01-02`; nothing in compose takes one.
    Date(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Map),
}

/// The mapping of a node. Hashed with a seed of its own: names come from files of anybody.
pub type Map = IndexMap<Key, Node, foldhash::fast::RandomState>;

/// A key and its place; compared by its text alone.
#[derive(Debug, Clone)]
pub struct Key {
    /// The key.
    pub text: Rc<str>,
    /// Where it stands.
    pub span: Span,
}

impl Key {
    /// A key at a place.
    pub fn new(text: impl Into<Rc<str>>, span: Span) -> Self {
        Self { text: text.into(), span }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl Node {
    /// A value at a place.
    pub fn new(span: Span, data: Data) -> Self {
        Self { span, directive: Directive::Merge, variables: None, data }
    }

    /// Text at a place.
    pub fn text(span: Span, text: impl Into<String>) -> Self {
        Self::new(span, Data::Text(text.into()))
    }

    /// A mapping at a place, its keys standing there too.
    pub fn map<'k>(span: Span, entries: impl IntoIterator<Item = (&'k str, Node)>) -> Self {
        Self::new(span, Data::Map(entries.into_iter().map(|(key, node)| (Key::new(key, span), node)).collect()))
    }

    /// Another value that stands where this one stands and came from the same variables.
    pub fn at(&self, data: Data) -> Self {
        Self { span: self.span, directive: Directive::Merge, variables: self.variables.clone(), data }
    }

    /// The mapping, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        match &self.data {
            Data::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The mapping, if it is one.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.data {
            Data::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.data {
            Data::List(list) => Some(list),
            _ => None,
        }
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key)
    }

    /// The value under a key of a mapping.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.as_map_mut()?.get_mut(key)
    }

    /// The text under a key of a mapping.
    pub fn text_at(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text()
    }

    /// Puts a value under a key of a mapping unless there is one; the key stands where the mapping stands.
    pub fn default_key(&mut self, key: &str, data: Data) {
        let span = self.span;
        if let Some(map) = self.as_map_mut()
            && !map.contains_key(key)
        {
            map.insert(Key::new(key, span), Node::new(span, data));
        }
    }

    /// The scalar as text, as Go's `fmt.Sprint` writes it; nothing for null, lists and mappings.
    pub fn scalar(&self) -> Option<String> {
        match &self.data {
            Data::Text(text) | Data::Date(text) => Some(text.clone()),
            Data::Bool(value) => Some(value.to_string()),
            Data::Int(value) => Some(value.to_string()),
            Data::Float(value) => Some(go_float(*value)),
            Data::Null | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The value without its places, keys sorted as Go writes maps.
    pub fn raw(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Int(value) => integer(*value),
            Data::Float(value) => float(*value),
            Data::Text(text) => Value::String(text.clone()),
            Data::Date(text) => Value::String(moment(text)),
            Data::List(list) => list.iter().map(Node::raw).collect(),
            Data::Map(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by(|a, b| a.0.text.cmp(&b.0.text));
                Value::Object(entries.into_iter().map(|(key, node)| (key.text.to_string(), node.raw())).collect())
            }
        }
    }

    /// What it is, in a reader's words.
    pub fn describe(&self) -> String {
        match &self.data {
            Data::Null => "nothing".into(),
            Data::Bool(value) => format!("the boolean `{value}`"),
            Data::Int(value) => format!("the number `{value}`"),
            Data::Float(value) => format!("the number `{}`", go_float(*value)),
            Data::Date(text) => format!("the date `{text}`"),
            Data::Text(text) => format!("the string `{}`", shorten(&self.masked(text))),
            Data::List(_) => "a list".into(),
            Data::Map(_) => "a mapping".into(),
        }
    }

    /// An error at this value; where the text came from variables, they are named.
    pub fn error(&self, message: impl Into<String>) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(self.span, self.masked(&message.into()));
        for (name, value) in self.variables.iter().flat_map(|variables| variables.iter()) {
            let value = match value {
                None => "is not set".to_owned(),
                Some(_) if looks_secret(name) => "is set (not shown)".to_owned(),
                Some(value) => format!("is `{}`", shorten(value)),
            };
            diagnostic = diagnostic.hint(format!("the variable `{name}` {value}"));
        }
        diagnostic
    }
}

impl Node {
    /// A text without the values of this value's variables that look like secrets.
    fn masked(&self, text: &str) -> String {
        let variables = self.variables.iter().flat_map(|variables| variables.iter());
        let secrets = variables.filter(|(name, _)| looks_secret(name)).filter_map(|(_, value)| value.as_deref());
        secrets.filter(|value| !value.is_empty()).fold(text.to_owned(), |text, value| text.replace(value, "•••"))
    }
}

/// Equality of values, wherever they stand.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (&self.data, &other.data) {
            (Data::Null, Data::Null) => true,
            (Data::Bool(a), Data::Bool(b)) => a == b,
            (Data::Int(a), Data::Int(b)) => a == b,
            (Data::Float(a), Data::Float(b)) => a == b,
            (Data::Text(a), Data::Text(b)) | (Data::Date(a), Data::Date(b)) => a == b,
            (Data::List(a), Data::List(b)) => a == b,
            (Data::Map(a), Data::Map(b)) => a == b,
            _ => false,
        }
    }
}

/// A place in the tree, as the keys that lead to it; list elements are `[]`. It lives as long as the walk that made it.
#[derive(Debug, Clone, Copy)]
pub struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    part: &'p str,
}

impl<'p> Path<'p> {
    /// The root.
    pub const ROOT: Path<'static> = Path { parent: None, part: "" };

    /// The place under a key.
    pub fn key(&'p self, key: &'p str) -> Self {
        Self { parent: Some(self), part: key }
    }

    /// The place of a list's elements.
    pub fn element(&'p self) -> Self {
        self.key(ELEMENT)
    }

    /// The place around it.
    pub fn parent(&self) -> Option<&'p Path<'p>> {
        self.parent
    }

    /// The last key.
    pub fn last(&self) -> &'p str {
        self.part
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// The service, when this is the place of one.
    pub fn service(&self) -> Option<&'p str> {
        let section = self.parent.filter(|section| section.part == "services")?;
        section.parent.is_some_and(Path::is_root).then_some(self.part)
    }
}

/// How a place of a list's elements is written.
pub const ELEMENT: &str = "[]";

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else { return Ok(()) };
        parent.fmt(f)?;
        if self.part == ELEMENT || parent.is_root() { f.write_str(self.part) } else { write!(f, ".{}", self.part) }
    }
}

/// A whole number as JSON.
pub fn integer(value: i128) -> Value {
    i64::try_from(value).map(Value::from).or_else(|_| u64::try_from(value).map(Value::from)).unwrap_or(Value::Null)
}

/// A number as Go's JSON writes it: whole ones without a point.
pub fn float(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be a whole number well inside the range")]
    if value.fract() == 0.0 && value.abs() < 1e15 { Value::from(value as i64) } else { Value::from(value) }
}

/// A date as Go's JSON writes it: with its time, and the time with its zone.
fn moment(text: &str) -> String {
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "0:0:0Z"));
    let at = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(at);
    let zone = if matches!(zone, "" | "+00:00" | "-00:00") { "Z" } else { zone };
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let padded = |text: &str, separator: char| {
        let parts: Vec<_> = text.split(separator).map(|part| format!("{part:0>2}")).collect();
        parts.join(&separator.to_string())
    };
    let nanoseconds: String = fraction.chars().take(9).collect();
    let fraction = match nanoseconds.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    format!("{}T{}{fraction}{zone}", padded(date, '-'), padded(whole, ':'))
}

/// `%v` of a Go float64.
fn go_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    if !(-4..6).contains(&exponent.parse().unwrap_or(0)) {
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    value.to_string()
}

fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    if line.len() == text.len() && line.chars().count() <= 60 {
        return line.to_owned();
    }
    format!("{}…", line.chars().take(57).collect::<String>())
}

fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_as_in_go() {
        for (value, text) in
            [(1.5, "1.5"), (100_000.0, "100000"), (1_234_567.5, "1.2345675e+06"), (0.00001, "1e-05"), (0.1, "0.1")]
        {
            assert_eq!(go_float(value), text);
        }
    }

    #[test]
    fn dates_read_as_in_go() {
        for (text, wanted) in [
            ("2024-1-2", "2024-01-02T00:00:00Z"),
            ("2024-01-02 3:04:05.120", "2024-01-02T03:04:05.12Z"),
            ("2001-12-14t21:59:43.10-05:00", "2001-12-14T21:59:43.1-05:00"),
            ("2024-01-02T03:04:05.0Z", "2024-01-02T03:04:05Z"),
        ] {
            assert_eq!(moment(text), wanted);
        }
    }

    #[test]
    fn a_place_reads_as_its_keys() {
        let services = Path::ROOT.key("services");
        let service = services.key("a.b");
        let ports = service.key("ports");
        assert_eq!(ports.element().to_string(), "services.a.b.ports[]");
        assert_eq!((service.service(), ports.service()), (Some("a.b"), None));
    }
}
