//! Diagnostics as text for a terminal.

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Location, Severity, Sources, Span};

/// Whether rendered diagnostics carry terminal colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// ANSI colours.
    Always,
    /// Plain text.
    Never,
}

/// More problems than this are counted, not shown.
const SHOWN: usize = 20;

/// Diagnostics as people read them: the message, `--> file:line:column`, the line with the place marked, hints.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, colour: Colour) -> String {
    let renderer = match colour {
        Colour::Always => Renderer::styled(),
        Colour::Never => Renderer::plain(),
    };
    let mut text = String::new();
    for (index, diagnostic) in diagnostics.iter().take(SHOWN).enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text += &renderer.render(&[report(diagnostic, sources)]);
        text.push('\n');
        for hint in elsewhere(diagnostic, sources).iter().chain(&diagnostic.hints) {
            text += &format!("hint: {hint}\n");
        }
    }
    if let Some(rest) = diagnostics.len().checked_sub(SHOWN).filter(|rest| *rest > 0) {
        text += &format!("\nand {rest} more\n");
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
