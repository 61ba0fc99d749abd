//! From what happened to events: kinds, attributes and entities as docs/kinds.md has them.

use std::fmt::Write as _;
use std::sync::Arc;

use super::conditions::{Changed, RolledOut, Rollout};
use super::events::Of;
use super::objects::{Deployment, Event};
use super::pods::{Container, Transition, What};
use crate::events::enrich::workload_key;
use crate::events::event_builder::{EventBuilder, EventHeader};
use tapio_core::event::{ClockQuality, EventId, Name, Severity, names};
use tapio_core::identity::{Directory, Pod};
use tapio_core::ring::Sink;

/// The kubelet waits no longer than this between two starts of a container.
const LONGEST_BACK_OFF_NS: u64 = 300_000_000_000;

/// The API's clock.
const TICK_NS: u64 = 1_000_000_000;

/// The source of all ids here.
const SOURCE: &str = "k8s";

/// Puts events together.
pub(super) struct Teller {
    pub(super) host: Arc<str>,
    /// Identifies this start of the agent: what the graph is told again after each start isn't the same event.
    pub(super) origin: u64,
    directory: Arc<Directory>,
    draft: EventBuilder,
    natural: String,
}

/// Where an event stands in time.
struct When {
    ns: u64,
    clock: ClockQuality,
}

/// A time of the API's, which has whole seconds but where it has microseconds; else the agent's own.
///
/// A time in whole seconds is cut off, so what it tells was up to a second later, and no later than it was seen. It
/// stands at the end of that, behind what led to it: a ready pod behind its container's start.
fn when(api_ns: Option<u64>, now_ns: u64) -> When {
    match api_ns {
        Some(ns) if ns % TICK_NS != 0 => When { ns, clock: ClockQuality::Micros },
        Some(ns) => {
            let ns = now_ns.clamp(ns, ns.saturating_add(TICK_NS - 1));
            When { ns, clock: ClockQuality::Seconds }
        }
        None => When { ns: now_ns, clock: ClockQuality::Micros },
    }
}

/// When a transition was. Back-off has no time of its own in the API: the end it follows can be ten seconds
/// older, too old for its place among other sources' events, so it is when it was seen, unless that was long after.
fn time_of(transition: &Transition, now_ns: u64) -> When {
    let api_ns = transition.time_ns;
    let is_new = |ns: u64| now_ns.saturating_sub(ns) < LONGEST_BACK_OFF_NS;
    match transition.what {
        What::CrashLoop { .. } if api_ns.is_some_and(is_new) => when(None, now_ns),
        // What others follow upon: it stands at the beginning of its second, before them.
        What::Scheduled | What::Terminating { .. } => when(api_ns, api_ns.unwrap_or(now_ns)),
        _ => when(api_ns, now_ns),
    }
}

impl Teller {
    pub(super) fn new(host: Arc<str>, origin: u64, directory: Arc<Directory>) -> Self {
        Self { host, origin, directory, draft: EventBuilder::default(), natural: String::new() }
    }

    fn offer(&mut self, kind: Name, severity: Severity, when: &When, now_ns: u64, sink: &mut Sink) {
        let meta = EventHeader {
            id: EventId::from_natural(SOURCE, &self.natural),
            time_ns: when.ns,
            observed_ns: now_ns,
            kind,
            source: names::K8S,
            clock: when.clock,
            severity,
        };
        // The sink has counted an event it couldn't take.
        let _ = self.draft.offer(&meta, sink);
    }

    fn natural(&mut self, text: std::fmt::Arguments<'_>) {
        self.natural.clear();
        let _ = self.natural.write_fmt(text);
    }

