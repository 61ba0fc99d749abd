//! `tapio load`

use std::process::ExitCode;
use std::time::Duration;

use super::signals::Signals;
use super::{Outcome, Output, Usage, print};
use crate::load::{LoadConfig, LoadError, run as send};
use tapio_core::shutdown::Shutdown;

/// A wait that only a signal is to end; when it ends by itself, it begins again.
const UNTIL_A_SIGNAL: Duration = Duration::from_secs(3600);

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  tapio load --rate 165000 --duration 10s --target 127.0.0.1:7602"
)]
pub(super) struct Args {
    /// Events a second, or `max`
    #[arg(long, default_value = "max", value_parser = rate)]
    rate: Rate,
    /// How long: `10s`, `5m`, or a number of seconds
    #[arg(long, default_value = "10s", value_parser = super::duration)]
    duration: Duration,
    /// An agent's receiver or a server
    #[arg(long, default_value = "127.0.0.1:7602", value_name = "ADDR")]
    target: String,
    /// Kinds of the events that rules want, separated by commas
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// The share of events that are of these kinds, 0 to 1
    #[arg(long, default_value_t = 1.0)]
    match_share: f64,
    /// Distinct pods the events are of
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
    /// Events sent, and due, together
    #[arg(long)]
    batch_events: Option<u64>,
    /// How to print the report
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// Events a second; none: as many as the target takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate(pub(super) Option<u64>);

pub(super) fn rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" => Ok(Rate(None)),
        n => match n.parse() {
            Ok(n) if n > 0 => Ok(Rate(Some(n))),
            _ => Err("expected events a second, from 1, or max".into()),
        },
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    if !(0.0..=1.0).contains(&args.match_share) {
        return Err(Usage("--match-share: from 0 to 1".into()).into());
    }
    let config = LoadConfig {
        target: args.target.clone(),
        rate: args.rate.0,
        duration: args.duration,
        match_share: if args.kinds.is_empty() { 0.0 } else { args.match_share },
        kinds: args.kinds.clone(),
        keys: args.keys,
        batch_events: args.batch_events,
        ..LoadConfig::default()
    };
    let shutdown = Shutdown::default();
    let signals = Signals::of_end()?;
    let theirs = shutdown.clone();
    std::thread::spawn(move || {
        while !signals.end() {
            signals.wait(UNTIL_A_SIGNAL);
        }
        theirs.request();
    });
    let report = send(&config, &shutdown).map_err(|e| match e {
        LoadError::Setting(text) => anyhow::Error::from(Usage(text)),
        other => other.into(),
    })?;
    match args.output {
        Output::Json => print(&serde_json::to_string(&report)?)?,
        Output::Text => print(&format!(
            "{} events offered, {} acknowledged, {} refused in {:.2} s: {:.0} events/s, {:.2} CPU s",
            report.offered,
            report.acked,
            report.refused,
            report.seconds,
            report.acked as f64 / report.seconds.max(1e-9),
            report.cpu_seconds
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}
