//! Text → [`Node`]s, one per YAML document; the only file that names the YAML crate.
//!
//! Scalars are resolved as go-yaml v3 does (YAML 1.2 booleans, YAML 1.1 octals and merge keys), because that is what
//! compose files are written against. What a text may cost is bounded: see [`limits`].

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::limits;
use super::node::{Data, Directive, Key, Map, Node};
use super::repair::Repaired;
use crate::diag::{Diagnostic, FileId, Span};

/// Parses all documents of a text. A document without content is null.
pub fn parse(file: FileId, text: &str) -> Result<Vec<Node>, Diagnostic> {
    let skipped = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    reject_control_characters(file, text)?;
    let mut repaired = Repaired::new(&text[skipped..]);
    loop {
        let offsets = Offsets::of(file, &repaired, skipped, text.len());
        match documents(repaired.text(), &offsets) {
            Err(diagnostic) => {
                let fault = Parser::new_from_str(repaired.text()).find_map(Result::err);
                let fault = fault.map(|error| (error.info().to_owned(), error.marker().index()));
                let at = |index| repaired.text().char_indices().nth(index).map_or(repaired.text().len(), |(at, _)| at);
                match fault.map(|(complaint, index)| (complaint, at(index))) {
                    Some((complaint, at)) if repaired.repair(&complaint, at) => {}
                    _ => return Err(diagnostic),
                }
            }
            documents => return documents,
        }
    }
}

fn documents(text: &str, offsets: &Offsets) -> Result<Vec<Node>, Diagnostic> {
    let mut builder = Builder { offsets, anchors: HashMap::new(), keys: HashSet::default(), spent: 0 };
    let mut events = Parser::new_from_str(text);
    let mut documents = Vec::new();
    while let Some(event) = events.next_event() {
        match event.map_err(|error| offsets.syntax_error(&error))? {
            (Event::DocumentStart(_), _) => documents.push(builder.node(&mut events, 0)?.0),
            (Event::StreamEnd, _) => break,
            _ => {}
        }
    }
    Ok(documents)
}

fn reject_control_characters(file: FileId, text: &str) -> Result<(), Diagnostic> {
    let bad =
        |c: char| (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) || c == '\u{fffe}' || c == '\u{ffff}';
    match text.char_indices().find(|&(_, c)| bad(c)) {
        None => Ok(()),
        Some((at, c)) => {
            let span = Span { file, start: to_u32(at), end: to_u32(at + c.len_utf8()) };
            Err(Diagnostic::error(span, format!("the control character U+{:04X} is not allowed in YAML", u32::from(c))))
        }
    }
}

type Events<'t> = Parser<'t, saphyr_parser::StrInput<'t>>;

struct Builder<'o> {
    offsets: &'o Offsets,
    anchors: HashMap<usize, Option<(Node, usize)>>,
    /// The same key stands in many mappings; its text is kept once.
    keys: HashSet<Rc<str>, foldhash::fast::RandomState>,
    spent: usize,
}

