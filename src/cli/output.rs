//! Text that no view draws: data lines, errors, hints. `--ansi` and NO_COLOR are obeyed in one place, by anstream.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};

use super::args::Ansi;
use super::outcome::Failure;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// Takes `--ansi` for all that is printed from now on.
pub fn choose(ansi: Ansi) {
    match ansi {
        Ansi::Never => anstream::ColorChoice::Never.write_global(),
        Ansi::Always => anstream::ColorChoice::Always.write_global(),
        Ansi::Auto => {}
    }
}

/// A line of data. A reader that went away (`| head`) is no error.
pub fn out(line: &str) {
    let _ = writeln!(anstream::stdout().lock(), "{line}");
}

/// Text for standard output that brings its own line ends.
pub fn print(text: &str) {
    let _ = write!(anstream::stdout().lock(), "{text}");
}

/// Text for standard error that brings its own line ends.
pub fn complain(text: &str) {
    let _ = write!(anstream::stderr().lock(), "{text}");
}

/// A warning with advice.
pub fn warn(message: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{WARNING}warning{WARNING:#}: {message}");
}

/// An error with advice.
pub fn error(message: &str, hints: &[String]) {
    complain(&error_text(message, hints));
}

fn error_text(message: &str, hints: &[String]) -> String {
    let mut text = format!("{ERROR}error{ERROR:#}: {message}\n");
    for hint in hints {
        text += &format!("{HINT}hint{HINT:#}: {hint}\n");
    }
    text
}

/// How a command failed.
pub fn failure(failure: &Failure) {
    complain(&text(failure));
}

/// How a command failed, as text for a terminal: a supervisor hands it to the shell that asked.
pub fn text(failure: &Failure) -> String {
    match failure {
        Failure::Load(load) => super::load::text(load),
        Failure::Many(failures) => failures.iter().map(text).collect(),
        _ => failure.text().map(|(message, hints)| error_text(&message, &hints)).unwrap_or_default(),
    }
}
