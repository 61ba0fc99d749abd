//! Fits the weights of the ranker's terms to stories of which people know the cause.
//!
//! A story whose cause is known gives a comparison of the cause with each other candidate. The
//! weights are those under which the causes most likely outrank the others (pairwise logistic
//! regression), pulled towards the weights in use: a weight deviates from the one in use by
//! [`DEVIATION`] of it, as a standard deviation. Few stories change little.
//!
//! A story of which only the first cause is known to be wrong isn't fitted to. That candidate was
//! first because of the weights in use: compared with all others it would lose in every term, and
//! the weights would shrink to nothing. Such stories measure the result.

use super::weights::{MAX_WEIGHT, TERMS, Weights};

/// The standard deviation of a weight around the one in use, as a part of that one.
const DEVIATION: f64 = 0.5;
/// The least standard deviation of a weight around the one in use.
const MIN_DEVIATION: f64 = 0.1;
/// Most steps of the regression. It takes less than ten.
const MAX_STEPS: usize = 100;
/// A step smaller than this ends the regression.
const SMALL_STEP: f64 = 1e-9;
/// Most groups of the cross-validation. With fewer stories each is a group of its own.
const MAX_GROUPS: usize = 20;

/// Evidence of a candidate in the units of the terms, in the order of [`TERMS`].
pub type Evidence = [f64; TERMS.len()];

/// People's knowledge of a story's cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// The candidate of this position is the cause.
    Cause(usize),
    /// The candidate of this position isn't the cause.
    NotCause(usize),
}

/// A story with a label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledStory {
    /// Its candidates, in the order in which they were ranked.
    pub candidates: Vec<Evidence>,
    /// The knowledge about them.
    pub label: Label,
}

/// The evidence of a cause, less that of another candidate.
pub(super) type Comparison = Evidence;

/// The number of stories that weights rank as the labels have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ranked {
    /// Stories whose known cause is first.
    pub causes_first: usize,
    /// Stories whose wrong cause isn't first any more.
    pub wrong_not_first: usize,
}

/// The result of a calibration.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The weights fitted to all stories.
    pub fitted: Weights,
    /// Stories in which candidates differ in a term, in the order of [`TERMS`].
    pub stories_of_term: [usize; TERMS.len()],
    /// Stories whose cause is known.
    pub with_cause: usize,
    /// Stories of which only a wrong cause is known.
    pub with_wrong: usize,
    /// By the weights in use.
    pub before: Ranked,
    /// Each story by weights that were fitted without it.
    pub validated: Ranked,
    /// By the weights fitted to all stories: too good an estimate, since they were fitted to these.
    pub on_training: Ranked,
}

impl LabelledStory {
    /// Whether anything can be learned from it: it has the labelled candidate and another one.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let (Label::Cause(at) | Label::NotCause(at)) = self.label;
        self.candidates.len() > 1 && at < self.candidates.len()
    }

    /// The comparisons of the cause with each other candidate; none if it isn't known.
    pub(super) fn comparisons(&self) -> impl Iterator<Item = Comparison> {
        let cause = match self.label {
            Label::Cause(at) => self.candidates.get(at).map(|cause| (at, cause)),
            Label::NotCause(_) => None,
        };
        cause.into_iter().flat_map(|(at, cause)| {
            let others = self.candidates.iter().enumerate().filter(move |(n, _)| *n != at);
            others.map(|(_, other)| std::array::from_fn(|term| cause[term] - other[term]))
        })
    }

    /// The candidate that weights rank first; of equals, the one that was ranked before.
    fn first(&self, weights: &Weights) -> usize {
        // Scores are equal if their four decimals in output are, as in the ranker.
        let scores = self.candidates.iter().map(|evidence| (weights.score(evidence) * 1e4).round());
        let mut best = (0, f64::NEG_INFINITY);
        for (at, score) in scores.enumerate() {
            if score > best.1 {
                best = (at, score);
            }
        }
        best.0
    }

    fn rank(&self, weights: &Weights, ranked: &mut Ranked) {
        let first = self.first(weights);
        match self.label {
            Label::Cause(cause) => ranked.causes_first += usize::from(first == cause),
            Label::NotCause(wrong) => ranked.wrong_not_first += usize::from(first != wrong),
        }
    }
}

