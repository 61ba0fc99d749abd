//! `tapio bench ramp`: raises the rate until the pipeline can't keep up: the knee.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::super::arguments::duration;
use super::super::output::{Outcome, Output, Usage, message, print};
use super::climb::{Ramp, Step, climb};
use super::harness::Harness;
use super::machine;
use super::otlp::LoadArgs;
use super::report::machine_line;
use super::session::Scratch;
use super::subject::Subject;
use super::table::{Charset, Table, grouped, ms, short};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The first rate, in records per second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    start: u64,
    /// The measured time of each rate
    #[arg(long, default_value = "3s", value_parser = duration)]
    duration: Duration,
    /// Bisections between the last rate below the knee and the first beyond it
    #[arg(long, default_value_t = 5)]
    bisections: u32,
    /// A pipeline to measure instead of tapio: a shell command, as of `bench otlp`
    #[arg(long, value_name = "COMMAND")]
    peer: Option<String>,
    #[command(flatten)]
    load: LoadArgs,
    /// Folder for plots (SVG): latency against rate
    #[arg(long, value_name = "FOLDER")]
    plot: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    args.load.check()?;
    if args.duration.is_zero() {
        return Err(Usage("--duration: must be greater than zero".into()).into());
    }
    let subject = args.peer.clone().map_or_else(|| args.load.tapio(), Subject::Peer);
    let scratch = Scratch::new()?;
    let mut harness = Harness::start()?;
    let mut running = subject.start(scratch.path(), harness.sink_port())?;
    let load = |rate| args.load.load(Some(rate), args.duration);
    let limits = (args.start, args.bisections);
    let ramp = climb(&subject.name(), &mut harness, &mut running, limits, load)?;
    running.end()?;
    if let Some(folder) = &args.plot {
        super::plot::ramp(folder, &ramp)?;
    }
    match args.output {
        Output::Json => {
            let report = json!({"ramp": ramp, "load": args.load.json(), "machine": machine()});
            print(&report.to_string())?;
        }
        Output::Text => print(&text(&ramp, &machine(), Charset::of_environment()).join("\n"))?,
    }
    let lost: u64 = ramp.steps.iter().map(|step| step.run.lost + step.run.duplicates).sum();
    let is_exact = ramp.steps.iter().all(|step| step.run.cons1_holds != Some(false));
    if lost > 0 || !is_exact {
        message("tapio: accepted records were lost or duplicated, or CONS-1 doesn't hold");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn text(ramp: &Ramp, machine: &Json, charset: Charset) -> Vec<String> {
    let knee = match ramp.knee {
        Some(knee) => format!("{} records/s", grouped(knee)),
        None => "below the first rate".into(),
    };
    let mut lines = vec![
        format!("{}: knee at {knee} (p99 idle {} ms)", ramp.pipeline, ms(ramp.idle_p99_ns as f64)),
        String::new(),
    ];
    let top = ramp.steps.iter().map(|step| step.run.records_per_second).fold(0.0, f64::max);
    let titles =
        ["rate", "arrived/s", "", "p50 ms", "p99 ms", "refused", "late", "CPU s/M", "keeps up"];
    let mut table = Table::new(titles);
    for Step { rate, keeps_up, run } in &ramp.steps {
        table.row([
            grouped(*rate),
            grouped(run.records_per_second as u64),
            charset.bar(run.records_per_second, top),
            ms(run.latency_ns.p50 as f64),
            ms(run.latency_ns.p99 as f64),
            grouped(run.sent.refused),
            grouped(run.sent.unsent + run.sent.unanswered),
            short(run.cpu_seconds_per_million.pipeline),
            if *keeps_up { "yes" } else { "no" }.into(),
        ]);
    }
    lines.extend(table.lines());
    lines.extend([String::new(), machine_line(machine)]);
    lines
}

#[cfg(test)]
mod tests {
    use super::super::climb::tests::run_at;
    use super::*;

    #[test]
    fn text_has_a_line_for_each_rate() {
        let step =
            |rate: u64, p99_ms, keeps_up| Step { rate, keeps_up, run: run_at(rate as f64, p99_ms) };
        let ramp = Ramp {
            pipeline: "tapio".into(),
            knee: Some(2_000),
            idle_p99_ns: 1_000_000,
            steps: vec![step(1_000, 1, true), step(2_000, 9, true), step(4_000, 99, false)],
        };
        let lines = text(&ramp, &json!({"cores": 2}), Charset::Ascii);
        assert_eq!(lines[0], "tapio: knee at 2,000 records/s (p99 idle 1.00 ms)");
        assert_eq!(lines.len(), 8, "{lines:#?}");
        assert!(lines[4].contains("9.00") && lines[5].trim_end().ends_with("no"), "{lines:#?}");
    }
}
