//! The metrics of receivers.

use std::sync::Arc;

use super::stats::ReceiverStats;
use crate::metrics::{Metric, Page};
use tapio_core::counters::Kind;

/// The metric of each counter.
const METRICS: &[(&str, &str)] = &[
    ("sent", "tapio_notify_sent_total"),
    ("failed", "tapio_notify_failed_total"),
    ("dead_letters", "tapio_notify_dead_letters_total"),
    ("digests", "tapio_notify_digests_total"),
    ("digested", "tapio_notify_digested_stories_total"),
    ("silenced", "tapio_notify_silenced_stories_total"),
    ("related", "tapio_notify_related_total"),
    ("gaps", "tapio_notify_gaps_total"),
    ("queue", "tapio_notify_queue"),
    ("open", "tapio_notify_open_stories"),
];

const LABELS: &[&str] = &["receiver"];

const OLDEST: Metric = Metric::gauge(
    "tapio_notify_oldest_age_seconds",
    LABELS,
    "Time for which the oldest notification that waits has done so, in seconds; 0 if none waits.",
);

/// Writes the metrics of all receivers.
pub(crate) fn write_metrics(page: &mut Page, receivers: &[Arc<ReceiverStats>]) {
    for (position, counter) in ReceiverStats::default().readings().enumerate() {
        let Some((_, name)) = METRICS.iter().find(|(known, _)| *known == counter.name) else {
            continue;
        };
        let metric = match counter.kind {
            Kind::Counter => Metric::counter(name, LABELS, counter.help),
            Kind::Gauge => Metric::gauge(name, LABELS, counter.help),
        };
        let family = page.metric(&metric);
        for receiver in receivers {
            let value = receiver.readings().nth(position).map_or(0, |reading| reading.value);
            family.add(&[&receiver.name], value);
        }
    }
    let oldest = page.metric(&OLDEST);
    receivers.iter().for_each(|receiver| oldest.add(&[&receiver.name], receiver.oldest_age_s()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_metric() {
        let counters: Vec<&str> = ReceiverStats::default().readings().map(|r| r.name).collect();
        let named: Vec<&str> = METRICS.iter().map(|(counter, _)| *counter).collect();
        assert_eq!(counters, named);
        for reading in ReceiverStats::default().readings() {
            let (_, name) = METRICS.iter().find(|(known, _)| *known == reading.name).unwrap();
            assert_eq!(name.ends_with("_total"), reading.kind == Kind::Counter, "{name}");
        }
    }
}
