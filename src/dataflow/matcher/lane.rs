//! A lane: the rules evaluated on events in one order. Their matches become stories.

use std::sync::Arc;

use crate::evidence::PendingStory;
use crate::guard::{Failures, guarded};
use crate::key_table::KeyTable;
use crate::lru::Lru;
use crate::matcher::baselines::Baselines;
use crate::matcher::event_time::reached_by;
use crate::matcher::key_state::{Body, KeyState};
use crate::matcher::lane_options::LaneOptions;
use crate::matcher::match_line::MatchLine;
use crate::matcher::membership::{RANK_LATE, add_membership};
use crate::matcher::order::LaneRole;
use crate::rules::field::build_key;
use crate::rules::{Outcomes, RuleSet, RuleUse, Shape};
use crate::story::members::EventRef;
use crate::story::open_stories::OpenStories;
use tapio_core::event::{ArchivedEvent, EventId, TraceId, names};
use tapio_core::ring::{Membership, OwnedRecord, Record};

/// The least time for which the key of an open story stays in the table after its last deadline.
const MIN_STORY_DEADLINE_NS: u64 = 1_000_000_000;

/// Counters of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Matches completed; for an aggregate, each event for which it fires.
    pub matches: u64,
    /// Rules' keys with state now.
    pub keys: u64,
    /// Keys evicted.
    pub keys_evicted: u64,
    /// Keys whose usual values are learned.
    pub baselines: u64,
    /// Those of them that were evicted.
    pub baselines_evicted: u64,
    /// Partial matches dropped because their key had too many.
    pub partial_matches_dropped: u64,
    /// Stories open now.
    pub stories_open: u64,
    /// Stories opened so far.
    pub stories_opened: u64,
    /// Stories closed so far.
    pub stories_closed: u64,
    /// Stories ended by age or for lack of room.
    pub stories_expired: u64,
    /// Those of them that were evicted before they were emitted.
    pub stories_evicted_unemitted: u64,
    /// Failures of rules.
    pub failures: u64,
    /// Keys dropped because their rule failed.
    pub keys_failed: u64,
    /// Events that came again, or repeat the fact of another one.
    pub repeated: u64,
}

/// Whether an event is a line of the kernel's log about a fact that another event reports: one fact
/// counts once.
fn is_repetition(event: &ArchivedEvent<'_>) -> bool {
    event.kind_name() == names::KERNEL_LOG && event.attribute(names::TAPIO_REPEATS).is_some()
}

/// Rules evaluated on events in one order.
pub(crate) struct Lane {
    pub(crate) rules: Arc<RuleSet>,
    shard: usize,
    role: LaneRole,
    pub(crate) keys: KeyTable<KeyState>,
    pub(crate) baselines: Baselines,
    pub(crate) stories: OpenStories,
    pub(crate) record_matches: bool,
    pub(crate) matches: Vec<MatchLine>,
    pub(crate) matched: u64,
    pub(crate) partial_matches_dropped: u64,
    clock_ns: u64,
    /// Events evaluated: their positions where the lane doesn't take those of the total order.
    evaluated: u64,
    outcomes: Outcomes,
    pub(crate) key: Vec<u8>,
    /// The counted events that an event is, and those of them with one key; kept for their memory.
    pub(crate) counted: (Vec<u8>, Vec<u8>),
    /// The memberships of a kept event, which nobody reads; kept for their memory.
    memberships: Vec<Membership>,
    pub(crate) tail: Vec<u8>,
    /// The ids of the relevant events evaluated lately: an event that comes again counts once.
    seen: Lru<EventId, ()>,
    pub(crate) failures: Failures,
    /// Keys dropped because their rule failed.
    pub(crate) keys_failed: u64,
    /// Relevant events that came again.
    repeated: u64,
}

/// The context in which the rules are evaluated on one event.
pub(crate) struct MatchContext<'a, 'r> {
    pub(crate) rules: &'a RuleSet,
    pub(crate) event: &'a ArchivedEvent<'a>,
    pub(crate) current: &'a mut EventRef<'r>,
    /// The driver's clock.
    pub(crate) now_ns: u64,
}

