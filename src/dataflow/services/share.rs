//! The share of an operation's runs in which something happens: a call, a log record, an error.

use super::step::{Dispersion, RecentCounts, SPANS};

/// Runs that the past must have had for a comparison.
const MIN_PAST_RUNS: f64 = 8.0;
/// Groups of steps with runs that the past must have had.
const MIN_GROUPS: u16 = 3;
/// Runs that a recent span must have.
const MIN_RUNS: f64 = 3.0;
/// Weight of the past at which it is halved.
const MAX_PAST_RUNS: f64 = 1e6;
/// The share of the variance that remains where something happens almost always.
const MIN_SPREAD: f64 = 0.05;

/// An operation's runs: recent ones, and those before.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    pub(super) recent: RecentCounts,
    pub(super) past: f64,
    groups: u16,
}

/// How often something happens.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    pub(super) recent: RecentCounts,
    past: f64,
    /// For each of [`SPANS`].
    dispersions: [Dispersion; SPANS.len()],
}

/// A deviation of a share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ShareDeviation {
    /// The distance from what is usual, in standard deviations.
    pub(super) z: f64,
    pub(super) usual: f64,
    pub(super) now: f64,
    pub(super) runs: f64,
}

/// The variance of a count of `runs` independent runs.
fn variance(runs: f64, share: f64) -> f64 {
    runs * share * (1.0 - share).max(MIN_SPREAD)
}

impl Share {
    /// The usual share. Before anything was seen it is small, but not 0.
    fn usual(&self, past_runs: f64) -> f64 {
        ((self.past + 0.5) / (past_runs + 1.0)).min(1.0)
    }

    /// Notes how often it happened in a span of time, of [`SPANS`] by number, that had these runs.
    pub(super) fn span(&mut self, number: usize, happened: f64, runs: f64, past_runs: f64) {
        if runs > 0.0 && past_runs >= MIN_PAST_RUNS {
            let usual = self.usual(past_runs);
            let distance = happened - usual * runs;
            self.dispersions[number].add(distance * distance / (variance(runs, usual) + 0.25));
        }
    }

    /// Learns what happened.
    pub(super) fn learn(&mut self, happened: f64) {
        self.past += happened;
    }

    /// Halves the weight of the past.
    pub(super) fn halve(&mut self) {
        self.past /= 2.0;
    }

    /// The deviation of the steps up to `last`, of a span of time by its number.
    pub(super) fn deviation(
        &self,
        runs: &Runs,
        last: u32,
        number: usize,
    ) -> Option<ShareDeviation> {
        let steps = SPANS[number];
        let now_runs = runs.recent.sum(last, steps);
        if now_runs < MIN_RUNS || runs.past < MIN_PAST_RUNS || runs.groups < MIN_GROUPS {
            return None;
        }
        let happened = self.recent.sum(last, steps);
        let usual = self.usual(runs.past);
        let expected = usual * now_runs;
        let dispersion = self.dispersions[number].factor();
        // Of the recent runs, and of the estimate from the past.
        let ratio = now_runs / runs.past;
        let spread = variance(now_runs, usual) * dispersion
            + ratio * ratio * variance(runs.past, usual) * dispersion
            + 0.5;
        let z = (happened - expected) / spread.sqrt();
        Some(ShareDeviation { z, usual, now: happened / now_runs, runs: now_runs })
    }

    /// Whether it has neither a past nor recent counts.
    pub(super) fn is_forgotten(&self) -> bool {
        self.past < 0.5 && self.recent.is_empty()
    }
}

impl Runs {
    /// Learns a group of runs. Returns whether the past has become too heavy.
    pub(super) fn learn(&mut self, runs: f64) -> bool {
        self.past += runs;
        self.groups = self.groups.saturating_add(u16::from(runs > 0.0));
        self.past > MAX_PAST_RUNS
    }

    /// Halves the weight of the past.
    pub(super) fn halve(&mut self) {
        self.past /= 2.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Learns groups of `runs` with these counts, then counts `now` of as many runs.
    fn deviation(groups: &[u16], now: u16, runs: u16) -> Option<ShareDeviation> {
        let (mut share, mut all) = (Share::default(), Runs::default());
        for happened in groups {
            share.span(0, f64::from(*happened), f64::from(runs), all.past);
            share.learn(f64::from(*happened));
            all.learn(f64::from(runs));
        }
        (0..now).for_each(|_| share.recent.add(7));
        (0..runs).for_each(|_| all.recent.add(7));
        share.deviation(&all, 7, 0)
    }

    #[test]
    fn what_is_usual_deviates_little_and_what_is_new_much() {
        let usual = deviation(&[5; 30], 6, 50).unwrap();
        assert!(usual.z.abs() < 1.0, "{usual:?}");
        let new = deviation(&[0; 30], 25, 50).unwrap();
        assert!(new.z > 20.0, "{new:?}");
        let missing = deviation(&[50; 30], 0, 50).unwrap();
        assert!(missing.z < -10.0, "{missing:?}");
        assert_eq!((missing.usual * 100.0).round(), 100.0);
    }

    #[test]
    fn what_varies_from_minute_to_minute_deviates_less() {
        let steady = deviation(&[10; 30], 25, 50).unwrap();
        let varying: Vec<u16> = (0..30).map(|n| if n % 3 == 0 { 25 } else { 3 }).collect();
        let varying = deviation(&varying, 25, 50).unwrap();
        assert!(varying.z < 3.0 && steady.z > 3.0, "{varying:?} {steady:?}");
    }

    #[test]
    fn short_past_or_few_runs_say_nothing() {
        assert_eq!(deviation(&[], 9, 9), None);
        assert_eq!(deviation(&[1; 9], 2, 2), None);
    }
}
