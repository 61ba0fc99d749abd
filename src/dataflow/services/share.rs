//! In which part of an operation's runs something happens, or how often in a run: a call, a log
//! record, an error.

use rkyv::{Archive, Deserialize, Serialize};

use super::step::{Dispersion, Learning, RecentCounts, SPANS, older};

/// Runs that the past must have had for a comparison.
const MIN_PAST_RUNS: f64 = 5.0;
/// Runs of the past below which recent ones count for the past as well.
const SHORT_PAST_RUNS: f64 = 64.0;
/// Groups of steps with runs that the past must have had.
const MIN_GROUPS: u16 = 3;
/// Runs that a recent span must have.
const MIN_RUNS: f64 = 3.0;
/// Runs of the last steps by which a deviation may be over.
const MIN_LATEST_RUNS: f64 = 5.0;
/// Weight of the past at which it is halved.
const MAX_PAST_RUNS: f64 = 1e6;
/// The share of the variance that remains where something happens almost always.
const MIN_SPREAD: f64 = 0.05;
/// The share of a Poisson distribution's variance that what happens several times in a run has.
const REPEATED_SPREAD: f64 = 0.2;

/// An operation's runs: recent ones, and those before.
#[derive(Clone, Debug, Default, Archive, Serialize, Deserialize)]
pub(super) struct Runs {
    pub(super) recent: RecentCounts,
    pub(super) past: f64,
    groups: u16,
}

/// How often something happens.
#[derive(Clone, Debug, Default, Archive, Serialize, Deserialize)]
pub(super) struct Share {
    pub(super) recent: RecentCounts,
    past: f64,
    /// For each of [`SPANS`].
    dispersions: [Dispersion; SPANS.len()],
}

/// A deviation of a share, which is a number of times in a run where it is above 1.
#[derive(Clone, Copy, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub(super) struct ShareDeviation {
    /// The distance from what is usual, in standard deviations.
    pub(super) z: f64,
    pub(super) usual: f64,
    pub(super) now: f64,
    pub(super) runs: f64,
}

/// The variance of a count of `runs` independent runs. What happens once or more in each run varies
/// little, or its dispersion says how much.
fn variance(runs: f64, share: f64) -> f64 {
    let spread = if share > 1.0 { REPEATED_SPREAD } else { (1.0 - share).max(MIN_SPREAD) };
    runs * share * spread
}

/// The usual share. Before anything was seen it is small, but not 0.
fn usual(past: f64, past_runs: f64) -> f64 {
    (past + 0.5) / (past_runs + 1.0)
}

impl Share {
    /// Notes how often it happened in a span of time, of [`SPANS`] by number, that had these runs.
    pub(super) fn span(
        &mut self,
        number: usize,
        (happened, runs): (f64, f64),
        past_runs: f64,
        learning: Learning,
    ) {
        if runs > 0.0 && past_runs >= MIN_PAST_RUNS {
            let usual = usual(self.past, past_runs);
            let distance = happened - usual * runs;
            let ratio = distance * distance / (variance(runs, usual) + 0.25);
            self.dispersions[number].add(ratio, learning);
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

    /// The deviation of so many steps up to `last`, with the dispersion of a span of time by its
    /// number, from what was learned, and while that is little, from what is recent but older than
    /// the span and than a disturbance (`before`: its first step).
    pub(super) fn deviation(
        &self,
        runs: &Runs,
        last: u32,
        (number, steps): (usize, usize),
        before: u32,
    ) -> Option<ShareDeviation> {
        let now_runs = runs.recent.sum(last, steps);
        if now_runs < MIN_RUNS {
            return None;
        }
        let (mut past, mut past_runs, mut groups) = (self.past, runs.past, runs.groups);
        if past_runs < SHORT_PAST_RUNS {
            for step in older(last, steps, before) {
                past += self.recent.at(step);
                past_runs += runs.recent.at(step);
                groups = groups.saturating_add(u16::from(runs.recent.at(step) > 0.0));
            }
        }
        if past_runs < MIN_PAST_RUNS || groups < MIN_GROUPS {
            return None;
        }
        let happened = self.recent.sum(last, steps);
        let usual = usual(past, past_runs);
        let expected = usual * now_runs;
        let dispersion = self.dispersions[number].factor();
        // Of the recent runs, and of the estimate from the past.
        let ratio = now_runs / past_runs;
        let spread = variance(now_runs, usual) * dispersion
            + ratio * ratio * variance(past_runs, usual) * dispersion
            + 0.5;
        let z = (happened - expected) / spread.sqrt();
        Some(ShareDeviation { z, usual, now: happened / now_runs, runs: now_runs })
    }

    /// Whether a deviation is over: the last step, or as many as have enough runs together, is
    /// nearer to what is usual.
    pub(super) fn is_over(&self, runs: &Runs, last: u32, deviation: &ShareDeviation) -> bool {
        let enough = |steps: &usize| runs.recent.sum(last, *steps) >= MIN_LATEST_RUNS;
        let Some(steps) = (1..=SPANS[0]).find(enough) else { return false };
        let latest = self.recent.sum(last, steps) / runs.recent.sum(last, steps);
        (latest - deviation.usual).abs() < (latest - deviation.now).abs()
    }

    /// The same past, without recent counts.
    pub(super) fn past_only(&self) -> Self {
        Self { recent: RecentCounts::default(), ..self.clone() }
    }

    /// Forgets the past.
    pub(super) fn forget_past(&mut self) {
        *self = Self { recent: self.recent.clone(), ..Self::default() };
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

    /// The same past, without recent runs.
    pub(super) fn past_only(&self) -> Self {
        Self { recent: RecentCounts::default(), ..*self }
    }

    /// Forgets the past.
    pub(super) fn forget_past(&mut self) {
        (self.past, self.groups) = (0.0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Learns groups of `runs` with these counts, then counts `now` of as many runs.
    fn deviation(groups: &[u16], now: u16, runs: u16) -> Option<ShareDeviation> {
        let (mut share, mut all) = (Share::default(), Runs::default());
        for happened in groups {
            share.span(0, (f64::from(*happened), f64::from(runs)), all.past, Learning::Usual);
            share.learn(f64::from(*happened));
            all.learn(f64::from(runs));
        }
        (0..now).for_each(|_| share.recent.add(7, 1));
        (0..runs).for_each(|_| all.recent.add(7, 1));
        share.deviation(&all, 7, (0, SPANS[0]), u32::MAX)
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
