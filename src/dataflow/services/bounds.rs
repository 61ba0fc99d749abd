//! Bounds of what is learned, and what is forgotten.

use std::collections::BTreeSet;

use super::connections::ConnectionBounds;
use super::fact::Key;
use super::learner::Services;
use super::operation::Operation;
use tapio_core::memory::MemoryLevel;

/// The interval at which what is idle is forgotten: ten minutes.
pub(super) const FORGET_INTERVAL_STEPS: u32 = 60;
/// The interval at which processes that aren't reported any more are forgotten: shards report them
/// every ten minutes.
const PROCESS_INTERVAL_STEPS: u32 = 120;
/// Steps without a run after which an operation is forgotten: a day.
const FORGOTTEN_STEPS: u32 = 8_640;

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceBounds {
    /// Operations of all instances.
    pub(crate) operations: usize,
    /// Features of all operations.
    pub(crate) features: usize,
    /// Instances, and texts of operations and templates.
    pub(crate) names: usize,
    /// Spans that await their callees, and connections that await what is known of their ends.
    pub(crate) spans: usize,
    /// Pairs of instances with connections.
    pub(crate) pairs: usize,
}

impl ServiceBounds {
    /// Live: thousands of operations in some tens of megabytes.
    pub(crate) const LIVE: Self =
        Self { operations: 32_768, features: 98_304, names: 65_536, spans: 131_072, pairs: 8_192 };
    /// Replay: enough for all that the files hold.
    pub(crate) const REPLAY: Self = Self {
        operations: 1 << 20,
        features: 1 << 22,
        names: 1 << 22,
        spans: 1 << 24,
        pairs: 1 << 18,
    };

    /// The bounds at this level of memory.
    fn at(self, level: MemoryLevel) -> Self {
        Self {
            operations: level.bound(self.operations),
            features: level.bound(self.features),
            names: level.bound(self.names),
            spans: level.bound(self.spans),
            pairs: level.bound(self.pairs),
        }
    }

    pub(super) fn connections(self) -> ConnectionBounds {
        ConnectionBounds { pairs: self.pairs, held: self.spans / 2, names: self.names }
    }
}

impl Services {
    /// Follows the level of memory: where less is allowed than is kept, operations go first that had
    /// no run for the longest time.
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
