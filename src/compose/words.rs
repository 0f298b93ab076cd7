//! A command written as one string → its words, as compose splits it (quotes, backslashes, no shell).
//!
//! As in compose, an unquoted `;`, `&`, `|`, `<` or `>` ends the command silently, and variables are not looked at.

/// Splits a command line; nothing when a quote, a backslash or a parenthesis is left open.
pub fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    let mut quote = None;
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some('\''), '\\') => word.get_or_insert_default().push('\\'),
            (_, '\\') => word.get_or_insert_default().push(match characters.next()? {
                't' => '\t',
                'n' => '\n',
                other => other,
            }),
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, '`') => {
                word.get_or_insert_default().push(c);
                quote = Some('`');
            }
            (None, '(' | ')') => return None,
            (None, ';' | '&' | '|' | '<') => break,
            (None, '>') => {
                if word.as_ref().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
                    word = None;
                }
                break;
            }
            (None, ' ' | '\t' | '\r' | '\n') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_compose_does() {
        for (line, words) in [
            ("a  b\tc", Some(vec!["a", "b", "c"])),
            ("sh -c 'a \"b\" \\n' \"c 'd'\"", Some(vec!["sh", "-c", "a \"b\" \\n", "c 'd'"])),
            ("a\\ b '' \"\"", Some(vec!["a b", "", ""])),
            ("a | b", Some(vec!["a"])),
            ("a 2>&1", Some(vec!["a"])),
            ("", Some(vec![])),
            ("'a", None),
            ("a\\", None),
        ] {
            assert_eq!(split(line).as_ref().map(|words| words.iter().map(String::as_str).collect()), words, "{line}");
        }
    }
}