impl Builder<'_> {
    /// Builds the next node; says what it costs.
    fn node(&mut self, events: &mut Events<'_>, depth: usize) -> Result<(Node, usize), Diagnostic> {
        let (event, span) = match events.next_event() {
            Some(event) => event.map_err(|error| self.offsets.syntax_error(&error))?,
            None => (Event::StreamEnd, saphyr_parser::Span::default()),
        };
        let span = self.offsets.span(span);
        if depth > limits::DEPTH {
            return Err(Diagnostic::error(span, format!("nested deeper than {} levels", limits::DEPTH)));
        }
        let (anchor, (node, cost)) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let cost = limits::of_text(&text);
                self.spend(span, cost)?;
                (anchor, (scalar(span, &text, style, tag.as_deref())?, cost))
            }
            Event::Alias(id) => return self.alias(span, id),
            Event::SequenceStart(anchor, tag) => {
                self.spend(span, 1)?;
                self.open(anchor);
                (anchor, self.sequence(events, span, tag.as_deref(), depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.spend(span, 1)?;
                self.open(anchor);
                (anchor, self.mapping(events, span, tag.as_deref(), depth)?)
            }
            _ => (0, (Node::new(span, Data::Null), 1)),
        };
        if anchor != 0 {
            self.spend(span, cost)?;
            self.anchors.insert(anchor, Some((node.clone(), cost)));
        }
        Ok((node, cost))
    }

    fn open(&mut self, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
    }

    fn spend(&mut self, span: Span, cost: usize) -> Result<(), Diagnostic> {
        self.spent += cost;
        if self.spent > limits::FILE_VALUES {
            let message = format!("the file has more than {} values, aliases expanded", limits::FILE_VALUES);
            return Err(Diagnostic::error(span, message));
        }
        Ok(())
    }

    fn alias(&mut self, span: Span, id: usize) -> Result<(Node, usize), Diagnostic> {
        match self.anchors.get(&id) {
            Some(Some((node, cost))) => {
                let cost = *cost;
                let node = node.clone();
                self.spend(span, cost)?;
                Ok((node, cost))
            }
            Some(None) => Err(Diagnostic::error(span, "this alias stands inside the value it refers to")),
            None => Err(Diagnostic::error(span, "this alias refers to an anchor that is not defined before it")),
        }
    }

    fn sequence(
        &mut self,
        events: &mut Events<'_>,
        span: Span,
        tag: Option<&Tag>,
        depth: usize,
    ) -> Result<(Node, usize), Diagnostic> {
        let (mut list, mut total) = (Vec::new(), 1);
        let extent = loop {
            if let Some(closing) = self.closed(events, |event| matches!(event, Event::SequenceEnd))? {
                break self.extent(span, closing);
            }
            let (node, cost) = self.node(events, depth + 1)?;
            total += cost;
            if node.directive != Directive::Reset {
                list.push(node);
            }
        };
        Ok((tagged(Node::new(extent, Data::List(list)), tag), total))
    }

    fn mapping(
        &mut self,
        events: &mut Events<'_>,
        span: Span,
        tag: Option<&Tag>,
        depth: usize,
    ) -> Result<(Node, usize), Diagnostic> {
        let (mut map, mut inherited, mut total) = (Map::default(), None, 1);
        let extent = loop {
            if let Some(closing) = self.closed(events, |event| matches!(event, Event::MappingEnd))? {
                break self.extent(span, closing);
            }
            let merges =
                matches!(events.peek(), Some(Ok((Event::Scalar(text, ScalarStyle::Plain, ..), _))) if text == "<<");
            let (key, _) = self.node(events, depth + 1)?;
            let (value, cost) = self.node(events, depth + 1)?;
            total += cost + 1;
            if merges {
                if let Some((earlier, _)) = inherited {
                    return Err(Diagnostic::error(key.span, "the key `<<` is there twice")
                        .related(earlier, "first here")
                        .hint("write one with a list: `<<: [*a, *b]`"));
                }
                inherited = Some((key.span, value));
                continue;
            }
            let Data::Text(text) = &key.data else {
                return Err(Diagnostic::error(key.span, format!("a key must be a string, not {}", key.describe()))
                    .hint("put it in quotes"));
            };
            if let Some((earlier, _)) = map.get_key_value(text.as_str()) {
                return Err(Diagnostic::error(key.span, format!("the key `{text}` is there twice"))
                    .related(earlier.span, "first here"));
            }
            let text = self.key(text);
            map.insert(Key { text, span: key.span }, value);
        };
        if let Some((at, value)) = inherited {
            inherit(&mut map, at, value)?;
        }
        Ok((tagged(Node::new(extent, Data::Map(map)), tag), total))
    }

    fn key(&mut self, text: &str) -> Rc<str> {
        if let Some(known) = self.keys.get(text) {
            return known.clone();
        }
        let text: Rc<str> = text.into();
        self.keys.insert(text.clone());
        text
    }

    fn closed(
        &self,
        events: &mut Events<'_>,
        is_end: fn(&Event<'_>) -> bool,
    ) -> Result<Option<saphyr_parser::Span>, Diagnostic> {
        match events.peek() {
            Some(Ok((event, _))) if is_end(event) => {
                let span = events.next_event().and_then(Result::ok).map(|(_, span)| span);
                Ok(Some(span.unwrap_or_default()))
            }
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(self.offsets.syntax_error(&error)),
            None => Ok(Some(saphyr_parser::Span::default())),
        }
    }

    /// From the first byte of a collection to its closing bracket; a block collection is known by its start alone.
    fn extent(&self, start: Span, closing: saphyr_parser::Span) -> Span {
        let closing = self.offsets.span(closing);
        let end = if closing.end > closing.start { closing.end } else { start.end };
        Span { end: end.max(start.start), ..start }
    }
}

