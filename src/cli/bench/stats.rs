//! Medians over the runs of a benchmark.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value as Json;

use super::session::{CpuPerMillion, Run};
use crate::load::otlp::Latency;

/// The median of a number in reports, the lower one of two.
pub(super) fn median_at(reports: &[Json], path: &str) -> f64 {
    let values = reports.iter().filter_map(|report| report.pointer(path)?.as_f64());
    median(values)
}

/// The median, the lower one of two; 0 of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// The runs of one pipeline at one rate: medians, and sums of what must not happen.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) records_per_second: f64,
    /// The rate as a share of the direct one, flat out; a median of the runs' ratios.
    pub(super) r: f64,
    /// The pipeline's CPU time per record as a multiple of generator's and sink's without it.
    pub(super) c: f64,
    pub(super) cpu_seconds_per_million: CpuPerMillion,
    pub(super) latency_ns: Latency,
    pub(super) peak_rss_bytes: u64,
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    pub(super) refused: u64,
    /// Records that weren't sent or answered within the time.
    pub(super) late: u64,
    /// Whether CONS-1 holds after each run.
    pub(super) cons1_holds: Option<bool>,
    pub(super) runs: Vec<Run>,
}

impl Summary {
    /// The summary of runs. `flat_out` are the direct runs without a rate, `beside` the direct runs
    /// at the rate of these runs: the yardsticks of R and C, run by run.
    pub(super) fn new(name: String, runs: Vec<Run>, flat_out: &[Run], beside: &[Run]) -> Self {
        let middle = |value: &dyn Fn(&Run) -> f64| median(runs.iter().map(value));
        let middle_ns = |value: &dyn Fn(&Latency) -> u64| {
            median(runs.iter().map(|run| value(&run.latency_ns) as f64)) as u64
        };
        let ratios = |yardstick: &[Run], ratio: &dyn Fn(&Run, &Run) -> f64| {
            median(runs.iter().zip(yardstick).map(|(run, of)| ratio(run, of)))
        };
        let names: BTreeSet<&String> =
            runs.iter().flat_map(|run| run.cpu_seconds_per_million.threads.keys()).collect();
        let of_thread = |name: &String| {
            middle(&|run| run.cpu_seconds_per_million.threads.get(name).copied().unwrap_or(0.0))
        };
        let threads: BTreeMap<String, f64> =
            names.into_iter().map(|name| (name.clone(), of_thread(name))).collect();
        let cons1: Vec<bool> = runs.iter().filter_map(|run| run.cons1_holds).collect();
        Self {
            records_per_second: middle(&|run| run.records_per_second),
            r: ratios(flat_out, &|run, of| {
                run.records_per_second / of.records_per_second.max(1e-9)
            }),
            c: ratios(beside, &|run, of| {
                run.cpu_seconds_per_million.pipeline / ends_cost(of).max(1e-12)
            }),
            cpu_seconds_per_million: CpuPerMillion {
                generator: middle(&|run| run.cpu_seconds_per_million.generator),
                sink: middle(&|run| run.cpu_seconds_per_million.sink),
                pipeline: middle(&|run| run.cpu_seconds_per_million.pipeline),
                threads,
            },
            latency_ns: Latency {
                p50: middle_ns(&|latency| latency.p50),
                p90: middle_ns(&|latency| latency.p90),
                p99: middle_ns(&|latency| latency.p99),
                p999: middle_ns(&|latency| latency.p999),
                max: middle_ns(&|latency| latency.max),
            },
            peak_rss_bytes: middle(&|run| run.peak_rss_bytes as f64) as u64,
            lost: runs.iter().map(|run| run.lost).sum(),
            duplicates: runs.iter().map(|run| run.duplicates).sum(),
            refused: runs.iter().map(|run| run.sent.refused).sum(),
            late: runs.iter().map(|run| run.sent.unsent + run.sent.unanswered).sum(),
            cons1_holds: (!cons1.is_empty()).then(|| cons1.iter().all(|holds| *holds)),
            name,
            runs,
        }
    }

    /// Whether nothing was lost or duplicated and the account is exact.
    pub(super) fn is_complete(&self) -> bool {
        self.lost == 0 && self.duplicates == 0 && self.cons1_holds != Some(false)
    }
}

/// The cost of generator and sink together.
fn ends_cost(run: &Run) -> f64 {
    run.cpu_seconds_per_million.generator + run.cpu_seconds_per_million.sink
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn median_is_the_middle_value() {
        let reports: Vec<Json> = [5.0, 1.0, 9.0].map(|n| json!({"a": {"b": n}})).to_vec();
        assert_eq!(median_at(&reports, "/a/b"), 5.0);
        assert_eq!(median_at(&reports[..2], "/a/b"), 1.0);
        assert_eq!(median_at(&reports, "/missing"), 0.0);
    }

    fn run(rate: f64, pipeline: f64, ends: f64) -> Run {
        let threads = BTreeMap::from([("shard".to_owned(), pipeline / 2.0)]);
        Run {
            records_per_second: rate,
            cpu_seconds_per_million: CpuPerMillion {
                generator: ends / 4.0,
                sink: ends * 3.0 / 4.0,
                pipeline,
                threads,
            },
            lost: 1,
            cons1_holds: Some(true),
            ..Run::default()
        }
    }

    #[test]
    fn ratios_are_to_the_direct_run_beside() {
        let direct = [run(4e6, 0.0, 0.2), run(2e6, 0.0, 0.4), run(4e6, 0.0, 0.2)];
        let runs = vec![run(1e6, 2.0, 0.3), run(5e5, 4.0, 0.3), run(2e6, 1.0, 0.3)];
        let summary = Summary::new("tapio".into(), runs, &direct, &direct);
        // 1/4, 1/4 and 1/2; 10, 10 and 5.
        assert_eq!((summary.r, summary.c), (0.25, 10.0));
        assert_eq!(summary.records_per_second, 1e6);
        assert_eq!(summary.cpu_seconds_per_million.threads["shard"], 1.0);
        assert_eq!((summary.lost, summary.cons1_holds), (3, Some(true)));
        assert!(!summary.is_complete());
    }
}
