//! `select: latest`: one partial match for each step and refinement. A newer one replaces it.

use crate::matcher::partial_match::PartialMatch;
use crate::matcher::partial_matches::{Outcome, PartialMatches, Waiting, leading_negation_holds};
use crate::rules::Sequence;
use crate::story::members::EventRef;
use tapio_core::event::TraceId;

impl PartialMatches {
    pub(crate) fn fill_latest(
        &mut self,
        sequence: &Sequence,
        step: usize,
        tail: &[u8],
        current: &mut EventRef<'_>,
        trace: impl FnOnce() -> TraceId,
        outcome: &mut Outcome,
    ) {
        let spec = &sequence.steps[step];
        let starts = sequence.steps[..step].iter().all(|s| s.optional);
        if let Some(at) = self.begun_by_first(sequence, step, tail, current.time_ns) {
            let partial = &mut self.list[at].partial;
            outcome.joined = Some((partial.trace, partial.members.ends));
            partial.members.add(current, step as u8, spec.event as u16);
            return;
        }
        let mut stays_at = None;
        let mut partial = match self.waiting_for(sequence, step, tail) {
            Some(at) => {
                let waits_for = usize::from(self.list[at].step);
                // With `keep` on the step before, the partial match also stays for further matches.
                if waits_for > 0 && sequence.steps[waits_for - 1].keep {
                    stays_at = Some(waits_for);
                    self.list[at].partial.clone()
                } else {
                    self.list.swap_remove(at).partial
                }
            }
            None if starts => {
                let negated_ns = self.leading_negated_ns;
                PartialMatch::new(trace(), current.time_ns, negated_ns)
            }
            None => return,
        };
        outcome.joined = Some((partial.trace, partial.members.ends));
        partial.members.add(current, step as u8, spec.event as u16);
        if let Some(repeat) = spec.repeat {
            let window_ns = repeat.within_ns.unwrap_or(u64::MAX);
            if !partial.count_repeat(tail, current.time_ns, window_ns, repeat.at_least) {
                // Where the partial match stays, its count stays with it.
                self.put(sequence, stays_at.unwrap_or(step), partial);
                return;
            }
            let fields = sequence.refining_fields(step);
            if let Some(at) = stays_at.and_then(|at| self.find(at, fields, tail)) {
                // The count of this key is used up, also in the one that stays; the members of this
                // step go with this match.
                let stays = &mut self.list[at].partial;
                stays.reset_repeat(tail);
                stays.members.remove_step(step as u8, spec.event as u16);
            }
        }
        partial.reset_repeats();
        partial.fill_step(sequence, step, tail, current);
        self.advance_latest(sequence, step + 1, partial, current.time_ns, outcome);
    }

    /// The partial match whose first event of this step an event at `time_ns` doesn't replace
    /// (`keep_first`): an incomplete one, or one that a negation after the last step leaves
    /// undecided, which would else be a story for each event.
    fn begun_by_first(
        &self,
        sequence: &Sequence,
        step: usize,
        tail: &[u8],
        time_ns: u64,
    ) -> Option<usize> {
        let keep_first_ns = sequence.steps[step].keep_first_ns;
        let fields = sequence.refining_fields(step);
        let is_recent = |w: &Waiting| {
            let filled = w.partial.filled.iter().find(|f| usize::from(f.step) == step);
            filled
                .and_then(|f| f.record.event())
                .is_some_and(|first| time_ns.saturating_sub(first.time()) <= keep_first_ns)
        };
        if keep_first_ns == 0 {
            return None;
        }
        self.list.iter().position(|w| {
            (step + 1..=sequence.steps.len()).contains(&usize::from(w.step))
                && w.partial.agrees(fields, tail)
                && is_recent(w)
        })
    }

    /// Lets a partial match wait for its next step, or completes it.
    fn advance_latest(
        &mut self,
        sequence: &Sequence,
        next: usize,
        partial: PartialMatch,
        time_ns: u64,
        outcome: &mut Outcome,
    ) {
        if next < sequence.steps.len() {
            self.put(sequence, next, partial);
        } else if sequence.has_trailing_not() {
            self.push(sequence, next, partial);
        } else if leading_negation_holds(sequence, &partial, time_ns) {
            outcome.completed.push(partial);
        }
    }

    /// The partial match that waits for a step and agrees with this refinement; the latest one of
    /// several.
    fn find(&self, step: usize, fields: usize, tail: &[u8]) -> Option<usize> {
        let waits = |w: &Waiting| usize::from(w.step) == step && w.partial.agrees(fields, tail);
        let found = self.list.iter().enumerate().filter(|(_, w)| waits(w));
        found.max_by_key(|(_, w)| w.partial.last_order()).map(|(at, _)| at)
    }

    /// The partial match that step `step` can continue: one that waits for it, or for an optional
    /// step with only optional steps in between.
    fn waiting_for(&self, sequence: &Sequence, step: usize, tail: &[u8]) -> Option<usize> {
        let fields = sequence.refining_fields(step);
        for waits_for in (0..=step).rev() {
            if let Some(at) = self.find(waits_for, fields, tail) {
                return Some(at);
            }
            if waits_for == 0 || !sequence.steps[waits_for - 1].optional {
                return None;
            }
        }
        None
    }

    /// Lets a partial match wait for a step and replaces the one with the same refinement.
    fn put(&mut self, sequence: &Sequence, step: usize, partial: PartialMatch) {
        let is_same = |w: &Waiting| {
            usize::from(w.step) == step && w.partial.refinement() == partial.refinement()
        };
        match self.list.iter().position(is_same) {
            Some(at) => self.list[at].partial = partial,
            None => self.push(sequence, step, partial),
        }
    }
}
