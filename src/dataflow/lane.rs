//! Matching in one given order: the order of arrival while events stream (told at once), or the
//! total order in replay (exact). The rules run here; what they find becomes groups.

use std::sync::Arc;

use super::groups::Groups;
use super::keys::{Entry, KeyTable};
use super::rules::field::value_text;
use super::rules::{RuleSet, Shape, View};
use super::run::{Hand, Runs, Window};
use super::story;
use crate::event::{
    ArchivedEvent, EventId, Group, Name, TraceId, Value, names, stable_hash, value_json,
};
use crate::ring::{Membership, Record};

/// Ranks of memberships in told stories: which one gives an event its trace. A sequence comes
/// before a count of the same events, so that its few members all carry its trace.
pub(super) const RANK_SEQUENCE: u8 = 0;
pub(super) const RANK_COUNT: u8 = 1;
/// What is added for a story that isn't told yet.
const RANK_PENDING: u8 = 2;

/// Bounds and modes of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    /// Keys with something pending; past it, the nearest deadline is given up.
    pub max_keys: usize,
    /// Groups open at once; past it, the one that ends next is expired.
    pub max_groups: usize,
    /// Tell groups when they open and change, not only when they close.
    pub tell_open: bool,
    /// Record every match (`tapio replay --emit matches`).
    pub record_matches: bool,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self { max_keys: 65_536, max_groups: 4_096, tell_open: true, record_matches: false }
    }
}

/// One match, as `--emit matches` prints it.
#[derive(Clone, Debug)]
pub struct MatchLine {
    /// Where the completing event stands in the total order.
    pub order: u64,
    /// The rule's number: a second order for matches one event completed.
    pub rule_number: u16,
    /// The line.
    pub json: serde_json::Value,
}

/// What a lane has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Matches completed; a count's each firing.
    pub matches: u64,
    /// Keys with something pending now.
    pub keys: u64,
    /// Keys given up for room.
    pub evicted: u64,
    /// Groups open now.
    pub open: u64,
    /// Groups opened so far.
    pub opened: u64,
    /// Groups closed so far.
    pub closed: u64,
    /// Groups ended by age or for room.
    pub expired: u64,
}

pub(super) enum Body {
    Sequence(Runs),
    Count(Window),
}

pub(super) struct Pending {
    pub(super) body: Body,
    /// The group told last for this rule and key: a new run while it is open is the same story.
    pub(super) group: Option<TraceId>,
}

/// Rules over events in one order.
pub(super) struct Lane {
    rules: Arc<RuleSet>,
    shard: usize,
    pub(super) keys: KeyTable<Pending>,
    pub(super) groups: Groups,
    pub(super) record_matches: bool,
    pub(super) matches: Vec<MatchLine>,
    pub(super) matched: u64,
    clock_ns: u64,
    pub(super) key: Vec<u8>,
    pub(super) tail: Vec<u8>,
}

/// What stays the same while one event is shown to the rules.
pub(super) struct Showing<'a, 'r> {
    pub(super) rules: &'a RuleSet,
    pub(super) event: &'a ArchivedEvent<'a>,
    pub(super) hand: Hand<'r>,
    pub(super) order: u64,
    pub(super) now_ns: u64,
}

impl Lane {
    pub(super) fn new(rules: Arc<RuleSet>, shard: usize, options: LaneOptions) -> Self {
        Self {
            rules,
            shard,
            keys: KeyTable::new(options.max_keys),
            groups: Groups::new(options.max_groups, options.tell_open),
            record_matches: options.record_matches,
            matches: Vec::new(),
            matched: 0,
            clock_ns: 0,
            key: Vec::new(),
            tail: Vec::new(),
        }
    }

    pub(super) fn stats(&self) -> LaneStats {
        LaneStats {
            matches: self.matched,
            keys: self.keys.len() as u64,
            evicted: self.keys.evicted,
            open: self.groups.len() as u64,
            opened: self.groups.opened,
            closed: self.groups.closed,
            expired: self.groups.expired,
        }
    }

    /// Groups told since the last look.
    pub(super) fn take_groups(&mut self) -> Vec<Group> {
        std::mem::take(&mut self.groups.told)
    }

    /// Shows an event to the rules whose key this shard owns. `now_ns` is the driver's clock.
    pub(super) fn event(&mut self, record: &Record<'_>, now_ns: u64, found: &mut Vec<Membership>) {
        let Some(event) = record.event() else { return };
        let time_ns = event.time();
        self.clock_ns = self.clock_ns.max(time_ns);
        if self.rules.plan(event.kind_name()).uses.is_empty() {
            return;
        }
        let rules = Arc::clone(&self.rules);
        let plan = rules.plan(event.kind_name());
        let mut showing = Showing {
            rules: &rules,
            event,
            hand: Hand::new(record, event.event_id(), time_ns),
            order: record.header().order,
            now_ns,
        };
        for used in &plan.uses {
            match &rules.rules[usize::from(used.rule)].shape {
                Shape::Sequence(sequence) => self.sequence(&mut showing, used, sequence, found),
                Shape::Count(count) => self.count(&mut showing, used, count, found),
            }
        }
    }

