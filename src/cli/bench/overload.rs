//! `tapio bench overload`: twice the rate of the knee. What doesn't fit has to be refused and
//! counted, within the memory limit, and the pipeline has to recover.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::super::arguments::duration;
use super::super::output::{Outcome, Output, message, print};
use super::climb::climb;
use super::harness::Harness;
use super::machine;
use super::otlp::LoadArgs;
use super::report::machine_line;
use super::session::{Run, Scratch, measure};
use super::subject::{Running, Subject};
use super::table::{Charset, Table, grouped, mib, ms, short};
use crate::load::otlp::OtlpLoad;
use tapio_core::clock;

/// First rate of the search for the knee, and its bisections: the overload needn't be exact.
const SEARCH: (u64, u32) = (10_000, 3);
/// The measured time of a rate in that search.
const SEARCH_DURATION: Duration = Duration::from_secs(2);
/// Multiple of the knee's rate that is sent.
const FACTOR: u64 = 2;
/// Time of a run that shows whether the pipeline has recovered, and the number of them at most.
const PROBE: Duration = Duration::from_millis(500);
const MAX_PROBES: usize = 60;
/// A pipeline has recovered once the 99th percentile is within this multiple of the one before.
const RECOVERED_FACTOR: u64 = 2;
/// How long requests that are behind their schedule are sent after the overload.
const OVERLOAD_DRAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The knee in records per second, as `bench ramp` reports it; searched first if missing
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    knee: Option<u64>,
    /// The agent's memory limit in MiB; the overload must not exceed it
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(64..))]
    memory_limit_mib: u64,
    /// How long the overload lasts
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    #[command(flatten)]
    load: LoadArgs,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The result.
#[derive(Debug, Serialize)]
struct Overload {
    knee: u64,
    rate: u64,
    /// At half the knee's rate, before.
    before: Run,
    overload: Run,
    memory_limit_bytes: u64,
    /// From the end of the overload until delays at half the knee's rate were as before; `None`:
    /// not within the time.
    recovery_seconds: Option<f64>,
    /// The last run at half the knee's rate.
    after: Run,
}

