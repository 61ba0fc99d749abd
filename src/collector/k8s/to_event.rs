//! Builds events: kinds, attributes and entities as listed in docs/kinds.md.

use std::fmt::Write as _;
use std::sync::Arc;

use super::conditions::{ConditionChange, RolloutChange, RolloutPhase};
use super::events::EventScope;
use super::objects::{Deployment, Event};
use super::pod_lifecycle::{ContainerEnd, PodFact, Transition};
use crate::events::enrich::workload_key;
use crate::events::event_builder::{EventBuilder, EventHeader};
use tapio_core::event::{ClockQuality, EventId, Name, Severity, names};
use tapio_core::identity::{Directory, Pod};
use tapio_core::ring::Sink;

/// The kubelet's longest back-off between two starts of a container.
const MAX_BACK_OFF_NS: u64 = 300_000_000_000;

/// Resolution of the API's times.
const SECOND_NS: u64 = 1_000_000_000;

/// The source part of event ids.
const SOURCE: &str = "k8s";

/// Builds events and writes them into the sink.
pub(super) struct EventWriter {
    pub(super) host: Arc<str>,
    /// Identifies this start of the agent. Relations are emitted again after each start, as other
    /// events.
    origin: u64,
    directory: Arc<Directory>,
    event: EventBuilder,
    natural_key: String,
}

/// An event's time and its clock.
struct EventTime {
    time_ns: u64,
    clock: ClockQuality,
}

/// The API's time, in whole seconds or microseconds; the agent's clock where the API has none.
///
/// The API truncates a time to whole seconds: the fact happened up to a second later, and not after
/// it was observed. The event is placed at the end of that interval, behind its causes: a ready pod
/// after its container's start.
fn event_time(api_ns: Option<u64>, now_ns: u64) -> EventTime {
    match api_ns {
        Some(ns) if ns % SECOND_NS != 0 => EventTime { time_ns: ns, clock: ClockQuality::Micros },
        Some(ns) => {
            let time_ns = now_ns.clamp(ns, ns.saturating_add(SECOND_NS - 1));
            EventTime { time_ns, clock: ClockQuality::Seconds }
        }
        None => EventTime { time_ns: now_ns, clock: ClockQuality::Micros },
    }
}

/// The time of a transition. Back-off has no time of its own in the API: the end that it follows
/// can be ten seconds older, which would misplace it among other sources' events. Its time is
/// therefore that of its observation, unless that was long after the end.
fn transition_time(transition: &Transition, now_ns: u64) -> EventTime {
    let api_ns = transition.time_ns;
    let is_recent = |ns: u64| now_ns.saturating_sub(ns) < MAX_BACK_OFF_NS;
    match transition.fact {
        PodFact::CrashLoop { .. } if api_ns.is_some_and(is_recent) => event_time(None, now_ns),
        // Causes of other facts are placed at the start of their second, before them.
        PodFact::Scheduled | PodFact::Terminating { .. } => {
            event_time(api_ns, api_ns.unwrap_or(now_ns))
        }
        _ => event_time(api_ns, now_ns),
    }
}

impl EventWriter {
    pub(super) fn new(host: Arc<str>, origin: u64, directory: Arc<Directory>) -> Self {
        Self { host, origin, directory, event: EventBuilder::default(), natural_key: String::new() }
    }

    fn offer(
        &mut self,
        kind: Name,
        severity: Severity,
        time: &EventTime,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let meta = EventHeader {
            id: EventId::from_natural(SOURCE, &self.natural_key),
            time_ns: time.time_ns,
            observed_ns: now_ns,
            kind,
            source: names::K8S,
            clock: time.clock,
            severity,
        };
        // The sink counts an event that it can't accept.
        let _ = self.event.offer(&meta, sink);
    }

    fn set_natural_key(&mut self, text: std::fmt::Arguments<'_>) {
        self.natural_key.clear();
        let _ = self.natural_key.write_fmt(text);
    }

