//! One shard: what owns a part of the keys and does everything that is done with them. Pure: no
//! clock, socket or thread inside, so that replay, tests and the running agent execute the same
//! code.

use std::sync::Arc;

use crate::evidence::{Bounds, EvidenceMessage, FeatureExtractor, PendingStory};
use crate::matcher::lane::{Lane, LaneOptions, LaneStats, MatchLine};
use crate::rules::RuleSet;
use crate::shard::event_time_lane::{Settled, SettledStats};
use crate::shard::worker::Order;
use crate::story::lifecycle::{self, Lives};
use crate::story::render::story_trace;
use tapio_core::event::{EventId, TraceId};
use tapio_core::ring::{Header, Membership, Record};

/// Lives a shard follows at once.
const MAX_LIVES: usize = 65_536;

/// How often time moves on while the past is shown: as often as the driver does it live.
const RECOLLECT_TICK_NS: u64 = 100_000_000;

/// What a shard has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// The rules' side.
    pub lane: LaneStats,
    /// Lives followed now.
    pub lives: u64,
    /// Lives begun so far.
    pub lives_opened: u64,
    /// Lives given up for room.
    pub lives_evicted: u64,
    /// Entities whose recent past was given up for room.
    pub pasts_evicted: u64,
    /// The second lane's side.
    pub settled: SettledStats,
}

/// What a step found out about an event.
#[derive(Default)]
pub struct Found {
    /// Its places in stories, beyond those it came with.
    pub memberships: Vec<Membership>,
    /// The trace of the life it belongs to, if this shard is its home.
    pub life: Option<TraceId>,
    /// A rule has a use for it: whoever restarts wants to see it again.
    pub wanted: bool,
    /// It came after its place in the order had been given out.
    pub late: bool,
}

/// A part of the correlator.
pub struct Shard {
    rules: Arc<RuleSet>,
    number: usize,
    lane: Lane,
    lives: Lives,
    /// Without it, stories are told by their own events alone.
    observer: Option<FeatureExtractor>,
    /// Without it, the first lane's order is final: it is the total order.
    settled: Option<Settled>,
    /// What the first lane told and hasn't been taken yet.
    told: Vec<PendingStory>,
    grouping: bool,
    /// When time moved on last while the past was shown.
    recollected_ns: u64,
}

