//! What a collector's thread does: runs it, survives its panics, starts it again with backoff.
//!
//! A thread that hangs can't be ended. It is given up: another one takes charge, with a way into the rings of its own, and
//! the old one, if it ever goes on, finds that it is to end and says nothing more of the collector.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::collector::{CollectorError, Ended, Make};
use super::context::Context;
use super::health::Health;
use super::site::Site;
use super::status::Report;
use tapio_core::clock;
use tapio_core::ring::Sink;
use tapio_core::shutdown::{RunHandle, Shutdown};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A run this long counts as recovered: the next failure starts with the first backoff again.
const RECOVERED: Duration = Duration::from_secs(60);

/// What the manager and a collector's threads share.
pub(crate) struct Shared {
    pub(crate) name: &'static str,
    pub(crate) report: Report,
    /// `None` once the collector has come to its end: what it keeps between runs goes with it.
    make: Mutex<Option<Make>>,
    state: Mutex<State>,
    health: AtomicU32,
    restarts: AtomicU64,
    last_error: Mutex<String>,
}

/// Who is in charge.
struct State {
    /// Threads so far: the latest is in charge.
    threads: u64,
    /// What holds it.
    handle: Arc<RunHandle>,
    /// Ways into the rings that no thread has; `None` once the collector has come to its end.
    sinks: Option<Vec<Sink>>,
}

/// One thread's charge.
pub(crate) struct Charge {
    number: u64,
    context: Context,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// A collector that no thread runs yet.
    pub(crate) fn new(name: &'static str, make: Make, mut sink: Sink) -> Self {
        let spare = sink.take_spare();
        let sinks = Some(spare.into_iter().chain([sink]).collect());
        Self {
            name,
            report: Report::default(),
            make: Mutex::new(Some(make)),
            state: Mutex::new(State { threads: 0, handle: Arc::default(), sinks }),
            health: AtomicU32::new(Health::Starting as u32),
            restarts: AtomicU64::new(0),
            last_error: Mutex::default(),
        }
    }

    /// How it is.
    pub(crate) fn health(&self) -> Health {
        Health::from_number(self.health.load(Ordering::Relaxed))
    }

    /// Goes over from one health to another, if it is as the first one says. Returns whether it was.
    pub(crate) fn turn(&self, from: Health, to: Health) -> bool {
        let turned = self.health.compare_exchange(
            from as u32,
            to as u32,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        turned.is_ok()
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

    pub(crate) fn fail(&self, error: String) {
        *lock(&self.last_error) = error;
    }

    /// Signs of life of the one in charge.
    pub(crate) fn looks(&self) -> u64 {
        lock(&self.state).handle.heartbeats()
    }

    /// Gives up whoever was in charge, and puts a new thread there that is to give a sign of life every `nap`; `None` where no
    /// way into the rings is left for it.
    pub(crate) fn take_charge(
        &self,
        shutdown: &Shutdown,
        site: &Site,
        nap: Duration,
    ) -> Option<Charge> {
        let mut state = lock(&self.state);
        let mut sink = state.sinks.as_mut()?.pop()?;
        state.handle.abandon();
        let (shutdown, handle) = shutdown.track_run(nap);
        state.handle = handle;
        state.threads += 1;
        sink.set_shutdown(shutdown.clone());
        let (report, site) = (self.report.clone(), site.clone());
        Some(Charge { number: state.threads, context: Context { sink, shutdown, report, site } })
    }

    /// Says how it is, if this one is in charge.
    fn set(&self, number: u64, health: Health) {
        let state = lock(&self.state);
        if state.threads == number {
            self.health.store(health as u32, Ordering::Relaxed);
        }
    }

    /// Runs the collector until its end, or until it is given up.
    pub(crate) fn supervise(&self, charge: Charge) {
        let Charge { number, mut context } = charge;
        let health = self.runs(number, &mut context);
        self.set(number, health);
        let mut state = lock(&self.state);
        if state.threads == number {
            // Nothing more comes: who reads the rings sees it once all ways into them are gone.
            state.sinks = None;
            *lock(&self.make) = None;
        } else if let Some(sinks) = &mut state.sinks {
            tracing::info!(collector = self.name, "a run that hung has ended");
            sinks.push(context.sink);
        }
    }

    /// Run after run. Returns how it is at the end.
    fn runs(&self, number: u64, context: &mut Context) -> Health {
        let mut backoff = FIRST_BACKOFF;
        loop {
            self.set(number, Health::Running);
            let started = clock::instant();
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let made = lock(&self.make).as_ref().map(|make| make());
                made.map_or(Ok(Ended::Stopped), |mut collector| collector.run(context))
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
                    self.fail(error);
                    return Health::Unavailable;
                }
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("panicked: {}", panic_text(&*panic)),
            };
            if context.shutdown.is_requested() {
                return Health::Stopped;
            }
            if started.elapsed() > RECOVERED {
                backoff = FIRST_BACKOFF;
            }
            tracing::warn!(collector = self.name, error, retry_in = ?backoff, "collector failed");
            self.fail(error);
            self.set(number, Health::Backoff);
            if wait(&context.shutdown, backoff) {
                return Health::Stopped;
            }
            self.count_restart();
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

/// Sleeps, unless asked to stop; returns whether it was.
fn wait(shutdown: &Shutdown, duration: Duration) -> bool {
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
