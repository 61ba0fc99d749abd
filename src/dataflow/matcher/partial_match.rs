//! One partial match of a sequence.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::rules::Sequence;
use crate::story::members::{EventRef, Members, push_first};
use tapio_core::event::TraceId;
use tapio_core::ring::OwnedRecord;

/// Values of a refined key that a repeated step counts at once.
const MAX_REFINEMENTS: usize = 256;
/// Times that a repeated step keeps; no rule's count is that high.
const MAX_TIMES: usize = 65_536;

/// The key values that a match's steps share beyond the sequence's key, where several steps refine
/// it: the number of fields, and their values.
pub(crate) type Refinement = (usize, Box<[u8]>);

/// The times at which a repeated step was seen, for one value of its refined key.
#[derive(Clone)]
struct Progress {
    tail: Box<[u8]>,
    times: VecDeque<u64>,
}

/// The state that few rules need, apart, since a shard has tens of thousands of partial matches.
#[derive(Clone, Default)]
struct Extra {
    /// Counts of a repeated step.
    progress: Vec<Progress>,
    /// The values that a refined step bound, while a later step refines the key, too.
    refinement: Option<Refinement>,
}

/// An event that filled a step.
#[derive(Clone)]
pub(crate) struct FilledStep {
    pub(crate) record: Arc<OwnedRecord>,
    pub(crate) step: u8,
    /// The event's position in the order of evaluation.
    pub(crate) order: u64,
}

/// A sequence that has started and isn't complete.
#[derive(Clone)]
pub(crate) struct PartialMatch {
    /// Set by its first event.
    pub(crate) trace: TraceId,
    pub(crate) members: Members,
    /// The events that filled its steps, in order.
    pub(crate) filled: Vec<FilledStep>,
    /// When the first step was filled: the start of the window.
    pub(crate) first_ns: u64,
    /// The latest negated event before the first step.
    pub(crate) negated_before_ns: Option<u64>,
    /// Whether the trailing negation can't undo it any more: the negated event came after a whole
    /// window.
    pub(crate) sealed: bool,
    extra: Option<Box<Extra>>,
}

impl PartialMatch {
    pub(crate) fn new(trace: TraceId, first_ns: u64, negated_before_ns: Option<u64>) -> Self {
        Self {
            trace,
            members: Members::shared(),
            filled: Vec::new(),
            first_ns,
            negated_before_ns,
            sealed: false,
            extra: None,
        }
    }

    /// The values that a refined step bound.
    pub(crate) fn refinement(&self) -> Option<&Refinement> {
        self.extra.as_ref()?.refinement.as_ref()
    }

    /// Whether a step with these further key values can continue it: steps that refine the key by
    /// the same fields have the same values.
    pub(crate) fn agrees(&self, fields: usize, tail: &[u8]) -> bool {
        self.refinement().is_none_or(|(n, bound)| *n != fields || **bound == *tail)
    }

    /// The positions of its events, by which matches are compared.
    pub(crate) fn orders(&self) -> impl Iterator<Item = u64> {
        self.filled.iter().map(|f| f.order)
    }

    pub(crate) fn first_order(&self) -> u64 {
        self.orders().next().unwrap_or(0)
    }

    pub(crate) fn last_order(&self) -> u64 {
        self.orders().last().unwrap_or(0)
    }

    /// When its window ends.
    pub(crate) fn deadline_ns(&self, sequence: &Sequence) -> u64 {
        self.first_ns.saturating_add(sequence.within_ns)
    }

    /// Counts an event of a repeated step. True when it was seen often enough.
    pub(crate) fn count_repeat(
        &mut self,
        tail: &[u8],
        time_ns: u64,
        window_ns: u64,
        at_least: u64,
    ) -> bool {
        let progress = &mut self.extra.get_or_insert_default().progress;
        let at = match progress.iter().position(|p| *p.tail == *tail) {
            Some(at) => at,
            None => {
                if progress.len() >= MAX_REFINEMENTS {
                    progress.remove(0);
                }
                let times = VecDeque::new();
                push_first(progress, Progress { tail: tail.into(), times });
                progress.len() - 1
            }
        };
        let times = &mut progress[at].times;
        while times.front().is_some_and(|t| time_ns.saturating_sub(*t) > window_ns) {
            times.pop_front();
        }
        if times.len() >= MAX_TIMES {
            times.pop_front();
        }
        times.push_back(time_ns);
        times.len() as u64 >= at_least
    }

    /// Removes the counts of one refined key.
    pub(crate) fn reset_repeat(&mut self, tail: &[u8]) {
        if let Some(extra) = &mut self.extra {
            extra.progress.retain(|p| *p.tail != *tail);
        }
    }

    /// Removes all counts.
    pub(crate) fn reset_repeats(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.progress.clear();
        }
    }

    /// Fills a step with the event and binds the values of a refined key.
    pub(crate) fn fill_step(
        &mut self,
        sequence: &Sequence,
        step: usize,
        tail: &[u8],
        current: &mut EventRef<'_>,
    ) {
        let filled = FilledStep { record: current.copy(), step: step as u8, order: current.order };
        push_first(&mut self.filled, filled);
        let refines = |s: usize| sequence.refining_fields(s) > 0;
        if !(step + 1..sequence.steps.len()).any(refines) {
            if let Some(extra) = &mut self.extra {
                extra.refinement = None;
            }
        } else if refines(step) {
            let refinement = (sequence.refining_fields(step), tail.into());
            self.extra.get_or_insert_default().refinement = Some(refinement);
        }
    }
}
