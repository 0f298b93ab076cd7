//! Text that libyaml takes and our YAML parser does not, made digestible: a continuation line of a quoted scalar or of
//! a flow collection that is indented less than the block it stands in, and a tab after the colon of a key.
//!
//! It works after the fact: the parser says where it stumbled, the spot is repaired, the parser starts again. Knows how
//! positions in the repaired text lie in the one that was loaded.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// So much text is parsed again at most; one with more faults keeps the next.
const BUDGET: usize = 64 << 20;

/// A text, repaired where that was needed.
pub struct Repaired<'t> {
    /// The loaded text, with some tabs as blanks.
    base: Cow<'t, str>,
    text: Cow<'t, str>,
    /// Starts of lines in the loaded text, with the blanks put there.
    padded: BTreeMap<usize, usize>,
    /// The same in order, each with the byte of the repaired text its blanks begin at.
    shifts: Vec<Shift>,
    spent: usize,
}

struct Shift {
    /// Where the blanks begin, in the repaired text and in the loaded one.
    repaired: usize,
    loaded: usize,
    blanks: usize,
}

impl<'t> Repaired<'t> {
    /// A text that was not repaired yet.
    pub fn new(text: &'t str) -> Self {
        Self {
            base: Cow::Borrowed(text),
            text: Cow::Borrowed(text),
            padded: BTreeMap::new(),
            shifts: Vec::new(),
            spent: 0,
        }
    }

    /// The text for the parser.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is the text that was loaded.
    pub fn is_untouched(&self) -> bool {
        self.padded.is_empty()
    }

    /// A byte of the repaired text in the loaded one.
    pub fn origin(&self, at: usize) -> usize {
        let known = self.shifts.partition_point(|shift| shift.repaired <= at);
        match known.checked_sub(1).map(|index| &self.shifts[index]) {
            Some(shift) => shift.loaded + (at - shift.repaired).saturating_sub(shift.blanks),
            None => at,
        }
    }

    /// Repairs what the parser complains of at a byte of the repaired text; false when that is a fault for libyaml, too.
    pub fn repair(&mut self, complaint: &str, at: usize) -> bool {
        self.spent += self.text.len();
        if self.spent > BUDGET {
            return false;
        }
        let at = self.origin(at);
        let lines = match complaint {
            "invalid indentation" => vec![at],
            "invalid indentation in quoted scalar" => self.continuations(at),
            "':' must be followed by a valid YAML whitespace" => return self.blank_tabs_before(at),
            _ => return false,
        };
        let deepest = self.base.lines().map(|line| line.len() - line.trim_start_matches([' ', '-', '?']).len()).max();
        let before = self.padded.len();
        for at in lines {
            let line = self.base[..at].rfind('\n').map_or(0, |at| at + 1);
            self.padded.insert(line, deepest.unwrap_or(0) + 1);
        }
        if self.padded.len() == before {
            return false;
        }
        let (mut text, mut from) = (String::with_capacity(self.base.len() + 256), 0);
        self.shifts.clear();
        for (line, blanks) in &self.padded {
            text.push_str(&self.base[from..*line]);
            self.shifts.push(Shift { repaired: text.len(), loaded: *line, blanks: *blanks });
            text.extend(std::iter::repeat_n(' ', *blanks));
            from = *line;
        }
        text.push_str(&self.base[from..]);
        self.text = Cow::Owned(text);
        true
    }

    /// The lines of a quoted scalar after its first that say something.
    fn continuations(&self, start: usize) -> Vec<usize> {
        let scalar = &self.base[start..];
        let quote = scalar.chars().next().unwrap_or('"');
        let (mut lines, mut characters) = (Vec::new(), scalar.char_indices().skip(1).peekable());
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' if quote == '"' && characters.peek().is_some_and(|(_, next)| *next != '\n') => {
                    characters.next();
                }
                '\'' if quote == '\'' && characters.peek().is_some_and(|(_, next)| *next == '\'') => {
                    characters.next();
                }
                c if c == quote => break,
                '\n' => {
                    let line = scalar[at + 1..].lines().next().unwrap_or("");
                    if !line.trim().is_empty() && !line.starts_with("---") && !line.starts_with("...") {
                        lines.push(start + at + 1);
                    }
                }
                _ => {}
            }
        }
        lines
    }

    fn blank_tabs_before(&mut self, at: usize) -> bool {
        let start = self.base[..at].trim_end_matches([' ', '\t']).len();
        if !self.base[start..at].contains('\t') {
            return false;
        }
        let blanks = " ".repeat(at - start);
        self.base.to_mut().replace_range(start..at, &blanks);
        // The same place in the text for the parser: padding stands at starts of lines, this does not.
        let shift: usize = self.padded.range(..=start).map(|(_, blanks)| blanks).sum();
        self.text.to_mut().replace_range(start + shift..at + shift, &blanks);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_lead_back_to_the_loaded_text() {
        let text = "a:\n  b: \"x\ny\n\n z\"\n";
        let mut repaired = Repaired::new(text);
        assert!(repaired.repair("invalid indentation in quoted scalar", text.find('"').expect("there")));
        assert_eq!(repaired.text(), "a:\n  b: \"x\n   y\n\n    z\"\n");
        for (at, c) in repaired.text().char_indices().filter(|(_, c)| c.is_ascii_alphabetic()) {
            assert_eq!(text[repaired.origin(at)..].chars().next(), Some(c));
        }
        assert!(!repaired.repair("invalid indentation in quoted scalar", text.find('"').expect("there")));
        assert!(!repaired.repair("anything else", 0));
    }
}
