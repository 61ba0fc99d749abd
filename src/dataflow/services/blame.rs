//! From which instance a disturbance starts.
//!
//! A slow or failing service makes its callers slow and failing, too: of two that deviate and of
//! which one calls the other, the callee comes first, unless the caller deviates much more. A slow
//! call whose callee is as fast as ever is between the two: it counts for both, for the caller
//! alone if its own code has become slow as well, or its calls to most others.

use std::collections::{BTreeMap, BTreeSet};

use super::fact::Key;
use super::operation::{Deviation, Feature};

/// A caller whose own time deviates by this part of a call's deviation explains the slow call.
const OWN_TIME_EXPLAINS: f64 = 0.6;
/// A callee that deviates by this part of its caller's deviation explains the caller's.
const CALLEE_EXPLAINS: f64 = 0.55;
/// The part that remains of the score of a caller whose callee explains it.
const EXPLAINED: f64 = 0.9;
/// The weight of the deviations after the strongest one: many weak ones often have one cause.
const OTHERS: f64 = 0.1;
/// Deviations that count beside the strongest.
const MAX_OTHERS: usize = 3;

/// A deviation of an operation of an instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Evidence {
    pub(super) instance: Key,
    pub(super) operation: Key,
    pub(super) deviation: Deviation,
    /// How much it speaks for a fault, [`Deviation::strength`].
    pub(super) strength: f64,
}

/// Which instance calls which.
pub(super) type Calls = BTreeMap<Key, BTreeSet<Key>>;

/// An instance that may be the cause.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Suspect {
    pub(super) instance: Key,
    pub(super) score: f64,
    /// By its own evidence alone.
    pub(super) own_score: f64,
    /// The caller whose deviation it explains.
    pub(super) explains: Option<Key>,
    /// Its evidence, the strongest first.
    pub(super) evidence: Vec<Evidence>,
}

/// The ends of calls that deviate: for each caller its callees, and for each callee its callers.
struct SlowCalls {
    callees: BTreeMap<Key, BTreeSet<Key>>,
    callers: BTreeMap<Key, BTreeSet<Key>>,
}

impl SlowCalls {
    fn new(all: &[Evidence]) -> Self {
        let (mut callees, mut callers) = (Calls::new(), Calls::new());
        for evidence in all {
            if let Feature::CallTime(callee) = evidence.deviation.feature {
                callees.entry(evidence.instance).or_default().insert(callee);
                callers.entry(callee).or_default().insert(evidence.instance);
            }
        }
        Self { callees, callers }
    }

    /// Whether a slow call comes from its caller's end: calls to several callees, and to most, are
    /// slow, and to this callee of no more callers.
    fn is_of_caller(&self, caller: Key, callee: Key, calls: &Calls) -> bool {
        let number = |of: &Calls, at: Key| of.get(&at).map_or(0, BTreeSet::len);
        let slow = number(&self.callees, caller);
        slow >= 2 && 2 * slow >= number(calls, caller) && slow > number(&self.callers, callee)
    }
}

/// The evidence of each instance.
fn by_instance(all: &[Evidence], calls: &Calls) -> BTreeMap<Key, Vec<Evidence>> {
    let mut found: BTreeMap<Key, Vec<Evidence>> = BTreeMap::new();
    let own_time = |instance: Key| {
        let own = all
            .iter()
            .filter(|e| e.instance == instance && e.deviation.feature == Feature::OwnTime);
        own.map(|e| e.strength).fold(0.0, f64::max)
    };
    let slow = SlowCalls::new(all);
    for evidence in all {
        let caller = evidence.instance;
        found.entry(caller).or_default().push(*evidence);
        if let Feature::CallTime(callee) = evidence.deviation.feature
            && own_time(caller) < OWN_TIME_EXPLAINS * evidence.strength
            && !slow.is_of_caller(caller, callee, calls)
        {
            found.entry(callee).or_default().push(*evidence);
        }
    }
    for evidence in found.values_mut() {
        evidence.sort_by(|a, b| b.strength.total_cmp(&a.strength));
    }
    found
}

fn score(evidence: &[Evidence]) -> f64 {
    let strongest = evidence.first().map_or(0.0, |e| e.strength);
    let others: f64 = evidence.iter().skip(1).take(MAX_OTHERS).map(|e| e.strength).sum();
    strongest + OTHERS * others
}

/// The deepest suspect that an instance calls, directly or through other suspects, and that
/// explains its deviation.
fn explanation(of: (Key, f64), scores: &BTreeMap<Key, f64>, calls: &Calls) -> Option<Key> {
    let (of, score) = of;
    let least = CALLEE_EXPLAINS * score;
    let explains = |callee: &Key| scores.get(callee).is_some_and(|score| *score >= least);
    let callees = |of: &Key| calls.get(of).into_iter().flatten().copied();
    let (mut seen, mut open) = (BTreeSet::from([of]), vec![of]);
    while let Some(caller) = open.pop() {
        for callee in callees(&caller).filter(explains) {
            if seen.insert(callee) {
                open.push(callee);
            }
        }
    }
    let is_deepest = |at: &Key| callees(at).all(|callee| callee == *at || !seen.contains(&callee));
    let deepest = seen.iter().copied().filter(|at| *at != of).filter(is_deepest);
    let score = |at: &Key| scores.get(at).copied().unwrap_or_default();
    deepest.max_by(|a, b| score(a).total_cmp(&score(b)))
}

