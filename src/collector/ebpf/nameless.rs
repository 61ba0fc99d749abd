//! Events of pods whose names aren't known yet: they wait a little for the name to come. The kernel tells of
//! a container's first process before anybody else knows the container.

use std::collections::VecDeque;

use crate::events::enrich::{Resolution, Subject};
use crate::events::event_builder::{EventBuilder, EventHeader};
use tapio_core::event::names;
use tapio_core::identity::Directory;
use tapio_core::ring::Sink;

/// How long an event waits: less than the order of times allows the kernel beside sources in microseconds.
const PATIENCE_NS: u64 = 400_000_000;
/// Events that wait at once; a further one goes on nameless.
const MOST: usize = 4_096;

struct Waiting {
    draft: EventBuilder,
    meta: EventHeader,
    container_id: Option<Box<str>>,
    pod_uid: Option<Box<str>>,
    until_ns: u64,
}

/// The events that wait, in the order in which they came.
#[derive(Default)]
pub(super) struct Nameless {
    waiting: VecDeque<Waiting>,
    /// The directory's generation at the last look.
    seen: u64,
    /// Events that got their names while they waited.
    pub(super) patched: u64,
    /// Events that went on without.
    pub(super) unresolved: u64,
}

impl Nameless {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes an event that has no name yet, or marks it and gives it back where waiting is of no use.
    pub(super) fn take(
        &mut self,
        draft: &mut EventBuilder,
        meta: EventHeader,
        known: Subject<'_>,
        directory: &Directory,
        now_ns: u64,
    ) -> Option<EventHeader> {
        if self.waiting.len() >= MOST || !directory.names_come() {
            self.mark(draft);
            return Some(meta);
        }
        self.waiting.push_back(Waiting {
            draft: draft.clone(),
            meta,
            container_id: known.container_id.map(Into::into),
            pod_uid: known.pod_uid.map(Into::into),
            until_ns: now_ns + PATIENCE_NS,
        });
        None
    }

    fn mark(&mut self, draft: &mut EventBuilder) {
        self.unresolved += 1;
        draft.word(names::TAPIO_IDENTITY, "unresolved");
    }

    /// Lets those go whose names have come or whose time is over; all of them at the `end`.
    pub(super) fn release(
        &mut self,
        directory: &Directory,
        now_ns: u64,
        end: bool,
        sink: &mut Sink,
    ) {
        let generation = directory.generation();
        let news = generation != self.seen;
        self.seen = generation;
        let mut left = VecDeque::new();
        for mut one in std::mem::take(&mut self.waiting) {
            let known = Subject {
                container_id: one.container_id.as_deref(),
                pod_uid: one.pod_uid.as_deref(),
            };
            if news && one.draft.re_enrich(known, directory) == Resolution::Complete {
                self.patched += 1;
            } else if end || now_ns >= one.until_ns {
                self.mark(&mut one.draft);
            } else {
                left.push_back(one);
                continue;
            }
            // The sink has counted an event it couldn't take.
            let _ = one.draft.offer(&one.meta, sink);
        }
        self.waiting = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Context;
    use tapio_core::event::{ClockQuality, EventId, Severity, Value};
    use tapio_core::identity::{Container, Pod};

    fn draft(known: Subject<'_>, directory: &Directory) -> (EventBuilder, EventHeader) {
        let mut draft = EventBuilder::default();
        draft.text(names::HOST_NAME, "n");
        assert_eq!(draft.enrich(known, directory), Resolution::Incomplete);
        draft.text(names::TAPIO_PROCESS_EXEC_ID, "7");
        draft.end_entities();
        draft.text(names::TAPIO_CGROUP_PATH, "/p");
        let meta = EventHeader {
            id: EventId::default(),
            time_ns: 1,
            observed_ns: 1,
            kind: names::KERNEL_PROCESS_EXEC,
            source: names::EBPF,
            clock: ClockQuality::Kernel,
            severity: Severity::INFO,
        };
        (draft, meta)
    }

    #[test]
    fn a_name_that_comes_late_is_patched_in_and_one_that_never_comes_is_marked() {
        let directory = Directory::default();
        let mut context = Context::for_test(None);
        let mut nameless = Nameless::default();
        let known = |pod_uid| Subject { container_id: Some("c"), pod_uid: Some(pod_uid) };
        let (mut first, meta) = draft(known("u"), &directory);
        assert!(nameless.take(&mut first, meta, known("u"), &directory, 0).is_some());
        assert_eq!(nameless.unresolved, 1, "nobody tells names here");
        directory.pod_seen(Pod { uid: "other".into(), ..Pod::default() }, 0);
        for uid in ["u", "v"] {
            let (mut one, meta) = draft(known(uid), &directory);
            assert!(nameless.take(&mut one, meta, known(uid), &directory, 0).is_none());
        }
        nameless.release(&directory, 1, false, &mut context.sink);
        assert_eq!(nameless.len(), 2);
        directory.pod_seen(Pod { uid: "u".into(), name: "web".into(), ..Pod::default() }, 2);
        directory.container_seen(
            Container { id: "c".into(), name: "app".into(), ..Container::default() },
            2,
        );
        nameless.release(&directory, 2, false, &mut context.sink);
        assert_eq!((nameless.len(), nameless.patched), (1, 1));
        nameless.release(&directory, PATIENCE_NS, false, &mut context.sink);
        assert_eq!((nameless.len(), nameless.unresolved), (0, 2));
    }

    #[test]
    fn late_names_stand_where_they_would_have_stood() {
        let directory = Directory::default();
        let known = Subject { container_id: None, pod_uid: Some("u") };
        let (mut one, _) = draft(known, &directory);
        directory.pod_seen(
            Pod { uid: "u".into(), name: "web".into(), namespace: "shop".into(), ..Pod::default() },
            2,
        );
        assert_eq!(one.re_enrich(known, &directory), Resolution::Complete);
        let told: Vec<(String, bool)> = one.fields(|fields| {
            let text = |f: &tapio_core::event::Field<'_>| match f.value {
                Value::Str(s) => format!("{}={s}", f.key),
                _ => f.key.to_string(),
            };
            fields.iter().enumerate().map(|(i, f)| (text(f), i < one.entities())).collect()
        });
        let keys: Vec<&str> = told.iter().map(|(t, _)| t.as_str()).collect();
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
        assert_eq!(told.iter().filter(|(_, entity)| *entity).count(), 5);
    }
}
