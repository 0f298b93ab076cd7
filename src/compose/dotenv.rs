//! The syntax of `.env` and `env_file` files.
//!
//! `NAME=value`, `NAME: value`, `export NAME=value`, a bare `NAME` (taken from the environment); single quotes are
//! literal, double quotes know escapes, variables are replaced everywhere but in single quotes. The format `raw` of an
//! `env_file` is a line a variable, nothing interpreted.

use indexmap::IndexMap;

use super::interpolate::{Fault, Seen, substitute};
use super::limits;
use crate::diag::{Diagnostic, FileId, Span};

/// Reads a file's variables in order. `lookup` sees the environment; what the file defined before is seen after it.
pub fn parse(
    file: FileId,
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Diagnostic> {
    let mut reader = Reader { file, text, at: if text.starts_with('\u{feff}') { 3 } else { 0 } };
    let mut variables: IndexMap<String, String> = IndexMap::new();
    let mut spent = 0;
    while reader.skip_to_statement() {
        let start = reader.at;
        let (name, inherited) = reader.name()?;
        let value = if inherited {
            match lookup(&name) {
                Some(value) => value,
                None => continue,
            }
        } else {
            reader.value(&|name| lookup(name).or_else(|| variables.get(name).cloned()))?
        };
        spent += value.len();
        if spent > limits::EXPANDED_BYTES {
            let fault = Fault::TooLong(limits::EXPANDED_BYTES);
            let span = Span { file, start: to_u32(start), end: to_u32(start + name.len()) };
            return Err(fault.diagnostic(span, &name));
        }
        variables.insert(name, value);
    }
    Ok(variables.into_iter().collect())
}

/// Reads a file of format `raw`.
pub fn parse_raw(
    file: FileId,
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Diagnostic> {
    let mut variables = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let span = Span { file, start: to_u32(start), end: to_u32(start + line.trim_end().len()) };
        start += line.len();
        let line = line.trim_end_matches(['\n', '\r']).trim_start_matches('\u{feff}');
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.trim_start(), Some(value.to_owned())),
            None => (line.trim_start(), lookup(line.trim())),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Diagnostic::error(span, "the name of a variable is empty or has a space in it"));
        }
        if let Some(value) = value {
            variables.push((name.to_owned(), value));
        }
    }
    Ok(variables)
}

struct Reader<'t> {
    file: FileId,
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn error(&self, from: usize, length: usize, message: String) -> Diagnostic {
        let end = (from + length).min(self.text.len());
        Diagnostic::error(Span { file: self.file, start: to_u32(from), end: to_u32(end) }, message)
    }

    /// Moves to the next line that says something.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            self.at += self.rest().len() - self.rest().trim_start().len();
            if !self.rest().starts_with('#') {
                return !self.rest().is_empty();
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// Reads a name and what follows it; true when nothing does, so that the value comes from the environment.
    fn name(&mut self) -> Result<(String, bool), Diagnostic> {
        if let Some(rest) = self.rest().strip_prefix("export")
            && rest.starts_with(char::is_whitespace)
        {
            self.at = self.text.len() - rest.trim_start_matches(blank).len();
        }
        let (start, rest) = (self.at, self.rest());
        let mut found = None;
        for (at, c) in rest.char_indices() {
            match c {
                '=' | ':' | '\n' => {
                    found = Some((at, c));
                    break;
                }
                '_' | '.' | '-' | '[' | ']' => {}
                c if c.is_alphanumeric() || blank(c) => {}
                c => {
                    let line = rest.lines().next().unwrap_or("");
                    return Err(self.error(start + at, c.len_utf8(), format!("unexpected `{c}` in the name `{line}`")));
                }
            }
        }
        let (name, inherited) = match found {
            Some((at, c)) => {
                self.at += at + 1;
                (&rest[..at], c == '\n')
            }
            None => {
                self.at = self.text.len();
                (rest, true)
            }
        };
        let name = name.trim_end();
        if name.contains(' ') {
            return Err(self.error(start, name.len(), format!("the name `{name}` contains a space")));
        }
        if !inherited {
            self.at += self.rest().len() - self.rest().trim_start_matches(blank).len();
        }
        Ok((name.to_owned(), inherited))
    }

    fn value(&mut self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, Diagnostic> {
        let (start, rest) = (self.at, self.rest());
        match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let Some((text, length)) = quoted(rest, quote) else {
                    let line = rest.lines().next().unwrap_or("");
                    return Err(self.error(start, line.len(), format!("the quote of {line} is not closed")));
                };
                self.at += length;
                if quote == '\'' { Ok(text) } else { self.expand(start, length, &unescape(&text), lookup) }
            }
            _ => {
                let line = rest.split('\n').next().unwrap_or("");
                self.at = (start + line.len() + 1).min(self.text.len());
                let value = line.split(" #").next().unwrap_or("").trim_end();
                self.expand(start, value.len(), value, lookup)
            }
        }
    }

    fn expand(
        &self,
        at: usize,
        length: usize,
        value: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<String, Diagnostic> {
        let span = Span { file: self.file, start: to_u32(at), end: to_u32(at + length) };
        substitute(value, lookup, &mut Seen::default()).map_err(|fault| fault.diagnostic(span, value))
    }
}

