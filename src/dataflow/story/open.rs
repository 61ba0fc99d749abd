//! The stories of a shard that are open: opened by a match, extended by members, told as they
//! change, closed when nothing comes any more or by age. Every story ends.

use std::collections::{BTreeSet, HashMap};

use crate::evidence::Draft;
use crate::matcher::lane::LaneOptions;
use crate::matcher::timer_wheel::Wheel;
use crate::rules::Rule;
use crate::story::members::{Hand, KEPT_MEMBERS, Kept, MemberIds, Members};
use crate::story::render;
use tapio_core::event::{ArchivedEvent, EventId, Severity, StoryState, TraceId};

/// A story grows silently for this long after it was told; then it is told again.
const TELL_AGAIN_NS: u64 = 1_000_000_000;

/// New stories that are told at once, in a look at them; more wait for the next look.
const TOLD_AT_ONCE: usize = 256;

/// A story that isn't closed.
pub(crate) struct OpenStory {
    pub(crate) id: TraceId,
    pub(crate) trace: TraceId,
    pub(crate) rule: u16,
    pub(crate) members: Members,
    ids: MemberIds,
    /// Members by the event of the rule they matched.
    pub(crate) counts: Vec<u64>,
    /// Whom the members that aren't kept are about.
    pub(crate) affected: BTreeSet<String>,
    pub(crate) failed_connections: u64,
    /// Those of them that left the machine's own loopback.
    pub(crate) failed_for_others: u64,
    pub(crate) worst: Severity,
    pub(crate) revision: u32,
    pub(crate) continues: Option<TraceId>,
    idle_ns: u64,
    max_age_ns: u64,
    /// Wall-clock (or watermark) time of the last change, for closing when no event moves time on.
    touched_ns: u64,
    told_ns: u64,
    changed: bool,
    told: bool,
}

impl OpenStory {
    /// Takes note of a member before it is added.
    fn note(&mut self, event: &ArchivedEvent<'_>, number: u16) {
        if let Some(count) = self.counts.get_mut(usize::from(number)) {
            *count += 1;
        }
        let failed = render::failed_connections(event);
        self.failed_connections += failed;
        if render::is_for_others(event) {
            self.failed_for_others += failed;
        }
        self.worst = self.worst.max(event.severity());
        if self.members.kept.len() >= KEPT_MEMBERS {
            render::affected(event, &mut self.affected);
        }
        self.changed = true;
    }

    /// Takes note of a member of a match, and keeps it where there is room.
    fn keep(&mut self, kept: &Kept) {
        let Some(event) = kept.record.event() else { return };
        self.note(event, kept.event);
        if self.members.kept.len() < KEPT_MEMBERS {
            self.members.kept.push(kept.clone());
            self.ids.keep(event.event_id());
        } else {
            self.members.know(event.event_id(), kept.event);
            self.ids.remember(&self.members);
        }
    }

    /// When the story ends if nothing more comes: in the time of its events.
    fn ends_ns(&self) -> u64 {
        let idle = self.members.last_ns.saturating_add(self.idle_ns);
        idle.min(self.members.first_ns.saturating_add(self.max_age_ns))
    }

    fn is_over(&self, event_time_ns: u64) -> bool {
        event_time_ns > self.ends_ns()
    }
}

/// The open stories of a shard.
pub(crate) struct OpenStories {
    open: HashMap<TraceId, OpenStory, ahash::RandomState>,
    wheel: Wheel,
    timers: HashMap<u64, TraceId, ahash::RandomState>,
    next_timer: u64,
    capacity: usize,
    /// Stories told while they are open.
    pub(crate) told: Vec<Draft>,
    /// Stories that ended.
    pub(crate) ended: Vec<Draft>,
    /// Stories given up for room, until somebody says whether they are known.
    given_up: Vec<OpenStory>,
    /// Whether stories are told before they are closed.
    tell_open: bool,
    unknown: Unknown,
    cluster: String,
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) expired: u64,
    /// Stories given up for room before anybody was told of them.
    pub(crate) untold: u64,
}

/// What becomes of a story that is given up for room and that nobody was told of. A flood makes more of them
/// than anybody could read, and telling one costs as much as finding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It is told all the same: nothing waits for it.
    Told,
    /// It is counted.
    Counted,
    /// Who has this lane decides.
    Asked,
}

/// A match to be told.
pub(crate) struct Match<'a> {
    pub(crate) rule_number: u16,
    pub(crate) rule: &'a Rule,
    pub(crate) trace: TraceId,
    /// When it was completed.
    pub(crate) at_ns: u64,
    /// A story was told under this trace before: if it is over, this is another one.
    pub(crate) told_before: bool,
    pub(crate) members: &'a Members,
}

