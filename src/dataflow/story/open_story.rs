//! One story that hasn't ended: its members, and the totals over members that aren't kept.

use std::collections::BTreeSet;

use crate::evidence::AffectedEntity;
use crate::rules::Rule;
use crate::story::deviation::Deviation;
use crate::story::event_text;
use crate::story::members::{EventRef, Kept, MAX_KEPT, MemberIds, Members};
use crate::story::trace::story_trace;
use tapio_core::event::{ArchivedEvent, EventId, Severity, StoryState, TraceId};

/// A match that opens or extends a story.
pub(crate) struct Match<'a> {
    pub(crate) rule_number: u16,
    pub(crate) rule: &'a Rule,
    pub(crate) trace: TraceId,
    /// When it was completed.
    pub(crate) at_ns: u64,
    /// Whether a story with this trace existed before: if that has ended, the match opens another
    /// story.
    pub(crate) had_story: bool,
    pub(crate) members: &'a Members,
}

/// A story that hasn't ended.
pub(crate) struct OpenStory {
    pub(crate) id: TraceId,
    pub(crate) trace: TraceId,
    pub(crate) rule: u16,
    pub(crate) members: Members,
    ids: MemberIds,
    /// The number of members by the event of the rule they matched.
    pub(crate) counts: Vec<u64>,
    /// The entities of the members that aren't kept.
    pub(crate) affected: BTreeSet<AffectedEntity>,
    pub(crate) failed_connections: u64,
    /// Those of them whose peer is known and isn't on the loopback.
    pub(crate) failed_outside: u64,
    pub(crate) worst: Severity,
    /// The strongest deviation of its measure so far, where its rule asks for one.
    pub(crate) deviation: Option<Deviation>,
    pub(crate) revision: u32,
    pub(crate) continues: Option<TraceId>,
    pub(crate) idle_ns: u64,
    max_age_ns: u64,
    /// The last change by the driver's clock: closes the story when no event advances event time.
    pub(crate) touched_ns: u64,
    /// The last emission by the driver's clock.
    pub(crate) emitted_ns: u64,
    /// Whether it changed since the last emission.
    pub(crate) changed: bool,
    /// Whether it has been emitted.
    pub(crate) emitted: bool,
}

impl OpenStory {
    /// Opens the story `id` with the members of a match.
    pub(crate) fn new(
        id: TraceId,
        found: &Match<'_>,
        continues: Option<TraceId>,
        cluster: &str,
        now_ns: u64,
    ) -> Self {
        let mut story = Self {
            id,
            trace: story_trace(cluster, found.members.ends[0]),
            rule: found.rule_number,
            members: found.members.without_kept(),
            ids: MemberIds::default(),
            counts: vec![0; found.rule.events.len()],
            affected: BTreeSet::new(),
            failed_connections: 0,
            failed_outside: 0,
            worst: Severity::default(),
            deviation: None,
            revision: 0,
            continues,
            idle_ns: found.rule.story.idle_ns,
            max_age_ns: found.rule.story.max_age_ns,
            touched_ns: now_ns,
            emitted_ns: 0,
            changed: true,
            emitted: false,
        };
        for kept in &found.members.kept {
            story.keep(kept);
        }
        for (event, members) in &found.members.beyond {
            if let Some(count) = story.counts.get_mut(usize::from(*event)) {
                *count += members;
            }
        }
        story
    }

    /// Updates the totals for a member, before it is added. `number`: the event of the rule.
    fn update_totals(&mut self, event: &ArchivedEvent<'_>, number: u16) {
        if let Some(count) = self.counts.get_mut(usize::from(number)) {
            *count += 1;
        }
        let failed = event_text::failed_connections(event);
        self.failed_connections += failed;
        if event_text::has_outside_peer(event) {
            self.failed_outside += failed;
        }
        self.worst = self.worst.max(event.severity());
        if self.members.kept.len() >= MAX_KEPT {
            event_text::affected(event, &mut self.affected);
        }
        self.changed = true;
    }

    /// Adds a member of a match, whole where there is room.
    fn keep(&mut self, kept: &Kept) {
        let Some(event) = kept.record.event() else { return };
        self.update_totals(event, kept.event);
        if self.members.kept.len() < MAX_KEPT {
            self.members.kept.push(kept.clone());
            self.ids.add_kept(event.event_id());
        } else {
            self.members.identify(event.event_id(), kept.event);
            self.ids.update(&self.members);
        }
    }

