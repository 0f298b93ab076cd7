//! Colour: the only place that has any. Whether it is used at all is decided once, here.
//!
//! Everything reads the same without it: colour repeats what the words say.

use std::fmt::{self, Display};

use anstyle::{AnsiColor, Style};

/// `--ansi`: when control characters are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// Never.
    Never,
    /// Even without a terminal.
    Always,
    /// On a terminal.
    #[default]
    Auto,
}

/// Roles of coloured text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `error:`, and what failed.
    Error,
    /// `warning:`.
    Warning,
    /// `hint:`.
    Hint,
    /// What is done.
    Done,
    /// What is under way.
    Busy,
    /// What matters less: times, counts.
    Quiet,
    /// What matters more: headings.
    Strong,
    /// What `watch` does.
    Watch,
}

/// Colours, or none; none by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Palette {
    on: bool,
}

impl Palette {
    /// No colours.
    pub const PLAIN: Self = Self { on: false };
    /// Colours.
    pub const COLOURED: Self = Self { on: true };

    /// Decides for one stream. A `NO_COLOR` that is not empty wins over everything, as in compose.
    pub fn choose(when: When, terminal: Stream, no_color: Option<&str>) -> Self {
        let refused = no_color.is_some_and(|value| !value.is_empty());
        let on = match when {
            When::Never => false,
            When::Always => !refused,
            When::Auto => !refused && terminal == Stream::Terminal,
        };
        Self { on }
    }

    /// Whether there are colours.
    pub fn is_coloured(self) -> bool {
        self.on
    }

    /// `text` in the colour of its role.
    pub fn paint<T: Display>(self, role: Role, text: T) -> Painted<T> {
        let style = match role {
            Role::Error => AnsiColor::Red.on_default().bold(),
            Role::Warning => AnsiColor::Yellow.on_default(),
            Role::Hint => AnsiColor::Cyan.on_default(),
            Role::Done => AnsiColor::Green.on_default(),
            Role::Busy => AnsiColor::Blue.on_default(),
            Role::Quiet => Style::new().dimmed(),
            Role::Strong => Style::new().bold(),
            Role::Watch => AnsiColor::BrightGreen.on_default(),
        };
        self.styled(style, text)
    }

    /// `text` in the colour of the n-th name that appeared: cyan, yellow, green, magenta, blue, then the same in bold.
    pub fn paint_name<T: Display>(self, nth: usize, text: T) -> Painted<T> {
        let colour = NAME_COLOURS[nth % NAME_COLOURS.len()].on_default();
        let bold = nth / NAME_COLOURS.len() % 2 == 1;
        self.styled(if bold { colour.bold() } else { colour }, text)
    }

    fn styled<T: Display>(self, style: Style, text: T) -> Painted<T> {
        Painted { style: if self.on { style } else { Style::new() }, text }
    }
}

const NAME_COLOURS: [AnsiColor; 5] =
    [AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue];

/// What stands behind a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// A person's terminal.
    Terminal,
    /// A file, a pipe.
    Other,
}

impl Stream {
    /// What stands behind `stream`.
    pub fn of(stream: &impl std::io::IsTerminal) -> Self {
        if stream.is_terminal() { Self::Terminal } else { Self::Other }
    }
}

/// Text in a colour, or as it is.
#[derive(Debug, Clone, Copy)]
pub struct Painted<T> {
    style: Style,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.style.render())?;
        self.text.fmt(f)?;
        write!(f, "{}", self.style.render_reset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_wins_and_auto_looks_at_the_stream() {
        let on = |when, stream, no_color| Palette::choose(when, stream, no_color).is_coloured();
        assert!(on(When::Auto, Stream::Terminal, None));
        assert!(on(When::Auto, Stream::Terminal, Some("")), "an empty NO_COLOR says nothing");
        assert!(!on(When::Auto, Stream::Terminal, Some("1")));
        assert!(!on(When::Auto, Stream::Other, None));
        assert!(on(When::Always, Stream::Other, None));
        assert!(!on(When::Always, Stream::Other, Some("1")));
        assert!(!on(When::Never, Stream::Terminal, None));
    }

    #[test]
    fn names_go_through_five_colours_and_then_the_same_in_bold() {
        let painted: Vec<String> = (0..7).map(|nth| Palette::COLOURED.paint_name(nth, "x").to_string()).collect();
        insta::assert_snapshot!(painted.join(" ").replace('\x1b', "^"), @"^[36mx^[0m ^[33mx^[0m ^[32mx^[0m ^[35mx^[0m ^[34mx^[0m ^[1m^[36mx^[0m ^[1m^[33mx^[0m");
        assert_eq!(Palette::PLAIN.paint_name(5, "x").to_string(), "x");
    }
}
