//! Events of pods and containers without a name: they wait for it for a short time. The kernel
//! reports a container's first process before any other source knows the container.

use std::collections::VecDeque;

use crate::events::enrich::{Resolution, Subject};
use crate::events::event_builder::{EventBuilder, EventHeader};
use tapio_core::event::names;
use tapio_core::identity::Directory;
use tapio_core::ring::Sink;

/// Longest wait of an event: less than the slack of the kernel beside sources whose clocks count
/// microseconds.
const MAX_WAIT_NS: u64 = 400_000_000;
/// Capacity of the queue; further events are emitted without names.
const MAX_EVENTS: usize = 4_096;

struct QueuedEvent {
    event: EventBuilder,
    meta: EventHeader,
    container_id: Option<Box<str>>,
    pod_uid: Option<Box<str>>,
    deadline_ns: u64,
}

/// The waiting events, in order of arrival.
#[derive(Default)]
pub(super) struct EnrichmentQueue {
    waiting: VecDeque<QueuedEvent>,
    /// The directory's generation at the last check.
    generation: u64,
    /// Events that got their names while they waited.
    pub(super) patched: u64,
    /// Events emitted without names.
    pub(super) unresolved: u64,
}

impl EnrichmentQueue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds an event without names to the queue. If the queue is full, or no source of names is
    /// active, marks the event as unresolved instead and returns its metadata.
    pub(super) fn push(
        &mut self,
        event: &mut EventBuilder,
        meta: EventHeader,
        subject: Subject<'_>,
        directory: &Directory,
        now_ns: u64,
    ) -> Option<EventHeader> {
        if self.waiting.len() >= MAX_EVENTS || !directory.has_pod_source() {
            self.mark_unresolved(event);
            return Some(meta);
        }
        self.waiting.push_back(QueuedEvent {
            event: event.clone(),
            meta,
            container_id: subject.container_id.map(Into::into),
            pod_uid: subject.pod_uid.map(Into::into),
            deadline_ns: now_ns + MAX_WAIT_NS,
        });
        None
    }

    fn mark_unresolved(&mut self, event: &mut EventBuilder) {
        self.unresolved += 1;
        event.word(names::TAPIO_IDENTITY, "unresolved");
    }

    /// Emits the events whose names are known now or whose wait is over; with `all`, every one.
    pub(super) fn release(
        &mut self,
        directory: &Directory,
        now_ns: u64,
        all: bool,
        sink: &mut Sink,
    ) {
        let generation = directory.generation();
        let has_changed = generation != self.generation;
        self.generation = generation;
        let mut remaining = VecDeque::new();
        for mut one in std::mem::take(&mut self.waiting) {
            let subject = Subject {
                container_id: one.container_id.as_deref(),
                pod_uid: one.pod_uid.as_deref(),
            };
            if has_changed && one.event.re_enrich(subject, directory) == Resolution::Complete {
                self.patched += 1;
            } else if all || now_ns >= one.deadline_ns {
                self.mark_unresolved(&mut one.event);
            } else {
                remaining.push_back(one);
                continue;
            }
            // The sink counts an event that it rejects.
            let _ = one.event.offer(&one.meta, sink);
        }
        self.waiting = remaining;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Context;
    use tapio_core::event::{ClockQuality, EventId, Severity, Value};
    use tapio_core::identity::{Container, Pod};

    fn event(subject: Subject<'_>, directory: &Directory) -> (EventBuilder, EventHeader) {
        let mut event = EventBuilder::default();
        event.text(names::HOST_NAME, "n");
        assert_eq!(event.enrich(subject, directory), Resolution::Incomplete);
        event.text(names::TAPIO_PROCESS_EXEC_ID, "7");
        event.end_entities();
        event.text(names::TAPIO_CGROUP_PATH, "/p");
        let meta = EventHeader {
            id: EventId::default(),
            time_ns: 1,
            observed_ns: 1,
            kind: names::KERNEL_PROCESS_EXEC,
            source: names::EBPF,
            clock: ClockQuality::Kernel,
            severity: Severity::INFO,
        };
        (event, meta)
    }

    #[test]
    fn late_name_is_patched_in_and_missing_name_is_marked() {
        let directory = Directory::default();
        let mut context = Context::for_test(None);
        let mut queue = EnrichmentQueue::default();
        let subject = |pod_uid| Subject { container_id: Some("c"), pod_uid: Some(pod_uid) };
        let (mut first, meta) = event(subject("u"), &directory);
        assert!(queue.push(&mut first, meta, subject("u"), &directory, 0).is_some());
        assert_eq!(queue.unresolved, 1, "no source of names is active");
        directory.pod_seen(Pod { uid: "other".into(), ..Pod::default() }, 0);
        for uid in ["u", "v"] {
            let (mut one, meta) = event(subject(uid), &directory);
            assert!(queue.push(&mut one, meta, subject(uid), &directory, 0).is_none());
        }
        queue.release(&directory, 1, false, &mut context.sink);
        assert_eq!(queue.len(), 2);
        directory.pod_seen(Pod { uid: "u".into(), name: "web".into(), ..Pod::default() }, 2);
        directory.container_seen(
            Container { id: "c".into(), name: "app".into(), ..Container::default() },
            2,
        );
        queue.release(&directory, 2, false, &mut context.sink);
        assert_eq!((queue.len(), queue.patched), (1, 1));
        queue.release(&directory, MAX_WAIT_NS, false, &mut context.sink);
        assert_eq!((queue.len(), queue.unresolved), (0, 2));
    }

    #[test]
    fn late_names_have_the_position_of_early_names() {
        let directory = Directory::default();
        let subject = Subject { container_id: None, pod_uid: Some("u") };
        let (mut one, _) = event(subject, &directory);
        directory.pod_seen(
            Pod { uid: "u".into(), name: "web".into(), namespace: "shop".into(), ..Pod::default() },
            2,
        );
        assert_eq!(one.re_enrich(subject, &directory), Resolution::Complete);
        let fields: Vec<(String, bool)> = one.fields(|fields| {
            let text = |f: &tapio_core::event::Field<'_>| match f.value {
                Value::Str(s) => format!("{}={s}", f.key),
                _ => f.key.to_string(),
            };
            fields.iter().enumerate().map(|(i, f)| (text(f), i < one.entities())).collect()
        });
        let keys: Vec<&str> = fields.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(
            keys,
            [
                "host.name=n",
                "k8s.pod.uid=u",
                "k8s.pod.name=web",
                "k8s.namespace.name=shop",
                "tapio.process.exec_id=7",
                "tapio.cgroup.path=/p"
            ]
        );
        assert_eq!(fields.iter().filter(|(_, entity)| *entity).count(), 5);
    }
}
