//! Open disturbances.

use std::collections::{BTreeMap, BTreeSet};

use rkyv::{Archive, Deserialize, Serialize};

use super::deviation::Feature;
use super::evidence::{Calls, Evidence};
use super::fact::Key;
use super::step::STEP_NS;
use tapio_core::event::TraceId;

/// Steps without a deviation after which a disturbance ends.
const QUIET_STEPS: u32 = 3;
/// Steps after which a deviation that doesn't show any more counts half beside the others: two
/// minutes and a half. What is worse by then is another fault, or the real one.
const FADING_STEPS: f64 = 15.0;
/// Deviations kept of a disturbance.
const MAX_EVIDENCE: usize = 512;

/// A disturbance of connected services.
#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub(super) struct Disturbance {
    pub(super) id: TraceId,
    /// How often it was emitted.
    pub(super) revision: u32,
    /// The first and the last event that shows it.
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    /// The latest deviation of each feature, with its step.
    evidence: BTreeMap<(Key, Key, Feature), (Evidence, u32)>,
    /// The strongest weak deviation of each instance near it, with its step.
    hints: BTreeMap<Key, (Evidence, u32)>,
    /// The latest step that shows it.
    latest: u32,
    instances: BTreeSet<Key>,
    quiet: u32,
    /// The ranking of its last emission.
    pub(super) emitted: Vec<Key>,
}

impl Disturbance {
    /// A disturbance that begins with this evidence, in the step that ends at `end_ns`.
    pub(super) fn new(id: TraceId, end_ns: u64) -> Self {
        Self {
            id,
            revision: 0,
            first_ns: u64::MAX,
            last_ns: 0,
            evidence: BTreeMap::new(),
            hints: BTreeMap::new(),
            latest: 0,
            instances: BTreeSet::new(),
            quiet: 0,
            emitted: Vec::new(),
        }
        .starting(end_ns)
    }

    fn starting(mut self, end_ns: u64) -> Self {
        self.first_ns = end_ns;
        self.last_ns = end_ns.saturating_sub(STEP_NS);
        self
    }

    /// Adds what deviates in the step `at`.
    pub(super) fn add(&mut self, found: &[Evidence], at: u32) {
        (self.quiet, self.latest) = (0, at);
        for evidence in found {
            let (example_ns, _) = evidence.deviation.example;
            self.first_ns = self.first_ns.min(example_ns);
            self.last_ns = self.last_ns.max(example_ns);
            self.instances.insert(evidence.instance);
            // Other callers of it may be refused later.
            self.instances.extend(evidence.deviation.feature.connected_to());
            let key = (evidence.instance, evidence.operation, evidence.deviation.feature);
            let is_full = self.evidence.len() >= MAX_EVIDENCE;
            match self.evidence.get_mut(&key) {
                Some((kept, kept_at)) => {
                    let is_untried = kept.is_untried || evidence.is_untried;
                    (*kept, *kept_at) = (Evidence { is_untried, ..*evidence }, at);
                }
                None if is_full => {}
                None => {
                    self.evidence.insert(key, (*evidence, at));
                }
            }
        }
    }

    /// Notes a step in which nothing of it deviates. Returns whether it has ended.
    pub(super) fn is_over(&mut self) -> bool {
        self.quiet += 1;
        self.quiet >= QUIET_STEPS
    }

    /// Whether one of its instances is among these.
    pub(super) fn concerns(&self, instances: &BTreeSet<Key>) -> bool {
        !self.instances.is_disjoint(instances)
    }

    /// Whether an instance is one of it, calls one, or is called by one.
    pub(super) fn is_near(&self, instance: Key, calls: &Calls) -> bool {
        let calls_one = || calls.get(&instance).is_some_and(|callees| self.concerns(callees));
        let is_callee = |of: &Key| calls.get(of).is_some_and(|callees| callees.contains(&instance));
        self.instances.contains(&instance) || calls_one() || self.instances.iter().any(is_callee)
    }

    /// All that deviated. What doesn't any more fades.
    pub(super) fn evidence(&self) -> Vec<Evidence> {
        self.evidence.values().map(|kept| self.faded(kept)).collect()
    }

    /// All that deviated, and weak deviations nearby.
    pub(super) fn all_evidence(&self) -> impl Iterator<Item = Evidence> {
        self.evidence.values().chain(self.hints.values()).map(|(evidence, _)| *evidence)
    }

    fn faded(&self, (evidence, at): &(Evidence, u32)) -> Evidence {
        let part = (-f64::from(self.latest.saturating_sub(*at)) / FADING_STEPS).exp2();
        Evidence { strength: evidence.strength * part, ..*evidence }
    }

    /// Adds weak deviations in the step `at`: too weak for a disturbance, or over again.
    pub(super) fn add_hints(&mut self, found: &[Evidence], at: u32) {
        for evidence in found {
            let kept = self.hints.get(&evidence.instance).map(|kept| self.faded(kept).strength);
            if kept.is_none_or(|kept| kept < evidence.strength)
                && (kept.is_some() || self.hints.len() < MAX_EVIDENCE)
            {
                self.hints.insert(evidence.instance, (*evidence, at));
            }
        }
    }

    /// The strongest weak deviation of each instance.
    pub(super) fn hints(&self) -> impl Iterator<Item = Evidence> {
        self.hints.values().map(|kept| self.faded(kept))
    }
}
