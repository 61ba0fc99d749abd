//! Lives: a pod, a run of a unit, a process with its descendants. Every event of one entity's life
//! carries one trace, whose id is the entity's own 128-bit id where it has one. A life is told as a
//! story when it ends, if something went wrong in it or if it is a pod's or a unit's.

use crate::evidence::{self, Asked, Draft, Seen, Source};
use crate::matcher::key_table::KeyTable;
use crate::rules::{AutoOr, Home, RuleSet, home};
use tapio_core::event::{
    ArchivedEvent, EventId, Impact, Member, Name, Severity, Story, StoryState, TraceId, names,
    stable_hash,
};

/// Members a life keeps: the first ones and those that went wrong.
const KEPT: usize = 16;
/// Faults a life tells apart.
const MAX_FAULTS: usize = 8;
/// A life nothing was heard of for this long is over.
const IDLE_NS: u64 = 30 * 60 * 1_000_000_000;

/// An event of a life, as small as can be: most lives are never told.
struct Moment {
    id: EventId,
    label: Option<Box<str>>,
    time_ns: u64,
    kind: Name,
    source: Name,
    severity: Severity,
    summary: Box<str>,
}

impl Moment {
    fn of(event: &ArchivedEvent<'_>) -> Self {
        let label = crate::story::render::label(event);
        Self {
            id: event.event_id(),
            label: (!label.is_empty()).then(|| label.into()),
            time_ns: event.time(),
            kind: event.kind_name(),
            source: event.source_name(),
            severity: event.severity(),
            summary: crate::story::render::shortened(&event.message).into(),
        }
    }

