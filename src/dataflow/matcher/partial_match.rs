//! The runs of a sequence that are pending for one rule and one key.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::rules::{Negation, Select, Sequence};
use crate::story::members::{Hand, Members};
use tapio_core::event::{EventId, TraceId};
use tapio_core::ring::OwnedRecord;

/// Refined keys a repeated step counts side by side.
const MAX_REFINEMENTS: usize = 256;
/// Times a repeated step remembers; a count that high has long been reached.
const MAX_TIMES: usize = 65_536;

/// What a run's steps share beyond the sequence's key, where several of them refine it: how many fields,
/// and their values.
type Refined = (usize, Box<[u8]>);

/// How often a repeated step was seen, for one value of its refined key.
#[derive(Clone)]
struct Progress {
    tail: Box<[u8]>,
    times: VecDeque<u64>,
}

/// An event that filled a step.
#[derive(Clone)]
pub(crate) struct Filled {
    pub(crate) record: Arc<OwnedRecord>,
    pub(crate) step: u8,
    /// Its place in the order in which events are shown.
    pub(crate) order: u64,
}

/// A partial match.
#[derive(Clone)]
pub(crate) struct Run {
    /// Its trace: fixed when its first event opened it.
    pub(crate) trace: TraceId,
    pub(crate) members: Members,
    /// What filled its steps, in order.
    pub(crate) filled: Vec<Filled>,
    /// When the first step was filled: the window is measured from here.
    pub(crate) first_ns: u64,
    /// The latest event before the first step that must not be there.
    before_ns: Option<u64>,
    /// What must not follow came too late to matter.
    sealed: bool,
    progress: Vec<Progress>,
    /// What a refined step bound; only while a later step refines the key, too.
    refined: Option<Refined>,
}

impl Run {
    fn new(trace: TraceId, first_ns: u64, before_ns: Option<u64>) -> Self {
        Self {
            trace,
            members: Members::shared(),
            filled: Vec::new(),
            first_ns,
            before_ns,
            sealed: false,
            progress: Vec::new(),
            refined: None,
        }
    }

    /// Whether a step with these further key values can take it on: steps that refine the key alike agree.
    fn agrees(&self, fields: usize, tail: &[u8]) -> bool {
        self.refined.as_ref().is_none_or(|(n, bound)| *n != fields || **bound == *tail)
    }

    /// The places of its events: what runs are compared by.
    fn orders(&self) -> impl Iterator<Item = u64> {
        self.filled.iter().map(|f| f.order)
    }

    pub(crate) fn first_order(&self) -> u64 {
        self.orders().next().unwrap_or(0)
    }

    fn last_order(&self) -> u64 {
        self.orders().last().unwrap_or(0)
    }

    /// Counts one more of a repeated step; true when it has been seen often enough.
    fn seen_again(&mut self, tail: &[u8], time_ns: u64, window_ns: u64, at_least: u64) -> bool {
        let at = match self.progress.iter().position(|p| *p.tail == *tail) {
            Some(at) => at,
            None => {
                if self.progress.len() >= MAX_REFINEMENTS {
                    self.progress.remove(0);
                }
                self.progress.push(Progress { tail: tail.into(), times: VecDeque::new() });
                self.progress.len() - 1
            }
        };
        let times = &mut self.progress[at].times;
        while times.front().is_some_and(|t| time_ns.saturating_sub(*t) > window_ns) {
            times.pop_front();
        }
        if times.len() >= MAX_TIMES {
            times.pop_front();
        }
        times.push_back(time_ns);
        times.len() as u64 >= at_least
    }
}

/// A run and the step it waits for; the number of steps where only a trailing `not` is undecided.
struct Waiting {
    step: u8,
    run: Box<Run>,
}

/// What an event did to the runs of its key.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The trace of the run it is in, and the ends of that run's members before it.
    pub(crate) joined: Option<(TraceId, [EventId; 2])>,
    /// The matches it completed.
    pub(crate) completed: Vec<Run>,
}

/// The runs of a sequence for one key.
#[derive(Default)]
pub(crate) struct Runs {
    list: Vec<Waiting>,
    /// The latest event that must not come before the first step.
    not_before_ns: Option<u64>,
    /// Runs given up for room.
    pub(crate) dropped: u64,
}

impl Runs {
    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// Drops what can't complete any more.
    fn expire(&mut self, sequence: &Sequence, now_ns: u64) {
        let steps = sequence.steps.len();
        self.list.retain(|w| {
            usize::from(w.step) == steps
                || now_ns.saturating_sub(w.run.first_ns) <= sequence.within_ns
        });
        let within_ns = sequence.within_ns;
        self.not_before_ns.take_if(|t| now_ns.saturating_sub(*t) > within_ns.saturating_mul(2));
    }

