//! The rules in force while events stream: read by every collector and shard without a lock, exchanged as a
//! whole by a reload.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::rule::Rule;
use super::set::RuleSet;
use tapio_core::event::Event;
use tapio_core::ring::{Route, Router};

/// The rules in force.
pub struct LiveRules {
    current: ArcSwap<RuleSet>,
}

impl LiveRules {
    /// Starts with these rules.
    #[must_use]
    pub fn new(rules: impl Into<Arc<RuleSet>>) -> Self {
        Self { current: ArcSwap::new(rules.into()) }
    }

    /// The rules in force now.
    #[must_use]
    pub fn current(&self) -> Arc<RuleSet> {
        self.current.load_full()
    }

    /// The rules in force, where they aren't these any more.
    #[must_use]
    pub fn newer(&self, than: &Arc<RuleSet>) -> Option<Arc<RuleSet>> {
        let current = self.current.load();
        (!Arc::ptr_eq(&current, than)).then(|| Arc::clone(&current))
    }

    /// Puts other rules in force. Keys keep their owners, so that what is pending for an unchanged rule goes
    /// on where it is. Each shard takes them over before its next record; an event that is under way is seen
    /// by the shards that either set sends it to.
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