impl Lane {
    /// Creates a lane for the keys that shard number `shard` owns.
    pub(crate) fn new(
        rules: Arc<RuleSet>,
        shard: usize,
        role: LaneRole,
        options: LaneOptions,
    ) -> Self {
        Self {
            keys: KeyTable::new(options.max_keys),
            baselines: Baselines::new(options.max_baselines()),
            stories: OpenStories::new(options.stories(role), &rules.cluster),
            rules,
            shard,
            role,
            record_matches: options.record_matches,
            matches: Vec::new(),
            matched: 0,
            partial_matches_dropped: 0,
            clock_ns: 0,
            evaluated: 0,
            outcomes: Outcomes::default(),
            key: Vec::new(),
            counted: Default::default(),
            memberships: Vec::new(),
            tail: Vec::new(),
            seen: Lru::new(options.max_seen),
            failures: Failures::default(),
            keys_failed: 0,
            repeated: 0,
        }
    }

    pub(crate) fn stats(&self) -> LaneStats {
        LaneStats {
            matches: self.matched,
            keys: self.keys.len() as u64,
            keys_evicted: self.keys.evicted,
            baselines: self.baselines.len() as u64,
            baselines_evicted: self.baselines.evicted(),
            partial_matches_dropped: self.partial_matches_dropped,
            stories_open: self.stories.len() as u64,
            stories_opened: self.stories.opened,
            stories_closed: self.stories.closed,
            stories_expired: self.stories.expired,
            stories_evicted_unemitted: self.stories.dropped_unemitted,
            failures: self.failures.total + self.stories.failures.total,
            keys_failed: self.keys_failed,
            repeated: self.repeated,
        }
    }

    /// Reloads the rule set. State of rules with the same meaning is kept.
    pub(crate) fn reload(&mut self, rules: &Arc<RuleSet>) {
        let numbers = rules.numbers_of(&self.rules);
        self.stories.renumber(&numbers, &self.rules.rules);
        self.keys.renumber(&numbers);
        self.baselines.renumber(&numbers);
        self.rules = Arc::clone(rules);
        self.outcomes = Outcomes::default();
    }

    /// Sets the bounds; evicts what is beyond them.
    pub(crate) fn limit(&mut self, options: LaneOptions) {
        self.keys.limit(options.max_keys, drop);
        self.baselines.limit(options.max_baselines());
        self.seen.limit(options.max_seen);
        self.stories.limit(options.max_stories, &self.rules.rules);
    }

    /// Takes the emissions of open stories and the ended stories since the last call.
    pub(crate) fn take_stories(&mut self) -> (Vec<PendingStory>, Vec<PendingStory>) {
        (std::mem::take(&mut self.stories.emitted), std::mem::take(&mut self.stories.ended))
    }

    /// Ends the evicted stories for which `is_emitted` holds and drops the others.
    pub(crate) fn resolve_evicted(&mut self, is_emitted: impl Fn(TraceId) -> bool) {
        self.stories.resolve_evicted(&self.rules.rules, is_emitted);
    }

    /// Processes one event. Returns whether it is relevant to any rule, whichever shard owns the
    /// key, and then a copy of it if `keep` is set. `now_ns`: the driver's clock, ns since the Unix
    /// epoch.
    pub(crate) fn process(
        &mut self,
        record: &Record<'_>,
        now_ns: u64,
        keep: bool,
        memberships: &mut Vec<Membership>,
    ) -> (bool, Option<Arc<OwnedRecord>>) {
        let Some(event) = record.event() else { return (false, None) };
        self.advance_clock(event.time(), now_ns);
        if self.rules.plan(event.kind_name()).uses.is_empty() {
            return (false, None);
        }
        if is_repetition(event) {
            self.repeated += 1;
            return (false, None);
        }
        let order = match self.role {
            LaneRole::Replay => record.header().order,
            LaneRole::Arrival | LaneRole::EventTime => self.evaluated + 1,
        };
        let mut current = EventRef::new(record, event.event_id(), event.time(), order);
        let relevant = self.evaluate(&mut current, now_ns, memberships);
        (relevant, (relevant && keep).then(|| current.copy()))
    }

