//! Event-driven shutdown, and the liveness of a collector's run.
//!
//! | file | purpose |
//! | --- | --- |
//! | `mod.rs` | [`Shutdown`]: one flag for all threads, one more for each run of a collector |
//! | `signal.rs` | the flag itself: raised once, wakes every registered waker; modelled with loom |
//!
//! Nothing polls in order to end soon: a request wakes threads ([`Shutdown::sleep`]), tasks
//! ([`Shutdown::requested`]) and anything with a waker ([`Shutdown::register_waker`]).
//!
//! A collector's run proves that it is alive by checking [`Shutdown::is_requested`]: each check is
//! a heartbeat. A run without heartbeats hangs; its supervisor abandons it through the
//! [`RunHandle`] and starts another.

mod signal;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

pub use signal::Signal;

/// The longest interval between two heartbeats of a run.
const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Signals threads and tasks to end. Clones share one flag.
#[derive(Clone, Default, Debug)]
pub struct Shutdown {
    shared: Arc<Flags>,
    /// The run that this clone belongs to, if any.
    run: Option<Arc<RunHandle>>,
    /// Whether checks count as heartbeats of that run.
    is_tracked: bool,
}

// Read by all threads all the time: nothing that is written is beside it.
#[derive(Default, Debug)]
#[repr(align(128))]
struct Flags {
    requested: Signal,
    hung_threads_abandoned: AtomicBool,
}

/// A supervisor's handle on one run of a collector. The run writes its heartbeats often: on cache
/// lines of their own.
#[derive(Default, Debug)]
#[repr(align(128))]
pub struct RunHandle {
    abandoned: Signal,
    heartbeats: AtomicU64,
    heartbeat_interval: Duration,
}

impl RunHandle {
    /// The number of heartbeats so far.
    #[must_use]
    pub fn heartbeats(&self) -> u64 {
        // Relaxed, paired with the store in `Shutdown::heartbeat`: only a change matters.
        self.heartbeats.load(Ordering::Relaxed)
    }

    /// Abandons the run: it ends as soon as it resumes, because another run has replaced it.
    pub fn abandon(&self) {
        self.abandoned.raise();
    }
}

impl Shutdown {
    /// Requests the end and wakes all waiters.
    pub fn request(&self) {
        self.shared.requested.raise();
    }

    /// Whether this thread has to end. In a tracked run, each call is a heartbeat.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.heartbeat();
        self.shared.requested.is_raised() || self.is_abandoned()
    }

    /// Records a heartbeat without checking for the end.
    pub fn heartbeat(&self) {
        if self.is_tracked
            && let Some(run) = &self.run
        {
            // A load and a store suffice: one thread writes. Relaxed, paired with
            // `RunHandle::heartbeats`.
            let heartbeats = run.heartbeats.load(Ordering::Relaxed);
            run.heartbeats.store(heartbeats.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// The longest time that a run may sleep between two heartbeats.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        self.run.as_ref().map_or(MAX_HEARTBEAT_INTERVAL, |run| run.heartbeat_interval)
    }

    /// Sleeps until the end is requested, `timeout` at most. May return early, as
    /// `std::thread::park_timeout` does.
    pub fn sleep(&self, timeout: Duration) {
        let _registration = self.register_waker(&thread_waker());
        if !self.is_requested() {
            std::thread::park_timeout(timeout);
        }
    }

    /// A future that completes when the end is requested. Each poll is a heartbeat, as
    /// [`Shutdown::is_requested`] is.
    #[must_use]
    pub fn requested(&self) -> ShutdownFuture {
        ShutdownFuture { shutdown: self.clone(), registration: None }
    }

    /// Registers a waker until the returned guard is dropped. The end may have been requested
    /// already: check [`Shutdown::is_requested`] after this call and before sleeping.
    #[must_use]
    pub fn register_waker(&self, waker: &Waker) -> WakerRegistration {
        WakerRegistration {
            requested: self.shared.requested.enter(waker),
            abandoned: self.run.as_ref().map_or(0, |run| run.abandoned.enter(waker)),
            shutdown: self.clone(),
        }
    }

    /// Whether this run was abandoned: another one has replaced it.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.abandoned.is_raised())
    }

    /// A clone for one run of a collector, and the supervisor's handle on that run. The run has to
    /// give a heartbeat every `interval`, or every second where that is shorter.
    #[must_use]
    pub fn track_run(&self, interval: Duration) -> (Self, Arc<RunHandle>) {
        let run = Arc::new(RunHandle {
            heartbeat_interval: interval.min(MAX_HEARTBEAT_INTERVAL),
            ..RunHandle::default()
        });
        let shared = Arc::clone(&self.shared);
        (Self { shared, run: Some(Arc::clone(&run)), is_tracked: true }, run)
    }

    /// A clone for a second thread of the same run, whose checks aren't heartbeats.
    #[must_use]
    pub fn untracked(&self) -> Self {
        Self { is_tracked: false, ..self.clone() }
    }

    /// Declares that threads that haven't ended by now hang and aren't waited for.
    pub fn abandon_hung_threads(&self) {
        // Release, paired with the Acquire in `abandons_hung_threads`.
        self.shared.hung_threads_abandoned.store(true, Ordering::Release);
    }

    /// Whether threads that hang are no longer waited for.
    #[must_use]
    pub fn abandons_hung_threads(&self) -> bool {
        self.shared.hung_threads_abandoned.load(Ordering::Acquire)
    }
}

