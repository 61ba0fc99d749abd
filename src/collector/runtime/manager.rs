//! Runs the collectors: a thread each, health, status, and the replacement of hung runs.
//! `supervise.rs` is the body of a thread.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::collector::CollectorFactory;
use super::health::{HUNG_AFTER, Health};
use super::needs::Confinement;
use super::site::Site;
use super::status::StatusNote;
use super::supervise::Shared;
use tapio_core::clock;
use tapio_core::ring::Sink;
use tapio_core::shutdown::Shutdown;

/// Heartbeats that a healthy collector gives within `hung_after`.
const HEARTBEATS_PER_HUNG_AFTER: u32 = 8;
/// After a shutdown request: how long to wait for collectors that give no heartbeat. They need a
/// tenth of a second, and one second more for their last cursors; some have a backlog to emit.
const SHUTDOWN_SILENCE: Duration = Duration::from_secs(5);
/// After a shutdown request: how long to wait for collectors at all.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a hung collector to recover before another run replaces it. Doubles with each
/// replacement.
const FIRST_RECOVERY_TIME: Duration = Duration::from_secs(1);
const MAX_RECOVERY_TIME: Duration = Duration::from_secs(60);

/// A collector to start.
pub struct CollectorSpec {
    /// Its name in the table.
    pub name: &'static str,
    /// Creates the collector for each run.
    pub factory: CollectorFactory,
    /// Receives its events. The sink's spare is for a run that replaces a hung one.
    pub sink: Sink,
}

/// The status of a collector, for `/status`.
#[derive(Clone, Debug)]
pub struct CollectorStatus {
    /// Its name.
    pub name: &'static str,
    /// Its health.
    pub health: Health,
    /// Number of restarts.
    pub restarts: u64,
    /// The last failure, or why it is degraded; empty without one.
    pub last_error: String,
    /// Whether its source was opened, or can't be: the start doesn't wait for it.
    pub is_settled: bool,
    /// Time since the last heartbeat of a running collector.
    pub heartbeat_age: Duration,
    /// Its status notes.
    pub notes: Vec<StatusNote>,
    /// Its own counters.
    pub counters: Vec<(String, u64)>,
}

/// Runs the collectors.
pub struct CollectorManager {
    shutdown: Shutdown,
    site: Site,
    hung_after: Duration,
    confinement: Option<Arc<Confinement>>,
    collectors: Vec<Supervised>,
}

/// A collector, its threads, and its heartbeats as of the last check.
struct Supervised {
    shared: Arc<Shared>,
    confinement: Option<Arc<Confinement>>,
    /// The thread of the current run, and those of abandoned runs that haven't ended yet.
    threads: Vec<JoinHandle<()>>,
    /// Number of heartbeats, and when it last increased.
    heartbeats: u64,
    last_heartbeat: Instant,
    /// Time for the collector to recover once it hangs.
    recovery_time: Duration,
}

impl CollectorManager {
    /// A manager without collectors.
    #[must_use]
    pub fn new(site: Site, shutdown: Shutdown) -> Self {
        Self { shutdown, site, hung_after: HUNG_AFTER, confinement: None, collectors: Vec::new() }
    }

    /// Starts the collectors' threads with the rights that they need only.
    #[must_use]
    pub fn confined(mut self, confinement: Option<Arc<Confinement>>) -> Self {
        self.confinement = confinement;
        self
    }

    /// Sets the time without a heartbeat after which a collector counts as hung.
    #[must_use]
    pub fn hung_after(mut self, hung_after: Duration) -> Self {
        self.hung_after = hung_after;
        self
    }

    /// Starts a collector on a thread of its own.
    ///
    /// # Errors
    /// When the system can't start a thread.
    pub fn start(&mut self, spec: CollectorSpec) -> std::io::Result<()> {
        let mut supervised = Supervised {
            shared: Arc::new(Shared::new(spec.name, spec.factory, spec.sink, &self.site.redactor)),
            confinement: self.confinement.clone(),
            threads: Vec::new(),
            heartbeats: 0,
            last_heartbeat: clock::instant(),
            recovery_time: FIRST_RECOVERY_TIME,
        };
        supervised.start_run(&self.shutdown, &self.site, self.hung_after)?;
        self.collectors.push(supervised);
        Ok(())
    }

    /// Checks the heartbeats of all collectors and replaces hung runs. To be called about once a
    /// second.
    pub fn check_health(&mut self) {
        if self.shutdown.is_requested() {
            return;
        }
        for collector in &mut self.collectors {
            collector.threads.retain(|thread| !thread.is_finished());
            if let Err(error) = collector.check_health(self.hung_after, &self.shutdown, &self.site)
            {
                let name = collector.shared.name;
                tracing::error!(collector = name, %error, "can't start a replacement thread for a hung collector");
            }
        }
    }

    /// The status of each collector.
    #[must_use]
    pub fn status(&self) -> Vec<CollectorStatus> {
        self.collectors.iter().map(Supervised::status).collect()
    }

