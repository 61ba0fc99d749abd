//! Where acknowledgements wait for the disk.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tonic::Status;

use crate::store::{Durability, FramePosition};

#[derive(Default)]
struct State {
    is_requested: bool,
    is_stopped: bool,
    /// Every batch before it is on the disk.
    synced: FramePosition,
    /// Syncs that failed.
    failures: u64,
    waiting: Vec<Waker>,
}

/// Where acks wait for the disk.
pub(super) struct SyncGate {
    durability: Durability,
    state: Mutex<State>,
    changed: Condvar,
}

impl SyncGate {
    pub(super) fn new(durability: Durability) -> Self {
        Self { durability, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether acks don't wait for the disk.
    pub(super) fn is_open(&self) -> bool {
        self.durability == Durability::Process
    }

    /// Syncs that failed so far. A stream ends when one more has.
    pub(super) fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Ready once the batches before `position` may be acknowledged.
    ///
    /// # Errors
    /// When a sync has failed since there were `failures`.
    pub(super) fn poll_synced(
        &self,
        position: FramePosition,
        failures: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Status>> {
        if self.is_open() {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.state();
        if state.failures != failures {
            let message = "the disk failed to write; send again what isn't acknowledged";
            return Poll::Ready(Err(Status::unavailable(message)));
        }
        if position <= state.synced {
            return Poll::Ready(Ok(()));
        }
        state.waiting.push(cx.waker().clone());
        state.is_requested = true;
        self.changed.notify_one();
        Poll::Pending
    }

    /// Ends a sync: with the position through which the log is on the disk, or without success.
    pub(super) fn finish(&self, result: Result<FramePosition, ()>) {
        let mut state = self.state();
        match result {
            Ok(synced) => state.synced = state.synced.max(synced),
            Err(()) => state.failures += 1,
        }
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// Ends the thread that syncs.
    pub(super) fn stop(&self) {
        self.state().is_stopped = true;
        self.changed.notify_one();
    }

    /// Waits for a request or the end, or until `timeout` has passed. Returns whether it is the
    /// end.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let idle = |state: &mut State| !state.is_requested && !state.is_stopped;
        let waited = self.changed.wait_timeout_while(self.state(), timeout, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_requested = false;
        state.is_stopped
    }
}