/// `<<`: keys of another mapping that are not here yet.
fn inherit(map: &mut Map, at: Span, value: Node) -> Result<(), Diagnostic> {
    match value.data {
        Data::Map(other) => {
            for (key, node) in other {
                map.entry(key).or_insert(node);
            }
            Ok(())
        }
        Data::List(list) if list.iter().all(|node| node.as_map().is_some()) => {
            list.into_iter().try_for_each(|node| inherit(map, at, node))
        }
        _ => Err(Diagnostic::error(at, "`<<` takes a mapping, or a list of mappings")),
    }
}

fn tagged(mut node: Node, tag: Option<&Tag>) -> Node {
    match tag.map(|tag| (tag.handle.as_str(), tag.suffix.as_str())) {
        Some(("!", "reset")) => {
            node.directive = Directive::Reset;
            node.data = Data::Null;
        }
        Some(("!", "override")) => node.directive = Directive::Override,
        _ => {}
    }
    node
}

fn scalar(span: Span, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node, Diagnostic> {
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    let data = match core {
        Some("str") => Data::Text(text.to_owned()),
        Some("binary") => Data::Text(base64(text).ok_or_else(|| Diagnostic::error(span, "`!!binary` needs base64"))?),
        Some(kind @ ("int" | "float" | "bool" | "null")) => {
            let data = resolve(text);
            let fits = match kind {
                "int" => matches!(data, Data::Int(_)),
                "float" => matches!(data, Data::Int(_) | Data::Float(_)),
                "bool" => matches!(data, Data::Bool(_)),
                _ => matches!(data, Data::Null),
            };
            if !fits {
                return Err(Diagnostic::error(span, format!("`{text}` cannot be read as `!!{kind}`")));
            }
            match data {
                #[expect(clippy::cast_precision_loss, reason = "what the tag asks for")]
                Data::Int(value) if kind == "float" => Data::Float(value as f64),
                data => data,
            }
        }
        None | Some("timestamp") if style == ScalarStyle::Plain && tag.is_none_or(is_open) => resolve(text),
        _ => Data::Text(text.to_owned()),
    };
    Ok(tagged(Node::new(span, data), tag))
}

/// `!` and `!!timestamp`, which leave it to the scalar what it is.
fn is_open(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() || tag.suffix.is_empty() || tag.suffix == "!"
}

/// Whether a plain scalar is text to every reader of YAML, to those of its older version too.
pub fn is_text_to_all(text: &str) -> bool {
    let old = ["y", "n", "yes", "no", "on", "off"];
    let clock =
        text.contains(':') && text.chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '.' | '_' | '+' | '-'));
    matches!(resolve(text), Data::Text(_)) && !old.contains(&text.to_ascii_lowercase().as_str()) && !clock
}

/// A plain scalar as go-yaml v3 resolves it.
fn resolve(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true),
        "false" | "False" | "FALSE" => return Data::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Data::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Data::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Data::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Data::Text(text.to_owned());
    }
    if is_date(text) {
        return Data::Date(text.to_owned());
    }
    let digits = text.replace('_', "");
    if let Some(value) = go_integer(&digits) {
        return Data::Int(value);
    }
    match is_float(&digits).then(|| digits.parse().ok().filter(|value: &f64| value.is_finite())).flatten() {
        Some(value) => Data::Float(value),
        None => Data::Text(text.to_owned()),
    }
}

/// Go's `ParseInt(text, 0, 64)`, then `ParseUint`: `0x`, `0o`, `0b`, and a leading 0 for octal.
fn go_integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_str() {
        s if s.starts_with("0x") => (16, &s[2..]),
        s if s.starts_with("0o") => (8, &s[2..]),
        s if s.starts_with("0b") => (2, &s[2..]),
        s if s.len() > 1 && s.starts_with('0') => (8, &s[1..]),
        s => (10, s),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value).then_some(value)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, rest)) => digits(whole) && digits(rest) && !(whole.is_empty() && rest.is_empty()),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    mantissa_ok && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

