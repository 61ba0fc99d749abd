//! The baselines of a lane's rules, by rule and key. They outlive the windows of their keys, and
//! are bounded by themselves: a rule that sees many keys forgets the baselines of its own least
//! recently seen ones.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::lru::Lru;
use crate::matcher::baseline::Baseline;
use crate::matcher::window::Window;
use crate::rules::Aggregate;

/// The baselines of rules whose condition has a deviation. Empty without such rules.
pub(crate) struct Baselines {
    of_rules: HashMap<u16, Lru<Box<[u8]>, Baseline>>,
    capacity: usize,
    /// Baselines evicted by rules that are no more.
    evicted: u64,
}

impl Baselines {
    /// Creates a table of at most `capacity` baselines, one for each rule at least.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { of_rules: HashMap::new(), capacity, evicted: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.of_rules.values().map(Lru::len).sum()
    }

    /// Baselines evicted so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted + self.of_rules.values().map(|of_rule| of_rule.evicted).sum::<u64>()
    }

    /// Sets the capacity; evicts what is beyond it.
    pub(crate) fn limit(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.share();
    }

    /// Gives each rule an equal part of the capacity.
    fn share(&mut self) {
        let part = self.capacity / self.of_rules.len().max(1);
        for of_rule in self.of_rules.values_mut() {
            of_rule.limit(part);
        }
    }

    fn get(&mut self, rule: u16, key: &[u8]) -> Option<&mut Baseline> {
        self.of_rules.get_mut(&rule)?.get(key)
    }

    /// The baseline of a key as of an event of this time in its window: the windows that are over
    /// are learned. Starts it for a key that has none, or whose is outdated.
    pub(crate) fn advance(
        &mut self,
        rule: u16,
        aggregate: &Aggregate,
        key: &[u8],
        (window, time_ns): (&mut Window, u64),
    ) -> Option<&Baseline> {
        self.start(rule, aggregate, key, time_ns);
        let baseline = self.get(rule, key)?;
        if let Some(end_ns) = baseline.closing_ns(aggregate, time_ns) {
            window.close(aggregate, baseline, end_ns);
            baseline.close_silent(aggregate, time_ns);
        }
        Some(baseline)
    }

    /// Learns the window of a key that is about to be removed, if it is over.
    pub(crate) fn close(
        &mut self,
        rule: u16,
        aggregate: &Aggregate,
        key: &[u8],
        (window, clock_ns): (&mut Window, u64),
    ) {
        let Some(baseline) = self.get(rule, key) else { return };
        if let Some(end_ns) = baseline.closing_ns(aggregate, clock_ns) {
            window.close(aggregate, baseline, end_ns);
        }
    }

    fn start(&mut self, rule: u16, aggregate: &Aggregate, key: &[u8], time_ns: u64) {
        if let Entry::Vacant(vacant) = self.of_rules.entry(rule) {
            vacant.insert(Lru::new(1));
            self.share();
        }
        let Some(of_rule) = self.of_rules.get_mut(&rule) else { return };
        match of_rule.get(key) {
            None => {
                of_rule.insert(key.into(), Baseline::new(aggregate, time_ns));
            }
            Some(baseline) if baseline.is_outdated(aggregate, time_ns) => {
                *baseline = Baseline::new(aggregate, time_ns);
            }
            Some(_) => {}
        }
    }

    /// Learns a key anew: a failure may have left its baseline half changed.
    pub(crate) fn forget(&mut self, rule: u16, key: &[u8]) {
        if let Some(baseline) = self.get(rule, key) {
            baseline.forget();
        }
    }

    /// Gives each rule its new number; removes the baselines of rules that have none.
    pub(crate) fn renumber(&mut self, numbers: &[Option<u16>]) {
        for (old, of_rule) in std::mem::take(&mut self.of_rules) {
            match numbers.get(usize::from(old)).copied().flatten() {
                Some(number) => {
                    self.of_rules.insert(number, of_rule);
                }
                None => self.evicted += of_rule.evicted,
            }
        }
        self.share();
    }
}
