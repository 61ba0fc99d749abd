//! How long something takes: a histogram of the past, samples of the recent steps, and which part
//! of the runs is slow.

use std::borrow::Cow;

use rkyv::{Archive, Deserialize, Serialize};

use super::share::Runs;
use super::slow::{SlowRuns, Slowness};
use super::step::{Dispersion, Learning, RECENT_STEPS, SLOTS, SPANS, older, slot};

/// Buckets of half an octave, from a microsecond to more than an hour.
const BUCKETS: usize = 64;
/// The logarithm to base 2 of the first bucket's lower bound, in ns.
const FIRST_LOG2: f64 = 10.0;
const BUCKETS_PER_OCTAVE: f64 = 2.0;
/// Samples kept of a step: a median needs few.
const SAMPLES: usize = 4;
/// Past samples for a comparison.
const MIN_PAST: u32 = 4;
/// Recent samples for a comparison.
pub(super) const MIN_RECENT: usize = 4;
/// Past samples below which recent ones count for the past as well.
const SHORT_PAST: u32 = 64;
/// Past samples at which all are halved.
const MAX_PAST: u32 = 20_000;
/// The least spread: a fifth.
const MIN_SPREAD_LOG2: f64 = 0.22;
/// Samples above this number make a median no more certain here.
const MAX_CERTAIN: f64 = 16.0;
/// The least distance in spreads.
const MIN_DISTANCE: f64 = 1.2;
/// Standard deviations of a median from which it says more than the share of slow runs.
const MIN_MEDIAN_Z: f64 = 3.0;
/// Past samples for a bound above which runs are slow.
const MIN_BOUND_PAST: u32 = 16;
/// The share of the past that isn't slow.
const NOT_SLOW: f64 = 0.95;

/// A duration as learned and lately.
#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub(super) struct Durations {
    past: Histogram,
    recent: [[f32; SAMPLES]; SLOTS],
    runs: Runs,
    slow: SlowRuns,
    dispersion: Dispersion,
    random: u32,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            past: Histogram::default(),
            recent: [[0.0; SAMPLES]; SLOTS],
            runs: Runs::default(),
            slow: SlowRuns::default(),
            dispersion: Dispersion::default(),
            random: 0x9e37_79b9,
        }
    }
}

/// Logarithms of durations in buckets.
#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
struct Histogram {
    buckets: [u16; BUCKETS],
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    fn add(&mut self, sample: f32) {
        let bucket = (f64::from(sample) - FIRST_LOG2) * BUCKETS_PER_OCTAVE;
        let bucket = (bucket.max(0.0) as usize).min(BUCKETS - 1);
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
        self.total += 1;
    }

    fn halve(&mut self) {
        self.buckets.iter_mut().for_each(|count| *count /= 2);
        self.total = self.buckets.iter().map(|count| u32::from(*count)).sum();
    }

    /// A quantile, as a logarithm; within a bucket by interpolation.
    fn quantile(&self, share: f64) -> f64 {
        let rank = share * f64::from(self.total);
        let mut below = 0.0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            let count = f64::from(*count);
            if count > 0.0 && below + count >= rank {
                let within = ((rank - below) / count).clamp(0.0, 1.0);
                return FIRST_LOG2 + (bucket as f64 + within) / BUCKETS_PER_OCTAVE;
            }
            below += count;
        }
        FIRST_LOG2
    }

    /// The standard deviation of single samples, robust. A normal distribution has 1.35 standard
    /// deviations between its quartiles, and 2.56 between its outer deciles; the wider one counts.
    fn spread(&self) -> f64 {
        let quartiles = (self.quantile(0.75) - self.quantile(0.25)) / 1.35;
        let deciles = (self.quantile(0.9) - self.quantile(0.1)) / 2.56;
        quartiles.max(deciles).max(MIN_SPREAD_LOG2)
    }

    /// The share of samples above a bound.
    fn share_above(&self, bound: f64) -> f64 {
        let bucket = ((bound - FIRST_LOG2) * BUCKETS_PER_OCTAVE).max(0.0) as usize;
        let above: u32 = self.buckets.iter().skip(bucket + 1).map(|count| u32::from(*count)).sum();
        (f64::from(above) + 0.5) / (f64::from(self.total) + 1.0)
    }
}

