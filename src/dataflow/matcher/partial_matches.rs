//! The partial matches of one rule and key. How an event fills a step depends on the rule's
//! `select`: [`PartialMatches::fill`] dispatches to `select_latest.rs` and
//! `select_combinations.rs`; negation, expiry and completion are the same for all.

use crate::matcher::partial_match::PartialMatch;
use crate::rules::{Negation, Select, Sequence};
use crate::story::members::{EventRef, push_first};
use tapio_core::event::{EventId, TraceId};

/// A partial match and the step it waits for; the number of steps where only a trailing negation is
/// undecided.
pub(crate) struct Waiting {
    pub(crate) step: u8,
    pub(crate) partial: PartialMatch,
}

/// The effect of an event on the partial matches of its key.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The trace of the partial match that the event joined, and the first and latest member of it
    /// before the event.
    pub(crate) joined: Option<(TraceId, [EventId; 2])>,
    /// The matches that the event completed.
    pub(crate) completed: Vec<PartialMatch>,
}

/// The partial matches of one rule and key.
#[derive(Default)]
pub(crate) struct PartialMatches {
    pub(crate) list: Vec<Waiting>,
    /// The latest event that is negated before the first step.
    pub(crate) leading_negated_ns: Option<u64>,
    /// Partial matches dropped for lack of room.
    pub(crate) dropped: u64,
}

impl PartialMatches {
    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// Fills a step with an event. `tail`: the values by which the step refines the sequence's key;
    /// `trace` gives the trace of a new partial match.
    pub(crate) fn fill(
        &mut self,
        sequence: &Sequence,
        step: usize,
        tail: &[u8],
        current: &mut EventRef<'_>,
        trace: impl FnOnce() -> TraceId,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        match sequence.select {
            Select::Latest => {
                self.fill_latest(sequence, step, tail, current, trace, &mut outcome);
            }
            Select::First | Select::Every => {
                self.fill_combinations(sequence, step, tail, current, trace, &mut outcome);
            }
        }
        outcome
    }

    /// Removes the partial matches that can't complete any more.
    fn expire(&mut self, sequence: &Sequence, now_ns: u64) {
        let steps = sequence.steps.len();
        let within_ns = sequence.within_ns;
        self.list.retain(|w| {
            usize::from(w.step) == steps || now_ns.saturating_sub(w.partial.first_ns) <= within_ns
        });
        self.leading_negated_ns
            .take_if(|t| now_ns.saturating_sub(*t) > within_ns.saturating_mul(2));
    }

    /// The earliest time at which something is decided or can be removed.
    pub(crate) fn deadline_ns(&self, sequence: &Sequence) -> Option<u64> {
        let matches = self.list.iter().map(|w| w.partial.deadline_ns(sequence));
        // A window that reaches back can start up to a window's length after the negated event.
        let negated = self.leading_negated_ns.map(|t| t.saturating_add(2 * sequence.within_ns));
        matches.chain(negated).min()
    }

    /// Removes what has expired, and takes the matches that only waited for the end of a trailing
    /// negation.
    pub(crate) fn take_due(&mut self, sequence: &Sequence, now_ns: u64) -> Vec<PartialMatch> {
        self.expire(sequence, now_ns);
        let steps = sequence.steps.len();
        let is_due = |w: &mut Waiting| {
            usize::from(w.step) == steps && now_ns > w.partial.deadline_ns(sequence)
        };
        let mut due: Vec<_> = self.list.extract_if(.., is_due).map(|w| w.partial).collect();
        due.retain(|m| m.sealed || m.negated_before_ns.is_none_or(|b| b < m.first_ns));
        due.sort_by(|a, b| a.first_ns.cmp(&b.first_ns).then_with(|| a.orders().cmp(b.orders())));
        if sequence.select == Select::First {
            self.keep_first(&mut due);
        }
        due
    }

    /// Of matches that complete together, keeps the first; drops those that share its events or
    /// started within it.
    pub(crate) fn keep_first(&mut self, completed: &mut Vec<PartialMatch>) {
        let mut end = None;
        completed.retain(|m| {
            let is_free = end.is_none_or(|end| m.first_order() > end);
            if is_free {
                end = Some(m.last_order());
            }
            is_free
        });
        if let Some(end) = end {
            self.list.retain(|w| w.partial.first_order() > end);
        }
    }

    /// Processes a negated event.
    pub(crate) fn negate(&mut self, sequence: &Sequence, not: &Negation, time_ns: u64) {
        if not.gap == 0 {
            self.leading_negated_ns = Some(time_ns);
        } else if not.gap < sequence.steps.len() {
            self.list.retain(|w| usize::from(w.step) != not.gap);
        } else {
            let reaches_back = sequence.has_leading_not();
            self.list.retain_mut(|w| {
                let partial = &mut w.partial;
                if usize::from(w.step) != not.gap || partial.sealed {
                    return true;
                }
                // Where the window may lie on either side, one that fits between the two negated
                // events is enough.
                partial.sealed = reaches_back
                    && time_ns > partial.members.last_ns
                    && partial.negated_before_ns.is_none_or(|b| {
                        b < partial.first_ns && time_ns.saturating_sub(b) > sequence.within_ns
                    });
                partial.sealed
            });
        }
    }

    /// Drops the oldest partial match if there are too many; one without a refinement last, since
    /// further refinements start from it.
    pub(crate) fn make_room(&mut self, max_partial_matches: usize) {
        if self.list.len() < max_partial_matches {
            return;
        }
        let age = |w: &Waiting| (w.partial.refinement().is_none(), w.partial.first_ns);
        let oldest = self.list.iter().enumerate().min_by_key(|(_, w)| age(w));
        if let Some((at, _)) = oldest {
            self.list.remove(at);
            self.dropped += 1;
        }
    }

    /// Lets a partial match wait for a step.
    pub(crate) fn push(&mut self, sequence: &Sequence, step: usize, partial: PartialMatch) {
        self.make_room(sequence.max_runs);
        push_first(&mut self.list, Waiting { step: step as u8, partial });
    }
}

/// Whether a match whose last step was filled at `time_ns` is complete: no event that is negated
/// before the first step lies within the window.
pub(crate) fn leading_negation_holds(
    sequence: &Sequence,
    partial: &PartialMatch,
    time_ns: u64,
) -> bool {
    let is_within = |b: u64| time_ns.saturating_sub(b) <= sequence.within_ns;
    !(sequence.has_leading_not() && partial.negated_before_ns.is_some_and(is_within))
}
