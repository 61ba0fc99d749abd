//! Matching in one given order: the order of arrival while events stream (told at once), or the
//! total order in replay (exact). The rules run here; what they find becomes groups.

use std::sync::Arc;

use super::groups::{Groups, Match};
use super::keys::{Entry, KeyTable};
use super::rules::field::{build_key, value_text};
use super::rules::{Count, RuleSet, RuleUse, Sequence, Shape, View};
use super::run::{Hand, Outcome, Run, Runs, Window};
use super::story;
use crate::event::{
    ArchivedEvent, EventId, Group, Name, TraceId, Value, names, stable_hash, value_json,
};
use crate::ring::{Membership, Record};

/// Ranks of memberships: which story gives an event its trace.
const RANK_TOLD: u8 = 0;
const RANK_SEQUENCE: u8 = 1;
const RANK_COUNT: u8 = 2;

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
        Self {
            max_keys: 65_536,
            max_groups: 4_096,
            tell_open: true,
            record_matches: false,
        }
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

enum Body {
    Sequence(Runs),
    Count(Window),
}

struct Pending {
    body: Body,
    /// The group told last for this rule and key: a new run while it is open is the same story.
    group: Option<TraceId>,
}

/// Rules over events in one order.
pub(super) struct Lane {
    rules: Arc<RuleSet>,
    shard: usize,
    keys: KeyTable<Pending>,
    groups: Groups,
    record_matches: bool,
    pub(super) matches: Vec<MatchLine>,
    matched: u64,
    clock_ns: u64,
    key: Vec<u8>,
    tail: Vec<u8>,
}

