//! The rule set in force while events stream. Collectors and shards read it without a lock; a
//! reload exchanges it as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::rule::Rule;
use super::set::RuleSet;
use tapio_core::event::Event;
use tapio_core::ring::{Route, Router};

/// The rule set in force.
pub struct LiveRules {
    current: ArcSwap<RuleSet>,
}

impl LiveRules {
    /// Starts with these rules.
    #[must_use]
    pub fn new(rules: impl Into<Arc<RuleSet>>) -> Self {
        Self { current: ArcSwap::new(rules.into()) }
    }

    /// The rule set in force.
    #[must_use]
    pub fn current(&self) -> Arc<RuleSet> {
        self.current.load_full()
    }

    /// The rule set in force, if it is another one than `than`.
    #[must_use]
    pub fn newer(&self, than: &Arc<RuleSet>) -> Option<Arc<RuleSet>> {
        let current = self.current.load();
        (!Arc::ptr_eq(&current, than)).then(|| Arc::clone(&current))
    }

    /// Puts other rules in force. Keys keep their owners, so partial matches and stories of an
    /// unchanged rule stay on their shards. Each shard takes over the set before its next record;
    /// an event in flight visits the shards to which either set routes it.
    pub fn replace(&self, rules: Vec<Rule>) {
        let next = self.current.load().successor(rules);
        self.current.store(Arc::new(next));
    }
}

impl Router for LiveRules {
    fn route(&self, event: &Event<'_>) -> Route {
        self.current.load().route(event)
    }
}
