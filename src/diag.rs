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

/// The most lines a rendering takes, and so the most a single problem may.
const LINES: usize = 12;

/// Diagnostics as people read them: the message, `--> file:line:column`, the line with the place marked, hints.
///
/// All of it takes at most a dozen lines: what does not fit in full is said in a line each, the rest is counted.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, colour: Colour) -> String {
    let renderer = match colour {
        Colour::Always => Renderer::styled(),
        Colour::Never => Renderer::plain(),
    };
    let full: Vec<_> = diagnostics.iter().map(|diagnostic| in_full(diagnostic, sources, &renderer)).collect();
    let all = full.concat();
    if all.lines().count() <= LINES {
        return all;
    }
    let Some((first, rest)) = full.split_first() else { return all };
    let mut lines: Vec<String> = first.lines().take(LINES).map(str::to_owned).collect();
    let room = LINES.saturating_sub(lines.len());
    let shown = if rest.len() <= room { rest.len() } else { room.saturating_sub(1) };
    for diagnostic in &diagnostics[1..=shown] {
        lines.push(in_a_line(diagnostic, sources, &renderer));
    }
    if shown < rest.len() && lines.len() < LINES {
        lines.push(format!("and {} more", rest.len() - shown));
    }
    lines.join("\n") + "\n"
}

fn in_full(diagnostic: &Diagnostic, sources: &Sources, renderer: &Renderer) -> String {
    let mut text = renderer.render(&[report(diagnostic, sources)]) + "\n";
    for hint in elsewhere(diagnostic, sources).iter().chain(&diagnostic.hints) {
        text += &format!("hint: {hint}\n");
    }
    text
}

fn in_a_line(diagnostic: &Diagnostic, sources: &Sources, renderer: &Renderer) -> String {
    let place = diagnostic.span.map(|span| sources.location(span));
    let place = place.map(|Location { path, line, column }| format!("{}:{line}:{column}: ", path.display()));
    let short = Diagnostic {
        span: None,
        message: format!("{}{}", place.unwrap_or_default(), diagnostic.message.lines().next().unwrap_or("")),
        ..Diagnostic::error(None, "")
    };
    renderer.render(&[report(&Diagnostic { severity: diagnostic.severity, ..short }, sources)])
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
        insta::assert_snapshot!(render(&[diagnostic], &sources, Colour::Never), @r"
        error: unknown key `imgae` in service `web`
         --> compose.yaml:3:5
          |
        3 |     imgae: nginx
          |     ^^^^^ not a key
        hint: did you mean `image`?
        ");
    }
}