/// The suspects of a disturbance, the likeliest first.
pub(super) fn suspects(all: &[Evidence], calls: &Calls) -> Vec<Suspect> {
    let evidence = by_instance(all, calls);
    let scores: BTreeMap<Key, f64> =
        evidence.iter().map(|(instance, evidence)| (*instance, score(evidence))).collect();
    let faults: BTreeMap<Key, f64> = evidence
        .iter()
        .map(|(instance, evidence)| {
            let faults = evidence.iter().filter(|e| e.deviation.is_fault()).copied();
            (*instance, score(&faults.collect::<Vec<_>>()))
        })
        .collect();
    let mut found: BTreeMap<Key, Suspect> = evidence
        .into_iter()
        .map(|(instance, evidence)| {
            let own_score = score(&evidence);
            let suspect =
                Suspect { instance, score: own_score, own_score, explains: None, evidence };
            (instance, suspect)
        })
        .collect();
    for (caller, score) in &scores {
        let Some(callee) = explanation((*caller, *score), &faults, calls) else { continue };
        if let Some(callee) = found.get_mut(&callee)
            && callee.score < score + 0.01
        {
            callee.score = score + 0.01;
            callee.explains = Some(*caller);
        }
        if let Some(caller) = found.get_mut(caller) {
            caller.score *= EXPLAINED;
        }
    }
    let mut ranked: Vec<Suspect> = found.into_values().collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    ranked
}

/// The parts of the call graph in which instances deviate: each a set of instances of which each
/// calls another one, or is called by one.
pub(super) fn connected(all: &[Evidence], calls: &Calls) -> Vec<BTreeSet<Key>> {
    let mut left: BTreeSet<Key> = all.iter().map(|evidence| evidence.instance).collect();
    left.extend(all.iter().filter_map(|evidence| match evidence.deviation.feature {
        Feature::CallTime(callee) => Some(callee),
        _ => None,
    }));
    let mut near: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
    for caller in &left {
        for callee in calls.get(caller).into_iter().flatten().filter(|at| left.contains(*at)) {
            near.entry(*caller).or_default().push(*callee);
            near.entry(*callee).or_default().push(*caller);
        }
    }
    let mut parts = Vec::new();
    while let Some(first) = left.pop_first() {
        let (mut part, mut open) = (BTreeSet::from([first]), vec![first]);
        while let Some(at) = open.pop() {
            for key in near.get(&at).into_iter().flatten() {
                if left.remove(key) {
                    part.insert(*key);
                    open.push(*key);
                }
            }
        }
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{EventId, Severity};

    fn evidence(instance: Key, feature: Feature, z: f64) -> Evidence {
        let example = (0, EventId::default());
        let severity = Severity::ERROR;
        let deviation =
            Deviation { feature, z, usual: 1.0, now: 2.0, severity, lasts: true, example };
        Evidence { instance, operation: 1, deviation, strength: z.ln_1p() }
    }

    fn calls(pairs: &[(Key, Key)]) -> Calls {
        let mut calls = Calls::new();
        for (caller, callee) in pairs {
            calls.entry(*caller).or_default().insert(*callee);
        }
        calls
    }

    fn ranked(all: &[Evidence], pairs: &[(Key, Key)]) -> Vec<Key> {
        suspects(all, &calls(pairs)).iter().map(|suspect| suspect.instance).collect()
    }

    #[test]
    fn deepest_callee_comes_before_its_callers() {
        let all = [
            evidence(1, Feature::Failed, 30.0),
            evidence(2, Feature::Failed, 25.0),
            evidence(3, Feature::Logs(7), 12.0),
        ];
        assert_eq!(ranked(&all, &[(1, 2), (2, 3)]), [3, 1, 2]);
        // A callee that deviates little explains nothing.
        let all = [evidence(1, Feature::Failed, 3_000.0), evidence(2, Feature::Failed, 4.0)];
        assert_eq!(ranked(&all, &[(1, 2)]), [1, 2]);
    }

    #[test]
    fn slow_call_counts_for_the_callee_unless_the_caller_is_slow_itself() {
        let call = evidence(1, Feature::CallTime(2), 50.0);
        assert_eq!(ranked(&[call], &[(1, 2)])[0], 2);
        let own = evidence(1, Feature::OwnTime, 40.0);
        assert_eq!(ranked(&[call, own], &[(1, 2)]), [1]);
    }

    #[test]
    fn slow_calls_to_most_callees_are_the_callers() {
        let slow = [2, 3].map(|callee| evidence(1, Feature::CallTime(callee), 50.0));
        assert_eq!(ranked(&slow, &[(1, 2), (1, 3), (1, 4)]), [1]);
        // Of many callees two are slow.
        let pairs = [2, 3, 4, 5, 6].map(|callee| (1, callee));
        assert_eq!(ranked(&slow, &pairs)[2], 1);
        // As many callers wait for one callee.
        let other = evidence(9, Feature::CallTime(2), 60.0);
        let all = [slow[0], slow[1], other];
        assert_eq!(ranked(&all, &[(1, 2), (1, 3), (9, 2)])[0], 2);
    }

    #[test]
    fn circles_of_calls_end() {
        let all = [evidence(1, Feature::Failed, 9.0), evidence(2, Feature::Failed, 8.0)];
        assert_eq!(ranked(&all, &[(1, 2), (2, 1)]).len(), 2);
    }

    #[test]
    fn parts_are_connected_by_calls() {
        let all = [1, 2, 5].map(|instance| evidence(instance, Feature::Failed, 9.0));
        let parts = connected(&all, &calls(&[(2, 1), (5, 6)]));
        assert_eq!(parts, [BTreeSet::from([1, 2]), BTreeSet::from([5])]);
    }
}
