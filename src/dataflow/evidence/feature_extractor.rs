//! Extracts evidence from the events of the entities whose home is this shard. The shard sees all
//! events of such an entity, so what depends on their order is computed here and is the same for
//! any number of shards. The extractor sends aggregates and facts to the assessor.
//!
//! An event that isn't relevant to a rule, isn't a warning at least, and whose kind states no facts
//! costs one table lookup.

use std::collections::HashMap;

use hashbrown::HashTable;

use super::active_faults::FaultTransition;
use super::baseline::BucketCount;
use super::bounds::Bounds;
use super::entity::{Entity, EventEntities, kind_index};
use super::graph_fact::{self, GraphFact, is_factual};
use super::log_template::Drain;
use super::message::{EvidenceKind, EvidenceMessage, TemplateLift};
use super::pairs::{HomeKind, PairKey, RecentKinds, epoch, octave};
use super::second_set::second;
use crate::lru::Lru;
use crate::rules::{Home, home};
use crate::services::ServiceObserver;
use tapio_core::event::{ArchivedEvent, Name, Severity, fault_lifecycle, names};

/// Log templates of one entity.
const TEMPLATES: usize = 32;
/// Slots of the set of graph facts already sent for the current second.
const SENT_FACTS: usize = 4_096;
/// Aggregates that are collected before they are sent.
const MAX_COLLECTED: usize = 4_096;
/// Aggregates of pairs that are collected: many events add to few of them, and no story waits for
/// them.
const MAX_LEARNED: usize = 32_768;
/// Facts of services that are collected.
const SERVICE_FACTS: usize = 256;
/// Interval at which names of services are sent again, in ticks of the worker: ten minutes.
const NAMES_INTERVAL_TICKS: u32 = 12_000;
/// Interval between sends of the aggregates of pairs, in ticks of the worker.
const LEARNED_INTERVAL_TICKS: u32 = 200;
/// Aggregates of pairs sent in a tick: all at once wouldn't fit into the ring to the assessor.
const LEARNED_PER_TICK: usize = 1_024;

/// Cached properties of a kind, in one byte. Zero means that they aren't computed yet.
#[derive(Clone, Copy)]
struct KindTraits(u8);

impl KindTraits {
    const COMPUTED: u8 = 1 << 7;
    const FACTUAL: u8 = 1 << 6;

    fn of(kind: Name) -> Self {
        let factual = if is_factual(kind) { Self::FACTUAL } else { 0 };
        let min_severity = fault_lifecycle::min_severity(kind).0.min(Self::FACTUAL - 1);
        Self(Self::COMPUTED | factual | min_severity)
    }

    /// Whether events of the kind state facts at any severity.
    fn is_factual(self) -> bool {
        self.0 & Self::FACTUAL != 0
    }

    /// The severity below which events of the kind neither start nor end a fault.
    fn min_fault_severity(self) -> Severity {
        Severity(self.0 & (Self::FACTUAL - 1))
    }
}

struct CollectedCount {
    hash: u64,
    entity: Entity,
    kind: Name,
    count: BucketCount,
}

/// Extracts the evidence of one shard.
pub(crate) struct FeatureExtractor {
    kinds_traits: Box<[u8]>,
    hasher: ahash::RandomState,
    counts: HashTable<CollectedCount>,
    pairs: HashMap<(PairKey, u8, u32), u32, ahash::RandomState>,
    kinds: HashMap<(HomeKind, Name, u32), u32, ahash::RandomState>,
    observed_ms: HashMap<(HomeKind, u32), u64, ahash::RandomState>,
    recent_kinds: RecentKinds,
    miners: Lru<u64, Drain>,
    sent_facts: Box<[u64]>,
    scratch: Vec<GraphFact>,
    services: ServiceObserver,
    messages: Vec<EvidenceMessage>,
    /// Aggregates of pairs that follow with the next ticks.
    learned: Vec<EvidenceMessage>,
    ticks: u32,
}