/// `2024-01-02`, with a time or not: `T15:04:05` with its zone, or ` 15:04:05` without.
fn is_date(text: &str) -> bool {
    let at = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let (date, time) = text.split_at(at);
    let parts: Vec<_> = date.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return false };
    let number = |part: &str, width: usize| match part.parse::<u32>() {
        Ok(value) if (1..=width).contains(&part.len()) && !part.starts_with('+') => Some(value),
        _ => None,
    };
    let (Some(year), Some(month), Some(day)) =
        (number(year, 4).filter(|_| year.len() == 4), number(month, 2), number(day, 2))
    else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    if !(1..=days).contains(&day) {
        return false;
    }
    let clock = |clock: &str| {
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let parts: Vec<_> = whole.split(':').map(|part| number(part, 2)).collect();
        let digits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
        digits && matches!(parts.as_slice(), [Some(..24), Some(..60), Some(..60)])
    };
    match time.chars().next() {
        None => true,
        Some(' ') => clock(&time[1..]),
        Some(_) => match time.find(['Z', '+', '-']) {
            Some(zone) if &time[zone..] == "Z" => clock(&time[1..zone]),
            Some(zone) if time.len() == zone + 6 => clock(&time[1..zone]) && clock(&format!("{}:0", &time[zone + 1..])),
            _ => false,
        },
    }
}

