//! Matching in one given order: the order of arrival while events stream (told at once), or the
//! total order in replay (exact). The rules run here; what they find becomes stories.

use std::sync::Arc;

use crate::evidence::Draft;
use crate::matcher::key_table::KeyTable;
use crate::matcher::partial_match::Runs;
use crate::matcher::window::Window;
use crate::rules::field::build_key;
use crate::rules::{FieldRef, Outcomes, Rule, RuleSet, Shape, View};
use crate::shard::worker::Order;
use crate::story::members::Hand;
use crate::story::open::{OpenStories, Unknown};
use crate::story::render;
use tapio_core::event::{
    ArchivedEvent, EventId, Name, TraceId, Value, names, stable_hash, value_json,
};
use tapio_core::ring::{Membership, OwnedRecord, Record};

/// Which membership gives an event its trace, by its rank in a story that is told and in one that isn't yet. What joins
/// the event with others comes before what tells it alone: a failed unit is told at once, but when its
/// journal has said why and its pods follow, they are one trace. A sequence comes before a count of the same
/// events, so that its few members all carry its trace.
pub(crate) const RANKS_LINKED: [u8; 2] = [0, 1];
pub(crate) const RANKS_ALONE: [u8; 2] = [2, 4];
pub(crate) const RANKS_COUNTED: [u8; 2] = [3, 5];
/// What came too late for more than to be a member.
const RANK_LATE: u8 = 6;

/// Bounds and modes of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    /// Keys with something pending; past it, the nearest deadline is given up.
    pub max_keys: usize,
    /// Stories open at once; past it, the one that ends next is expired.
    pub max_stories: usize,
    /// Tell stories when they open and change, not only when they close.
    pub tell_open: bool,
    /// What becomes of stories that are given up for room before they were told.
    pub unknown: Unknown,
    /// Record every match (`tapio replay --emit matches`).
    pub record_matches: bool,
    /// The order in which events are shown.
    pub order: Order,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self {
            max_keys: 65_536,
            max_stories: 4_096,
            tell_open: true,
            unknown: Unknown::Counted,
            record_matches: false,
            order: Order::Arrival,
        }
    }
}

/// One match, as `--emit matches` prints it.
#[derive(Clone, Debug)]
pub struct MatchLine {
    /// When it was completed: a second order for matches that time completed, not an event.
    pub time_ns: u64,
    /// Where the completing event stands in the total order; `u64::MAX` where time completed it.
    pub order: u64,
    /// The rule's number: the order of matches that were completed together.
    pub rule_number: u16,
    /// Where the match's first event stands in the total order.
    pub first: u64,
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
    /// Runs given up because their key had too many.
    pub dropped_runs: u64,
    /// Stories open now.
    pub open: u64,
    /// Stories opened so far.
    pub opened: u64,
    /// Stories closed so far.
    pub closed: u64,
    /// Stories ended by age or for room.
    pub expired: u64,
    /// Those of them that were given up before anybody was told of them.
    pub untold: u64,
}

pub(crate) enum Body {
    Sequence(Runs),
    Window(Box<Window>),
}

pub(crate) struct Pending {
    pub(crate) body: Body,
    /// The story told last for this rule and key: a new run while it is open is the same story.
    pub(crate) story: Option<TraceId>,
    /// The latest stories told for it.
    pub(crate) told: Vec<TraceId>,
}

/// Stories of one key that are remembered: runs that began under an older one are long gone.
const MAX_TOLD: usize = 16;

impl Pending {
    pub(crate) fn tell(&mut self, story: TraceId) {
        self.story = Some(story);
        if !self.told.contains(&story) {
            if self.told.len() >= MAX_TOLD {
                self.told.remove(0);
            }
            self.told.push(story);
        }
    }
}