    /// Something of a pod of this node.
    pub(super) fn pod(&mut self, pod: &Pod, transition: &Transition, now_ns: u64, sink: &mut Sink) {
        self.natural(format_args!("{}/{}", pod.uid, transition.natural));
        let draft = &mut self.draft;
        draft.clear();
        draft.text(names::HOST_NAME, &self.host);
        draft.pod(pod);
        match &transition.what {
            What::CrashLoop { container, .. } | What::OomKilled { container } => {
                draft.text(names::CONTAINER_ID, &container.id);
                draft.text(names::K8S_CONTAINER_NAME, &container.name);
                draft.text(names::CONTAINER_IMAGE_NAME, &container.image);
            }
            What::Pending { container, .. } => draft.text(names::K8S_CONTAINER_NAME, container),
            _ => {}
        }
        draft.end_entities();
        of_pod(draft, pod);
        // Whom it couldn't reach before it came to this.
        if let What::CrashLoop { .. } = transition.what
            && let Some(unit) = self.directory.turned_away_by(&pod.uid, now_ns)
        {
            draft.text(names::TAPIO_PEER_SYSTEMD_UNIT, &unit);
        }
        let (kind, severity) = life(draft, pod, &transition.what);
        self.offer(kind, severity, &time_of(transition, now_ns), now_ns, sink);
    }

    /// A condition of this node.
    pub(super) fn condition(
        &mut self,
        uid: &str,
        node: &str,
        changed: &Changed,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        self.natural(format_args!("{uid}/{}", changed.natural));
        let draft = &mut self.draft;
        draft.clear();
        draft.text(names::HOST_NAME, &self.host);
        draft.text(names::K8S_NODE_NAME, node);
        draft.end_entities();
        draft.text(names::K8S_NODE_CONDITION_TYPE, &changed.condition);
        draft.word(names::K8S_NODE_CONDITION_STATUS, changed.status);
        draft.text(names::TAPIO_K8S_CONDITION_REASON, &changed.reason);
        draft.message(format_args!("{}", changed.message));
        let severity = if changed.is_bad { Severity::ERROR } else { Severity::INFO };
        self.offer(
            names::K8S_NODE_CONDITION,
            severity,
            &when(changed.time_ns, now_ns),
            now_ns,
            sink,
        );
    }

    /// A Deployment's rollout.
    pub(super) fn rollout(
        &mut self,
        deployment: &Deployment,
        told: &RolledOut,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let meta = &deployment.metadata;
        self.natural(format_args!("{}/{}", meta.uid, told.natural));
        let draft = &mut self.draft;
        draft.clear();
        draft.text(names::K8S_NAMESPACE_NAME, &meta.namespace);
        draft.text(names::K8S_DEPLOYMENT_NAME, &meta.name);
        draft.end_entities();
        draft.word(names::TAPIO_K8S_ROLLOUT_STATE, told.state.word());
        draft.text(names::TAPIO_K8S_ROLLOUT_REASON, &told.reason);
        draft.int(names::TAPIO_K8S_REVISION, told.revision);
        draft.message(format_args!("{}", told.message));
        let severity = if told.state == Rollout::Failed { Severity::ERROR } else { Severity::INFO };
        self.offer(
            names::K8S_DEPLOYMENT_ROLLOUT,
            severity,
            &when(told.time_ns, now_ns),
            now_ns,
            sink,
        );
    }