    /// The earliest time at which something has to be decided or can be forgotten.
    pub(crate) fn deadline_ns(&self, sequence: &Sequence) -> Option<u64> {
        let runs = self.list.iter().map(|w| w.run.first_ns.saturating_add(sequence.within_ns));
        // A window that reaches back can begin a window's length after what must not be in it.
        let not = self.not_before_ns.map(|t| t.saturating_add(2 * sequence.within_ns));
        runs.chain(not).min()
    }

    /// Drops what is out of time and takes out the matches that nothing can undo any more: what
    /// must not follow didn't come.
    pub(crate) fn settle(&mut self, sequence: &Sequence, now_ns: u64) -> Vec<Run> {
        self.expire(sequence, now_ns);
        let steps = sequence.steps.len();
        let due = |w: &mut Waiting| {
            usize::from(w.step) == steps
                && now_ns > w.run.first_ns.saturating_add(sequence.within_ns)
        };
        let mut done: Vec<_> = self.list.extract_if(.., due).map(|w| *w.run).collect();
        done.retain(|run| run.sealed || run.before_ns.is_none_or(|b| b < run.first_ns));
        done.sort_by(|a, b| a.first_ns.cmp(&b.first_ns).then_with(|| a.orders().cmp(b.orders())));
        if sequence.select == Select::First {
            self.keep_first(&mut done);
        }
        done
    }

    /// Of matches that complete together the first one is told, and what shares its events or
    /// began within it is gone.
    fn keep_first(&mut self, done: &mut Vec<Run>) {
        let mut end = None;
        done.retain(|run| {
            let free = end.is_none_or(|end| run.first_order() > end);
            if free {
                end = Some(run.last_order());
            }
            free
        });
        if let Some(end) = end {
            self.list.retain(|w| w.run.first_order() > end);
        }
    }

    /// Shows an event that must not be there.
    pub(crate) fn refuse(&mut self, sequence: &Sequence, not: &Negation, time_ns: u64) {
        if not.gap == 0 {
            self.not_before_ns = Some(time_ns);
        } else if not.gap < sequence.steps.len() {
            self.list.retain(|w| usize::from(w.step) != not.gap);
        } else {
            let reaches_back = sequence.has_leading_not();
            self.list.retain_mut(|w| {
                let run = &mut w.run;
                if usize::from(w.step) != not.gap || run.sealed {
                    return true;
                }
                // Where the window may lie on either side it is enough that one fits in between.
                run.sealed = reaches_back
                    && time_ns > run.members.last_ns
                    && run.before_ns.is_none_or(|b| {
                        b < run.first_ns && time_ns.saturating_sub(b) > sequence.within_ns
                    });
                run.sealed
            });
        }
    }

    /// Shows an event to a step. `tail` is what the step's key adds to the sequence's.
    pub(crate) fn fill(
        &mut self,
        sequence: &Sequence,
        step: usize,
        tail: &[u8],
        hand: &mut Hand<'_>,
        open: impl FnOnce() -> TraceId,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        match sequence.select {
            Select::Latest => self.fill_latest(sequence, step, tail, hand, open, &mut outcome),
            Select::First | Select::Every => {
                self.fill_many(sequence, step, tail, hand, open, &mut outcome);
            }
        }
        outcome
    }

    /// The run that waits for a step and agrees with this refinement: the latest, where several do.
    fn find(&self, step: usize, fields: usize, tail: &[u8]) -> Option<usize> {
        let waits = |w: &Waiting| usize::from(w.step) == step && w.run.agrees(fields, tail);
        let found = self.list.iter().enumerate().filter(|(_, w)| waits(w));
        found.max_by_key(|(_, w)| w.run.last_order()).map(|(place, _)| place)
    }

    /// The run that step `step` can take on: the one that waits for it, or one from which only
    /// optional steps lie in between.
    fn waiting_for(&self, sequence: &Sequence, step: usize, tail: &[u8]) -> Option<usize> {
        let fields = sequence.refining_fields(step);
        for at in (0..=step).rev() {
            if let Some(place) = self.find(at, fields, tail) {
                return Some(place);
            }
            if at == 0 || !sequence.steps[at - 1].optional {
                return None;
            }
        }
        None
    }

    /// Lets a run wait for a step, in the place of the one of the same refinement that does.
    fn put(&mut self, step: usize, run: Box<Run>, max_runs: usize) {
        let same = |w: &Waiting| usize::from(w.step) == step && w.run.refined == run.refined;
        match self.list.iter().position(same) {
            Some(place) => self.list[place].run = run,
            None => {
                self.make_room(max_runs);
                self.list.push(Waiting { step: step as u8, run });
            }
        }
    }

    /// Gives the oldest run up where there are too many; one that is kept for further refinements last.
    fn make_room(&mut self, max_runs: usize) {
        if self.list.len() < max_runs {
            return;
        }
        let age = |w: &Waiting| (w.run.refined.is_none(), w.run.first_ns);
        let oldest = self.list.iter().enumerate().min_by_key(|(_, w)| age(w));
        if let Some((place, _)) = oldest {
            self.list.remove(place);
            self.dropped += 1;
        }
    }