impl Shard {
    /// Shard `number` of `rules.shards()`. With `grouping` off events pass unchanged.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>, number: usize, options: LaneOptions, grouping: bool) -> Self {
        let lane = Lane::new(Arc::clone(&rules), number, options);
        let lives = Lives::new(MAX_LIVES);
        let settled =
            (options.order == Order::Arrival).then(|| Settled::new(&rules, number, options));
        Self {
            rules,
            number,
            lane,
            lives,
            observer: None,
            settled,
            told: Vec::new(),
            grouping,
            recollected_ns: 0,
        }
    }

    /// The same shard, observing what the entities it is home to do.
    #[must_use]
    pub fn observing(mut self, bounds: Bounds) -> Self {
        self.observer = Some(FeatureExtractor::new(bounds));
        self
    }

    /// The rules it goes by.
    #[must_use]
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Goes on with other rules, which spread keys as the ones before. Pending matches and open stories of
    /// rules that stay the same are kept; stories of the others end here.
    pub fn reload(&mut self, rules: Arc<RuleSet>) {
        self.lane.reload(&rules);
        if self.settled.is_some() {
            self.hand_over();
        }
        if let Some(settled) = &mut self.settled {
            settled.reload(&rules);
        }
        self.rules = rules;
    }

    /// What the shard has counted.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            lane: self.lane.stats(),
            lives: self.lives.len() as u64,
            lives_opened: self.lives.opened,
            lives_evicted: self.lives.evicted(),
            pasts_evicted: self.observer.as_ref().map_or(0, FeatureExtractor::evicted),
            settled: self.settled.as_ref().map(Settled::stats).unwrap_or_default(),
        }
    }

    /// Shows an event to this shard. `now_ns` is the driver's clock.
    pub fn step(&mut self, record: &Record<'_>, now_ns: u64, found: &mut Found) {
        found.memberships.clear();
        found.life = None;
        (found.wanted, found.late) = (false, false);
        let Some(event) = record.event().filter(|_| self.grouping) else {
            return;
        };
        let memberships = &mut found.memberships;
        let wanted = match &mut self.settled {
            None => self.lane.event(record, now_ns, false, memberships).0,
            Some(settled) if settled.is_late(event.time()) => {
                settled.late(record);
                let wanted = self.lane.late(record, memberships);
                // Where it has joined nothing there is nothing to see again.
                (found.wanted, found.late) = (!memberships.is_empty(), true);
                wanted
            }
            Some(settled) => {
                let (wanted, kept) = self.lane.event(record, now_ns, true, memberships);
                settled.event(record, kept, now_ns);
                found.wanted = wanted;
                wanted
            }
        };
        if self.rules.shards() == 1 || self.rules.home_shard(event) == self.number {
            found.life = self.lives.event(event, &self.rules);
            if let Some(observer) = &mut self.observer {
                observer.process(event, wanted);
            }
        }
    }

    /// The header an event goes on with: its remaining visits, and the trace of the story it is in,
    /// else of its life, else the one it came with.
    #[must_use]
    pub fn next_header(&self, record: &Record<'_>, found: &Found) -> Header {
        let mut header = *record.header();
        header.visits &= !(1u64 << self.number);
        let all = record.memberships().chain(found.memberships.iter().copied());
        let best = all.min_by_key(|m| (m.rank, m.story));
        if best.is_none() && found.life.is_none() && !header.trace_id.is_some() {
            return header;
        }
        let Some(event) = record.event() else { return header };
        if let Some(best) = best {
            let [first, _] = best.related;
            let first = if first == EventId::default() { event.event_id() } else { first };
            header.trace_id = story_trace(&self.rules.cluster, first);
        } else if let Some(life) = found.life {
            header.trace_id = life;
        }
        if header.span_id == [0; 8] {
            header.span_id = lifecycle::span_of(event.event_id());
        }
        header
    }

    /// Shows an event that was seen before a restart, as it was `observed_ns`; `late` where its place had
    /// been given out then. Nothing is told of it; lives need no memory, their traces are their entities'
    /// own.
    pub fn recollect(&mut self, record: &Record<'_>, observed_ns: u64, late: bool) {
        let Some(event) = record.event().filter(|_| self.grouping) else { return };
        let Some(settled) = &mut self.settled else { return };
        settled.show_past();
        let wanted = if late {
            settled.was_late(record, observed_ns);
            self.lane.late(record, &mut Vec::new())
        } else {
            let (wanted, kept) = self.lane.event(record, observed_ns, true, &mut Vec::new());
            settled.event(record, kept, observed_ns);
            wanted
        };
        let is_home = self.rules.shards() == 1 || self.rules.home_shard(event) == self.number;
        if let Some(observer) = self.observer.as_mut().filter(|_| is_home) {
            observer.process(event, wanted);
        }
        if observed_ns.saturating_sub(self.recollected_ns) >= RECOLLECT_TICK_NS {
            self.recollected_ns = observed_ns;
            self.advance(observed_ns, event.time());
        }
    }

    /// Ends the recollection: stories that ended before `told_ns`, by their events' times, were told before
    /// the restart and are not told again. 0 where nothing was shown.
    pub fn recollected(&mut self, told_ns: u64) {
        self.hand_over();
        if let Some(settled) = &mut self.settled {
            self.told.append(&mut settled.take());
            if told_ns > 0 {
                settled.go_on_after_break();
            }
        }
        self.told.retain(|draft| draft.story.state.is_end() && draft.story.last_ns >= told_ns);
    }

    /// Moves time on and closes what is over.
    pub fn advance(&mut self, now_ns: u64, clock_ns: u64) {
        self.lane.advance(now_ns);
        self.lives.advance(clock_ns);
        if self.settled.is_some() {
            self.hand_over();
        }
        if let Some(settled) = &mut self.settled {
            settled.advance(now_ns);
        }
    }

    /// Closes everything. Where the input is `complete`, what depends on something's absence is
    /// decided; an agent that stops has only stopped looking.
    pub fn finish(&mut self, complete: bool, now_ns: u64) {
        self.lane.finish(complete);
        self.lives.finish();
        if self.settled.is_some() {
            self.hand_over();
        }
        if let Some(settled) = &mut self.settled {
            settled.finish(now_ns);
        }
        if let Some(observer) = &mut self.observer {
            observer.finish();
        }
    }

    /// Tells the second lane what the first one told; what ended is for the second one to tell.
    fn hand_over(&mut self) {
        let (told, ended) = self.lane.take_stories();
        if let Some(settled) = &mut self.settled {
            self.told.extend(told.into_iter().filter(|draft| settled.opened(draft)));
            settled.ended(ended);
        }
    }

    /// Whether something waits for time to pass.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.settled.as_ref().is_some_and(Settled::waits)
    }

    /// Facts and stories since the last look. Sums that are still being gathered come when the driver's
    /// clock `ticks`, at the end, and before any story, so that what tells it knows what its shard
    /// knew.
    pub fn take_notes(&mut self, into: &mut impl Extend<EvidenceMessage>, ticks: bool) {
        let mut stories = std::mem::take(&mut self.told);
        match &mut self.settled {
            Some(settled) => stories.append(&mut settled.take()),
            None => {
                let (mut told, mut ended) = self.lane.take_stories();
                stories.append(&mut told);
                stories.append(&mut ended);
            }
        }
        stories.append(&mut self.lives.told);
        if let Some(observer) = &mut self.observer {
            if ticks {
                observer.tick();
            } else if !stories.is_empty() {
                observer.flush();
            }
            // A few at a time would wake the assessor again and again.
            if ticks || !stories.is_empty() || observer.is_full() {
                into.extend(observer.take());
            }
        }
        into.extend(stories.into_iter().map(EvidenceMessage::story));
    }

    /// Matches since the last look, where they are recorded.
    pub fn take_matches(&mut self) -> Vec<MatchLine> {
        std::mem::take(&mut self.lane.matches)
    }
}