/// Keeps a waker registered with a [`Shutdown`] until it is dropped.
#[derive(Debug)]
pub struct WakerRegistration {
    shutdown: Shutdown,
    /// The waker's numbers at the two signals.
    requested: u64,
    abandoned: u64,
}

impl Drop for WakerRegistration {
    fn drop(&mut self) {
        self.shutdown.shared.requested.leave(self.requested);
        if let Some(run) = &self.shutdown.run {
            run.abandoned.leave(self.abandoned);
        }
    }
}

/// See [`Shutdown::requested`].
#[derive(Debug)]
pub struct ShutdownFuture {
    shutdown: Shutdown,
    registration: Option<(Waker, WakerRegistration)>,
}

impl Future for ShutdownFuture {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let is_current = |(waker, _): &(Waker, WakerRegistration)| waker.will_wake(cx.waker());
        if !self.registration.as_ref().is_some_and(is_current) {
            let registration = self.shutdown.register_waker(cx.waker());
            self.registration = Some((cx.waker().clone(), registration));
        }
        if self.shutdown.is_requested() { Poll::Ready(()) } else { Poll::Pending }
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
    fn abandoned_run_ends_alone() {
        let all = Shutdown::default();
        let (run, handle) = all.track_run(MAX_HEARTBEAT_INTERVAL);
        let (other, _) = all.track_run(MAX_HEARTBEAT_INTERVAL);
        assert!(!run.is_requested() && !run.clone().is_requested());
        assert!(!run.untracked().is_requested());
        assert_eq!(handle.heartbeats(), 2, "an untracked check is no heartbeat");
        handle.abandon();
        assert!(run.is_requested() && run.untracked().is_requested() && run.is_abandoned());
        assert!(!other.is_requested() && !all.is_requested());
        all.request();
        assert!(other.is_requested() && !other.is_abandoned());
    }

    /// Counts its wake-ups.
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
    fn signal_wakes_only_its_registered_wakers() {
        let all = Shutdown::default();
        let (run, handle) = all.track_run(MAX_HEARTBEAT_INTERVAL);
        let woken = [(); 4].map(|()| Arc::new(Woken::default()));
        let wakers = woken.clone().map(Waker::from);
        let _run = run.register_waker(&wakers[0]);
        let _other = all.track_run(MAX_HEARTBEAT_INTERVAL).0.register_waker(&wakers[1]);
        let _all = all.register_waker(&wakers[2]);
        drop(run.register_waker(&wakers[3]));
        handle.abandon();
        assert_eq!(woken.each_ref().map(|w| times(w)), [1, 0, 0, 0]);
        all.request();
        let times_each = woken.each_ref().map(|w| times(w));
        assert_eq!(times_each, [2, 1, 1, 0], "a dropped registration isn't woken");
        all.request();
        assert_eq!(times(&woken[2]), 1);
    }

    #[test]
    fn future_registers_once_and_leaves_no_waker_behind() {
        let all = Shutdown::default();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut requested = all.requested();
        for _ in 0..3 {
            assert!(Pin::new(&mut requested).poll(&mut cx).is_pending());
        }
        drop(all.requested());
        all.request();
        assert_eq!(times(&woken), 1);
        assert!(Pin::new(&mut requested).poll(&mut cx).is_ready());
        drop(requested);
        drop(waker);
        assert_eq!(Arc::strong_count(&woken), 1, "no waker is kept");
    }

    #[test]
    fn heartbeat_interval_is_at_most_a_second() {
        let all = Shutdown::default();
        let short = Duration::from_millis(40);
        assert_eq!(all.heartbeat_interval(), MAX_HEARTBEAT_INTERVAL);
        assert_eq!(all.track_run(short).0.untracked().heartbeat_interval(), short);
        let long = all.track_run(Duration::from_secs(9)).0;
        assert_eq!(long.heartbeat_interval(), MAX_HEARTBEAT_INTERVAL);
    }
}
