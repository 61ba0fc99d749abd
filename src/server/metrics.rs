//! `/metrics` of the server.

use super::shared::Shared;
use super::status::ServerStatus;
use crate::metrics::{Distribution, Kind, Metric, Page, process_metrics};
use crate::notify::write_metrics;

const BATCHES: Metric =
    Metric::counter("tapio_server_batches_total", &[], "Batches received and stored.");
const EVENTS: Metric =
    Metric::counter("tapio_server_events_total", &[], "Events received and stored.");
const STORIES: Metric =
    Metric::counter("tapio_server_stories_total", &[], "Story revisions received and stored.");
const DUPLICATES: Metric = Metric::counter(
    "tapio_server_duplicates_total",
    &[],
    "Items received more than once; the later ones are not stored.",
);
const REFUSED: Metric =
    Metric::counter("tapio_server_batches_refused_total", &[], "Batches refused.");
const JUMPS_REFUSED: Metric = Metric::counter(
    "tapio_server_jumps_refused_total",
    &[],
    "Batches refused because their sequence or epoch is further ahead than any sender can be.",
);
const BATCHES_DENIED: Metric = Metric::counter(
    "tapio_server_batches_denied_total",
    &[],
    "Batches of another node than their sender; each ends its stream.",
);
const STATUSES: Metric = Metric::counter(
    "tapio_server_statuses_total",
    &[],
    "Reports of agents about themselves that were taken.",
);
const STATUSES_REFUSED: Metric = Metric::counter(
    "tapio_server_statuses_refused_total",
    &[],
    "Reports of agents refused: out of bounds, or of another node than their sender.",
);
const AGENTS: Metric = Metric::gauge("tapio_server_agents", &[], "Agents that are listed.");
const AGENTS_CONNECTED: Metric =
    Metric::gauge("tapio_server_agents_connected", &[], "Agents that are connected.");
const HANDSHAKES_FAILED: Metric = Metric::counter(
    "tapio_server_handshakes_failed_total",
    &["reason"],
    "TLS handshakes that failed.",
);
const REQUESTS_REFUSED: Metric = Metric::counter(
    "tapio_server_requests_refused_total",
    &["reason"],
    "Requests refused for lack of an identity or a right, or because of the name they are for.",
);
const ACCESS_RELOAD_FAILURES: Metric = Metric::counter(
    "tapio_server_access_reload_failures_total",
    &[],
    "Changed certificates and token files that could not be used; those before stay in use.",
);
const DISK_ERRORS: Metric = Metric::counter(
    "tapio_server_disk_errors_total",
    &[],
    "Failed attempts to write a batch to disk.",
);
const TAIL_GAPS: Metric = Metric::counter(
    "tapio_server_tail_gaps_total",
    &[],
    "Times that a client of a tail or a stream went on from a position that is not stored any more.",
);
const QUERIES_REFUSED: Metric = Metric::counter(
    "tapio_server_queries_refused_total",
    &[],
    "Queries refused because too many were waiting.",
);
const SEGMENTS_RETIRED: Metric = Metric::counter(
    "tapio_server_segments_retired_total",
    &[],
    "Segments removed because of server.retention_bytes, server.retention_age or a full disk.",
);
const CORRUPT_FRAMES: Metric = Metric::counter(
    "tapio_server_corrupt_frames_total",
    &[],
    "Stored frames that are damaged or missing, found at the start, by queries and by the scrubber.",
);
const LOST_BYTES: Metric = Metric::counter(
    "tapio_server_lost_bytes_total",
    &[],
    "Bytes of frames that are gone, found when the store was opened.",
);
const TORN_TAILS: Metric = Metric::counter(
    "tapio_server_torn_tails_total",
    &[],
    "Segments whose last frame was incomplete when the store was opened.",
);
const TORN_BYTES: Metric = Metric::counter(
    "tapio_server_torn_bytes_total",
    &[],
    "Bytes of incomplete frames, cut off when the store was opened.",
);
const SEGMENTS_QUARANTINED: Metric = Metric::counter(
    "tapio_server_segments_quarantined_total",
    &[],
    "Files that are no intact segments, moved to quarantine/ when the store was opened.",
);
const SEGMENTS_UNREADABLE: Metric = Metric::counter(
    "tapio_server_segments_unreadable_total",
    &[],
    "Segments that could not be read.",
);
const SEGMENTS_DELETED: Metric = Metric::counter(
    "tapio_server_segments_deleted_total",
    &[],
    "Segments that somebody deleted; their batches are lost.",
);
const BATCHES_UNWRITTEN: Metric = Metric::counter(
    "tapio_server_batches_unwritten_total",
    &[],
    "Batches that the disk failed to write; none of them was acknowledged.",
);
const STORED_BYTES: Metric =
    Metric::gauge("tapio_server_stored_bytes", &[], "Size of the store, in bytes.");
