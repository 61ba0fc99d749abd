//! The open stories of a lane. A match opens a story, further members extend it, changes are
//! emitted, and it closes when no member comes any more or by age. Every story ends.

use std::collections::{HashMap, HashSet};

use crate::evidence::PendingStory;
use crate::guard::{Failures, guarded};
use crate::rules::Rule;
use crate::story::deviation::Deviation;
use crate::story::eviction_order::EvictionOrder;
use crate::story::members::EventRef;
use crate::story::open_story::{Match, OpenStory};
use crate::story::render;
use crate::story::trace::successor;
use crate::timer_wheel::TimerWheel;
use tapio_core::event::{EventId, StoryState, TraceId};

/// The least time between two emissions of one story, by the driver's clock.
const UPDATE_INTERVAL_NS: u64 = 1_000_000_000;

/// New stories emitted in one pass; more wait for the next pass, ten milliseconds later.
const MAX_OPENED_PER_PASS: usize = 64;

/// Timers without a story that are kept, beside as many as there are stories.
const MAX_STALE_TIMERS: usize = 256;

/// The handling of a story that is evicted before it was emitted. A flood creates more of them than
/// a person can read, and rendering one costs as much as finding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EvictionPolicy {
    /// Emits it: replay, which reports every story.
    Emit,
    /// Drops and counts it.
    Drop,
    /// Leaves the decision to [`OpenStories::resolve_evicted`].
    Defer,
}

/// Bounds and behaviour of [`OpenStories`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoryOptions {
    /// Stories open at once; beyond it, the one that ends next is evicted.
    pub(crate) max_stories: usize,
    /// Emits stories when they open and change, not only when they end.
    pub(crate) emit_open: bool,
    pub(crate) eviction: EvictionPolicy,
}

/// The open stories of a lane.
pub(crate) struct OpenStories {
    open: HashMap<TraceId, OpenStory, ahash::RandomState>,
    wheel: TimerWheel,
    timers: HashMap<u64, TraceId, ahash::RandomState>,
    next_timer: u64,
    order: EvictionOrder,
    options: StoryOptions,
    /// Whether a story that opened waits to be emitted for the first time.
    pub(crate) has_new: bool,
    /// Emissions of open stories, not yet taken.
    pub(crate) emitted: Vec<PendingStory>,
    /// Stories that ended, not yet taken.
    pub(crate) ended: Vec<PendingStory>,
    /// Evicted stories, until [`OpenStories::resolve_evicted`].
    evicted: Vec<OpenStory>,
    cluster: String,
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) expired: u64,
    /// Stories evicted and dropped before they were emitted.
    pub(crate) dropped_unemitted: u64,
    /// Stories that couldn't be rendered.
    pub(crate) failures: Failures,
}

/// Renders the story as it is now; `None` if that fails.
fn rendered(
    rules: &[Rule],
    story: &OpenStory,
    state: StoryState,
    failures: &mut Failures,
) -> Option<PendingStory> {
    let rule = &rules[usize::from(story.rule)];
    let outcome = guarded(|| render::render(rule, story, state));
    outcome.map_err(|cause| failures.add(Some(rule.name), cause)).ok()
}

