//! `tapio debug log-level`, `record` and `dump`: changes a running agent, for a time.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::admin_client::AgentArgs;
use crate::cli::arguments::duration;
use crate::cli::output::{Outcome, Usage, message, print};
use crate::runtime::Config;
use tapio_core::{durations, sizes};

/// The longest time for which a change is in force.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(clap::Args)]
pub(super) struct LevelArgs {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,tapio::bridge=debug`
    #[arg(value_name = "LEVEL", required_unless_present = "reset")]
    level: Option<String>,
    /// For how long, such as 10m; then the configured level is in force again
    #[arg(long = "for", value_name = "TIME", value_parser = limited)]
    time: Option<Duration>,
    /// Put the configured level in force again
    #[arg(long, conflicts_with_all = ["level", "time"])]
    reset: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(clap::Args)]
pub(super) struct RecordArgs {
    /// For how long, such as 30m; without it, until --off or a restart
    #[arg(long = "for", value_name = "TIME", value_parser = limited)]
    time: Option<Duration>,
    /// The time for which events are kept; by default debug.recorder.keep
    #[arg(long, value_name = "TIME", value_parser = duration)]
    keep: Option<Duration>,
    /// The most memory for them; by default debug.recorder.bytes
    #[arg(long, value_name = "SIZE")]
    bytes: Option<String>,
    /// Switch it off, and forget what it has
    #[arg(long, conflicts_with_all = ["time", "keep", "bytes"])]
    off: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(clap::Args)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    agent: AgentArgs,
}

fn text_of(time: Option<Duration>) -> Option<String> {
    time.map(durations::text)
}

/// For how long a change is in force: as it was asked for, else as the agent answers.
fn in_force_for(asked: Option<Duration>, answer: &Json) -> Option<String> {
    let left = || answer["seconds_left"].as_u64().map(Duration::from_secs);
    asked.or_else(left).map(durations::text)
}

/// Parses the time for which a change is in force.
fn limited(text: &str) -> Result<Duration, String> {
    let time = duration(text).map_err(|e| e.to_string())?;
    match time.is_zero() || time > LONGEST {
        true => Err("must be greater than zero, and at most 365d".into()),
        false => Ok(time),
    }
}

pub(super) fn log_level(args: &LevelArgs) -> Outcome {
    let client = args.agent.client(&args.agent.config()?)?;
    let body = match &args.level {
        Some(level) => json!({"level": level, "for": text_of(args.time)}),
        None => json!({}),
    };
    let answer = client.post("/debug/log-level", &body)?;
    let log = &answer["log"];
    let level = log["level"].as_str().unwrap_or_default();
    let configured = log["configured"].as_str().unwrap_or_default();
    print(&match in_force_for(args.time, log) {
        Some(time) => format!("log level: {level}, for {time}; then {configured}"),
        None => format!("log level: {level}"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The request that switches the recorder on.
fn record_request(args: &RecordArgs, config: &Config) -> anyhow::Result<Json> {
    let recorder = &config.debug.recorder;
    let size = args.bytes.clone().unwrap_or_else(|| recorder.bytes.to_string());
    sizes::parse(&size).ok_or_else(|| Usage(format!("--bytes: {size:?} is no size")))?;
    let keep = durations::text(args.keep.unwrap_or(recorder.keep));
    Ok(json!({"on": true, "for": text_of(args.time), "keep": keep, "bytes": size}))
}

pub(super) fn record(args: &RecordArgs) -> Outcome {
    let config = args.agent.config()?;
    let body = match args.off {
        true => json!({"on": false}),
        false => record_request(args, &config)?,
    };
    let answer = args.agent.client(&config)?.post("/debug/recorder", &body)?;
    let recorder = &answer["recorder"];
    let number = |key: &str| recorder[key].as_u64().unwrap_or_default();
    print(&match recorder["on"].as_bool() {
        Some(true) => format!(
            "flight recorder: on{}; keeps {} and at most {}; {} events",
            in_force_for(args.time, recorder)
                .map(|time| format!(" for {time}"))
                .unwrap_or_default(),
            durations::text(Duration::from_secs(number("keep_seconds"))),
            sizes::rounded(number("limit_bytes")),
            number("events")
        ),
        _ => "flight recorder: off".to_owned(),
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn dump(args: &DumpArgs) -> Outcome {
    let client = args.agent.client(&args.agent.config()?)?;
    let mut out = std::io::stdout().lock();
    let mut lines = 0;
    client.stream("/debug/recorder/events", |part| {
        lines += part.iter().filter(|byte| **byte == b'\n').count();
        out.write_all(part)
    })?;
    out.flush()?;
    if lines == 0 {
        message("tapio: the flight recorder has no events; `tapio debug record` switches it on");
    } else {
        message(&format!("tapio: {lines} events"));
    }
    Ok(ExitCode::SUCCESS)
}
