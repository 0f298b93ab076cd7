//! The list phases report to. It keeps what a reader can use: of each place the first error, as later ones mostly
//! follow from it; each warning once; and of many no more than anybody reads.

use std::collections::HashSet;

use super::{Diagnostic, Severity, Span};

/// More of a severity than this are counted, not kept.
const KEPT: usize = 100;

/// Characters of a message.
const LONGEST: usize = 400;

/// What is wrong and what is doubtful so far.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    wrong: HashSet<Span>,
    told: HashSet<(Severity, String)>,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    /// Adds one, unless it says nothing new.
    pub fn push(&mut self, mut diagnostic: Diagnostic) {
        shorten(&mut diagnostic.message);
        let count = match diagnostic.severity {
            Severity::Error => {
                let known = match diagnostic.span {
                    Some(span) => !self.wrong.insert(span),
                    None => !self.told.insert((Severity::Error, diagnostic.message.clone())),
                };
                if known {
                    return;
                }
                &mut self.errors
            }
            Severity::Warning => {
                if self.warnings >= KEPT || !self.told.insert((Severity::Warning, diagnostic.message.clone())) {
                    return;
                }
                &mut self.warnings
            }
        };
        *count += 1;
        if *count <= KEPT {
            self.list.push(diagnostic);
        }
    }

    /// Adds all of a list.
    pub fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Whether anything is wrong.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether so much is wrong that looking for more is of no use to anybody.
    pub fn is_full(&self) -> bool {
        self.errors >= KEPT
    }

    /// All that was kept, in the order of the files; what belongs to no place comes first.
    pub fn sorted(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|diagnostic| diagnostic.span);
        if self.errors > KEPT {
            self.list.push(Diagnostic::error(None, format!("and {} more errors", self.errors - KEPT)));
        }
        self.list
    }
}

/// Messages quote what people wrote, which may be anything.
fn shorten(message: &mut String) {
    if let Some((at, _)) = message.char_indices().nth(LONGEST) {
        message.truncate(at);
        message.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::super::FileId;
    use super::*;

    fn at(start: u32) -> Span {
        Span { file: FileId(0), start, end: start + 1 }
    }

    #[test]
    fn a_place_has_one_error_and_a_warning_is_told_once() {
        let mut diagnostics = Diagnostics::default();
        diagnostics.extend([
            Diagnostic::error(at(5), "cause"),
            Diagnostic::error(at(5), "consequence"),
            Diagnostic::warning(at(1), "doubt"),
            Diagnostic::warning(at(2), "doubt"),
            Diagnostic::error(None, "nowhere"),
            Diagnostic::error(None, "nowhere"),
        ]);
        let messages: Vec<_> = diagnostics.sorted().into_iter().map(|diagnostic| diagnostic.message).collect();
        assert_eq!(messages, ["nowhere", "doubt", "cause"]);
    }

    #[test]
    fn what_nobody_reads_is_counted() {
        let mut diagnostics = Diagnostics::default();
        diagnostics.extend((0..250).map(|start| Diagnostic::error(at(start), "wrong")));
        let sorted = diagnostics.sorted();
        assert_eq!((sorted.len(), sorted[100].message.as_str()), (101, "and 150 more errors"));
    }
}
