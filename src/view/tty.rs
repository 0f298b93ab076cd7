//! Progress on a terminal: a block of rows at the cursor, redrawn in place.
//!
//! The block is never wider or higher than the terminal, so that going back to its first line is always possible. Each
//! redraw overwrites lines instead of clearing the screen first and goes out in one write: nothing flickers.

use std::fmt::Write as _;
use std::io;

use jiff::Timestamp;

use super::Out;
use super::progress::{Progress, Row, Stage};
use super::style::{Palette, Role};
use super::text::{harmless, pad, shorten, width};

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

impl Size {
    /// The size of the terminal at standard error; 80 × 24 where it has none.
    pub fn of_stderr() -> Self {
        match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Self { columns: usize::from(size.ws_col), rows: usize::from(size.ws_row) }
            }
            _ => Self { columns: 80, rows: 24 },
        }
    }
}

/// The block at the cursor, if one is drawn.
#[derive(Debug, Default)]
pub struct Block {
    /// Width of each line on the screen.
    drawn: Vec<usize>,
}

impl Block {
    /// Draws the rows over what was drawn before.
    pub fn draw(&mut self, lines: Vec<Line>, size: Size, palette: Palette, err: Out<'_>) -> io::Result<()> {
        let mut frame = self.back(size);
        // The cursor is hidden while it travels.
        frame.insert_str(0, "\x1b[?25l");
        for line in &lines {
            line.paint(palette, &mut frame);
            frame.push_str("\x1b[K\r\n");
        }
        frame.push_str("\x1b[J\x1b[?25h");
        self.drawn = lines.iter().map(Line::width).collect();
        err.write_all(frame.as_bytes())?;
        err.flush()
    }

    /// Takes the block off the screen, so that something else can be written in its place.
    pub fn erase(&mut self, size: Size, err: Out<'_>) -> io::Result<()> {
        if !self.is_drawn() {
            return Ok(());
        }
        let frame = self.back(size) + "\x1b[J";
        self.drawn.clear();
        err.write_all(frame.as_bytes())?;
        err.flush()
    }

    /// Whether a block is on the screen.
    pub fn is_drawn(&self) -> bool {
        !self.drawn.is_empty()
    }

    /// Leaves the block on the screen for good: the next one begins below it.
    pub fn release(&mut self) {
        self.drawn.clear();
    }

    /// The way back to the block's first line. A terminal made narrower since has wrapped the lines.
    fn back(&self, size: Size) -> String {
        let lines: usize = self.drawn.iter().map(|width| width.div_ceil(size.columns.max(1)).max(1)).sum();
        if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r") }
    }
}

/// One line of a block: parts in their colours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    parts: Vec<(Option<Role>, String)>,
}

impl Line {
    fn with(mut self, role: impl Into<Option<Role>>, text: impl Into<String>) -> Self {
        self.parts.push((role.into(), text.into()));
        self
    }

    /// The same in at most so many columns.
    fn within(self, columns: usize) -> Self {
        let mut left = columns;
        let mut short = Self::default();
        for (role, text) in self.parts {
            let text = shorten(&text, left);
            left -= width(&text);
            short.parts.push((role, text));
        }
        short
    }

    fn width(&self) -> usize {
        self.parts.iter().map(|(_, text)| width(text)).sum()
    }

    fn paint(&self, palette: Palette, frame: &mut String) {
        for (role, text) in &self.parts {
            let _ = match role {
                Some(role) => write!(frame, "{}", palette.paint(*role, text)),
                None => write!(frame, "{text}"),
            };
        }
    }
}

/// How much of the progress is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What fits the screen: it will be drawn over.
    Live,
    /// Every row: it stays.
    Whole,
}

/// The lines that show `progress` at `now`.
pub fn lines(title: &str, progress: &Progress, now: Timestamp, size: Size, extent: Extent) -> Vec<Line> {
    // The last column stays free, since terminals differ in what they do after writing it.
    let columns = size.columns.saturating_sub(1);
    let header = format!("[+] {title} {}/{}", progress.ended(), progress.rows().len());
    let header = Line::default().with(Role::Strong, header);
    // The cursor stands below the block.
    let room = size.rows.saturating_sub(2);
    let (rows, left_out) = match extent {
        Extent::Live => choose(progress, room),
        Extent::Whole => (progress.rows().collect(), 0),
    };
    let layout = Layout::new(&rows, now, columns);
    let mut lines = vec![header];
    lines.extend(rows.iter().map(|row| layout.line(row, now)));
    if left_out > 0 && room > 0 {
        lines.push(Line::default().with(Role::Quiet, format!(" … {left_out} more")));
    }
    lines.into_iter().map(|line| line.within(columns)).collect()
}

/// The rows worth showing in `room` lines: those under way and failed first, then the latest that ended.
fn choose(progress: &Progress, room: usize) -> (Vec<&Row>, usize) {
    let rows: Vec<&Row> = progress.rows().collect();
    if rows.len() <= room {
        return (rows, 0);
    }
    let room = room.saturating_sub(1);
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&at| (rows[at].stage == Stage::Done, std::cmp::Reverse(rows[at].until)));
    order.truncate(room);
    order.sort_unstable();
    (order.iter().map(|&at| rows[at]).collect(), rows.len() - order.len())
}

/// Widths of the columns ` ✔ id  status  time`.
struct Layout {
    id: usize,
    status: usize,
    time: usize,
}

const LEAST_ID: usize = 16;