/// What stays the same while one event is shown to the rules.
struct Showing<'a, 'r> {
    rules: &'a RuleSet,
    event: &'a ArchivedEvent<'a>,
    hand: Hand<'r>,
    order: u64,
    now_ns: u64,
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
        self.keys.advance(
            clock_ns,
            |entry| settle(entry, &rules, groups, clock_ns),
            drop,
        );
        self.groups.advance(clock_ns, now_ns, &rules.rules);
    }

    /// Closes everything: the input ended.
    pub(super) fn finish(&mut self) {
        let rules = Arc::clone(&self.rules);
        self.keys.drain();
        self.groups.finish(&rules.rules);
    }

    /// The pending state of the key in `self.key`, made by `make` if it isn't there.
    fn pending(&mut self, rule: u16, deadline_ns: u64, make: Option<Body>) -> Option<u32> {
        let hash = self.rules.hash(&self.key);
        if self.rules.shards() > 1 && self.rules.owner(hash) != self.shard {
            return None;
        }
        if let Some(slot) = self.keys.find(hash, rule, &self.key) {
            return Some(slot);
        }
        let pending = Pending {
            body: make?,
            group: None,
        };
        Some(
            self.keys
                .insert(hash, rule, &self.key, deadline_ns, pending)
                .0,
        )
    }

    fn sequence(
        &mut self,
        showing: &mut Showing<'_, '_>,
        used: &RuleUse,
        sequence: &Sequence,
        found: &mut Vec<Membership>,
    ) {
        let rule = &showing.rules.rules[usize::from(used.rule)];
        let holds = |event: u16| {
            rule.events[usize::from(event)]
                .predicate
                .holds(showing.event)
        };
        let time_ns = showing.hand.time_ns;
        if used.until.is_some_and(holds)
            && build_key(showing.event, &sequence.until_by, &mut self.key)
            && let Some(slot) = self.pending(used.rule, 0, None)
            && let Some(Entry {
                body:
                    Pending {
                        body: Body::Sequence(runs),
                        ..
                    },
                ..
            }) = self.keys.get(slot)
        {
            runs.clear();
        }
        let mut last: Option<(u16, bool)> = None;
        let mut joined: Option<TraceId> = None;
        for &(step, event) in used.steps.iter().rev() {
            let hit = match last {
                Some((same, hit)) if same == event => hit,
                _ => rule.events[usize::from(event)]
                    .predicate
                    .holds(showing.event),
            };
            last = Some((event, hit));
            let by = &sequence.steps[usize::from(step)].by;
            if !hit
                || !build_key(showing.event, &by[..sequence.key_fields], &mut self.key)
                || !build_key(showing.event, &by[sequence.key_fields..], &mut self.tail)
            {
                continue;
            }
            let starts = sequence.steps[..usize::from(step)]
                .iter()
                .all(|s| s.optional);
            let body = starts.then(|| Body::Sequence(Runs::new(sequence)));
            let deadline_ns = time_ns.saturating_add(sequence.within_ns);
            let Some(slot) = self.pending(used.rule, deadline_ns, body) else {
                continue;
            };
            let outcome = self.try_step(showing, used.rule, slot, sequence, usize::from(step));
            let (trace, before, completed) = match outcome {
                Some(Outcome::Joined { trace, before }) => (trace, before, None),
                Some(Outcome::Completed { run, before }) => (run.trace, before, Some(run)),
                None => match self.attach(showing, slot, step, event, joined) {
                    Some((group, before)) => (group, before, None),
                    None => continue,
                },
            };
            let trace = match completed {
                Some(run) => self.completed(showing, used.rule, slot, &run),
                None => trace,
            };
            joined = Some(trace);
            add_membership(
                found,
                showing.rules,
                used.rule,
                step,
                trace,
                before,
                self.rank(trace, time_ns, RANK_SEQUENCE),
            );
        }
    }

    fn rank(&self, trace: TraceId, time_ns: u64, pending: u8) -> u8 {
        if self.groups.takes(trace, time_ns) {
            RANK_TOLD
        } else {
            pending
        }
    }

    fn try_step(
        &mut self,
        showing: &mut Showing<'_, '_>,
        rule: u16,
        slot: u32,
        sequence: &Sequence,
        step: usize,
    ) -> Option<Outcome> {
        let time_ns = showing.hand.time_ns;
        let entry = self.keys.get(slot)?;
        let open = entry.body.group.filter(|g| self.groups.takes(*g, time_ns));
        let Body::Sequence(runs) = &mut entry.body.body else {
            return None;
        };
        runs.expire(sequence, time_ns);
        let (rules, key, id) = (showing.rules, &entry.key, showing.hand.id);
        runs.step(sequence, step, &self.tail, &mut showing.hand, || {
            open.unwrap_or_else(|| trace_of(rules, rule, key, id))
        })
    }

    /// An event no run waits for still belongs to the group that is open for its key, unless it
    /// could only begin another.
    fn attach(
        &mut self,
        showing: &mut Showing<'_, '_>,
        slot: u32,
        step: u8,
        event: u16,
        joined: Option<TraceId>,
    ) -> Option<(TraceId, [EventId; 2])> {
        let group = self.keys.get(slot)?.body.group?;
        if joined.is_some() || !self.groups.takes(group, showing.hand.time_ns) {
            return None;
        }
        let before = self.groups.ends(group)?;
        self.groups
            .join(group, &mut showing.hand, step, event, showing.now_ns);
        Some((group, before))
    }

    fn completed(
        &mut self,
        showing: &Showing<'_, '_>,
        number: u16,
        slot: u32,
        run: &Run,
    ) -> TraceId {
        self.matched += 1;
        let rule = &showing.rules.rules[usize::from(number)];
        if self.record_matches {
            let events: Vec<_> = run
                .filled
                .iter()
                .filter_map(|r| r.event())
                .map(label_json)
                .collect();
            let key = match_key(rule, showing.event);
            let json = serde_json::json!({"rule": rule.name.text(), "key": key, "events": events});
            self.matches.push(MatchLine {
                order: showing.order,
                rule_number: number,
                json,
            });
        }
        // Steps may name the shared key differently: the first one's names stand for it.
        let key = match run.filled.first().and_then(|r| r.event()) {
            Some(first) => key_texts(rule, first),
            None => key_texts(rule, showing.event),
        };
        let found = Match {
            rule_number: number,
            rule,
            key,
            trace: run.trace,
            members: &run.members,
        };
        let id = self
            .groups
            .matched(found, &showing.rules.rules, showing.now_ns);
        if let Some(entry) = self.keys.get(slot) {
            entry.body.group = Some(id);
        }
        id
    }

    fn count(
        &mut self,
        showing: &mut Showing<'_, '_>,
        used: &RuleUse,
        count: &Count,
        found: &mut Vec<Membership>,
    ) {
        let number = used.rule;
        let rule = &showing.rules.rules[usize::from(number)];
        let hit = used
            .steps
            .iter()
            .find(|(_, e)| rule.events[usize::from(*e)].predicate.holds(showing.event));
        let Some(&(_, event)) = hit else { return };
        if !build_key(showing.event, &count.by, &mut self.key) {
            return;
        }
        let time_ns = showing.hand.time_ns;
        let deadline_ns = time_ns.saturating_add(count.within_ns);
        let body = Body::Count(Window::default());
        let Some(slot) = self.pending(number, deadline_ns, Some(body)) else {
            return;
        };
        let Some(entry) = self.keys.get(slot) else {
            return;
        };
        let told = entry.body.group.filter(|g| self.groups.takes(*g, time_ns));
        let Body::Count(window) = &mut entry.body.body else {
            return;
        };
        let before = if window.members.total == 0 {
            <[EventId; 2]>::default()
        } else {
            window.members.ends
        };
        let (key, id) = (&entry.key, showing.hand.id);
        let value = window.add(count, &mut showing.hand, event, told.is_some(), || {
            trace_of(showing.rules, number, key, id)
        });
        let fires = count.bounds.hold(value);
        let trace = match told {
            Some(group) => {
                self.groups
                    .join(group, &mut showing.hand, 0, event, showing.now_ns);
                group
            }
            None if fires => {
                let key = key_texts(rule, showing.event);
                let found = Match {
                    rule_number: number,
                    rule,
                    key,
                    trace: window.trace,
                    members: &window.members,
                };
                let id = self
                    .groups
                    .matched(found, &showing.rules.rules, showing.now_ns);
                entry.body.group = Some(id);
                id
            }
            None => window.trace,
        };
        if fires {
            self.fired(showing, number, value);
        }
        add_membership(
            found,
            showing.rules,
            number,
            0,
            trace,
            before,
            self.rank(trace, time_ns, RANK_COUNT),
        );
    }

    fn fired(&mut self, showing: &Showing<'_, '_>, number: u16, value: u64) {
        self.matched += 1;
        if self.record_matches {
            let rule = &showing.rules.rules[usize::from(number)];
            let json = serde_json::json!({
                "rule": rule.name.text(), "key": match_key(rule, showing.event),
                "event": label_json(showing.event), "value": value,
            });
            self.matches.push(MatchLine {
                order: showing.order,
                rule_number: number,
                json,
            });
        }
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
    pending
        .into_iter()
        .chain(told)
        .filter(|d| *d >= clock_ns)
        .max()
}

