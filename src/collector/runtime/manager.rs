//! Runs the collectors: a pinned thread each, health, statistics, and another run in the place of one that hangs.
//! `supervise.rs` is what such a thread does.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use core_affinity::CoreId;

use super::collector::Make;
use super::health::{HUNG_AFTER, Health};
use super::site::Site;
use super::status::Note;
use super::supervise::Shared;
use tapio_core::clock;
use tapio_core::ring::Sink;
use tapio_core::shutdown::Shutdown;

/// Signs of life that a collector in good health gives in that time.
const SIGNS_OF_LIFE: u32 = 8;
/// How long collectors that were asked to end are waited for without a sign of life. They need a tenth of a second, and one
/// more for their last positions; some have a backlog to tell.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// How long they are waited for at all.
const LONGEST_END: Duration = Duration::from_secs(60);
/// A collector that hangs is given this long to go on by itself before another run takes its place; twice as long the
/// next time.
const FIRST_GRACE: Duration = Duration::from_secs(1);
const LONGEST_GRACE: Duration = Duration::from_secs(60);

/// A collector to be started.
pub struct CollectorSpec {
    /// Its name in the table.
    pub name: &'static str,
    /// Makes it anew for each start.
    pub make: Make,
    /// Where its events go. Its spare is for a run that takes the place of one that hangs.
    pub sink: Sink,
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
    /// For how long it has shown no sign of life, though it runs.
    pub silence: Duration,
    /// What it says of itself.
    pub notes: Vec<Note>,
    /// Its own counters.
    pub counters: Vec<(String, u64)>,
}

/// Runs the collectors.
pub struct CollectorManager {
    shutdown: Shutdown,
    site: Site,
    hung_after: Duration,
    running: Vec<Supervised>,
}

/// A collector, its threads and how it was when it was looked at last.
struct Supervised {
    shared: Arc<Shared>,
    core: Option<CoreId>,
    /// The one in charge, and those that were given up and haven't ended yet.
    threads: Vec<JoinHandle<()>>,
    /// Signs of life seen, and when the last one was.
    looks: u64,
    lived: Instant,
    /// How long it is waited for once it hangs.
    grace: Duration,
}

impl CollectorManager {
    /// A manager with no collectors yet.
    #[must_use]
    pub fn new(site: Site, shutdown: Shutdown) -> Self {
        Self { shutdown, site, hung_after: HUNG_AFTER, running: Vec::new() }
    }

    /// Says after how long without a sign of life a collector hangs.
    #[must_use]
    pub fn hung_after(mut self, silence: Duration) -> Self {
        self.hung_after = silence;
        self
    }

    /// Starts a collector on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(&mut self, spec: CollectorSpec, core: Option<CoreId>) -> std::io::Result<()> {
        let mut supervised = Supervised {
            shared: Arc::new(Shared::new(spec.name, spec.make, spec.sink)),
            core,
            threads: Vec::new(),
            looks: 0,
            lived: clock::instant(),
            grace: FIRST_GRACE,
        };
        supervised.run(&self.shutdown, &self.site, self.hung_after)?;
        self.running.push(supervised);
        Ok(())
    }

    /// Looks whether all live, and gives the place of one that hangs to another run. Call it about once a second.
    pub fn look(&mut self) {
        if self.shutdown.is_requested() {
            return;
        }
        for one in &mut self.running {
            one.threads.retain(|thread| !thread.is_finished());
            if let Err(error) = one.look(self.hung_after, &self.shutdown, &self.site) {
                tracing::error!(collector = one.shared.name, %error, "no thread to take over");
            }
        }
    }

    /// How each collector is.
    #[must_use]
    pub fn statistics(&self) -> Vec<CollectorStatus> {
        self.running.iter().map(Supervised::status).collect()
    }

    /// Whether nothing more comes from any collector: it has read its source to the end, was
    /// stopped, or has none.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let over = [Health::Finished, Health::Stopped, Health::Unavailable];
        self.statistics().iter().all(|s| over.contains(&s.health))
    }

    /// Waits for every collector's thread. [`Shutdown`] must be set, or every source have an end. One that hangs isn't
    /// waited for, and whoever reads its ring isn't to, either.
    pub fn join(&mut self) {
        let is_left = |one: &&Supervised| one.threads.iter().any(|thread| !thread.is_finished());
        let (mut asked, mut signs) = (None, 0);
        while self.running.iter().any(|one| is_left(&one)) {
            if self.shutdown.is_requested() {
                let (since, lived) = asked.get_or_insert((clock::instant(), clock::instant()));
                let now = self.running.iter().filter(is_left).map(|one| one.shared.looks()).sum();
                if std::mem::replace(&mut signs, now) != now {
                    *lived = clock::instant();
                }
                if lived.elapsed() > LAST_PATIENCE || since.elapsed() > LONGEST_END {
                    let left = self.running.iter().filter(is_left).map(|one| one.shared.name);
                    let left: Vec<_> = left.collect();
                    tracing::error!(?left, "collectors that don't end are left behind");
                    return self.shutdown.abandon_hung_threads();
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // A panic of a collector is caught inside; one of the supervisor itself shows as a collector that is not
        // running any more.
        self.running.iter_mut().flat_map(|one| one.threads.drain(..)).for_each(|t| drop(t.join()));
    }
}

impl Supervised {
    /// Starts a thread for the collector, which is in charge from now on.
    fn run(
        &mut self,
        shutdown: &Shutdown,
        site: &Site,
        hung_after: Duration,
    ) -> std::io::Result<bool> {
        let nap = hung_after / SIGNS_OF_LIFE;
        let Some(charge) = self.shared.take_charge(shutdown, site, nap) else { return Ok(false) };
        let (theirs, core) = (Arc::clone(&self.shared), self.core);
        let name = format!("c:{}", self.shared.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            theirs.supervise(charge);
        })?;
        self.threads.push(thread);
        Ok(true)
    }

    fn look(
        &mut self,
        hung_after: Duration,
        shutdown: &Shutdown,
        site: &Site,
    ) -> std::io::Result<()> {
        let looks = self.shared.looks();
        let runs = matches!(self.shared.health(), Health::Running | Health::Hung);
        if looks != self.looks || !runs {
            self.looks = looks;
            self.lived = clock::instant();
            self.shared.turn(Health::Hung, Health::Running);
            return Ok(());
        }
        let silence = self.lived.elapsed();
        if silence <= hung_after {
            return Ok(());
        }
        if self.shared.turn(Health::Running, Health::Hung) {
            let error = format!("hangs: no sign of life for {silence:.1?}");
            tracing::warn!(collector = self.shared.name, error, "collector hangs");
            self.shared.fail(error);
        }
        if silence > hung_after + self.grace && self.run(shutdown, site, hung_after)? {
            self.shared.count_restart();
            self.lived = clock::instant();
            self.looks = self.shared.looks();
            self.grace = (self.grace * 2).min(LONGEST_GRACE);
        }
        Ok(())
    }

    fn status(&self) -> CollectorStatus {
        let shared = &self.shared;
        let health = shared.health();
        let runs = matches!(health, Health::Running | Health::Hung);
        let silence = match runs && shared.looks() == self.looks {
            true => self.lived.elapsed(),
            false => Duration::ZERO,
        };
        CollectorStatus {
            name: shared.name,
            health,
            restarts: shared.restarts(),
            last_error: shared.last_error(),
            silence,
            notes: shared.report.notes(),
            counters: shared.report.counters(),
        }
    }
}