impl OpenStories {
    pub(crate) fn new(options: LaneOptions, cluster: &str) -> Self {
        Self {
            open: HashMap::default(),
            wheel: Wheel::default(),
            timers: HashMap::default(),
            next_timer: 0,
            capacity: options.max_stories.max(1),
            told: Vec::new(),
            ended: Vec::new(),
            given_up: Vec::new(),
            tell_open: options.tell_open,
            unknown: options.unknown,
            cluster: cluster.to_owned(),
            opened: 0,
            closed: 0,
            expired: 0,
            untold: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether a story is open and takes members at this time.
    pub(crate) fn takes(&self, id: TraceId, time_ns: u64) -> bool {
        self.open.get(&id).is_some_and(|g| !g.is_over(time_ns))
    }

    /// Tells a match: opens a story, or extends the one that is open under the match's trace.
    /// Returns the story's id.
    pub(crate) fn matched(&mut self, found: Match<'_>, rules: &[Rule], now_ns: u64) -> TraceId {
        let mut id = found.trace;
        let mut continues = None;
        let is_over = match self.open.get(&id) {
            Some(story) => story.is_over(found.at_ns),
            // Whether a story that is over is gone yet depends on what else the shard has seen;
            // what follows mustn't.
            None => found.told_before,
        };
        if is_over {
            let state = self.open.get(&id).map_or(StoryState::Closed, end_state);
            self.close(id, state, rules);
            continues = Some(id);
            id = render::successor(id, found.members.ends[1]);
        }
        match self.open.get_mut(&id) {
            Some(story) => extend(story, found.members, now_ns),
            None => self.start(id, found, continues, rules, now_ns),
        }
        id
    }

    fn start(
        &mut self,
        id: TraceId,
        found: Match<'_>,
        continues: Option<TraceId>,
        rules: &[Rule],
        now_ns: u64,
    ) {
        while self.open.len() >= self.capacity {
            match self.wheel.pop_earliest().and_then(|t| self.timers.remove(&t)) {
                Some(earliest) => self.give_up(earliest, rules),
                None if self.wheel.is_empty() => break,
                None => {}
            }
        }
        let mut story = OpenStory {
            id,
            trace: render::story_trace(&self.cluster, found.members.ends[0]),
            rule: found.rule_number,
            members: found.members.without_kept(),
            ids: MemberIds::default(),
            counts: vec![0; found.rule.events.len()],
            affected: BTreeSet::new(),
            failed_connections: 0,
            failed_for_others: 0,
            worst: Severity::default(),
            revision: 0,
            continues,
            idle_ns: found.rule.story.idle_ns,
            max_age_ns: found.rule.story.max_age_ns,
            touched_ns: now_ns,
            told_ns: 0,
            changed: true,
            told: false,
        };
        for kept in &found.members.kept {
            story.keep(kept);
        }
        for (event, members) in &found.members.beyond {
            if let Some(count) = story.counts.get_mut(usize::from(*event)) {
                *count += members;
            }
        }
        self.opened += 1;
        self.set_timer(id, story.ends_ns());
        self.open.insert(id, story);
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
        hand: &mut Hand<'_>,
        step: u8,
        event: u16,
        now_ns: u64,
    ) {
        let Some(story) = self.open.get_mut(&id) else {
            return;
        };
        let Some(archived) = hand.record.event() else {
            return;
        };
        story.note(archived, event);
        story.members.add(hand, step, event);
        story.ids.remember(&story.members);
        story.touched_ns = now_ns;
    }

    /// Adds an event to an open story that came too late to be more than a member. False where the
    /// story is gone or has it already.
    pub(crate) fn join_late(
        &mut self,
        id: TraceId,
        hand: &mut Hand<'_>,
        step: u8,
        event: u16,
    ) -> bool {
        let Some(story) = self.open.get_mut(&id).filter(|g| !g.ids.has(hand.id)) else {
            return false;
        };
        let Some(archived) = hand.record.event() else {
            return false;
        };
        story.note(archived, event);
        let place = story.members.kept.len();
        story.members.add(hand, step, event);
        if let Some(kept) = story.members.kept.get_mut(place) {
            kept.late = true;
        }
        story.ids.remember(&story.members);
        true
    }

    /// The ends of an open story's members, for `related`.
    pub(crate) fn ends(&self, id: TraceId) -> Option<[EventId; 2]> {
        self.open.get(&id).map(|g| g.members.ends)
    }

    /// Ends a story for room.
    fn give_up(&mut self, id: TraceId, rules: &[Rule]) {
        let known = self.open.get(&id).is_some_and(|g| g.told);
        match self.unknown {
            _ if known => self.close(id, StoryState::Expired, rules),
            Unknown::Told => self.close(id, StoryState::Expired, rules),
            Unknown::Counted => {
                self.open.remove(&id);
                (self.expired, self.untold) = (self.expired + 1, self.untold + 1);
            }
            Unknown::Asked => {
                self.given_up.extend(self.open.remove(&id));
                self.expired += 1;
            }
        }
    }

    /// Tells the stories given up for room that somebody knows of; the others are counted.
    pub(crate) fn tell_given_up(&mut self, rules: &[Rule], known: impl Fn(TraceId) -> bool) {
        for story in std::mem::take(&mut self.given_up) {
            if known(story.id) {
                let rule = &rules[usize::from(story.rule)];
                self.ended.push(render::tell(rule, &story, StoryState::Expired));
            } else {
                self.untold += 1;
            }
        }
    }

    fn close(&mut self, id: TraceId, state: StoryState, rules: &[Rule]) {
        let Some(mut story) = self.open.remove(&id) else {
            return;
        };
        match state {
            StoryState::Expired => self.expired += 1,
            _ => self.closed += 1,
        }
        story.revision += u32::from(story.told);
        self.ended.push(render::tell(&rules[usize::from(story.rule)], &story, state));
    }

    /// Closes what is over: by the events' own time, or because no event came for as long by
    /// `now_ns`, the clock of the one who drives the shard.
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
                self.close(id, end_state(story), rules);
            } else {
                let ends_ns = story.ends_ns();
                self.set_timer(id, ends_ns);
            }
        }
        if self.tell_open {
            self.tell_changed(now_ns, rules);
        }
    }

    fn tell_changed(&mut self, now_ns: u64, rules: &[Rule]) {
        let mut idle = Vec::new();
        let mut new = 0;
        for story in self.open.values_mut() {
            if now_ns.saturating_sub(story.touched_ns) > story.idle_ns {
                idle.push(story.id);
            } else if story.changed && now_ns.saturating_sub(story.told_ns) >= TELL_AGAIN_NS {
                let state = if story.told { StoryState::Updated } else { StoryState::Opened };
                new += usize::from(!story.told);
                if !story.told && new > TOLD_AT_ONCE {
                    continue;
                }
                story.revision += u32::from(story.told);
                self.told.push(render::tell(&rules[usize::from(story.rule)], story, state));
                (story.told, story.changed, story.told_ns) = (true, false, now_ns);
            }
        }
        idle.sort();
        for id in idle {
            self.close(id, StoryState::Closed, rules);
        }
    }

    /// Gives each story's rule its new number. A story whose rule is gone or was changed ends, as the
    /// `old` rule tells it.
    pub(crate) fn renumber(&mut self, places: &[Option<u16>], old: &[Rule]) {
        let mut ended = Vec::new();
        for story in self.open.values_mut() {
            match places.get(usize::from(story.rule)).copied().flatten() {
                Some(place) => story.rule = place,
                None => ended.push(story.id),
            }
        }
        ended.sort();
        ended.into_iter().for_each(|id| self.close(id, StoryState::Closed, old));
    }

    /// Closes everything: the shard ends.
    pub(crate) fn finish(&mut self, rules: &[Rule]) {
        let mut ids: Vec<TraceId> = self.open.keys().copied().collect();
        ids.sort();
        for id in ids {
            // As it would have ended had time gone on: how far it went differs between shards.
            let state = self.open.get(&id).map_or(StoryState::Closed, end_state);
            self.close(id, state, rules);
        }
    }
}

