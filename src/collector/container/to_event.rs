//! From a transition of a container to an event, and updates of the entity directory.

use std::sync::Arc;

use super::table::{Facts, Key, TrackedContainer, Transition};
use crate::events::enrich::Subject;
use crate::events::event_builder::{EventBuilder, EventHeader};
use crate::runtime::Site;
use tapio_core::event::{ClockQuality, EventId, Name, Severity, names};
use tapio_core::identity::{Container, Directory};
use tapio_core::ring::Sink;

/// How far a time may be ahead of the observation; one further ahead is replaced by it.
const MAX_AHEAD_NS: u64 = 1_000_000_000;

/// Builds and emits the collector's events, and updates the directory.
pub(super) struct EventWriter {
    node: Arc<str>,
    directory: Arc<Directory>,
    event: EventBuilder,
}

/// Time of a transition, and of its observation.
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
    /// Time since its manifest arrived.
    pub(super) pull_ns: u64,
}

impl EventWriter {
    pub(super) fn new(site: &Site) -> Self {
        Self {
            node: Arc::clone(&site.node),
            directory: Arc::clone(&site.directory),
            event: EventBuilder::default(),
        }
    }

    /// Adds a container and its pod to the directory.
    pub(super) fn update_directory(&self, key: &Key, facts: &Facts, now_ns: u64) {
        let in_pod = !facts.pod_uid.is_empty();
        let text = |text: &str| Arc::<str>::from(text);
        if in_pod {
            let Facts { pod_uid, pod_namespace, pod_name, .. } = facts;
            self.directory.pod_named(pod_uid, pod_namespace, pod_name, now_ns);
        }
        let container = Container {
            id: text(&key.id),
            // Only containers of a pod have a name within it.
            name: text(if in_pod && !facts.sandbox { &facts.name } else { "" }),
            image: text(&facts.image),
            pod_uid: text(&facts.pod_uid),
            pod_name: text(&facts.pod_name),
            pod_namespace: text(&facts.pod_namespace),
        };
        self.directory.container_seen(container, now_ns);
    }

    /// Marks a container as gone in the directory; with a sandbox, its pod as well.
    pub(super) fn remove_from_directory(&self, key: &Key, facts: &Facts, now_ns: u64) {
        self.directory.container_gone(&key.id, now_ns);
        if facts.sandbox {
            self.directory.pod_left(&facts.pod_uid, now_ns);
        }
    }

    /// Emits a transition of a container.
    pub(super) fn transition(
        &mut self,
        key: &Key,
        container: &TrackedContainer,
        transition: Transition,
        times: Times,
        sink: &mut Sink,
    ) {
        let facts = &container.facts;
        let process = match transition {
            Transition::Started { pid } => pid,
            _ => 0,
        };
        self.entities(key, facts, process);
        let event = &mut self.event;
        event.text(names::TAPIO_CONTAINER_NAMESPACE, &key.namespace);
        if facts.sandbox {
            event.bool(names::TAPIO_CONTAINER_SANDBOX, true);
        }
        if let Some(restarts) = facts.restarts {
            event.int(names::K8S_CONTAINER_RESTART_COUNT, restarts);
        }
        let name = DisplayName { key, facts };
        let (kind, severity, verb, pid) = match transition {
            Transition::Created => {
                event.message(format_args!("{name} was created"));
                (names::CONTAINER_CREATED, Severity::INFO, "created", 0)
            }
            Transition::Started { pid } => {
                event.message(format_args!("{name} started"));
                (names::CONTAINER_STARTED, Severity::INFO, "started", pid)
            }
            Transition::Exited { pid, code } => {
                if container.started_ns > 0 && times.time_ns > container.started_ns {
                    let duration_ns = times.time_ns - container.started_ns;
                    event.int(names::TAPIO_CONTAINER_DURATION_NS, duration_ns);
                }
                let severity = exit(event, &name, code);
                (names::CONTAINER_EXITED, severity, "exited", pid)
            }
            Transition::OutOfMemory => {
                if facts.sandbox {
                    event.message(format_args!(
                        "the runtime reported an OOM kill in {name}; container unknown"
                    ));
                } else {
                    event.message(format_args!("the runtime reported an OOM kill in {name}"));
                }
                (names::CONTAINER_OOM, Severity::ERROR, "oom", 0)
            }
            Transition::Deleted => {
                event.message(format_args!("{name} was deleted"));
                (names::CONTAINER_DELETED, Severity::INFO, "deleted", 0)
            }
        };
        // A container may run out of memory many times.
        let nth = match transition {
            Transition::OutOfMemory => times.time_ns,
            _ => u64::from(pid),
        };
        let Key { namespace, id } = key;
        let natural = format!("{namespace}|{id}|{}|{verb}|{nth}", facts.created_ns);
        self.offer(EventId::from_natural("container", &natural), kind, severity, times, sink);
    }

    /// Emits a pulled image.
    pub(super) fn pulled(&mut self, pulled: &Pulled<'_>, times: Times, sink: &mut Sink) {
        let Pulled { namespace, image, digest, pull_ns } = pulled;
        let event = &mut self.event;
        event.clear();
        event.text(names::HOST_NAME, &self.node);
        event.text(names::CONTAINER_IMAGE_NAME, image);
        event.end_entities();
        event.text(names::TAPIO_CONTAINER_NAMESPACE, namespace);
        event.text(names::TAPIO_IMAGE_DIGEST, digest);
        event.int(names::TAPIO_IMAGE_PULL_NS, *pull_ns);
        event.message(format_args!("image {image} was pulled"));
        let natural = format!("{namespace}|{image}|{digest}|{}", times.time_ns);
        let id = EventId::from_natural("container", &natural);
        self.offer(id, names::CONTAINER_IMAGE_PULLED, Severity::INFO, times, sink);
    }

    /// Starts an event with its entities. `pid`: the process; 0 for none.
    fn entities(&mut self, key: &Key, facts: &Facts, pid: u32) {
        let event = &mut self.event;
        event.clear();
        event.text(names::HOST_NAME, &self.node);
        let uid = Some(facts.pod_uid.as_str()).filter(|uid| !uid.is_empty());
        let subject = Subject { container_id: Some(&key.id), pod_uid: uid };
        event.enrich(subject, &self.directory);
        event.text(names::CONTAINER_NAME, &facts.name);
        if pid != 0 {
            event.int(names::PROCESS_PID, pid);
        }
        event.end_entities();
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
        let is_time = time_ns > 0 && time_ns <= observed_ns.saturating_add(MAX_AHEAD_NS);
        let meta = EventHeader {
            id,
            time_ns: if is_time { time_ns } else { observed_ns },
            observed_ns,
            kind,
            source: names::CONTAINER,
            clock: ClockQuality::Micros,
            severity,
        };
        // The sink counts an event that it rejects.
        let _ = self.event.offer(&meta, sink);
    }
}

/// Adds the exit code and the message of an exit. Returns its severity.
fn exit(event: &mut EventBuilder, name: &DisplayName<'_>, code: Option<u32>) -> Severity {
    let Some(code) = code else {
        event.message(format_args!("{name} exited; its exit code is unknown"));
        return Severity::INFO;
    };
    event.int(names::PROCESS_EXIT_CODE, code);
    event.message(format_args!("{name} exited with code {code}"));
    if code == 0 {
        return Severity::INFO;
    }
    event.word(names::ERROR_TYPE, "exit_code");
    Severity::WARN
}

/// A container's name in messages.
struct DisplayName<'a> {
    key: &'a Key,
    facts: &'a Facts,
}

impl std::fmt::Display for DisplayName<'_> {
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
