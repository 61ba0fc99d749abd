//! Times in whole seconds: sets of seconds, and the history of a state.

/// The second that contains a time.
pub(super) fn second(time_ns: u64) -> u32 {
    u32::try_from(time_ns / 1_000_000_000).unwrap_or(u32::MAX)
}

/// A set of seconds, as disjoint ranges in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SecondSet {
    ranges: Vec<(u32, u32)>,
}

impl SecondSet {
    /// Adds a second. Above `max_ranges`, the two ranges with the smallest gap are merged.
    pub(super) fn insert(&mut self, second: u32, max_ranges: usize) {
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
        if self.ranges.len() > max_ranges.max(1) {
            let gap = |i: &usize| self.ranges[i + 1].0 - self.ranges[*i].1;
            if let Some(i) = (0..self.ranges.len() - 1).min_by_key(gap) {
                self.ranges[i].1 = self.ranges[i + 1].1;
                self.ranges.remove(i + 1);
            }
        }
    }

    /// The latest second that isn't after `second`.
    pub(super) fn latest(&self, second: u32) -> Option<u32> {
        let at = self.ranges.partition_point(|(first, _)| *first <= second);
        self.ranges.get(at.checked_sub(1)?).map(|(_, last)| (*last).min(second))
    }
}

/// Adds a change of a state. Of two changes in one second the larger value wins, in any order of
/// arrival. The latest `max_changes` are kept.
pub(super) fn record_change<T: Copy + Ord>(
    changes: &mut Vec<(u32, T)>,
    second: u32,
    to: T,
    max_changes: usize,
) {
    match changes.binary_search_by_key(&second, |c| c.0) {
        Ok(at) => changes[at].1 = changes[at].1.max(to),
        Err(at) => {
            changes.insert(at, (second, to));
            if changes.len() > max_changes {
                changes.remove(0);
            }
        }
    }
}

/// The state as of a second.
pub(super) fn state_at<T: Copy>(changes: &[(u32, T)], second: u32) -> Option<T> {
    let at = changes.partition_point(|(since, _)| *since <= second);
    changes.get(at.checked_sub(1)?).map(|(_, state)| *state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn latest_equals_maximum_of_plain_list(
            all in prop::collection::vec(0u32..100, 0..60), query in 0u32..110,
        ) {
            let mut seconds = SecondSet::default();
            all.iter().for_each(|s| seconds.insert(*s, 64));
            let expected = all.iter().copied().filter(|s| *s <= query).max();
            prop_assert_eq!(seconds.latest(query), expected);
        }
    }
}
