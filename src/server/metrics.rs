//! `/metrics` of the server.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text::encode};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::status::ServerStatus;

/// The OpenMetrics text format.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug)]
struct Page(ServerStatus);

impl Collector for Page {
    fn encode(&self, mut page: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (ingest, store, latency) = (&self.0.ingest, &self.0.store, &self.0.latency);
        for (name, help, value) in [
            ("batches", "Batches stored", ingest.batches),
            ("events", "Events stored", ingest.events),
            ("stories", "Story revisions stored", ingest.stories),
            ("duplicate_items", "Items received again and not stored again", ingest.duplicates),
            ("refused_batches", "Batches refused", ingest.refused),
            ("disk_errors", "Times the disk did not take a batch", ingest.disk_errors),
            ("tail_missed_batches", "Batches that tails were too slow for", ingest.tail_missed),
            ("segments_retired", "Segments that made room", store.segments_retired),
            ("corrupt_frames", "Broken frames found at the start", store.corrupt_frames),
            ("torn_tails", "Frames cut short by a crash", store.torn_tails),
        ] {
            let counter = ConstCounter::new(value);
            let to = page.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(to)?;
        }
        for (name, help, value) in [
            ("stored_bytes", "Bytes in the store", store.stored_bytes),
            ("stored_batches", "Batches in the store", store.batches),
            ("segments", "Files of the store", store.segments),
            ("stories_kept", "Stories that can be listed", self.0.stories_kept),
            ("disk_failing", "1 while the disk takes no batches", u64::from(ingest.disk_failing)),
            ("delay_p50_nanoseconds", "Event time to receipt, median", latency.p50_ns),
            ("delay_p99_nanoseconds", "Event time to receipt, 99th percentile", latency.p99_ns),
            ("delay_max_nanoseconds", "Event time to receipt, slowest", latency.max_ns),
        ] {
            let gauge = ConstGauge::new(value as i64);
            let to = page.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(to)?;
        }
        Ok(())
    }
}

/// The page.
pub(super) fn text(status: &ServerStatus) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("tapio_server");
    registry.register_collector(Box::new(Page(status.clone())));
    let mut out = String::new();
    encode(&mut out, &registry)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_what_it_counts() {
        let mut status = ServerStatus::default();
        status.ingest.events = 12;
        let page = text(&status).unwrap();
        assert!(page.contains("tapio_server_events_total 12\n"), "{page}");
        assert!(page.contains("# TYPE tapio_server_stored_bytes gauge"));
    }
}
