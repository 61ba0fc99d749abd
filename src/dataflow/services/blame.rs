//! From which instance a disturbance starts.
//!
//! A slow or failing service makes its callers slow and failing, too: of two that deviate and of
//! which one calls the other, the callee comes first, unless the caller deviates much more. A slow
//! call whose callee is as fast as ever is between the two: it counts for both, for the caller
//! alone if its own code has become slow as well, or most of the calls that it makes or takes.
//! Calls that fail or last, and of which the callee doesn't say anything any more, count for the
//! callee.

use std::collections::{BTreeMap, BTreeSet};

use super::deviation::Feature;
use super::evidence::{CALLEE_EXPLAINS, CallGraph, Calls, Evidence, Suspect};
use super::fact::Key;
use super::misleading::misleading_callees;

/// A caller whose own time deviates by this part of a call's deviation explains the slow call.
const OWN_TIME_EXPLAINS: f64 = 0.6;
/// The part that remains of the score of a caller whose callee explains it.
const EXPLAINED: f64 = 0.9;
/// The weight of the deviations after the strongest one: many weak ones often have one cause.
const OTHERS: f64 = 0.1;
/// The weight of a deviation that is too weak for a disturbance.
const HINT_WEIGHT: f64 = 0.3;
/// Deviations that count beside the strongest.
const MAX_OTHERS: usize = 3;

/// Calls that deviate: how many each instance is an end of, and which callees are silent.
struct SlowCalls {
    /// By spans, and by connections.
    ends: [Calls; 2],
    /// All that an instance calls, and that call it.
    neighbours: [Calls; 2],
    /// Operations that call, and the callee that was seen in most runs and is no more: it hangs, or
    /// is gone, or the network is.
    silent: BTreeMap<(Key, Key), Key>,
}

impl SlowCalls {
    fn new(all: &[Evidence], graph: CallGraph<'_>) -> Self {
        let mut ends = [Calls::new(), Calls::new()];
        let mut neighbours = [Calls::new(), Calls::new()];
        let mut silent = BTreeMap::new();
        let note = |of: &mut Calls, caller: Key, callee: Key| {
            of.entry(caller).or_default().insert(callee);
            of.entry(callee).or_default().insert(caller);
        };
        for Evidence { instance, operation, deviation, is_untried, .. } in all {
            match deviation.feature {
                Feature::CallTime(callee) => note(&mut ends[0], *instance, callee),
                Feature::ConnectTime(callee) | Feature::Connection(_, callee) => {
                    note(&mut ends[1], *instance, callee);
                }
                Feature::Calls(callee, _)
                    if callee != 0 && deviation.now <= deviation.usual / 2.0 && !is_untried =>
                {
                    silent.insert((*instance, *operation), callee);
                }
                _ => {}
            }
        }
        for (number, calls) in [graph.calls, graph.connections].into_iter().enumerate() {
            for (caller, callees) in calls {
                callees.iter().for_each(|callee| note(&mut neighbours[number], *caller, *callee));
            }
        }
        Self { ends, neighbours, silent }
    }

    /// Whether a slow call comes from its caller's end: most calls that the caller makes or takes
    /// are slow, and fewer of the callee's.
    fn is_of_caller(&self, caller: Key, callee: Key, feature: Feature) -> bool {
        let graph = usize::from(feature.connected_to().is_some());
        let (ends, neighbours) = (&self.ends[graph], &self.neighbours[graph]);
        let number = |of: &Calls, at: Key| of.get(&at).map_or(0, BTreeSet::len);
        let slow = number(ends, caller);
        slow >= 2 && 2 * slow >= number(neighbours, caller) && slow > number(ends, callee)
    }

    /// The callee that an operation waits for in vain, by evidence that its runs fail or last.
    fn silent_callee(&self, evidence: &Evidence) -> Option<Key> {
        let is_of_run = matches!(evidence.deviation.feature, Feature::Failed | Feature::OwnTime)
            && !evidence.deviation.is_quicker();
        let key = (evidence.instance, evidence.operation);
        self.silent.get(&key).copied().filter(|_| is_of_run)
    }
}

