//! The weights of the ranker's terms.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// The names of the terms, in the order of the weights.
pub const TERMS: [&str; 8] =
    ["deviation", "lift", "edge gap", "severity", "onset", "pairs", "rule", "upstream"];

/// The largest weight that is accepted: one unit of evidence multiplies the odds by e¹⁰.
pub const MAX_WEIGHT: f64 = 10.0;

/// Weights of the terms: log-odds for each unit of evidence.
///
/// The signs and shapes of the terms are models (see each term). The default weights are fitted by
/// pairwise logistic regression of the cause against each other candidate, over stories whose cause
/// is known. `rank/calibration.rs` generates such stories, documents its assumptions, and repeats
/// the fit in a test that fails if these weights deviate from it. `calibrate.rs` is the regression,
/// also for stories that operators have labelled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Of a deviation from the usual count of a kind.
    pub deviation: f64,
    /// Of a message that is more frequent than usual.
    pub lift: f64,
    /// Of the delay to the next member.
    pub edge_gap: f64,
    /// Of the severity.
    pub severity: f64,
    /// Of the delay after the first member.
    pub onset: f64,
    /// Of a kind that usually precedes the others.
    pub pairs: f64,
    /// Of what the rule's author names.
    pub rule: f64,
    /// Of a fault of a dependency.
    pub upstream: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Weights {
    /// The weights where none are configured.
    pub const DEFAULT: Self = Self {
        deviation: 0.4,
        lift: 0.5,
        edge_gap: 0.2,
        severity: 0.2,
        onset: 0.4,
        pairs: 1.05,
        rule: 2.0,
        upstream: 0.55,
    };

    /// The weights in the order of [`TERMS`].
    #[must_use]
    pub fn values(&self) -> [f64; TERMS.len()] {
        let Self { deviation, lift, edge_gap, severity, onset, pairs, rule, upstream } = *self;
        [deviation, lift, edge_gap, severity, onset, pairs, rule, upstream]
    }

    /// Weights in the order of [`TERMS`].
    #[must_use]
    pub fn from_values(values: [f64; TERMS.len()]) -> Self {
        let [deviation, lift, edge_gap, severity, onset, pairs, rule, upstream] = values;
        Self { deviation, lift, edge_gap, severity, onset, pairs, rule, upstream }
    }

    /// The score of evidence in the order of [`TERMS`].
    #[must_use]
    pub fn score(&self, evidence: &[f64; TERMS.len()]) -> f64 {
        self.values().iter().zip(evidence).map(|(weight, evidence)| weight * evidence).sum()
    }

    /// The first weight that isn't a number from 0 to [`MAX_WEIGHT`]: the position of its term.
    #[must_use]
    pub fn invalid(&self) -> Option<usize> {
        self.values().iter().position(|weight| !(0.0..=MAX_WEIGHT).contains(weight))
    }
}

/// The weights in force, which a reload replaces.
#[derive(Clone, Debug)]
pub struct LiveWeights(Arc<ArcSwap<Weights>>);

impl Default for LiveWeights {
    fn default() -> Self {
        Self::new(Weights::DEFAULT)
    }
}

impl LiveWeights {
    /// Weights in force.
    #[must_use]
    pub fn new(weights: Weights) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(weights)))
    }

    /// The weights now.
    #[must_use]
    pub fn get(&self) -> Weights {
        **self.0.load()
    }

    /// Replaces them: stories that are assessed from now on are ranked by these.
    pub fn set(&self, weights: Weights) {
        self.0.store(Arc::new(weights));
    }
}