/// Fits weights to stories, and measures by cross-validation what they gain. Stories that aren't
/// usable are left out.
#[must_use]
pub fn calibrate(stories: &[LabelledStory], in_use: &Weights) -> Calibration {
    let stories: Vec<&LabelledStory> = stories.iter().filter(|story| story.is_usable()).collect();
    let fitted_without = |group: Option<usize>, groups: usize| {
        let rest = stories.iter().enumerate().filter(|(n, _)| Some(n % groups) != group);
        let comparisons: Vec<Comparison> = rest.flat_map(|(_, one)| one.comparisons()).collect();
        fit(&comparisons, in_use, pull_of(in_use))
    };
    let fitted = fitted_without(None, 1);
    let (mut before, mut on_training) = (Ranked::default(), Ranked::default());
    for story in &stories {
        story.rank(in_use, &mut before);
        story.rank(&fitted, &mut on_training);
    }
    let groups = stories.len().clamp(1, MAX_GROUPS);
    let mut validated = Ranked::default();
    for group in 0..groups {
        let weights = fitted_without(Some(group), groups);
        let of_group = stories.iter().skip(group).step_by(groups);
        of_group.for_each(|story| story.rank(&weights, &mut validated));
    }
    let differs = |story: &LabelledStory, term: usize| {
        story.candidates.iter().any(|evidence| evidence[term] != story.candidates[0][term])
    };
    let stories_of_term =
        std::array::from_fn(|term| stories.iter().filter(|story| differs(story, term)).count());
    let with_cause = stories.iter().filter(|s| matches!(s.label, Label::Cause(_))).count();
    let with_wrong = stories.len() - with_cause;
    Calibration { fitted, stories_of_term, with_cause, with_wrong, before, validated, on_training }
}

/// How strongly each weight is pulled to the one in use: the inverse of its variance.
fn pull_of(in_use: &Weights) -> Evidence {
    in_use.values().map(|weight| {
        let deviation = (DEVIATION * weight).max(MIN_DEVIATION);
        1.0 / (deviation * deviation)
    })
}

/// Pairwise logistic regression by Newton's method: the weights that minimise the sum of
/// `ln(1 + exp(−w · comparison))` and of half of `pull · (w − towards)²`. They aren't
/// negative: where the best one would be, the term is without weight, and the others are fitted
/// again.
pub(super) fn fit(comparisons: &[Comparison], towards: &Weights, pull: Evidence) -> Weights {
    let towards = towards.values();
    let mut is_free = [true; TERMS.len()];
    loop {
        let weights = minimum(comparisons, &towards, &pull, &is_free);
        let mut is_feasible = true;
        for (free, weight) in is_free.iter_mut().zip(weights) {
            if *free && weight < 0.0 {
                (*free, is_feasible) = (false, false);
            }
        }
        if is_feasible {
            return Weights::from_values(weights.map(|weight| weight.clamp(0.0, MAX_WEIGHT)));
        }
    }
}

/// The minimum with those weights at zero that aren't free.
fn minimum(
    comparisons: &[Comparison],
    towards: &Evidence,
    pull: &Evidence,
    is_free: &[bool; TERMS.len()],
) -> Evidence {
    let mut weights: Evidence =
        std::array::from_fn(|term| if is_free[term] { towards[term] } else { 0.0 });
    let mut loss = loss_of(comparisons, towards, pull, &weights);
    for _ in 0..MAX_STEPS {
        let (gradient, curvature) = derivatives(comparisons, towards, pull, &weights, is_free);
        let step = solve(curvature, gradient);
        if step.iter().all(|step| step.abs() < SMALL_STEP) {
            break;
        }
        // The loss is convex: a part of Newton's step makes it smaller.
        let mut part = 1.0;
        let next = loop {
            let next: Evidence = std::array::from_fn(|term| weights[term] - part * step[term]);
            let next_loss = loss_of(comparisons, towards, pull, &next);
            if next_loss <= loss || part < SMALL_STEP {
                loss = next_loss;
                break next;
            }
            part /= 2.0;
        };
        weights = next;
    }
    weights
}

