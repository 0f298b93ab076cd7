//! Log lines as people read them: `slow-1  | up`, the name padded to the longest one known, each name in its colour.
//!
//! What a container wrote to its standard error goes to ours. Lines already written stay when a longer name appears.

use std::collections::HashMap;
use std::io;

use indexmap::IndexSet;
use jiff::tz::TimeZone;

use super::style::Palette;
use super::text;
use super::{Out, Streams};
use crate::event::{InstanceView, Snapshot};
use crate::model::InstanceName;
use crate::session::{LogLine, LogStream};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogFormat {
    /// Names before lines, or `--no-log-prefix`.
    pub names: Names,
    /// `--timestamps`.
    pub times: Times,
}

/// Whether lines carry their writer's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// They do.
    #[default]
    Shown,
    /// `--no-log-prefix`.
    Hidden,
}

/// Whether lines carry their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Times {
    /// They do not.
    #[default]
    Hidden,
    /// RFC 3339 with nanoseconds, in UTC as the engine gives them.
    Shown,
}

/// Writes log lines; remembers which names it has seen.
#[derive(Debug)]
pub struct LogPrinter {
    format: LogFormat,
    out: Palette,
    err: Palette,
    labels: HashMap<InstanceName, String>,
    seen: IndexSet<String>,
    width: usize,
}

impl LogPrinter {
    /// A printer that knows no names yet; one palette for each stream.
    pub fn new(format: LogFormat, out: Palette, err: Palette) -> Self {
        Self { format, out, err, labels: HashMap::new(), seen: IndexSet::new(), width: 0 }
    }

    /// Learns the names of a project's instances, so that the first line is padded as the last one.
    pub fn learn<'a>(&mut self, project: &str, instances: impl IntoIterator<Item = &'a InstanceView>) {
        for instance in instances {
            self.learn_name(project, &instance.name, &instance.container);
        }
    }

    /// Learns the name of one instance, by that of its container.
    pub fn learn_name(&mut self, project: &str, instance: &InstanceName, container: &str) {
        let label = label(project, container);
        self.width = self.width.max(text::width(&label));
        self.labels.insert(instance.clone(), label);
    }

    /// Learns the names in a snapshot.
    pub fn learn_snapshot(&mut self, snapshot: &Snapshot) {
        self.learn(snapshot.project.as_str(), snapshot.instances.values());
    }

    /// The name an instance goes by: `web-1`, or its `container_name`.
    pub fn label(&self, instance: &InstanceName) -> String {
        self.labels.get(instance).cloned().unwrap_or_else(|| instance.to_string())
    }

    /// Writes a line, and before it how many were lost.
    pub fn line(&mut self, line: &LogLine, streams: &mut Streams<'_>) -> io::Result<()> {
        if line.dropped > 0 {
            let lost = format!("({} lines were dropped: reading was too slow)", line.dropped);
            self.prefixed(&line.instance, LogStream::Stderr, &lost, streams.err)?;
        }
        let stamped;
        let text = match self.format.times {
            Times::Hidden => &line.text,
            Times::Shown => {
                stamped = format!("{} {}", rfc3339_nano(line.at), line.text);
                &stamped
            }
        };
        match line.stream {
            LogStream::Stdout => self.prefixed(&line.instance, LogStream::Stdout, text, streams.out),
            LogStream::Stderr => self.prefixed(&line.instance, LogStream::Stderr, text, streams.err),
        }
    }

    /// Writes text about an instance, a line at a time, behind its name.
    pub fn prefixed(&mut self, instance: &InstanceName, stream: LogStream, text: &str, to: Out<'_>) -> io::Result<()> {
        let prefix = self.prefix(instance, stream);
        text.split('\n').try_for_each(|line| writeln!(to, "{prefix}{line}"))
    }

    /// `web-1 exited with code 3`, in the instance's colour.
    pub fn exited(&mut self, instance: &InstanceName, how: &str, out: Out<'_>) -> io::Result<()> {
        let label = self.label(instance);
        let nth = self.nth(&label);
        // Compose clears the line even without a terminal; a file has nothing to clear.
        let clear = if self.out.is_coloured() { "\r\x1b[K" } else { "" };
        writeln!(out, "{}", self.out.paint_name(nth, format_args!("{clear}{label} {how}")))
    }

    fn prefix(&mut self, instance: &InstanceName, stream: LogStream) -> String {
        let label = self.label(instance);
        let nth = self.nth(&label);
        if self.format.names == Names::Hidden {
            return String::new();
        }
        self.width = self.width.max(text::width(&label));
        let palette = match stream {
            LogStream::Stdout => self.out,
            LogStream::Stderr => self.err,
        };
        palette.paint_name(nth, format_args!("{} | ", text::pad(&label, self.width + 1))).to_string()
    }

    fn nth(&mut self, label: &str) -> usize {
        self.seen.get_index_of(label).unwrap_or_else(|| self.seen.insert_full(label.to_owned()).0)
    }
}

