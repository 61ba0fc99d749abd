//! The groups of a shard that are open: opened by a match, extended by members, told as they
//! change, closed when nothing comes any more or by age. Every group ends.

use std::collections::{BTreeSet, HashMap};

use super::evidence::Draft;
use super::lane::LaneOptions;
use super::members::{Hand, KEPT_MEMBERS, Kept, MemberIds, Members};
use super::rules::Rule;
use super::story;
use super::wheel::Wheel;
use tapio_core::event::{ArchivedEvent, EventId, GroupState, Severity, TraceId};

/// A group grows silently for this long after it was told; then it is told again.
const TELL_AGAIN_NS: u64 = 1_000_000_000;

/// New groups that are told at once, in a look at them; more wait for the next look.
const TOLD_AT_ONCE: usize = 256;

/// A group that isn't closed.
pub(super) struct OpenGroup {
    pub(super) id: TraceId,
    pub(super) trace: TraceId,
    pub(super) rule: u16,
    pub(super) members: Members,
    ids: MemberIds,
    /// Members by the event of the rule they matched.
    pub(super) counts: Vec<u64>,
    /// Whom the members that aren't kept are about.
    pub(super) affected: BTreeSet<String>,
    pub(super) failed_connections: u64,
    /// Those of them that left the machine's own loopback.
    pub(super) failed_for_others: u64,
    pub(super) worst: Severity,
    pub(super) revision: u32,
    pub(super) continues: Option<TraceId>,
    idle_ns: u64,
    max_age_ns: u64,
    /// Wall-clock (or watermark) time of the last change, for closing when no event moves time on.
    touched_ns: u64,
    told_ns: u64,
    changed: bool,
    told: bool,
}

impl OpenGroup {
    /// Takes note of a member before it is added.
    fn note(&mut self, event: &ArchivedEvent<'_>, number: u16) {
        if let Some(count) = self.counts.get_mut(usize::from(number)) {
            *count += 1;
        }
        let failed = story::failed_connections(event);
        self.failed_connections += failed;
        if story::is_for_others(event) {
            self.failed_for_others += failed;
        }
        self.worst = self.worst.max(event.severity());
        if self.members.kept.len() >= KEPT_MEMBERS {
            story::affected(event, &mut self.affected);
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

    /// When the group ends if nothing more comes: in the time of its events.
    fn ends_ns(&self) -> u64 {
        let idle = self.members.last_ns.saturating_add(self.idle_ns);
        idle.min(self.members.first_ns.saturating_add(self.max_age_ns))
    }

    fn is_over(&self, event_time_ns: u64) -> bool {
        event_time_ns > self.ends_ns()
    }
}

/// The open groups of a shard.
pub(super) struct Groups {
    open: HashMap<TraceId, OpenGroup, ahash::RandomState>,
    wheel: Wheel,
    timers: HashMap<u64, TraceId, ahash::RandomState>,
    next_timer: u64,
    capacity: usize,
    /// Groups told while they are open.
    pub(super) told: Vec<Draft>,
    /// Groups that ended.
    pub(super) ended: Vec<Draft>,
    /// Groups given up for room, until somebody says whether they are known.
    given_up: Vec<OpenGroup>,
    /// Whether groups are told before they are closed.
    tell_open: bool,
    unknown: Unknown,
    cluster: String,
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) expired: u64,
    /// Groups given up for room before anybody was told of them.
    pub(super) untold: u64,
}

/// What becomes of a group that is given up for room and that nobody was told of. A flood makes more of them
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
pub(super) struct Match<'a> {
    pub(super) rule_number: u16,
    pub(super) rule: &'a Rule,
    pub(super) trace: TraceId,
    /// When it was completed.
    pub(super) at_ns: u64,
    /// A group was told under this trace before: if it is over, this is another one.
    pub(super) told_before: bool,
    pub(super) members: &'a Members,
}

