//! A flag that is raised once, and wakes who waits for it.
//!
//! ```text
//! waiter                             who raises it
//! enters its waker (under the lock)  raises the flag
//! looks at the flag                  takes the wakers out (under the lock) and wakes them
//! not raised: sleeps
//! ```
//!
//! Of the two turns at the lock one comes first: either the waker is there when they are taken out, or the
//! flag was raised before it was entered and the look sees it. Modelled with loom in `tests/loom`.

use std::task::Waker;

use primitives::{AtomicBool, Mutex, Ordering};

/// The one switch between std's locks and atomics and loom's.
mod primitives {
    #[cfg(loom)]
    pub(super) use loom::sync::Mutex;
    #[cfg(loom)]
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
    #[cfg(not(loom))]
    pub(super) use std::sync::Mutex;
    #[cfg(not(loom))]
    pub(super) use std::sync::atomic::{AtomicBool, Ordering};
}

/// The flag. Looking at it costs a load; only who sleeps and who raises it take the lock.
#[derive(Default, Debug)]
pub(super) struct Signal {
    raised: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// Who waits; each is there for as long as it waits, so there are as many as threads and tasks that do.
#[derive(Default, Debug)]
struct Waiting {
    /// Numbers given so far.
    numbers: u64,
    wakers: Vec<(u64, Waker)>,
}

impl Signal {
    fn waiting<T>(&self, then: impl FnOnce(&mut Waiting) -> T) -> T {
        // Nothing in here panics; and a list is whole after each step.
        then(&mut self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Whether it was raised.
    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Raises it, and wakes who waits.
    pub(super) fn raise(&self) {
        // Release, paired with the Acquire in `is_raised`: what was done before is seen after.
        self.raised.store(true, Ordering::Release);
        let wakers = self.waiting(|waiting| std::mem::take(&mut waiting.wakers));
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Enters a waker; look at the flag after this and before sleeping. Returns its number.
    pub(super) fn enter(&self, waker: &Waker) -> u64 {
        self.waiting(|waiting| {
            waiting.numbers += 1;
            waiting.wakers.push((waiting.numbers, waker.clone()));
            waiting.numbers
        })
    }

    /// Takes a waker out.
    pub(super) fn leave(&self, number: u64) {
        self.waiting(|waiting| waiting.wakers.retain(|(entered, _)| *entered != number));
    }
}