/// The evidence of each instance.
fn by_instance(all: &[Evidence], graph: CallGraph<'_>) -> BTreeMap<Key, Vec<Evidence>> {
    let mut found: BTreeMap<Key, Vec<Evidence>> = BTreeMap::new();
    let slow = SlowCalls::new(all, graph);
    let own_time = |instance: Key| {
        let is_own = |e: &&Evidence| {
            e.instance == instance
                && e.deviation.feature == Feature::OwnTime
                && !e.deviation.is_quicker()
                && slow.silent_callee(e).is_none()
        };
        all.iter().filter(is_own).map(|e| e.strength).fold(0.0, f64::max)
    };
    for evidence in all {
        let caller = evidence.instance;
        found.entry(caller).or_default().push(*evidence);
        if let Some(callee) = slow.silent_callee(evidence) {
            found.entry(callee).or_default().push(*evidence);
        }
        let feature = evidence.deviation.feature;
        // A caller that is slow itself isn't refused or reset for that.
        let is_time = matches!(feature, Feature::CallTime(_) | Feature::ConnectTime(_));
        if let Some(callee) = feature.callee()
            && (!is_time || own_time(caller) < OWN_TIME_EXPLAINS * evidence.strength)
            && !slow.is_of_caller(caller, callee, feature)
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
fn explanation(of: (Key, f64), scores: &BTreeMap<Key, f64>, graph: CallGraph<'_>) -> Option<Key> {
    let (of, score) = of;
    let least = CALLEE_EXPLAINS * score;
    let explains = |callee: &Key| scores.get(callee).is_some_and(|score| *score >= least);
    let (mut seen, mut open) = (BTreeSet::from([of]), vec![of]);
    while let Some(caller) = open.pop() {
        for callee in graph.callees(caller).filter(explains) {
            if seen.insert(callee) {
                open.push(callee);
            }
        }
    }
    let is_deepest =
        |at: &Key| graph.callees(*at).all(|callee| callee == *at || !seen.contains(&callee));
    let deepest = seen.iter().copied().filter(|at| *at != of).filter(is_deepest);
    let score = |at: &Key| scores.get(at).copied().unwrap_or_default();
    deepest.max_by(|a, b| score(a).total_cmp(&score(b)))
}

/// Adds the instances that show weak deviations only, which others may explain as well, to the
/// suspects.
pub(super) fn add_hints(suspects: &mut Vec<Suspect>, hints: impl Iterator<Item = Evidence>) {
    let known: BTreeSet<Key> = suspects.iter().map(|suspect| suspect.instance).collect();
    suspects.extend(hints.filter(|hint| !known.contains(&hint.instance)).map(|hint| {
        let score = HINT_WEIGHT * hint.strength;
        let Evidence { instance, .. } = hint;
        Suspect { instance, score, own_score: score, explains: None, evidence: vec![hint] }
    }));
    suspects.sort_by(|a, b| b.score.total_cmp(&a.score));
}

/// The suspects of a disturbance, the likeliest first.
pub(super) fn suspects(all: &[Evidence], graph: CallGraph<'_>) -> Vec<Suspect> {
    let evidence = by_instance(all, graph);
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
    let mut explained = BTreeMap::new();
    for (caller, score) in &scores {
        let Some(callee) = explanation((*caller, *score), &faults, graph) else { continue };
        explained.insert(*caller, callee);
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
    let misleading = misleading_callees(&found, &explained, graph);
    found.extend(misleading.into_iter().map(|suspect| (suspect.instance, suspect)));
    let mut ranked: Vec<Suspect> = found.into_values().collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    ranked
}

/// The parts of the call graph in which instances deviate: each a set of instances of which each
/// calls another one, or is called by one.
pub(super) fn connected(all: &[Evidence], graph: CallGraph<'_>) -> Vec<BTreeSet<Key>> {
    let mut left: BTreeSet<Key> = all.iter().map(|evidence| evidence.instance).collect();
    left.extend(all.iter().filter_map(|evidence| evidence.deviation.feature.callee()));
    let mut near: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
    for caller in &left {
        for callee in graph.callees(*caller).filter(|at| left.contains(at)) {
            near.entry(*caller).or_default().push(callee);
            near.entry(callee).or_default().push(*caller);
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
    use crate::services::deviation::{Deviation, Fault};
    use crate::services::evidence::FailingCalls;
    use tapio_core::event::{EventId, Severity};

    fn evidence(instance: Key, feature: Feature, z: f64) -> Evidence {
        let example = (0, EventId::default());
        let severity = Severity::ERROR;
        let deviation = Deviation {
            feature,
            z,
            usual: 1.0,
            now: 2.0,
            severity,
            lasts: true,
            example,
            slowness: None,
        };
        let strength = z.ln_1p();
        Evidence { instance, operation: 1, deviation, strength, is_untried: false }
    }

    fn calls(pairs: &[(Key, Key)]) -> Calls {
        let mut calls = Calls::new();
        for (caller, callee) in pairs {
            calls.entry(*caller).or_default().insert(*callee);
        }
        calls
    }

    fn ranked(all: &[Evidence], pairs: &[(Key, Key)]) -> Vec<Key> {
        let (calls, connections) = (&calls(pairs), &Calls::new());
        let graph = CallGraph { calls, connections, failing: &FailingCalls::new() };
        suspects(all, graph).iter().map(|suspect| suspect.instance).collect()
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
    fn instance_with_slow_calls_on_both_sides_is_the_cause() {
        let slow =
            [evidence(1, Feature::CallTime(2), 50.0), evidence(2, Feature::CallTime(3), 60.0)];
        assert_eq!(ranked(&slow, &[(1, 2), (2, 3)])[0], 2);
    }

    #[test]
    fn callee_that_is_silent_explains_calls_that_fail() {
        let failed = evidence(1, Feature::Failed, 50.0);
        let mut silent = evidence(1, Feature::Calls(2, 7), 20.0);
        (silent.deviation.usual, silent.deviation.now) = (1.0, 0.1);
        assert_eq!(ranked(&[failed, silent], &[(1, 2)])[0], 2);
        // Where the callee goes on, its caller is the cause; or doesn't connect to it any more.
        assert_eq!(ranked(&[failed], &[(1, 2)])[0], 1);
        silent.is_untried = true;
        assert_eq!(ranked(&[failed, silent], &[(1, 2)])[0], 1);
    }

    #[test]
    fn circles_of_calls_end() {
        let all = [evidence(1, Feature::Failed, 9.0), evidence(2, Feature::Failed, 8.0)];
        assert_eq!(ranked(&all, &[(1, 2), (2, 1)]).len(), 2);
    }

    #[test]
    fn parts_are_connected_by_calls() {
        let all = [1, 2, 5].map(|instance| evidence(instance, Feature::Failed, 9.0));
        let (calls, connections) = (&calls(&[(2, 1), (5, 6)]), &Calls::new());
        let failing = &FailingCalls::new();
        let parts = connected(&all, CallGraph { calls, connections, failing });
        assert_eq!(parts, [BTreeSet::from([1, 2]), BTreeSet::from([5])]);
    }

    #[test]
    fn callee_of_which_all_callers_fail_is_the_cause() {
        let fails = |instance, z| evidence(instance, Feature::Failed, z);
        let all = [fails(1, 40.0), fails(2, 50.0), fails(3, 60.0)];
        // The third calls the others.
        let pairs = [(1, 9), (2, 9), (3, 1), (3, 2)];
        assert_eq!(ranked(&all, &pairs)[0], 9);
        // Another caller of it is fine.
        assert_ne!(ranked(&all, &[pairs.as_slice(), &[(4, 9)]].concat())[0], 9);
        // One of the callers calls the other one, too.
        assert_eq!(ranked(&all[..2], &[(1, 9), (2, 9), (2, 1)])[0], 9);
        // One caller alone fails by itself.
        assert_ne!(ranked(&[fails(1, 40.0)], &[(1, 9)])[0], 9);
    }

    #[test]
    fn callers_that_lose_packets_fail_for_that() {
        let fails = |instance, z| evidence(instance, Feature::Failed, z);
        let lossy = Feature::Connection(Fault::Retransmitted, 1);
        let mut lost = evidence(2, lossy, 200.0);
        lost.strength = 4.0;
        // The first loses packets of the second; both call a third one.
        let pairs = [(1, 9), (2, 9), (2, 1)];
        let (calls, connections) = (&calls(&pairs), &calls(&[(2, 1)]));
        let graph = CallGraph { calls, connections, failing: &FailingCalls::new() };
        let ranked = suspects(&[fails(1, 40.0), fails(2, 50.0), lost], graph);
        assert_eq!(ranked[0].instance, 1, "{ranked:?}");
        assert!(ranked.iter().all(|suspect| suspect.instance != 9), "{ranked:?}");
        let ranked = suspects(&[fails(1, 40.0), fails(2, 50.0)], graph);
        assert_eq!(ranked[0].instance, 9, "{ranked:?}");
    }

    /// Two services are called by a third and a fourth; the fourth, which the third calls, can't
    /// call anything. What the third has to do with the two doesn't fail.
    #[test]
    fn failure_of_an_operation_that_does_not_call_the_callee_says_nothing_of_it() {
        let all = [3, 4].map(|instance| evidence(instance, Feature::Failed, 40.0));
        let pairs = [(3, 1), (3, 2), (3, 4), (4, 1), (4, 2)];
        let (calls, connections) = (&calls(&pairs), &Calls::new());
        let failing = |third: &[Key]| {
            let callees = |all: &[Key]| all.iter().copied().collect::<BTreeSet<Key>>();
            FailingCalls::from([((3, 1), callees(third)), ((4, 1), callees(&[1, 2]))])
        };
        let first = |failing: &FailingCalls| {
            suspects(&all, CallGraph { calls, connections, failing })[0].instance
        };
        assert_eq!(first(&failing(&[4])), 4);
        assert_ne!(first(&failing(&[1, 4])), 4);
    }
}