impl OpenStories {
    pub(crate) fn new(options: StoryOptions, cluster: &str) -> Self {
        Self {
            open: HashMap::default(),
            wheel: TimerWheel::default(),
            timers: HashMap::default(),
            next_timer: 0,
            order: EvictionOrder::default(),
            options,
            has_new: false,
            emitted: Vec::new(),
            ended: Vec::new(),
            evicted: Vec::new(),
            cluster: cluster.to_owned(),
            opened: 0,
            closed: 0,
            expired: 0,
            dropped_unemitted: 0,
            failures: Failures::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether a story is open and accepts members of this event time.
    pub(crate) fn accepts(&self, id: TraceId, time_ns: u64) -> bool {
        self.open.get(&id).is_some_and(|story| !story.is_over(time_ns))
    }

    /// Adds a match: opens a story, or extends the open one with the match's trace. Returns the
    /// story's id.
    pub(crate) fn add_match(&mut self, found: &Match<'_>, rules: &[Rule], now_ns: u64) -> TraceId {
        let mut id = found.trace;
        let mut continues = None;
        let is_over = match self.open.get(&id) {
            Some(story) => story.is_over(found.at_ns),
            // Whether an ended story has been removed yet depends on the other events of the
            // shard; the result must not.
            None => found.had_story,
        };
        if is_over {
            let state = self.open.get(&id).map_or(StoryState::Closed, OpenStory::end_state);
            self.close(id, state, rules);
            continues = Some(id);
            id = successor(id, found.members.ends[1]);
        }
        match self.open.get_mut(&id) {
            Some(story) => story.extend(found.members, now_ns),
            None => self.open(id, found, continues, rules, now_ns),
        }
        id
    }

    fn open(
        &mut self,
        id: TraceId,
        found: &Match<'_>,
        continues: Option<TraceId>,
        rules: &[Rule],
        now_ns: u64,
    ) {
        self.evict_to(self.options.max_stories.max(1) - 1, rules);
        let story = OpenStory::new(id, found, continues, &self.cluster, now_ns);
        self.opened += 1;
        self.has_new = self.options.emit_open;
        self.order.add(story.rule, id);
        self.set_timer(id, story.ends_ns());
        self.open.insert(id, story);
    }

    /// Sets how many stories are open at once; evicts those beyond it.
    pub(crate) fn limit(&mut self, max_stories: usize, rules: &[Rule]) {
        self.options.max_stories = max_stories;
        self.evict_to(max_stories.max(1), rules);
    }

    /// Evicts stories down to this number: the oldest of the rule that has the most of them, so
    /// that a flood of one rule's stories doesn't end those of others.
    fn evict_to(&mut self, stories: usize, rules: &[Rule]) {
        while self.open.len() > stories
            && let Some(oldest) = self.order.next()
        {
            self.evict(oldest, rules);
        }
    }

    fn set_timer(&mut self, id: TraceId, deadline_ns: u64) {
        self.next_timer += 1;
        self.timers.insert(self.next_timer, id);
        self.wheel.set(deadline_ns, self.next_timer);
    }

    /// Adds an event to an open story.
    pub(crate) fn join(
        &mut self,
        id: TraceId,
        current: &mut EventRef<'_>,
        step: u8,
        event: u16,
        now_ns: u64,
    ) {
        if let Some(story) = self.open.get_mut(&id) {
            story.join(current, step, event, now_ns);
        }
    }

    /// The measure of an open story deviates.
    pub(crate) fn deviates(&mut self, id: TraceId, deviation: Deviation) {
        if let Some(story) = self.open.get_mut(&id) {
            story.deviates(deviation);
        }
    }

    /// Adds a late event to an open story. False where the story has ended or has it already.
    pub(crate) fn join_late(
        &mut self,
        id: TraceId,
        current: &mut EventRef<'_>,
        step: u8,
        event: u16,
    ) -> bool {
        self.open.get_mut(&id).is_some_and(|story| story.join_late(current, step, event))
    }

    /// The first and the latest member of an open story.
    pub(crate) fn ends(&self, id: TraceId) -> Option<[EventId; 2]> {
        self.open.get(&id).map(OpenStory::ends)
    }

    /// Ends a story for lack of room.
    fn evict(&mut self, id: TraceId, rules: &[Rule]) {
        let is_emitted = self.open.get(&id).is_some_and(|story| story.emitted);
        match self.options.eviction {
            _ if is_emitted => self.close(id, StoryState::Expired, rules),
            EvictionPolicy::Emit => self.close(id, StoryState::Expired, rules),
            EvictionPolicy::Drop => {
                self.remove(id);
                self.expired += 1;
                self.dropped_unemitted += 1;
            }
            EvictionPolicy::Defer => {
                let story = self.remove(id);
                self.evicted.extend(story);
                self.expired += 1;
            }
        }
    }

    /// Ends the evicted stories for which `is_emitted` holds; drops and counts the others.
    pub(crate) fn resolve_evicted(&mut self, rules: &[Rule], is_emitted: impl Fn(TraceId) -> bool) {
        for story in std::mem::take(&mut self.evicted) {
            if is_emitted(story.id) {
                let failures = &mut self.failures;
                self.ended.extend(rendered(rules, &story, StoryState::Expired, failures));
            } else {
                self.dropped_unemitted += 1;
            }
        }
    }

    /// Ends a story whose key was dropped.
    pub(crate) fn expire(&mut self, id: TraceId, rules: &[Rule]) {
        self.close(id, StoryState::Expired, rules);
    }

    fn remove(&mut self, id: TraceId) -> Option<OpenStory> {
        let story = self.open.remove(&id)?;
        self.order.remove(story.rule, id);
        // Timers of stories that were evicted.
        if self.timers.len() > 2 * self.open.len() + MAX_STALE_TIMERS {
            let (open, timers) = (&self.open, &mut self.timers);
            timers.retain(|_, id| open.contains_key(id));
            self.wheel.retain(|timer| timers.contains_key(&timer));
        }
        Some(story)
    }

    fn close(&mut self, id: TraceId, state: StoryState, rules: &[Rule]) {
        let Some(mut story) = self.remove(id) else {
            return;
        };
        match state {
            StoryState::Expired => self.expired += 1,
            _ => self.closed += 1,
        }
        story.revision += u32::from(story.emitted);
        self.ended.extend(rendered(rules, &story, state, &mut self.failures));
    }

    /// Ends the stories that are over, by event time or because no member came for as long by
    /// `now_ns`, the driver's clock. Emits the changed ones.
    pub(crate) fn advance(&mut self, event_time_ns: u64, now_ns: u64, rules: &[Rule]) {
        let mut fired = Vec::new();
        self.wheel.advance(event_time_ns, &mut fired);
        for timer in fired {
            let Some(id) = self.timers.remove(&timer) else {
                continue;
            };
            let Some(story) = self.open.get(&id) else {
                continue;
            };
            if story.is_over(event_time_ns) {
                self.close(id, story.end_state(), rules);
            } else {
                let ends_ns = story.ends_ns();
                self.set_timer(id, ends_ns);
            }
        }
        if self.options.emit_open {
            self.emit_changed(now_ns, rules);
        }
    }

    fn emit_changed(&mut self, now_ns: u64, rules: &[Rule]) {
        let mut idle = Vec::new();
        let opening = self.opening();
        self.has_new = opening.is_some();
        for story in self.open.values_mut() {
            if now_ns.saturating_sub(story.touched_ns) > story.idle_ns {
                idle.push(story.id);
            } else if story.changed && now_ns.saturating_sub(story.emitted_ns) >= UPDATE_INTERVAL_NS
            {
                let state = if story.emitted { StoryState::Updated } else { StoryState::Opened };
                let is_later = |opening: &HashSet<TraceId>| !opening.contains(&story.id);
                if !story.emitted && opening.as_ref().is_some_and(is_later) {
                    continue;
                }
                story.revision += u32::from(story.emitted);
                self.emitted.extend(rendered(rules, story, state, &mut self.failures));
                (story.emitted, story.changed, story.emitted_ns) = (true, false, now_ns);
            }
        }
        idle.sort();
        for id in idle {
            self.close(id, StoryState::Closed, rules);
        }
    }

    /// The stories that are emitted first, where too many are new: as many of each rule.
    fn opening(&self) -> Option<HashSet<TraceId>> {
        let new = self.open.values().filter(|story| !story.emitted);
        if self.unemitted_at_most(MAX_OPENED_PER_PASS) {
            return None;
        }
        let mut of_rule: HashMap<u16, usize> = HashMap::new();
        let mut ranked: Vec<(usize, u64, TraceId)> = new
            .map(|story| {
                let rank = of_rule.entry(story.rule).or_default();
                *rank += 1;
                (*rank, story.touched_ns, story.id)
            })
            .collect();
        ranked.sort_unstable();
        Some(ranked.into_iter().take(MAX_OPENED_PER_PASS).map(|(.., id)| id).collect())
    }

    fn unemitted_at_most(&self, number: usize) -> bool {
        self.open.values().filter(|story| !story.emitted).nth(number).is_none()
    }

    /// Gives each story's rule its new number. A story whose rule was removed or changed ends, as
    /// rendered by its `old` rule.
    pub(crate) fn renumber(&mut self, numbers: &[Option<u16>], old: &[Rule]) {
        let mut ended = Vec::new();
        for story in self.open.values_mut() {
            match numbers.get(usize::from(story.rule)).copied().flatten() {
                Some(number) => story.rule = number,
                None => ended.push(story.id),
            }
        }
        self.order = EvictionOrder::default();
        let mut all: Vec<(u64, TraceId, u16)> =
            self.open.values().map(|story| (story.touched_ns, story.id, story.rule)).collect();
        all.sort_unstable();
        all.into_iter().for_each(|(_, id, rule)| self.order.add(rule, id));
        ended.sort();
        ended.into_iter().for_each(|id| self.close(id, StoryState::Closed, old));
    }

    /// Ends all stories.
    pub(crate) fn finish(&mut self, rules: &[Rule]) {
        let mut ids: Vec<TraceId> = self.open.keys().copied().collect();
        ids.sort();
        for id in ids {
            // The state it would end in if time went on: how far time has advanced differs between
            // shards.
            let state = self.open.get(&id).map_or(StoryState::Closed, OpenStory::end_state);
            self.close(id, state, rules);
        }
    }
}