fn dot(a: &Evidence, b: &Evidence) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn loss_of(
    comparisons: &[Comparison],
    towards: &Evidence,
    pull: &Evidence,
    weights: &Evidence,
) -> f64 {
    let data = comparisons.iter().map(|one| {
        let margin = dot(one, weights);
        // ln(1 + exp(−margin)), without overflow.
        (-margin.abs()).exp().ln_1p() + (-margin).max(0.0)
    });
    let pulled = (0..TERMS.len()).map(|term| {
        let distance = weights[term] - towards[term];
        0.5 * pull[term] * distance * distance
    });
    data.sum::<f64>() + pulled.sum::<f64>()
}

/// The gradient and the matrix of second derivatives.
fn derivatives(
    comparisons: &[Comparison],
    towards: &Evidence,
    pull: &Evidence,
    weights: &Evidence,
    is_free: &[bool; TERMS.len()],
) -> (Evidence, [Evidence; TERMS.len()]) {
    let mut gradient: Evidence =
        std::array::from_fn(|term| pull[term] * (weights[term] - towards[term]));
    let mut curvature = [[0.0; TERMS.len()]; TERMS.len()];
    for (term, row) in curvature.iter_mut().enumerate() {
        row[term] = pull[term];
    }
    for difference in comparisons {
        let wrong = 1.0 / (1.0 + dot(difference, weights).exp());
        for (row, x) in difference.iter().enumerate() {
            gradient[row] -= wrong * x;
            for (column, y) in difference.iter().enumerate() {
                curvature[row][column] += wrong * (1.0 - wrong) * x * y;
            }
        }
    }
    for (fixed, _) in is_free.iter().enumerate().filter(|(_, free)| !**free) {
        gradient[fixed] = 0.0;
        curvature[fixed] = [0.0; TERMS.len()];
        curvature.iter_mut().for_each(|row| row[fixed] = 0.0);
        curvature[fixed][fixed] = 1.0;
    }
    (gradient, curvature)
}