    /// Processes an event of which a copy exists.
    pub(crate) fn process_kept(&mut self, kept: &Arc<OwnedRecord>, now_ns: u64) {
        let record = kept.record();
        let Some(event) = record.event() else { return };
        self.advance_clock(event.time(), now_ns);
        let current = EventRef::new(&record, event.event_id(), event.time(), self.evaluated + 1);
        let mut memberships = std::mem::take(&mut self.memberships);
        memberships.clear();
        self.evaluate(&mut current.with_copy(Arc::clone(kept)), now_ns, &mut memberships);
        self.memberships = memberships;
    }

    /// Advances event time to that of an event. Replay reads what was, whatever its times.
    fn advance_clock(&mut self, time_ns: u64, now_ns: u64) {
        let time_ns = match self.role {
            LaneRole::Replay => time_ns,
            LaneRole::Arrival | LaneRole::EventTime => reached_by(time_ns, now_ns),
        };
        self.clock_ns = self.clock_ns.max(time_ns);
    }

    /// Evaluates the rules whose key this shard owns. Returns whether the event is relevant to any
    /// rule; one that was evaluated before isn't.
    fn evaluate(
        &mut self,
        current: &mut EventRef<'_>,
        now_ns: u64,
        memberships: &mut Vec<Membership>,
    ) -> bool {
        let Some(event) = current.record.event() else { return false };
        let rules = Arc::clone(&self.rules);
        let plan = rules.plan(event.kind_name());
        let mut outcomes = std::mem::take(&mut self.outcomes);
        plan.evaluate(event, &mut outcomes);
        let mut relevant = !outcomes.relevant.is_empty();
        if relevant && self.seen.get(&current.id).is_some() {
            self.repeated += 1;
            relevant = false;
        }
        if relevant {
            self.seen.insert(current.id, ());
            self.evaluated += 1;
            let mut context = MatchContext { rules: &rules, event, current, now_ns };
            let (mut next, mut kept) = (0, memberships.len());
            // One guard for all rules: where one fails, the rest is evaluated under another.
            while let Err(cause) = guarded(|| {
                while let Some(used) = outcomes.relevant.get(next) {
                    (next, kept) = (next + 1, memberships.len());
                    let used = &plan.uses[usize::from(*used)];
                    self.rule(&mut context, used, &outcomes, memberships);
                }
            }) {
                memberships.truncate(kept);
                let used = &plan.uses[usize::from(outcomes.relevant[next - 1])];
                let slot = self.keys.find(rules.hash(&self.key), used.rule, &self.key);
                self.rule_failed(&rules, used.rule, slot, cause);
            }
        }
        self.outcomes = outcomes;
        relevant
    }

    fn rule(
        &mut self,
        context: &mut MatchContext<'_, '_>,
        used: &RuleUse,
        outcomes: &Outcomes,
        memberships: &mut Vec<Membership>,
    ) {
        match &context.rules.rules[usize::from(used.rule)].shape {
            Shape::Sequence(sequence) => {
                self.sequence(context, used, outcomes, sequence, memberships);
            }
            Shape::Aggregate(aggregate) => {
                self.aggregate(context, used, outcomes, aggregate, memberships);
            }
        }
    }

