//! `tapio notify`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::output::{Outcome, Usage, message, print};
use super::run::config;
use crate::notify::{Trial, dead_letters, try_receivers};
use crate::runtime::Config;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Send a story that is marked as a test to the receivers of notifications: opened, then closed
    #[command(
        after_help = "Examples:\n  tapio notify test --config /etc/tapio/server.yaml\n  tapio notify test --config server.yaml pager"
    )]
    Test(Test),
    /// Print the notifications that were given up, as JSON lines
    #[command(after_help = "Example:\n  tapio notify dead-letters --config /etc/tapio/server.yaml")]
    DeadLetters(Source),
}

#[derive(clap::Args)]
struct Source {
    /// Configuration file of the server
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Test {
    #[command(flatten)]
    source: Source,
    /// The receiver; by default all of them
    #[arg(value_name = "RECEIVER")]
    receiver: Option<String>,
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.verb {
        Verb::Test(args) => test(&config(args.source.config.as_deref())?, args),
        Verb::DeadLetters(source) => {
            let folder = config(source.config.as_deref())?.server().data_dir;
            let letters = dead_letters(&folder);
            let letters = letters.map_err(|e| anyhow::anyhow!("{}: {e}", folder.display()))?;
            letters.iter().try_for_each(|letter| print(letter))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn test(config: &Config, args: &Test) -> Outcome {
    let only = args.receiver.as_deref();
    let trials = try_receivers(&config.server.notify, only, &config.cluster, &config.node_name());
    let trials = trials.map_err(|e| Usage(e.to_string()))?;
    for Trial { receiver, kind, answers } in &trials {
        for (event, answer) in answers {
            let answer = answer.as_ref().map_or_else(|cause| cause.as_str(), |()| "taken");
            print(&format!("{receiver} ({kind}): {event}: {answer}"))?;
        }
    }
    let failed: Vec<&str> =
        trials.iter().filter(|trial| !trial.is_ok()).map(|trial| trial.receiver.as_str()).collect();
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    message(&format!("tapio: failed: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}
