//! Open disturbances.

use std::collections::{BTreeMap, BTreeSet};

use super::blame::Evidence;
use super::fact::Key;
use super::operation::Feature;
use super::step::STEP_NS;
use tapio_core::event::TraceId;

/// Steps without a deviation after which a disturbance ends.
const QUIET_STEPS: u32 = 3;
/// Deviations kept of a disturbance.
const MAX_EVIDENCE: usize = 512;

/// A disturbance of connected services.
#[derive(Debug)]
pub(super) struct Disturbance {
    pub(super) id: TraceId,
    /// How often it was emitted.
    pub(super) revision: u32,
    /// The first and the last event that shows it.
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    /// The latest deviation of each feature.
    evidence: BTreeMap<(Key, Key, Feature), Evidence>,
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

    /// Adds what deviates in a step.
    pub(super) fn add(&mut self, found: &[Evidence]) {
        self.quiet = 0;
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
                Some(kept) => *kept = *evidence,
                None if is_full => {}
                None => {
                    self.evidence.insert(key, *evidence);
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

    /// All that deviated.
    pub(super) fn evidence(&self) -> Vec<Evidence> {
        self.evidence.values().copied().collect()
    }
}