impl Overload {
    fn is_complete(&self) -> bool {
        let runs = [&self.before, &self.overload, &self.after];
        let is_exact =
            |run: &&Run| run.lost == 0 && run.duplicates == 0 && run.cons1_holds != Some(false);
        let is_bounded = self.overload.peak_rss_bytes <= self.memory_limit_bytes;
        runs.iter().all(is_exact) && is_bounded && self.recovery_seconds.is_some()
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    args.load.check()?;
    let scratch = Scratch::new()?;
    let mut harness = Harness::start()?;
    let memory_limit_bytes = Some(args.memory_limit_mib << 20);
    let subject = Subject::Tapio { rules: args.load.rules, memory_limit_bytes };
    let mut running = subject.start(scratch.path(), harness.sink_port())?;
    let overload = overload(args, &mut harness, &mut running)?;
    running.end()?;
    match args.output {
        Output::Json => {
            let report =
                json!({"overload": overload, "load": args.load.json(), "machine": machine()});
            print(&report.to_string())?;
        }
        Output::Text => print(&text(&overload, &machine(), Charset::of_environment()).join("\n"))?,
    }
    let is_complete = overload.is_complete();
    if !is_complete {
        message(
            "tapio: accepted records were lost or duplicated, CONS-1 doesn't hold, memory exceeds \
             its limit, or the pipeline doesn't recover",
        );
    }
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn overload(args: &Args, harness: &mut Harness, running: &mut Running) -> anyhow::Result<Overload> {
    let knee = match args.knee {
        Some(knee) => knee,
        None => {
            let load = |rate| args.load.load(Some(rate), SEARCH_DURATION);
            let ramp = climb("tapio", harness, running, SEARCH, load)?;
            ramp.knee.unwrap_or(SEARCH.0)
        }
    };
    // Refused requests aren't sent again: the share that is refused is measured.
    let refusing = |rate, duration, drain| OtlpLoad {
        drain,
        retries: false,
        ..args.load.load(Some(rate), duration)
    };
    let half = (knee / 2).max(1);
    let before = measure(harness, running, &args.load.load(Some(half), args.duration))?;
    let load = refusing(FACTOR * knee, args.duration, OVERLOAD_DRAIN);
    let times_over_ns =
        |load: &OtlpLoad| clock::wall_ns() + (load.warm_up + load.duration).as_nanos() as u64;
    let over_ns = times_over_ns(&load);
    let overload = measure(harness, running, &load)?;
    let mut recovery_seconds = None;
    let probe = OtlpLoad { warm_up: Duration::ZERO, ..args.load.load(Some(half), PROBE) };
    let mut after = Run::default();
    for _ in 0..MAX_PROBES {
        let began_ns = clock::wall_ns();
        after = measure(harness, running, &probe)?;
        if after.latency_ns.p99 <= RECOVERED_FACTOR * before.latency_ns.p99 {
            recovery_seconds = Some(began_ns.saturating_sub(over_ns) as f64 / 1e9);
            break;
        }
    }
    let memory_limit_bytes = args.memory_limit_mib << 20;
    let rate = FACTOR * knee;
    Ok(Overload { knee, rate, before, overload, memory_limit_bytes, recovery_seconds, after })
}

fn text(report: &Overload, machine: &Json, charset: Charset) -> Vec<String> {
    let title = format!(
        "overload: {} records/s, {FACTOR} times the knee of {}",
        grouped(report.rate),
        grouped(report.knee)
    );
    let mut lines = vec![title, String::new()];
    let titles = [
        "",
        "arrived/s",
        "",
        "p50 ms",
        "p99 ms",
        "accepted",
        "refused",
        "unanswered",
        "unsent",
        "lost",
    ];
    let mut table = Table::new(titles);
    let runs =
        [("before", &report.before), ("overload", &report.overload), ("after", &report.after)];
    let top = runs.iter().map(|(_, run)| run.records_per_second).fold(0.0, f64::max);
    for (name, run) in runs {
        table.row([
            name.into(),
            grouped(run.records_per_second as u64),
            charset.bar(run.records_per_second, top),
            ms(run.latency_ns.p50 as f64),
            ms(run.latency_ns.p99 as f64),
            grouped(run.sent.accepted),
            grouped(run.sent.refused),
            grouped(run.sent.unanswered),
            grouped(run.sent.unsent),
            grouped(run.lost),
        ]);
    }
    lines.extend(table.lines());
    lines.push(String::new());
    lines.extend(
        report
            .overload
            .sent
            .failures
            .iter()
            .map(|(cause, requests)| format!("refused {} requests: {cause}", grouped(*requests))),
    );
    if report.overload.sent.failures.is_empty() {
        // Flow control: the receiver answers later, and the sender's backlog grows.
        lines.push("no request was refused: senders wait for their answers".into());
    }
    let limit = mib(report.memory_limit_bytes as f64);
    let peak = mib(report.overload.peak_rss_bytes as f64);
    lines.push(format!("peak memory {peak} MiB, limit {limit} MiB"));
    lines.push(match report.recovery_seconds {
        Some(seconds) => format!("recovered {} s after the overload", short(seconds)),
        None => "not recovered".into(),
    });
    lines.push(machine_line(machine));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::climb::tests::run_at;
    use super::*;
    use crate::load::otlp::Sent;

    fn report() -> Overload {
        let refused = Sent {
            refused: 500,
            failures: [("ResourceExhausted: full".to_owned(), 1)].into(),
            ..Sent::default()
        };
        Overload {
            knee: 1_000,
            rate: 2_000,
            before: run_at(500.0, 1),
            overload: Run { sent: refused, peak_rss_bytes: 50 << 20, ..run_at(1_000.0, 900) },
            memory_limit_bytes: 100 << 20,
            recovery_seconds: Some(1.5),
            after: run_at(500.0, 2),
        }
    }

    #[test]
    fn overload_is_complete_within_memory_once_it_has_recovered() {
        assert!(report().is_complete(), "refusals are no losses");
        assert!(!Overload { recovery_seconds: None, ..report() }.is_complete());
        assert!(!Overload { memory_limit_bytes: 49 << 20, ..report() }.is_complete());
        let lossy = Run { lost: 1, ..report().overload };
        assert!(!Overload { overload: lossy, ..report() }.is_complete());
    }

    #[test]
    fn text_has_the_causes_of_refusals() {
        let lines = text(&report(), &json!({"cores": 2}), Charset::Ascii);
        let has = |line: &str| lines.iter().any(|l| l == line);
        assert!(has("refused 1 requests: ResourceExhausted: full"), "{lines:#?}");
        let waiting = Run { sent: Sent::default(), ..report().overload };
        let text_of_waiting =
            text(&Overload { overload: waiting, ..report() }, &json!({"cores": 2}), Charset::Ascii);
        let is_waiting = |lines: &[String]| lines.iter().any(|l| l.starts_with("no request was"));
        assert!(is_waiting(&text_of_waiting) && !is_waiting(&lines), "{lines:#?}");
        assert!(has("peak memory 50 MiB, limit 100 MiB"), "{lines:#?}");
        assert!(has("recovered 1.50 s after the overload"), "{lines:#?}");
    }
}
