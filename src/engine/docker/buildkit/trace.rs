//! What BuildKit tells of a build, as lines for people: a step when it begins, its output, its error.

use std::collections::BTreeSet;

use super::wire::{Field, Fields, text};

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Trace {
    begun: BTreeSet<String>,
    /// The end of an output that is no whole line yet.
    rest: String,
}

impl Trace {
    /// The lines of one status message.
    pub(super) fn read(&mut self, status: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for (number, field) in Fields(status) {
            let Field::Bytes(message) = field else { continue };
            match number {
                1 => self.step(message, &mut lines),
                3 => self.output(message, &mut lines),
                _ => {}
            }
        }
        lines
    }

    fn step(&mut self, vertex: &[u8], lines: &mut Vec<String>) {
        let (digest, name, error) = (text(vertex, 1), text(vertex, 3), text(vertex, 7));
        let cached = Fields(vertex).any(|field| field == (4, Field::Number(1)));
        let started = Fields(vertex).any(|(number, _)| number == 5);
        if (started || cached) && self.begun.insert(digest) {
            lines.push(if cached { format!("CACHED {name}") } else { name });
        }
        if !error.is_empty() {
            lines.push(format!("ERROR: {error}"));
        }
    }

    fn output(&mut self, log: &[u8], lines: &mut Vec<String>) {
        const LONGEST: usize = 4096;

        self.rest += &text(log, 4);
        while let Some(end) = self.rest.find(['\n', '\r']) {
            let line: String = self.rest.drain(..=end).collect();
            let line = line.trim_end();
            if !line.is_empty() {
                lines.push(line.to_owned());
            }
        }
        if self.rest.len() > LONGEST {
            lines.push(std::mem::take(&mut self.rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::put;
    use super::*;

    fn message(fields: &[(u8, &str)]) -> Vec<u8> {
        let mut message = Vec::new();
        fields.iter().for_each(|(number, text)| put(&mut message, *number, text.as_bytes()));
        message
    }

    #[test]
    fn steps_are_told_once_and_output_by_lines() {
        let mut trace = Trace::default();
        let mut status = Vec::new();
        put(&mut status, 1, &message(&[(1, "a"), (3, "waits")]));
        put(&mut status, 1, &message(&[(1, "b"), (3, "[1/2] RUN x"), (5, "now")]));
        put(&mut status, 1, &message(&[(1, "b"), (3, "[1/2] RUN x"), (5, "now"), (7, "boom")]));
        put(&mut status, 3, &message(&[(1, "b"), (4, "one\ntw")]));
        put(&mut status, 3, &message(&[(1, "b"), (4, "o\n\n")]));
        assert_eq!(trace.read(&status), ["[1/2] RUN x", "ERROR: boom", "one", "two"]);
        let mut cached = message(&[(1, "c"), (3, "[2/2] COPY")]);
        cached.extend([0x20, 1]);
        let mut status = Vec::new();
        put(&mut status, 1, &cached);
        assert_eq!(trace.read(&status), ["CACHED [2/2] COPY"]);
    }
}
