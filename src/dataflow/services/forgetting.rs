//! Forgetting: what is idle, and where there is no room, what has been so for the longest time.

use std::collections::BTreeSet;

use super::bounds::FORGET_INTERVAL_STEPS;
use super::fact::Key;
use super::learner::Services;
use super::operation::Operation;
use tapio_core::memory::MemoryLevel;

/// The interval at which processes that aren't reported any more are forgotten: shards report them
/// every ten minutes.
const PROCESS_INTERVAL_STEPS: u32 = 120;
/// Steps without a run after which an operation is forgotten: a day.
const FORGOTTEN_STEPS: u32 = 8_640;

impl Services {
    /// Follows the level of memory: where less is allowed than is kept, operations go first that
    /// had no run for the longest time.
    pub(crate) fn limit(&mut self, level: MemoryLevel) {
        self.bounds = self.configured.at(level);
        self.join.limit(self.bounds.spans);
        self.connections.limit(self.bounds.connections());
        let now = self.next_step;
        let mut idle: Vec<(u32, (Key, Key), usize)> = self
            .operations
            .iter()
            .map(|(key, operation)| (operation.idle_steps(now), *key, operation.features()))
            .collect();
        idle.sort_unstable();
        let mut features = self.features();
        while let Some((_, key, own)) = idle.pop()
            && (self.operations.len() > self.bounds.operations || features > self.bounds.features)
        {
            self.operations.remove(&key);
            features -= own;
        }
        self.forget_calls(now);
        self.room = self.bounds.features.saturating_sub(features);
    }

    /// Forgets operations that had no run for a day; where there is no room for others, all that
    /// had none for ten minutes. With them go the calls of their instances.
    pub(super) fn forget(&mut self, now: u32) {
        let is_full = self.operations.len() >= self.bounds.operations || self.room == 0;
        let idle_steps = if is_full { FORGET_INTERVAL_STEPS } else { FORGOTTEN_STEPS };
        self.operations.retain(|_, operation| operation.idle_steps(now) <= idle_steps);
        self.forget_calls(now);
        if now.is_multiple_of(PROCESS_INTERVAL_STEPS) {
            self.connections.forget_processes();
        }
    }

    /// Forgets calls and connections of instances without operations.
    fn forget_calls(&mut self, now: u32) {
        let operations = &self.operations;
        let is_known = |key: &Key| operations.range((*key, 0)..=(*key, Key::MAX)).next().is_some();
        self.calls.retain(|caller, _| is_known(caller));
        self.calls.values_mut().for_each(|callees| callees.retain(is_known));
        self.call_count = self.calls.values().map(BTreeSet::len).sum();
        self.forget_connections(now, FORGET_INTERVAL_STEPS);
    }

    /// The features of all operations.
    pub(super) fn features(&self) -> usize {
        self.operations.values().map(Operation::features).sum()
    }
}
