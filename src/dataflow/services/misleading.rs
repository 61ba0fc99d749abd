//! Callees that answer wrongly: nothing of them deviates, but that their callers fail.

use std::collections::{BTreeMap, BTreeSet};

use super::deviation::Feature;
use super::evidence::{CALLEE_EXPLAINS, CallGraph, Evidence, Suspect};
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