/// A deviation of a duration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DurationDeviation {
    /// The distance of the median from the usual one, above or below it, in standard deviations of
    /// a median.
    pub(super) z: f64,
    pub(super) usual_ns: f64,
    pub(super) now_ns: f64,
    /// Where the median is as usual, but more runs than usual are slow: `now_ns` is then the usual
    /// median and the time that they add to a run on average.
    pub(super) slowness: Option<Slowness>,
}

fn log2_ns(duration_ns: u64) -> f64 {
    (duration_ns.max(1) as f64).log2()
}

impl Durations {
    /// Adds a duration to a step; of many, a random sample is kept (Vitter's algorithm R). Returns
    /// whether it is longer than nearly all before.
    pub(super) fn add(&mut self, step: u32, duration_ns: u64) -> bool {
        let slot = slot(step);
        let seen = self.runs.recent.at(step) as u16;
        self.runs.recent.add(step, 1);
        let at = if usize::from(seen) < SAMPLES {
            usize::from(seen)
        } else {
            self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.random >> 8) as usize % (usize::from(seen) + 1)
        };
        if let Some(sample) = self.recent[slot].get_mut(at) {
            *sample = log2_ns(duration_ns) as f32;
        }
        self.slow.add(step, log2_ns(duration_ns), duration_ns)
    }

    /// The number of samples that are kept of a step.
    fn kept(&self, step: u32) -> usize {
        (self.runs.recent.at(step) as usize).min(SAMPLES)
    }

    /// Learns the samples in the slot of the step `next`, and empties it.
    pub(super) fn learn(&mut self, next: u32, learning: Learning) {
        let slot = slot(next);
        let runs = self.runs.recent.take(next);
        let kept = usize::from(runs).min(SAMPLES);
        if kept >= MIN_RECENT && self.past.total >= MIN_PAST {
            let mut samples = self.recent[slot];
            let found = Comparison::new(&mut samples[..kept], &self.past);
            self.dispersion.add((found.distance / found.error).powi(2), learning);
        }
        if learning != Learning::None {
            self.recent[slot][..kept].iter().for_each(|sample| self.past.add(*sample));
        }
        if self.past.total > MAX_PAST {
            self.past.halve();
        }
        let is_past = self.slow.learn(next, f64::from(runs), &self.runs, learning);
        if is_past && self.runs.learn(f64::from(runs)) {
            self.runs.halve();
            self.slow.halve();
        }
        if kept > 0 && self.past.total >= MIN_BOUND_PAST {
            let far = self.past.quantile(0.5) + MIN_DISTANCE * self.past.spread();
            self.slow.bound(next, far.max(self.past.quantile(NOT_SLOW)));
        }
    }

    /// Learns all recent steps, from the step `next` on.
    pub(super) fn learn_recent(&mut self, next: u32) {
        (next..next + SLOTS as u32).for_each(|step| self.learn(step, Learning::Usual));
    }

    /// Halves the weight of the past.
    pub(super) fn halve(&mut self) {
        self.past.halve();
        self.runs.halve();
        self.slow.halve();
    }

    /// The past that a span of time is compared with: all that was learned. While that is little,
    /// also what is recent but older than the span and than a disturbance (`before`: its first
    /// step).
    fn reference(&self, last: u32, steps: usize, before: u32) -> Cow<'_, Histogram> {
        if self.past.total >= SHORT_PAST {
            return Cow::Borrowed(&self.past);
        }
        let mut past = self.past.clone();
        for step in older(last, steps, before) {
            let samples = &self.recent[slot(step)][..self.kept(step)];
            samples.iter().for_each(|sample| past.add(*sample));
        }
        Cow::Owned(past)
    }

    /// The deviation of so many steps up to `last`, a span of time by its number. `before`: the
    /// first step of a disturbance that is going on.
    pub(super) fn deviation(
        &self,
        last: u32,
        (number, steps): (usize, usize),
        before: u32,
    ) -> Option<DurationDeviation> {
        let median = self.median_deviation(last, steps, before);
        if median.is_some_and(|median| median.z >= MIN_MEDIAN_Z) {
            return median;
        }
        let Some(slowness) = self.slow.deviation(&self.runs, last, (number, steps)) else {
            return median;
        };
        let usual_ns = self.past.quantile(0.5).exp2();
        let added_ns = slowness.share.now * (slowness.mean_ns - usual_ns).max(0.0);
        Some(DurationDeviation {
            z: slowness.share.z,
            usual_ns,
            now_ns: usual_ns + added_ns,
            slowness: Some(slowness),
        })
    }

    fn median_deviation(&self, last: u32, steps: usize, before: u32) -> Option<DurationDeviation> {
        let mut samples = [0.0; RECENT_STEPS * SAMPLES];
        let count = self.latest(last, steps, &mut samples);
        let samples = &mut samples[..count];
        if samples.len() < MIN_RECENT {
            return None;
        }
        let past = self.reference(last, steps, before);
        if past.total < MIN_PAST {
            return None;
        }
        let Comparison { distance, error, now, usual } = Comparison::new(samples, &past);
        if distance.abs() < MIN_DISTANCE {
            return None;
        }
        let dispersion = self.dispersion.factor();
        let z = distance.abs() / error / dispersion.sqrt();
        let above = distance_above(samples, &past, (now + usual) / 2.0, dispersion);
        let z = z.min(above * distance.signum());
        Some(DurationDeviation { z, usual_ns: usual.exp2(), now_ns: now.exp2(), slowness: None })
    }

    /// Whether a deviation is over: the median of the last step, or of as many as have enough
    /// samples together, is nearer to the usual one.
    pub(super) fn is_over(&self, last: u32, deviation: &DurationDeviation) -> bool {
        if let Some(slowness) = &deviation.slowness {
            return self.slow.is_over(&self.runs, last, slowness);
        }
        let mut samples = [0.0; SPANS[0] * SAMPLES];
        let Some(samples) = (1..=SPANS[0])
            .map(|steps| self.latest(last, steps, &mut samples))
            .find(|count| *count >= MIN_RECENT)
            .map(|count| &mut samples[..count])
        else {
            return false;
        };
        let (_, median, _) = samples.select_nth_unstable_by(samples.len() / 2, f32::total_cmp);
        let distance = |ns: f64| (f64::from(*median) - ns.log2()).abs();
        distance(deviation.usual_ns) < distance(deviation.now_ns)
    }

    /// Copies the samples of this many steps up to `last`. Returns their number.
    fn latest(&self, last: u32, steps: usize, into: &mut [f32]) -> usize {
        let mut count = 0;
        for back in 0..steps as u32 {
            let step = last.wrapping_sub(back);
            let kept = self.kept(step);
            into[count..count + kept].copy_from_slice(&self.recent[slot(step)][..kept]);
            count += kept;
        }
        count
    }

    /// Samples of this many steps up to `last`.
    pub(super) fn samples(&self, last: u32, steps: usize) -> usize {
        (0..steps as u32).map(|back| self.kept(last.wrapping_sub(back))).sum()
    }

    /// The usual median; `None` for a short past.
    pub(super) fn usual_ns(&self) -> Option<f64> {
        (self.past.total >= MIN_PAST).then(|| self.past.quantile(0.5).exp2())
    }

    /// Whether it has neither a past nor recent samples.
    pub(super) fn is_forgotten(&self) -> bool {
        self.past.total == 0 && self.runs.recent.is_empty()
    }
}