fn end_state(story: &OpenStory) -> StoryState {
    let by_age = story.members.first_ns.saturating_add(story.max_age_ns);
    if story.ends_ns() == by_age { StoryState::Expired } else { StoryState::Closed }
}

/// Merges a match into an open story. Matches of one story share events: each is a member once.
fn extend(story: &mut OpenStory, members: &Members, now_ns: u64) {
    let known = members.known();
    // What one run gathered before its first match stands first in every later one.
    let shared = known.iter().zip(story.members.known()).take_while(|(a, b)| a == b).count();
    if !known.is_empty() || !story.members.known().is_empty() {
        story.ids.know(&story.members);
    }
    let mut is_new = false;
    for kept in &members.kept {
        let Some(event) = kept.record.event() else {
            continue;
        };
        if story.ids.has(event.event_id()) {
            continue;
        }
        is_new = true;
        story.keep(kept);
        story.members.total += 1;
    }
    for member in &known[shared..] {
        if story.ids.has(member.id) {
            continue;
        }
        is_new = true;
        story.members.know(member.id, member.event);
        story.ids.know(&story.members);
        story.members.total += 1;
        if let Some(count) = story.counts.get_mut(usize::from(member.event)) {
            *count += 1;
        }
    }
    if members.unknown() > 0 {
        count_unknown(story, members, is_new);
    }
    story.changed |= is_new;
    story.members.last_ns = story.members.last_ns.max(members.last_ns);
    story.members.ends[1] = members.ends[1];
    story.touched_ns = now_ns;
}

/// Counts the members of a match that nothing is known of but their number.
fn count_unknown(story: &mut OpenStory, members: &Members, is_new: bool) {
    for (event, beyond) in &members.beyond {
        let known = members.known().iter().filter(|k| k.event == *event).count() as u64;
        let unknown = beyond.saturating_sub(known);
        let Some(count) = story.counts.get_mut(usize::from(*event)) else { continue };
        // Where all that are known were members already, the others may have been, too.
        let now = if is_new { *count + unknown } else { members.count(*event).max(*count) };
        story.members.total += now - *count;
        *count = now;
    }
}
