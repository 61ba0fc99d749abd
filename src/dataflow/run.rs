//! Pending matches of one rule and one key: the runs of a sequence, the window of a count.

use std::collections::VecDeque;
use std::sync::Arc;

use super::rules::{Count, Sequence};
use crate::event::{EventId, TraceId};
use crate::ring::OwnedRecord;

/// Members a run or group keeps whole; more are counted.
pub(super) const KEPT_MEMBERS: usize = 64;
/// Refined keys a repeated step counts side by side.
const MAX_REFINEMENTS: usize = 256;
/// Times a counting window remembers; a count that high has long fired.
const MAX_TIMES: usize = 65_536;

/// An event that is kept for the story it is in.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) record: Arc<OwnedRecord>,
    /// The step of the sequence; 0 in a count.
    pub(super) step: u8,
    /// The event of the rule it matched.
    pub(super) event: u16,
}

/// Members of a run or group.
#[derive(Clone, Default)]
pub(super) struct Members {
    pub(super) kept: Vec<Kept>,
    pub(super) total: u64,
    /// The first and the latest member's ids.
    pub(super) ends: [EventId; 2],
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
}

/// The event at hand, copied at most once however many runs want it.
pub(super) struct Hand<'a> {
    pub(super) record: &'a crate::ring::Record<'a>,
    pub(super) id: EventId,
    pub(super) time_ns: u64,
    copy: Option<Arc<OwnedRecord>>,
}

impl<'a> Hand<'a> {
    pub(super) fn new(record: &'a crate::ring::Record<'a>, id: EventId, time_ns: u64) -> Self {
        Self { record, id, time_ns, copy: None }
    }

    fn copy(&mut self) -> Arc<OwnedRecord> {
        Arc::clone(self.copy.get_or_insert_with(|| Arc::new(self.record.to_owned())))
    }
}

impl Members {
    pub(super) fn add(&mut self, hand: &mut Hand<'_>, step: u8, event: u16) {
        if self.kept.len() < KEPT_MEMBERS {
            self.kept.push(Kept { record: hand.copy(), step, event });
        }
        if self.total == 0 {
            self.first_ns = hand.time_ns;
            self.ends[0] = hand.id;
        }
        self.total += 1;
        self.ends[1] = hand.id;
        self.first_ns = self.first_ns.min(hand.time_ns);
        self.last_ns = self.last_ns.max(hand.time_ns);
    }
}

/// How often a repeated step was seen, for one value of its refined key.
#[derive(Clone)]
struct Progress {
    tail: Box<[u8]>,
    times: VecDeque<u64>,
}

/// A partial match.
#[derive(Clone)]
pub(super) struct Run {
    /// Its trace: fixed when its first event opened it.
    pub(super) trace: TraceId,
    pub(super) members: Members,
    /// The ids that filled each step, in order, for `--emit matches`.
    pub(super) filled: Vec<Arc<OwnedRecord>>,
    /// When the first step was filled: the window is measured from here.
    pub(super) first_ns: u64,
    progress: Vec<Progress>,
}

impl Run {
    pub(super) fn new(trace: TraceId, first_ns: u64) -> Self {
        Self {
            trace,
            members: Members::default(),
            filled: Vec::new(),
            first_ns,
            progress: Vec::new(),
        }
    }
}

/// What an event did to the runs of its key.
pub(super) enum Outcome {
    /// It opened or advanced the run with this trace.
    Joined { trace: TraceId, before: [EventId; 2] },
    /// It completed a match.
    Completed { run: Box<Run>, before: [EventId; 2] },
}

/// The runs of a sequence for one key: slot *i* holds the run that waits for step *i*.
pub(super) struct Runs {
    slots: Vec<Option<Box<Run>>>,
}

impl Runs {
    pub(super) fn new(sequence: &Sequence) -> Self {
        Self { slots: vec![None; sequence.steps.len()] }
    }

