//! The wake protocol: waiting costs nothing at idle, and a producer pays one fence when nobody
//! sleeps.
//!
//! ```text
//! consumer                          producer
//! swap state to ASLEEP              publish the record (rtrb's Release)
//! fence(SeqCst)            ◀──▶     fence(SeqCst)
//! look into the rings again         state == ASLEEP? swap to AWAKE: the one who did wakes it
//! nothing: park
//! swap state to AWAKE
//! ```
//!
//! Of the two fences one comes first: either the consumer's second look sees the record, or the
//! producer sees ASLEEP. Every change of the state is a swap, so that all changes stand in one
//! chain, each having read the one before. Modelled with loom in `tests/loom`.

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

/// What a bell wakes.
pub trait Target {
    /// Makes the sleeper go on, now or, when it doesn't sleep yet, at once when it does.
    fn wake(&self);
}

impl Target for std::sync::OnceLock<Waker> {
    fn wake(&self) {
        if let Some(waker) = self.get() {
            waker.wake_by_ref();
        }
    }
}

/// One consumer's bell; every producer that feeds it holds the same one.
#[derive(Debug)]
pub struct Doorbell<T> {
    /// AWAKE or ASLEEP. Swapped by the consumer in `doze` and `rouse`, by producers in `ring`;
    /// Relaxed everywhere, as the fences in `doze` and `ring` give the order.
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

    /// What the bell wakes.
    pub fn target(&self) -> &T {
        &self.target
    }

    /// The consumer is about to sleep: it must look into its rings once more after this, and
    /// either park or call [`Doorbell::rouse`]. The target must know whom to wake by now.
    pub fn doze(&self) {
        self.state.swap(ASLEEP, Ordering::Relaxed);
        // Pairs with the fence in `ring`: orders the swap above before the second look.
        fence(Ordering::SeqCst);
    }

    /// The consumer goes on.
    pub fn rouse(&self) {
        self.state.swap(AWAKE, Ordering::Relaxed);
    }

    /// A producer has published something.
    pub fn ring(&self) {
        // Pairs with the fence in `doze`: orders the published record before the load below.
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == ASLEEP
            && self.state.swap(AWAKE, Ordering::Relaxed) == ASLEEP
        {
            self.target.wake();
        }
    }
}
