//! `tapio evidence calibrate`

use std::path::PathBuf;
use std::process::ExitCode;

use super::label::label;
use super::marked::{MarkedIn, from_file, from_server};
use super::report::Report;
use crate::cli::connection::ServerArgs;
use crate::cli::output::{Outcome, OutputArgs, Printer};
use crate::cli::query::annotations::WhenArgs;
use crate::cli::run::config;
use tapio_dataflow::evidence::calibrate;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Stories with their annotations, as `tapio stories -o jsonl` prints them, instead of a
    /// server's; `-` for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The agents' configuration, which has the weights in use; without one, the default weights
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    when: WhenArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    at: ServerArgs,
}

pub(super) fn run(args: &Args) -> Outcome {
    let in_use = match &args.config {
        Some(file) => config(Some(file))?.evidence.weights.weights(),
        None => tapio_dataflow::evidence::Weights::DEFAULT,
    };
    let printer = Printer::list(&args.output);
    let (since_ns, until_ns) = args.when.range(&printer.style.now())?;
    let times = MarkedIn { since_ns, until_ns };
    let marked = match &args.file {
        Some(file) => from_file(file, times)?,
        None => from_server(&args.at, times)?,
    };
    let mut report = Report::new(in_use);
    let mut labelled = Vec::new();
    for (mark, story) in &marked {
        match story.as_ref().map(|story| label(story, mark)) {
            Some(Ok((story, knowledge))) => {
                report.count(knowledge);
                labelled.push(story);
            }
            Some(Err(cause)) => report.leave_out(cause),
            None => report.leave_out(super::label::Unusable::NotStored),
        }
    }
    report.set(calibrate(&labelled, &in_use));
    report.print(printer)?;
    Ok(ExitCode::SUCCESS)
}
