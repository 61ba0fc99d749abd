//! How threads are told to end, and how a run of a collector shows that it lives: it looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Tells threads to end. Clones share one flag.
#[derive(Clone, Default, Debug)]
pub struct Stop {
    all: Arc<Flags>,
    /// Of one run only.
    leash: Option<Arc<Leash>>,
    /// Whether a look is a sign of that run's life.
    counts: bool,
}

#[derive(Default, Debug)]
struct Flags {
    set: AtomicBool,
    without_waiting: AtomicBool,
}

/// The manager's hold on one run of a collector.
#[derive(Default, Debug)]
pub struct Leash {
    given_up: AtomicBool,
    looks: AtomicU64,
}

impl Leash {
    /// How many signs of life the run has given.
    #[must_use]
    pub fn looks(&self) -> u64 {
        // Relaxed, paired with the store in `Stop::live`: all that counts is that it changes.
        self.looks.load(Ordering::Relaxed)
    }

    /// Ends this run, whenever it looks again: another one has its place.
    pub fn give_up(&self) {
        // Release, paired with the Acquire in `Stop::is_given_up`.
        self.given_up.store(true, Ordering::Release);
    }
}

impl Stop {
    /// Asks everybody who watches to end.
    pub fn set(&self) {
        // Release, paired with the Acquire in `is_set`: what was done before is seen after.
        self.all.set.store(true, Ordering::Release);
    }

    /// Whether it is time to end. A run of a collector shows with each look that it lives.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.live();
        self.all.set.load(Ordering::Acquire) || self.is_given_up()
    }

    /// Shows that the run lives, though it doesn't look whether to end.
    pub fn live(&self) {
        if self.counts
            && let Some(leash) = &self.leash
        {
            // A load and a store: one thread looks. Relaxed, paired with `Leash::looks`.
            let looks = leash.looks.load(Ordering::Relaxed);
            leash.looks.store(looks.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Whether this run was given up, and another one has its place.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.leash.as_ref().is_some_and(|leash| leash.given_up.load(Ordering::Acquire))
    }

    /// The same for one run of a collector, with what holds it.
    #[must_use]
    pub fn leashed(&self) -> (Self, Arc<Leash>) {
        let leash = Arc::new(Leash::default());
        let all = Arc::clone(&self.all);
        (Self { all, leash: Some(Arc::clone(&leash)), counts: true }, leash)
    }

    /// The same for a second thread of a run, whose looks say nothing of the run's life.
    #[must_use]
    pub fn aside(&self) -> Self {
        Self { counts: false, ..self.clone() }
    }

    /// Says that what hasn't ended by now isn't waited for: it hangs.
    pub fn wait_no_longer(&self) {
        // Release, paired with the Acquire in `waits_no_longer`.
        self.all.without_waiting.store(true, Ordering::Release);
    }

    /// Whether nobody who hasn't ended is waited for any more.
    #[must_use]
    pub fn waits_no_longer(&self) -> bool {
        self.all.without_waiting.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_seen_to_live_and_ends_alone() {
        let all = Stop::default();
        let (run, leash) = all.leashed();
        let (other, _) = all.leashed();
        assert!(!run.is_set() && !run.clone().is_set() && !run.aside().is_set());
        assert_eq!(leash.looks(), 2, "a second thread's look is no sign of life");
        leash.give_up();
        assert!(run.is_set() && run.aside().is_set() && run.is_given_up());
        assert!(!other.is_set() && !all.is_set());
        all.set();
        assert!(other.is_set() && !other.is_given_up());
    }
}
