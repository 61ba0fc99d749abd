//! Handling of a rule that panics: the key that it was evaluated for may be half changed, so it is
//! dropped, and its open story ends. Other keys and rules go on.

use crate::guard::{Failure, guarded};
use crate::matcher::lane::Lane;
use crate::rules::RuleSet;
use tapio_core::event::ArchivedEvent;

impl Lane {
    /// Calls `work` for each of these keys. Where it panics, the rule of that key has failed.
    pub(crate) fn each_key(
        &mut self,
        rules: &RuleSet,
        slots: &[u32],
        work: impl Fn(&mut Self, u32),
    ) {
        let mut next = 0;
        while let Err(cause) = guarded(|| {
            while let Some(slot) = slots.get(next) {
                next += 1;
                work(self, *slot);
            }
        }) {
            let slot = slots[next - 1];
            match self.keys.get(slot).map(|entry| entry.rule) {
                Some(rule) => self.rule_failed(rules, rule, Some(slot), cause),
                None => self.failures.add(None, cause),
            }
        }
    }

    /// A rule has panicked, on the key in this slot.
    #[cold]
    pub(crate) fn rule_failed(
        &mut self,
        rules: &RuleSet,
        rule: u16,
        slot: Option<u32>,
        cause: String,
    ) {
        self.failures.add(Some(rules.rules[usize::from(rule)].name), cause);
        if let Some(entry) = slot.and_then(|slot| self.keys.get(slot)) {
            self.baselines.forget(rule, &entry.key);
        }
        let Some(dropped) = slot.and_then(|slot| self.keys.remove(slot)) else { return };
        self.keys_failed += 1;
        if let Some(story) = dropped.story {
            self.stories.expire(story, &rules.rules);
        }
    }

    /// An event's evaluation has panicked outside of the rules' shapes: looks for the rules whose
    /// predicates panic on it. False where there are none.
    #[cold]
    pub(crate) fn attribute(&mut self, event: &ArchivedEvent<'_>, cause: &str) -> bool {
        let failing = self.rules.plan(event.kind_name()).failing(event);
        for rule in &failing {
            let rule = &self.rules.rules[usize::from(*rule)];
            self.failures.add(Some(rule.name), cause.to_owned());
        }
        !failing.is_empty()
    }

    /// Takes the failures since the last call.
    pub(crate) fn take_failures(&mut self) -> Vec<Failure> {
        let mut failures = self.failures.take();
        failures.append(&mut self.stories.failures.take());
        failures
    }
}
