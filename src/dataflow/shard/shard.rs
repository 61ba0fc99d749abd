//! One shard: the owner of a part of the join keys. It has no clock, socket or thread, so that
//! replay, tests and the running agent execute the same code.

use std::sync::Arc;

use crate::evidence::{Bounds, EvidenceMessage, FeatureExtractor, PendingStory};
use crate::guard::{Failure, Failures, guarded};
use crate::matcher::event_time::reached_by;
use crate::matcher::lane::{Lane, LaneStats};
use crate::matcher::lane_options::LaneOptions;
use crate::matcher::match_line::MatchLine;
use crate::matcher::order::{LaneRole, Order};
use crate::rules::RuleSet;
use crate::shard::event_time_lane::{EventTimeLane, EventTimeStats};
use crate::story::lifecycle::LifecycleTracker;
use crate::story::trace::story_trace;
use tapio_core::event::{ArchivedEvent, EventId, TraceId};
use tapio_core::memory::MemoryLevel;
use tapio_core::ring::{Header, Membership, Record};

/// Lifecycles that a shard tracks at once.
const MAX_LIFECYCLES: usize = 65_536;

/// The interval at which time advances during a restore: that of the driver when live.
const RESTORE_TICK_NS: u64 = 100_000_000;

/// How the shard finalizes stories.
#[expect(clippy::large_enum_variant, reason = "one for each shard, and the large one when live")]
enum Mode {
    /// Live: the lane processes events in order of arrival, and the event-time lane finalizes its
    /// stories.
    Streaming(EventTimeLane),
    /// Replay: the lane processes events in total order, and its stories are final.
    Replay,
}

/// Counters of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Of the lane that processes events first.
    pub lane: LaneStats,
    /// Of the event-time lane.
    pub event_time: EventTimeStats,
    /// Lifecycles tracked now.
    pub lifecycles: u64,
    /// Lifecycles started so far.
    pub lifecycles_opened: u64,
    /// Lifecycles evicted.
    pub lifecycles_evicted: u64,
    /// Entities whose recent history was evicted.
    pub feature_histories_evicted: u64,
    /// Events not correlated for lack of memory.
    pub uncorrelated: u64,
    /// Failures of rules in both lanes, and of code outside of the rules.
    pub failures: u64,
    /// Keys dropped in both lanes because their rule failed.
    pub keys_failed: u64,
}

impl ShardStats {
    /// Keys, stories and lifecycles evicted for lack of room.
    pub(crate) fn evicted(&self) -> u64 {
        let stories = self.lane.stories_evicted_unemitted + self.event_time.dropped_unemitted;
        self.lane.keys_evicted + stories + self.lifecycles_evicted
    }
}

/// The result of processing one event.
#[derive(Default)]
pub struct StepOutput {
    /// Its memberships in stories, beyond those it came with.
    pub memberships: Vec<Membership>,
    /// The trace of its entity's lifecycle, if this shard is the entity's home.
    pub lifecycle_trace: Option<TraceId>,
    /// Whether it is relevant to a rule, so that a restarted agent needs it.
    pub relevant: bool,
    /// Whether it is a late event.
    pub late: bool,
}

/// The owner of a part of the join keys, with their partial matches and open stories.
pub struct Shard {
    rules: Arc<RuleSet>,
    number: usize,
    lane: Lane,
    mode: Mode,
    lifecycles: LifecycleTracker,
    /// Extracts facts for the assessor; `None`: stories are assessed by their own events alone.
    features: Option<FeatureExtractor>,
    /// Stories of the lanes, not yet taken.
    stories: Vec<PendingStory>,
    correlates: bool,
    /// The bounds of the configuration.
    options: LaneOptions,
    bounds: Bounds,
    memory: MemoryLevel,
    /// Events not correlated for lack of memory.
    uncorrelated: u64,
    /// When time advanced last during a restore, by the driver's clock of that time.
    restored_ns: u64,
    /// Failures of code outside of the rules.
    failures: Failures,
}

