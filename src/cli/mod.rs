//! The command line. Data goes to standard output, everything else to standard error; exit code 0
//! is fine, 1 failed, 2 bad usage or configuration.

mod bench;
mod demo;
mod doctor;
mod explain;
mod live;
mod load;
mod replay;
mod rules;
mod run;
mod signals;
mod story;
mod tail;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Exit code for bad usage or configuration.
pub(crate) const BAD_USAGE: u8 = 2;

#[derive(Parser)]
#[command(
    name = "tapio",
    version,
    about = "Correlates what happens on a node into stories: one trace, a root cause, an impact, what to do."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The agent
    Run(run::RunArgs),
    /// The receiving server
    Server(run::ServerArgs),
    /// Validate a configuration file, with line and column
    Check(run::CheckArgs),
    /// Open-loop load generator, coordinated-omission safe
    Load(load::Args),
    /// Measure tapio on this machine
    Bench(bench::Args),
    /// Events from JSONL files through the production correlator; stories as JSON lines
    Replay(replay::Args),
    /// The rule language's tools
    Rules(rules::Args),
    /// Causes real, harmless faults on this machine and shows their stories
    Demo(demo::Args),
    /// One of the demo's faults
    #[command(hide = true)]
    DemoFault(demo::FaultArgs),
    /// What this kernel, privileges and node allow, and what each missing thing costs
    Doctor(doctor::Args),
    /// Why this story, this root cause: its evidence, the runners-up and every term
    Explain(explain::Args),
    /// Live events and stories of a server
    Tail(tail::Args),
}

/// A duration on the command line: a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, tapio_core::durations::ParseDurationError> {
    match text.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) => Ok(duration),
        _ => tapio_core::durations::parse(text),
    }
}

/// How a verb prints its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How a verb ended.
pub(crate) type Outcome = anyhow::Result<ExitCode>;

/// A mistake of the user: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Prints a line of data.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn print(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")
}

/// Tells the person at the terminal something that is not data.
pub(crate) fn tell(line: &str) {
    // Nothing is left to tell it to when standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { BAD_USAGE } else { 0 });
        }
    };
    let outcome = match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Server(args) => run::server(&args),
        Verb::Check(args) => run::check(&args),
        Verb::Load(args) => load::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::Rules(args) => rules::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::DemoFault(args) => demo::fault(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Tail(args) => tail::run(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("tapio: {error:#}"));
            ExitCode::from(if error.is::<Usage>() { BAD_USAGE } else { 1 })
        }
    }
}

/// The reader of our output left (`tapio … | head`): no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_seconds() {
        for (text, expected) in [("60", 60.0), ("0.5", 0.5), ("10s", 10.0), ("1m", 60.0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(expected)), "{text}");
        }
        for text in ["", "-1", "ten", "inf", "1y"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
