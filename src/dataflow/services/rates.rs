//! How many spans and log records there are, and which part of them is learned from.

use std::sync::Arc;

use super::fact::{LogFact, ServiceFact, SpanFact};
use super::span_join::HOLD_NS;
use crate::sampling::Sampling;

const SECOND_NS: u64 = 1_000_000_000;
/// Log records without a trace that are learned from, a second.
const LOGS_PER_SECOND: f64 = 8_192.0;
/// Below this part of them, more are taken.
const LOW_SHARE: f64 = 0.25;

/// The rates of a second, and what follows from them.
#[derive(Default)]
pub(super) struct Rates {
    pub(super) sampling: Arc<Sampling>,
    /// Spans, also those that aren't learned from.
    spans: u64,
    /// Log records without a trace that are learned from.
    logs: u64,
    rated_ns: u64,
}

impl Rates {
    /// Whether a fact is learned from: of spans and log records, a part is at high rates.
    pub(super) fn takes(&mut self, fact: &ServiceFact) -> bool {
        match fact {
            ServiceFact::Span(SpanFact { trace, .. }) => {
                self.spans += 1;
                *trace == 0 || self.sampling.takes_trace(*trace)
            }
            ServiceFact::Log(LogFact { trace: 0, time_ns, .. }) => {
                let is_taken = self.sampling.takes_log(*time_ns);
                self.logs += u64::from(is_taken);
                is_taken
            }
            ServiceFact::Log(LogFact { trace, .. }) => self.sampling.takes_trace(*trace),
            _ => true,
        }
    }

    /// Adapts both parts, once a second. The spans that await their callees may take half of their
    /// room, which is `max_waiting`.
    pub(super) fn adapt(&mut self, now_ns: u64, max_waiting: usize) {
        let elapsed_ns = now_ns.saturating_sub(self.rated_ns);
        if elapsed_ns < SECOND_NS {
            return;
        }
        let waiting = self.spans as f64 * (HOLD_NS + SECOND_NS) as f64 / elapsed_ns as f64;
        let times = 2.0 * waiting / max_waiting.max(1) as f64;
        self.sampling.set_traces(times.max(1.0).log2().ceil() as u32);
        // Of log records, collectors leave out most that aren't taken.
        let taken = self.logs as f64 * SECOND_NS as f64 / elapsed_ns as f64 / LOGS_PER_SECOND;
        let level = self.sampling.log_level();
        if taken > 1.0 {
            self.sampling.set_logs((level + taken.log2().ceil() as u32).min(63));
        } else if taken < LOW_SHARE {
            self.sampling.set_logs(level.saturating_sub(1));
        }
        (self.rated_ns, self.spans, self.logs) = (now_ns, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{EventId, Severity};

    fn log(time_ns: u64) -> ServiceFact {
        ServiceFact::Log(LogFact {
            event: EventId([1; 16]),
            time_ns,
            instance: 1,
            template: 2,
            span: 0,
            trace: 0,
            severity: Severity::INFO,
        })
    }

    /// Seconds with so many log records each; returns how many of the last second are taken.
    fn second(rates: &mut Rates, seconds: std::ops::Range<u64>, logs: u64) -> u64 {
        let mut taken = 0;
        for second in seconds {
            let time_ns = |n: u64| second * SECOND_NS + n * (SECOND_NS / logs);
            taken = (0..logs).map(|n| u64::from(rates.takes(&log(time_ns(n))))).sum();
            rates.adapt((second + 1) * SECOND_NS, 1000);
        }
        taken
    }

    #[test]
    fn part_of_log_records_follows_their_rate() {
        let mut rates = Rates::default();
        assert_eq!(second(&mut rates, 1..4, 8_000), 8_000, "all at an ordinary rate");
        let taken = second(&mut rates, 4..8, 500_000);
        assert!((3_000..=9_000).contains(&taken), "{taken}");
        assert_eq!(second(&mut rates, 8..20, 1_000), 1_000, "all again");
    }
}