/// The text between quotes and the bytes it took; only the quote itself is unescaped.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices().skip(1) {
        match c {
            c if c == quote && !escaped => return Some((value, at + 1)),
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            c if escaped && c != quote => {
                value.push('\\');
                value.push(c);
            }
            c => value.push(c),
        }
        escaped = false;
    }
    None
}

fn unescape(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let simple = match after.chars().next() {
            Some('a') => Some("\u{7}"),
            Some('b') => Some("\u{8}"),
            Some('f') => Some("\u{c}"),
            Some('n') => Some("\n"),
            Some('r') => Some("\r"),
            Some('t') => Some("\t"),
            Some('v') => Some("\u{b}"),
            Some('$') => Some("$$"),
            Some('"') => Some("\""),
            Some('\\') => Some("\\"),
            _ => None,
        };
        let octal = after
            .strip_prefix('0')
            .and_then(|digits| digits.get(..3))
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        rest = match (simple, octal) {
            (Some(text), _) => {
                result.push_str(text);
                &after[1..]
            }
            (None, Some(code)) => {
                result.push(char::from(code));
                &after[4..]
            }
            (None, None) => {
                result.push('\\');
                after
            }
        };
    }
    result.push_str(rest);
    result
}

fn blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let lookup = |name: &str| (name == "HOST").then(|| "from-host".to_owned());
        match parse(FileId(0), text, &lookup) {
            Ok(variables) => {
                variables.iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(" ")
            }
            Err(diagnostic) => format!("{} at {:?}", diagnostic.message, diagnostic.span.map(|span| span.start)),
        }
    }

    #[test]
    fn values_that_grow_without_end_are_refused() {
        let mut text = "A0=0123456789abcdef\n".to_owned();
        for line in 1..64 {
            text += &format!("A{line}=${{A{0}}}${{A{0}}}\n", line - 1);
        }
        assert_eq!(read(&text), "variables make more than 1 MiB of text at Some(267)");
    }

    #[test]
    fn every_form() {
        for (text, wanted) in [
            ("A=1\nexport B = two words # note\n", r#"A="1" B="two words""#),
            ("A='$X \\n'\nB=\"a\\nb $A\"", r#"A="$X \\n" B="a\nb $X \\n""#),
            ("HOST\nNONE\nA=x", r#"HOST="from-host" A="x""#),
            ("A: yaml", r#"A="yaml""#),
            ("A=${HOST:-x}#y\n# comment\n\nB=", r##"A="from-host#y" B="""##),
            ("A=\"multi\nline\"", r#"A="multi\nline""#),
            ("A B=1", "the name `A B` contains a space at Some(0)"),
            ("A=\"x", "the quote of \"x is not closed at Some(2)"),
            ("A!=x", "unexpected `!` in the name `A!=x` at Some(1)"),
        ] {
            assert_eq!(read(text), wanted, "{text:?}");
        }
    }
}
