//! The series of metrics: each cumulative point becomes what it adds to the point before; and the
//! parts of a point that an export needs.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value as Json, json};
use tapio_core::event::stable_hash;
use tapio_wire::{OtlpAttributes, OtlpMetricType, OtlpPoint};

/// Series of which the last point is kept; beyond it the series that began first is forgotten.
const MAX_SERIES: usize = 8_192;

/// The last point of a series.
struct Last {
    start_ns: u64,
    time_ns: u64,
    value: f64,
    count: u64,
    sum: f64,
    buckets: Vec<u64>,
}

/// The measurements since the point before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Interval {
    /// Increase of a monotonic sum.
    pub(crate) delta: Option<f64>,
    /// Measurements of a distribution.
    pub(crate) count: Option<u64>,
    /// Their sum.
    pub(crate) sum: Option<f64>,
    /// Quantiles 0.5, 0.9 and 0.99.
    pub(crate) quantiles: [Option<f64>; 3],
}

/// The quantiles of an interval.
pub(crate) const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// The last point of each series.
#[derive(Default)]
pub(crate) struct SeriesTable {
    last: HashMap<[u8; 16], Last, ahash::RandomState>,
    order: VecDeque<[u8; 16]>,
    /// Series forgotten for lack of room.
    pub(crate) forgotten: u64,
}

/// The identity of a point's series.
pub(crate) fn series(
    resource: &OtlpAttributes<'_>,
    scope: &str,
    point: &OtlpPoint<'_>,
) -> [u8; 16] {
    let list = &point.attributes.list;
    let mut attributes: Vec<String> =
        list.iter().map(|(key, value)| format!("{key}={}", value.json())).collect();
    attributes.sort_unstable();
    let attributes = attributes.join("\0");
    let name = point.name.as_bytes();
    stable_hash(&[b"series", resource.encoded, scope.as_bytes(), name, attributes.as_bytes()])
}

impl SeriesTable {
    /// The measurements that a point adds. Of a cumulative series, the first point adds nothing
    /// that is known; one after a restart of the series adds all it has.
    pub(crate) fn add(&mut self, series: [u8; 16], point: &OtlpPoint<'_>) -> Interval {
        if !point.is_cumulative {
            return interval(point, None);
        }
        let now = Last {
            start_ns: point.start_ns,
            time_ns: point.time_ns,
            value: point.value.unwrap_or(0.0),
            count: point.count,
            sum: point.sum.unwrap_or(0.0),
            buckets: point.buckets.iter().map(|(_, n)| *n).collect(),
        };
        match self.last.get_mut(&series) {
            // Sent again, or late.
            Some(last) if last.time_ns >= now.time_ns => Interval::default(),
            Some(last) => {
                let restarted = now.start_ns > last.start_ns
                    || now.count < last.count
                    || (point.is_monotonic && now.value < last.value)
                    || now.buckets.len() != last.buckets.len();
                let before = std::mem::replace(last, now);
                interval(point, (!restarted).then_some(&before))
            }
            None => {
                if self.order.len() >= MAX_SERIES
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.last.remove(&oldest);
                    self.forgotten += 1;
                }
                self.order.push_back(series);
                self.last.insert(series, now);
                Interval {
                    quantiles: QUANTILES.map(|q| given_quantile(point, q)),
                    ..Interval::default()
                }
            }
        }
    }
}

fn interval(point: &OtlpPoint<'_>, before: Option<&Last>) -> Interval {
    if point.metric_type == OtlpMetricType::Sum {
        let value = point.value.filter(|_| point.is_monotonic || !point.is_cumulative);
        let delta = value.map(|value| value - before.map_or(0.0, |last| last.value));
        return Interval { delta, ..Interval::default() };
    }
    if point.metric_type == OtlpMetricType::Gauge {
        return Interval::default();
    }
    let count = point.count - before.map_or(0, |last| last.count);
    let counts: Vec<(f64, u64)> = point
        .buckets
        .iter()
        .enumerate()
        .map(|(i, (bound, n))| {
            (*bound, n.saturating_sub(before.and_then(|l| l.buckets.get(i)).copied().unwrap_or(0)))
        })
        .collect();
    Interval {
        delta: None,
        count: Some(count),
        sum: point.sum.map(|sum| sum - before.map_or(0.0, |last| last.sum)),
        quantiles: QUANTILES.map(|q| quantile(&counts, q).or_else(|| given_quantile(point, q))),
    }
}

/// The quantile that a summary has itself.
fn given_quantile(point: &OtlpPoint<'_>, q: f64) -> Option<f64> {
    point.quantiles.iter().find(|(given, _)| (given - q).abs() < 1e-9).map(|(_, value)| *value)
}

/// Estimates a quantile from buckets (upper bound, count): within the bucket the measurements are
/// taken as evenly spread, as Prometheus does; in the last, unbounded one as at its lower bound.
fn quantile(buckets: &[(f64, u64)], q: f64) -> Option<f64> {
    // Floating-point: the sum of a sender's counts may exceed an integer.
    let total: f64 = buckets.iter().map(|(_, n)| *n as f64).sum();
    if total == 0.0 {
        return None;
    }
    let (rank, mut below) = (q * total, 0.0);
    for (i, (upper, n)) in buckets.iter().enumerate() {
        let n = *n as f64;
        if n > 0.0 && below + n >= rank {
            let lower = match i.checked_sub(1) {
                Some(before) => buckets[before].0,
                None => upper.min(0.0),
            };
            if upper.is_infinite() {
                return Some(lower);
            }
            let share = ((rank - below) / n).clamp(0.0, 1.0);
            return Some(lower + (upper - lower) * share);
        }
        below += n;
    }
    None
}

