//! Evaluates a sequence: `until`, negations, the steps from the last to the first, completed
//! matches, and events that join the open story of their key.

use crate::key_table::Entry;
use crate::matcher::key_state::{Body, KeyState};
use crate::matcher::lane::{Lane, MatchContext};
use crate::matcher::match_line::{MatchLine, key_json, label_json};
use crate::matcher::membership::{
    RANKS_ALONE, RANKS_LINKED, RANKS_OPTIONAL, add_membership, match_trace, rank,
};
use crate::matcher::partial_match::PartialMatch;
use crate::matcher::partial_matches::PartialMatches;
use crate::rules::field::build_key;
use crate::rules::{FieldRef, Outcomes, RulePart, RuleSet, RuleUse, Select, Sequence, Shape};
use crate::story::open_story::Match;
use tapio_core::event::{EventId, TraceId};
use tapio_core::ring::Membership;

/// When and by which event a match was completed.
#[derive(Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) time_ns: u64,
    /// The completing event's position in the order; `u64::MAX` where time completed it.
    pub(crate) order: u64,
    /// The driver's clock.
    pub(crate) now_ns: u64,
}

impl Lane {
    pub(crate) fn sequence(
        &mut self,
        context: &mut MatchContext<'_, '_>,
        used: &RuleUse,
        outcomes: &Outcomes,
        sequence: &Sequence,
        memberships: &mut Vec<Membership>,
    ) {
        let (mut joined, mut ended): (Option<TraceId>, bool) = (None, false);
        for op in used.ops.iter().filter(|op| outcomes.holds(**op)) {
            match op.part {
                RulePart::Until => {
                    let by = &sequence.until_by;
                    if let Some(slot) = self.sequence_slot(context, used.rule, sequence, by, false)
                        && let Some(partial) = self.partial_matches(slot)
                    {
                        partial.clear();
                    }
                }
                RulePart::Not(i) => {
                    let not = &sequence.nots[usize::from(i)];
                    let makes = not.gap == 0;
                    let by = &not.by;
                    if let Some(slot) = self.sequence_slot(context, used.rule, sequence, by, makes)
                        && let Some(partial) = self.partial_matches(slot)
                    {
                        partial.negate(sequence, not, context.current.time_ns);
                    }
                }
                RulePart::Step(step) if !ended => {
                    let rule = used.rule;
                    ended = self.step(context, rule, sequence, step, &mut joined, memberships);
                }
                RulePart::Step(_) | RulePart::Counted(_) => {}
            }
        }
    }

    fn partial_matches(&mut self, slot: u32) -> Option<&mut PartialMatches> {
        match self.keys.get(slot) {
            Some(Entry { body: KeyState { body: Body::Sequence(partial), .. }, .. }) => {
                Some(partial)
            }
            _ => None,
        }
    }

    /// Returns the slot of the event's key, after completing its due matches. Creates it if `makes`
    /// is set.
    fn sequence_slot(
        &mut self,
        context: &MatchContext<'_, '_>,
        rule: u16,
        sequence: &Sequence,
        by: &[FieldRef],
        makes: bool,
    ) -> Option<u32> {
        if !build_key(context.event, by, &mut self.key) {
            return None;
        }
        let deadline_ns = context.current.time_ns.saturating_add(sequence.within_ns);
        let make = || Body::Sequence(PartialMatches::default());
        let slot = self.key_slot(rule, deadline_ns, makes.then_some(make))?;
        self.complete_due(context.rules, slot, context.current.time_ns, context.now_ns);
        Some(slot)
    }

    /// Completes the matches of a key whose trailing negation can't occur any more.
    pub(crate) fn complete_due(
        &mut self,
        rules: &RuleSet,
        slot: u32,
        time_ns: u64,
        now_ns: u64,
    ) -> Option<()> {
        let entry = self.keys.get(slot)?;
        let number = entry.rule;
        let Body::Sequence(partial) = &mut entry.body.body else { return None };
        let Shape::Sequence(sequence) = &rules.rules[usize::from(number)].shape else {
            return None;
        };
        for due in partial.take_due(sequence, time_ns) {
            let time_ns = due.deadline_ns(sequence);
            let at = Completion { time_ns, order: u64::MAX, now_ns };
            self.complete(rules, number, slot, &due, at);
        }
        Some(())
    }