/// Compose's name for an instance in logs: the container's without the project, `container_name` verbatim.
fn label(project: &str, container: &str) -> String {
    let own = container.strip_prefix(project).and_then(|rest| rest.strip_prefix(['-', '_']));
    own.unwrap_or(container).to_owned()
}

/// A time as the engine writes it: `2026-11-23T03:12:57.120000001Z`.
fn rfc3339_nano(at: jiff::Timestamp) -> impl std::fmt::Display {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// [`Streams`] over two buffers, for tests.
#[cfg(test)]
pub(super) fn captured(write: impl FnOnce(&mut Streams<'_>) -> io::Result<()>) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    write(&mut Streams { out: &mut out, err: &mut err }).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace('\x1b', "^").replace('\r', "<");
    (text(out), text(err))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn line(service: &str, stream: LogStream, text: &str) -> LogLine {
        let at = "2026-11-23T03:12:57.12Z".parse().unwrap();
        LogLine { at, instance: InstanceName::new(service.into(), 1), stream, text: text.into(), dropped: 0 }
    }

    fn printer(format: LogFormat) -> LogPrinter {
        LogPrinter::new(format, Palette::PLAIN, Palette::PLAIN)
    }

    #[test]
    fn names_are_padded_to_the_longest_known() {
        let mut printer = printer(LogFormat::default());
        let (out, err) = captured(|streams| {
            printer.line(&line("slow", LogStream::Stdout, "up"), streams)?;
            printer.line(&line("gateway", LogStream::Stdout, "listening"), streams)?;
            printer.line(&line("db", LogStream::Stderr, "FATAL"), streams)?;
            printer.line(&line("db", LogStream::Stdout, ""), streams)
        });
        insta::assert_snapshot!(out, @r"
        slow-1  | up
        gateway-1  | listening
        db-1       |
        ");
        insta::assert_snapshot!(err, @"db-1       | FATAL");
    }

    #[test]
    fn a_known_project_pads_from_the_first_line_and_keeps_container_names() {
        let mut printer = printer(LogFormat::default());
        let mut snapshot = sample::snapshot();
        snapshot.instances[0].container = "the-database".into();
        printer.learn_snapshot(&snapshot);
        let (out, _) = captured(|streams| {
            printer.line(&line("db", LogStream::Stdout, "ready"), streams)?;
            printer.line(&line("api", LogStream::Stdout, "ready"), streams)?;
            printer.exited(&InstanceName::new("db".into(), 1), "exited with code 3", streams.out)
        });
        insta::assert_snapshot!(out, @r"
        the-database  | ready
        api-1         | ready
        the-database exited with code 3
        ");
    }

    #[test]
    fn lines_may_carry_times_or_no_names() {
        let mut bare = printer(LogFormat { names: Names::Hidden, times: Times::Shown });
        let (out, _) = captured(|streams| bare.line(&line("db", LogStream::Stdout, "ready"), streams));
        insta::assert_snapshot!(out, @"2026-11-23T03:12:57.120000000Z ready");
    }

    #[test]
    fn lost_lines_are_said() {
        let mut printer = printer(LogFormat::default());
        let (out, err) = captured(|streams| {
            printer.line(&LogLine { dropped: 7, ..line("db", LogStream::Stdout, "ready") }, streams)
        });
        insta::assert_snapshot!(out, @"db-1  | ready");
        insta::assert_snapshot!(err, @"db-1  | (7 lines were dropped: reading was too slow)");
    }

    #[test]
    fn a_name_has_its_colour_on_both_streams() {
        let mut printer = LogPrinter::new(LogFormat::default(), Palette::COLOURED, Palette::COLOURED);
        let (out, err) = captured(|streams| {
            printer.line(&line("a", LogStream::Stdout, "1"), streams)?;
            printer.line(&line("b", LogStream::Stderr, "2"), streams)?;
            printer.exited(&InstanceName::new("a".into(), 1), "exited with code 0", streams.out)
        });
        insta::assert_snapshot!(out, @r"
        ^[36ma-1  | ^[0m1
        ^[36m<^[Ka-1 exited with code 0^[0m
        ");
        insta::assert_snapshot!(err, @"^[33mb-1  | ^[0m2");
    }
}
