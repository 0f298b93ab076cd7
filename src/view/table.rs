//! A table as docker's command line lays it out: columns at least ten wide, three blanks apart.

use std::io::{self, Write};

use super::text;

const MINIMUM: usize = 10;
const GAP: usize = 3;

/// Rows under headings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    pub fn new(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned)] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// Writes headings and rows. The last column is not padded.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths = [MINIMUM; N];
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(text::width(cell) + GAP);
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                line += &if column + 1 < N { text::pad(cell, widths[column]) } else { cell.clone() };
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_a_gap() {
        let mut table = Table::new(["NAME", "IMAGE", "PORTS"]);
        table.row(["p3-api-1".into(), "bb:1".into(), "80/tcp".into()]);
        table.row(["p3-longer-name-1".into(), "größe…".into(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap().replace(' ', ".");
        insta::assert_snapshot!(text, @r"
        NAME...............IMAGE.....PORTS
        p3-api-1...........bb:1......80/tcp
        p3-longer-name-1...größe…....
        ");
    }
}
