//! The table of a list that may go on: it is printed in parts.

use crate::cli::output::{Cell, Column, Format, OutputArgs, Printer, Table};

/// Rows that are printed at once: the columns are as wide as these need.
const ROWS: usize = 500;

/// Rows that are printed once there are enough of them.
pub(super) struct GrowingTable {
    pub(super) printer: Printer,
    table: Table,
    rows: usize,
}

impl GrowingTable {
    /// A table with the first of these columns as text, else with the second.
    pub(super) fn new(
        args: &OutputArgs,
        is_stream: bool,
        [text, wide]: [&'static [Column]; 2],
    ) -> Self {
        let printer = if is_stream { Printer::stream(args) } else { Printer::list(args) };
        let columns = if args.output == Format::Text { text } else { wide };
        Self { printer, table: Table::new(columns), rows: 0 }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<Cell>) -> anyhow::Result<()> {
        self.table.row(cells);
        self.rows += 1;
        if self.rows >= ROWS { self.flush() } else { Ok(()) }
    }

    /// Prints the rows that were added since the last time.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.rows = 0;
        Ok(self.printer.table(&mut self.table)?)
    }

    /// Ends the output; says `empty` where a person would see nothing.
    pub(super) fn finish(self, empty: &str) -> anyhow::Result<()> {
        Ok(self.printer.finish_table(&self.table, empty)?)
    }
}
