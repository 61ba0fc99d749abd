//! What a lane does for a sequence: `until`, the steps from the last to the first, what must not
//! happen, completed matches, and events that join a story which is open.

use crate::matcher::key_table::Entry;
use crate::matcher::lane::{
    Body, Lane, MatchLine, Pending, RANKS_ALONE, RANKS_LINKED, Showing, add_membership, key_json,
    label_json, trace_of,
};
use crate::matcher::partial_match::{Run, Runs};
use crate::rules::field::build_key;
use crate::rules::{Outcomes, RulePart, RuleSet, RuleUse, Select, Sequence, Shape};
use crate::story::open::Match;
use tapio_core::event::{EventId, TraceId};
use tapio_core::ring::Membership;

/// When and by what a match was completed.
#[derive(Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) time_ns: u64,
    /// The completing event's place in the order; `u64::MAX` where time completed it.
    pub(crate) order: u64,
    /// The driver's clock.
    pub(crate) now_ns: u64,
}

impl Lane {
    pub(crate) fn sequence(
        &mut self,
        showing: &mut Showing<'_, '_>,
        used: &RuleUse,
        outcomes: &Outcomes,
        sequence: &Sequence,
        found: &mut Vec<Membership>,
    ) {
        let (mut joined, mut ended): (Option<TraceId>, bool) = (None, false);
        for op in used.ops.iter().filter(|op| outcomes.holds(**op)) {
            match op.part {
                RulePart::Until => {
                    if let Some(slot) =
                        self.slot(showing, used.rule, sequence, &sequence.until_by, false)
                        && let Some(runs) = self.runs(slot)
                    {
                        runs.clear();
                    }
                }
                RulePart::Not(i) => {
                    let not = &sequence.nots[usize::from(i)];
                    let makes = not.gap == 0;
                    if let Some(slot) = self.slot(showing, used.rule, sequence, &not.by, makes)
                        && let Some(runs) = self.runs(slot)
                    {
                        runs.refuse(sequence, not, showing.hand.time_ns);
                    }
                }
                RulePart::Step(step) if !ended => {
                    ended = self.step(showing, used.rule, sequence, step, &mut joined, found);
                }
                RulePart::Step(_) | RulePart::Counted(_) => {}
            }
        }
    }

    fn runs(&mut self, slot: u32) -> Option<&mut Runs> {
        match self.keys.get(slot) {
            Some(Entry { body: Pending { body: Body::Sequence(runs), .. }, .. }) => Some(runs),
            _ => None,
        }
    }

    /// The pending runs of the event's key, with what has become due told. Makes them where
    /// `makes`.
    fn slot(
        &mut self,
        showing: &Showing<'_, '_>,
        rule: u16,
        sequence: &Sequence,
        by: &[crate::rules::FieldRef],
        makes: bool,
    ) -> Option<u32> {
        if !build_key(showing.event, by, &mut self.key) {
            return None;
        }
        let deadline_ns = showing.hand.time_ns.saturating_add(sequence.within_ns);
        let make = || Body::Sequence(Runs::default());
        let slot = self.pending(rule, deadline_ns, makes.then_some(make))?;
        self.settle_runs(showing.rules, slot, showing.hand.time_ns, showing.now_ns);
        Some(slot)
    }

    /// Tells the matches of this key that nothing can undo any more.
    pub(crate) fn settle_runs(
        &mut self,
        rules: &RuleSet,
        slot: u32,
        time_ns: u64,
        now_ns: u64,
    ) -> Option<()> {
        let entry = self.keys.get(slot)?;
        let number = entry.rule;
        let Body::Sequence(runs) = &mut entry.body.body else { return None };
        let Shape::Sequence(sequence) = &rules.rules[usize::from(number)].shape else {
            return None;
        };
        for run in runs.settle(sequence, time_ns) {
            let due_ns = run.first_ns.saturating_add(sequence.within_ns);
            let at = Completion { time_ns: due_ns, order: u64::MAX, now_ns };
            self.completed(rules, number, slot, &run, at);
        }
        Some(())
    }