    /// Moves time on where no event does it. `now_ns` is the driver's clock; a group also closes
    /// when that clock says nothing came for as long.
    pub(super) fn advance(&mut self, now_ns: u64) {
        let rules = Arc::clone(&self.rules);
        let (clock_ns, groups) = (self.clock_ns, &self.groups);
        self.keys.advance(clock_ns, |entry| settle(entry, &rules, groups, clock_ns), drop);
        self.groups.advance(clock_ns, now_ns, &rules.rules);
    }

    /// Closes everything: the input ended.
    pub(super) fn finish(&mut self) {
        let rules = Arc::clone(&self.rules);
        self.keys.drain();
        self.groups.finish(&rules.rules);
    }

    /// The pending state of the key in `self.key`, made by `make` if it isn't there.
    pub(super) fn pending(
        &mut self,
        rule: u16,
        deadline_ns: u64,
        make: Option<Body>,
    ) -> Option<u32> {
        let hash = self.rules.hash(&self.key);
        if self.rules.shards() > 1 && self.rules.owner(hash) != self.shard {
            return None;
        }
        if let Some(slot) = self.keys.find(hash, rule, &self.key) {
            return Some(slot);
        }
        let pending = Pending { body: make?, group: None };
        Some(self.keys.insert(hash, rule, &self.key, deadline_ns, pending).0)
    }

    pub(super) fn rank(&self, trace: TraceId, time_ns: u64, told: u8) -> u8 {
        if self.groups.takes(trace, time_ns) { told } else { told + RANK_PENDING }
    }
}

/// Until when a pending entry is needed.
fn settle(
    entry: &mut Entry<Pending>,
    rules: &RuleSet,
    groups: &Groups,
    clock_ns: u64,
) -> Option<u64> {
    let rule = &rules.rules[usize::from(entry.rule)];
    let pending = match (&entry.body.body, &rule.shape) {
        (Body::Sequence(runs), Shape::Sequence(s)) => runs.deadline_ns(s),
        (Body::Count(window), Shape::Count(c)) => window.deadline_ns(c),
        _ => None,
    };
    let group = entry.body.group.filter(|g| groups.takes(*g, clock_ns));
    let told = group.map(|_| clock_ns.saturating_add(rule.telling.idle_ns.max(1_000_000_000)));
    pending.into_iter().chain(told).filter(|d| *d >= clock_ns).max()
}

/// The trace a run gets when its first event opens it: the same in every process that sees the
/// same events.
pub(super) fn trace_of(rules: &RuleSet, rule: u16, key: &[u8], first: EventId) -> TraceId {
    let name = rules.rules[usize::from(rule)].name.text();
    TraceId(stable_hash(&[rules.cluster.as_bytes(), name.as_bytes(), key, &first.0]))
}

pub(super) fn add_membership(
    found: &mut Vec<Membership>,
    rules: &RuleSet,
    rule: u16,
    step: u8,
    group: TraceId,
    related: [EventId; 2],
    rank: u8,
) {
    if found.iter().any(|m| m.group == group) {
        return;
    }
    let rule = &rules.rules[usize::from(rule)];
    let (role, pattern): (Name, Name) = story::part(rule, step);
    found.push(Membership { group, rule: rule.name, pattern, role, rank, related });
}

pub(super) fn key_texts(
    rule: &super::rules::Rule,
    event: &ArchivedEvent<'_>,
) -> Vec<(String, String)> {
    let fields = rule.join_fields().iter();
    fields.map(|f| (f.text(), event.field(*f).map(value_text).unwrap_or_default())).collect()
}

pub(super) fn match_key(rule: &super::rules::Rule, event: &ArchivedEvent<'_>) -> serde_json::Value {
    let fields = rule.join_fields().iter();
    let pairs =
        fields.map(|f| (f.text(), event.field(*f).map_or(serde_json::Value::Null, value_json)));
    serde_json::Value::Object(pairs.collect())
}

/// The event's id as its source wrote it.
pub(super) fn label_json(event: &ArchivedEvent<'_>) -> serde_json::Value {
    match event.attribute(names::TAPIO_EVENT_ID) {
        None | Some(Value::Null) => event.event_id().to_string().into(),
        Some(value) => value_json(value),
    }
}