/// Solves `matrix · x = vector` for a positive definite matrix, by elimination.
fn solve(mut matrix: [Evidence; TERMS.len()], mut vector: Evidence) -> Evidence {
    for pivot in 0..TERMS.len() {
        let pivot_row = matrix[pivot];
        for row in pivot + 1..TERMS.len() {
            let factor = matrix[row][pivot] / pivot_row[pivot];
            for (to, from) in matrix[row].iter_mut().zip(pivot_row) {
                *to -= factor * from;
            }
            vector[row] -= factor * vector[pivot];
        }
    }
    for row in (0..TERMS.len()).rev() {
        let known: f64 = (row + 1..TERMS.len()).map(|at| matrix[row][at] * vector[at]).sum();
        vector[row] = (vector[row] - known) / matrix[row][row];
    }
    vector
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::random::Random;
    use super::*;

    /// Stories of a world with these weights: of each, one candidate is the cause, with the odds
    /// that its evidence gives it.
    fn world(weights: &Weights, stories: usize, seed: u64) -> Vec<LabelledStory> {
        let mut random = Random::new(seed);
        let story = |_| {
            let number = 2 + (random.next() * 5.0) as usize;
            let candidates: Vec<Evidence> =
                (0..number).map(|_| std::array::from_fn(|_| 3.0 * (random.next() - 0.5))).collect();
            let odds: Vec<f64> = candidates.iter().map(|one| weights.score(one).exp()).collect();
            let mut at = random.next() * odds.iter().sum::<f64>();
            let cause = odds.iter().position(|odds| {
                at -= odds;
                at < 0.0
            });
            LabelledStory { candidates, label: Label::Cause(cause.unwrap_or(0)) }
        };
        (0..stories).map(story).collect()
    }

    fn other_world() -> Weights {
        Weights::from_values([1.2, 0.1, 0.8, 0.6, 0.1, 0.4, 0.7, 1.5])
    }

    #[test]
    fn weights_of_another_world_are_recovered() {
        let found = calibrate(&world(&other_world(), 2_000, 1), &Weights::DEFAULT);
        for ((name, expected), fitted) in
            TERMS.iter().zip(other_world().values()).zip(found.fitted.values())
        {
            assert!((expected - fitted).abs() < 0.2, "{name}: {fitted} instead of {expected}");
        }
        assert!(found.validated.causes_first > found.before.causes_first + 100, "{found:?}");
    }

    #[test]
    fn wrong_causes_without_a_real_one_measure_and_do_not_shrink_the_weights() {
        let known = world(&other_world(), 300, 2);
        let mut wrong = world(&other_world(), 300, 3);
        wrong.retain_mut(|story| {
            let Label::Cause(cause) = story.label else { return false };
            let first = story.first(&Weights::DEFAULT);
            story.label = Label::NotCause(first);
            first != cause
        });
        let all = [known.clone(), wrong.clone()].concat();
        let (fitted, alone) =
            (calibrate(&all, &Weights::DEFAULT), calibrate(&known, &Weights::DEFAULT));
        assert_eq!(fitted.fitted, alone.fitted);
        assert_eq!((fitted.with_cause, fitted.with_wrong), (known.len(), wrong.len()));
        assert_eq!(fitted.before.wrong_not_first, 0, "each of them was first");
        assert!(fitted.validated.wrong_not_first > wrong.len() / 4, "{fitted:?}");
    }

    #[test]
    fn few_stories_change_little_and_none_nothing() {
        let none = calibrate(&[], &Weights::DEFAULT);
        assert_eq!(none.fitted, Weights::DEFAULT);
        let few = calibrate(&world(&other_world(), 3, 4), &Weights::DEFAULT);
        for (fitted, weight) in few.fitted.values().into_iter().zip(Weights::DEFAULT.values()) {
            assert!((fitted - weight).abs() < 0.5 * weight.max(0.2), "{fitted}, {weight}");
        }
    }

    #[test]
    fn term_that_candidates_have_in_common_keeps_its_weight() {
        let mut stories = world(&other_world(), 500, 5);
        for story in &mut stories {
            story.candidates.iter_mut().for_each(|evidence| evidence[3] = 7.0);
        }
        let found = calibrate(&stories, &Weights::DEFAULT);
        assert_eq!(found.stories_of_term[3], 0);
        assert!((found.fitted.severity - Weights::DEFAULT.severity).abs() < 1e-9);
    }

    #[test]
    fn evidence_against_itself_gets_no_weight() {
        // The cause always has the weaker deviation.
        let story = |n: usize| {
            let mut candidates = vec![[0.0; TERMS.len()]; 2];
            candidates[0][0] = 2.0 + (n % 3) as f64;
            LabelledStory { candidates, label: Label::Cause(1) }
        };
        let stories: Vec<_> = (0..200).map(story).collect();
        assert_eq!(calibrate(&stories, &Weights::DEFAULT).fitted.deviation, 0.0);
    }

    proptest! {
        /// Any evidence gives weights within the bounds of the configuration.
        #[test]
        fn fitted_weights_are_valid(
            stories in prop::collection::vec(
                (prop::collection::vec(prop::array::uniform8(-50.0f64..50.0), 0..6), any::<bool>(), 0usize..6),
                0..12,
            ),
        ) {
            let stories: Vec<LabelledStory> = stories
                .into_iter()
                .map(|(candidates, is_cause, at)| LabelledStory {
                    candidates,
                    label: if is_cause { Label::Cause(at) } else { Label::NotCause(at) },
                })
                .collect();
            let found = calibrate(&stories, &Weights::DEFAULT);
            for weight in found.fitted.values() {
                prop_assert!((0.0..=MAX_WEIGHT).contains(&weight), "{weight}");
            }
            let usable = stories.iter().filter(|story| story.is_usable()).count();
            prop_assert_eq!(found.with_cause + found.with_wrong, usable);
            prop_assert!(found.validated.causes_first <= found.with_cause);
        }
    }
}
