//! Results, exit codes and messages.

use std::io::Write as _;
use std::process::ExitCode;

use super::progress;
use tapio_core::redact::Redactor;

/// Exit code for invalid arguments, configuration or rules.
pub(crate) const BAD_USAGE: u8 = 2;

/// The result of a command.
pub(crate) type Outcome = anyhow::Result<ExitCode>;

/// An error in arguments, configuration or rules: exit code [`BAD_USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Prints a message that isn't data to standard error, without secrets.
pub(crate) fn message(line: &str) {
    // A message can't be reported anywhere else when standard error is closed.
    let line = Redactor::builtin().text(line).into_owned();
    progress::clear();
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
