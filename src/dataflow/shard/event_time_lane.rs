//! The event-time lane: evaluates the same rules on the same events as the arrival lane, but in
//! event-time order, behind the watermark. Its result is the final form of each story.
//!
//! The arrival lane transfers its stories here: [`EventTimeLane::opened`] for each emission of an
//! open story, [`EventTimeLane::ended`] for each ended one. For each story this lane tracks a
//! [`State`] until its final form is emitted:
//!
//! # States
//!
//! ## unknown → `Open`
//! The arrival lane emits the story while it is open.
//!
//! ## unknown → `Unemitted`
//! The story ended in the arrival lane before it was emitted. Only its members carry its trace.
//!
//! ## `Open` → `Ended`
//! The story ended in the arrival lane. Its end isn't emitted yet.
//!
//! ## `Unemitted` → `Ended`
//! The arrival lane emits the story after all: it had another one with the same id.
//!
//! ## any → final: confirmed
//! The story ends in this lane. It is emitted as an update, or for the first time if it was
//! `Unemitted` or unknown. If event time begins a story with another event, it has another id: it
//! is emitted with `provisional` naming the story with which it shares a key and the most members.
//! No other story can name that one, but it stays in its state: it can still be confirmed.
//!
//! ## `Ended` → final: retracted
//! Event time is so far past the story that no rule confirms it any more. It is emitted as
//! `retracted`.
//!
//! ## `Unemitted` → unknown
//! The same, but nothing has to be retracted.
//!
//! ## `Ended` → final: given up
//! There are more stories than memory allows: it is emitted as it ended in the arrival lane.
//!
//! ## `Ended` → final: rule removed
//! A reload removed the rule, so this lane can't confirm the story: it is emitted as it ended in
//! the arrival lane.
//!
//! Final stories are remembered for a while, so that the arrival lane, which may still have them
//! open, doesn't emit them again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::evidence::PendingStory;
use crate::guard::Failure;
use crate::matcher::lane::Lane;
use crate::matcher::lane_options::LaneOptions;
use crate::matcher::order::LaneRole;
use crate::rules::RuleSet;
use crate::shard::reorder::ReorderBuffer;
use tapio_core::event::{ArchivedEvent, EventId, Story, StoryState, TraceId};
use tapio_core::memory::MemoryLevel;
use tapio_core::ring::{Header, OwnedRecord, Record};

/// Final stories that are remembered.
const MAX_FINAL: usize = 1_024;

/// Counters of the event-time lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTimeStats {
    /// Events that wait for the watermark now.
    pub waiting: u64,
    /// Events processed before the watermark, for lack of room.
    pub forced: u64,
    /// Late events.
    pub late: u64,
    /// Stories emitted under another id because event time begins them with another event.
    pub relinked: u64,
    /// Emitted stories that event time didn't confirm.
    pub retracted: u64,
    /// Stories evicted before they were emitted.
    pub dropped_unemitted: u64,
    /// Failures of rules.
    pub failures: u64,
    /// Keys dropped because their rule failed.
    pub keys_failed: u64,
}

/// The state of a story of the arrival lane.
enum State {
    /// Emitted, and open in the arrival lane.
    Open,
    /// Emitted, and ended in the arrival lane as given.
    Ended(Box<PendingStory>),
    /// Ended in the arrival lane as given, before it was emitted.
    Unemitted(Box<PendingStory>),
}

impl State {
    fn is_emitted(&self) -> bool {
        matches!(self, Self::Open | Self::Ended(_))
    }

    /// The time of the last event of an ended story.
    fn last_ns(&self) -> Option<u64> {
        match self {
            Self::Open => None,
            Self::Ended(story) | Self::Unemitted(story) => Some(story.story.last_ns),
        }
    }

    /// The arrival lane emits the story.
    fn opened(self) -> Self {
        match self {
            Self::Open => Self::Open,
            Self::Ended(story) | Self::Unemitted(story) => Self::Ended(story),
        }
    }

    /// The arrival lane ends the story.
    fn ended(&self, story: Box<PendingStory>) -> Self {
        if self.is_emitted() { Self::Ended(story) } else { Self::Unemitted(story) }
    }
}

/// A story of the arrival lane whose final form hasn't been emitted.
struct Provisional {
    rule: String,
    key: Vec<(String, String)>,
    /// The revision emitted last.
    revision: u32,
    members: Vec<EventId>,
    /// Whether a final story names this one as its `provisional`.
    is_relinked: bool,
    state: State,
}

