//! The usual value of a measure for one key, learned from its values in the latest windows, one
//! after the other, each as long as the rule's `within` and aligned to it.
//!
//! # States of a window
//!
//! ## `Usual`
//! It is learned: median and spread are those of these windows.
//!
//! ## `Aside`
//! Its value deviates, so it isn't learned. Once there are as many of these as have to be
//! learned, they become `Usual`; if they are the latest ones in a row, the windows before them are
//! forgotten: this is how it works now.
//!
//! ## `Silent`
//! It had no event, and that deviates. It never becomes usual: a source that is away isn't idle.
//!
//! ## `Missing`
//! It had no event, and the measure has no value then.

use std::collections::VecDeque;

use crate::robust::Quantiles;
use crate::rules::{Aggregate, DeviationCondition, Measure};
use crate::story::deviation::Deviation;
use tapio_core::event::EventId;

/// A window whose value is farther from the usual one than this, in standard deviations, isn't
/// learned.
const ASIDE: f64 = 4.0;
/// The least spread of a measure that isn't a count, as a share of the usual value.
const MIN_SPREAD: f64 = 0.1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Usual,
    Aside,
    Silent,
    Missing,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    value: f32,
    state: State,
}

/// The usual value and its standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Usual {
    value: f64,
    spread: f64,
}

impl Usual {
    /// Of learned samples in ascending order.
    fn new(sorted: &[f32], measure: Measure) -> Self {
        let quantiles = Quantiles::of_sorted(sorted);
        let floor = match measure {
            Measure::Count | Measure::Distinct(_) => quantiles.count_floor(),
            // Where the usual value is 0, one unit of the field.
            _ if quantiles.median == 0.0 => 1.0,
            _ => quantiles.median.abs() * MIN_SPREAD,
        };
        Self { value: quantiles.median, spread: quantiles.wide_sigma().max(floor) }
    }

    fn deviation(self, value: f64) -> Deviation {
        let deviation = (value - self.value) / self.spread;
        Deviation { value, usual: self.value, deviation }
    }
}

/// The usual value of a measure for one key, and the windows from which it is learned.
#[derive(Debug)]
pub(crate) struct Baseline {
    /// The closed windows, the latest last.
    samples: VecDeque<Sample>,
    /// The number of the window that is open: times divided by `within`.
    open: u64,
    /// The window in which the key was seen first: it may have begun before, so it isn't learned.
    first: u64,
    usual: Option<Usual>,
}

/// The length of a window.
fn length_ns(aggregate: &Aggregate) -> u64 {
    aggregate.within_ns.max(1)
}

/// The number of the window that contains a time.
fn window(aggregate: &Aggregate, time_ns: u64) -> u64 {
    time_ns / length_ns(aggregate)
}

impl Baseline {
    /// Starts to learn a key that is seen for the first time.
    pub(crate) fn new(aggregate: &Aggregate, time_ns: u64) -> Self {
        let open = window(aggregate, time_ns);
        Self { samples: VecDeque::new(), open, first: open, usual: None }
    }

    /// The id of the open window, in place of that of a story's first event.
    pub(crate) fn window_id(&self) -> EventId {
        EventId(u128::from(self.open).to_le_bytes())
    }

    /// Forgets what was learned; the open window isn't learned either.
    pub(crate) fn forget(&mut self) {
        *self = Self { samples: VecDeque::new(), open: self.open, first: self.open, usual: None };
    }

    /// Whether an event of this time follows so long after the last one, or so long before it, that
    /// nothing of what was learned remains.
    pub(crate) fn is_outdated(&self, aggregate: &Aggregate, time_ns: u64) -> bool {
        window(aggregate, time_ns).abs_diff(self.open) > DeviationCondition::WINDOWS as u64
    }

    /// The end of the open window if it is over at this time, which an event or the clock has
    /// reached.
    pub(crate) fn closing_ns(&self, aggregate: &Aggregate, time_ns: u64) -> Option<u64> {
        let next = self.open.saturating_add(1);
        (window(aggregate, time_ns) >= next).then(|| next.saturating_mul(length_ns(aggregate)))
    }

    /// Closes the open window. `value`: the measure over its events; `None` without any.
    pub(crate) fn close(&mut self, aggregate: &Aggregate, value: Option<f64>) {
        let Some(condition) = &aggregate.deviation else { return };
        if self.open != self.first {
            self.learn(aggregate.measure, usize::from(condition.learn), value);
        }
        self.open = self.open.saturating_add(1);
    }

    /// Closes the windows up to this time, which had no event.
    pub(crate) fn close_silent(&mut self, aggregate: &Aggregate, time_ns: u64) {
        let until = window(aggregate, time_ns)
            .min(self.open.saturating_add(DeviationCondition::WINDOWS as u64));
        while self.open < until {
            self.close(aggregate, None);
        }
    }

    /// The deviation of a value; `None` before enough windows are learned.
    pub(crate) fn deviation(&self, value: f64) -> Option<Deviation> {
        self.usual.map(|usual| usual.deviation(value))
    }