impl Shard {
    /// Creates shard `number` of `rules.shards()`, for events in this order.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>, number: usize, order: Order, options: LaneOptions) -> Self {
        let (role, mode) = match order {
            Order::Arrival => {
                let event_time = EventTimeLane::new(&rules, number, options);
                (LaneRole::Arrival, Mode::Streaming(event_time))
            }
            Order::Total => (LaneRole::Replay, Mode::Replay),
        };
        Self {
            lane: Lane::new(Arc::clone(&rules), number, role, options),
            rules,
            number,
            mode,
            lifecycles: LifecycleTracker::new(MAX_LIFECYCLES),
            features: None,
            stories: Vec::new(),
            correlates: true,
            options,
            bounds: Bounds::LIVE,
            memory: MemoryLevel::NORMAL,
            uncorrelated: 0,
            restored_ns: 0,
            failures: Failures::default(),
        }
    }

    /// Also extracts facts for the assessor from the events of this shard's home entities.
    #[must_use]
    pub fn with_evidence(mut self, bounds: Bounds) -> Self {
        self.features = Some(FeatureExtractor::new(bounds));
        self.bounds = bounds;
        self
    }

    /// Sets whether events are correlated at all. If not, they pass unchanged.
    #[must_use]
    pub fn with_correlation(mut self, correlates: bool) -> Self {
        self.correlates = correlates;
        self
    }

    /// The rule set in force.
    #[must_use]
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Reloads the rule set; the new one distributes keys like the old one. Partial matches and
    /// open stories of rules with the same meaning are kept, stories of the others end.
    pub fn reload(&mut self, rules: Arc<RuleSet>) {
        self.guarded(|shard| {
            shard.lane.reload(&rules);
            shard.transfer_stories();
            if let Mode::Streaming(event_time) = &mut shard.mode {
                event_time.reload(&rules);
            }
        });
        self.rules = rules;
    }

    /// The level of memory in force.
    pub(crate) fn memory(&self) -> MemoryLevel {
        self.memory
    }

    /// Bounds the state to this level of memory; evicts what is beyond it. `now_ns`: the driver's
    /// clock.
    pub fn limit(&mut self, level: MemoryLevel, now_ns: u64) {
        self.memory = level;
        self.guarded(|shard| {
            let options = shard.options.at(level);
            shard.lane.limit(options);
            shard.lifecycles.limit(level.bound(MAX_LIFECYCLES));
            shard.transfer_stories();
            if let Mode::Streaming(event_time) = &mut shard.mode {
                event_time.limit(options, level, now_ns);
            }
            if let Some(features) = &mut shard.features {
                features.limit(shard.bounds.at(level));
            }
        });
    }

    /// Whether an event is correlated at this level of memory.
    fn correlates(&mut self, event: &ArchivedEvent<'_>) -> bool {
        let is_left = event.severity() < self.memory.correlated_from();
        self.uncorrelated += u64::from(is_left && self.correlates);
        self.correlates && !is_left
    }

    /// Runs `work`; a panic in it is a failure of code outside of the rules.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if let Err(cause) = guarded(|| work(self)) {
            self.failures.add(None, cause);
        }
    }

    /// [`Shard::step`] has panicked on this event outside of the rules' shapes: records the failure
    /// of the rules whose predicates panic on it, or of other code.
    pub(crate) fn event_failed(&mut self, record: &Record<'_>, cause: String) {
        let attribute = || record.event().is_some_and(|event| self.lane.attribute(event, &cause));
        // Where even the plan can't be made, that panics as well.
        if !guarded(attribute).unwrap_or(false) {
            self.failures.add(None, cause);
        }
    }

    /// Takes the failures since the last call.
    pub(crate) fn take_failures(&mut self) -> Vec<Failure> {
        let mut failures = self.failures.take();
        failures.append(&mut self.lane.take_failures());
        if let Mode::Streaming(event_time) = &mut self.mode {
            failures.append(&mut event_time.take_failures());
        }
        failures
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        let lane = self.lane.stats();
        let event_time = match &self.mode {
            Mode::Streaming(event_time) => event_time.stats(),
            Mode::Replay => EventTimeStats::default(),
        };
        ShardStats {
            lane,
            event_time,
            failures: self.failures.total + lane.failures + event_time.failures,
            keys_failed: lane.keys_failed + event_time.keys_failed,
            uncorrelated: self.uncorrelated,
            lifecycles: self.lifecycles.len() as u64,
            lifecycles_opened: self.lifecycles.opened,
            lifecycles_evicted: self.lifecycles.evicted(),
            feature_histories_evicted: self.features.as_ref().map_or(0, FeatureExtractor::evicted),
        }
    }

    /// Processes one event. `now_ns`: the driver's clock, ns since the Unix epoch. Where a rule
    /// panics, the event gets none of its memberships.
    pub fn step(&mut self, record: &Record<'_>, now_ns: u64, output: &mut StepOutput) {
        output.memberships.clear();
        output.lifecycle_trace = None;
        (output.relevant, output.late) = (false, false);
        let Some(event) = record.event() else { return };
        if !self.correlates(event) {
            return;
        }
        let memberships = &mut output.memberships;
        let relevant = match &mut self.mode {
            Mode::Replay => self.lane.process(record, now_ns, false, memberships).0,
            Mode::Streaming(event_time) if event_time.is_late(event.time()) => {
                event_time.process_late(record);
                let relevant = self.lane.process_late(record, memberships);
                // Where it joined no story, there is nothing to restore.
                (output.relevant, output.late) = (!memberships.is_empty(), true);
                relevant
            }
            Mode::Streaming(event_time) => {
                let (relevant, kept) = self.lane.process(record, now_ns, true, memberships);
                event_time.process(record, kept, now_ns);
                output.relevant = relevant;
                relevant
            }
        };
        if self.is_home(event) {
            output.lifecycle_trace = self.lifecycles.events(event, 1, &self.rules);
            // The baselines of others go on with the time of an event: not into the future.
            let is_plausible = match self.mode {
                Mode::Replay => true,
                Mode::Streaming(_) => reached_by(event.time(), now_ns) == event.time(),
            };
            if let Some(features) = self.features.as_mut().filter(|_| is_plausible) {
                features.process(event, relevant);
            }
        }
    }

    /// Notes log records that pass as they came, of an entity whose home this shard is. Returns the
    /// header with which they leave it: with the trace of their entity's lifecycle.
    pub fn pass(&mut self, record: &Record<'_>, now_ns: u64) -> Header {
        let mut header = *record.header();
        header.visits &= !(1u64 << self.number);
        let Some(block) = record.log_block() else { return header };
        let Mode::Streaming(event_time) = &mut self.mode else { return header };
        event_time.observe(record.header(), &block.shared, now_ns);
        if self.correlates(&block.shared)
            && let Some(trace) =
                self.lifecycles.events(&block.shared, block.records.to_native(), &self.rules)
        {
            header.trace_id = trace;
        }
        header
    }

    /// Whether the event's entity has its home in this shard.
    fn is_home(&self, event: &ArchivedEvent<'_>) -> bool {
        self.rules.shards() == 1 || self.rules.home_shard(event) == self.number
    }

    /// The header with which the event leaves this shard: its remaining visits, and the trace of
    /// its story, else of its lifecycle, else the one it came with.
    #[must_use]
    pub fn next_header(&self, record: &Record<'_>, output: &StepOutput) -> Header {
        let mut header = *record.header();
        header.visits &= !(1u64 << self.number);
        let all = record.memberships().chain(output.memberships.iter().copied());
        let best = all.min_by_key(|m| (m.rank, m.story));
        if best.is_none() && output.lifecycle_trace.is_none() && !header.trace_id.is_some() {
            return header;
        }
        let Some(event) = record.event() else { return header };
        if let Some(best) = best {
            let [first, _] = best.related;
            let first = if first == EventId::default() { event.event_id() } else { first };
            header.trace_id = story_trace(&self.rules.cluster, first);
        } else if let Some(trace) = output.lifecycle_trace {
            header.trace_id = trace;
        }
        if header.span_id == [0; 8] {
            header.span_id = event.event_id().span();
        }
        header
    }

    /// Restores an event of the recovery log, as it was processed at `observed_ns`; `late` if it
    /// was late then. Emits nothing. Lifecycles aren't restored: their traces are derived from
    /// their entities.
    pub fn restore(&mut self, record: &Record<'_>, observed_ns: u64, late: bool) {
        self.guarded(|shard| shard.restore_event(record, observed_ns, late));
    }

    fn restore_event(&mut self, record: &Record<'_>, observed_ns: u64, late: bool) {
        let Some(event) = record.event().filter(|_| self.correlates) else { return };
        let Mode::Streaming(event_time) = &mut self.mode else { return };
        event_time.start_restore();
        let relevant = if late {
            event_time.restore_late(record, observed_ns);
            self.lane.process_late(record, &mut Vec::new())
        } else {
            let (relevant, kept) = self.lane.process(record, observed_ns, true, &mut Vec::new());
            event_time.process(record, kept, observed_ns);
            relevant
        };
        let is_home = self.is_home(event);
        if let Some(features) = self.features.as_mut().filter(|_| is_home) {
            features.process(event, relevant);
        }
        if observed_ns.saturating_sub(self.restored_ns) >= RESTORE_TICK_NS {
            self.restored_ns = observed_ns;
            self.advance(observed_ns, event.time());
        }
    }

    /// Finishes the restore. Stories that ended before `emitted_ns`, in event time, were emitted
    /// before the restart and are suppressed. 0: nothing was restored.
    pub fn finish_restore(&mut self, emitted_ns: u64) {
        self.transfer_stories();
        if let Mode::Streaming(event_time) = &mut self.mode {
            self.stories.append(&mut event_time.take());
            if emitted_ns > 0 {
                event_time.finish_restore();
            }
        }
        self.stories.retain(|s| s.story.state.is_end() && s.story.last_ns >= emitted_ns);
    }

    /// Advances time: completes, expires and ends what is due. `now_ns`: the driver's clock;
    /// `clock_ns`: the latest event time.
    pub fn advance(&mut self, now_ns: u64, clock_ns: u64) {
        self.guarded(|shard| {
            shard.lane.advance(now_ns);
            shard.lifecycles.advance(clock_ns);
            shard.transfer_stories();
            if let Mode::Streaming(event_time) = &mut shard.mode {
                event_time.advance(now_ns);
            }
        });
    }

    /// Ends all stories. If the input is `complete`, matches that depend on the absence of an event
    /// are completed; an agent that stops has only stopped observing.
    pub fn finish(&mut self, complete: bool, now_ns: u64) {
        self.guarded(|shard| {
            shard.lane.finish(complete);
            shard.lifecycles.finish();
            shard.transfer_stories();
            if let Mode::Streaming(event_time) = &mut shard.mode {
                event_time.finish(now_ns);
            }
            if let Some(features) = &mut shard.features {
                features.finish();
            }
        });
    }

    /// Takes the stories of the lane. In streaming mode the event-time lane decides which emissions
    /// are suppressed, and emits the ends.
    fn transfer_stories(&mut self) {
        let (mut open, mut ended) = self.lane.take_stories();
        match &mut self.mode {
            Mode::Streaming(event_time) => {
                self.stories.extend(open.into_iter().filter(|story| event_time.opened(story)));
                event_time.ended(ended);
            }
            Mode::Replay => {
                self.stories.append(&mut open);
                self.stories.append(&mut ended);
            }
        }
    }

    /// Whether the shard depends on the advance of time, beyond its open stories.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        match &self.mode {
            Mode::Streaming(event_time) => event_time.is_pending(),
            Mode::Replay => false,
        }
    }

    /// Whether a story waits to be emitted for the first time, at the next advance of time.
    #[must_use]
    pub fn has_new_stories(&self) -> bool {
        self.lane.stories.has_new
    }

    /// Takes the facts and stories since the last call. Sums that are still collected are included
    /// when the driver's clock `ticks`, at the end, and before any story, so that the story is
    /// assessed by all that its shard has observed.
    pub fn take_messages(&mut self, into: &mut impl Extend<EvidenceMessage>, ticks: bool) {
        self.guarded(|shard| shard.move_messages(into, ticks));
    }

    fn move_messages(&mut self, into: &mut impl Extend<EvidenceMessage>, ticks: bool) {
        match &mut self.mode {
            Mode::Streaming(event_time) => self.stories.append(&mut event_time.take()),
            Mode::Replay => self.transfer_stories(),
        }
        let mut stories = std::mem::take(&mut self.stories);
        stories.append(&mut self.lifecycles.ended);
        if let Some(features) = &mut self.features {
            if ticks {
                features.tick();
            } else if !stories.is_empty() {
                features.flush();
            }
            // A few at a time would wake the assessor too often.
            if ticks || !stories.is_empty() || features.is_full() {
                into.extend(features.take());
            }
        }
        into.extend(stories.into_iter().map(EvidenceMessage::story));
    }

    /// Takes the matches since the last call, where they are recorded.
    pub fn take_matches(&mut self) -> Vec<MatchLine> {
        std::mem::take(&mut self.lane.matches)
    }
}