    /// Processes the event as a step. True if a match uses it up: earlier steps don't get it.
    fn step(
        &mut self,
        context: &mut MatchContext<'_, '_>,
        rule: u16,
        sequence: &Sequence,
        step: u8,
        joined: &mut Option<TraceId>,
        memberships: &mut Vec<Membership>,
    ) -> bool {
        let spec = &sequence.steps[usize::from(step)];
        let (by, refined) = spec.by.split_at(sequence.key_fields);
        if !build_key(context.event, refined, &mut self.tail) {
            return false;
        }
        let starts = sequence.steps[..usize::from(step)].iter().all(|s| s.optional);
        let Some(slot) = self.sequence_slot(context, rule, sequence, by, starts) else {
            return false;
        };
        let Some(entry) = self.keys.get(slot) else { return false };
        let time_ns = context.current.time_ns;
        let open = entry.body.story.filter(|s| self.stories.accepts(*s, time_ns));
        let Body::Sequence(partial) = &mut entry.body.body else { return false };
        let (rules, key, id) = (context.rules, &entry.key, context.current.id);
        let dropped = partial.dropped;
        let outcome =
            partial.fill(sequence, usize::from(step), &self.tail, context.current, || {
                open.unwrap_or_else(|| match_trace(rules, rule, key, id))
            });
        self.partial_matches_dropped += partial.dropped - dropped;
        let event = spec.event as u16;
        let found = match outcome.joined {
            Some(found) => Some(found),
            None => self.join_open_story(context, slot, step, event, *joined),
        };
        let Some((mut trace, before)) = found else { return false };
        let at = Completion { time_ns, order: context.current.order, now_ns: context.now_ns };
        for completed in &outcome.completed {
            trace = self.complete(rules, rule, slot, completed, at);
        }
        *joined = Some(trace);
        let before = self.related(trace, id, before);
        let is_linked = sequence.steps.len() > 1 && before[0] != EventId::default();
        let ranks = match (is_linked, spec.optional) {
            (true, _) => RANKS_LINKED,
            (false, true) => RANKS_OPTIONAL,
            (false, false) => RANKS_ALONE,
        };
        let is_open = self.stories.accepts(trace, time_ns);
        let rank = rank(ranks, is_open, sequence.required_steps());
        add_membership(memberships, rules, rule, step, trace, before, rank);
        sequence.select == Select::First && !outcome.completed.is_empty()
    }

    /// Adds an event that no partial match waits for to the open story of its key, unless the event
    /// has joined one as another step.
    fn join_open_story(
        &mut self,
        context: &mut MatchContext<'_, '_>,
        slot: u32,
        step: u8,
        event: u16,
        joined: Option<TraceId>,
    ) -> Option<(TraceId, [EventId; 2])> {
        let story = self.keys.get(slot)?.body.story?;
        if joined.is_some() || !self.stories.accepts(story, context.current.time_ns) {
            return None;
        }
        let before = self.stories.ends(story)?;
        self.stories.join(story, context.current, step, event, context.now_ns);
        Some((story, before))
    }

    /// Records a completed match and adds it to its story. Returns the story's id.
    fn complete(
        &mut self,
        rules: &RuleSet,
        number: u16,
        slot: u32,
        completed: &PartialMatch,
        at: Completion,
    ) -> TraceId {
        self.matched += 1;
        let trace = completed.trace;
        let rule = &rules.rules[usize::from(number)];
        let (Shape::Sequence(sequence), Some(first)) = (&rule.shape, completed.filled.first())
        else {
            return trace;
        };
        let Some(event) = first.record.event() else { return trace };
        // Steps can name the shared key differently: the fields of the first one stand for it.
        let by = &sequence.steps[usize::from(first.step)].by[..sequence.key_fields];
        if self.record_matches {
            self.matches.push(MatchLine {
                time_ns: at.time_ns,
                order: at.order,
                rule_number: number,
                first: completed.first_order(),
                json: serde_json::json!({
                    "rule": rule.name.text(), "key": key_json(rule, by, event),
                    "events": labels_json(sequence, completed),
                }),
            });
        }
        let found = Match {
            rule_number: number,
            rule,
            trace,
            at_ns: at.time_ns,
            had_story: self.keys.get(slot).is_some_and(|entry| entry.body.had_story(trace)),
            members: &completed.members,
        };
        let id = self.stories.add_match(&found, &rules.rules, at.now_ns);
        if let Some(entry) = self.keys.get(slot) {
            entry.body.set_story(id);
        }
        id
    }
}

/// The labels of a match's events, by step; null for a negation.
fn labels_json(sequence: &Sequence, completed: &PartialMatch) -> Vec<serde_json::Value> {
    let mut labels = Vec::new();
    for gap in 0..=sequence.steps.len() {
        let nots = sequence.nots.iter().filter(|n| n.gap == gap);
        labels.extend(nots.map(|_| serde_json::Value::Null));
        let filled = completed.filled.iter().filter(|f| usize::from(f.step) == gap);
        labels.extend(filled.filter_map(|f| f.record.event()).map(label_json));
    }
    labels
}
