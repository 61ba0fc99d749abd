//! Wake protocol: an idle consumer costs nothing, and a producer pays one fence when no consumer
//! sleeps.
//!
//! ```text
//! consumer                          producer
//! swap state to ASLEEP              publish the record (rtrb's Release)
//! fence(SeqCst)            ◀──▶     fence(SeqCst)
//! check the rings again             state == ASLEEP? swap to AWAKE; wake it if the swap succeeds
//! empty: park
//! swap state to AWAKE
//! ```
//!
//! One of the two fences is first: either the consumer's second check sees the record, or the
//! producer sees ASLEEP. Every change of the state is a swap, so that all changes form one chain,
//! each reading the one before. `tests/core/loom.rs` models it with loom.

use std::task::Waker;

use super_atomic::{AtomicU32, Ordering, fence};

/// The one switch between std's atomics and loom's.
mod super_atomic {
    #[cfg(loom)]
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering, fence};
    #[cfg(not(loom))]
    pub(super) use std::sync::atomic::{AtomicU32, Ordering, fence};
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// The consumer that a bell wakes.
pub trait Target {
    /// Wakes the consumer. If it doesn't sleep yet, its next sleep ends at once.
    fn wake(&self);
}

impl Target for std::sync::OnceLock<Waker> {
    fn wake(&self) {
        if let Some(waker) = self.get() {
            waker.wake_by_ref();
        }
    }
}

/// The bell of one consumer, shared by all its producers. They read it with every chunk, so nothing
/// that another thread writes is on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct Doorbell<T> {
    /// AWAKE or ASLEEP. Swapped by the consumer in `prepare_sleep` and `cancel_sleep`, by producers
    /// in `ring`; Relaxed everywhere, as the fences in `prepare_sleep` and `ring` order it.
    state: AtomicU32,
    target: T,
}

/// The bell used in production.
pub type Bell = Doorbell<std::sync::OnceLock<Waker>>;

impl<T: Target> Doorbell<T> {
    /// A bell whose consumer is awake.
    pub fn new(target: T) -> Self {
        Self { state: AtomicU32::new(AWAKE), target }
    }

    /// The consumer.
    pub fn target(&self) -> &T {
        &self.target
    }

    /// Announces that the consumer is about to sleep. Afterwards it must check its rings once more,
    /// and either park or call [`Doorbell::cancel_sleep`]. The target must be set by now.
    pub fn prepare_sleep(&self) {
        self.state.swap(ASLEEP, Ordering::Relaxed);
        // Pairs with the fence in `ring`: orders the swap above before the second check.
        fence(Ordering::SeqCst);
    }

    /// Announces that the consumer is awake.
    pub fn cancel_sleep(&self) {
        self.state.swap(AWAKE, Ordering::Relaxed);
    }

    /// Wakes the consumer if it sleeps. Called by a producer after it has published a record.
    pub fn ring(&self) {
        // Pairs with the fence in `prepare_sleep`: orders the published record before the load
        // below.
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == ASLEEP
            && self.state.swap(AWAKE, Ordering::Relaxed) == ASLEEP
        {
            self.target.wake();
        }
    }
}