impl Layout {
    fn new(rows: &[&Row], now: Timestamp, columns: usize) -> Self {
        let widest = |measure: &dyn Fn(&Row) -> usize| rows.iter().map(|row| measure(row)).max().unwrap_or(0);
        let (id, status) = (widest(&|row| width(&row.id)), widest(&|row| width(&row.status)));
        let time = widest(&|row| seconds(row, now).len());
        let fits = |id: usize, time: usize| 3 + id + 2 + status + if time > 0 { 2 + time } else { 0 } <= columns;
        if fits(id.min(LEAST_ID), time) {
            let id = id.min(columns - (3 + 2 + status + 2 + time));
            Self { id, status, time }
        } else {
            let id = id.min(columns.saturating_sub(3 + 2 + status).max(1));
            Self { id, status, time: 0 }
        }
    }

    fn line(&self, row: &Row, now: Timestamp) -> Line {
        let (role, mark) = match &row.stage {
            Stage::Busy => (Role::Busy, SPINNER[spin(now)]),
            Stage::Done => (Role::Done, "✔"),
            Stage::Failed { .. } => (Role::Error, "✘"),
        };
        let line = Line::default()
            .with(role, format!(" {mark} "))
            .with(None, pad(&shorten(&harmless(&row.id), self.id), self.id) + "  ");
        if self.time == 0 {
            return line.with(role, harmless(&row.status));
        }
        line.with(role, pad(&harmless(&row.status), self.status))
            .with(Role::Quiet, format!("  {:>1$}", seconds(row, now), self.time))
    }
}

fn seconds(row: &Row, now: Timestamp) -> String {
    format!("{:.1}s", row.seconds(now))
}

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

fn spin(now: Timestamp) -> usize {
    usize::try_from(now.as_millisecond().rem_euclid(1_000) / 100).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{after, began, ended, failed};
    use super::*;
    use crate::session::Update;

    fn progress(updates: impl IntoIterator<Item = Update>) -> Progress {
        let mut progress = Progress::default();
        for update in updates {
            let Update::Event(stamped) = update else { continue };
            progress.take(&stamped);
        }
        progress
    }

    fn text(lines: &[Line]) -> String {
        let mut text = String::new();
        for line in lines {
            line.paint(Palette::PLAIN, &mut text);
            text.push('\n');
        }
        text
    }

    fn stack() -> Progress {
        progress([
            began(0, "Network shop_default", "Creating"),
            ended(120, "Network shop_default", "Created"),
            began(120, "Container shop-db-1", "Starting"),
            ended(620, "Container shop-db-1", "Started"),
            failed(700, "Container shop-cache-1", "no such image", None),
            began(700, "Container shop-gateway-1", "Waiting"),
        ])
    }

    #[test]
    fn a_row_for_each_thing_under_a_count() {
        let size = Size { columns: 80, rows: 24 };
        insta::assert_snapshot!(text(&lines("Running", &stack(), after(1_200), size, Extent::Live)), @r"
        [+] Running 3/4
         ✔ Network shop_default      Created  0.1s
         ✔ Container shop-db-1       Started  0.5s
         ✘ Container shop-cache-1    Error    0.0s
         ⠹ Container shop-gateway-1  Waiting  0.5s
        ");
    }

    #[test]
    fn nothing_is_wider_than_a_small_terminal() {
        for columns in 0..60 {
            for line in lines("Running", &stack(), after(1_200), Size { columns, rows: 24 }, Extent::Live) {
                assert!(line.width() < columns.max(1), "{columns}: {line:?}");
            }
        }
        let size = Size { columns: 30, rows: 24 };
        insta::assert_snapshot!(text(&lines("Running", &stack(), after(1_200), size, Extent::Live)), @r"
        [+] Running 3/4
         ✔ Network shop_def…  Created
         ✔ Container shop-d…  Started
         ✘ Container shop-c…  Error
         ⠹ Container shop-g…  Waiting
        ");
    }

    #[test]
    fn a_low_terminal_shows_what_is_under_way_and_says_how_much_is_left_out() {
        for rows in 2..8 {
            let drawn = lines("Running", &stack(), after(1_200), Size { columns: 80, rows }, Extent::Live).len();
            assert!(drawn < rows, "{rows}: {drawn}");
        }
        let size = Size { columns: 80, rows: 5 };
        insta::assert_snapshot!(text(&lines("Running", &stack(), after(1_200), size, Extent::Live)), @r"
        [+] Running 3/4
         ✘ Container shop-cache-1    Error    0.0s
         ⠹ Container shop-gateway-1  Waiting  0.5s
         … 2 more
        ");
        assert_eq!(lines("Running", &stack(), after(1_200), size, Extent::Whole).len(), 5);
    }

    #[test]
    fn a_redraw_goes_back_over_lines_that_a_narrower_terminal_wrapped() {
        let mut block = Block::default();
        let mut screen = Vec::new();
        let wide = Size { columns: 80, rows: 24 };
        block
            .draw(lines("Running", &stack(), after(0), wide, Extent::Live), wide, Palette::PLAIN, &mut screen)
            .unwrap();
        let narrow = Size { columns: 20, rows: 24 };
        let mut screen = Vec::new();
        block.erase(narrow, &mut screen).unwrap();
        assert_eq!(String::from_utf8(screen).unwrap(), "\x1b[13A\r\x1b[J", "five lines have become thirteen");
        let mut screen = Vec::new();
        block.erase(narrow, &mut screen).unwrap();
        assert!(screen.is_empty(), "nothing is drawn any more");
    }
}
