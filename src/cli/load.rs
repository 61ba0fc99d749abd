//! `tapio load`

use std::process::ExitCode;
use std::time::Duration;

use super::arguments::{Rate, duration, rate};
use super::connection::AccessArgs;
use super::output::{Outcome, Output, Progress, Usage, interrupts_are_handled, print};
use super::signals::Signals;
use crate::load::{LoadConfig, LoadError, run as send};
use tapio_core::shutdown::Shutdown;

/// A wait that only a signal should end; when it ends by itself, it begins again.
const SIGNAL_WAIT: Duration = Duration::from_secs(3600);

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  tapio load --rate 165000 --duration 10s --target 127.0.0.1:7602"
)]
pub(super) struct Args {
    /// Events per second, or `max`
    #[arg(long, default_value = "max", value_parser = rate)]
    rate: Rate,
    /// Duration: `10s`, `5m`, or a number of seconds
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// The receiver of an agent, or a server: HOST:PORT, https://HOST:PORT or unix:/PATH
    #[arg(long, default_value = "127.0.0.1:7602", value_name = "ADDR")]
    target: String,
    #[command(flatten)]
    access: AccessArgs,
    /// Name of the node that sends
    #[arg(long, default_value = "load")]
    node: String,
    /// Kinds of the relevant events, separated by commas
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// Share of events that are relevant to a rule, 0 to 1
    #[arg(long, default_value_t = 1.0)]
    match_share: f64,
    /// Distinct pods of the events
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
    /// Events per batch
    #[arg(long)]
    batch_events: Option<u64>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    if !(0.0..=1.0).contains(&args.match_share) {
        return Err(Usage("--match-share: must be from 0 to 1".into()).into());
    }
    let config = LoadConfig {
        target: args.target.clone(),
        access: args.access.access("--target", &args.target)?,
        node: args.node.clone(),
        rate: args.rate.0,
        duration: args.duration,
        match_share: if args.kinds.is_empty() { 0.0 } else { args.match_share },
        kinds: args.kinds.clone(),
        keys: args.keys,
        batch_events: args.batch_events,
        ..LoadConfig::default()
    };
    let shutdown = Shutdown::default();
    let signals = Signals::of_shutdown()?;
    let requested = shutdown.clone();
    std::thread::spawn(move || {
        while !signals.is_shutdown() {
            signals.wait(SIGNAL_WAIT);
        }
        requested.request();
    });
    interrupts_are_handled();
    let progress = Progress::of_time("load", args.duration);
    let sent = send(&config, &shutdown);
    drop(progress);
    let report = sent.map_err(|e| match e {
        LoadError::Setting(text) => anyhow::Error::from(Usage(text)),
        other => other.into(),
    })?;
    match args.output {
        Output::Json => print(&serde_json::to_string(&report)?)?,
        Output::Text => print(&format!(
            "offered {} events, {} acknowledged, {} refused, in {:.2} s: {:.0} events/s, {:.2} CPU s",
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
