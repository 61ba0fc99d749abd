//! The account of a run: which records were offered, accepted and have arrived, and their delays.

use std::ops::Range;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::bitmap::Bitmap;
use super::template::SEQUENCE_BASE;

/// Bounds of a delay in the histogram, in nanoseconds; a longer one counts as the upper bound.
const SHORTEST_NS: u64 = 1_000;
const LONGEST_NS: u64 = 600_000_000_000;
/// Significant digits of a delay.
const DIGITS: u8 = 3;

/// Percentiles of delays, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// The state of a run at a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// When these counts were read, nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// Records that have arrived, duplicates included.
    pub arrived: u64,
    /// Distinct records that have arrived.
    pub unique: u64,
    /// Records of accepted requests that haven't arrived.
    pub missing: u64,
    /// Records that the generator didn't send, such as the log records of stories.
    pub foreign: u64,
    /// Requests that can't be decoded.
    pub malformed: u64,
    /// Requests that have arrived.
    pub requests: u64,
    /// Records in the histogram: those that were due in the measured time.
    pub measured: u64,
    /// Their delays.
    pub latency: Latency,
}

/// The number of records that have arrived by a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The moment, nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// Distinct records that have arrived.
    pub unique: u64,
}

/// The account of arrivals.
pub(super) struct Arrivals {
    seen: Bitmap,
    arrived: u64,
    unique: u64,
    foreign: u64,
    malformed: u64,
    requests: u64,
    /// Sequence numbers below this may arrive.
    offered: u64,
    /// The measured time: records that are due in it are in the histogram.
    window: Range<u64>,
    delays: Histogram<u64>,
}

impl Arrivals {
    pub(super) fn new(window: Range<u64>) -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            seen: Bitmap::default(),
            arrived: 0,
            unique: 0,
            foreign: 0,
            malformed: 0,
            requests: 0,
            offered: 0,
            window,
            delays: Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, DIGITS)?,
        })
    }

    /// Notes that records up to this sequence number are on their way. A record beyond is foreign:
    /// it must not make the bitmap grow.
    pub(super) fn offer(&mut self, end: u64) {
        self.offered = self.offered.max(end);
    }

    /// Distinct records that have arrived.
    pub(super) fn unique(&self) -> u64 {
        self.unique
    }

    /// Counts a request that arrives at `now_ns` (wall clock).
    pub(super) fn arrive(&mut self, request: &[u8], now_ns: u64) {
        self.requests += 1;
        // Records of one request are due at few times.
        let (mut due, mut records) = (0, 0);
        let mut delays = Vec::new();
        let decoded = for_each_record(request, |time_ns, observed_ns| {
            let sequence = observed_ns.wrapping_sub(SEQUENCE_BASE);
            if sequence >= self.offered {
                self.foreign += 1;
                return;
            }
            self.arrived += 1;
            if !self.seen.insert(sequence) {
                return;
            }
            self.unique += 1;
            if time_ns != due {
                delays.push((due, records));
                (due, records) = (time_ns, 0);
            }
            records += 1;
        });
        if decoded.is_none() {
            self.malformed += 1;
        }
        delays.push((due, records));
        for (due, records) in delays {
            self.record(due, now_ns, records);
        }
    }

    /// Records the delay of records that were due at a time, if that is in the measured time. Those
    /// that can't be sent any more are recorded at the end: their delay isn't shorter than that.
    pub(super) fn record(&mut self, due_ns: u64, now_ns: u64, records: u64) {
        if records > 0 && self.window.contains(&due_ns) {
            self.delays.saturating_record_n(now_ns.saturating_sub(due_ns), records);
        }
    }

    /// The counts. `accepted` are the ranges of the records that were accepted.
    pub(super) fn counts(&self, at_ns: u64, accepted: impl Iterator<Item = Range<u64>>) -> Counts {
        let missing = |range: Range<u64>| range.end - range.start - self.seen.count_in(range);
        Counts {
            at_ns,
            arrived: self.arrived,
            unique: self.unique,
            missing: accepted.map(missing).sum(),
            foreign: self.foreign,
            malformed: self.malformed,
            requests: self.requests,
            measured: self.delays.len(),
            latency: self.latency(),
        }
    }

    fn latency(&self) -> Latency {
        let at = |quantile| self.delays.value_at_quantile(quantile);
        Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.delays.max(),
        }
    }
}

