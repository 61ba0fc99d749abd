//! Which open story is evicted for lack of room: the oldest of the rule that has the most.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tapio_core::event::TraceId;

/// The stories of one rule.
#[derive(Default)]
struct OfRule {
    /// In the order in which they were opened. Some are closed already.
    queue: VecDeque<(u64, TraceId)>,
    /// The open ones, with their numbers in the queue.
    open: HashMap<TraceId, u64, ahash::RandomState>,
}

/// The order in which open stories are evicted. A story costs constant time, on average.
#[derive(Default)]
pub(super) struct EvictionOrder {
    rules: HashMap<u16, OfRule, ahash::RandomState>,
    /// Rules by the number of their open stories.
    by_number: BTreeSet<(usize, u16)>,
    next: u64,
}

impl EvictionOrder {
    /// Adds a story of a rule.
    pub(super) fn add(&mut self, rule: u16, id: TraceId) {
        let of_rule = self.rules.entry(rule).or_default();
        self.by_number.remove(&(of_rule.open.len(), rule));
        self.next += 1;
        of_rule.queue.push_back((self.next, id));
        of_rule.open.insert(id, self.next);
        self.by_number.insert((of_rule.open.len(), rule));
    }

    /// Removes a story that has ended.
    pub(super) fn remove(&mut self, rule: u16, id: TraceId) {
        let Some(of_rule) = self.rules.get_mut(&rule) else { return };
        self.by_number.remove(&(of_rule.open.len(), rule));
        of_rule.open.remove(&id);
        if of_rule.open.is_empty() {
            self.rules.remove(&rule);
            return;
        }
        // The ended ones leave the queue at its front, or all at once when they are the most.
        let OfRule { queue, open } = of_rule;
        let is_open = |(number, id): &(u64, TraceId)| open.get(id) == Some(number);
        if queue.len() > 2 * open.len() {
            queue.retain(is_open);
        }
        self.by_number.insert((open.len(), rule));
    }

    /// The story to evict next, which stays until it is removed.
    pub(super) fn next(&mut self) -> Option<TraceId> {
        let (_, rule) = self.by_number.last()?;
        let OfRule { queue, open } = self.rules.get_mut(rule)?;
        while let Some((number, id)) = queue.front() {
            if open.get(id) == Some(number) {
                return Some(*id);
            }
            queue.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u8) -> TraceId {
        TraceId([number; 16])
    }

    #[test]
    fn rule_with_the_most_stories_loses_its_oldest() {
        let mut order = EvictionOrder::default();
        order.add(1, id(1));
        (2..5).for_each(|number| order.add(2, id(number)));
        for expected in [2, 3] {
            assert_eq!(order.next(), Some(id(expected)));
            order.remove(2, id(expected));
        }
        // Equal numbers: the rule with the larger number.
        assert_eq!(order.next(), Some(id(4)));
        order.remove(2, id(4));
        assert_eq!(order.next(), Some(id(1)));
        order.remove(1, id(1));
        assert_eq!(order.next(), None);
    }

    proptest! {
        /// Against a list.
        #[test]
        fn order_is_that_of_a_list(
            steps in prop::collection::vec((any::<bool>(), 0u16..4, any::<u8>()), 0..200),
        ) {
            let (mut order, mut list) = (EvictionOrder::default(), Vec::<(u16, u8)>::new());
            for (adds, rule, number) in steps {
                let at = list.iter().position(|(_, other)| *other == number);
                match (adds, at) {
                    (true, None) => {
                        order.add(rule, id(number));
                        list.push((rule, number));
                    }
                    (false, Some(at)) => {
                        let (rule, _) = list.remove(at);
                        order.remove(rule, id(number));
                    }
                    _ => {}
                }
                let count = |rule: u16| list.iter().filter(|(of, _)| *of == rule).count();
                let most = (0..4).max_by_key(|rule| (count(*rule), *rule)).unwrap_or(0);
                let oldest = list.iter().find(|(of, _)| *of == most);
                prop_assert_eq!(order.next(), oldest.map(|(_, number)| id(*number)));
            }
        }
    }
}