    /// Emits a fact of a pod of this node.
    pub(super) fn pod(&mut self, pod: &Pod, transition: &Transition, now_ns: u64, sink: &mut Sink) {
        self.set_natural_key(format_args!("{}/{}", pod.uid, transition.natural_key));
        let event = &mut self.event;
        event.clear();
        event.text(names::HOST_NAME, &self.host);
        event.pod(pod);
        match &transition.fact {
            PodFact::CrashLoop { container, .. } | PodFact::OomKilled { container } => {
                event.text(names::CONTAINER_ID, &container.id);
                event.text(names::K8S_CONTAINER_NAME, &container.name);
                event.text(names::CONTAINER_IMAGE_NAME, &container.image);
            }
            PodFact::Pending { container, .. } => event.text(names::K8S_CONTAINER_NAME, container),
            _ => {}
        }
        event.end_entities();
        pod_attributes(event, pod);
        // The unit that it failed to connect to before.
        if let PodFact::CrashLoop { .. } = transition.fact
            && let Some(unit) = self.directory.unreachable_unit(&pod.uid, now_ns)
        {
            event.text(names::TAPIO_PEER_SYSTEMD_UNIT, &unit);
        }
        let (kind, severity) = fact_attributes(event, pod, &transition.fact);
        self.offer(kind, severity, &transition_time(transition, now_ns), now_ns, sink);
    }

    /// Emits a change of a condition of this node.
    pub(super) fn condition(
        &mut self,
        uid: &str,
        node: &str,
        change: &ConditionChange,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        self.set_natural_key(format_args!("{uid}/{}", change.natural_key));
        let event = &mut self.event;
        event.clear();
        event.text(names::HOST_NAME, &self.host);
        event.text(names::K8S_NODE_NAME, node);
        event.end_entities();
        event.text(names::K8S_NODE_CONDITION_TYPE, &change.condition);
        event.word(names::K8S_NODE_CONDITION_STATUS, change.status);
        event.text(names::TAPIO_K8S_CONDITION_REASON, &change.reason);
        event.message(format_args!("{}", change.message));
        let severity = if change.is_bad { Severity::ERROR } else { Severity::INFO };
        self.offer(
            names::K8S_NODE_CONDITION,
            severity,
            &event_time(change.time_ns, now_ns),
            now_ns,
            sink,
        );
    }

    /// Emits a change of a Deployment's rollout.
    pub(super) fn rollout(
        &mut self,
        deployment: &Deployment,
        change: &RolloutChange,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let meta = &deployment.metadata;
        self.set_natural_key(format_args!("{}/{}", meta.uid, change.natural_key));
        let event = &mut self.event;
        event.clear();
        event.text(names::K8S_NAMESPACE_NAME, &meta.namespace);
        event.text(names::K8S_DEPLOYMENT_NAME, &meta.name);
        event.end_entities();
        event.word(names::TAPIO_K8S_ROLLOUT_STATE, change.phase.as_str());
        event.text(names::TAPIO_K8S_ROLLOUT_REASON, &change.reason);
        event.int(names::TAPIO_K8S_REVISION, change.revision);
        event.message(format_args!("{}", change.message));
        let severity =
            if change.phase == RolloutPhase::Failed { Severity::ERROR } else { Severity::INFO };
        self.offer(
            names::K8S_DEPLOYMENT_ROLLOUT,
            severity,
            &event_time(change.time_ns, now_ns),
            now_ns,
            sink,
        );
    }

    /// Emits an Event. `pod`: the pod that it is about, if known.
    pub(super) fn event(
        &mut self,
        k8s_event: &Event,
        pod: Option<&Pod>,
        scope: EventScope,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let count = k8s_event.count();
        self.set_natural_key(format_args!("{}/{}", k8s_event.metadata.uid, count.unwrap_or(0)));
        let about = &k8s_event.involved_object;
        let event = &mut self.event;
        event.clear();
        if scope != EventScope::NoNode {
            event.text(names::HOST_NAME, &self.host);
        } else if let Some(node) = pod.map(|p| &p.node).filter(|n| !n.is_empty()) {
            event.text(names::HOST_NAME, node);
        }
        object_entities(event, k8s_event, pod);
        event.end_entities();
        event.text(names::K8S_EVENT_REASON, &k8s_event.reason);
        event.text(names::TAPIO_K8S_EVENT_TYPE, &k8s_event.r#type);
        event.text(names::TAPIO_K8S_EVENT_COMPONENT, k8s_event.component());
        event.text(names::TAPIO_K8S_OBJECT_KIND, &about.kind);
        event.text(names::TAPIO_K8S_OBJECT_NAME, &about.name);
        if let Some(count) = count {
            event.int(names::K8S_EVENT_COUNT, count);
        }
        match scope {
            EventScope::ThisNodeReplayed => event.bool(names::TAPIO_K8S_EVENT_REREAD, true),
            EventScope::WatchedPod => event.bool(names::TAPIO_K8S_POD_WATCHED, true),
            EventScope::ThisNode | EventScope::NoNode => {}
        }
        if let Some(pod) = pod {
            pod_attributes(event, pod);
        }
        event.message(format_args!("{}", k8s_event.message));
        let severity =
            if &*k8s_event.r#type == "Warning" { Severity::WARN } else { Severity::INFO };
        self.offer(
            names::K8S_EVENT,
            severity,
            &event_time(k8s_event.time_ns(), now_ns),
            now_ns,
            sink,
        );
    }

    /// Emits an edge of the entity graph, or its end.
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
        // The same edge may begin and end repeatedly: the time makes its ids differ.
        self.set_natural_key(format_args!(
            "{origin:x}/{relation}/{}/{}/{ended}/{now_ns}",
            from.1, to.1
        ));
        self.begin_edge(from);
        self.event.word(names::TAPIO_RELATION_TYPE, relation);
        self.event.word(names::TAPIO_RELATION_TO_TYPE, to.0);
        self.event.text(names::TAPIO_RELATION_TO_NAME, to.1);
        if ended {
            self.event.bool(names::TAPIO_RELATION_ENDED, true);
        }
        let time = event_time(None, now_ns);
        self.offer(names::ENTITY_RELATION, Severity::INFO, &time, now_ns, sink);
    }

