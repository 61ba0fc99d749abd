//! Supervises the collectors: a pinned thread each, panic isolation, restart with backoff, health
//! and statistics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use core_affinity::CoreId;

use super::{CollectorError, Context, Ended, Make, Note, Report, Site};
use crate::clock;
use crate::ring::{Sink, Stop};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A run this long counts as recovered: the next failure starts with the first backoff again.
const RECOVERED: Duration = Duration::from_secs(60);

/// How a collector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Health {
    /// Its thread is starting.
    Starting = 0,
    /// It reads its source.
    Running = 1,
    /// It failed and waits to be started again.
    Backoff = 2,
    /// Its source has no more.
    Finished = 3,
    /// It was stopped.
    Stopped = 4,
    /// This machine or this process can't give what it needs; it isn't tried again.
    Unavailable = 5,
}

impl Health {
    /// The word used in `/status` and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Unavailable => "unavailable",
        }
    }

    fn from_number(n: u32) -> Self {
        [Self::Starting, Self::Running, Self::Backoff, Self::Finished, Self::Unavailable]
            .into_iter()
            .find(|h| *h as u32 == n)
            .unwrap_or(Self::Stopped)
    }
}

/// A collector to be started.
pub struct CollectorSpec {
    /// Its name in the table.
    pub name: &'static str,
    /// Makes it anew for each start.
    pub make: Make,
    /// Where its events go.
    pub sink: Sink,
}

/// Where threads run.
#[derive(Clone, Debug, Default)]
pub struct ThreadPlan {
    /// Cores this process may use, as its cpuset says; empty: don't pin.
    pub cores: Vec<CoreId>,
    next: usize,
}

impl ThreadPlan {
    /// Pins to the cores the cpuset allows, in turn.
    #[must_use]
    pub fn pinned() -> Self {
        // core_affinity reads sched_getaffinity, so a cpuset's limits are in.
        Self { cores: core_affinity::get_core_ids().unwrap_or_default(), next: 0 }
    }

    /// The next thread's core.
    pub fn next_core(&mut self) -> Option<CoreId> {
        let core = self.cores.get(self.next % self.cores.len().max(1)).copied();
        self.next += 1;
        core
    }
}

struct Shared {
    name: &'static str,
    report: Report,
    health: AtomicU32,
    restarts: AtomicU64,
    last_error: Mutex<String>,
}

impl Shared {
    fn set(&self, health: Health) {
        self.health.store(health as u32, Ordering::Relaxed);
    }

    fn fail(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = error;
    }
}

/// How a collector is, for `/status`.
#[derive(Clone, Debug)]
pub struct CollectorStatus {
    /// Its name.
    pub name: &'static str,
    /// How it is.
    pub health: Health,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it failed last; empty if it never did.
    pub last_error: String,
    /// What it says of itself.
    pub notes: Vec<Note>,
    /// Its own counters.
    pub counters: Vec<(String, u64)>,
}

/// Runs the collectors.
pub struct CollectorManager {
    stop: Stop,
    site: Site,
    running: Vec<(Arc<Shared>, Option<JoinHandle<()>>)>,
}

impl CollectorManager {
    /// A manager with no collectors yet.
    #[must_use]
    pub fn new(site: Site, stop: Stop) -> Self {
        Self { stop, site, running: Vec::new() }
    }

    /// Starts a collector on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(&mut self, spec: CollectorSpec, core: Option<CoreId>) -> std::io::Result<()> {
        let shared = Arc::new(Shared {
            name: spec.name,
            report: Report::default(),
            health: AtomicU32::new(Health::Starting as u32),
            restarts: AtomicU64::new(0),
            last_error: Mutex::default(),
        });
        let context = Context {
            sink: spec.sink,
            stop: self.stop.clone(),
            report: shared.report.clone(),
            site: self.site.clone(),
        };
        let theirs = Arc::clone(&shared);
        let make = spec.make;
        let thread =
            std::thread::Builder::new().name(format!("c:{}", spec.name)).spawn(move || {
                if let Some(core) = core {
                    core_affinity::set_for_current(core);
                }
                supervise(&theirs, &make, context);
            })?;
        self.running.push((shared, Some(thread)));
        Ok(())
    }

    /// How each collector is.
    #[must_use]
    pub fn statistics(&self) -> Vec<CollectorStatus> {
        self.running
            .iter()
            .map(|(shared, _)| CollectorStatus {
                name: shared.name,
                health: Health::from_number(shared.health.load(Ordering::Relaxed)),
                restarts: shared.restarts.load(Ordering::Relaxed),
                last_error: shared
                    .last_error
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .clone(),
                notes: shared.report.notes(),
                counters: shared.report.counters(),
            })
            .collect()
    }

    /// Whether nothing more comes from any collector: it has read its source to the end, was
    /// stopped, or has none.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let over = [Health::Finished, Health::Stopped, Health::Unavailable];
        self.statistics().iter().all(|s| over.contains(&s.health))
    }

    /// Waits for every collector's thread. [`Stop`] must be set, or every source have an end.
    pub fn join(&mut self) {
        for (_, thread) in &mut self.running {
            if let Some(thread) = thread.take() {
                // A panic of a collector is caught inside; one of the supervisor itself shows as
                // a collector that is not running any more.
                let _ = thread.join();
            }
        }
    }
}

fn supervise(shared: &Shared, make: &Make, mut context: Context) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        shared.set(Health::Running);
        let started = clock::instant();
        let outcome = catch_unwind(AssertUnwindSafe(|| make().run(&mut context)));
        context.sink.flush();
        let error = match outcome {
            Ok(Ok(Ended::Finished)) => return shared.set(Health::Finished),
            Ok(Ok(Ended::Stopped)) => return shared.set(Health::Stopped),
            Ok(Err(CollectorError::Unavailable(error))) => {
                tracing::warn!(collector = shared.name, error, "collector unavailable");
                shared.fail(error);
                return shared.set(Health::Unavailable);
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => {
                context.sink.after_panic();
                format!("panicked: {}", panic_text(&*panic))
            }
        };
        if context.stop.is_set() {
            return shared.set(Health::Stopped);
        }
        if started.elapsed() > RECOVERED {
            backoff = FIRST_BACKOFF;
        }
        tracing::warn!(collector = shared.name, error, retry_in = ?backoff, "collector failed");
        shared.fail(error);
        shared.set(Health::Backoff);
        if wait(&context.stop, backoff) {
            return shared.set(Health::Stopped);
        }
        shared.restarts.fetch_add(1, Ordering::Relaxed);
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
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
fn wait(stop: &Stop, duration: Duration) -> bool {
    let until = clock::instant() + duration;
    while !stop.is_set() {
        let left = until.saturating_duration_since(clock::instant());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    true
}