impl Groups {
    pub(super) fn new(options: LaneOptions, cluster: &str) -> Self {
        Self {
            open: HashMap::default(),
            wheel: Wheel::default(),
            timers: HashMap::default(),
            next_timer: 0,
            capacity: options.max_groups.max(1),
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

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether a group is open and takes members at this time.
    pub(super) fn takes(&self, id: TraceId, time_ns: u64) -> bool {
        self.open.get(&id).is_some_and(|g| !g.is_over(time_ns))
    }

    /// Tells a match: opens a group, or extends the one that is open under the match's trace.
    /// Returns the group's id.
    pub(super) fn matched(&mut self, found: Match<'_>, rules: &[Rule], now_ns: u64) -> TraceId {
        let mut id = found.trace;
        let mut continues = None;
        let is_over = match self.open.get(&id) {
            Some(group) => group.is_over(found.at_ns),
            // Whether a group that is over is gone yet depends on what else the shard has seen;
            // what follows mustn't.
            None => found.told_before,
        };
        if is_over {
            let state = self.open.get(&id).map_or(GroupState::Closed, end_state);
            self.close(id, state, rules);
            continues = Some(id);
            id = story::successor(id, found.members.ends[1]);
        }
        match self.open.get_mut(&id) {
            Some(group) => extend(group, found.members, now_ns),
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
        let mut group = OpenGroup {
            id,
            trace: story::story_trace(&self.cluster, found.members.ends[0]),
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
            idle_ns: found.rule.telling.idle_ns,
            max_age_ns: found.rule.telling.max_age_ns,
            touched_ns: now_ns,
            told_ns: 0,
            changed: true,
            told: false,
        };
        for kept in &found.members.kept {
            group.keep(kept);
        }
        for (event, members) in &found.members.beyond {
            if let Some(count) = group.counts.get_mut(usize::from(*event)) {
                *count += members;
            }
        }
        self.opened += 1;
        self.set_timer(id, group.ends_ns());
        self.open.insert(id, group);
    }

    fn set_timer(&mut self, id: TraceId, deadline_ns: u64) {
        self.next_timer += 1;
        self.timers.insert(self.next_timer, id);
        self.wheel.set(deadline_ns, self.next_timer);
    }

    /// Adds an event to an open group.
    pub(super) fn join(
        &mut self,
        id: TraceId,
        hand: &mut Hand<'_>,
        step: u8,
        event: u16,
        now_ns: u64,
    ) {
        let Some(group) = self.open.get_mut(&id) else {
            return;
        };
        let Some(archived) = hand.record.event() else {
            return;
        };
        group.note(archived, event);
        group.members.add(hand, step, event);
        group.ids.remember(&group.members);
        group.touched_ns = now_ns;
    }

    /// Adds an event to an open group that came too late to be more than a member. False where the
    /// group is gone or has it already.
    pub(super) fn join_late(
        &mut self,
        id: TraceId,
        hand: &mut Hand<'_>,
        step: u8,
        event: u16,
    ) -> bool {
        let Some(group) = self.open.get_mut(&id).filter(|g| !g.ids.has(hand.id)) else {
            return false;
        };
        let Some(archived) = hand.record.event() else {
            return false;
        };
        group.note(archived, event);
        let place = group.members.kept.len();
        group.members.add(hand, step, event);
        if let Some(kept) = group.members.kept.get_mut(place) {
            kept.late = true;
        }
        group.ids.remember(&group.members);
        true
    }

    /// The ends of an open group's members, for `related`.
    pub(super) fn ends(&self, id: TraceId) -> Option<[EventId; 2]> {
        self.open.get(&id).map(|g| g.members.ends)
    }

    /// Ends a group for room.
    fn give_up(&mut self, id: TraceId, rules: &[Rule]) {
        let known = self.open.get(&id).is_some_and(|g| g.told);
        match self.unknown {
            _ if known => self.close(id, GroupState::Expired, rules),
            Unknown::Told => self.close(id, GroupState::Expired, rules),
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

    /// Tells the groups given up for room that somebody knows of; the others are counted.
    pub(super) fn tell_given_up(&mut self, rules: &[Rule], known: impl Fn(TraceId) -> bool) {
        for group in std::mem::take(&mut self.given_up) {
            if known(group.id) {
                let rule = &rules[usize::from(group.rule)];
                self.ended.push(story::tell(rule, &group, GroupState::Expired));
            } else {
                self.untold += 1;
            }
        }
    }

    fn close(&mut self, id: TraceId, state: GroupState, rules: &[Rule]) {
        let Some(mut group) = self.open.remove(&id) else {
            return;
        };
        match state {
            GroupState::Expired => self.expired += 1,
            _ => self.closed += 1,
        }
        group.revision += u32::from(group.told);
        self.ended.push(story::tell(&rules[usize::from(group.rule)], &group, state));
    }

    /// Closes what is over: by the events' own time, or because no event came for as long by
    /// `now_ns`, the clock of the one who drives the shard.
    pub(super) fn advance(&mut self, event_time_ns: u64, now_ns: u64, rules: &[Rule]) {
        let mut fired = Vec::new();
        self.wheel.advance(event_time_ns, &mut fired);
        for timer in fired {
            let Some(id) = self.timers.remove(&timer) else {
                continue;
            };
            let Some(group) = self.open.get(&id) else {
                continue;
            };
            if group.is_over(event_time_ns) {
                self.close(id, end_state(group), rules);
            } else {
                let ends_ns = group.ends_ns();
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
        for group in self.open.values_mut() {
            if now_ns.saturating_sub(group.touched_ns) > group.idle_ns {
                idle.push(group.id);
            } else if group.changed && now_ns.saturating_sub(group.told_ns) >= TELL_AGAIN_NS {
                let state = if group.told { GroupState::Updated } else { GroupState::Opened };
                new += usize::from(!group.told);
                if !group.told && new > TOLD_AT_ONCE {
                    continue;
                }
                group.revision += u32::from(group.told);
                self.told.push(story::tell(&rules[usize::from(group.rule)], group, state));
                (group.told, group.changed, group.told_ns) = (true, false, now_ns);
            }
        }
        idle.sort();
        for id in idle {
            self.close(id, GroupState::Closed, rules);
        }
    }

    /// Gives each group's rule its new number. A group whose rule is gone or was changed ends, as the
    /// `old` rule tells it.
    pub(super) fn renumber(&mut self, places: &[Option<u16>], old: &[Rule]) {
        let mut ended = Vec::new();
        for group in self.open.values_mut() {
            match places.get(usize::from(group.rule)).copied().flatten() {
                Some(place) => group.rule = place,
                None => ended.push(group.id),
            }
        }
        ended.sort();
        ended.into_iter().for_each(|id| self.close(id, GroupState::Closed, old));
    }

    /// Closes everything: the shard ends.
    pub(super) fn finish(&mut self, rules: &[Rule]) {
        let mut ids: Vec<TraceId> = self.open.keys().copied().collect();
        ids.sort();
        for id in ids {
            // As it would have ended had time gone on: how far it went differs between shards.
            let state = self.open.get(&id).map_or(GroupState::Closed, end_state);
            self.close(id, state, rules);
        }
    }
}

fn end_state(group: &OpenGroup) -> GroupState {
    let by_age = group.members.first_ns.saturating_add(group.max_age_ns);
    if group.ends_ns() == by_age { GroupState::Expired } else { GroupState::Closed }
}

/// Merges a match into an open group. Matches of one story share events: each is a member once.
fn extend(group: &mut OpenGroup, members: &Members, now_ns: u64) {
    let known = members.known();
    // What one run gathered before its first match stands first in every later one.
    let shared = known.iter().zip(group.members.known()).take_while(|(a, b)| a == b).count();
    if !known.is_empty() || !group.members.known().is_empty() {
        group.ids.know(&group.members);
    }
    let mut is_new = false;
    for kept in &members.kept {
        let Some(event) = kept.record.event() else {
            continue;
        };
        if group.ids.has(event.event_id()) {
            continue;
        }
        is_new = true;
        group.keep(kept);
        group.members.total += 1;
    }
    for member in &known[shared..] {
        if group.ids.has(member.id) {
            continue;
        }
        is_new = true;
        group.members.know(member.id, member.event);
        group.ids.know(&group.members);
        group.members.total += 1;
        if let Some(count) = group.counts.get_mut(usize::from(member.event)) {
            *count += 1;
        }
    }
    if members.unknown() > 0 {
        count_unknown(group, members, is_new);
    }
    group.changed |= is_new;
    group.members.last_ns = group.members.last_ns.max(members.last_ns);
    group.members.ends[1] = members.ends[1];
    group.touched_ns = now_ns;
}

/// Counts the members of a match that nothing is known of but their number.
fn count_unknown(group: &mut OpenGroup, members: &Members, is_new: bool) {
    for (event, beyond) in &members.beyond {
        let known = members.known().iter().filter(|k| k.event == *event).count() as u64;
        let unknown = beyond.saturating_sub(known);
        let Some(count) = group.counts.get_mut(usize::from(*event)) else { continue };
        // Where all that are known were members already, the others may have been, too.
        let now = if is_new { *count + unknown } else { members.count(*event).max(*count) };
        group.members.total += now - *count;
        *count = now;
    }
}