/// The parts of a point, as JSON, that the event's other attributes don't have: an export writes
/// the same point again. `None` for a gauge.
pub(super) fn sent_point(point: &OtlpPoint<'_>) -> Option<String> {
    let mut parts = serde_json::Map::new();
    if matches!(point.metric_type, OtlpMetricType::Sum | OtlpMetricType::Histogram) {
        parts.insert("cumulative".into(), point.is_cumulative.into());
    }
    if point.metric_type == OtlpMetricType::Sum {
        parts.insert("monotonic".into(), point.is_monotonic.into());
    }
    if point.start_ns > 0 {
        parts.insert("start_ns".into(), point.start_ns.into());
    }
    if matches!(point.metric_type, OtlpMetricType::Histogram | OtlpMetricType::Summary) {
        parts.insert("count".into(), point.count.into());
        parts.insert("sum".into(), point.sum.into());
        // JSON has no infinity: the last bucket has no bound.
        let finite = |bound: f64| Some(bound).filter(|b| b.is_finite());
        let buckets = point.buckets.iter().map(|(bound, n)| json!([finite(*bound), n]));
        parts.insert("buckets".into(), buckets.collect());
        parts.insert("quantiles".into(), json!(point.quantiles));
    }
    (!parts.is_empty()).then(|| Json::Object(parts).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(time_ns: u64, value: f64) -> OtlpPoint<'static> {
        OtlpPoint {
            metric_type: OtlpMetricType::Sum,
            is_cumulative: true,
            is_monotonic: true,
            start_ns: 1,
            time_ns,
            value: Some(value),
            ..OtlpPoint::default()
        }
    }

    fn histogram(time_ns: u64, counts: [u64; 3]) -> OtlpPoint<'static> {
        OtlpPoint {
            metric_type: OtlpMetricType::Histogram,
            is_cumulative: true,
            time_ns,
            count: counts.iter().sum(),
            sum: Some(counts.iter().sum::<u64>() as f64 * 10.0),
            buckets: [10.0, 20.0, f64::INFINITY].into_iter().zip(counts).collect(),
            ..OtlpPoint::default()
        }
    }

    #[test]
    fn cumulative_sums_become_increases() {
        let mut table = SeriesTable::default();
        let mut delta = |point: &OtlpPoint<'_>| table.add([1; 16], point).delta;
        assert_eq!(delta(&sum(10, 5.0)), None, "what was before isn't known");
        assert_eq!(delta(&sum(20, 8.0)), Some(3.0));
        assert_eq!(delta(&sum(20, 8.0)), None, "sent again");
        assert_eq!(delta(&sum(30, 2.0)), Some(2.0), "restarted");
        assert_eq!(delta(&OtlpPoint { start_ns: 35, ..sum(40, 9.0) }), Some(9.0), "restarted");
        assert_eq!(delta(&OtlpPoint { is_monotonic: false, ..sum(50, 9.0) }), None);
        assert_eq!(delta(&OtlpPoint { is_cumulative: false, ..sum(1, 4.0) }), Some(4.0));
    }

    #[test]
    fn cumulative_histograms_become_those_of_their_interval() {
        let mut table = SeriesTable::default();
        table.add([1; 16], &histogram(10, [100, 0, 0]));
        let interval = table.add([1; 16], &histogram(20, [101, 9, 0]));
        assert_eq!((interval.count, interval.sum), (Some(10), Some(100.0)));
        let [p50, p90, p99] = interval.quantiles.map(|q| q.unwrap());
        // Ranks 5, 9 and 9.9 of one measurement up to 10 and nine up to 20.
        let expected = [10.0 + 40.0 / 9.0, 10.0 + 80.0 / 9.0, 10.0 + 89.0 / 9.0];
        for (found, expected) in [p50, p90, p99].into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
        let interval = table.add([1; 16], &histogram(30, [101, 9, 4]));
        assert_eq!(interval.quantiles, [Some(20.0); 3], "beyond the last bound");
        let interval = table.add([1; 16], &histogram(40, [101, 9, 4]));
        assert_eq!((interval.count, interval.quantiles), (Some(0), [None; 3]));
    }

    #[test]
    fn counts_of_any_size_are_taken() {
        let mut table = SeriesTable::default();
        let all = [u64::MAX; 3];
        let buckets = [10.0, 20.0, f64::INFINITY].into_iter().zip(all).collect();
        let point = OtlpPoint { count: u64::MAX, buckets, ..histogram(10, [0; 3]) };
        table.add([1; 16], &point);
        let fewer = table.add([1; 16], &OtlpPoint { count: 0, ..histogram(20, [1, 0, 0]) });
        assert_eq!(fewer.count, Some(0), "restarted");
        let more = table.add([1; 16], &OtlpPoint { time_ns: 30, ..point });
        assert!(more.quantiles.iter().all(Option::is_some), "{more:?}");
    }

    #[test]
    fn series_are_bounded() {
        let mut table = SeriesTable::default();
        for n in 0..MAX_SERIES as u64 + 5 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            table.add(id, &sum(10, 1.0));
        }
        assert_eq!((table.last.len(), table.forgotten), (MAX_SERIES, 5));
        assert_eq!(table.add([0; 16], &sum(20, 2.0)).delta, None, "forgotten");
    }
}
