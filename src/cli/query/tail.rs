//! `tapio tail`

use std::process::ExitCode;

use prost::Message as _;

use super::filter::FilterArgs;
use super::stream;
use crate::cli::connection::ServerArgs;
use crate::cli::event_line::event_line;
use crate::cli::output::{Outcome, OutputArgs, Printer, Usage, message};
use crate::cli::{live, story};
use tapio_wire::{batch_json, proto, story_from_proto};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tapio tail\n  tapio tail --kind 'kernel.tcp.*' -o jsonl\n  tapio tail --stories\n  tapio tail -p error --entity k8s.pod.name=web-1"
)]
pub(crate) struct Args {
    /// Stories only; with --kind, also the events of these kinds
    #[arg(long)]
    stories: bool,
    #[command(flatten, next_help_heading = "Filters")]
    filter: FilterArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    at: ServerArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let has_events = !args.stories || args.filter.kind.is_some();
    if args.filter.state.is_some() && has_events {
        let cause = "--state is a filter of stories: it needs --stories, without --kind";
        return Err(Usage(cause.into()).into());
    }
    args.at.access()?;
    let request = args.filter.filters()?.tail(has_events, args.stories);
    let mut printer = Printer::stream(&args.output);
    live::runtime()?
        .block_on(stream::follow(&args.at, request, |batch| print_batch(&mut printer, batch)))?;
    printer.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn print_batch(printer: &mut Printer, batch: proto::EventBatch) -> anyhow::Result<()> {
    let (items, broken) = batch_json(&batch.encode_to_vec())?;
    if broken > 0 {
        message(&format!("tapio: {broken} items can't be decoded"));
    }
    let is_data = printer.format.is_data();
    for (is_story, json) in &items {
        match (is_story, is_data) {
            (true, true) if !story::is_lifecycle(json) => printer.item(json)?,
            (false, true) => printer.item(json)?,
            (false, false) => {
                let text = event_line(json, &printer.style);
                printer.line(&text)?;
            }
            _ => {}
        }
    }
    let stories = batch.stories.into_iter().filter(|_| !is_data);
    for story in stories.filter_map(story_from_proto).filter(|story| !story.is_lifecycle()) {
        if let Some(text) = story::live_text(&story, &printer.style) {
            printer.line(&text)?;
        }
    }
    Ok(())
}