    /// Emits the criticality of an entity.
    pub(super) fn criticality(
        &mut self,
        from: (&'static str, &str),
        criticality: &str,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let origin = self.origin;
        self.set_natural_key(format_args!("{origin:x}/matters/{}/{criticality}/{now_ns}", from.1));
        self.begin_edge(from);
        self.event.text(names::TAPIO_CRITICALITY, criticality);
        let time = event_time(None, now_ns);
        self.offer(names::ENTITY_RELATION, Severity::INFO, &time, now_ns, sink);
    }

    fn begin_edge(&mut self, from: (&'static str, &str)) {
        let event = &mut self.event;
        event.clear();
        event.text(names::HOST_NAME, &self.host);
        event.end_entities();
        event.word(names::TAPIO_RELATION_FROM_TYPE, from.0);
        event.text(names::TAPIO_RELATION_FROM_NAME, from.1);
    }
}

/// Adds the attributes of all events of a pod.
fn pod_attributes(event: &mut EventBuilder, pod: &Pod) {
    if pod.rolling_out {
        event.word(names::TAPIO_K8S_ROLLOUT_STATE, RolloutPhase::Progressing.as_str());
    }
    if let Some(criticality) = &pod.criticality {
        event.text(names::TAPIO_CRITICALITY, criticality);
    }
    if let Some(service) = pod.services.first() {
        event.text(names::K8S_SERVICE_NAME, service);
    }
    if let Some(address) = pod.addresses.first() {
        event.text(names::K8S_POD_IP, address);
    }
}

/// Adds a fact's attributes and message. Returns its kind and severity.
fn fact_attributes(event: &mut EventBuilder, pod: &Pod, fact: &PodFact) -> (Name, Severity) {
    let name = format_args!("{}/{}", pod.namespace, pod.name);
    if let (PodFact::Scheduled | PodFact::Running, Some(workload)) = (fact, &pod.workload) {
        event.text(names::TAPIO_K8S_OWNER_KIND, &workload.kind);
    }
    match fact {
        PodFact::Scheduled => {
            event.message(format_args!("{name} is scheduled"));
            (names::K8S_POD_SCHEDULED, Severity::INFO)
        }
        PodFact::Running => {
            event.message(format_args!("{name} is running"));
            (names::K8S_POD_RUNNING, Severity::INFO)
        }
        PodFact::Ready { startup_ns, restarts, last_reason } => {
            if let Some(startup_ns) = startup_ns {
                event.int(names::TAPIO_K8S_STARTUP_NS, *startup_ns);
            }
            event.int(names::K8S_CONTAINER_RESTART_COUNT, *restarts);
            event.text(names::K8S_CONTAINER_STATUS_LAST_TERMINATED_REASON, last_reason);
            event.message(format_args!("{name} is ready"));
            (names::K8S_POD_READY, Severity::INFO)
        }
        PodFact::Pending { for_ns, reason, .. } => {
            event.int(names::TAPIO_K8S_PENDING_NS, *for_ns);
            event.text(names::K8S_CONTAINER_STATUS_REASON, reason);
            let minutes = for_ns / 60_000_000_000;
            event.message(format_args!("{name} has been pending for {minutes} min"));
            (names::K8S_POD_PENDING, Severity::WARN)
        }
        PodFact::CrashLoop { container, message } => {
            event.word(names::K8S_CONTAINER_STATUS_REASON, "CrashLoopBackOff");
            event.text(names::K8S_CONTAINER_STATUS_LAST_TERMINATED_REASON, &container.last_reason);
            end_attributes(event, container);
            event.message(format_args!("{message}"));
            (names::K8S_POD_CRASH_LOOP, Severity::ERROR)
        }
        PodFact::OomKilled { container } => {
            end_attributes(event, container);
            event.message(format_args!("container {} of {name} was OOM-killed", container.name));
            (names::K8S_POD_OOM_KILLED, Severity::ERROR)
        }
        PodFact::Evicted { reason, message } => {
            event.text(names::K8S_POD_STATUS_REASON, reason);
            event.message(format_args!("{message}"));
            (names::K8S_POD_EVICTED, Severity::ERROR)
        }
        PodFact::Terminating { grace_s, finalizers } => {
            event.int(names::TAPIO_K8S_GRACE_PERIOD_S, grace_s.unwrap_or(0));
            event.text(names::TAPIO_K8S_FINALIZERS, finalizers);
            event.message(format_args!("{name} is terminating"));
            (names::K8S_POD_TERMINATING, Severity::INFO)
        }
        PodFact::Deleted => {
            event.message(format_args!("{name} is deleted"));
            (names::K8S_POD_DELETED, Severity::INFO)
        }
    }
}

fn end_attributes(event: &mut EventBuilder, container: &ContainerEnd) {
    if let Some(code) = container.exit_code {
        event.int(names::PROCESS_EXIT_CODE, code);
    }
    event.int(names::K8S_CONTAINER_RESTART_COUNT, container.restarts);
}

/// Adds the entity keys of an Event's object.
fn object_entities(event: &mut EventBuilder, k8s_event: &Event, pod: Option<&Pod>) {
    let about = &k8s_event.involved_object;
    match &*about.kind {
        "Pod" => {
            match pod {
                Some(pod) => event.pod(pod),
                None => {
                    event.text(names::K8S_POD_UID, &about.uid);
                    event.text(names::K8S_POD_NAME, &about.name);
                    event.text(names::K8S_NAMESPACE_NAME, &about.namespace);
                }
            }
            event.text(names::K8S_CONTAINER_NAME, about.container());
        }
        "Node" => event.text(names::K8S_NODE_NAME, &about.name),
        kind => {
            event.text(names::K8S_NAMESPACE_NAME, &about.namespace);
            if let Some(key) = workload_key(kind) {
                event.text(key, &about.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_has_time_of_observation_unless_long_after() {
        const SECOND: u64 = 1_000_000_000;
        let fact = PodFact::CrashLoop { container: ContainerEnd::default(), message: "".into() };
        let at = |fact: PodFact, time_ns, now_ns| {
            let transition = Transition { fact, time_ns, natural_key: String::new() };
            let time = transition_time(&transition, now_ns);
            (time.time_ns, time.clock)
        };
        let seen = 1_012 * SECOND + 5;
        assert_eq!(at(fact.clone(), Some(1_000 * SECOND), seen), (seen, ClockQuality::Micros));
        let (long_after, end) = (2_000 * SECOND, 1_001 * SECOND - 1);
        assert_eq!(at(fact, Some(1_000 * SECOND), long_after), (end, ClockQuality::Seconds));
        assert_eq!(at(PodFact::Deleted, None, seen), (seen, ClockQuality::Micros));
    }

    #[test]
    fn truncated_time_is_placed_at_observation_or_end_of_second() {
        const SECOND: u64 = 1_000_000_000;
        let at = |now_ns| event_time(Some(1_000 * SECOND), now_ns).time_ns;
        let scheduled = Transition {
            fact: PodFact::Scheduled,
            time_ns: Some(1_000 * SECOND),
            natural_key: String::new(),
        };
        assert_eq!(transition_time(&scheduled, 1_003 * SECOND).time_ns, 1_000 * SECOND);
        assert_eq!(at(1_000 * SECOND + 7), 1_000 * SECOND + 7);
        assert_eq!(at(1_003 * SECOND), 1_001 * SECOND - 1);
        assert_eq!(at(999 * SECOND), 1_000 * SECOND, "the server's clock is ahead");
        assert_eq!(event_time(Some(SECOND + 5_000), 9 * SECOND).time_ns, SECOND + 5_000);
    }
}