/// Samples beside a past.
struct Comparison {
    /// The distance of the samples' median from the usual one, in spreads of single samples.
    distance: f64,
    /// The standard error of the difference between both medians.
    error: f64,
    /// Both medians as logarithms.
    now: f64,
    usual: f64,
}

impl Comparison {
    fn new(samples: &mut [f32], past: &Histogram) -> Self {
        let count = samples.len();
        let (_, median, _) = samples.select_nth_unstable_by(count / 2, f32::total_cmp);
        let now = f64::from(*median);
        let usual = past.quantile(0.5);
        let error = median_error(count as f64).hypot(median_error(f64::from(past.total)));
        Self { distance: (now - usual) / past.spread(), error, now, usual }
    }
}

/// The standard error of a median, in spreads of single samples: 1.25 times that of a mean; few
/// samples count less.
fn median_error(count: f64) -> f64 {
    1.25 * (1.0 + 4.0 / count.max(1.0)) / count.clamp(1.0, MAX_CERTAIN).sqrt()
}

/// The distance of the number of samples above a bound from the usual one, in standard deviations.
/// A duration that has two usual values is far from neither.
fn distance_above(samples: &[f32], past: &Histogram, bound: f64, dispersion: f64) -> f64 {
    let usual = past.share_above(bound);
    let above = samples.iter().filter(|sample| f64::from(**sample) > bound).count();
    let runs = samples.len() as f64;
    let variance = runs * usual * (1.0 - usual) * dispersion + 0.5;
    (above as f64 - runs * usual) / variance.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn learned(durations_ns: impl Iterator<Item = u64>) -> Durations {
        let mut all = Durations::default();
        for (n, duration_ns) in durations_ns.enumerate() {
            all.add(n as u32, duration_ns);
            all.learn(n as u32, Learning::Usual);
        }
        all
    }

    #[test]
    fn ten_times_as_long_deviates_and_as_long_as_usual_does_not() {
        let mut all = learned((0..200).map(|n| 20_000_000 + n % 7 * 1_000_000));
        for _ in 0..9 {
            all.add(1_000, 200_000_000);
        }
        let found = all.deviation(1_000, (0, 3), u32::MAX).unwrap();
        assert!(found.z > 5.0, "{found:?}");
        assert!((15e6..30e6).contains(&found.usual_ns), "{found:?}");
        let mut all = learned((0..200).map(|n| 20_000_000 + n % 7 * 1_000_000));
        for _ in 0..9 {
            all.add(1_000, 21_000_000);
        }
        assert_eq!(all.deviation(1_000, (0, 3), u32::MAX), None);
    }

    /// A third of the runs waits for a segment to be sent again, as on a link that loses packets.
    #[test]
    fn slow_runs_deviate_where_the_median_does_not() {
        let run_ns = |n: u64, lost: u64| 20_000_000 + n % 7 * 1_000_000 + lost * 200_000_000;
        let mut all = Durations::default();
        for n in 0..2_000u64 {
            all.add(n as u32 / 20, run_ns(n, u64::from(n % 50 == 0)));
            if n % 20 == 19 && n >= 20 * SLOTS as u64 {
                all.learn(n as u32 / 20 + 1, Learning::Usual);
            }
        }
        (100..103).for_each(|step| all.learn(step, Learning::Usual));
        assert_eq!(all.deviation(99, (0, 3), u32::MAX), None);
        for n in 0..60u64 {
            all.add(100 + n as u32 / 20, run_ns(n, u64::from(n % 3 == 0)));
        }
        let found = all.deviation(102, (0, 3), u32::MAX).unwrap();
        let slowness = found.slowness.unwrap();
        assert!(found.z > 5.0 && (0.3..0.4).contains(&slowness.share.now), "{found:?}");
        assert!((200e6..240e6).contains(&slowness.mean_ns), "{slowness:?}");
        // A third of 200 ms more.
        assert!((60e6..110e6).contains(&found.now_ns), "{found:?}");
        assert!(!all.is_over(102, &found));
        // In the latest step alone, one in four is a moment.
        let mut all = all.clone();
        (103..106).for_each(|step| all.learn(step, Learning::Usual));
        for n in 0..60u64 {
            all.add(103 + n as u32 / 20, run_ns(n, u64::from(n >= 40 && n % 4 == 0)));
        }
        assert!(all.is_over(105, &found));
    }

    proptest! {
        /// The histogram's quantile is within a bucket of the real one.
        #[test]
        fn quantiles_are_those_of_a_sorted_list(
            mut durations_ns in prop::collection::vec(2_000u64..1_000_000_000, 20..200),
            share in 0.05f64..0.95,
        ) {
            let all = learned(durations_ns.iter().copied());
            durations_ns.sort_unstable();
            let rank = share * durations_ns.len() as f64;
            let near = |at: f64| log2_ns(durations_ns[(at.max(0.0) as usize).min(durations_ns.len() - 1)]);
            let (low, high) = (near(rank - 2.0), near(rank + 1.0));
            let found = all.past.quantile(share);
            prop_assert!(found >= low - 0.5 && found <= high + 0.5, "{found} isn't in {low}..{high}");
        }
    }
}
