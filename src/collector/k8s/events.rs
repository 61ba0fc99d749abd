//! What an Event says: when, how often, who says it, and which of them are new.

use std::collections::{HashMap, VecDeque};

use super::objects::{Event, ObjectRef, Text};

/// How long a kubelet that has started may take to read what the kernel's log held before.
const REREADING_NS: u64 = 60_000_000_000;
/// Events whose count is remembered; the API server itself forgets an Event after an hour.
const MOST: usize = 16_384;

impl Event {
    /// When it happened last.
    pub(super) fn time_ns(&self) -> Option<u64> {
        let series = self.series.as_ref().and_then(|s| s.last_observed_time);
        // Whole seconds are the older form; where both are set, the finer one is of the first time.
        let times = [series, self.last_timestamp, self.event_time, self.first_timestamp];
        let time = times.into_iter().flatten().find(|t| t.ns > 0);
        time.or(self.metadata.creation_timestamp).map(|t| t.ns)
    }

    /// How often it happened.
    pub(super) fn count(&self) -> Option<i64> {
        let series = self.series.as_ref().and_then(|s| s.count);
        series.or(self.count).filter(|c| *c > 0)
    }

    /// Who says it.
    pub(super) fn component(&self) -> &str {
        if self.source.component.is_empty() {
            &self.reporting_component
        } else {
            &self.source.component
        }
    }

    /// The node whose kubelet says it; empty where it isn't one.
    pub(super) fn host(&self) -> &str {
        if !self.source.host.is_empty() {
            &self.source.host
        } else if &*self.reporting_component == "kubelet" {
            &self.reporting_instance
        } else {
            ""
        }
    }

    /// The node that the scheduler gave to a pod: `Successfully assigned shop/web-0 to node-a`.
    pub(super) fn assigned_to(&self) -> Option<&str> {
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

/// Counts that were told, by the Event's uid: an update that changes something else isn't told again.
#[derive(Default)]
pub(super) struct Counts {
    told: HashMap<Text, i64>,
    order: VecDeque<Text>,
}

impl Counts {
    /// Whether this is to be told.
    pub(super) fn is_new(&mut self, event: &Event) -> bool {
        let count = event.count().unwrap_or(0);
        if let Some(told) = self.told.get_mut(&event.metadata.uid) {
            let new = count > *told;
            *told = count.max(*told);
            return new;
        }
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
        self.order.push_back(event.metadata.uid.clone());
        self.told.insert(event.metadata.uid.clone(), count);
        true
    }

    /// The API server forgot it.
    pub(super) fn gone(&mut self, event: &Event) {
        self.told.remove(&event.metadata.uid);
    }
}

/// What an Event is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    ThisNode,
    /// Something that happened on it before, told again.
    ThisNodesPast,
    NoNode,
}

/// When this node's kubelet has started: it reads the kernel's log from its beginning, and tells each OOM kill in
/// it again, as if it were one of now.
#[derive(Default)]
pub(super) struct KubeletStart(Option<u64>);

impl KubeletStart {
    /// Takes note of an Event of this node. Returns whether it tells again what happened before.
    pub(super) fn rereads(&mut self, event: &Event) -> bool {
        let Some(time_ns) = event.time_ns().filter(|_| event.component() == "kubelet") else {
            return false;
        };
        match &*event.reason {
            "Starting" => {
                self.0 = self.0.max(Some(time_ns));
                false
            }
            "SystemOOM" => self.0.is_some_and(|start| {
                (start..=start.saturating_add(REREADING_NS)).contains(&time_ns)
            }),
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
    fn both_forms_of_events_are_understood() {
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
        assert_eq!(new.assigned_to(), Some("node-a"));
        let series = event(
            r#"{"eventTime":"2026-01-01T00:00:00.1Z","series":{"count":9,"lastObservedTime":"2026-01-01T00:10:00.5Z"}}"#,
        );
        assert_eq!((series.count(), series.time_ns()), (Some(9), Some(1_767_226_200_500_000_000)));
    }

    #[test]
    fn an_event_is_told_again_when_its_count_grows() {
        let mut counts = Counts::default();
        let of = |count: i64| event(&format!(r#"{{"metadata":{{"uid":"e1"}},"count":{count}}}"#));
        assert!(counts.is_new(&of(1)));
        assert!(!counts.is_new(&of(1)), "something else of it changed");
        assert!(counts.is_new(&of(2)));
        assert!(!counts.is_new(&of(1)), "an older version of it");
        counts.gone(&of(2));
        assert!(counts.is_new(&of(2)));
    }

    #[test]
    fn a_kubelet_that_starts_tells_old_kills_again() {
        let of = |reason: &str, component: &str, minute: u32| {
            event(&format!(
                r#"{{"reason":"{reason}","source":{{"component":"{component}","host":"n1"}},"lastTimestamp":"2026-01-01T00:{minute:02}:00Z"}}"#
            ))
        };
        let mut start = KubeletStart::default();
        assert!(!start.rereads(&of("SystemOOM", "kubelet", 1)), "it has run all the time");
        assert!(!start.rereads(&of("Starting", "kube-proxy", 4)));
        assert!(!start.rereads(&of("SystemOOM", "kubelet", 4)));
        assert!(!start.rereads(&of("Starting", "kubelet", 5)));
        assert!(start.rereads(&of("SystemOOM", "kubelet", 5)));
        assert!(start.rereads(&of("SystemOOM", "kubelet", 6)));
        assert!(!start.rereads(&of("BackOff", "kubelet", 5)));
        assert!(!start.rereads(&of("SystemOOM", "kubelet", 7)), "a new one");
    }

    #[test]
    fn counts_are_bounded() {
        let mut counts = Counts::default();
        for n in 0..MOST + 10 {
            assert!(counts.is_new(&event(&format!(r#"{{"metadata":{{"uid":"{n}"}}}}"#))));
        }
        assert_eq!((counts.told.len(), counts.order.len()), (MOST, MOST));
    }
}