    /// Adds an event.
    pub(crate) fn join(&mut self, current: &mut EventRef<'_>, step: u8, event: u16, now_ns: u64) {
        let Some(archived) = current.record.event() else { return };
        self.update_totals(archived, event);
        self.members.add(current, step, event);
        self.ids.update(&self.members);
        self.touched_ns = now_ns;
    }

    /// Its measure deviates: the strongest deviation is kept.
    pub(crate) fn deviates(&mut self, found: Deviation) {
        if self.deviation.as_ref().is_none_or(|strongest| found.is_stronger(strongest)) {
            self.deviation = Some(found);
            self.changed = true;
        }
    }

    /// Adds a late event. False where it is a member already.
    pub(crate) fn join_late(&mut self, current: &mut EventRef<'_>, step: u8, event: u16) -> bool {
        if self.ids.contains(current.id) {
            return false;
        }
        let Some(archived) = current.record.event() else { return false };
        self.update_totals(archived, event);
        let at = self.members.kept.len();
        self.members.add(current, step, event);
        if let Some(kept) = self.members.kept.get_mut(at) {
            kept.late = true;
        }
        self.ids.update(&self.members);
        true
    }

    /// Merges a match. Matches of one story share events: each is a member once.
    pub(crate) fn extend(&mut self, members: &Members, now_ns: u64) {
        let identified = members.identified();
        // What a partial match gathered before its first match comes first in every later one.
        let own = self.members.identified();
        let shared = identified.iter().zip(own).take_while(|(a, b)| a == b).count();
        if !identified.is_empty() || !own.is_empty() {
            self.ids.index(&self.members);
        }
        let mut is_new = false;
        for kept in &members.kept {
            let Some(event) = kept.record.event() else {
                continue;
            };
            if self.ids.contains(event.event_id()) {
                continue;
            }
            is_new = true;
            self.keep(kept);
            self.members.total += 1;
        }
        for member in &identified[shared..] {
            if self.ids.contains(member.id) {
                continue;
            }
            is_new = true;
            self.members.identify(member.id, member.event);
            self.ids.index(&self.members);
            self.members.total += 1;
            if let Some(count) = self.counts.get_mut(usize::from(member.event)) {
                *count += 1;
            }
        }
        if members.unidentified() > 0 {
            self.count_unidentified(members, is_new);
        }
        self.changed |= is_new;
        self.members.last_ns = self.members.last_ns.max(members.last_ns);
        self.members.ends[1] = members.ends[1];
        self.touched_ns = now_ns;
    }

    /// Adds the members of a match that are only counted.
    fn count_unidentified(&mut self, members: &Members, is_new: bool) {
        for (event, beyond) in &members.beyond {
            let identified =
                members.identified().iter().filter(|m| m.event == *event).count() as u64;
            let unidentified = beyond.saturating_sub(identified);
            let Some(count) = self.counts.get_mut(usize::from(*event)) else { continue };
            // Where all identified ones were members already, the others may have been, too.
            let updated =
                if is_new { *count + unidentified } else { members.count(*event).max(*count) };
            self.members.total += updated - *count;
            *count = updated;
        }
    }

    /// The event time at which the story ends if no further member comes.
    pub(crate) fn ends_ns(&self) -> u64 {
        self.members.last_ns.saturating_add(self.idle_ns).min(self.max_age_end_ns())
    }

    fn max_age_end_ns(&self) -> u64 {
        self.members.first_ns.saturating_add(self.max_age_ns)
    }

    pub(crate) fn is_over(&self, event_time_ns: u64) -> bool {
        event_time_ns > self.ends_ns()
    }

    /// The state in which the story ends: expired by age, or closed.
    pub(crate) fn end_state(&self) -> StoryState {
        if self.ends_ns() == self.max_age_end_ns() {
            StoryState::Expired
        } else {
            StoryState::Closed
        }
    }

    /// The ids of the first and the latest member.
    pub(crate) fn ends(&self) -> [EventId; 2] {
        self.members.ends
    }
}
