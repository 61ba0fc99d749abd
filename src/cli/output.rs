//! Results, exit codes, standard output and standard error of all commands.

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use tapio_core::redact::Redactor;

/// Exit code for invalid arguments, configuration or rules.
pub(crate) const BAD_USAGE: u8 = 2;

/// How a command prints its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text for a person
    Text,
    /// JSON for a program
    Json,
}

/// The result of a command.
pub(crate) type Outcome = anyhow::Result<ExitCode>;

/// An error in arguments, configuration or rules: exit code [`BAD_USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Prints a line of data to standard output.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn print(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")
}

/// Prints a message that isn't data to standard error, without secrets.
pub(crate) fn message(line: &str) {
    // A message can't be reported anywhere else when standard error is closed.
    let line = Redactor::builtin().text(line).into_owned();
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whether the reader of the output has left (`tapio … | head`), which isn't a failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
