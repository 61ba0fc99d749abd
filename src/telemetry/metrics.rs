//! The page of `/metrics` as instruments: the names, labels and values are the same. Values are
//! floating-point numbers, as the Collector's Prometheus receiver makes them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric,
};

use crate::metrics::{Distribution, Family, Kind, Page};
use tapio_core::clock;

/// Makes the page of metrics.
pub struct MetricSource(Box<dyn Fn() -> Page + Send + Sync>);

impl MetricSource {
    /// A source that makes the page anew each time.
    pub(crate) fn new(page: impl Fn() -> Page + Send + Sync + 'static) -> Self {
        Self(Box::new(page))
    }

    /// The metrics of this source, and those of another that this one doesn't have.
    #[must_use]
    pub fn with(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self::new(move || (self.0)().with((other.0)()))
    }
}

/// The metrics of a collection. The SDK asks for one instrument after the other; all answers come
/// from one page.
pub(super) struct Snapshot {
    source: MetricSource,
    /// Those not asked for in this collection.
    families: HashMap<&'static str, Family>,
    started_ns: u64,
}

impl Snapshot {
    pub(super) fn new(source: MetricSource) -> Self {
        Self { source, families: HashMap::new(), started_ns: clock::wall_ns() }
    }

    fn read(&mut self) {
        let page = (self.source.0)();
        self.families = page.families().iter().map(|f| (f.metric.name, f.clone())).collect();
    }

    /// A metric's values. It is asked for once in a collection: the second time, the next one has
    /// begun.
    fn take(&mut self, name: &str) -> Option<Family> {
        if !self.families.contains_key(name) {
            self.read();
        }
        self.families.remove(name)
    }

    /// The histograms of this collection.
    pub(super) fn take_histograms(&mut self) -> Vec<Metric> {
        let is_histogram = |family: &Family| family.metric.kind == Kind::Histogram;
        let names: Vec<_> = self.families.iter().filter(|(_, f)| is_histogram(f)).collect();
        let mut names: Vec<&str> = names.into_iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let taken = names.into_iter().filter_map(|name| self.families.remove(name));
        taken.filter_map(|family| histogram(&family, self.started_ns)).collect()
    }
}

/// Registers an instrument for each counter and gauge of the page.
pub(super) fn register(meter: &Meter, snapshot: &Arc<Mutex<Snapshot>>) {
    let families: Vec<Family> = {
        let mut snapshot = snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.read();
        snapshot.families.values().cloned().collect()
    };
    for Family { metric, .. } in families {
        let snapshot = Arc::clone(snapshot);
        let observe = move |instrument: &dyn AsyncInstrument<f64>| {
            let family = snapshot.lock().unwrap_or_else(PoisonError::into_inner).take(metric.name);
            for (labels, value) in family.into_iter().flat_map(|family| family.samples) {
                let labels = metric.labels.iter().zip(labels);
                let labels: Vec<_> = labels.map(|(k, v)| KeyValue::new(*k, v)).collect();
                instrument.observe(value.as_f64(), &labels);
            }
        };
        match metric.kind {
            Kind::Counter => {
                let counter = meter.f64_observable_counter(metric.name);
                let counter = counter.with_description(metric.help).with_unit(unit(metric.name));
                counter.with_callback(observe).build();
            }
            Kind::Gauge => {
                let gauge = meter.f64_observable_gauge(metric.name);
                let gauge = gauge.with_description(metric.help).with_unit(unit(metric.name));
                gauge.with_callback(observe).build();
            }
            Kind::Histogram => {}
        }
    }
}

/// The unit that a name ends in, in UCUM.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        _ => "",
    }
}

fn histogram(family: &Family, started_ns: u64) -> Option<Metric> {
    let Distribution { buckets, count, sum } = family.distribution.as_ref()?;
    let mut below = 0;
    let mut bucket_counts: Vec<u64> = Vec::with_capacity(buckets.len() + 1);
    for up_to in buckets.iter().map(|(_, up_to)| *up_to).chain([*count]) {
        bucket_counts.push(up_to.saturating_sub(below));
        below = up_to;
    }
    let point = HistogramDataPoint {
        start_time_unix_nano: started_ns,
        time_unix_nano: clock::wall_ns(),
        count: *count,
        sum: Some(*sum),
        bucket_counts,
        explicit_bounds: buckets.iter().map(|(bound, _)| *bound).collect(),
        ..HistogramDataPoint::default()
    };
    Some(Metric {
        name: family.metric.name.into(),
        description: family.metric.help.into(),
        unit: unit(family.metric.name).into(),
        data: Some(Data::Histogram(Histogram {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        })),
        ..Metric::default()
    })
}

/// The data points of a message.
pub(super) fn points(message: &ExportMetricsServiceRequest) -> usize {
    let scopes = message.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let metrics = scopes.flat_map(|scope| &scope.metrics);
    metrics
        .map(|metric| match &metric.data {
            Some(Data::Sum(sum)) => sum.data_points.len(),
            Some(Data::Gauge(gauge)) => gauge.data_points.len(),
            Some(Data::Histogram(histogram)) => histogram.data_points.len(),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metric as Definition;

    const DELAY: Definition = Definition {
        name: "tapio_delay_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "Delay.",
    };
    const READS: Definition = Definition::counter("tapio_reads_total", &[], "Reads.");

    #[test]
    fn answers_of_a_collection_are_from_one_page() {
        let pages = std::sync::atomic::AtomicU64::new(0);
        let mut snapshot = Snapshot::new(MetricSource::new(move || {
            let mut page = Page::default();
            let page_number = pages.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            page.value(&READS, page_number);
            let buckets = vec![(0.5, 1), (2.0, 4)];
            page.distribution(&DELAY, Distribution { buckets, count: 5, sum: 9.0 });
            page
        }));
        for collection in 0..2 {
            let reads = snapshot.take(READS.name).unwrap();
            assert_eq!(reads.samples[0].1.as_f64(), f64::from(collection));
            let histograms = snapshot.take_histograms();
            let Some(Data::Histogram(histogram)) = &histograms[0].data else { panic!() };
            assert_eq!(histogram.data_points[0].bucket_counts, [1, 3, 1]);
            assert_eq!(histogram.data_points[0].explicit_bounds, [0.5, 2.0]);
            assert_eq!(histograms[0].unit, "s");
        }
    }
}
