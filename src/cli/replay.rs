//! `tapio replay`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;

use super::arguments::{load_rules, read_inputs};
use super::output::{Outcome, Progress, print};
use super::refused::print_refused;
use super::story::is_lifecycle;
use tapio_dataflow::replay::{Emit, run as run_rules};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio replay tests/stories/nginx-cascade.jsonl\n  tapio replay events.jsonl --rules my-rules/ --emit matches"
)]
pub(super) struct Args {
    /// Files with one event per line, or one request of OTLP in JSON, gzip and zstd too; `-` for
    /// standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Rule files or folders, instead of the built-in rules
    #[arg(long, value_name = "PATH", num_args = 1..)]
    rules: Vec<PathBuf>,
    /// Number of shards (1 to 64); the output doesn't depend on it
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    shards: u8,
    /// Kind of output
    #[arg(long, value_enum, default_value = "stories")]
    emit: EmitArg,
    /// The cluster's name, part of every trace id
    #[arg(long, default_value = "")]
    cluster: String,
    /// Also print the lifecycles of pods, units and processes, which are tracked without a rule
    #[arg(long)]
    lifecycles: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum EmitArg {
    /// Final stories
    Stories,
    /// Every match of every rule
    Matches,
    /// The events with trace and correlation
    Events,
}

pub(super) fn run(args: &Args) -> Outcome {
    let rules = load_rules(&args.rules)?;
    let emit = match args.emit {
        EmitArg::Stories => Emit::Stories,
        EmitArg::Matches => Emit::Matches,
        EmitArg::Events => Emit::Events,
    };
    let inputs = read_inputs(&args.files)?;
    let progress = Progress::of_items("replaying", "events", Some(inputs.len() as u64));
    let progress = Arc::new(progress);
    let report = Arc::clone(&progress);
    let inputs = inputs.with_progress(Box::new(move |events| report.add(events)));
    let replayed = run_rules(inputs, rules, &args.cluster, usize::from(args.shards), emit)?;
    drop(progress);
    print_refused(&replayed.refused);
    for line in &replayed.lines {
        if args.lifecycles || !is_lifecycle(line) {
            print(&line.to_string())?;
        }
    }
    let total = &replayed.account.total;
    if !replayed.account.holds() || total.held > 0 {
        anyhow::bail!("CONS-1 violated: {total:?}");
    }
    // Not one event: nothing was replayed, whatever the rules say.
    let is_empty = replayed.account.total.forwarded == 0;
    if let Some(first) = replayed.refused.first().filter(|_| is_empty) {
        anyhow::bail!(
            "no line is an event, refused: {}; the first: {first}",
            replayed.refused.len()
        );
    }
    Ok(ExitCode::SUCCESS)
}
