//! A terminal for tests: as much of one as the views use.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// A screen with what has scrolled off above it. Clones write to the same one.
#[derive(Debug, Clone)]
pub(super) struct Screen(Arc<Mutex<Cells>>);

#[derive(Debug)]
struct Cells {
    columns: usize,
    rows: usize,
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    escape: Option<String>,
}

impl Screen {
    pub(super) fn new(columns: usize, rows: usize) -> Self {
        let cells = Cells { columns, rows, lines: vec![Vec::new()], row: 0, column: 0, escape: None };
        Self(Arc::new(Mutex::new(cells)))
    }

    /// Everything on it and above it.
    pub(super) fn text(&self) -> String {
        let cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = cells.lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).expect("whole characters in each write");
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.chars().for_each(|c| cells.put(c));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Cells {
    fn put(&mut self, c: char) {
        if let Some(escape) = &mut self.escape {
            escape.push(c);
            if c.is_ascii_alphabetic() {
                let escape = self.escape.take().unwrap_or_default();
                self.control(&escape);
            }
            return;
        }
        match c {
            '\x1b' => self.escape = Some(String::new()),
            '\r' => self.column = 0,
            // The terminal is in its usual mode: a line feed begins a line.
            '\n' => self.feed(),
            c => {
                if self.column == self.columns {
                    self.feed();
                }
                let column = self.column;
                let line = &mut self.lines[self.row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                self.column += 1;
            }
        }
    }

    fn feed(&mut self) {
        (self.row, self.column) = (self.row + 1, 0);
        if self.row == self.lines.len() {
            self.lines.push(Vec::new());
        }
    }

    fn control(&mut self, escape: &str) {
        let column = self.column;
        match escape {
            "[K" => self.lines[self.row].truncate(column),
            "[J" => {
                self.lines[self.row].truncate(column);
                self.lines.truncate(self.row + 1);
            }
            "[?25l" | "[?25h" => {}
            _ => {
                let up = escape.strip_prefix('[').and_then(|rest| rest.strip_suffix('A'));
                let up: usize = up.and_then(|up| up.parse().ok()).unwrap_or_else(|| panic!("unknown: {escape:?}"));
                // What has scrolled off cannot be reached.
                let top = self.lines.len().saturating_sub(self.rows);
                self.row = self.row.saturating_sub(up).max(top);
            }
        }
    }
}
