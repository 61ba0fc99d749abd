//! `tapio bench spool`: the pipeline with a spool and without, in turn in one run, so that both
//! sides have the same machine.

use std::process::ExitCode;

use serde_json::{Value as Json, json};

use super::super::output::Outcome;
use super::stats::median_at as median;
use super::{Pipeline, Spooling, is_complete, measure, print_report};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: Pipeline,
    /// Runs of each side
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

pub(super) fn run(args: &Args) -> Outcome {
    let (mut on, mut off) = (Vec::new(), Vec::new());
    let mut is_valid = true;
    for _ in 0..args.runs.max(1) {
        for (spooling, reports) in [(Spooling::On, &mut on), (Spooling::Off, &mut off)] {
            let report = measure(&args.pipeline, spooling)?;
            is_valid &= is_complete(&report);
            reports.push(report);
        }
    }
    let cpu = |reports: &[Json]| median(reports, "/cpu_seconds/agent");
    let report = json!({
        "runs": args.runs.max(1),
        "events_per_second": median(&on, "/events_per_second"),
        "with_spool": side(&on),
        "without_spool": side(&off),
        "agent_cpu_ratio": cpu(&on) / cpu(&off).max(1e-9),
        "machine": on[0]["machine"],
    });
    print_report(&report, args.pipeline.output)?;
    Ok(if is_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The medians of one side, and each run.
fn side(reports: &[Json]) -> Json {
    let runs = |path| reports.iter().map(|r| r.pointer(path)).collect::<Vec<_>>();
    json!({
        "agent_cpu_seconds": median(reports, "/cpu_seconds/agent"),
        "latency_p50_ns": median(reports, "/latency_ns/p50"),
        "latency_p99_ns": median(reports, "/latency_ns/p99"),
        "agent_peak_rss_bytes": median(reports, "/peak_rss_bytes/agent"),
        "runs": {
            "agent_cpu_seconds": runs("/cpu_seconds/agent"),
            "latency_p99_ns": runs("/latency_ns/p99"),
        },
    })
}
