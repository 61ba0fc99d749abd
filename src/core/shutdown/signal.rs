//! A flag that is raised once and wakes every registered waker.
//!
//! ```text
//! waiting side                       raising side
//! registers its waker (under lock)   raises the flag
//! checks the flag                    takes the wakers out (under lock) and wakes them
//! not raised: sleeps
//! ```
//!
//! One side takes the lock first. Either the waker is registered before the wakers are taken out,
//! or the flag was raised before the waker was registered, and the check sees it. Modelled with
//! loom in `tests/core/loom.rs`.

use std::task::Waker;

use primitives::{AtomicBool, Mutex, Ordering};

/// The only switch between the primitives of std and of loom.
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

/// The flag. A check costs one load; only waiters and the thread that raises it take the lock.
#[derive(Default, Debug)]
pub struct Signal {
    raised: AtomicBool,
    registered: Mutex<Registered>,
}

/// The registered wakers: at most one for each thread and task that waits.
#[derive(Default, Debug)]
struct Registered {
    /// Numbers assigned so far.
    numbers: u64,
    wakers: Vec<(u64, Waker)>,
}

impl Signal {
    fn registered<T>(&self, then: impl FnOnce(&mut Registered) -> T) -> T {
        // Nothing in here panics, and the list is consistent after each step.
        then(&mut self.registered.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Whether the flag is raised.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Raises the flag and wakes every registered waker.
    pub fn raise(&self) {
        // Release, paired with the Acquire in `is_raised`: work done before is visible after.
        self.raised.store(true, Ordering::Release);
        let wakers = self.registered(|registered| std::mem::take(&mut registered.wakers));
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Registers a waker and returns its number. Check the flag after this and before sleeping.
    pub fn enter(&self, waker: &Waker) -> u64 {
        self.registered(|registered| {
            registered.numbers += 1;
            registered.wakers.push((registered.numbers, waker.clone()));
            registered.numbers
        })
    }

    /// Removes the waker with this number, if it is still registered.
    pub fn leave(&self, number: u64) {
        self.registered(|registered| registered.wakers.retain(|(entered, _)| *entered != number));
    }
}
