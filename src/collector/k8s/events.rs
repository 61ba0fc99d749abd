//! Time, count and source of an Event, and which Events are new.

use std::collections::{HashMap, VecDeque};

use super::objects::{Event, ObjectRef, Text};

/// How long a started kubelet may take to read the older part of the kernel log.
const REPLAY_NS: u64 = 60_000_000_000;
/// Most Events whose count is kept. The API server deletes an Event after an hour.
const MAX_EVENTS: usize = 16_384;

impl Event {
    /// Time of the last occurrence.
    pub(super) fn time_ns(&self) -> Option<u64> {
        let series = self.series.as_ref().and_then(|s| s.last_observed_time);
        // Whole seconds are the older form. Where both forms are set, the finer time is that of the
        // first occurrence.
        let times = [series, self.last_timestamp, self.event_time, self.first_timestamp];
        let time = times.into_iter().flatten().find(|t| t.ns > 0);
        time.or(self.metadata.creation_timestamp).map(|t| t.ns)
    }

    /// Number of occurrences.
    pub(super) fn count(&self) -> Option<i64> {
        let series = self.series.as_ref().and_then(|s| s.count);
        series.or(self.count).filter(|c| *c > 0)
    }

    /// The component that reports it.
    pub(super) fn component(&self) -> &str {
        if self.source.component.is_empty() {
            &self.reporting_component
        } else {
            &self.source.component
        }
    }

    /// The node whose kubelet reports it; empty for other components.
    pub(super) fn host(&self) -> &str {
        if !self.source.host.is_empty() {
            &self.source.host
        } else if &*self.reporting_component == "kubelet" {
            &self.reporting_instance
        } else {
            ""
        }
    }

    /// The node that the scheduler assigned: `Successfully assigned shop/web-0 to node-a`.
    pub(super) fn assigned_node(&self) -> Option<&str> {
        (&*self.reason == "Scheduled").then_some(())?;
        self.message.rsplit_once(" to ").map(|(_, node)| node)
    }
}

impl ObjectRef {
    /// The container, from a path such as `spec.containers{app}`.
    pub(super) fn container(&self) -> &str {
        let inner = self.field_path.split_once('{').and_then(|(_, rest)| rest.strip_suffix('}'));
        inner.unwrap_or("")
    }
}

/// Emitted counts by the Event's uid: an update that doesn't raise the count isn't emitted.
#[derive(Default)]
pub(super) struct EventCounts {
    emitted: HashMap<Text, i64>,
    order: VecDeque<Text>,
}

impl EventCounts {
    /// Records the count of an Event. Returns whether the Event is new or its count grew.
    pub(super) fn record(&mut self, event: &Event) -> bool {
        let count = event.count().unwrap_or(0);
        if let Some(emitted) = self.emitted.get_mut(&event.metadata.uid) {
            let new = count > *emitted;
            *emitted = count.max(*emitted);
            return new;
        }
        if self.order.len() >= MAX_EVENTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.emitted.remove(&oldest);
        }
        self.order.push_back(event.metadata.uid.clone());
        self.emitted.insert(event.metadata.uid.clone(), count);
        true
    }

    /// Removes an Event that the API server deleted.
    pub(super) fn remove(&mut self, event: &Event) {
        self.emitted.remove(&event.metadata.uid);
    }
}

/// The node that an Event belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EventScope {
    ThisNode,
    /// This node; the event is about one of its pods, whose status is watched.
    WatchedPod,
    /// This node; the kubelet reports an old fact again.
    ThisNodeReplayed,
    NoNode,
}

/// The start of this node's kubelet. A started kubelet reads the kernel log from the start and
/// reports each OOM kill in it again, with the current time.
#[derive(Default)]
pub(super) struct KubeletStart(Option<u64>);

