//! Lifecycles: of a pod, of one start of a unit, of a process tree. All events of one lifecycle
//! carry one trace. When a lifecycle ends it is emitted as a story: those of pods and units always,
//! those of processes if they contain an error.

use crate::evidence::{
    self, AffectedEntity, EntityKind, ImpactSpec, MemberFacts, Observation, PendingStory,
};
use crate::key_table::KeyTable;
use crate::rules::{Home, RuleSet, home};
use crate::story::event_text;
use crate::story::trace::lifecycle_trace;
use tapio_core::event::{
    ArchivedEvent, EventId, Impact, Member, Name, Severity, Story, StoryState, TraceId, names,
};

/// The first events that a lifecycle keeps; as many again if they are errors.
const MAX_KEPT: usize = 16;
/// Faults that a lifecycle distinguishes, by entity and kind.
const MAX_FAULTS: usize = 8;
/// A lifecycle without an event for this long has ended.
const IDLE_NS: u64 = 30 * 60 * 1_000_000_000;

/// An event of a lifecycle, as small as possible: most lifecycles are never emitted.
struct LifecycleEvent {
    id: EventId,
    label: Option<Box<str>>,
    time_ns: u64,
    kind: Name,
    source: Name,
    severity: Severity,
    summary: Box<str>,
}

impl LifecycleEvent {
    fn new(event: &ArchivedEvent<'_>) -> Self {
        let label = event_text::label(event);
        Self {
            id: event.event_id(),
            label: (!label.is_empty()).then(|| label.into()),
            time_ns: event.time(),
            kind: event.kind_name(),
            source: event.source_name(),
            severity: event.severity(),
            summary: event_text::shortened(&event.message).into(),
        }
    }

    fn into_member(self) -> Member {
        let role = if self.severity >= Severity::ERROR { "symptom" } else { "lifecycle" };
        Member {
            id: self.id,
            label: self.label.unwrap_or_default().into(),
            time_ns: self.time_ns,
            kind: self.kind.text().into(),
            source: self.source.text().into(),
            severity: self.severity,
            role: role.into(),
            pattern: String::new(),
            summary: self.summary.into(),
        }
    }
}

/// One lifecycle that hasn't ended.
struct Lifecycle {
    trace: TraceId,
    /// `pod`, `unit` or `process`.
    entity: &'static str,
    name: String,
    members: Vec<LifecycleEvent>,
    total: u64,
    first_ns: u64,
    last_ns: u64,
    worst: Severity,
    /// Errors by entity and kind.
    faults: Vec<Observation>,
}

/// The lifecycles of the entities whose home is this shard.
pub(crate) struct LifecycleTracker {
    lifecycles: KeyTable<Lifecycle>,
    /// Stories of ended lifecycles, not yet taken.
    pub(crate) ended: Vec<PendingStory>,
    pub(crate) opened: u64,
}

/// Whether an event of this kind ends the lifecycle of a pod or unit.
fn is_end(kind: Name) -> bool {
    [
        names::K8S_POD_DELETED,
        names::K8S_POD_EVICTED,
        names::SYSTEMD_UNIT_STOPPED,
        names::SYSTEMD_UNIT_FAILED,
    ]
    .contains(&kind)
}

impl LifecycleTracker {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { lifecycles: KeyTable::new(capacity), ended: Vec::new(), opened: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.lifecycles.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.lifecycles.evicted
    }

    /// Sets the number of lifecycles; evicts those beyond it.
    pub(crate) fn limit(&mut self, capacity: usize) {
        let mut evicted = Vec::new();
        self.lifecycles.limit(capacity, |lifecycle| {
            if lifecycle.worst >= Severity::ERROR {
                evicted.push(lifecycle);
            }
        });
        evicted.into_iter().for_each(|lifecycle| self.end(lifecycle, StoryState::Expired));
    }

    /// Adds so many events that look alike to their entity's lifecycle. Returns the lifecycle's
    /// trace.
    pub(crate) fn events(
        &mut self,
        event: &ArchivedEvent<'_>,
        number: u32,
        rules: &RuleSet,
    ) -> Option<TraceId> {
        let home = home(event);
        let (entity, id) = match home {
            Home::Pod(id) => ("pod", id),
            Home::Invocation(id) => ("unit", id),
            Home::Unit(id) => ("unit", id),
            Home::ProcessTree(id) => ("process", id),
            Home::Node => return None,
        };
        let time_ns = event.time();
        let hash = rules.hash(id.as_bytes());
        let slot = match self.lifecycles.find(hash, 0, id.as_bytes()) {
            Some(slot) => slot,
            None => {
                let new = Lifecycle {
                    trace: lifecycle_trace(home)?,
                    entity,
                    name: String::new(),
                    members: Vec::new(),
                    total: 0,
                    first_ns: time_ns,
                    last_ns: time_ns,
                    worst: Severity::default(),
                    faults: Vec::new(),
                };
                self.opened += 1;
                let deadline_ns = time_ns.saturating_add(IDLE_NS);
                let key = id.as_bytes();
                let (slot, evicted) = self.lifecycles.insert(hash, 0, key, deadline_ns, new);
                // One without an error is only counted: a flood of made-up pods must not become a
                // flood of stories.
                if let Some(evicted) = evicted.filter(|e| e.worst >= Severity::ERROR) {
                    self.end(evicted, StoryState::Expired);
                }
                slot
            }
        };
        let lifecycle = &mut self.lifecycles.get(slot)?.body;
        lifecycle.add(event, number, id);
        let trace = lifecycle.trace;
        let root_ended = event.kind_name() == names::KERNEL_PROCESS_EXIT
            && entity == "process"
            && event.text(names::TAPIO_PROCESS_EXEC_ID) == Some(id);
        if root_ended || (is_end(event.kind_name()) && entity != "process") {
            let ended = self.lifecycles.remove(slot)?;
            self.end(ended, StoryState::Closed);
        }
        Some(trace)
    }

