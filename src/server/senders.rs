//! The sender processes that have a stream open. Where senders don't authenticate themselves,
//! anybody on this machine can claim the name of a node; a story of a process that is connected is
//! then revised on the streams of that process only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamId(u64);

type Streams = HashMap<(String, u64), Vec<StreamId>, ahash::RandomState>;

/// The sender processes that have a stream open, by node and epoch.
#[derive(Debug, Default)]
pub(super) struct OpenSenders {
    streams: Mutex<Streams>,
    next: AtomicU64,
}

impl OpenSenders {
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new stream.
    pub(super) fn next(&self) -> StreamId {
        // Relaxed: no other data depends on it.
        StreamId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes that a process sends on a stream.
    pub(super) fn open(&self, node: &str, epoch: u64, stream: StreamId) {
        self.streams().entry((node.to_owned(), epoch)).or_default().push(stream);
    }

    /// Notes that a process doesn't send on a stream any more.
    pub(super) fn close(&self, node: &str, epoch: u64, stream: StreamId) {
        let mut streams = self.streams();
        let key = (node.to_owned(), epoch);
        if let Some(open) = streams.get_mut(&key) {
            open.retain(|other| *other != stream);
            if open.is_empty() {
                streams.remove(&key);
            }
        }
    }

    /// Whether a process sends, and not on this stream first: a stream that joins later doesn't
    /// take its place.
    pub(super) fn is_elsewhere(&self, node: &str, epoch: u64, stream: StreamId) -> bool {
        let streams = self.streams();
        streams.get(&(node.to_owned(), epoch)).is_some_and(|open| open.first() != Some(&stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_is_elsewhere_while_another_stream_has_it() {
        let senders = OpenSenders::default();
        let (first, second) = (senders.next(), senders.next());
        senders.open("n", 7, first);
        let elsewhere = |stream| senders.is_elsewhere("n", 7, stream);
        assert_eq!((elsewhere(first), elsewhere(second)), (false, true));
        assert!(!senders.is_elsewhere("n", 8, second));
        senders.open("n", 7, second);
        assert!(elsewhere(second), "it came later");
        senders.close("n", 7, first);
        assert!(!elsewhere(second));
        senders.close("n", 7, second);
        assert!(senders.streams().is_empty() && !elsewhere(first));
    }
}
