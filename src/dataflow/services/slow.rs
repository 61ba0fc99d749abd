//! Runs that are slow: longer than nearly all before. Where packets are lost or time is short, a
//! part of the runs is, long before a median moves.

use rkyv::{Archive, Deserialize, Serialize};

use super::share::{Runs, Share, ShareDeviation};
use super::step::{Learning, SLOTS, SPANS, slot};

/// Runs of the past for a comparison.
const MIN_PAST_RUNS: f64 = 64.0;
/// The least deviation, in standard deviations: nearly every duration has slow runs.
const MIN_Z: f64 = 4.0;
/// The least change of the share of slow runs.
const MIN_CHANGE: f64 = 0.25;
/// The change of the latest step's share that counts without another step: a stall takes a moment.
const MIN_CLEAR_CHANGE: f64 = 0.5;
/// Steps of the short span that have more slow runs than usual, otherwise.
const MIN_STEPS: usize = 2;

/// The slow runs of a duration.
#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub(super) struct SlowRuns {
    /// The logarithm of the time above which a run is slow; infinite before there is a past.
    bound_log2: f32,
    /// The first step that the bound holds for.
    bound_since: u32,
    share: Share,
    /// The sum of their time in each step.
    time_ns: [f32; SLOTS],
    /// Slow runs, and all, in the spans of time that are being learned, each of [`SPANS`].
    spans: [(f64, f64); SPANS.len()],
}

/// More slow runs than usual.
#[derive(Clone, Copy, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub(super) struct Slowness {
    pub(super) share: ShareDeviation,
    /// The time above which a run is slow.
    pub(super) bound_ns: f64,
    /// The mean time of slow runs.
    pub(super) mean_ns: f64,
}

impl Default for SlowRuns {
    fn default() -> Self {
        Self {
            bound_log2: f32::INFINITY,
            bound_since: 0,
            share: Share::default(),
            time_ns: [0.0; SLOTS],
            spans: [(0.0, 0.0); SPANS.len()],
        }
    }
}

impl SlowRuns {
    /// Counts a run if it is slow. Returns whether it is.
    pub(super) fn add(&mut self, step: u32, run_log2: f64, duration_ns: u64) -> bool {
        let is_slow = run_log2 > f64::from(self.bound_log2);
        if is_slow {
            self.share.recent.add(step, 1);
            self.time_ns[slot(step)] += duration_ns as f32;
        }
        is_slow
    }

    /// Learns the step whose slot the step `next` takes, which had so many runs, and empties it.
    /// Returns whether its runs belong to the past.
    pub(super) fn learn(&mut self, next: u32, runs: f64, past: &Runs, learning: Learning) -> bool {
        let slow = f64::from(self.share.recent.take(next));
        self.time_ns[slot(next)] = 0.0;
        if next.saturating_sub(SLOTS as u32) < self.bound_since || self.bound_log2.is_infinite() {
            return false;
        }
        for (number, steps) in SPANS.into_iter().enumerate() {
            self.spans[number].0 += slow;
            self.spans[number].1 += runs;
            if next.is_multiple_of(steps as u32) {
                let counts = std::mem::take(&mut self.spans[number]);
                self.share.span(number, counts, past.past, learning);
            }
        }
        if learning == Learning::None {
            return false;
        }
        self.share.learn(slow);
        true
    }

    /// Moves the bound, a logarithm, as of the step `next`.
    pub(super) fn bound(&mut self, next: u32, bound_log2: f64) {
        if self.bound_log2.is_infinite() {
            self.bound_since = next;
        }
        self.bound_log2 = bound_log2 as f32;
    }

    /// Halves the weight of the past.
    pub(super) fn halve(&mut self) {
        self.share.halve();
    }

    /// More slow runs than usual in so many steps up to `last`, with the dispersion of a span of
    /// time by its number.
    pub(super) fn deviation(
        &self,
        runs: &Runs,
        last: u32,
        (number, steps): (usize, usize),
    ) -> Option<Slowness> {
        if runs.past < MIN_PAST_RUNS {
            return None;
        }
        let share = self.share.deviation(runs, last, (number, steps), u32::MAX)?;
        if share.z < MIN_Z || share.now - share.usual < MIN_CHANGE {
            return None;
        }
        let slots = (0..steps as u32).map(|back| slot(last.wrapping_sub(back)));
        let time_ns: f64 = slots.map(|slot| f64::from(self.time_ns[slot])).sum();
        let mean_ns = time_ns / (share.now * share.runs);
        Some(Slowness { share, bound_ns: f64::from(self.bound_log2).exp2(), mean_ns })
    }

    /// Whether slowness is over, or a moment: one step has it, and not clearly.
    pub(super) fn is_over(&self, runs: &Runs, last: u32, slowness: &Slowness) -> bool {
        let ShareDeviation { usual, now, .. } = slowness.share;
        let change = |back: u32| {
            let step = last.wrapping_sub(back);
            let runs = runs.recent.at(step);
            if runs > 0.0 { self.share.recent.at(step) / runs - usual } else { 0.0 }
        };
        let steps = (0..SPANS[0] as u32).filter(|back| change(*back) > (now - usual) / 2.0).count();
        (change(0) < MIN_CLEAR_CHANGE && steps < MIN_STEPS)
            || self.share.is_over(runs, last, &slowness.share)
    }
}
