//! From what happened to a container to an event, and to what the directory learns from it.

use std::sync::Arc;

use super::observed::{Facts, Happened, Key, Known};
use crate::events::enrich::Subject;
use crate::events::event_builder::{EventBuilder, EventHeader};
use crate::runtime::Site;
use tapio_core::event::{ClockQuality, EventId, Name, Severity, names};
use tapio_core::identity::{Container, Directory};
use tapio_core::ring::Sink;

/// A clock may be this far ahead of what is observed before it isn't believed.
const AHEAD_NS: u64 = 1_000_000_000;

/// Builds this collector's events.
pub(super) struct Teller {
    node: Arc<str>,
    directory: Arc<Directory>,
    draft: EventBuilder,
}

/// When something happened, and when it was seen.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) time_ns: u64,
    pub(super) observed_ns: u64,
}

/// A pulled image.
pub(super) struct Pulled<'a> {
    pub(super) namespace: &'a str,
    pub(super) image: &'a str,
    pub(super) digest: &'a str,
    /// From its manifest's arrival on.
    pub(super) pull_ns: u64,
}

impl Teller {
    pub(super) fn new(site: &Site) -> Self {
        Self {
            node: Arc::clone(&site.node),
            directory: Arc::clone(&site.directory),
            draft: EventBuilder::default(),
        }
    }

    /// Tells the directory who a container is.
    pub(super) fn learn(&self, key: &Key, facts: &Facts, now_ns: u64) {
        let in_pod = !facts.pod_uid.is_empty();
        let text = |text: &str| Arc::<str>::from(text);
        if in_pod {
            let Facts { pod_uid, pod_namespace, pod_name, .. } = facts;
            self.directory.pod_named(pod_uid, pod_namespace, pod_name, now_ns);
        }
        let container = Container {
            id: text(&key.id),
            // What has no pod has no name in one.
            name: text(if in_pod && !facts.sandbox { &facts.name } else { "" }),
            image: text(&facts.image),
            pod_uid: text(&facts.pod_uid),
            pod_name: text(&facts.pod_name),
            pod_namespace: text(&facts.pod_namespace),
        };
        self.directory.container_seen(container, now_ns);
    }

    /// Says the same when it is gone: a pod with its sandbox.
    pub(super) fn forget(&self, key: &Key, facts: &Facts, now_ns: u64) {
        self.directory.container_gone(&key.id, now_ns);
        if facts.sandbox {
            self.directory.pod_left(&facts.pod_uid, now_ns);
        }
    }

    /// Tells what happened.
    pub(super) fn tell(
        &mut self,
        key: &Key,
        known: &Known,
        happened: Happened,
        times: Times,
        sink: &mut Sink,
    ) {
        let facts = &known.facts;
        let process = match happened {
            Happened::Started { pid } => pid,
            _ => 0,
        };
        self.entities(key, facts, process);
        let draft = &mut self.draft;
        draft.text(names::TAPIO_CONTAINER_NAMESPACE, &key.namespace);
        if facts.sandbox {
            draft.bool(names::TAPIO_CONTAINER_SANDBOX, true);
        }
        if let Some(restarts) = facts.restarts {
            draft.int(names::K8S_CONTAINER_RESTART_COUNT, restarts);
        }
        let who = Who { key, facts };
        let (kind, severity, what, pid) = match happened {
            Happened::Created => {
                draft.message(format_args!("{who} was created"));
                (names::CONTAINER_CREATED, Severity::INFO, "created", 0)
            }
            Happened::Started { pid } => {
                draft.message(format_args!("{who} started"));
                (names::CONTAINER_STARTED, Severity::INFO, "started", pid)
            }
            Happened::Exited { pid, code } => {
                if known.started_ns > 0 && times.time_ns > known.started_ns {
                    let lived_ns = times.time_ns - known.started_ns;
                    draft.int(names::TAPIO_CONTAINER_DURATION_NS, lived_ns);
                }
                let severity = exit(draft, &who, code);
                (names::CONTAINER_EXITED, severity, "exited", pid)
            }
            Happened::OutOfMemory => {
                if facts.sandbox {
                    draft.message(format_args!(
                        "the runtime saw an OOM kill in {who}; in which container it doesn't say"
                    ));
                } else {
                    draft.message(format_args!("the runtime saw an OOM kill in {who}"));
                }
                (names::CONTAINER_OOM, Severity::ERROR, "oom", 0)
            }
            Happened::Deleted => {
                draft.message(format_args!("{who} was deleted"));
                (names::CONTAINER_DELETED, Severity::INFO, "deleted", 0)
            }
        };
        // One container may run out of memory many times.
        let nth = if happened == Happened::OutOfMemory { times.time_ns } else { u64::from(pid) };
        let Key { namespace, id } = key;
        let natural = format!("{namespace}|{id}|{}|{what}|{nth}", facts.created_ns);
        self.offer(EventId::from_natural("container", &natural), kind, severity, times, sink);
    }

