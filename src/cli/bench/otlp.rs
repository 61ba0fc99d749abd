//! `tapio bench otlp`: OTLP in, OTLP out, through tapio and its peers, beside the direct way from
//! the generator to the sink in the same run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::super::arguments::{Rate, duration, rate};
use super::super::output::{Outcome, Output, Usage, message, print};
use super::machine;
use super::report::{cost_lines, machine_line, summary_lines};
use super::session::{Run, run_once};
use super::stats::Summary;
use super::subject::Subject;
use super::table::Charset;
use crate::load::otlp::OtlpLoad;

/// Streams of a connection without a rate: few, as what is sent later waits only in the pipeline.
const FLAT_OUT_STREAMS: usize = 4;
/// Streams of a connection at a rate: more than a pipeline that keeps up needs.
const FIXED_RATE_STREAMS: usize = 16;
/// How long records that are behind their schedule are sent after the measured time.
const DRAIN: Duration = Duration::from_secs(30);

/// The records, the connections and the pipelines, which all modes with OTLP have.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// Time before the measured time
    #[arg(long, default_value = "2s", value_parser = duration)]
    warm_up: Duration,
    /// Rules in addition to the built-in ones
    #[arg(long, default_value_t = 100)]
    pub(super) rules: usize,
    /// Share of records that are relevant to one of these rules, 0 to 1
    #[arg(long, default_value_t = 0.01)]
    match_share: f64,
    /// Distinct values of the key that joins these rules' steps
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
    /// Records per request; reference measurements use 500
    #[arg(long, default_value_t = 500)]
    batch_records: usize,
    /// Connections of the generator
    #[arg(long, default_value_t = 4)]
    connections: usize,
}

impl LoadArgs {
    /// Validates the values.
    ///
    /// # Errors
    /// The argument that is out of its range, as [`Usage`].
    pub(super) fn check(&self) -> Result<(), Usage> {
        let bad = |text: &str| Err(Usage(text.into()));
        match self {
            args if !(0.0..=1.0).contains(&args.match_share) => {
                bad("--match-share: must be from 0 to 1")
            }
            args if !(1..=10_000).contains(&args.batch_records) => {
                bad("--batch-records: must be from 1 to 10000")
            }
            args if !(1..=64).contains(&args.connections) => {
                bad("--connections: must be from 1 to 64")
            }
            args if !(1..=999_999).contains(&args.keys) => bad("--keys: must be from 1 to 999999"),
            _ => Ok(()),
        }
    }

    /// The load at a rate, for this long after the warm-up. Refused requests are sent again.
    pub(super) fn load(&self, rate: Option<u64>, duration: Duration) -> OtlpLoad {
        OtlpLoad {
            // Of the pipeline that runs.
            port: 0,
            rate,
            batch_records: self.batch_records,
            connections: self.connections,
            streams: if rate.is_some() { FIXED_RATE_STREAMS } else { FLAT_OUT_STREAMS },
            match_share: self.match_share,
            keys: self.keys,
            warm_up: self.warm_up,
            duration,
            drain: DRAIN,
            retries: true,
        }
    }

    /// The agent with these rules.
    pub(super) fn tapio(&self) -> Subject {
        Subject::Tapio { rules: self.rules, memory_limit_bytes: None }
    }

    /// The arguments as part of a report.
    pub(super) fn json(&self) -> Json {
        json!({
            "rules": self.rules + tapio_dataflow::rules::builtin().rules.len(),
            "match_share": self.match_share, "keys": self.keys,
            "batch_records": self.batch_records, "connections": self.connections,
            "warm_up_seconds": self.warm_up.as_secs_f64(),
        })
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Records per second, or `max`
    #[arg(long, default_value = "max", value_parser = rate)]
    rate: Rate,
    /// The measured time: `10s`, `5m`, or a number of seconds
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Runs of each pipeline, of which the report has the medians
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// A pipeline to compare with: a shell command that receives OTLP/gRPC at $OTLP_IN and sends it
    /// to $OTLP_OUT (host:port); can be repeated
    #[arg(long, value_name = "COMMAND")]
    peer: Vec<String>,
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// Folder for plots (SVG): percentiles, CPU time by thread
    #[arg(long, value_name = "FOLDER")]
    plot: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The report.
#[derive(Debug, Serialize)]
struct Report {
    /// `None`: flat out.
    rate: Option<u64>,
    duration_seconds: f64,
    runs: usize,
    load: Json,
    /// The first is the direct one at this rate.
    pipelines: Vec<Summary>,
    /// The direct one flat out, where the others have a rate.
    direct_flat_out: Option<Summary>,
    machine: Json,
}

pub(super) fn run(args: &Args) -> Outcome {
    args.load.check()?;
    let report = measure(args)?;
    if let Some(folder) = &args.plot {
        super::plot::summaries(folder, &report.pipelines)?;
    }
    match args.output {
        Output::Json => print(&serde_json::to_string(&report)?)?,
        Output::Text => print(&text(&report, Charset::of_environment()).join("\n"))?,
    }
    let tapio = report.pipelines.iter().find(|summary| summary.name == "tapio");
    let is_complete = tapio.is_some_and(Summary::is_complete);
    if !is_complete {
        message("tapio: records were lost or duplicated, or CONS-1 doesn't hold");
    }
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures every pipeline in each round, so that all of them have the same machine.
fn measure(args: &Args) -> anyhow::Result<Report> {
    let mut subjects = vec![Subject::Direct, args.load.tapio()];
    subjects.extend(args.peer.iter().cloned().map(Subject::Peer));
    let load = args.load.load(args.rate.0, args.duration);
    let flat_out = args.load.load(None, args.duration);
    let mut direct_flat_out = Vec::new();
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); subjects.len()];
    for _ in 0..args.runs.max(1) {
        if args.rate.0.is_some() {
            direct_flat_out.push(run_once(&Subject::Direct, &flat_out)?);
        }
        for (subject, runs) in subjects.iter().zip(&mut runs) {
            runs.push(run_once(subject, &load)?);
        }
    }
    let beside = runs[0].clone();
    let fastest = if args.rate.0.is_some() { &direct_flat_out } else { &beside };
    let summaries = subjects.iter().zip(runs);
    let pipelines = summaries
        .map(|(subject, runs)| Summary::new(subject.name(), runs, fastest, &beside))
        .collect();
    let of_flat_out =
        || Summary::new("direct".into(), direct_flat_out.clone(), &direct_flat_out, &beside);
    Ok(Report {
        rate: args.rate.0,
        duration_seconds: args.duration.as_secs_f64(),
        runs: args.runs.max(1),
        load: args.load.json(),
        pipelines,
        direct_flat_out: args.rate.0.is_some().then(of_flat_out),
        machine: machine(),
    })
}

fn text(report: &Report, charset: Charset) -> Vec<String> {
    let rate = report
        .rate
        .map_or("flat out".into(), |rate| format!("{} records/s", super::table::grouped(rate)));
    let mut lines = vec![format!(
        "OTLP in {} OTLP out, {rate}, {} s a run, runs: {} (medians)",
        charset.arrow(),
        report.duration_seconds,
        report.runs
    )];
    lines.push(String::new());
    let shown: Vec<&Summary> = report.pipelines.iter().collect();
    lines.extend(summary_lines(&shown, report.direct_flat_out.as_ref(), charset));
    lines.push(String::new());
    lines.extend(cost_lines(&shown, charset));
    lines.push(String::new());
    lines.push(machine_line(&report.machine));
    lines
}