/// The trace a run gets when its first event opens it: the same in every process that sees the
/// same events.
fn trace_of(rules: &RuleSet, rule: u16, key: &[u8], first: EventId) -> TraceId {
    let name = rules.rules[usize::from(rule)].name.text();
    TraceId(stable_hash(&[
        rules.cluster.as_bytes(),
        name.as_bytes(),
        key,
        &first.0,
    ]))
}

fn add_membership(
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
    found.push(Membership {
        group,
        rule: rule.name,
        pattern,
        role,
        rank,
        related,
    });
}

fn key_texts(rule: &super::rules::Rule, event: &ArchivedEvent<'_>) -> Vec<(String, String)> {
    let fields = rule.join_fields().iter();
    fields
        .map(|f| {
            (
                f.text(),
                event.field(*f).map(value_text).unwrap_or_default(),
            )
        })
        .collect()
}

fn match_key(rule: &super::rules::Rule, event: &ArchivedEvent<'_>) -> serde_json::Value {
    let fields = rule.join_fields().iter();
    let pairs = fields.map(|f| {
        (
            f.text(),
            event.field(*f).map_or(serde_json::Value::Null, value_json),
        )
    });
    serde_json::Value::Object(pairs.collect())
}

/// The event's id as its source wrote it.
fn label_json(event: &ArchivedEvent<'_>) -> serde_json::Value {
    match event.attribute(names::TAPIO_EVENT_ID) {
        None | Some(Value::Null) => event.event_id().to_string().into(),
        Some(value) => value_json(value),
    }
}