impl FeatureExtractor {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            kinds_traits: vec![0; Name::CAPACITY].into(),
            hasher: ahash::RandomState::new(),
            counts: HashTable::new(),
            pairs: HashMap::default(),
            kinds: HashMap::default(),
            observed_ms: HashMap::default(),
            recent_kinds: RecentKinds::new(bounds.homes),
            miners: Lru::new(bounds.miners),
            sent_facts: vec![0; SENT_FACTS].into(),
            scratch: Vec::new(),
            services: ServiceObserver::new(),
            messages: Vec::new(),
            learned: Vec::new(),
            ticks: 0,
        }
    }

    /// Sets the bounds; evicts what is beyond them.
    pub(crate) fn limit(&mut self, bounds: Bounds) {
        self.recent_kinds.limit(bounds.homes);
        self.miners.limit(bounds.miners);
    }

    /// Entities evicted for lack of room.
    pub(crate) fn evicted(&self) -> u64 {
        self.recent_kinds.evicted() + self.miners.evicted
    }

    fn traits(&mut self, kind: Name) -> KindTraits {
        let cached = &mut self.kinds_traits[kind_index(kind)];
        if *cached == 0 {
            *cached = KindTraits::of(kind).0;
        }
        KindTraits(*cached)
    }

    /// Processes an event of an entity whose home is this shard. `is_relevant`: a rule matches it.
    pub(crate) fn process(&mut self, event: &ArchivedEvent<'_>, is_relevant: bool) {
        self.services.process(event);
        if self.services.len() >= SERVICE_FACTS {
            self.flush_services();
        }
        let kind = event.kind_name();
        let severity = event.severity();
        let warns = severity >= Severity::WARN;
        let traits = self.traits(kind);
        if warns || traits.is_factual() {
            self.add_graph_facts(event, graph_fact::extract);
        } else if is_relevant {
            self.add_graph_facts(event, graph_fact::extract_name);
        }
        if severity >= traits.min_fault_severity() {
            self.add_fault_transition(event);
        }
        if (warns || is_relevant) && kind != names::ENTITY_RELATION {
            self.count(event);
            self.learn(event);
        }
    }

    fn add_graph_facts(
        &mut self,
        event: &ArchivedEvent<'_>,
        extract: fn(&ArchivedEvent<'_>, &mut Vec<GraphFact>),
    ) {
        let mut found = std::mem::take(&mut self.scratch);
        extract(event, &mut found);
        let second = second(event.time());
        for fact in found.drain(..) {
            // A fact is true for its whole second: a second message with it would change nothing.
            let hash = self.hasher.hash_one((&fact, second)).max(1);
            let sent = &mut self.sent_facts[hash as usize % SENT_FACTS];
            if *sent != hash {
                *sent = hash;
                self.messages.push(EvidenceMessage(EvidenceKind::Graph(fact, second)));
            }
        }
        self.scratch = found;
    }

    fn add_fault_transition(&mut self, event: &ArchivedEvent<'_>) {
        let Some(entity) = EventEntities::of(event).subject() else {
            return;
        };
        let (kind, time_ns, severity) = (event.kind_name(), event.time(), event.severity());
        let field = fault_lifecycle::distinguishing_field(kind);
        let instance = field.and_then(|field| event.text(field)).unwrap_or("").into();
        let transition = FaultTransition { time_ns, kind, severity, instance };
        self.messages.push(EvidenceMessage(EvidenceKind::Fault(entity, transition)));
    }

    fn count(&mut self, event: &ArchivedEvent<'_>) {
        let entities = EventEntities::of(event);
        let Some(subject) = entities.subject_hash(&self.hasher) else {
            return;
        };
        let kind = event.kind_name();
        let count = BucketCount::single(event.time(), event.severity());
        let hash = self.hasher.hash_one((subject, kind.0, count.bucket));
        if let Some(collected) = self.counts.find_mut(hash, |c| c.hash == hash) {
            collected.count.add(count);
            return;
        }
        let Some(entity) = entities.subject() else {
            return;
        };
        let new = CollectedCount { hash, entity, kind, count };
        self.counts.insert_unique(hash, new, |c| c.hash);
        if self.counts.len() >= MAX_COLLECTED {
            self.flush();
        }
    }

    fn learn(&mut self, event: &ArchivedEvent<'_>) {
        let (home, kind, time_ns) = (home(event), event.kind_name(), event.time());
        let home_kind = HomeKind::of(&home);
        let id = match home {
            Home::Pod(id) | Home::Invocation(id) | Home::ProcessTree(id) => id,
            Home::Unit(id) => id,
            Home::Node => event.text(names::HOST_NAME).unwrap_or(""),
        };
        let key = self.hasher.hash_one((home_kind, id));
        let at = epoch(time_ns);
        if let Some(step) = self.recent_kinds.record(key, kind, time_ns) {
            *self.kinds.entry((home_kind, kind, at)).or_default() += 1;
            *self.observed_ms.entry((home_kind, at)).or_default() += step.observed_ns / 1_000_000;
            for (before, delay_ns) in step.before {
                let pair = PairKey { home: home_kind, before, after: kind };
                *self.pairs.entry((pair, octave(delay_ns) as u8, at)).or_default() += 1;
            }
            if self.pairs.len() + self.kinds.len() >= MAX_LEARNED {
                // Whatever was collected before and still waits goes first.
                self.messages.append(&mut self.learned);
                self.collect_learned();
            }
        }
        if !event.message.is_empty() && is_free_text(kind) {
            self.mine(event, key);
        }
    }

    fn mine(&mut self, event: &ArchivedEvent<'_>, home: u64) {
        let time_ns = event.time();
        if self.miners.get(&home).is_none() {
            self.miners.insert(home, Drain::new(TEMPLATES, time_ns));
        }
        let mined = self.miners.get(&home).and_then(|m| m.add(&event.message, time_ns));
        let Some((mined, log_lift)) = mined.and_then(|m| m.lift.map(|lift| (m, lift))) else {
            return;
        };
        // Sent at each doubling: a storm of one message costs as many messages to the assessor as
        // its count has binary digits.
        if !mined.recent.is_power_of_two() {
            return;
        }
        if let Some(entity) = EventEntities::of(event).subject() {
            let (kind, recent, template) = (event.kind_name(), mined.recent, mined.template);
            let lift = TemplateLift { entity, kind, time_ns, template, recent, log_lift };
            self.messages.push(EvidenceMessage(EvidenceKind::Lift(Box::new(lift))));
        }
    }

    fn flush_services(&mut self) {
        let facts = self.services.take();
        if !facts.is_empty() {
            self.messages.push(EvidenceMessage(EvidenceKind::Services(facts)));
        }
    }

    /// Handles a tick of the worker.
    pub(crate) fn tick(&mut self) {
        self.flush();
        self.flush_services();
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(NAMES_INTERVAL_TICKS) {
            self.services.repeat_names();
        }
        if self.ticks.is_multiple_of(LEARNED_INTERVAL_TICKS) {
            self.collect_learned();
        }
        let kept = self.learned.len().saturating_sub(LEARNED_PER_TICK);
        self.messages.extend(self.learned.drain(kept..));
        if kept == 0 {
            self.learned.shrink_to(LEARNED_PER_TICK);
        }
    }

    /// Converts all collected aggregates to messages.
    pub(crate) fn finish(&mut self) {
        self.flush();
        self.flush_services();
        self.collect_learned();
        self.messages.append(&mut self.learned);
    }

    /// Converts the collected counts, on which the assessment of a story depends, to messages.
    pub(crate) fn flush(&mut self) {
        let counts = self.counts.drain();
        self.messages.extend(
            counts.map(|c| EvidenceMessage(EvidenceKind::Count(c.entity, c.kind, c.count))),
        );
    }

    /// Converts the collected aggregates of pairs to messages that follow with the next ticks.
    fn collect_learned(&mut self) {
        let pairs = self.pairs.drain().map(|((key, octave, epoch), count)| EvidenceKind::Pair {
            key,
            octave,
            epoch,
            count,
        });
        let kinds = self.kinds.drain();
        let kinds = kinds.map(|((home, kind, epoch), count)| EvidenceKind::Kind {
            home,
            kind,
            epoch,
            count,
        });
        let observed = self.observed_ms.drain().map(|((home, epoch), milliseconds)| {
            EvidenceKind::ObservedTime { home, epoch, milliseconds }
        });
        self.learned.extend(pairs.chain(kinds).chain(observed).map(EvidenceMessage));
    }

    /// Whether the messages should be taken soon.
    pub(crate) fn is_full(&self) -> bool {
        self.messages.len() >= MAX_COLLECTED
    }

    /// Takes the messages since the last call.
    pub(crate) fn take(&mut self) -> std::vec::Drain<'_, EvidenceMessage> {
        self.messages.drain(..)
    }
}

/// Whether messages of a kind are written by programs or people. Messages that collectors compose
/// from an event's fields add nothing to its kind.
fn is_free_text(kind: Name) -> bool {
    !["kernel.", "systemd.", "cni.", "container.", "k8s.pod."]
        .iter()
        .any(|composed| kind.text().starts_with(composed))
}
