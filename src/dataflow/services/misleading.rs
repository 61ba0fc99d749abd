//! Callees that answer wrongly: nothing of them deviates, but that their callers fail.

use std::collections::{BTreeMap, BTreeSet};

use super::blame::{CALLEE_EXPLAINS, CallGraph, Evidence, Suspect};
use super::deviation::Feature;
use super::fact::Key;

/// Callers that fail, for their callee to be a suspect.
const MIN_CALLERS: usize = 2;

/// Instances that answer wrongly: all callers fail, several, without an explanation but each other;
/// or one does, and the callee ends its runs sooner than ever.
pub(super) fn misleading_callees(
    found: &BTreeMap<Key, Suspect>,
    explained: &BTreeMap<Key, Key>,
    graph: CallGraph<'_>,
) -> Vec<Suspect> {
    let mut callers_of: BTreeMap<Key, BTreeSet<Key>> = BTreeMap::new();
    for (caller, callees) in graph.calls {
        for callee in callees.iter().filter(|callee| *callee != caller) {
            callers_of.entry(*callee).or_default().insert(*caller);
        }
    }
    // An operation that doesn't call the callee fails for another reason.
    let calls = |of: &Evidence, callee: Key| {
        let operation = (of.instance, of.operation);
        graph.failing.get(&operation).is_none_or(|callees| callees.contains(&callee))
    };
    let failure = |caller: &Key, callee: Key, callers: &BTreeSet<Key>| {
        let is_open = explained.get(caller).is_none_or(|by| callers.contains(by));
        let suspect = found.get(caller).filter(|_| is_open)?;
        let failed = *suspect.evidence.iter().find(|e| {
            e.deviation.feature == Feature::Failed && e.instance == *caller && calls(e, callee)
        })?;
        // One that loses packets fails for that, whatever it is answered.
        let least = CALLEE_EXPLAINS * failed.strength;
        let is_lost =
            |e: &Evidence| e.deviation.feature.connected_to().is_some() && e.strength >= least;
        (!suspect.evidence.iter().any(is_lost)).then_some((failed, suspect))
    };
    let mut misleading = Vec::new();
    for (callee, callers) in callers_of {
        let failing: Vec<_> =
            callers.iter().filter_map(|caller| failure(caller, callee, &callers)).collect();
        let has_fault = found
            .get(&callee)
            .is_some_and(|own| own.evidence.iter().any(|e| e.deviation.is_fault()));
        let mut own: Vec<Evidence> = Vec::new();
        own.extend(found.get(&callee).into_iter().flat_map(|own| own.evidence.iter()));
        own.retain(|evidence| evidence.deviation.is_quicker());
        let is_common = callers.len() >= MIN_CALLERS && failing.len() == callers.len();
        if has_fault || (!is_common && own.is_empty()) {
            continue;
        }
        let best = failing.iter().max_by(|a, b| a.1.score.total_cmp(&b.1.score));
        let Some((_, worst)) = best else { continue };
        misleading.push(Suspect {
            instance: callee,
            score: worst.score + 0.01,
            own_score: worst.score,
            explains: Some(worst.instance),
            evidence: own.into_iter().chain(failing.iter().map(|of| of.0)).collect(),
        });
    }
    misleading
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::blame::tests::{calls, evidence, ranked};
    use crate::services::blame::{FailingCalls, suspects};
    use crate::services::deviation::Fault;

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
        let (calls, connections) = (&calls(&pairs), &super::super::blame::Calls::new());
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