/// Rules over events in one order.
pub(crate) struct Lane {
    rules: Arc<RuleSet>,
    shard: usize,
    pub(crate) keys: KeyTable<Pending>,
    pub(crate) stories: OpenStories,
    pub(crate) record_matches: bool,
    pub(crate) matches: Vec<MatchLine>,
    pub(crate) matched: u64,
    pub(crate) dropped_runs: u64,
    order: Order,
    clock_ns: u64,
    /// Events shown: their order where they don't bring one that holds for all sources.
    shown: u64,
    outcomes: Outcomes,
    pub(crate) key: Vec<u8>,
    pub(crate) tail: Vec<u8>,
}

/// What stays the same while one event is shown to the rules.
pub(crate) struct Showing<'a, 'r> {
    pub(crate) rules: &'a RuleSet,
    pub(crate) event: &'a ArchivedEvent<'a>,
    pub(crate) hand: &'a mut Hand<'r>,
    pub(crate) now_ns: u64,
}

impl Lane {
    pub(crate) fn new(rules: Arc<RuleSet>, shard: usize, options: LaneOptions) -> Self {
        Self {
            keys: KeyTable::new(options.max_keys),
            stories: OpenStories::new(options, &rules.cluster),
            rules,
            shard,
            record_matches: options.record_matches,
            matches: Vec::new(),
            matched: 0,
            dropped_runs: 0,
            order: options.order,
            clock_ns: 0,
            shown: 0,
            outcomes: Outcomes::default(),
            key: Vec::new(),
            tail: Vec::new(),
        }
    }

    pub(crate) fn stats(&self) -> LaneStats {
        LaneStats {
            matches: self.matched,
            keys: self.keys.len() as u64,
            evicted: self.keys.evicted,
            dropped_runs: self.dropped_runs,
            open: self.stories.len() as u64,
            opened: self.stories.opened,
            closed: self.stories.closed,
            expired: self.stories.expired,
            untold: self.stories.untold,
        }
    }

    /// Goes on with other rules. What is pending for a rule that stays the same stays, too.
    pub(crate) fn reload(&mut self, rules: &Arc<RuleSet>) {
        let places = rules.numbers_of(&self.rules);
        self.stories.renumber(&places, &self.rules.rules);
        self.keys.renumber(&places);
        self.rules = Arc::clone(rules);
        self.outcomes = Outcomes::default();
    }

    /// Stories told while they are open, and stories that ended, since the last look.
    pub(crate) fn take_stories(&mut self) -> (Vec<Draft>, Vec<Draft>) {
        (std::mem::take(&mut self.stories.told), std::mem::take(&mut self.stories.ended))
    }

    /// Tells the stories given up for room that are `known`.
    pub(crate) fn tell_given_up(&mut self, known: impl Fn(TraceId) -> bool) {
        self.stories.tell_given_up(&self.rules.rules, known);
    }

    /// Shows an event to the rules whose key this shard owns. `now_ns` is the driver's clock. Returns
    /// whether any rule, whoever owns its key, has something to do with the event, and a copy of it
    /// then for whoever `keeps` such events.
    pub(crate) fn event(
        &mut self,
        record: &Record<'_>,
        now_ns: u64,
        keeps: bool,
        found: &mut Vec<Membership>,
    ) -> (bool, Option<Arc<OwnedRecord>>) {
        let Some(event) = record.event() else { return (false, None) };
        self.clock_ns = self.clock_ns.max(event.time());
        if self.rules.plan(event.kind_name()).uses.is_empty() {
            return (false, None);
        }
        let order = match self.order {
            Order::Total => record.header().order,
            Order::Arrival => self.shown + 1,
        };
        let mut hand = Hand::new(record, event.event_id(), event.time(), order);
        let wanted = self.show(&mut hand, now_ns, found);
        (wanted, (wanted && keeps).then(|| hand.copy()))
    }

    /// Shows an event that is kept already.
    pub(crate) fn kept_event(&mut self, kept: &Arc<OwnedRecord>, now_ns: u64) {
        let record = kept.record();
        let Some(event) = record.event() else { return };
        self.clock_ns = self.clock_ns.max(event.time());
        let hand = Hand::new(&record, event.event_id(), event.time(), self.shown + 1);
        self.show(&mut hand.kept(Arc::clone(kept)), now_ns, &mut Vec::new());
    }

