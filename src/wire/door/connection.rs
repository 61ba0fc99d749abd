//! The state of a connection, which its listener and its socket share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::budget::Peer;

/// A connection, as the listener and its socket share it.
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) state: Mutex<State>,
}

/// The state of a connection.
pub(super) struct State {
    /// When it said something, by the monotonic clock, or when it was accepted.
    pub(super) heard_ns: u64,
    pub(super) has_spoken: bool,
    pub(super) is_ended: bool,
    pub(super) reader: Option<Waker>,
}

impl Connection {
    /// The state.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it: another one needs its place.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.is_ended = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}