    fn learn(&mut self, measure: Measure, learn: usize, value: Option<f64>) {
        let is_amount = matches!(measure, Measure::Count | Measure::Distinct(_) | Measure::Sum(_));
        let number = value.or(is_amount.then_some(0.0)).map(|value| value as f32);
        let (number, state) = match number.filter(|number| number.is_finite()) {
            None => (0.0, State::Missing),
            Some(number) => {
                let found = self.deviation(f64::from(number));
                let deviates = found.is_some_and(|found| found.deviation.abs() > ASIDE);
                let state = match (deviates, value) {
                    (false, _) => State::Usual,
                    (true, Some(_)) => State::Aside,
                    (true, None) => State::Silent,
                };
                (number, state)
            }
        };
        if self.samples.len() >= DeviationCondition::WINDOWS {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { value: number, state });
        if state == State::Aside {
            self.renew(learn);
        }
        self.update(measure, learn);
    }

    /// Learns what was set aside, once there is enough of it.
    fn renew(&mut self, learn: usize) {
        let is_aside = |sample: &Sample| sample.state == State::Aside;
        if self.samples.iter().filter(|sample| is_aside(sample)).count() < learn {
            return;
        }
        let measured = self.samples.iter().enumerate().rev();
        let mut latest = measured.filter(|(_, s)| s.state != State::Missing).take(learn);
        let in_row = latest.try_fold(0, |_, (at, s)| is_aside(s).then_some(at));
        if let Some(start) = in_row {
            self.samples.drain(..start);
        }
        let aside = self.samples.iter_mut().filter(|sample| is_aside(sample));
        aside.for_each(|sample| sample.state = State::Usual);
    }

    fn update(&mut self, measure: Measure, learn: usize) {
        let learned = self.samples.iter().filter(|sample| sample.state == State::Usual);
        let mut values: Vec<f32> = learned.map(|sample| sample.value).collect();
        values.sort_unstable_by(f32::total_cmp);
        self.usual = (values.len() >= learn).then(|| Usual::new(&values, measure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Loaded, Rule, Shape};

    fn rule(measure: &str, within: &str) -> Rule {
        let mut loaded = Loaded::default();
        loaded.text(
            "r.yaml",
            &format!(
                "rule: r\nevents: {{ a: {{ kind: t.a }} }}\n{measure}: {{ event: a, field: \
                 attributes.n, within: {within}, condition: {{ deviation: {{ gt: 6, learn: 6 }} }} }}\n\
                 story: {{ pattern: p }}\n"
            ),
        );
        assert_eq!(loaded.errors, []);
        loaded.rules.remove(0)
    }

    fn aggregate(rule: &Rule) -> &Aggregate {
        let Shape::Aggregate(aggregate) = &rule.shape else { unreachable!() };
        aggregate
    }

    /// A baseline that has learned these windows of a second, and the deviation of a value.
    fn deviation(measure: &str, windows: &[Option<f64>], value: f64) -> Option<Deviation> {
        let rule = rule(measure, "1s");
        let mut baseline = Baseline::new(aggregate(&rule), 0);
        baseline.close(aggregate(&rule), None);
        windows.iter().for_each(|window| baseline.close(aggregate(&rule), *window));
        baseline.deviation(value)
    }

    #[test]
    fn constant_has_a_spread() {
        let constant = |value| [Some(value); 6];
        for (measure, windows, value, expected) in [
            ("distinct", constant(0.0), 7.0, 7.0),
            ("distinct", constant(100.0), 150.0, 5.0),
            ("avg", constant(100.0), 150.0, 5.0),
            ("avg", constant(-100.0), -150.0, -5.0),
            ("sum", constant(0.0), 7.0, 7.0),
        ] {
            let found = deviation(measure, &windows, value).unwrap();
            assert_eq!(found.deviation, expected, "{measure} {windows:?} {value}");
        }
    }

    #[test]
    fn window_without_events_is_0_of_an_amount_and_nothing_of_a_mean() {
        let windows = [Some(2.0), None, Some(2.0), None, Some(2.0), None, Some(2.0)];
        assert_eq!(deviation("sum", &windows, 9.0).map(|found| found.usual), Some(2.0));
        assert_eq!(deviation("avg", &windows, 9.0), None, "four samples");
        let twice = [windows, windows].concat();
        assert_eq!(deviation("avg", &twice, 9.0).map(|found| found.usual), Some(2.0));
    }

    #[test]
    fn value_that_is_no_number_is_not_learned() {
        let mut windows = vec![Some(2.0); 6];
        windows.extend([Some(f64::MAX), Some(f64::NAN), Some(f64::INFINITY)]);
        assert_eq!(deviation("sum", &windows, 2.0).map(|found| found.deviation), Some(0.0));
    }

    #[test]
    fn extreme_times_are_accepted() {
        for within in ["1ns", "1s", "31d"] {
            let rule = rule("sum", within);
            let aggregate = aggregate(&rule);
            for from_ns in [0, 1, u64::MAX - 1, u64::MAX] {
                let mut baseline = Baseline::new(aggregate, from_ns);
                for to_ns in [0, 1, from_ns.saturating_add(1), u64::MAX] {
                    if baseline.closing_ns(aggregate, to_ns).is_some() {
                        baseline.close(aggregate, Some(1.0));
                        baseline.close_silent(aggregate, to_ns);
                    }
                }
                assert!(baseline.samples.len() <= DeviationCondition::WINDOWS);
            }
        }
    }
}