impl Provisional {
    fn new(story: &Story, state: State) -> Self {
        Self {
            rule: story.rule.clone(),
            key: story.key.clone(),
            revision: 0,
            members: member_ids(story),
            is_relinked: false,
            state,
        }
    }
}

fn member_ids(story: &Story) -> Vec<EventId> {
    story.members.iter().map(|m| m.id).collect()
}

type Provisionals = HashMap<TraceId, Provisional, ahash::RandomState>;

/// The event-time lane of a shard.
pub(crate) struct EventTimeLane {
    lane: Lane,
    buffer: ReorderBuffer,
    /// Events that were late before a restart, with their arrival times: they join stories once all
    /// that had been released by then is released again.
    restored_late: VecDeque<(u64, Arc<OwnedRecord>)>,
    provisional: Provisionals,
    /// The stories that became final last.
    final_ids: VecDeque<TraceId>,
    /// Bound of `provisional`; the arrival lane's emission of a further story is suppressed.
    max_provisional: usize,
    /// How long after its last event an ended story can still be confirmed.
    confirmation_ns: u64,
    emitted: Vec<PendingStory>,
    stats: EventTimeStats,
    /// Events held so far: their order where the sink doesn't number them.
    held: u64,
}

impl EventTimeLane {
    pub(crate) fn new(rules: &Arc<RuleSet>, shard: usize, options: LaneOptions) -> Self {
        let max_provisional = 2 * options.max_stories;
        let options = LaneOptions { record_matches: false, ..options };
        Self {
            lane: Lane::new(Arc::clone(rules), shard, LaneRole::EventTime, options),
            buffer: ReorderBuffer::new(rules.slack_ns(), options.given_times),
            restored_late: VecDeque::new(),
            provisional: HashMap::default(),
            final_ids: VecDeque::new(),
            max_provisional,
            confirmation_ns: confirmation_ns(rules),
            emitted: Vec::new(),
            stats: EventTimeStats::default(),
            held: 0,
        }
    }

    /// Reloads the rule set, after the arrival lane. Stories of removed rules become final.
    pub(crate) fn reload(&mut self, rules: &Arc<RuleSet>) {
        self.lane.reload(rules);
        self.confirm();
        // One that is `Open` yet couldn't be rendered when it ended.
        let is_removed = |p: &Provisional| !rules.rules.iter().any(|r| r.name.text() == p.rule);
        self.ids_of(|_, p| is_removed(p)).into_iter().for_each(|id| self.finalize(id));
        self.confirmation_ns = confirmation_ns(rules);
        self.buffer.set_slack(rules.slack_ns());
    }

    /// Takes the failures of rules since the last call.
    pub(crate) fn take_failures(&mut self) -> Vec<Failure> {
        self.lane.take_failures()
    }

    pub(crate) fn stats(&self) -> EventTimeStats {
        EventTimeStats {
            waiting: self.buffer.len() as u64,
            forced: self.buffer.forced,
            dropped_unemitted: self.lane.stats().stories_evicted_unemitted,
            failures: self.lane.stats().failures,
            keys_failed: self.lane.stats().keys_failed,
            ..self.stats
        }
    }

    /// The events from now on come from the recovery log.
    pub(crate) fn start_restore(&mut self) {
        self.buffer.start_restore();
    }

    /// The recovery log ended.
    pub(crate) fn finish_restore(&mut self) {
        self.buffer.finish_restore();
    }

    /// Whether the lane depends on the advance of time.
    pub(crate) fn is_pending(&self) -> bool {
        self.buffer.len() > 0 || !self.provisional.is_empty()
    }

    /// Whether an event of this time is late.
    pub(crate) fn is_late(&self, time_ns: u64) -> bool {
        self.buffer.is_late(time_ns)
    }

    /// Processes a late event.
    pub(crate) fn process_late(&mut self, record: &Record<'_>) {
        self.stats.late += 1;
        self.lane.process_late(record, &mut Vec::new());
    }

    /// Restores an event that arrived late at `observed_ns`.
    pub(crate) fn restore_late(&mut self, record: &Record<'_>, observed_ns: u64) {
        self.stats.late += 1;
        self.restored_late.push_back((observed_ns, Arc::new(record.to_owned())));
    }