    /// Tells that an image was pulled.
    pub(super) fn pulled(&mut self, pulled: &Pulled<'_>, times: Times, sink: &mut Sink) {
        let Pulled { namespace, image, digest, pull_ns } = pulled;
        let draft = &mut self.draft;
        draft.clear();
        draft.text(names::HOST_NAME, &self.node);
        draft.text(names::CONTAINER_IMAGE_NAME, image);
        draft.end_entities();
        draft.text(names::TAPIO_CONTAINER_NAMESPACE, namespace);
        draft.text(names::TAPIO_IMAGE_DIGEST, digest);
        draft.int(names::TAPIO_IMAGE_PULL_NS, *pull_ns);
        draft.message(format_args!("image {image} was pulled"));
        let natural = format!("{namespace}|{image}|{digest}|{}", times.time_ns);
        let id = EventId::from_natural("container", &natural);
        self.offer(id, names::CONTAINER_IMAGE_PULLED, Severity::INFO, times, sink);
    }

    fn entities(&mut self, key: &Key, facts: &Facts, pid: u32) {
        let draft = &mut self.draft;
        draft.clear();
        draft.text(names::HOST_NAME, &self.node);
        let uid = Some(facts.pod_uid.as_str()).filter(|uid| !uid.is_empty());
        let whose = Subject { container_id: Some(&key.id), pod_uid: uid };
        draft.enrich(whose, &self.directory);
        draft.text(names::CONTAINER_NAME, &facts.name);
        if pid != 0 {
            draft.int(names::PROCESS_PID, pid);
        }
        draft.end_entities();
    }

    fn offer(
        &mut self,
        id: EventId,
        kind: Name,
        severity: Severity,
        times: Times,
        sink: &mut Sink,
    ) {
        let Times { time_ns, observed_ns } = times;
        let is_time = time_ns > 0 && time_ns <= observed_ns.saturating_add(AHEAD_NS);
        let meta = EventHeader {
            id,
            time_ns: if is_time { time_ns } else { observed_ns },
            observed_ns,
            kind,
            source: names::CONTAINER,
            clock: ClockQuality::Micros,
            severity,
        };
        // The sink has counted an event it couldn't take.
        let _ = self.draft.offer(&meta, sink);
    }
}

/// How it ended, and how bad that is.
fn exit(draft: &mut EventBuilder, who: &Who<'_>, code: Option<u32>) -> Severity {
    let Some(code) = code else {
        draft.message(format_args!("{who} ended while the runtime couldn't be asked"));
        return Severity::INFO;
    };
    draft.int(names::PROCESS_EXIT_CODE, code);
    draft.message(format_args!("{who} exited with code {code}"));
    if code == 0 {
        return Severity::INFO;
    }
    draft.word(names::ERROR_TYPE, "exit_code");
    Severity::WARN
}

/// A container as a person names it.
struct Who<'a> {
    key: &'a Key,
    facts: &'a Facts,
}

impl std::fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Facts { name, pod_name, pod_namespace, sandbox, .. } = self.facts;
        match (pod_name.is_empty(), name.is_empty()) {
            _ if *sandbox => write!(f, "the sandbox of {pod_namespace}/{pod_name}"),
            (false, _) => write!(f, "container {name} of {pod_namespace}/{pod_name}"),
            (true, false) => write!(f, "container {name}"),
            (true, true) => write!(f, "container {}", self.key.id),
        }
    }
}
