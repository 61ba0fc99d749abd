//! New instances of known services. A pod of a new release fails more often than the pods before
//! it, or as often as they do: its operations begin with their past, as far as failures are
//! concerned. How long it takes, and what it calls and reports, it has to learn by itself: caches
//! are cold, and a release may work otherwise.

use std::collections::HashMap;

use super::fact::Key;
use super::learner::Services;
use super::operation::Operation;

/// The interval at which elders are looked for: a minute.
const INTERVAL_STEPS: u32 = 6;
/// Runs that an elder had.
const MIN_RUNS: f64 = 64.0;

impl Services {
    /// Looks for elders among the instances that are known.
    pub(super) fn find_elders(&mut self, now: u32) {
        if !now.is_multiple_of(INTERVAL_STEPS) {
            return;
        }
        let mut runs: HashMap<(Key, Key), f64> = HashMap::new();
        let mut elders = HashMap::new();
        for ((instance, operation), learned) in &self.operations {
            let own = learned.past_runs();
            let key = (self.service_of(*instance), *operation);
            if own >= MIN_RUNS && runs.get(&key).is_none_or(|most| *most < own) {
                runs.insert(key, own);
                elders.insert(key, *instance);
            }
        }
        self.elders = elders;
    }

    /// The beginning of an operation that is new on this instance.
    pub(super) fn beginning(&self, instance: Key, operation: Key) -> Operation {
        let elder = self.elders.get(&(self.service_of(instance), operation));
        let elder = elder.and_then(|elder| self.operations.get(&(*elder, operation)));
        elder
            .filter(|elder| elder.failures() <= self.room)
            .map_or_else(Operation::default, |elder| elder.heir(self.next_step))
    }
}
