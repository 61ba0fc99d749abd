//! One shard: what owns a part of the keys and does everything that is done with them. Pure: no
//! clock, socket or thread inside, so that replay, tests and the running agent execute the same
//! code.

use std::sync::Arc;

use super::evidence::{Bounds, Note, Observer};
use super::lane::{Lane, LaneOptions, LaneStats, MatchLine};
use super::lifecycle::{self, Lives};
use super::rules::RuleSet;
use crate::event::TraceId;
use crate::ring::{Header, Membership, Record};

/// Lives a shard follows at once.
const MAX_LIVES: usize = 65_536;

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
}

/// What a step found out about an event.
#[derive(Default)]
pub struct Found {
    /// Its places in groups, beyond those it came with.
    pub memberships: Vec<Membership>,
    /// The trace of the life it belongs to, if this shard is its home.
    pub life: Option<TraceId>,
}

/// A part of the correlator.
pub struct Shard {
    rules: Arc<RuleSet>,
    number: usize,
    lane: Lane,
    lives: Lives,
    /// Without it, groups are told by their own events alone.
    observer: Option<Observer>,
    grouping: bool,
}

impl Shard {
    /// Shard `number` of `rules.shards()`. With `grouping` off events pass unchanged.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>, number: usize, options: LaneOptions, grouping: bool) -> Self {
        let lane = Lane::new(Arc::clone(&rules), number, options);
        let lives = Lives::new(MAX_LIVES);
        Self { rules, number, lane, lives, observer: None, grouping }
    }

    /// The same shard, observing what the entities it is home to do.
    #[must_use]
    pub fn observing(mut self, bounds: Bounds) -> Self {
        self.observer = Some(Observer::new(Arc::clone(&self.rules), bounds));
        self
    }

    /// What the shard has counted.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            lane: self.lane.stats(),
            lives: self.lives.len() as u64,
            lives_opened: self.lives.opened,
            lives_evicted: self.lives.evicted(),
            pasts_evicted: self.observer.as_ref().map_or(0, Observer::evicted),
        }
    }

    /// Shows an event to this shard. `now_ns` is the driver's clock.
    pub fn step(&mut self, record: &Record<'_>, now_ns: u64, found: &mut Found) {
        found.memberships.clear();
        found.life = None;
        let Some(event) = record.event().filter(|_| self.grouping) else {
            return;
        };
        self.lane.event(record, now_ns, &mut found.memberships);
        if self.rules.shards() == 1 || self.rules.home_shard(event) == self.number {
            found.life = self.lives.event(event, &self.rules);
            if let Some(observer) = &mut self.observer {
                observer.event(event);
            }
        }
    }

    /// Moves time on and closes what is over.
    pub fn advance(&mut self, now_ns: u64, clock_ns: u64) {
        self.lane.advance(now_ns);
        self.lives.advance(clock_ns);
    }

    /// Closes everything. Where the input is `complete`, what depends on something's absence is
    /// decided; an agent that stops has only stopped looking.
    pub fn finish(&mut self, complete: bool) {
        self.lane.finish(complete);
        self.lives.finish();
    }

    /// Facts and groups since the last look. Sums that are still being gathered come with `all`, and
    /// before any group, so that what tells it knows what its shard knew.
    pub fn take_notes(&mut self, into: &mut impl Extend<Note>, all: bool) {
        let mut groups = self.lane.take_groups();
        groups.append(&mut self.lives.told);
        if let Some(observer) = &mut self.observer {
            if all || !groups.is_empty() {
                observer.flush();
            }
            // A few at a time would wake the assessor again and again.
            if all || !groups.is_empty() || observer.is_full() {
                into.extend(observer.take());
            }
        }
        into.extend(groups.into_iter().map(Note::draft));
    }

    /// Matches since the last look, where they are recorded.
    pub fn take_matches(&mut self) -> Vec<MatchLine> {
        std::mem::take(&mut self.lane.matches)
    }
}

/// The header an event goes on with: its remaining visits, and the trace of the story it is in,
/// else of its life, else the one it came with.
#[must_use]
pub fn next_header(record: &Record<'_>, found: &Found, shard: usize) -> Header {
    let mut header = *record.header();
    header.visits &= !(1u64 << shard);
    let best = record
        .memberships()
        .chain(found.memberships.iter().copied())
        .min_by_key(|m| (m.rank, m.group));
    if let Some(best) = best {
        header.trace_id = best.group;
    } else if let Some(life) = found.life {
        header.trace_id = life;
    }
    if header.trace_id.is_some()
        && header.span_id == [0; 8]
        && let Some(event) = record.event()
    {
        header.span_id = lifecycle::span_of(event.event_id());
    }
    header
}
