//! The records of the process's own telemetry (`telemetry.otlp`). They are counted for the process
//! as a whole, as the SDK's providers are the process's.

use std::sync::LazyLock;

use tapio_core::counters::Reading;
use tapio_wire::OtlpSignal;

use super::page::{Metric, Page};

tapio_core::counters! {
    struct Records {
        logs: Counter = "Log records.",
        traces: Counter = "Spans.",
        metrics: Counter = "Data points.",
    }
}

tapio_core::counters! {
    struct Requests {
        failed: Counter = "Requests that failed.",
    }
}

/// Counters of the process's own telemetry.
#[derive(Debug, Default)]
pub(crate) struct TelemetryStats {
    taken: Records,
    rejected: Records,
    lost: Records,
    requests: Requests,
}

const TAKEN: Metric = Metric::counter(
    "tapio_telemetry_records_total",
    &["signal"],
    "tapio's own log records, spans and data points that the receiver of telemetry.otlp has taken.",
);
const REJECTED: Metric = Metric::counter(
    "tapio_telemetry_records_rejected_total",
    &["signal"],
    "tapio's own log records, spans and data points that the receiver has refused.",
);
const LOST: Metric = Metric::counter(
    "tapio_telemetry_records_lost_total",
    &["signal"],
    "tapio's own log records, spans and data points that couldn't be delivered.",
);
const FAILED: Metric = Metric::counter(
    "tapio_telemetry_requests_failed_total",
    &[],
    "Requests with tapio's own telemetry that failed, those sent again included.",
);

static STATS: LazyLock<TelemetryStats> = LazyLock::new(TelemetryStats::default);

/// The process's counters.
pub(crate) fn telemetry() -> &'static TelemetryStats {
    &STATS
}

impl Records {
    fn add(&self, signal: OtlpSignal, records: u64) {
        match signal {
            OtlpSignal::Logs => self.logs.add(records),
            OtlpSignal::Traces => self.traces.add(records),
            OtlpSignal::Metrics => self.metrics.add(records),
        }
    }
}

impl TelemetryStats {
    /// Counts records that the receiver has taken.
    pub(crate) fn taken(&self, signal: OtlpSignal, records: u64) {
        self.taken.add(signal, records);
    }

    /// Counts records that the receiver has refused.
    pub(crate) fn rejected(&self, signal: OtlpSignal, records: u64) {
        self.rejected.add(signal, records);
    }

    /// Counts records that couldn't be delivered.
    pub(crate) fn lost(&self, signal: OtlpSignal, records: u64) {
        self.lost.add(signal, records);
    }

    /// Counts a request that failed.
    pub(crate) fn failed(&self) {
        self.requests.failed.add(1);
    }

    /// Adds the metrics.
    pub(super) fn metrics(&self, page: &mut Page) {
        for (metric, records) in
            [(&TAKEN, &self.taken), (&REJECTED, &self.rejected), (&LOST, &self.lost)]
        {
            let samples = page.metric(metric);
            records.readings().for_each(|Reading { name, value, .. }| samples.add(&[name], value));
        }
        let failed = page.metric(&FAILED);
        self.requests.readings().for_each(|reading| failed.add(&[], reading.value));
    }
}
