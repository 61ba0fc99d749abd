//! Who is gone but still known: records that come late may speak of them.

use std::collections::VecDeque;

/// Keys of a table whose owners are gone, the oldest first.
pub(super) struct Departed<K> {
    queue: VecDeque<(K, u64)>,
    kept_ns: u64,
}

impl<K: Copy> Departed<K> {
    /// Each is kept for `kept_ns`.
    pub(super) fn new(kept_ns: u64) -> Self {
        Self { queue: VecDeque::new(), kept_ns }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn add(&mut self, key: K, now_ns: u64) {
        self.queue.push_back((key, now_ns));
    }

    /// Hands those whose time is over to `forget`; where `room` is needed, the older half of all
    /// at the least.
    pub(super) fn expire(&mut self, now_ns: u64, room: bool, mut forget: impl FnMut(K)) {
        let keep = if room { self.queue.len() / 2 } else { usize::MAX };
        while let Some((key, gone_ns)) = self.queue.front().copied() {
            if self.queue.len() <= keep && now_ns.saturating_sub(gone_ns) < self.kept_ns {
                break;
            }
            self.queue.pop_front();
            forget(key);
        }
    }
}
