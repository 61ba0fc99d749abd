//! `select: every` and `select: first`: partial matches for all combinations of events. `first`
//! completes the first one only, and drops those that share its events or started within it.

use crate::matcher::partial_match::PartialMatch;
use crate::matcher::partial_matches::{Outcome, PartialMatches, Waiting, leading_negation_holds};
use crate::rules::{Select, Sequence};
use crate::story::members::EventRef;
use tapio_core::event::TraceId;

impl PartialMatches {
    pub(crate) fn fill_combinations(
        &mut self,
        sequence: &Sequence,
        step: usize,
        tail: &[u8],
        current: &mut EventRef<'_>,
        trace: impl FnOnce() -> TraceId,
        outcome: &mut Outcome,
    ) {
        let fields = sequence.refining_fields(step);
        let waits = |w: &Waiting| usize::from(w.step) == step && w.partial.agrees(fields, tail);
        // All pending matches of the key are one story.
        let pending = self.list.first().map(|w| (w.partial.trace, w.partial.members.ends));
        let taken: Vec<PartialMatch> = if step == 0 {
            let trace = pending.map_or_else(trace, |(trace, _)| trace);
            vec![PartialMatch::new(trace, current.time_ns, self.leading_negated_ns)]
        } else if sequence.select == Select::Every || !sequence.nots.is_empty() {
            // The partial match also stays: another event can fill the same step, in another match,
            // or instead of an event that a negated one follows.
            let waiting = self.list.iter().filter(|w| waits(w));
            waiting.map(|w| w.partial.clone()).collect()
        } else {
            self.list.extract_if(.., |w| waits(w)).map(|w| w.partial).collect()
        };
        for mut partial in taken {
            outcome.joined.get_or_insert(pending.unwrap_or((partial.trace, partial.members.ends)));
            partial.members.add(current, step as u8, sequence.steps[step].event as u16);
            partial.fill_step(sequence, step, tail, current);
            let next = step + 1;
            if next < sequence.steps.len() || sequence.has_trailing_not() {
                self.push(sequence, next, partial);
            } else if leading_negation_holds(sequence, &partial, current.time_ns) {
                outcome.completed.push(partial);
            }
        }
        outcome.completed.sort_by(|a, b| a.orders().cmp(b.orders()));
        if sequence.select == Select::First && !outcome.completed.is_empty() {
            self.keep_first(&mut outcome.completed);
        }
    }
}
