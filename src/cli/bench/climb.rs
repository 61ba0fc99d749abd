//! Raising the rate on a pipeline until it can't keep up.

use std::time::Duration;

use serde::Serialize;

use super::harness::Harness;
use super::session::{Run, measure};
use super::subject::Running;
use crate::load::otlp::OtlpLoad;

/// The rate at which the delay of an idle pipeline is measured.
const IDLE_RATE: u64 = 1_000;
/// The 99th percentile beyond this multiple of the idle one is beyond the knee.
const KNEE_FACTOR: u64 = 10;
/// A run that gets behind by more than this share of its records doesn't keep up, whatever its
/// delays.
const MAX_BEHIND: f64 = 0.05;
/// How long a run beyond the knee may go on sending.
const DRAIN: Duration = Duration::from_secs(5);
/// The end of the doubling: beyond what a generator on one core sends.
const MAX_RATE: u64 = 1 << 26;

/// A rate that was tried.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    /// Records per second.
    pub(super) rate: u64,
    /// Whether the pipeline kept up.
    pub(super) keeps_up: bool,
    #[serde(flatten)]
    pub(super) run: Run,
}

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct Ramp {
    pub(super) pipeline: String,
    /// The highest rate with which the pipeline kept up; `None`: not even with the first one.
    pub(super) knee: Option<u64>,
    /// The 99th percentile of an idle pipeline's delay.
    pub(super) idle_p99_ns: u64,
    /// In ascending order of the rate.
    pub(super) steps: Vec<Step>,
}

/// The yardstick for a run.
#[derive(Clone, Copy)]
struct Idle {
    p99_ns: u64,
    /// Records of a request.
    batch_records: u64,
}

impl Idle {
    /// Whether a run of this duration is below the knee.
    fn is_kept_up_with(self, rate: u64, duration: Duration, run: &Run) -> bool {
        let (rate, seconds) = (rate as f64, duration.as_secs_f64());
        // The records on their way at the end may be more than at the start by a delay and a
        // request without being a backlog.
        let on_their_way = rate * self.p99_ns as f64 / 1e9 + 2.0 * self.batch_records as f64;
        let behind = (rate - run.records_per_second) * seconds - on_their_way;
        run.sent.refused == 0
            && run.sent.unsent + run.sent.unanswered == 0
            && run.sent.failures.is_empty()
            && behind <= MAX_BEHIND * rate * seconds
            && run.latency_ns.p99 <= KNEE_FACTOR * self.p99_ns
    }
}

/// Finds the rates to try: doubles, then bisects.
struct Search {
    below: Option<u64>,
    beyond: Option<u64>,
    bisections: u32,
}

impl Search {
    /// The next rate; `None`: the knee is found.
    fn next(&mut self, start: u64) -> Option<u64> {
        match (self.below, self.beyond) {
            (None, None) => Some(start),
            // Below the first rate nothing is searched.
            (None, Some(_)) => None,
            (Some(below), None) => (below < MAX_RATE).then_some(below * 2),
            (Some(below), Some(beyond)) => {
                self.bisections = self.bisections.checked_sub(1)?;
                let middle = below.midpoint(beyond);
                (middle > below).then_some(middle)
            }
        }
    }

    fn note(&mut self, rate: u64, keeps_up: bool) {
        if keeps_up {
            self.below = Some(rate);
        } else {
            self.beyond = Some(rate);
        }
    }
}

/// Raises the rate on a pipeline that runs. `load` makes the load of a rate.
pub(super) fn climb(
    name: &str,
    harness: &mut Harness,
    running: &mut Running,
    (start, bisections): (u64, u32),
    load: impl Fn(u64) -> OtlpLoad,
) -> anyhow::Result<Ramp> {
    let load = |rate| OtlpLoad { drain: DRAIN, retries: false, ..load(rate) };
    let of_idle = load(IDLE_RATE);
    let run = measure(harness, running, &of_idle)?;
    let idle = Idle { p99_ns: run.latency_ns.p99, batch_records: of_idle.batch_records as u64 };
    let mut steps = vec![Step { rate: IDLE_RATE, keeps_up: true, run }];
    let mut search = Search { below: None, beyond: None, bisections };
    while let Some(rate) = search.next(start) {
        let of_rate = load(rate);
        let run = measure(harness, running, &of_rate)?;
        let keeps_up = idle.is_kept_up_with(rate, of_rate.duration, &run);
        search.note(rate, keeps_up);
        steps.push(Step { rate, keeps_up, run });
    }
    steps.sort_by_key(|step| step.rate);
    Ok(Ramp { pipeline: name.to_owned(), knee: search.below, idle_p99_ns: idle.p99_ns, steps })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::otlp::{Latency, Sent};

    fn tried(knee: u64, bisections: u32) -> (Vec<u64>, Option<u64>) {
        let mut search = Search { below: None, beyond: None, bisections };
        let mut rates = Vec::new();
        while let Some(rate) = search.next(10) {
            search.note(rate, rate <= knee);
            rates.push(rate);
        }
        (rates, search.below)
    }

    #[test]
    fn rate_is_doubled_and_then_bisected() {
        assert_eq!(tried(55, 3), (vec![10, 20, 40, 80, 60, 50, 55], Some(55)));
        assert_eq!(tried(9, 3), (vec![10], None));
        assert_eq!(tried(10, 0), (vec![10, 20], Some(10)));
        // Bisection ends when no rate is left between.
        assert_eq!(tried(11, 99), (vec![10, 20, 15, 12, 11], Some(11)));
        assert!(tried(u64::MAX, 3).1.is_some_and(|rate| rate >= MAX_RATE));
    }

    /// A run at which all records arrive.
    pub(in super::super) fn run_at(rate: f64, p99_ms: u64) -> Run {
        let p99 = p99_ms * 1_000_000;
        let latency_ns = Latency { p50: p99 / 2, p90: p99 / 2, p99, p999: p99 * 2, max: p99 * 3 };
        Run { records_per_second: rate, latency_ns, ..Run::default() }
    }

    #[test]
    fn run_beyond_the_knee_is_late_or_refused_or_behind() {
        let idle = Idle { p99_ns: 1_000_000, batch_records: 50 };
        let keeps_up = |run: &Run| idle.is_kept_up_with(1_000, Duration::from_secs(2), run);
        let fine = run_at(1_000.0, 10);
        assert!(keeps_up(&fine));
        assert!(!keeps_up(&run_at(1_000.0, 11)), "late");
        // 101 records on their way, and 100 of 2,000 behind.
        assert!(keeps_up(&run_at(900.0, 10)));
        assert!(!keeps_up(&run_at(899.0, 10)), "behind");
        let none = Sent::default();
        for sent in [
            Sent { refused: 1, ..none.clone() },
            Sent { unsent: 1, ..none.clone() },
            Sent { unanswered: 1, ..none.clone() },
        ] {
            assert!(!keeps_up(&Run { sent, ..fine.clone() }));
        }
    }
}
