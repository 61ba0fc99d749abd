//! Standard output, standard error, formats and exit codes of all commands.

mod args;
mod outcome;
mod pager;
mod printer;
mod progress;
mod stdout;
mod style;
mod table;

pub(crate) use args::{Color, Format, Output, OutputArgs};
pub(crate) use outcome::{BAD_USAGE, Outcome, Usage, message};
pub(crate) use printer::Printer;
pub(crate) use progress::{Progress, interrupts_are_handled};
pub(crate) use stdout::{is_broken_pipe, print};
pub(crate) use style::{BOLD, CYAN, DIM, RED, Style, YELLOW, plain, severity_code};
pub(crate) use table::{Cell, Column, Table, markdown};