const STORED_BATCHES: Metric =
    Metric::gauge("tapio_server_stored_batches", &[], "Batches in the store.");
const SEGMENTS: Metric = Metric::gauge("tapio_server_segments", &[], "Segments of the store.");
const STORIES_KEPT: Metric =
    Metric::gauge("tapio_server_stories_kept", &[], "Stories in the index.");
const DISK_FAILING: Metric = Metric::gauge(
    "tapio_server_disk_failing",
    &[],
    "1 while the last batch could not be written to disk, otherwise 0.",
);
const DELAY: Metric = Metric {
    name: "tapio_server_event_delay_seconds",
    kind: Kind::Histogram,
    labels: &[],
    help: "Time from an event to its receipt, in seconds, for events timed by the kernel's clock.",
};

/// Upper bounds of the buckets of [`DELAY`], in seconds. Delays are recorded up to a minute, longer
/// ones as a minute: the largest bound is below it.
const DELAY_BOUNDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

impl Shared {
    /// The server's metrics now.
    pub(super) fn metrics(&self) -> Page {
        let mut page = page(&self.status(), self.delays());
        write_metrics(&mut page, &self.receivers());
        page
    }

    /// The distribution of delays. Its sum is that of what the histogram recorded, which keeps
    /// three digits of each delay.
    fn delays(&self) -> Distribution {
        let stats = self.stats();
        let delays = &stats.latency;
        let at_most = |bound: f64| (bound, delays.count_between(0, (bound * 1e9) as u64));
        let sum_ns: f64 = delays
            .iter_recorded()
            .map(|step| step.value_iterated_to() as f64 * step.count_at_value() as f64)
            .sum();
        Distribution {
            buckets: DELAY_BOUNDS.map(at_most).to_vec(),
            count: delays.len(),
            sum: sum_ns / 1e9,
        }
    }
}

fn page(status: &ServerStatus, delays: Distribution) -> Page {
    let (ingest, store) = (&status.ingest, &status.store);
    let mut page = Page::default();
    process_metrics(&mut page);
    for (metric, value) in [
        (&BATCHES, ingest.batches),
        (&EVENTS, ingest.events),
        (&STORIES, ingest.stories),
        (&DUPLICATES, ingest.duplicates),
        (&REFUSED, ingest.batches_refused),
        (&JUMPS_REFUSED, ingest.jumps_refused),
        (&BATCHES_DENIED, ingest.batches_denied),
        (&STATUSES, ingest.statuses),
        (&STATUSES_REFUSED, ingest.statuses_refused),
        (&AGENTS, status.agents),
        (&AGENTS_CONNECTED, status.agents_connected),
        (&ACCESS_RELOAD_FAILURES, status.access.reload_failures),
        (&DISK_ERRORS, ingest.disk_errors),
        (&TAIL_GAPS, ingest.tail_gaps),
        (&QUERIES_REFUSED, ingest.queries_refused),
        (&SEGMENTS_RETIRED, store.segments_retired),
        (&CORRUPT_FRAMES, store.corrupt_frames),
        (&LOST_BYTES, store.lost_bytes),
        (&TORN_TAILS, store.torn_tails),
        (&TORN_BYTES, store.torn_bytes),
        (&SEGMENTS_QUARANTINED, store.segments_quarantined),
        (&SEGMENTS_UNREADABLE, store.segments_unreadable),
        (&SEGMENTS_DELETED, store.segments_deleted),
        (&BATCHES_UNWRITTEN, store.batches_unwritten),
        (&STORED_BYTES, store.stored_bytes),
        (&STORED_BATCHES, store.batches),
        (&SEGMENTS, store.segments),
        (&STORIES_KEPT, status.stories_kept),
        (&DISK_FAILING, u64::from(ingest.disk_failing)),
    ] {
        page.value(metric, value);
    }
    let failed = page.metric(&HANDSHAKES_FAILED);
    status.access.handshakes_failed.iter().for_each(|(reason, n)| failed.add(&[reason], *n));
    let refused = page.metric(&REQUESTS_REFUSED);
    status.access.requests_refused.iter().for_each(|(reason, n)| refused.add(&[reason], *n));
    page.distribution(&DELAY, delays);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_counters_gauges_and_the_histogram_of_delays() {
        let mut status = ServerStatus::default();
        status.ingest.events = 12;
        let delays = Distribution { buckets: vec![(0.5, 3)], count: 4, sum: 1.5 };
        let page = page(&status, delays).text();
        for line in [
            "tapio_server_events_total 12\n",
            "# TYPE tapio_server_stored_bytes gauge\n",
            "tapio_server_event_delay_seconds_bucket{le=\"0.5\"} 3\n",
            "tapio_server_event_delay_seconds_bucket{le=\"+Inf\"} 4\n",
            "tapio_server_event_delay_seconds_sum 1.5\n",
            "process_open_fds ",
        ] {
            assert!(page.contains(line), "{line} isn't in\n{page}");
        }
    }
}
