//! What a shard observes of the entities it is home to. It sees all events of such an entity, so that
//! whatever depends on their order is found here, the same for any number of shards; what goes to the
//! assessor from here are sums and facts.
//!
//! An event that no rule wants, that isn't a warning at least and whose kind states no facts costs a
//! look into a table.

use std::collections::HashMap;

use hashbrown::HashTable;

use super::super::lru::Lru;
use super::baseline::Tally;
use super::draft::{Content, Lift, Note};
use super::drain::Drain;
use super::entity::{Entity, Named, place};
use super::pairs::{HomeKind, PairKey, Pasts, epoch, octave};
use super::relations::{Fact, facts, is_factual};
use super::standing::Mark;
use crate::rules::{Home, home};
use tapio_core::event::{ArchivedEvent, Name, Severity, names, troubles};

/// Bounds of what a shard remembers, and of what the assessor does.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entities a shard remembers what they did lately.
    pub homes: usize,
    /// Entities a shard mines the messages of.
    pub miners: usize,
    /// Entities the assessor knows what is usual for.
    pub entities: usize,
    /// Buckets of ten seconds that are kept for each kind of an entity.
    pub buckets: usize,
    /// Kinds of one entity that are followed, stretches of time an edge was seen in, changes of a
    /// state and events that tell or end a trouble that are remembered.
    pub history: usize,
    /// Edges of one entity.
    pub edges: usize,
    /// Pairs of kinds that are learned.
    pub pairs: usize,
}

impl Bounds {
    /// While events stream: what a node needs, in a few megabytes.
    pub const LIVE: Self = Self {
        homes: 16_384,
        miners: 512,
        entities: 16_384,
        buckets: 256,
        history: 64,
        edges: 4_096,
        pairs: 4_096,
    };
    /// In replay: whatever the files hold is remembered, so that nothing depends on what had to go.
    pub const REPLAY: Self = Self {
        homes: 1 << 20,
        miners: 1 << 16,
        entities: 1 << 20,
        buckets: 1 << 20,
        history: 1 << 20,
        edges: 1 << 20,
        pairs: 1 << 16,
    };
}

/// Templates of one entity.
const TEMPLATES: usize = 32;
/// Facts that were told in this second already and needn't be again.
const TOLD: usize = 4_096;
/// Sums that are gathered before they are told.
const MAX_GATHERED: usize = 4_096;
/// Sums of pairs that are gathered: many events add to few of them, and nobody waits for them.
const MAX_LEARNED: usize = 32_768;
/// How often sums of pairs are told, in ticks of the worker.
const LEARNED_EVERY_TICKS: u32 = 100;

/// What a kind says in any case, in a byte that isn't zero: asked once.
#[derive(Clone, Copy)]
struct Says(u8);

impl Says {
    const ASKED: u8 = 1 << 7;
    const FACTS: u8 = 1 << 6;

    fn of(kind: Name) -> Self {
        let facts = if is_factual(kind) { Self::FACTS } else { 0 };
        Self(Self::ASKED | facts | troubles::least(kind).0.min(Self::FACTS - 1))
    }

    /// Whether it states facts.
    fn states_facts(self) -> bool {
        self.0 & Self::FACTS != 0
    }

    /// The least severity with which it tells or ends a trouble.
    fn trouble(self) -> Severity {
        Severity(self.0 & (Self::FACTS - 1))
    }
}

struct Gathered {
    hash: u64,
    entity: Entity,
    kind: Name,
    tally: Tally,
}

/// The observer of one shard.
pub(crate) struct Observer {
    says: Box<[u8]>,
    hasher: ahash::RandomState,
    gathered: HashTable<Gathered>,
    pairs: HashMap<(PairKey, u8, u32), u32, ahash::RandomState>,
    kinds: HashMap<(HomeKind, Name, u32), u32, ahash::RandomState>,
    watched: HashMap<(HomeKind, u32), u64, ahash::RandomState>,
    pasts: Pasts,
    miners: Lru<u64, Drain>,
    told: Box<[u64]>,
    scratch: Vec<Fact>,
    notes: Vec<Note>,
    ticks: u32,
}