    fn end(&mut self, lifecycle: Lifecycle, state: StoryState) {
        // A process that ran and exited without an error is no story.
        if lifecycle.entity != "process" || lifecycle.worst >= Severity::ERROR {
            self.ended.push(lifecycle.into_pending(state));
        }
    }

    /// Ends the lifecycles that are idle at `clock_ns`, in event time.
    pub(crate) fn advance(&mut self, clock_ns: u64) {
        for slot in self.lifecycles.due(clock_ns) {
            let Some(entry) = self.lifecycles.get(slot) else { continue };
            let ends_ns = entry.body.last_ns.saturating_add(IDLE_NS);
            if ends_ns > clock_ns {
                self.lifecycles.reschedule(slot, ends_ns);
            } else if let Some(idle) = self.lifecycles.remove(slot) {
                // The same state as at the end of the input: which of the two comes first depends
                // on the shard's other events.
                self.end(idle, StoryState::Closed);
            }
        }
    }

    /// Ends all lifecycles, at the end of the input.
    pub(crate) fn finish(&mut self) {
        for slot in self.lifecycles.slots() {
            if let Some(open) = self.lifecycles.remove(slot) {
                self.end(open, StoryState::Closed);
            }
        }
    }
}

impl Lifecycle {
    fn add(&mut self, event: &ArchivedEvent<'_>, number: u32, id: &str) {
        let severity = event.severity();
        let is_error = severity >= Severity::ERROR;
        // Events of which only the number is known have no id.
        let is_known = event.event_id() != EventId::default();
        let max_kept = if is_error { 2 * MAX_KEPT } else { MAX_KEPT };
        if is_known && self.members.len() < max_kept {
            self.members.push(LifecycleEvent::new(event));
        }
        if is_error {
            self.add_fault(event);
        }
        self.total += u64::from(number);
        self.first_ns = self.first_ns.min(event.time());
        self.last_ns = self.last_ns.max(event.time());
        self.worst = self.worst.max(severity);
        let named = match self.entity {
            "pod" => event.text(names::K8S_POD_NAME),
            "unit" => event.text(names::SYSTEMD_UNIT),
            _ => event.text(names::PROCESS_EXECUTABLE_NAME),
        };
        if let Some(name) = named.filter(|n| *n != self.name) {
            self.name = name.to_owned();
        } else if self.name.is_empty() {
            self.name = id.to_owned();
        }
    }

    fn add_fault(&mut self, event: &ArchivedEvent<'_>) {
        let Some(entity) = evidence::subject(event) else {
            return;
        };
        let kind = event.kind_name();
        let is_known = self.faults.iter().any(|s| s.kind == kind && s.entity == entity);
        if !is_known && self.faults.len() >= MAX_FAULTS {
            return;
        }
        let seen = MemberFacts {
            entity,
            kind,
            time_ns: event.time(),
            tick_ns: event.clock_quality().tick_ns(),
            severity: event.severity(),
            is_effect: false,
            summary: event_text::summary(event),
            id: event.event_id(),
            label: event_text::label(event),
        };
        evidence::add_member(&mut self.faults, seen);
    }

    fn into_pending(self, state: StoryState) -> PendingStory {
        let kind = EntityKind::parse(self.entity);
        let affected =
            kind.map(|kind| AffectedEntity::new(kind, &*self.name)).into_iter().collect();
        let story = Story {
            id: self.trace,
            trace_id: self.trace,
            rule: format!("{}-lifecycle", self.entity),
            pattern: format!("{}-lifecycle", self.entity),
            name: format!("{} {}", self.entity, self.name),
            intent: "lifecycle of one entity".into(),
            state,
            revision: 0,
            key: vec![(self.entity.into(), self.name.clone())],
            members_total: self.total,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            severity: self.worst,
            root_cause: Vec::new(),
            impact: Impact::default(),
            actions: Vec::new(),
            confidence: 1.0,
            continues: None,
            provisional: None,
            incident: None,
            members: self.members.into_iter().map(LifecycleEvent::into_member).collect(),
        };
        PendingStory {
            within_ns: story.duration_ns(),
            story,
            affected,
            any_cause: !self.faults.is_empty(),
            observations: self.faults,
            named: Vec::new(),
            impact_spec: ImpactSpec::AUTO,
            failed_connections: 0,
            failed_for_others: 0,
        }
    }
}
