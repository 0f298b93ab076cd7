//! What is wrong in the user's files, and where: sources, spans, diagnostics, and how they look on a terminal.
//!
//! Knows nothing of compose: `model` borrows [`Span`] from here, `compose` collects [`Diagnostic`]s, `cli` prints them.

use std::path::{Path, PathBuf};

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

/// A file (or text) that was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A range of bytes in a loaded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The text.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// The loaded texts, by id. All file reads of the loader go through it; tests build one from memory.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<Source>,
}

#[derive(Debug, Clone)]
struct Source {
    path: PathBuf,
    text: String,
}

/// A place as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Sources {
    /// Adds a text under the path it is shown as.
    pub fn add(&mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> FileId {
        let id = FileId(u32::try_from(self.files.len()).expect("fewer than 2^32 files"));
        self.files.push(Source { path: path.into(), text: text.into() });
        id
    }

    /// Whether nothing was loaded.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The text of a file.
    pub fn text(&self, id: FileId) -> &str {
        &self.files[id.0 as usize].text
    }

    /// The path of a file.
    pub fn path(&self, id: FileId) -> &Path {
        &self.files[id.0 as usize].path
    }

    /// Line and column of a span's start.
    pub fn location(&self, span: Span) -> Location {
        let source = &self.files[span.file.0 as usize];
        let before = source.text.get(..span.start as usize).unwrap_or(&source.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Location {
            path: source.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Loading fails.
    Error,
    /// Loading goes on.
    Warning,
}

/// Something wrong in the user's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// What is wrong, a lower-case fragment without a full stop.
    pub message: String,
    /// Where.
    pub span: Option<Span>,
    /// What stands at the place, shown under the marked line.
    pub label: Option<String>,
    /// Other places that explain it, each with a phrase.
    pub related: Vec<(Span, String)>,
    /// What to do.
    pub hints: Vec<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span: span.into(),
            label: None,
            related: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// A warning at a place.
    pub fn warning(span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// The same with a phrase under the marked place.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same with another place.
    pub fn related(mut self, span: Span, phrase: impl Into<String>) -> Self {
        self.related.push((span, phrase.into()));
        self
    }

    /// The same with advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// Whether rendered diagnostics carry terminal colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// ANSI colours.
    Always,
    /// Plain text.
    Never,
}

/// Diagnostics as people read them: the message, `--> file:line:column`, the line with the place marked, hints.
///
/// One problem takes at most a dozen lines.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, colour: Colour) -> String {
    let renderer = match colour {
        Colour::Always => Renderer::styled(),
        Colour::Never => Renderer::plain(),
    };
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&renderer.render(&[report(diagnostic, sources)]));
        text.push('\n');
        for hint in elsewhere(diagnostic, sources).iter().chain(&diagnostic.hints) {
            text.push_str("hint: ");
            text.push_str(hint);
            text.push('\n');
        }
    }
    text
}

fn report<'s>(diagnostic: &'s Diagnostic, sources: &'s Sources) -> Group<'s> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let group = level.primary_title(diagnostic.message.as_str());
    let Some(span) = diagnostic.span else { return Group::with_title(group) };
    let primary = mark(AnnotationKind::Primary, span, sources, diagnostic.label.as_deref());
    let related = diagnostic.related.iter().filter(|(other, _)| other.file == span.file);
    let marks = related.map(|(other, phrase)| mark(AnnotationKind::Context, *other, sources, Some(phrase)));
    let snippet = Snippet::source(sources.text(span.file))
        .path(sources.path(span.file).to_string_lossy())
        .annotation(primary)
        .annotations(marks);
    group.element(snippet)
}

/// A mark on the first line of a span; values that go over many lines would hide the message.
fn mark<'s>(kind: AnnotationKind, span: Span, sources: &Sources, label: Option<&'s str>) -> Annotation<'s> {
    let text = sources.text(span.file);
    let start = (span.start as usize).min(text.len());
    let line_end = text[start..].find(['\n', '\r']).map_or(text.len(), |at| start + at);
    let end = (span.end as usize).clamp(start, line_end);
    let end = if end == start && start < line_end {
        text[start..].chars().next().map_or(end, |c| start + c.len_utf8())
    } else {
        end
    };
    kind.span(start..end).label(label)
}

/// Related places in other files, as hints.
fn elsewhere(diagnostic: &Diagnostic, sources: &Sources) -> Vec<String> {
    let file = diagnostic.span.map(|span| span.file);
    let other = diagnostic.related.iter().filter(|(span, _)| Some(span.file) != file);
    other
        .map(|(span, phrase)| {
            let Location { path, line, column } = sources.location(*span);
            format!("{phrase}: {}:{line}:{column}", path.display())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line() {
        let mut sources = Sources::default();
        let text = "services:\n  web:\n    imgae: nginx\n";
        let file = sources.add("compose.yaml", text);
        let start = u32::try_from(text.find("imgae").expect("it is there")).expect("small");
        let diagnostic =
            Diagnostic::error(Span { file, start, end: start + 5 }, "unknown key `imgae` in service `web`")
                .label("not a key")
                .hint("did you mean `image`?");
        insta::assert_snapshot!(render(&[diagnostic], &sources, Colour::Never), @"");
    }
}