    /// An Event. `pod` is the pod it is about, where it is known; `host` where it happened.
    pub(super) fn event(
        &mut self,
        event: &Event,
        pod: Option<&Pod>,
        of: Of,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let count = event.count();
        self.natural(format_args!("{}/{}", event.metadata.uid, count.unwrap_or(0)));
        let about = &event.involved_object;
        let draft = &mut self.draft;
        draft.clear();
        if of != Of::NoNode {
            draft.text(names::HOST_NAME, &self.host);
        } else if let Some(node) = pod.map(|p| &p.node).filter(|n| !n.is_empty()) {
            draft.text(names::HOST_NAME, node);
        }
        entities(draft, event, pod);
        draft.end_entities();
        draft.text(names::K8S_EVENT_REASON, &event.reason);
        draft.text(names::TAPIO_K8S_EVENT_TYPE, &event.r#type);
        draft.text(names::TAPIO_K8S_EVENT_COMPONENT, event.component());
        draft.text(names::TAPIO_K8S_OBJECT_KIND, &about.kind);
        draft.text(names::TAPIO_K8S_OBJECT_NAME, &about.name);
        if let Some(count) = count {
            draft.int(names::K8S_EVENT_COUNT, count);
        }
        if of == Of::ThisNodesPast {
            draft.bool(names::TAPIO_K8S_EVENT_REREAD, true);
        }
        if let Some(pod) = pod {
            of_pod(draft, pod);
        }
        draft.message(format_args!("{}", event.message));
        let severity = if &*event.r#type == "Warning" { Severity::WARN } else { Severity::INFO };
        self.offer(names::K8S_EVENT, severity, &when(event.time_ns(), now_ns), now_ns, sink);
    }

    /// An edge of the entity graph, or its end.
    pub(super) fn relation(
        &mut self,
        from: (&'static str, &str),
        relation: &'static str,
        to: (&'static str, &str),
        ended: bool,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let origin = self.origin;
        // An edge may come and go and come: the time tells them apart.
        self.natural(format_args!("{origin:x}/{relation}/{}/{}/{ended}/{now_ns}", from.1, to.1));
        self.edge(from);
        self.draft.word(names::TAPIO_RELATION_TYPE, relation);
        self.draft.word(names::TAPIO_RELATION_TO_TYPE, to.0);
        self.draft.text(names::TAPIO_RELATION_TO_NAME, to.1);
        if ended {
            self.draft.bool(names::TAPIO_RELATION_ENDED, true);
        }
        let when = when(None, now_ns);
        self.offer(names::ENTITY_RELATION, Severity::INFO, &when, now_ns, sink);
    }

    /// How much something matters.
    pub(super) fn matters(
        &mut self,
        from: (&'static str, &str),
        criticality: &str,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let origin = self.origin;
        self.natural(format_args!("{origin:x}/matters/{}/{criticality}/{now_ns}", from.1));
        self.edge(from);
        self.draft.text(names::TAPIO_CRITICALITY, criticality);
        let when = when(None, now_ns);
        self.offer(names::ENTITY_RELATION, Severity::INFO, &when, now_ns, sink);
    }

    fn edge(&mut self, from: (&'static str, &str)) {
        let draft = &mut self.draft;
        draft.clear();
        draft.text(names::HOST_NAME, &self.host);
        draft.end_entities();
        draft.word(names::TAPIO_RELATION_FROM_TYPE, from.0);
        draft.text(names::TAPIO_RELATION_FROM_NAME, from.1);
    }
}

/// What all events of a pod say of it.
fn of_pod(draft: &mut EventBuilder, pod: &Pod) {
    if pod.rolling_out {
        draft.word(names::TAPIO_K8S_ROLLOUT_STATE, Rollout::Progressing.word());
    }
    if let Some(criticality) = &pod.criticality {
        draft.text(names::TAPIO_CRITICALITY, criticality);
    }
    if let Some(service) = pod.services.first() {
        draft.text(names::K8S_SERVICE_NAME, service);
    }
    if let Some(address) = pod.addresses.first() {
        draft.text(names::K8S_POD_IP, address);
    }
}

/// A transition's attributes and message; its kind and severity.
fn life(draft: &mut EventBuilder, pod: &Pod, what: &What) -> (Name, Severity) {
    let place = format_args!("{}/{}", pod.namespace, pod.name);
    if let (What::Scheduled | What::Running, Some(workload)) = (what, &pod.workload) {
        draft.text(names::TAPIO_K8S_OWNER_KIND, &workload.kind);
    }
    match what {
        What::Scheduled => {
            draft.message(format_args!("{place} has its node"));
            (names::K8S_POD_SCHEDULED, Severity::INFO)
        }
        What::Running => {
            draft.message(format_args!("{place} is running"));
            (names::K8S_POD_RUNNING, Severity::INFO)
        }
        What::Ready { startup_ns, restarts, last_reason } => {
            if let Some(startup_ns) = startup_ns {
                draft.int(names::TAPIO_K8S_STARTUP_NS, *startup_ns);
            }
            draft.int(names::K8S_CONTAINER_RESTART_COUNT, *restarts);
            draft.text(names::K8S_CONTAINER_STATUS_LAST_TERMINATED_REASON, last_reason);
            draft.message(format_args!("{place} is ready"));
            (names::K8S_POD_READY, Severity::INFO)
        }
        What::Pending { for_ns, reason, .. } => {
            draft.int(names::TAPIO_K8S_PENDING_NS, *for_ns);
            draft.text(names::K8S_CONTAINER_STATUS_REASON, reason);
            let minutes = for_ns / 60_000_000_000;
            draft.message(format_args!("{place} is pending for {minutes} min"));
            (names::K8S_POD_PENDING, Severity::WARN)
        }
        What::CrashLoop { container, message } => {
            draft.word(names::K8S_CONTAINER_STATUS_REASON, "CrashLoopBackOff");
            draft.text(names::K8S_CONTAINER_STATUS_LAST_TERMINATED_REASON, &container.last_reason);
            end_of(draft, container);
            draft.message(format_args!("{message}"));
            (names::K8S_POD_CRASH_LOOP, Severity::ERROR)
        }
        What::OomKilled { container } => {
            end_of(draft, container);
            draft.message(format_args!(
                "container {} of {place} was killed for want of memory",
                container.name
            ));
            (names::K8S_POD_OOM_KILLED, Severity::ERROR)
        }
        What::Evicted { reason, message } => {
            draft.text(names::K8S_POD_STATUS_REASON, reason);
            draft.message(format_args!("{message}"));
            (names::K8S_POD_EVICTED, Severity::ERROR)
        }
        What::Terminating { grace_s, finalizers } => {
            draft.int(names::TAPIO_K8S_GRACE_PERIOD_S, grace_s.unwrap_or(0));
            draft.text(names::TAPIO_K8S_FINALIZERS, finalizers);
            draft.message(format_args!("{place} is to be deleted"));
            (names::K8S_POD_TERMINATING, Severity::INFO)
        }
        What::Deleted => {
            draft.message(format_args!("{place} is gone"));
            (names::K8S_POD_DELETED, Severity::INFO)
        }
    }
}

fn end_of(draft: &mut EventBuilder, container: &Container) {
    if let Some(code) = container.exit_code {
        draft.int(names::PROCESS_EXIT_CODE, code);
    }
    draft.int(names::K8S_CONTAINER_RESTART_COUNT, container.restarts);
}

/// The entity keys of what an Event is about.
fn entities(draft: &mut EventBuilder, event: &Event, pod: Option<&Pod>) {
    let about = &event.involved_object;
    match &*about.kind {
        "Pod" => {
            match pod {
                Some(pod) => draft.pod(pod),
                None => {
                    draft.text(names::K8S_POD_UID, &about.uid);
                    draft.text(names::K8S_POD_NAME, &about.name);
                    draft.text(names::K8S_NAMESPACE_NAME, &about.namespace);
                }
            }
            draft.text(names::K8S_CONTAINER_NAME, about.container());
        }
        "Node" => draft.text(names::K8S_NODE_NAME, &about.name),
        kind => {
            draft.text(names::K8S_NAMESPACE_NAME, &about.namespace);
            if let Some(key) = workload_key(kind) {
                draft.text(key, &about.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_begins_when_it_is_seen() {
        const SECOND: u64 = 1_000_000_000;
        let what = What::CrashLoop { container: Container::default(), message: "".into() };
        let of = |what: What, time_ns, now_ns| {
            let when = time_of(&Transition { what, time_ns, natural: String::new() }, now_ns);
            (when.ns, when.clock)
        };
        let seen = 1_012 * SECOND + 5;
        assert_eq!(of(what.clone(), Some(1_000 * SECOND), seen), (seen, ClockQuality::Micros));
        let (long_after, end) = (2_000 * SECOND, 1_001 * SECOND - 1);
        assert_eq!(of(what, Some(1_000 * SECOND), long_after), (end, ClockQuality::Seconds));
        assert_eq!(of(What::Deleted, None, seen), (seen, ClockQuality::Micros));
    }

    #[test]
    fn a_time_of_whole_seconds_stands_where_it_was_seen_or_at_the_end_of_its_second() {
        const SECOND: u64 = 1_000_000_000;
        let of = |now_ns| when(Some(1_000 * SECOND), now_ns).ns;
        let begins = Transition {
            what: What::Scheduled,
            time_ns: Some(1_000 * SECOND),
            natural: String::new(),
        };
        assert_eq!(time_of(&begins, 1_003 * SECOND).ns, 1_000 * SECOND);
        assert_eq!(of(1_000 * SECOND + 7), 1_000 * SECOND + 7);
        assert_eq!(of(1_003 * SECOND), 1_001 * SECOND - 1);
        assert_eq!(of(999 * SECOND), 1_000 * SECOND, "the server's clock is ahead of ours");
        assert_eq!(when(Some(SECOND + 5_000), 9 * SECOND).ns, SECOND + 5_000);
    }
}