fn base64(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let (mut bits, mut width) = (0u32, 0);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        width += 6;
        if width >= 8 {
            width -= 8;
            bytes.push(u8::try_from((bits >> width) & 0xff).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}

/// From the parser's character positions to bytes of the loaded text.
struct Offsets {
    file: FileId,
    /// Byte offset of each character; empty where the two are the same.
    bytes: Vec<u32>,
    start: u32,
    end: u32,
}

impl Offsets {
    fn of(file: FileId, text: &Repaired<'_>, start: usize, end: usize) -> Self {
        let bytes = if text.is_untouched() && text.text().is_ascii() {
            Vec::new()
        } else {
            text.text().char_indices().map(|(at, _)| to_u32(text.origin(at) + start)).collect()
        };
        Self { file, bytes, start: to_u32(start), end: to_u32(end) }
    }

    fn byte(&self, character: usize) -> u32 {
        if self.bytes.is_empty() {
            (self.start + to_u32(character)).min(self.end)
        } else {
            self.bytes.get(character).copied().unwrap_or(self.end)
        }
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let (start, end) = (self.byte(span.start.index()), self.byte(span.end.index()));
        Span { file: self.file, start, end: end.max(start) }
    }

    fn syntax_error(&self, error: &saphyr_parser::ScanError) -> Diagnostic {
        let at = self.byte(error.marker().index());
        let span = Span { file: self.file, start: at, end: at };
        let (message, hint) = reworded(error.info());
        let diagnostic = Diagnostic::error(span, format!("not valid YAML: {message}"));
        if hint.is_empty() { diagnostic } else { diagnostic.hint(hint) }
    }
}

/// What the parser complains of most, in words that say what to do.
static COMPLAINTS: &[(&str, &str, &str)] = &[
    ("tab", "a tab cannot indent", "indent with spaces"),
    (
        "found unknown anchor",
        "there is no anchor of this name before this alias",
        "write `&NAME` where the value stands",
    ),
    (
        "mapping values are not allowed",
        "a `:` cannot stand here",
        "where it belongs to the value, put the value in quotes; else check the indentation",
    ),
    (
        "did not find expected key",
        "a key was expected here",
        "keys of one mapping begin in the same column; check the indentation",
    ),
    (
        "did not find expected '-' indicator",
        "a `-` was expected here",
        "elements of one list begin in the same column; check the indentation",
    ),
    ("quoted scalar, found unexpected end of stream", "this quote is not closed", "close it with the same quote"),
    (
        "quoted scalar, found unknown escape character",
        "this escape is not known",
        "write `\\\\` for a backslash, or use single quotes",
    ),
    (
        "trailing content after double-quoted scalar",
        "something follows the closing quote",
        "put all of the value in quotes",
    ),
    ("flow sequence, expected", "a `,` or `]` was expected here", "close the list with `]`"),
    ("flow mapping, did not find expected", "a `,` or `}` was expected here", "close the mapping with `}`"),
    ("recursion limit exceeded", "nested too deep", ""),
    ("invalid indentation", "this line is not indented as far as what it belongs to", "check the indentation"),
];

fn reworded(complaint: &str) -> (&str, &'static str) {
    let known = COMPLAINTS.iter().find(|(part, ..)| complaint.contains(part));
    known.map_or((complaint, ""), |(_, message, hint)| (message, hint))
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        match parse(FileId(0), text) {
            Ok(documents) => documents.iter().map(|node| node.raw().to_string()).collect::<Vec<_>>().join("\n"),
            Err(diagnostic) => format!("error: {}", diagnostic.message),
        }
    }

    #[test]
    fn plain_scalars_resolve_as_in_go_yaml() {
        assert_eq!(
            json("[yes, true, ~, 017, 0o17, 0x1F, 1_000, 1e3, .5, 1.50, -3, 12e03, 80:80, 1.2.3]"),
            r#"["yes",true,null,15,15,31,1000,1000,0.5,1.5,-3,12000,"80:80","1.2.3"]"#
        );
    }

    #[test]
    fn what_is_not_a_date_or_a_number_is_text() {
        assert_eq!(
            json(
                "[2024-02-30, 2024-01-02T25:00:00Z, 2024-01-02 03:04:05 +1, 1e400, !x 1, !override true, !!foo 1, ! 1]"
            ),
            r#"["2024-02-30","2024-01-02T25:00:00Z","2024-01-02 03:04:05 +1","1e400","1","true","1",1]"#
        );
        for text in ["2024-02-29", "2024-1-2", "2024-01-02T03:04:05.5+02:00", "2024-01-02 03:04:05"] {
            assert!(is_date(text), "{text}");
        }
    }

    #[test]
    fn lines_indented_too_little_are_taken_as_in_libyaml() {
        for (text, wanted) in [
            ("a:\n  b: [1,\n2, {c:\n 3}\n]\n", r#"{"a":{"b":[1,2,{"c":3}]}}"#),
            ("a:\n  b: \"x\n\n y\\\n z\"\n  c: 'x\ny'' z'\n", r#"{"a":{"b":"x\nyz","c":"x y' z"}}"#),
            ("ä:\n  b:\tc\n  d: [\n e]\n", r#"{"ä":{"b":"c","d":["e"]}}"#),
            (
                "a:\n  b: \"x\n---\n\"\n",
                "error: not valid YAML: while scanning a quoted scalar, found unexpected document indicator",
            ),
        ] {
            assert_eq!(json(text), wanted, "{text}");
        }
        let text = "ä:\n  b: [ü,\nöö]\n  c: d\n";
        let documents = parse(FileId(0), text).expect("valid");
        let span = documents[0].get("ä").and_then(|node| node.get("c")).expect("there").span;
        assert_eq!(&text[span.start as usize..span.end as usize], "d");
    }

    #[test]
    fn merge_keys_do_not_replace_what_is_there() {
        assert_eq!(
            json("a: &a {x: 1, y: 1}\nb: {<<: *a, x: 2}\nc: {<<: [{x: 3}, *a]}"),
            r#"{"a":{"x":1,"y":1},"b":{"x":2,"y":1},"c":{"x":3,"y":1}}"#
        );
        assert_eq!(json("{\"<<\": {x: 1}}"), r#"{"<<":{"x":1}}"#);
        assert_eq!(json("{<<: {x: 1}, <<: {y: 1}}"), "error: the key `<<` is there twice");
    }

    #[test]
    fn aliases_are_bounded() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
        }
        assert_eq!(json(&text), "error: the file has more than 2000000 values, aliases expanded");
        assert_eq!(json("a: &a [*a]"), "error: this alias stands inside the value it refers to");
        assert_eq!(json(&"[".repeat(200)), "error: nested deeper than 128 levels");
        assert!(json(&"[".repeat(10_000)).starts_with("error: "));
    }

    #[test]
    fn spans_are_bytes_of_the_text() {
        let text = "\u{feff}ä: [ö, ünder]";
        let documents = parse(FileId(0), text).expect("valid");
        let list = documents[0].get("ä").and_then(Node::as_list).expect("a list");
        assert_eq!(&text[list[1].span.start as usize..list[1].span.end as usize], "ünder");
    }
}
