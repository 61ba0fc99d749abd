//! `tapio debug`
//!
//! | file | purpose |
//! | --- | --- |
//! | `admin_client.rs` | requests to the admin pages of the running agent |
//! | `runtime.rs` | log level and flight recorder |
//! | `bundle.rs` | what a bundle has |
//! | `process.rs` | the kernel, and the agent's process as `/proc` shows it |
//! | `archive.rs` | the tar.gz file |

mod admin_client;
mod archive;
mod bundle;
mod process;
mod runtime;

use clap::Subcommand;

use super::output::Outcome;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Collect the state of the agent for a report, without secrets
    #[command(
        after_help = "Examples:\n  tapio debug bundle\n  tapio debug bundle --config /etc/tapio/tapio.yaml --output bundle.tar.gz"
    )]
    Bundle(bundle::Args),
    /// Change the log level of the running agent
    #[command(
        after_help = "Examples:\n  tapio debug log-level debug --for 10m\n  tapio debug log-level info,tapio::bridge=debug\n  tapio debug log-level --reset"
    )]
    LogLevel(runtime::LevelArgs),
    /// Switch the flight recorder of the running agent on or off
    #[command(
        after_help = "Examples:\n  tapio debug record --for 30m\n  tapio debug record --keep 5m --bytes 32MiB\n  tapio debug record --off"
    )]
    Record(runtime::RecordArgs),
    /// Print the events of the flight recorder as JSON lines
    #[command(
        after_help = "Example:\n  tapio debug dump > events.jsonl\n  tapio replay events.jsonl"
    )]
    Dump(runtime::DumpArgs),
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.verb {
        Verb::Bundle(args) => bundle::run(args),
        Verb::LogLevel(args) => runtime::log_level(args),
        Verb::Record(args) => runtime::record(args),
        Verb::Dump(args) => runtime::dump(args),
    }
}