    /// Shows the event to a step. True where a match ends what the
    /// event can do for later ones.
    fn step(
        &mut self,
        showing: &mut Showing<'_, '_>,
        rule: u16,
        sequence: &Sequence,
        step: u8,
        joined: &mut Option<TraceId>,
        found: &mut Vec<Membership>,
    ) -> bool {
        let spec = &sequence.steps[usize::from(step)];
        let (by, refined) = spec.by.split_at(sequence.key_fields);
        if !build_key(showing.event, refined, &mut self.tail) {
            return false;
        }
        let starts = sequence.steps[..usize::from(step)].iter().all(|s| s.optional);
        let Some(slot) = self.slot(showing, rule, sequence, by, starts) else {
            return false;
        };
        let Some(entry) = self.keys.get(slot) else { return false };
        let open = entry.body.story.filter(|g| self.stories.takes(*g, showing.hand.time_ns));
        let Body::Sequence(runs) = &mut entry.body.body else { return false };
        let (rules, key, id) = (showing.rules, &entry.key, showing.hand.id);
        let dropped = runs.dropped;
        let outcome = runs.fill(sequence, usize::from(step), &self.tail, showing.hand, || {
            open.unwrap_or_else(|| trace_of(rules, rule, key, id))
        });
        self.dropped_runs += runs.dropped - dropped;
        let event = spec.event as u16;
        let part = match outcome.joined {
            Some(part) => Some(part),
            None => self.attach(showing, slot, step, event, *joined),
        };
        let Some((mut trace, before)) = part else { return false };
        let at = Completion {
            time_ns: showing.hand.time_ns,
            order: showing.hand.order,
            now_ns: showing.now_ns,
        };
        for run in &outcome.completed {
            trace = self.completed(rules, rule, slot, run, at);
        }
        *joined = Some(trace);
        let before = self.related(trace, showing.hand.id, before);
        let is_linked = sequence.steps.len() > 1 && before[0] != EventId::default();
        let ranks = if is_linked { RANKS_LINKED } else { RANKS_ALONE };
        let rank = self.rank(trace, showing.hand.time_ns, ranks);
        add_membership(found, rules, rule, step, trace, before, rank);
        sequence.select == Select::First && !outcome.completed.is_empty()
    }

    /// An event no run waits for still belongs to the story that is open for its key, unless it
    /// could only begin another.
    fn attach(
        &mut self,
        showing: &mut Showing<'_, '_>,
        slot: u32,
        step: u8,
        event: u16,
        joined: Option<TraceId>,
    ) -> Option<(TraceId, [EventId; 2])> {
        let story = self.keys.get(slot)?.body.story?;
        if joined.is_some() || !self.stories.takes(story, showing.hand.time_ns) {
            return None;
        }
        let before = self.stories.ends(story)?;
        self.stories.join(story, showing.hand, step, event, showing.now_ns);
        Some((story, before))
    }

    fn completed(
        &mut self,
        rules: &RuleSet,
        number: u16,
        slot: u32,
        run: &Run,
        at: Completion,
    ) -> TraceId {
        self.matched += 1;
        let rule = &rules.rules[usize::from(number)];
        let (Shape::Sequence(sequence), Some(first)) = (&rule.shape, run.filled.first()) else {
            return run.trace;
        };
        let Some(event) = first.record.event() else { return run.trace };
        // Steps may name the shared key differently: the first one's names stand for it.
        let by = &sequence.steps[usize::from(first.step)].by[..sequence.key_fields];
        if self.record_matches {
            self.matches.push(MatchLine {
                time_ns: at.time_ns,
                order: at.order,
                rule_number: number,
                first: run.first_order(),
                json: serde_json::json!({
                    "rule": rule.name.text(), "key": key_json(rule, by, event),
                    "events": ids_json(sequence, run),
                }),
            });
        }
        let told_before =
            self.keys.get(slot).is_some_and(|entry| entry.body.told.contains(&run.trace));
        let (trace, members, at_ns, now_ns) = (run.trace, &run.members, at.time_ns, at.now_ns);
        let found = Match { rule_number: number, rule, trace, at_ns, told_before, members };
        let id = self.stories.matched(found, &rules.rules, now_ns);
        if let Some(entry) = self.keys.get(slot) {
            entry.body.tell(id);
        }
        id
    }
}

/// The events of a match as `--emit matches` names them: by step, null for what didn't happen.
fn ids_json(sequence: &Sequence, run: &Run) -> Vec<serde_json::Value> {
    let mut ids = Vec::new();
    for gap in 0..=sequence.steps.len() {
        let nots = sequence.nots.iter().filter(|n| n.gap == gap);
        ids.extend(nots.map(|_| serde_json::Value::Null));
        let filled = run.filled.iter().filter(|f| usize::from(f.step) == gap);
        ids.extend(filled.filter_map(|f| f.record.event()).map(label_json));
    }
    ids
}