    /// Drops what can't complete any more.
    pub(super) fn expire(&mut self, sequence: &Sequence, now_ns: u64) {
        for slot in &mut self.slots {
            slot.take_if(|run| now_ns.saturating_sub(run.first_ns) > sequence.within_ns);
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.fill_with(|| None);
    }

    /// When the last run will have expired.
    pub(super) fn deadline_ns(&self, sequence: &Sequence) -> Option<u64> {
        self.slots.iter().flatten().map(|r| r.first_ns.saturating_add(sequence.within_ns)).max()
    }

    /// The slot whose run step `step` can take on: its own, or one from which only optional steps
    /// lie in between.
    fn waiting_for(&self, sequence: &Sequence, step: usize) -> Option<usize> {
        for at in (0..=step).rev() {
            if self.slots[at].is_some() {
                return Some(at);
            }
            if at == 0 || !sequence.steps[at - 1].optional {
                return None;
            }
        }
        None
    }

    /// Shows the event to one step. `tail` is what the step's key adds to the sequence's.
    pub(super) fn step(
        &mut self,
        sequence: &Sequence,
        step: usize,
        tail: &[u8],
        hand: &mut Hand<'_>,
        open: impl FnOnce() -> TraceId,
    ) -> Option<Outcome> {
        let spec = &sequence.steps[step];
        let waiting = self.waiting_for(sequence, step);
        let starts = sequence.steps[..step].iter().all(|s| s.optional);
        let mut run = match waiting {
            Some(at) => {
                // With `keep` on the step before, the run also stays for further matches.
                let stays = at > 0 && sequence.steps[at - 1].keep;
                if stays { self.slots[at].clone()? } else { self.slots[at].take()? }
            }
            None if starts => Box::new(Run::new(open(), hand.time_ns)),
            None => return None,
        };
        let before = run.members.ends;
        run.members.add(hand, step as u8, spec.event as u16);
        let trace = run.trace;
        if let Some(repeat) = spec.repeat {
            let window_ns = repeat.within_ns.unwrap_or(u64::MAX);
            if !run.seen_again(tail, hand.time_ns, window_ns, repeat.at_least) {
                // Where the run stays, its count must stay with it.
                let at =
                    waiting.filter(|at| *at > 0 && sequence.steps[at - 1].keep).unwrap_or(step);
                self.slots[at] = Some(run);
                return Some(Outcome::Joined { trace, before });
            }
            if let Some(at) = waiting.filter(|at| *at > 0 && sequence.steps[at - 1].keep) {
                // What was counted for this key is used up, also in the run that stays.
                if let Some(stayed) = &mut self.slots[at] {
                    stayed.progress.retain(|p| *p.tail != *tail);
                }
            }
        }
        run.progress.clear();
        run.filled.push(hand.copy());
        if step + 1 == self.slots.len() {
            return Some(Outcome::Completed { run, before });
        }
        self.slots[step + 1] = Some(run);
        Some(Outcome::Joined { trace, before })
    }
}

impl Run {
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

/// The trailing window of a count for one key.
#[derive(Default)]
pub(super) struct Window {
    times: VecDeque<u64>,
    pub(super) trace: TraceId,
    pub(super) members: Members,
}

impl Window {
    /// Adds an event. Returns the count, it included, and the ends of the members before it. `open` gives the trace when the window
    /// was empty; while `told`, members stay even when their time has left the window.
    pub(super) fn add(
        &mut self,
        count: &Count,
        hand: &mut Hand<'_>,
        event: u16,
        told: bool,
        open: impl FnOnce() -> TraceId,
    ) -> (u64, [EventId; 2]) {
        let oldest_ns = hand.time_ns.saturating_sub(count.within_ns);
        while self.times.front().is_some_and(|t| *t < oldest_ns) {
            self.times.pop_front();
        }
        if self.times.is_empty() && !told {
            self.members = Members::default();
            self.trace = open();
        } else if !told {
            self.members.kept.retain(|k| k.record.record().header().time_ns >= oldest_ns);
            self.members.total = self.times.len() as u64;
            self.members.first_ns = self.times.front().copied().unwrap_or(hand.time_ns);
        }
        if self.times.len() >= MAX_TIMES {
            self.times.pop_front();
        }
        self.times.push_back(hand.time_ns);
        let before = self.members.ends;
        self.members.add(hand, 0, event);
        (self.times.len() as u64, before)
    }

    /// When the window will be empty.
    pub(super) fn deadline_ns(&self, count: &Count) -> Option<u64> {
        self.times.back().map(|t| t.saturating_add(count.within_ns))
    }
}
