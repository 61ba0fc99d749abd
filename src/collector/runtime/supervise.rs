//! The body of a collector's thread: runs the collector, catches its panics, restarts it with
//! backoff.
//!
//! A hung thread can't be ended from outside. Its run is abandoned: another thread replaces it,
//! with a sink of its own. If the abandoned run continues, it finds its shutdown flag set, and its
//! outcome no longer changes the collector's health.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::collector::{CollectorError, CollectorFactory, Ended};
use super::context::Context;
use super::health::Health;
use super::needs::Rights;
use super::site::Site;
use super::status::StatusReport;
use tapio_core::backoff::Backoff;
use tapio_core::clock;
use tapio_core::redact::Redactor;
use tapio_core::ring::Sink;
use tapio_core::shutdown::{RunHandle, Shutdown};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A run of this length counts as recovered: the next failure starts with the first backoff again.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

/// State that the manager and a collector's threads share.
pub(crate) struct Shared {
    pub(crate) name: &'static str,
    pub(crate) report: StatusReport,
    /// `None` once the collector has ended: the state that its runs share is dropped with it.
    factory: Mutex<Option<CollectorFactory>>,
    current: Mutex<Current>,
    health: AtomicU32,
    restarts: AtomicU64,
    last_error: Mutex<String>,
    redactor: Arc<Redactor>,
}

/// The current run and the sinks for further ones.
struct Current {
    /// Number of runs so far, which is the number of the current one.
    run: u64,
    /// Tracks the current run.
    handle: Arc<RunHandle>,
    /// Sinks that no run uses; `None` once the collector has ended.
    sinks: Option<Vec<Sink>>,
}

/// A run, from its start until it ends or is abandoned.
pub(crate) struct Run {
    number: u64,
    context: Context,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// A collector without a thread.
    pub(crate) fn new(
        name: &'static str,
        factory: CollectorFactory,
        mut sink: Sink,
        redactor: &Arc<Redactor>,
    ) -> Self {
        let spare = sink.take_spare();
        let sinks = Some(spare.into_iter().chain([sink]).collect());
        Self {
            name,
            report: StatusReport::new(Arc::clone(redactor)),
            factory: Mutex::new(Some(factory)),
            current: Mutex::new(Current { run: 0, handle: Arc::default(), sinks }),
            health: AtomicU32::new(Health::Starting as u32),
            restarts: AtomicU64::new(0),
            last_error: Mutex::default(),
            redactor: Arc::clone(redactor),
        }
    }

    pub(crate) fn health(&self) -> Health {
        Health::from_number(self.health.load(Ordering::Relaxed))
    }

    /// Changes the health from `from` to `to`; returns whether it was `from`.
    pub(crate) fn change_health(&self, from: Health, to: Health) -> bool {
        let changed = self.health.compare_exchange(
            from as u32,
            to as u32,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        changed.is_ok()
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn last_error(&self) -> String {
        lock(&self.last_error).clone()
    }

    /// Sets the last failure, without secrets.
    pub(crate) fn set_last_error(&self, mut error: String) {
        self.redactor.redact(&mut error);
        *lock(&self.last_error) = error;
    }

    /// Number of heartbeats of the current run.
    pub(crate) fn heartbeats(&self) -> u64 {
        lock(&self.current).handle.heartbeats()
    }

    /// Abandons the current run and begins a new one, which owes a heartbeat every
    /// `heartbeat_interval`. Returns `None` if no sink is left for it.
    pub(crate) fn begin_run(
        &self,
        shutdown: &Shutdown,
        site: &Site,
        heartbeat_interval: Duration,
        rights: Option<Rights>,
    ) -> Option<Run> {
        let mut current = lock(&self.current);
        let mut sink = current.sinks.as_mut()?.pop()?;
        current.handle.abandon();
        let (shutdown, handle) = shutdown.track_run(heartbeat_interval);
        current.handle = handle;
        current.run += 1;
        sink.set_shutdown(shutdown.clone());
        let (report, site) = (self.report.clone(), site.clone());
        let context = Context::new(sink, shutdown, report, site).with_rights(rights);
        Some(Run { number: current.run, context })
    }

    /// Sets the health, if `run` is the current one.
    fn set_health(&self, run: u64, health: Health) {
        let current = lock(&self.current);
        if current.run == run {
            self.health.store(health as u32, Ordering::Relaxed);
        }
    }

    /// Runs the collector until it ends or the run is abandoned.
    pub(crate) fn supervise(&self, run: Run) {
        let Run { number, mut context } = run;
        let health = self.restart_until_ended(number, &mut context);
        self.set_health(number, health);
        let mut current = lock(&self.current);
        if current.run == number {
            // No more events: readers of the rings see the end once all sinks are dropped.
            current.sinks = None;
            *lock(&self.factory) = None;
        } else if let Some(sinks) = &mut current.sinks {
            tracing::info!(collector = self.name, "abandoned collector run ended");
            sinks.push(context.sink);
        }
    }

    /// Restarts the collector after each failure. Returns its health at the end.
    fn restart_until_ended(&self, run: u64, context: &mut Context) -> Health {
        let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
        loop {
            self.set_health(run, Health::Running);
            let started = clock::instant();
            context.begin_run();
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let collector = lock(&self.factory).as_ref().map(|create| create());
                collector.map_or(Ok(Ended::Stopped), |mut collector| collector.run(context))
            }));
            if outcome.is_err() {
                context.sink.after_panic();
            }
            context.sink.flush();
            if context.shutdown.is_abandoned() {
                return Health::Stopped;
            }
            let error = match outcome {
                Ok(Ok(Ended::Finished)) => return Health::Finished,
                Ok(Ok(Ended::Stopped)) => return Health::Stopped,
                Ok(Err(CollectorError::Unavailable(error))) => {
                    tracing::warn!(collector = self.name, error, "collector unavailable");
                    self.set_last_error(error);
                    return Health::Unavailable;
                }
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("panicked: {}", panic_text(&*panic)),
            };
            if context.shutdown.is_requested() {
                return Health::Stopped;
            }
            if started.elapsed() > RECOVERED_AFTER {
                backoff.reset();
            }
            let pause = backoff.next_pause();
            tracing::warn!(collector = self.name, error, retry_in = ?pause, "collector failed");
            self.set_last_error(error);
            self.set_health(run, Health::Backoff);
            if sleep_unless_shutdown(&context.shutdown, pause) {
                return Health::Stopped;
            }
            self.count_restart();
        }
    }
}

/// The message of a panic.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

/// Sleeps until `duration` has passed or shutdown is requested; returns whether it was.
fn sleep_unless_shutdown(shutdown: &Shutdown, duration: Duration) -> bool {
    let until = clock::instant() + duration;
    while !shutdown.is_requested() {
        let left = until.saturating_duration_since(clock::instant());
        if left.is_zero() {
            return false;
        }
        shutdown.sleep(left);
    }
    true
}
