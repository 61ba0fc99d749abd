//! Times in whole seconds: when something was seen or ended, and what a state was.

/// Seconds, as disjoint ranges in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seconds {
    ranges: Vec<(u32, u32)>,
}

impl Seconds {
    /// Adds a second. Past `most` ranges, the two with the smallest gap become one.
    pub(super) fn add(&mut self, second: u32, most: usize) {
        let at = self.ranges.partition_point(|(_, last)| *last < second);
        if self.ranges.get(at).is_some_and(|(first, _)| *first <= second) {
            return;
        }
        let joins_left = at > 0 && self.ranges[at - 1].1.checked_add(1) == Some(second);
        let joins_right =
            self.ranges.get(at).is_some_and(|(first, _)| second.checked_add(1) == Some(*first));
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = second,
            (false, true) => self.ranges[at].0 = second,
            (false, false) => self.ranges.insert(at, (second, second)),
        }
        if self.ranges.len() > most.max(1) {
            let gap = |i: &usize| self.ranges[i + 1].0 - self.ranges[*i].1;
            if let Some(i) = (0..self.ranges.len() - 1).min_by_key(gap) {
                self.ranges[i].1 = self.ranges[i + 1].1;
                self.ranges.remove(i + 1);
            }
        }
    }

    /// The latest second up to `second`.
    pub(super) fn latest(&self, second: u32) -> Option<u32> {
        let at = self.ranges.partition_point(|(first, _)| *first <= second);
        self.ranges.get(at.checked_sub(1)?).map(|(_, last)| (*last).min(second))
    }
}

/// Adds a change of a state; of two in one second the larger counts, whichever came first. The latest
/// `most` are remembered.
pub(super) fn change<T: Copy + Ord>(changes: &mut Vec<(u32, T)>, second: u32, to: T, most: usize) {
    match changes.binary_search_by_key(&second, |c| c.0) {
        Ok(at) => changes[at].1 = changes[at].1.max(to),
        Err(at) => {
            changes.insert(at, (second, to));
            if changes.len() > most {
                changes.remove(0);
            }
        }
    }
}

/// What a state was.
pub(super) fn state<T: Copy>(changes: &[(u32, T)], second: u32) -> Option<T> {
    let at = changes.partition_point(|(since, _)| *since <= second);
    changes.get(at.checked_sub(1)?).map(|(_, state)| *state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn seconds_are_a_set(all in prop::collection::vec(0u32..100, 0..60), ask in 0u32..110) {
            let mut seconds = Seconds::default();
            all.iter().for_each(|s| seconds.add(*s, 64));
            prop_assert_eq!(seconds.latest(ask), all.iter().copied().filter(|s| *s <= ask).max());
        }
    }
}
