//! `tapio evidence`: the ranking of root causes.
//!
//! | file | purpose |
//! | --- | --- |
//! | `label.rs` | the label that an operator's mark gives a story |
//! | `marked.rs` | stories that were marked, of a server or a file |
//! | `calibrate.rs` | `tapio evidence calibrate` |
//! | `report.rs` | its report, as text and as JSON |

mod calibrate;
mod label;
mod marked;
mod report;

use clap::Subcommand;

use super::output::Outcome;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fit the weights of the evidence to stories whose first cause was marked as right or wrong
    #[command(
        after_help = "Examples:\n  tapio evidence calibrate --since 90d\n  tapio evidence calibrate --config /etc/tapio/tapio.yaml -o json\n  tapio stories -n all -o jsonl | tapio evidence calibrate --file -"
    )]
    Calibrate(calibrate::Args),
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.verb {
        Verb::Calibrate(args) => calibrate::run(args),
    }
}
