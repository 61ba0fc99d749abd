//! `tapio replay`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use super::{Outcome, print, tell};
use tapio_dataflow::replay::{BadLine, Emit, replay};

/// Refused lines that are shown; the rest is counted.
const SHOWN: usize = 20;

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  tapio replay tests/stories/nginx-cascade.jsonl\n  tapio replay events.jsonl --rules my-rules/ --emit matches"
)]
pub(super) struct Args {
    /// Files with one event a line; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Rule files or folders, in the place of the built-in rules
    #[arg(long, value_name = "PATH", num_args = 1..)]
    rules: Vec<PathBuf>,
    /// Shards to spread the events over (1 to 64); the output doesn't depend on it
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    shards: u8,
    /// What to print
    #[arg(long, value_enum, default_value = "stories")]
    emit: What,
    /// The cluster's name, part of every trace id
    #[arg(long, default_value = "")]
    cluster: String,
    /// Print lives of pods, units and processes too, not only the stories rules found
    #[arg(long)]
    lives: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Final stories
    Stories,
    /// Every match of every rule
    Matches,
    /// The events with trace and correlation
    Events,
}

pub(super) fn run(args: &Args) -> Outcome {
    let rules = super::rules::load(&args.rules)?;
    let emit = match args.emit {
        What::Stories => Emit::Stories,
        What::Matches => Emit::Matches,
        What::Events => Emit::Events,
    };
    let replayed = replay(&args.files, rules, &args.cluster, usize::from(args.shards), emit)?;
    tell_refused(&replayed.refused);
    for line in &replayed.lines {
        if args.lives || !is_life(line) {
            print(&line.to_string())?;
        }
    }
    let total = &replayed.account.total;
    if !replayed.account.holds() || total.held > 0 {
        anyhow::bail!("CONS-1 doesn't hold: {total:?}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells which lines were refused and why.
pub(super) fn tell_refused(refused: &[BadLine]) {
    for bad in refused.iter().take(SHOWN) {
        tell(&format!("tapio: {bad}"));
    }
    if !refused.is_empty() {
        tell(&format!("tapio: {} lines refused, the rest was replayed", refused.len()));
    }
}

pub(super) fn is_life(line: &serde_json::Value) -> bool {
    line.get("rule").and_then(|r| r.as_str()).is_some_and(|r| r.ends_with("-lifecycle"))
}
