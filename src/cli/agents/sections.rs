//! The parts of an agent's status as text. Those of `/status` and of a server's list are alike:
//! collectors with their accounts, and the sum.

use serde_json::Value as Json;

use super::super::output::{BOLD, Cell, Column, Printer, Table, YELLOW, plain};
use super::text::{losses, lost, number, text};

const COLLECTORS: &[Column] = &[
    Column { title: "COLLECTOR", width: 0, rank: 0 },
    Column { title: "HEALTH", width: 0, rank: 0 },
    Column { title: "RECEIVED", width: 0, rank: 1 },
    Column { title: "STORED", width: 0, rank: 2 },
    Column { title: "LOST", width: 0, rank: 0 },
    Column { title: "HELD", width: 0, rank: 3 },
    Column { title: "RESIDUAL", width: 0, rank: 4 },
    Column { title: "RESTARTS", width: 0, rank: 5 },
    Column { title: "LAST ERROR", width: 0, rank: 0 },
];

/// A collector, from either document.
pub(super) struct CollectorRow<'a> {
    pub(super) name: &'a str,
    /// Empty for the spool, whose account isn't a collector's.
    pub(super) health: &'a str,
    pub(super) restarts: u64,
    pub(super) last_error: &'a str,
    pub(super) account: &'a Json,
}

impl CollectorRow<'_> {
    /// Whether it does less than it is to do.
    fn is_faulty(&self) -> bool {
        !matches!(self.health, "" | "running" | "finished" | "stopped" | "starting")
    }

    /// The remedy for its state.
    fn remedy(&self) -> &'static str {
        match self.health {
            "backoff" => "it is restarted by itself; the error says what has to change",
            "hung" => {
                "a run that doesn't come back is replaced; if this repeats, restart the agent"
            }
            "degraded" | "unavailable" => {
                "`tapio doctor` on the node lists what is missing, the cost and the remedy"
            }
            _ => "",
        }
    }
}

/// Prints a line of text without control characters.
pub(super) fn text_line(printer: &mut Printer, text: &str) -> anyhow::Result<()> {
    Ok(printer.line(&plain(text))?)
}

/// Prints a title.
pub(super) fn title_line(printer: &mut Printer, text: &str) -> anyhow::Result<()> {
    let title = printer.style.paint(&plain(text), BOLD);
    Ok(printer.line(&title)?)
}

/// Prints the collectors, and for faulty ones what to do.
pub(super) fn collectors(printer: &mut Printer, rows: &[CollectorRow<'_>]) -> anyhow::Result<()> {
    let mut table = Table::new(COLLECTORS);
    for row in rows {
        let count = |name: &str| Cell::from(number(&row.account[name]).to_string());
        let health = match row.is_faulty() {
            true => Cell::painted(row.health, YELLOW),
            false => Cell::from(row.health),
        };
        let residual = row.account["residual"].as_i64().unwrap_or_default();
        table.row(vec![
            row.name.into(),
            health,
            count("received"),
            count("forwarded"),
            lost(row.account).to_string().into(),
            count("held"),
            residual.to_string().into(),
            row.restarts.to_string().into(),
            if row.is_faulty() { row.last_error.into() } else { "".into() },
        ]);
    }
    printer.table(&mut table)?;
    for row in rows.iter().filter(|row| row.is_faulty() && !row.remedy().is_empty()) {
        text_line(printer, &format!("  {} is {}: {}", row.name, row.health, row.remedy()))?;
    }
    Ok(())
}

/// Prints CONS-1 of all collectors, and the losses by stage and reason.
pub(super) fn account(printer: &mut Printer, total: &Json) -> anyhow::Result<()> {
    let residual = total["residual"].as_i64().unwrap_or_default();
    let identity = match residual {
        0 => "every event accounted for (CONS-1)".to_owned(),
        n => format!("residual {n}: CONS-1 is violated, a defect in tapio"),
    };
    let count = |name: &str| number(&total[name]);
    text_line(
        printer,
        &format!(
            "events      {} received, {} stored, {} lost, {} held; {identity}",
            count("received"),
            count("forwarded"),
            lost(total),
            count("held"),
        ),
    )?;
    for (name, n) in losses(total).into_iter().filter(|(_, n)| *n > 0) {
        text_line(printer, &format!("  lost at {name}: {n}"))?;
    }
    Ok(())
}

/// Prints problems, one a line.
pub(super) fn problems(printer: &mut Printer, problems: &Json) -> anyhow::Result<()> {
    for problem in problems.as_array().into_iter().flatten() {
        text_line(printer, &format!("  {}", text(problem)))?;
    }
    Ok(())
}