    /// Processes a late event: it starts, advances and negates nothing, but becomes a member of the
    /// open stories of its keys. Returns whether it is relevant to any rule.
    pub(crate) fn process_late(
        &mut self,
        record: &Record<'_>,
        memberships: &mut Vec<Membership>,
    ) -> bool {
        let Some(event) = record.event().filter(|event| !is_repetition(event)) else {
            return false;
        };
        let rules = Arc::clone(&self.rules);
        let plan = rules.plan(event.kind_name());
        let mut outcomes = std::mem::take(&mut self.outcomes);
        plan.evaluate(event, &mut outcomes);
        let mut current = EventRef::new(record, event.event_id(), event.time(), 0);
        for used in outcomes.relevant.iter().map(|used| &plan.uses[usize::from(*used)]) {
            let shape = &rules.rules[usize::from(used.rule)].shape;
            for op in used.ops.iter().filter(|op| outcomes.holds(**op)) {
                let Some((step, number, by)) = shape.member_part(op.part) else { continue };
                if !build_key(event, by, &mut self.key) {
                    continue;
                }
                let slot = self.key_slot(used.rule, 0, None::<fn() -> Body>);
                let story = slot.and_then(|s| self.keys.get(s)).and_then(|e| e.body.story);
                let Some((story, before)) = story.and_then(|s| Some((s, self.stories.ends(s)?)))
                else {
                    continue;
                };
                if self.stories.join_late(story, &mut current, step, number) {
                    let rule = used.rule;
                    add_membership(memberships, &rules, rule, step, story, before, RANK_LATE);
                    if let Some(new) = memberships.last_mut().filter(|m| m.story == story) {
                        new.role = names::LATE;
                    }
                }
            }
        }
        let relevant = !outcomes.relevant.is_empty();
        self.outcomes = outcomes;
        relevant
    }

    /// Advances event time to `clock_ns`, where a watermark guarantees that nothing earlier
    /// follows.
    pub(crate) fn advance_to(&mut self, clock_ns: u64, now_ns: u64) {
        self.clock_ns = self.clock_ns.max(clock_ns);
        self.advance(now_ns);
    }

    /// Completes, expires and ends what is due. `now_ns`: the driver's clock, by which stories also
    /// end when no event advances event time.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        let rules = Arc::clone(&self.rules);
        let (due, clock_ns) = (self.keys.due(self.clock_ns), self.clock_ns);
        self.each_key(&rules, &due, |lane, slot| lane.key_due(&rules, slot, clock_ns, now_ns));
        self.stories.advance(self.clock_ns, now_ns, &rules.rules);
    }

    /// Ends all stories, at the end of the input. If the input is `complete`, matches that depend
    /// on the absence of an event are completed.
    pub(crate) fn finish(&mut self, complete: bool) {
        let rules = Arc::clone(&self.rules);
        if complete {
            let (slots, clock_ns) = (self.keys.slots(), self.clock_ns);
            self.each_key(&rules, &slots, |lane, slot| {
                lane.complete_due(&rules, slot, u64::MAX, clock_ns);
            });
        }
        self.keys.clear();
        self.stories.finish(&rules.rules);
    }

    /// Completes the due matches of a key, then removes the key or sets its next deadline.
    fn key_due(&mut self, rules: &RuleSet, slot: u32, clock_ns: u64, now_ns: u64) {
        self.complete_due(rules, slot, clock_ns, now_ns);
        let Some(entry) = self.keys.get(slot) else { return };
        let number = entry.rule;
        let rule = &rules.rules[usize::from(number)];
        let of_body = match (&mut entry.body.body, &rule.shape) {
            (Body::Sequence(partial), Shape::Sequence(s)) => partial.deadline_ns(s),
            (Body::Window(window), Shape::Aggregate(a)) => {
                if a.deviation.is_some() {
                    self.baselines.close(number, a, &entry.key, (window, clock_ns));
                }
                window.deadline_ns(a)
            }
            _ => None,
        };
        let story = entry.body.story.filter(|s| self.stories.accepts(*s, clock_ns));
        let idle_ns = rule.story.idle_ns.max(MIN_STORY_DEADLINE_NS);
        let of_story = story.map(|_| clock_ns.saturating_add(idle_ns));
        match of_body.filter(|d| *d >= clock_ns).or(of_story) {
            Some(deadline_ns) => self.keys.reschedule(slot, deadline_ns),
            None => {
                self.keys.remove(slot);
            }
        }
    }

    /// Returns the slot of the key in `self.key`, created with `make` if it isn't in the table;
    /// `None` where another shard owns the key.
    pub(crate) fn key_slot(
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
        let state = KeyState::new(make?());
        Some(self.keys.insert(hash, rule, &self.key, deadline_ns, state).0)
    }

    /// The first and the latest member before this event. If the story is open the first one is the
    /// story's, whichever partial match the event is in.
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
}
