//! Time in steps of ten seconds.

use rkyv::{Archive, Deserialize, Serialize};

/// The length of a step.
pub(super) const STEP_NS: u64 = 10_000_000_000;
/// Steps that are compared with what was learned before; older ones are learned.
pub(super) const RECENT_STEPS: usize = 18;
/// Steps that are kept: the recent ones, those that began since the last evaluation, and some to
/// spare, because facts are evaluated once their spans' callees have arrived.
pub(super) const SLOTS: usize = 24;
/// Steps by which a fact may be ahead of the step that is evaluated next.
pub(super) const AHEAD_STEPS: u32 = 3;

/// How a step is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learning {
    /// As any other.
    Usual,
    /// It isn't: it belongs to a disturbance.
    None,
    /// It belongs to a disturbance that has lasted so long that it is a new way of working.
    Renewal,
}

/// How much a measure varies from one span of time to the next, over the variance that chance alone
/// gives. What depends on the kind of work, or on caches, varies more.
#[derive(Clone, Copy, Debug, Archive, Serialize, Deserialize)]
pub(super) struct Dispersion {
    mean: f32,
    spans: u16,
}

/// The spans of time that the expectation before the first one counts for, and its value.
const PRIOR_SPANS: f32 = 3.0;
const PRIOR: f32 = 1.5;
/// The weight of the latest span once there were many.
const LATEST_WEIGHT: f32 = 0.04;

/// The weight of what happens in a disturbance.
const DISTURBED_WEIGHT: f32 = 0.25;
/// The largest squared distance that counts of a disturbance.
const MAX_DISTURBED_RATIO: f64 = 25.0;

impl Default for Dispersion {
    fn default() -> Self {
        Self { mean: PRIOR, spans: 0 }
    }
}

impl Dispersion {
    /// Adds a span of time: its squared distance from the usual value, over the variance. In a
    /// disturbance it counts little, but it counts: what deviates again and again varies much.
    pub(super) fn add(&mut self, ratio: f64, learning: Learning) {
        self.spans = self.spans.saturating_add(1);
        let mut weight = (1.0 / (PRIOR_SPANS + f32::from(self.spans))).max(LATEST_WEIGHT);
        let mut ratio = ratio;
        if learning != Learning::Usual {
            weight *= DISTURBED_WEIGHT;
            ratio = ratio.min(MAX_DISTURBED_RATIO);
        }
        self.mean += (ratio as f32 - self.mean) * weight;
    }

    /// The factor of the variance, at least 1.
    pub(super) fn factor(&self) -> f64 {
        f64::from(self.mean.max(1.0))
    }
}

/// The spans of time that are compared, in steps: a strong deviation shows in the short one, a weak
/// one of a rare operation in the long one.
pub(super) const SPANS: [usize; 2] = [3, RECENT_STEPS];

/// The step of a time.
pub(super) fn step(time_ns: u64) -> u32 {
    u32::try_from(time_ns / STEP_NS).unwrap_or(u32::MAX)
}

/// The place of a step in an array of recent ones.
pub(super) fn slot(step: u32) -> usize {
    step as usize % SLOTS
}

/// The steps that are kept and older than a span of so many steps up to `last`, and than the step
/// `before`.
pub(super) fn older(last: u32, steps: usize, before: u32) -> impl Iterator<Item = u32> {
    let first = last.saturating_sub(SLOTS as u32 - 1 - AHEAD_STEPS);
    let end = (last + 1).saturating_sub(steps as u32).min(before);
    first..end.max(first)
}

/// Counts in the recent steps.
#[derive(Clone, Debug, Default, Archive, Serialize, Deserialize)]
pub(super) struct RecentCounts([u16; SLOTS]);

impl RecentCounts {
    /// Counts in a step.
    pub(super) fn add(&mut self, step: u32, times: u16) {
        let count = &mut self.0[slot(step)];
        *count = count.saturating_add(times);
    }

    /// Empties a slot for a new step; returns what it had.
    pub(super) fn take(&mut self, step: u32) -> u16 {
        std::mem::take(&mut self.0[slot(step)])
    }

    /// The sum of this many steps up to `last`.
    pub(super) fn sum(&self, last: u32, steps: usize) -> f64 {
        let slots = (0..steps.min(RECENT_STEPS) as u32).map(|back| slot(last.wrapping_sub(back)));
        slots.map(|slot| f64::from(self.0[slot])).sum()
    }

    /// How many of this many steps up to `last` have a count.
    pub(super) fn steps(&self, last: u32, steps: usize) -> usize {
        let slots = (0..steps as u32).map(|back| slot(last.wrapping_sub(back)));
        slots.filter(|slot| self.0[*slot] > 0).count()
    }

    /// The count of a step.
    pub(super) fn at(&self, step: u32) -> f64 {
        f64::from(self.0[slot(step)])
    }

    /// Whether nothing was counted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|count| *count == 0)
    }
}