    /// Shows an event to the rules. False where none has a use for it.
    fn show(&mut self, hand: &mut Hand<'_>, now_ns: u64, found: &mut Vec<Membership>) -> bool {
        let Some(event) = hand.record.event() else { return false };
        let rules = Arc::clone(&self.rules);
        let plan = rules.plan(event.kind_name());
        let mut outcomes = std::mem::take(&mut self.outcomes);
        plan.evaluate(event, &mut outcomes);
        let wanted = !outcomes.relevant.is_empty();
        if wanted {
            self.shown += 1;
            let mut showing = Showing { rules: &rules, event, hand, now_ns };
            for used in &outcomes.relevant {
                let used = &plan.uses[usize::from(*used)];
                match &rules.rules[usize::from(used.rule)].shape {
                    Shape::Sequence(s) => self.sequence(&mut showing, used, &outcomes, s, found),
                    Shape::Aggregate(a) => self.aggregate(&mut showing, used, &outcomes, a, found),
                }
            }
        }
        self.outcomes = outcomes;
        wanted
    }

    /// An event whose place in the order has been given out starts, advances and negates nothing; it
    /// belongs to the stories of its keys that are open. Returns as [`Lane::event`].
    pub(crate) fn late(&mut self, record: &Record<'_>, found: &mut Vec<Membership>) -> bool {
        let Some(event) = record.event() else { return false };
        let rules = Arc::clone(&self.rules);
        let plan = rules.plan(event.kind_name());
        let mut outcomes = std::mem::take(&mut self.outcomes);
        plan.evaluate(event, &mut outcomes);
        let mut hand = Hand::new(record, event.event_id(), event.time(), 0);
        for used in outcomes.relevant.iter().map(|used| &plan.uses[usize::from(*used)]) {
            let shape = &rules.rules[usize::from(used.rule)].shape;
            for op in used.ops.iter().filter(|op| outcomes.holds(**op)) {
                let Some((step, number, by)) = shape.member_part(op.part) else { continue };
                if !build_key(event, by, &mut self.key) {
                    continue;
                }
                let slot = self.pending(used.rule, 0, None::<fn() -> Body>);
                let story = slot.and_then(|s| self.keys.get(s)).and_then(|e| e.body.story);
                let Some((story, before)) = story.and_then(|g| Some((g, self.stories.ends(g)?)))
                else {
                    continue;
                };
                if self.stories.join_late(story, &mut hand, step, number) {
                    add_membership(found, &rules, used.rule, step, story, before, RANK_LATE);
                    if let Some(new) = found.last_mut().filter(|m| m.story == story) {
                        new.role = names::LATE;
                    }
                }
            }
        }
        let wanted = !outcomes.relevant.is_empty();
        self.outcomes = outcomes;
        wanted
    }

    /// Moves time on to `clock_ns`, where a watermark says that nothing earlier follows.
    pub(crate) fn advance_to(&mut self, clock_ns: u64, now_ns: u64) {
        self.clock_ns = self.clock_ns.max(clock_ns);
        self.advance(now_ns);
    }