    /// Whether no collector will emit any more events: each one is finished, stopped or
    /// unavailable.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let ended = [Health::Finished, Health::Stopped, Health::Unavailable];
        self.status().iter().all(|s| ended.contains(&s.health))
    }

    /// Waits for every collector's thread. [`Shutdown`] must be requested, or every source be
    /// finite. Hung threads are abandoned, and readers of their rings don't wait for them either.
    pub fn join(&mut self) {
        let is_running =
            |collector: &&Supervised| collector.threads.iter().any(|thread| !thread.is_finished());
        let (mut waiting, mut heartbeats) = (None, 0);
        while self.collectors.iter().any(|collector| is_running(&collector)) {
            if self.shutdown.is_requested() {
                let (since, last_heartbeat) =
                    waiting.get_or_insert((clock::instant(), clock::instant()));
                let running = self.collectors.iter().filter(is_running);
                let now = running.map(|collector| collector.shared.heartbeats()).sum();
                if std::mem::replace(&mut heartbeats, now) != now {
                    *last_heartbeat = clock::instant();
                }
                if last_heartbeat.elapsed() > SHUTDOWN_SILENCE || since.elapsed() > SHUTDOWN_TIMEOUT
                {
                    let running = self.collectors.iter().filter(is_running);
                    let hung: Vec<_> = running.map(|collector| collector.shared.name).collect();
                    tracing::error!(
                        ?hung,
                        "collectors didn't stop in time; shutting down without them"
                    );
                    return self.shutdown.abandon_hung_threads();
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // The supervisor catches a collector's panics. A panic of the supervisor itself shows as
        // a collector that doesn't run any more.
        let threads = self.collectors.iter_mut().flat_map(|collector| collector.threads.drain(..));
        threads.for_each(|thread| drop(thread.join()));
    }
}

impl Supervised {
    /// Starts a thread for a new run, which becomes the current one. Returns whether it did: not
    /// if no sink is left.
    fn start_run(
        &mut self,
        shutdown: &Shutdown,
        site: &Site,
        hung_after: Duration,
    ) -> std::io::Result<bool> {
        let heartbeat_interval = hung_after / HEARTBEATS_PER_HUNG_AFTER;
        let rights = self.confinement.as_ref().map(|all| all.rights(self.shared.name));
        let Some(run) = self.shared.begin_run(shutdown, site, heartbeat_interval, rights) else {
            return Ok(false);
        };
        let shared = Arc::clone(&self.shared);
        let name = format!("c:{}", self.shared.name);
        let (own, placement) = (name.clone(), site.layout.placement(&name));
        let body = move || {
            placement.begin(&own);
            shared.supervise(run);
        };
        self.threads.push(match &self.confinement {
            Some(confinement) => confinement.spawn(self.shared.name, name, body)?,
            None => std::thread::Builder::new().name(name).spawn(body)?,
        });
        Ok(true)
    }

    fn check_health(
        &mut self,
        hung_after: Duration,
        shutdown: &Shutdown,
        site: &Site,
    ) -> std::io::Result<()> {
        let heartbeats = self.shared.heartbeats();
        let runs = matches!(self.shared.health(), Health::Running | Health::Hung);
        if heartbeats != self.heartbeats || !runs {
            self.heartbeats = heartbeats;
            self.last_heartbeat = clock::instant();
            self.shared.change_health(Health::Hung, Health::Running);
            return Ok(());
        }
        let heartbeat_age = self.last_heartbeat.elapsed();
        if heartbeat_age <= hung_after {
            return Ok(());
        }
        if self.shared.change_health(Health::Running, Health::Hung) {
            let error = format!("hung: no heartbeat for {heartbeat_age:.1?}");
            tracing::warn!(collector = self.shared.name, error, "collector hung");
            self.shared.set_last_error(error);
        }
        let may_be_replaced = heartbeat_age > hung_after + self.recovery_time;
        if may_be_replaced && self.start_run(shutdown, site, hung_after)? {
            self.shared.count_restart();
            self.last_heartbeat = clock::instant();
            self.heartbeats = self.shared.heartbeats();
            self.recovery_time = (self.recovery_time * 2).min(MAX_RECOVERY_TIME);
        }
        Ok(())
    }

    fn status(&self) -> CollectorStatus {
        let shared = &self.shared;
        let health = shared.health();
        let runs = matches!(health, Health::Running | Health::Hung);
        let heartbeat_age = match runs && shared.heartbeats() == self.heartbeats {
            true => self.last_heartbeat.elapsed(),
            false => Duration::ZERO,
        };
        let degradation = shared.report.degradation();
        let is_degraded = health == Health::Running && !degradation.is_empty();
        CollectorStatus {
            name: shared.name,
            health: if is_degraded { Health::Degraded } else { health },
            restarts: shared.restarts(),
            is_settled: match health {
                Health::Starting => false,
                Health::Running => shared.heartbeats() > 0,
                _ => true,
            },
            last_error: if is_degraded { degradation } else { shared.last_error() },
            heartbeat_age,
            notes: shared.report.notes(),
            counters: shared.report.counters(),
        }
    }
}
