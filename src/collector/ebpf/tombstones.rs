//! Keys of ended entries that a table still keeps: records about them may arrive late.

use std::collections::VecDeque;

/// Keys of ended entries, the oldest first.
pub(super) struct Tombstones<K> {
    queue: VecDeque<(K, u64)>,
    retention_ns: u64,
}

impl<K: Copy> Tombstones<K> {
    /// Creates an empty queue whose keys expire after `retention_ns`.
    pub(super) fn new(retention_ns: u64) -> Self {
        Self { queue: VecDeque::new(), retention_ns }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Adds the key of an entry that ended at `now_ns`.
    pub(super) fn add(&mut self, key: K, now_ns: u64) {
        self.queue.push_back((key, now_ns));
    }

    /// Passes the expired keys to `remove`. `make_room`: at least the older half of all keys.
    pub(super) fn expire(&mut self, now_ns: u64, make_room: bool, mut remove: impl FnMut(K)) {
        let keep = if make_room { self.queue.len() / 2 } else { usize::MAX };
        while let Some((key, ended_ns)) = self.queue.front().copied() {
            if self.queue.len() <= keep && now_ns.saturating_sub(ended_ns) < self.retention_ns {
                break;
            }
            self.queue.pop_front();
            remove(key);
        }
    }
}