    /// Moves time on where no event does it. `now_ns` is the driver's clock; a story also closes
    /// when that clock says nothing came for as long.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        let rules = Arc::clone(&self.rules);
        for slot in self.keys.due(self.clock_ns) {
            self.settle(&rules, slot, self.clock_ns, now_ns);
        }
        self.stories.advance(self.clock_ns, now_ns, &rules.rules);
    }

    /// Closes everything: the input ended. Where it is `complete`, nothing that was waited for can
    /// come any more, and what depends on its absence is told.
    pub(crate) fn finish(&mut self, complete: bool) {
        let rules = Arc::clone(&self.rules);
        if complete {
            for slot in self.keys.slots() {
                self.settle_runs(&rules, slot, u64::MAX, self.clock_ns);
            }
        }
        self.keys.clear();
        self.stories.finish(&rules.rules);
    }

    /// Tells what has become due for a key, and forgets the key or asks to look at it again.
    fn settle(&mut self, rules: &RuleSet, slot: u32, clock_ns: u64, now_ns: u64) {
        self.settle_runs(rules, slot, clock_ns, now_ns);
        let Some(entry) = self.keys.get(slot) else { return };
        let rule = &rules.rules[usize::from(entry.rule)];
        let pending = match (&entry.body.body, &rule.shape) {
            (Body::Sequence(runs), Shape::Sequence(s)) => runs.deadline_ns(s),
            (Body::Window(window), Shape::Aggregate(a)) => window.deadline_ns(a),
            _ => None,
        };
        let story = entry.body.story.filter(|g| self.stories.takes(*g, clock_ns));
        let told = story.map(|_| clock_ns.saturating_add(rule.story.idle_ns.max(1_000_000_000)));
        match pending.filter(|d| *d >= clock_ns).or(told) {
            Some(deadline_ns) => self.keys.look_again(slot, deadline_ns),
            None => {
                self.keys.remove(slot);
            }
        }
    }

    /// The pending state of the key in `self.key`, made by `make` if it isn't there.
    pub(crate) fn pending(
        &mut self,
        rule: u16,
        deadline_ns: u64,
        make: Option<impl FnOnce() -> Body>,
    ) -> Option<u32> {
        let hash = self.rules.hash(&self.key);
        if self.rules.shards() > 1 && self.rules.owner(hash) != self.shard {
            return None;
        }
        if let Some(slot) = self.keys.find(hash, rule, &self.key) {
            return Some(slot);
        }
        let pending = Pending { body: make?(), story: None, told: Vec::new() };
        Some(self.keys.insert(hash, rule, &self.key, deadline_ns, pending).0)
    }

    /// The ends of the members before an event of this id, where the story has been told: its first one is the
    /// story's, whichever run the event is in.
    pub(crate) fn related(
        &self,
        trace: TraceId,
        id: EventId,
        before: [EventId; 2],
    ) -> [EventId; 2] {
        match self.stories.ends(trace) {
            Some([first, _]) if first != id => [first, before[1]],
            _ => before,
        }
    }

    pub(crate) fn rank(&self, trace: TraceId, time_ns: u64, [told, pending]: [u8; 2]) -> u8 {
        if self.stories.takes(trace, time_ns) { told } else { pending }
    }
}

/// The trace a run gets when its first event opens it: the same in every process that sees the
/// same events.
pub(crate) fn trace_of(rules: &RuleSet, rule: u16, key: &[u8], first: EventId) -> TraceId {
    let name = rules.rules[usize::from(rule)].name.text();
    TraceId(stable_hash(&[rules.cluster.as_bytes(), name.as_bytes(), key, &first.0]))
}

pub(crate) fn add_membership(
    found: &mut Vec<Membership>,
    rules: &RuleSet,
    rule: u16,
    step: u8,
    story: TraceId,
    related: [EventId; 2],
    rank: u8,
) {
    if found.iter().any(|m| m.story == story) {
        return;
    }
    let rule = &rules.rules[usize::from(rule)];
    let (role, pattern): (Name, Name) = render::part(rule, step);
    found.push(Membership { story, rule: rule.name, pattern, role, rank, related });
}

/// The join key by the rule's names for it; `by` are the event's own.
pub(crate) fn key_json(
    rule: &Rule,
    by: &[FieldRef],
    event: &ArchivedEvent<'_>,
) -> serde_json::Value {
    let names = rule.join_fields().iter().zip(by);
    let value = |f: &FieldRef| event.field(*f).map_or(serde_json::Value::Null, value_json);
    serde_json::Value::Object(names.map(|(n, f)| (n.text(), value(f))).collect())
}

/// The event's id as its source wrote it.
pub(crate) fn label_json(event: &ArchivedEvent<'_>) -> serde_json::Value {
    match event.attribute(names::TAPIO_EVENT_ID) {
        None | Some(Value::Null) => event.event_id().to_string().into(),
        Some(value) => value_json(value),
    }
}