impl KubeletStart {
    /// Processes an Event of this node. Returns whether it reports an old fact again.
    pub(super) fn observe(&mut self, event: &Event) -> bool {
        let Some(time_ns) = event.time_ns().filter(|_| event.component() == "kubelet") else {
            return false;
        };
        match &*event.reason {
            "Starting" => {
                self.0 = self.0.max(Some(time_ns));
                false
            }
            "SystemOOM" => self
                .0
                .is_some_and(|start| (start..=start.saturating_add(REPLAY_NS)).contains(&time_ns)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Event {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn both_event_formats_are_parsed() {
        let old = event(
            r#"{"involvedObject":{"fieldPath":"spec.initContainers{init-db}"},"source":{"component":"kubelet","host":"n1"},
                "firstTimestamp":"2026-01-01T00:00:00Z","lastTimestamp":"2026-01-01T00:00:05Z","eventTime":null,"count":3}"#,
        );
        assert_eq!((old.count(), old.component(), old.host()), (Some(3), "kubelet", "n1"));
        assert_eq!(old.time_ns(), Some(1_767_225_605_000_000_000));
        assert_eq!(old.involved_object.container(), "init-db");
        let new = event(
            r#"{"reason":"Scheduled","message":"Successfully assigned shop/web-0 to node-a","reportingComponent":"default-scheduler",
                "reportingInstance":"default-scheduler-cp","eventTime":"2026-01-01T00:00:00.123456Z","firstTimestamp":null,"lastTimestamp":null}"#,
        );
        assert_eq!((new.count(), new.component(), new.host()), (None, "default-scheduler", ""));
        assert_eq!(new.time_ns(), Some(1_767_225_600_123_456_000));
        assert_eq!(new.assigned_node(), Some("node-a"));
        let series = event(
            r#"{"eventTime":"2026-01-01T00:00:00.1Z","series":{"count":9,"lastObservedTime":"2026-01-01T00:10:00.5Z"}}"#,
        );
        assert_eq!((series.count(), series.time_ns()), (Some(9), Some(1_767_226_200_500_000_000)));
    }

    #[test]
    fn event_is_new_again_when_count_grows() {
        let mut counts = EventCounts::default();
        let of = |count: i64| event(&format!(r#"{{"metadata":{{"uid":"e1"}},"count":{count}}}"#));
        assert!(counts.record(&of(1)));
        assert!(!counts.record(&of(1)), "another field changed");
        assert!(counts.record(&of(2)));
        assert!(!counts.record(&of(1)), "an older version");
        counts.remove(&of(2));
        assert!(counts.record(&of(2)));
    }

    #[test]
    fn oom_kills_after_kubelet_start_are_replays() {
        let of = |reason: &str, component: &str, minute: u32| {
            event(&format!(
                r#"{{"reason":"{reason}","source":{{"component":"{component}","host":"n1"}},"lastTimestamp":"2026-01-01T00:{minute:02}:00Z"}}"#
            ))
        };
        let mut start = KubeletStart::default();
        assert!(!start.observe(&of("SystemOOM", "kubelet", 1)), "no start was seen");
        assert!(!start.observe(&of("Starting", "kube-proxy", 4)));
        assert!(!start.observe(&of("SystemOOM", "kubelet", 4)));
        assert!(!start.observe(&of("Starting", "kubelet", 5)));
        assert!(start.observe(&of("SystemOOM", "kubelet", 5)));
        assert!(start.observe(&of("SystemOOM", "kubelet", 6)));
        assert!(!start.observe(&of("BackOff", "kubelet", 5)));
        assert!(!start.observe(&of("SystemOOM", "kubelet", 7)), "after the replay");
    }

    #[test]
    fn event_counts_are_bounded() {
        let mut counts = EventCounts::default();
        for n in 0..MAX_EVENTS + 10 {
            assert!(counts.record(&event(&format!(r#"{{"metadata":{{"uid":"{n}"}}}}"#))));
        }
        assert_eq!((counts.emitted.len(), counts.order.len()), (MAX_EVENTS, MAX_EVENTS));
    }
}