    /// Records the time of an event, and holds the copy of a relevant one until the watermark has
    /// passed it.
    #[inline]
    pub(crate) fn process(
        &mut self,
        record: &Record<'_>,
        kept: Option<Arc<OwnedRecord>>,
        now_ns: u64,
    ) {
        let Some(event) = record.event() else { return };
        self.observe(record.header(), event, now_ns);
        if let Some(kept) = kept {
            self.held += 1;
            // Where the sink numbers its events, the number is the source's own order.
            let order = match record.header().order {
                0 => self.held,
                order => order,
            };
            self.buffer.hold(order, kept, now_ns);
            if self.buffer.is_full() {
                self.release(now_ns);
            }
        }
    }

    /// Records the time of an event.
    pub(crate) fn observe(&mut self, header: &Header, event: &ArchivedEvent<'_>, now_ns: u64) {
        self.buffer.observe(header.collector, event.clock_quality(), event.time(), now_ns);
    }

    /// Processes the events that the watermark has passed.
    fn release(&mut self, now_ns: u64) {
        while let Some(kept) = self.buffer.pop() {
            self.release_late(kept.record().header().time_ns);
            self.lane.process_kept(&kept, now_ns);
            self.resolve_evicted();
        }
        self.release_late(self.buffer.released_ns());
    }

    /// Ends the emitted ones of the stories that were evicted here, and drops the others.
    fn resolve_evicted(&mut self) {
        let provisional = &self.provisional;
        self.lane.resolve_evicted(|id| provisional.get(&id).is_some_and(|p| p.state.is_emitted()));
    }

    /// Sets the bounds; evicts what is beyond them.
    pub(crate) fn limit(&mut self, options: LaneOptions, level: MemoryLevel, now_ns: u64) {
        self.buffer.limit(level);
        self.release(now_ns);
        self.lane.limit(options);
        self.resolve_evicted();
        self.confirm();
        self.max_provisional = 2 * options.max_stories;
        self.give_up();
    }

    /// Gives up the confirmation of stories beyond the bound: first of those that nobody has seen,
    /// then of those that ended first.
    fn give_up(&mut self) {
        let excess = self.provisional.len().saturating_sub(self.max_provisional);
        if excess == 0 {
            return;
        }
        let ended = self
            .provisional
            .iter()
            .filter_map(|(id, p)| Some((p.state.is_emitted(), p.state.last_ns()?, *id)));
        let mut ended: Vec<_> = ended.collect();
        ended.sort_unstable();
        ended.into_iter().take(excess).for_each(|(.., id)| self.finalize(id));
    }

    /// Emits a story in the form in which it ended in the arrival lane, if it was emitted; removes
    /// it in any case.
    fn finalize(&mut self, id: TraceId) {
        let Some(tracked) = self.provisional.remove(&id) else { return };
        if let State::Ended(mut ended) = tracked.state {
            ended.story.revision = tracked.revision + 1;
            self.emit_final(*ended);
        }
    }

    /// Processes the restored late events that arrived before this time.
    fn release_late(&mut self, time_ns: u64) {
        while self.restored_late.front().is_some_and(|(arrived_ns, _)| *arrived_ns < time_ns) {
            let Some((_, kept)) = self.restored_late.pop_front() else { return };
            self.lane.process_late(&kept.record(), &mut Vec::new());
        }
    }

    /// Whether the story is tracked, or there is room for it.
    fn has_room(&self, id: TraceId) -> bool {
        self.provisional.len() < self.max_provisional || self.provisional.contains_key(&id)
    }

    /// Takes an emission of the arrival lane's open story. False where it is suppressed: the
    /// story is final, or there are too many.
    pub(crate) fn opened(&mut self, emission: &PendingStory) -> bool {
        let story = &emission.story;
        if !self.has_room(story.id) || self.final_ids.contains(&story.id) {
            return false;
        }
        let tracked = self
            .provisional
            .entry(story.id)
            .or_insert_with(|| Provisional::new(story, State::Open));
        tracked.revision = story.revision;
        tracked.members = member_ids(story);
        let state = std::mem::replace(&mut tracked.state, State::Open);
        tracked.state = state.opened();
        true
    }