/// Passes time and observed time of each log record of a request to `visit`. `None`: the bytes
/// aren't an `ExportLogsServiceRequest`; some records may have been visited.
fn for_each_record(request: &[u8], mut visit: impl FnMut(u64, u64)) -> Option<()> {
    // resource_logs, scope_logs, log_records; their field numbers are in logs/v1/logs.proto.
    for_each_field(request, |number, resource| {
        if number != 1 {
            return Some(());
        }
        for_each_field(resource, |number, scope| {
            if number != 2 {
                return Some(());
            }
            for_each_field(scope, |number, record| {
                if number == 2 {
                    let (time_ns, observed_ns) = times(record)?;
                    visit(time_ns, observed_ns);
                }
                Some(())
            })
        })
    })
}

/// `time_unix_nano` and `observed_time_unix_nano` of a log record.
fn times(record: &[u8]) -> Option<(u64, u64)> {
    let (mut time_ns, mut observed_ns) = (0, 0);
    for_each_field(record, |number, value| {
        match number {
            1 => time_ns = u64::from_le_bytes(value.try_into().ok()?),
            11 => observed_ns = u64::from_le_bytes(value.try_into().ok()?),
            _ => {}
        }
        Some(())
    })?;
    Some((time_ns, observed_ns))
}

/// Passes number and bytes of each field with bytes of its own (length-delimited and fixed64) to
/// `visit`.
fn for_each_field<'a>(
    mut bytes: &'a [u8],
    mut visit: impl FnMut(u64, &'a [u8]) -> Option<()>,
) -> Option<()> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let len = match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        if tag & 7 != 5 {
            visit(tag >> 3, value)?;
        }
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::template::{Template, TemplateConfig, templates};
    use super::*;

    fn template() -> Template {
        templates(&TemplateConfig { records: 100, match_share: 0.0, keys: 1 }).remove(0)
    }

    fn request(template: &Template, due_ns: u64, sequence: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        template.write(due_ns, sequence, &mut bytes);
        bytes
    }

    #[test]
    fn lost_and_duplicate_records_are_counted_exactly() {
        let template = template();
        let mut arrivals = Arrivals::new(0..u64::MAX).unwrap();
        arrivals.offer(400);
        for sequence in [0, 100, 100, 300] {
            arrivals.arrive(&request(&template, 1_000, sequence), 2_000);
        }
        // Beyond what was offered.
        arrivals.arrive(&request(&template, 1_000, 1_000_000), 2_000);
        arrivals.arrive(&request(&template, 1_000, 0)[..777], 2_000);
        let counts = arrivals.counts(9, [0..200, 200..400].into_iter());
        assert_eq!((counts.arrived, counts.unique, counts.missing), (400, 300, 100));
        assert_eq!((counts.foreign, counts.malformed, counts.requests), (100, 1, 6));
        // Those of a request that wasn't accepted aren't missing.
        assert_eq!(arrivals.counts(9, [0..200, 300..400].into_iter()).missing, 0);
    }

    #[test]
    fn percentiles_are_those_of_the_records_due_in_the_measured_time() {
        let template = template();
        let mut arrivals = Arrivals::new(10_000_000..20_000_000).unwrap();
        arrivals.offer(100_000);
        for i in 0..100 {
            // Delays of 1 to 100 ms.
            arrivals
                .arrive(&request(&template, 10_000_000, 100 * i), 10_000_000 + (i + 1) * 1_000_000);
        }
        // Before and after the measured time.
        arrivals.arrive(&request(&template, 9_999_999, 20_000), 9_000_000_000);
        arrivals.arrive(&request(&template, 20_000_000, 20_100), 9_000_000_000);
        let counts = arrivals.counts(0, std::iter::empty());
        assert_eq!((counts.measured, counts.unique), (10_000, 10_200));
        let near = |ns: u64, ms: u64| ns.abs_diff(ms * 1_000_000) <= ms * 1_000;
        let Latency { p50, p90, p99, p999, max } = counts.latency;
        assert!(near(p50, 50) && near(p90, 90) && near(p99, 99), "{counts:?}");
        assert!(near(p999, 100) && near(max, 100), "{counts:?}");
        // Never sent: it counts with the time that it has waited.
        arrivals.record(10_000_000, 5_010_000_000, 200);
        assert!(near(arrivals.counts(0, std::iter::empty()).latency.p99, 5_000));
    }
}