    fn fill_latest(
        &mut self,
        sequence: &Sequence,
        step: usize,
        tail: &[u8],
        hand: &mut Hand<'_>,
        open: impl FnOnce() -> TraceId,
        outcome: &mut Outcome,
    ) {
        let spec = &sequence.steps[step];
        let starts = sequence.steps[..step].iter().all(|s| s.optional);
        let mut stays = None;
        let mut run = match self.waiting_for(sequence, step, tail) {
            Some(place) => {
                let at = usize::from(self.list[place].step);
                // With `keep` on the step before, the run also stays for further matches.
                if at > 0 && sequence.steps[at - 1].keep {
                    stays = Some(at);
                    self.list[place].run.clone()
                } else {
                    self.list.swap_remove(place).run
                }
            }
            None if starts => Box::new(Run::new(open(), hand.time_ns, self.not_before_ns)),
            None => return,
        };
        outcome.joined = Some((run.trace, run.members.ends));
        run.members.add(hand, step as u8, spec.event as u16);
        if let Some(repeat) = spec.repeat {
            let window_ns = repeat.within_ns.unwrap_or(u64::MAX);
            if !run.seen_again(tail, hand.time_ns, window_ns, repeat.at_least) {
                // Where the run stays, its count must stay with it.
                self.put(stays.unwrap_or(step), run, sequence.max_runs);
                return;
            }
            let fields = sequence.refining_fields(step);
            if let Some(place) = stays.and_then(|at| self.find(at, fields, tail)) {
                // What was counted for this key is used up, also in the run that stays; what it has gathered
                // of this step is told with this match.
                let stays = &mut self.list[place].run;
                stays.progress.retain(|p| *p.tail != *tail);
                stays.members.drop_step(step as u8, spec.event as u16);
            }
        }
        run.progress.clear();
        self.advance(sequence, step, tail, run, hand, outcome);
    }

    fn fill_many(
        &mut self,
        sequence: &Sequence,
        step: usize,
        tail: &[u8],
        hand: &mut Hand<'_>,
        open: impl FnOnce() -> TraceId,
        outcome: &mut Outcome,
    ) {
        let fields = sequence.refining_fields(step);
        let waits = |w: &Waiting| usize::from(w.step) == step && w.run.agrees(fields, tail);
        // While something of this key is pending it is one story.
        let pending = self.list.first().map(|w| (w.run.trace, w.run.members.ends));
        let taken: Vec<Run> = if step == 0 {
            let trace = pending.map_or_else(open, |(trace, _)| trace);
            vec![Run::new(trace, hand.time_ns, self.not_before_ns)]
        } else if sequence.select == Select::Every || !sequence.nots.is_empty() {
            // The run also stays: another event may fill the same step, in another match, or in
            // the place of one that a `not` follows.
            self.list.iter().filter(|w| waits(w)).map(|w| Run::clone(&w.run)).collect()
        } else {
            self.list.extract_if(.., |w| waits(w)).map(|w| *w.run).collect()
        };
        for mut run in taken {
            outcome.joined.get_or_insert(pending.unwrap_or((run.trace, run.members.ends)));
            run.members.add(hand, step as u8, sequence.steps[step].event as u16);
            self.advance(sequence, step, tail, Box::new(run), hand, outcome);
        }
        outcome.completed.sort_by(|a, b| a.orders().cmp(b.orders()));
        if sequence.select == Select::First && !outcome.completed.is_empty() {
            self.keep_first(&mut outcome.completed);
        }
    }

    /// A step is filled: the run waits for the next one, or is a match.
    fn advance(
        &mut self,
        sequence: &Sequence,
        step: usize,
        tail: &[u8],
        mut run: Box<Run>,
        hand: &mut Hand<'_>,
        outcome: &mut Outcome,
    ) {
        run.filled.push(Filled { record: hand.copy(), step: step as u8, order: hand.order });
        let next = step + 1;
        let refines = |s: usize| sequence.refining_fields(s) > 0;
        if !(next..sequence.steps.len()).any(refines) {
            run.refined = None;
        } else if refines(step) {
            run.refined = Some((sequence.refining_fields(step), tail.into()));
        }
        let complete = next == sequence.steps.len();
        if complete && !sequence.has_trailing_not() {
            let reached = |b: u64| hand.time_ns.saturating_sub(b) <= sequence.within_ns;
            if !(sequence.has_leading_not() && run.before_ns.is_some_and(reached)) {
                outcome.completed.push(*run);
            }
            return;
        }
        if sequence.select == Select::Latest && !complete {
            return self.put(next, run, sequence.max_runs);
        }
        self.make_room(sequence.max_runs);
        self.list.push(Waiting { step: next as u8, run });
    }
}