impl Observer {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            says: vec![0; Name::CAPACITY].into(),
            hasher: ahash::RandomState::new(),
            gathered: HashTable::new(),
            pairs: HashMap::default(),
            kinds: HashMap::default(),
            watched: HashMap::default(),
            pasts: Pasts::new(bounds.homes),
            miners: Lru::new(bounds.miners),
            told: vec![0; TOLD].into(),
            scratch: Vec::new(),
            notes: Vec::new(),
            ticks: 0,
        }
    }

    /// Entities given up for room.
    pub(crate) fn evicted(&self) -> u64 {
        self.pasts.evicted() + self.miners.evicted
    }

    fn says(&mut self, kind: Name) -> Says {
        let known = &mut self.says[place(kind)];
        if *known == 0 {
            *known = Says::of(kind).0;
        }
        Says(*known)
    }

    /// Shows an event of an entity whose home this shard is; `wanted`: a rule has something to do
    /// with it.
    pub(crate) fn event(&mut self, event: &ArchivedEvent<'_>, wanted: bool) {
        let kind = event.kind_name();
        let severity = event.severity();
        let warns = severity >= Severity::WARN;
        let says = self.says(kind);
        if warns || says.states_facts() {
            self.facts(event);
        }
        if severity >= says.trouble() {
            self.mark(event);
        }
        if (warns || wanted) && kind != names::ENTITY_RELATION {
            self.tally(event);
            self.learn(event);
        }
    }

    fn facts(&mut self, event: &ArchivedEvent<'_>) {
        let mut found = std::mem::take(&mut self.scratch);
        facts(event, &mut found);
        let second = second(event.time());
        for fact in found.drain(..) {
            // A fact is true for its whole second: telling it twice would change nothing.
            let hash = self.hasher.hash_one((&fact, second)).max(1);
            let told = &mut self.told[hash as usize % TOLD];
            if *told != hash {
                *told = hash;
                self.notes.push(Note(Content::Fact(fact, second)));
            }
        }
        self.scratch = found;
    }

    fn mark(&mut self, event: &ArchivedEvent<'_>) {
        let Some(entity) = Named::of(event).subject() else {
            return;
        };
        let (kind, time_ns, severity) = (event.kind_name(), event.time(), event.severity());
        let of = troubles::told_apart_by(kind).and_then(|by| event.text(by)).unwrap_or("").into();
        self.notes.push(Note(Content::Mark(entity, Mark { time_ns, kind, severity, of })));
    }

    fn tally(&mut self, event: &ArchivedEvent<'_>) {
        let named = Named::of(event);
        let Some(subject) = named.subject_hash(&self.hasher) else {
            return;
        };
        let kind = event.kind_name();
        let tally = Tally::one(event.time(), event.severity());
        let hash = self.hasher.hash_one((subject, kind.0, tally.bucket));
        if let Some(gathered) = self.gathered.find_mut(hash, |g| g.hash == hash) {
            gathered.tally.add(tally);
            return;
        }
        let Some(entity) = named.subject() else {
            return;
        };
        let new = Gathered { hash, entity, kind, tally };
        self.gathered.insert_unique(hash, new, |g| g.hash);
        if self.gathered.len() >= MAX_GATHERED {
            self.flush();
        }
    }

    fn learn(&mut self, event: &ArchivedEvent<'_>) {
        let (home, kind, time_ns) = (home(event), event.kind_name(), event.time());
        let sort = HomeKind::of(&home);
        let id = match home {
            Home::Pod(id) | Home::Invocation(id) | Home::ProcessTree(id) => id,
            Home::Unit(id) => id,
            Home::Node => event.text(names::HOST_NAME).unwrap_or(""),
        };
        let key = self.hasher.hash_one((sort, id));
        let at = epoch(time_ns);
        if let Some(step) = self.pasts.show(key, kind, time_ns) {
            *self.kinds.entry((sort, kind, at)).or_default() += 1;
            *self.watched.entry((sort, at)).or_default() += step.watched_ns / 1_000_000;
            for (before, delay_ns) in step.before {
                let pair = PairKey { home: sort, before, after: kind };
                *self.pairs.entry((pair, octave(delay_ns) as u8, at)).or_default() += 1;
            }
            if self.pairs.len() + self.kinds.len() >= MAX_LEARNED {
                self.flush_learned();
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
        // Each doubling is told: a storm of one message costs as many notes as it has digits.
        if !mined.recent.is_power_of_two() {
            return;
        }
        if let Some(entity) = Named::of(event).subject() {
            let (kind, recent, template) = (event.kind_name(), mined.recent, mined.template);
            let lift = Lift { entity, kind, time_ns, template, recent, log_lift };
            self.notes.push(Note(Content::Lift(Box::new(lift))));
        }
    }

    /// Time went on a little.
    pub(crate) fn tick(&mut self) {
        self.flush();
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(LEARNED_EVERY_TICKS) {
            self.flush_learned();
        }
    }

    /// Turns everything that was gathered into notes.
    pub(crate) fn finish(&mut self) {
        self.flush();
        self.flush_learned();
    }

    /// Turns what a story that is told should know into notes.
    pub(crate) fn flush(&mut self) {
        let gathered = self.gathered.drain();
        self.notes.extend(gathered.map(|g| Note(Content::Tally(g.entity, g.kind, g.tally))));
    }

    fn flush_learned(&mut self) {
        let notes = &mut self.notes;
        let pairs = self.pairs.drain();
        notes.extend(pairs.map(|((key, octave, epoch), count)| {
            Note(Content::Pair { key, octave, epoch, count })
        }));
        let kinds = self.kinds.drain();
        notes.extend(
            kinds.map(|((home, kind, epoch), count)| {
                Note(Content::Kind { home, kind, epoch, count })
            }),
        );
        let watched = self.watched.drain();
        notes.extend(watched.map(|((home, epoch), milliseconds)| {
            Note(Content::Watched { home, epoch, milliseconds })
        }));
    }

    /// Whether the notes should be taken soon.
    pub(crate) fn is_full(&self) -> bool {
        self.notes.len() >= MAX_GATHERED
    }

    /// Notes since the last look.
    pub(crate) fn take(&mut self) -> std::vec::Drain<'_, Note> {
        self.notes.drain(..)
    }
}

/// The second a time is in.
pub(super) fn second(time_ns: u64) -> u32 {
    u32::try_from(time_ns / 1_000_000_000).unwrap_or(u32::MAX)
}

/// Whether a kind's messages are written by programs and people. Messages that collectors make of
/// an event's fields say nothing that its kind doesn't.
fn is_free_text(kind: Name) -> bool {
    !["kernel.", "systemd.", "cni.", "container.", "k8s.pod."]
        .iter()
        .any(|made| kind.text().starts_with(made))
}