    /// Takes the stories that ended in the arrival lane. Their ends are emitted once this lane has
    /// confirmed or retracted them.
    pub(crate) fn ended(&mut self, ended: Vec<PendingStory>) {
        for ended in ended {
            let id = ended.story.id;
            if self.final_ids.contains(&id) || !self.has_room(id) {
                continue;
            }
            let ended = Box::new(ended);
            match self.provisional.get_mut(&id) {
                Some(tracked) => {
                    tracked.members = member_ids(&ended.story);
                    tracked.state = tracked.state.ended(ended);
                }
                None => {
                    let mut new = Provisional::new(&ended.story, State::Open);
                    new.state = State::Unemitted(ended);
                    self.provisional.insert(id, new);
                }
            }
        }
    }

    /// Advances the watermark: processes the events it has passed, confirms and retracts stories.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        let watermark_ns = self.buffer.advance(now_ns);
        self.release(now_ns);
        self.lane.advance_to(watermark_ns, now_ns);
        self.confirm();
        let confirmation_ns = self.confirmation_ns;
        let is_overdue = |p: &Provisional| {
            p.state.last_ns().is_some_and(|l| l.saturating_add(confirmation_ns) < watermark_ns)
        };
        // A story that is open in this lane will be confirmed.
        let is_open = |id: TraceId| self.lane.stories.ends(id).is_some();
        let unconfirmed = self.ids_of(|id, p| is_overdue(p) && !is_open(id));
        unconfirmed.into_iter().for_each(|id| self.retract(id));
    }

    /// Processes everything that waits and ends all stories, after the arrival lane.
    pub(crate) fn finish(&mut self, now_ns: u64) {
        self.buffer.end();
        self.release(now_ns);
        self.lane.finish(false);
        self.confirm();
        self.ids_of(|_, _| true).into_iter().for_each(|id| self.retract(id));
    }

    /// The ids of the provisional stories for which `is_selected` holds, sorted.
    fn ids_of(&self, is_selected: impl Fn(TraceId, &Provisional) -> bool) -> Vec<TraceId> {
        let selected = self.provisional.iter().filter(|(id, p)| is_selected(**id, p));
        let mut ids: Vec<TraceId> = selected.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Emits the stories that ended in this lane.
    fn confirm(&mut self) {
        let (_, ended) = self.lane.take_stories();
        for mut confirmed in ended {
            let story = &mut confirmed.story;
            if self.final_ids.contains(&story.id) {
                continue;
            }
            if let Some(tracked) = self.provisional.remove(&story.id) {
                story.revision = tracked.revision + u32::from(tracked.state.is_emitted());
            } else if let Some((id, relinked)) = most_similar(&mut self.provisional, story) {
                relinked.is_relinked = true;
                story.provisional = Some(id);
                self.stats.relinked += 1;
            }
            self.emit_final(confirmed);
        }
    }

    /// Emits the final form of a story.
    fn emit_final(&mut self, story: PendingStory) {
        if self.final_ids.len() >= MAX_FINAL {
            self.final_ids.pop_front();
        }
        self.final_ids.push_back(story.story.id);
        self.emitted.push(story);
    }

    /// Retracts a story if it was emitted; removes it in any case.
    fn retract(&mut self, id: TraceId) {
        let Some(unconfirmed) = self.provisional.remove(&id) else { return };
        if let State::Ended(mut ended) = unconfirmed.state {
            ended.story.state = StoryState::Retracted;
            ended.story.revision = unconfirmed.revision + 1;
            self.stats.retracted += 1;
            self.emit_final(*ended);
        }
    }

    /// Takes the final stories since the last call.
    pub(crate) fn take(&mut self) -> Vec<PendingStory> {
        std::mem::take(&mut self.emitted)
    }
}

/// How long after its last event an ended story can still be confirmed: no rule takes longer.
fn confirmation_ns(rules: &RuleSet) -> u64 {
    rules.rules.iter().map(|r| r.within_ns().max(r.story.idle_ns)).max().unwrap_or(0)
}

/// The provisional story of the same rule and key that shares the most members; `None` where none
/// shares any, or those that do are relinked already.
fn most_similar<'a>(
    provisional: &'a mut Provisionals,
    story: &Story,
) -> Option<(TraceId, &'a mut Provisional)> {
    let candidates = provisional
        .iter_mut()
        .filter(|(_, p)| !p.is_relinked && p.rule == story.rule && p.key == story.key);
    let shared =
        |p: &Provisional| story.members.iter().filter(|m| p.members.contains(&m.id)).count();
    candidates
        .map(|(id, p)| (shared(p), *id, p))
        .filter(|(shared, ..)| *shared > 0)
        .max_by_key(|(shared, id, _)| (*shared, *id))
        .map(|(_, id, p)| (id, p))
}
