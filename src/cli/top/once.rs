//! `tapio top --once`: the content of the screen as text.

use super::list::Row;
use super::message::Message;
use super::state::View;
use crate::cli::output::{BOLD, Cell, OutputArgs, Printer, Table, plain};

/// The content of the three views.
#[derive(Debug, Default)]
pub(super) struct Content {
    stories: Vec<Row>,
    agents: Vec<Row>,
    losses: Vec<Row>,
}

impl Content {
    /// Takes the content of a message.
    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Stories(rows) => self.stories = rows,
            Message::Agents { agents, losses } => (self.agents, self.losses) = (agents, losses),
            _ => {}
        }
    }

    fn rows(&self, view: View) -> &[Row] {
        match view {
            View::Stories => &self.stories,
            View::Agents => &self.agents,
            View::Losses => &self.losses,
        }
    }

    /// Prints one view, or all of them.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(super) fn print(
        &self,
        server: &str,
        only: Option<View>,
        output: &OutputArgs,
    ) -> anyhow::Result<()> {
        let mut printer = Printer::stream(output);
        let counts = View::ALL.map(|view| format!("{} {}", view.name(), self.rows(view).len()));
        printer.line(&format!("{}  {}", counts.join("  "), plain(server)))?;
        for view in View::ALL.into_iter().filter(|view| only.is_none_or(|only| only == *view)) {
            printer.line("")?;
            if only.is_none() {
                let title = printer.style.paint(view.name(), BOLD);
                printer.line(&title)?;
            }
            let rows = self.rows(view);
            if rows.is_empty() {
                printer.line(view.empty())?;
            }
            let mut table = Table::new(view.columns());
            for row in rows {
                let cells = row.cells.iter().map(|cell| match cell.code {
                    Some(code) => Cell::painted(&cell.text, code),
                    None => Cell::from(&cell.text),
                });
                table.row(cells.collect());
            }
            printer.table(&mut table)?;
        }
        Ok(printer.finish()?)
    }
}