    fn told(self) -> Member {
        let role = if self.severity >= Severity::ERROR { "symptom" } else { "life" };
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

struct Life {
    trace: TraceId,
    what: &'static str,
    name: String,
    members: Vec<Moment>,
    total: u64,
    first_ns: u64,
    last_ns: u64,
    worst: Severity,
    /// What went wrong, about what.
    faults: Vec<Source>,
}

/// The lives of a shard's home entities.
pub(crate) struct Lives {
    lives: KeyTable<Life>,
    pub(crate) told: Vec<Draft>,
    pub(crate) opened: u64,
}

/// The trace of an entity's life.
pub(crate) fn trace(home: Home<'_>) -> Option<TraceId> {
    match home {
        Home::Pod(id) | Home::Invocation(id) => {
            Some(id.parse().unwrap_or_else(|_| TraceId(stable_hash(&[b"life", id.as_bytes()]))))
        }
        Home::ProcessTree(root) => Some(TraceId(stable_hash(&[b"process-tree", root.as_bytes()]))),
        Home::Unit(unit) => Some(TraceId(stable_hash(&[b"unit", unit.as_bytes()]))),
        Home::Node => None,
    }
}

fn ends(kind: Name) -> bool {
    [
        names::K8S_POD_DELETED,
        names::K8S_POD_EVICTED,
        names::SYSTEMD_UNIT_STOPPED,
        names::SYSTEMD_UNIT_FAILED,
    ]
    .contains(&kind)
}

impl Lives {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { lives: KeyTable::new(capacity), told: Vec::new(), opened: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.lives.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.lives.evicted
    }

    /// Adds an event to the life it belongs to and returns that life's trace.
    pub(crate) fn event(&mut self, event: &ArchivedEvent<'_>, rules: &RuleSet) -> Option<TraceId> {
        let home = home(event);
        let (what, id) = match home {
            Home::Pod(id) => ("pod", id),
            Home::Invocation(id) => ("unit", id),
            Home::Unit(id) => ("unit", id),
            Home::ProcessTree(id) => ("process", id),
            Home::Node => return None,
        };
        let time_ns = event.time();
        let hash = rules.hash(id.as_bytes());
        let slot = match self.lives.find(hash, 0, id.as_bytes()) {
            Some(slot) => slot,
            None => {
                let life = Life {
                    trace: trace(home)?,
                    what,
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
                let (slot, evicted) = self.lives.insert(hash, 0, id.as_bytes(), deadline_ns, life);
                // One in which nothing went wrong is counted: who makes up pods mustn't make stories.
                if let Some(life) = evicted.filter(|life| life.worst >= Severity::ERROR) {
                    self.tell(life, StoryState::Expired);
                }
                slot
            }
        };
        let life = &mut self.lives.get(slot)?.body;
        life.add(event, id);
        let trace = life.trace;
        let root_ended = event.kind_name() == names::KERNEL_PROCESS_EXIT
            && what == "process"
            && event.text(names::TAPIO_PROCESS_EXEC_ID) == Some(id);
        if root_ended || (ends(event.kind_name()) && what != "process") {
            let life = self.lives.remove(slot)?;
            self.tell(life, StoryState::Closed);
        }
        Some(trace)
    }

    fn tell(&mut self, life: Life, state: StoryState) {
        // A process that lived and died in peace is no story.
        if life.what != "process" || life.worst >= Severity::ERROR {
            self.told.push(life.draft(state));
        }
    }

    /// Ends the lives nothing is heard of.
    pub(crate) fn advance(&mut self, clock_ns: u64) {
        for slot in self.lives.due(clock_ns) {
            let Some(entry) = self.lives.get(slot) else { continue };
            let ends_ns = entry.body.last_ns.saturating_add(IDLE_NS);
            if ends_ns > clock_ns {
                self.lives.look_again(slot, ends_ns);
            } else if let Some(life) = self.lives.remove(slot) {
                // The same word as at the end of the input: which of the two comes first depends
                // on what else a shard has seen.
                self.tell(life, StoryState::Closed);
            }
        }
    }

    /// Ends all lives: the input ended.
    pub(crate) fn finish(&mut self) {
        for slot in self.lives.slots() {
            if let Some(life) = self.lives.remove(slot) {
                self.tell(life, StoryState::Closed);
            }
        }
    }
}

impl Life {
    fn add(&mut self, event: &ArchivedEvent<'_>, id: &str) {
        let severity = event.severity();
        let wrong = severity >= Severity::ERROR;
        if self.members.len() < KEPT || (wrong && self.members.len() < 2 * KEPT) {
            self.members.push(Moment::of(event));
        }
        if wrong {
            self.add_fault(event);
        }
        self.total += 1;
        self.first_ns = self.first_ns.min(event.time());
        self.last_ns = self.last_ns.max(event.time());
        self.worst = self.worst.max(severity);
        let named = match self.what {
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
        let known = self.faults.iter().any(|s| s.kind == kind && s.entity == entity);
        if !known && self.faults.len() >= MAX_FAULTS {
            return;
        }
        let seen = Seen {
            entity,
            kind,
            time_ns: event.time(),
            tick_ns: event.clock_quality().tick_ns(),
            severity: event.severity(),
            is_effect: false,
            summary: crate::story::render::summary(event),
            id: event.event_id(),
            label: crate::story::render::label(event),
        };
        evidence::add_source(&mut self.faults, seen);
    }

    fn draft(self, state: StoryState) -> Draft {
        let auto = Asked {
            business: AutoOr::Auto,
            customer_facing: AutoOr::Auto,
            slo_impact: AutoOr::Auto,
        };
        let what = format!("{} {}", self.what, self.name);
        let story = Story {
            id: self.trace,
            trace_id: self.trace,
            rule: format!("{}-lifecycle", self.what),
            pattern: format!("{}-lifecycle", self.what),
            name: what.clone(),
            intent: "the life of one entity".into(),
            state,
            revision: 0,
            key: vec![(self.what.into(), self.name.clone())],
            members_total: self.total,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            severity: self.worst,
            root_cause: Vec::new(),
            impact: Impact { affected: vec![what], ..Impact::default() },
            actions: Vec::new(),
            confidence: 1.0,
            continues: None,
            provisional: None,
            members: self.members.into_iter().map(Moment::told).collect(),
        };
        Draft {
            within_ns: story.duration_ns(),
            story,
            any_cause: !self.faults.is_empty(),
            sources: self.faults,
            named: Vec::new(),
            asked: auto,
            failed_connections: 0,
            failed_for_others: 0,
        }
    }
}

/// The span of an event within its trace: its id, mixed so that the halves of a sequence number
/// don't stand out, and never zero.
pub(crate) fn span_of(id: EventId) -> [u8; 8] {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&id.0[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    // The finaliser of splitmix64.
    let mut x = word(0) ^ word(8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)).max(1).to_be_bytes()
}
