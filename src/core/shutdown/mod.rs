//! How threads are told to end, and how a run of a collector shows that it lives: it looks.
//!
//! Nobody has to look in order to end soon: who waits is woken ([`Stop::rest`], [`Stop::asked`], [`Stop::wakes`]).

mod signal;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use signal::Signal;

/// The longest that anybody who shows signs of life sleeps between two of them.
const LONGEST_NAP: Duration = Duration::from_secs(1);

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
    set: Signal,
    without_waiting: AtomicBool,
}

/// The manager's hold on one run of a collector.
#[derive(Default, Debug)]
pub struct Leash {
    given_up: Signal,
    looks: AtomicU64,
    nap: Duration,
}

impl Leash {
    /// How many signs of life the run has given.
    #[must_use]
    pub fn looks(&self) -> u64 {
        // Relaxed, paired with the store in `Stop::live`: all that counts is that it changes.
        self.looks.load(Ordering::Relaxed)
    }

    /// Ends this run, whenever it goes on: another one has its place.
    pub fn give_up(&self) {
        self.given_up.raise();
    }
}

impl Stop {
    /// Asks everybody who watches to end, and wakes who waits.
    pub fn set(&self) {
        self.all.set.raise();
    }

    /// Whether it is time to end. A run of a collector shows with each look that it lives.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.live();
        self.all.set.is_raised() || self.is_given_up()
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

    /// For how long a run may sleep between two signs of life.
    #[must_use]
    pub fn nap(&self) -> Duration {
        self.leash.as_ref().map_or(LONGEST_NAP, |leash| leash.nap)
    }

    /// Sleeps until it is time to end, for so long at the most; at times shorter, as `park_timeout`.
    pub fn rest(&self, at_most: Duration) {
        let _waiter = self.wakes(&thread_waker());
        if !self.is_set() {
            std::thread::park_timeout(at_most);
        }
    }

    /// Is ready when it is time to end. Each poll is a look, as [`Stop::is_set`] is.
    #[must_use]
    pub fn asked(&self) -> Asked {
        Asked { stop: self.clone(), waiter: None }
    }

    /// Has a waker woken when it is time to end, until the waiter is dropped. It may be that time already: look after
    /// this, and before sleeping.
    #[must_use]
    pub fn wakes(&self, waker: &Waker) -> Waiter {
        let given_up = self.leash.as_ref().map_or(0, |leash| leash.given_up.enter(waker));
        Waiter { set: self.all.set.enter(waker), given_up, stop: self.clone() }
    }

    /// Whether this run was given up, and another one has its place.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.leash.as_ref().is_some_and(|leash| leash.given_up.is_raised())
    }

    /// The same for one run of a collector, with what holds it. The run is to give a sign of life every `nap`, or every
    /// second where that is longer.
    #[must_use]
    pub fn leashed(&self, nap: Duration) -> (Self, Arc<Leash>) {
        let leash = Arc::new(Leash { nap: nap.min(LONGEST_NAP), ..Leash::default() });
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

/// Whoever is woken when it is time to end, until this is dropped.
#[derive(Debug)]
pub struct Waiter {
    stop: Stop,
    /// Its numbers at the two signals.
    set: u64,
    given_up: u64,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.stop.all.set.leave(self.set);
        if let Some(leash) = &self.stop.leash {
            leash.given_up.leave(self.given_up);
        }
    }
}

/// See [`Stop::asked`].
#[derive(Debug)]
pub struct Asked {
    stop: Stop,
    waiter: Option<(Waker, Waiter)>,
}

impl Future for Asked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let is_known = |(waker, _): &(Waker, Waiter)| waker.will_wake(cx.waker());
        if !self.waiter.as_ref().is_some_and(is_known) {
            self.waiter = Some((cx.waker().clone(), self.stop.wakes(cx.waker())));
        }
        if self.stop.is_set() { Poll::Ready(()) } else { Poll::Pending }
    }
}

struct Parked(std::thread::Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// A waker that unparks the calling thread (`std::thread::park`).
#[must_use]
pub fn thread_waker() -> Waker {
    Waker::from(Arc::new(Parked(std::thread::current())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_seen_to_live_and_ends_alone() {
        let all = Stop::default();
        let (run, leash) = all.leashed(LONGEST_NAP);
        let (other, _) = all.leashed(LONGEST_NAP);
        assert!(!run.is_set() && !run.clone().is_set() && !run.aside().is_set());
        assert_eq!(leash.looks(), 2, "a second thread's look is no sign of life");
        leash.give_up();
        assert!(run.is_set() && run.aside().is_set() && run.is_given_up());
        assert!(!other.is_set() && !all.is_set());
        all.set();
        assert!(other.is_set() && !other.is_given_up());
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            // Relaxed, paired with the load in `times`: one thread.
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn times(woken: &Woken) -> u64 {
        woken.0.load(Ordering::Relaxed)
    }

    #[test]
    fn who_waits_is_woken_by_its_own_end_and_by_no_others() {
        let all = Stop::default();
        let (run, leash) = all.leashed(LONGEST_NAP);
        let woken = [(); 4].map(|()| Arc::new(Woken::default()));
        let wakers = woken.clone().map(Waker::from);
        let _waits = run.wakes(&wakers[0]);
        let _other = all.leashed(LONGEST_NAP).0.wakes(&wakers[1]);
        let _all = all.wakes(&wakers[2]);
        drop(run.wakes(&wakers[3]));
        leash.give_up();
        assert_eq!(woken.each_ref().map(|w| times(w)), [1, 0, 0, 0]);
        all.set();
        assert_eq!(
            woken.each_ref().map(|w| times(w)),
            [2, 1, 1, 0],
            "who waits no more is left alone"
        );
        all.set();
        assert_eq!(times(&woken[2]), 1);
    }

    #[test]
    fn a_future_asks_once_however_often_it_is_polled_and_leaves_nothing_behind() {
        let all = Stop::default();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut asked = all.asked();
        for _ in 0..3 {
            assert!(Pin::new(&mut asked).poll(&mut cx).is_pending());
        }
        drop(all.asked());
        all.set();
        assert_eq!(times(&woken), 1);
        assert!(Pin::new(&mut asked).poll(&mut cx).is_ready());
        drop(asked);
        drop(waker);
        assert_eq!(Arc::strong_count(&woken), 1, "no waker is kept");
    }

    #[test]
    fn a_nap_is_never_longer_than_a_second() {
        let all = Stop::default();
        let short = Duration::from_millis(40);
        assert_eq!(all.nap(), LONGEST_NAP);
        assert_eq!(all.leashed(short).0.aside().nap(), short);
        assert_eq!(all.leashed(Duration::from_secs(9)).0.nap(), LONGEST_NAP);
    }
}
