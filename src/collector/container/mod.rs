//! The container runtime: what becomes of containers and images, and who they are.
//!
//! | file | purpose |
//! | --- | --- |
//! | `api.rs` | types and clients generated from `proto/containerd/` and `proto/cri.proto` |
//! | `client.rs` | [`Client`]: questions to the runtime, with bounds on time |
//! | `observed.rs` | what is known, and what of an observation is news |
//! | `session.rs` | one connection: events of containerd, compared with its lists |
//! | `cri.rs` | the same for a runtime that speaks the CRI only, by its lists |
//! | `events.rs` | from what happened to events and to the directory |
//!
//! containerd doesn't repeat an event that nobody heard, and says nothing twice. So its lists are compared with what is
//! known at the start, after each reconnection and once a minute; what happened in between is told then, as far as it
//! left a trace.

mod api;
mod client;
mod cri;
mod events;
mod observed;
mod session;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::runtime::cursor::Cursor;
use crate::runtime::poll_timer::{self, PollTimer};
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use client::Client;
use events::Teller;
use observed::Observed;
use tapio_core::clock;
use tapio_core::shutdown::Shutdown;

/// How often it looks whether what was told is settled, while something isn't.
const TICK: Duration = Duration::from_millis(80);
/// How long after it was asked to end it isn't waited any more for what the runtime still owes an answer.
const OVERDUE: Duration = Duration::from_millis(500);
/// How often its counters are published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// How often it looks for a runtime that isn't there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The section `collectors.container`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// Sockets a runtime may listen at; the first one that is there is used.
    pub sockets: Vec<PathBuf>,
    /// The namespaces of containerd to tell of (`k8s.io`, `moby`, `default`); empty: all.
    pub namespaces: Vec<String>,
    /// Whether to use the CRI's lists alone, as is done where the runtime isn't containerd.
    pub cri_only: bool,
}

impl Default for Config {
    fn default() -> Self {
        let sockets = [
            "/run/containerd/containerd.sock",
            "/run/k3s/containerd/containerd.sock",
            "/run/docker/containerd/containerd.sock",
            "/run/crio/crio.sock",
        ];
        Self {
            enabled: true,
            sockets: sockets.map(PathBuf::from).to_vec(),
            namespaces: Vec::new(),
            cri_only: false,
        }
    }
}

/// Waits for a full ring. Events wait in the connection.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Containers)
    }
}

struct Containers(Config);

/// One run.
struct Run<'a> {
    config: &'a Config,
    context: &'a mut Context,
    teller: Teller,
    observed: Observed,
    cursor: Cursor,
    /// What happened up to here was told by an earlier start of the agent, nanoseconds since the Unix epoch. Once
    /// everything there was has been looked at, 0.
    told_before_ns: u64,
    /// The time of the newest event told.
    newest_ns: u64,
    counts: Counts,
    published: Option<Instant>,
}

#[derive(Default)]
struct Counts {
    connections: u64,
    events: u64,
    unknown: u64,
}

impl Collector for Containers {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CollectorError::new("runtime", e))?;
        let mut run = Run::start(&self.0, context)?;
        let shutdown = run.context.shutdown.clone();
        let ended = runtime.block_on(async {
            // Whatever it waits for: a runtime that doesn't answer holds up neither a stop nor the sign of life.
            tokio::select! {
                ended = run.serve() => ended,
                () = overdue(&shutdown) => Ok(Ended::Stopped),
            }
        });
        // Connections are tasks of this runtime and end with it.
        runtime.shutdown_background();
        run.cursor.finish(run.context).map_err(|e| CollectorError::new("the cursor", e))?;
        ended
    }
}

/// Ends when the collector was to and hasn't.
async fn overdue(shutdown: &Shutdown) {
    poll_timer::shutdown_requested(shutdown).await;
    tokio::time::sleep(OVERDUE).await;
}

impl<'a> Run<'a> {
    fn start(config: &'a Config, context: &'a mut Context) -> Result<Self, CollectorError> {
        let cursor = Cursor::open(context.site.state_dir.as_deref(), "container")
            .map_err(|e| CollectorError::new("the cursor", e))?;
        // At the very first start nothing that is there already is news.
        let told_before_ns = cursor.saved().parse().unwrap_or_else(|_| clock::wall_ns());
        let teller = Teller::new(&context.site);
        let mut run = Self {
            config,
            context,
            teller,
            observed: Observed::default(),
            cursor,
            told_before_ns,
            newest_ns: told_before_ns,
            counts: Counts::default(),
            published: None,
        };
        run.cursor.advance(&told_before_ns.to_string());
        Ok(run)
    }

    /// Connects, listens, and begins again when the runtime goes. A runtime that isn't there is looked for quietly:
    /// it may be started later, or never.
    async fn serve(&mut self) -> Result<Ended, CollectorError> {
        let mut said = String::new();
        while !self.context.shutdown.is_requested() {
            let why = match self.config.sockets.iter().find(|s| s.exists()) {
                None => "no container runtime's socket is there; looking for one".to_owned(),
                Some(socket) => match self.session(socket).await {
                    Ok(()) => return Ok(Ended::Stopped),
                    Err(cause) => format!("{}: {cause}", socket.display()),
                },
            };
            // The same words aren't logged again, however often it is tried.
            if why != said {
                tracing::info!("container runtime: {why}");
                self.context.report.note("runtime", why.as_str());
                said = why;
            }
            self.rest(LOOK_AGAIN).await;
        }
        Ok(Ended::Stopped)
    }

    /// Sleeps, unless asked to stop.
    async fn rest(&mut self, duration: Duration) {
        let mut timer = self.poll_timer();
        let until = clock::instant() + duration;
        while !self.context.shutdown.is_requested() && clock::instant() < until {
            // A place that couldn't be saved is no reason to end; it is tried again.
            let _ = self.settle(&mut timer);
            timer.next().await;
        }
    }

    /// One connection; `Ok` when asked to stop.
    async fn session(&mut self, socket: &Path) -> Result<(), String> {
        let client = Client::connect(socket).await?;
        let namespaces = match self.config.cri_only {
            true => None,
            false => client.namespaces().await.map_err(|s| told(&s))?,
        };
        self.counts.connections += 1;
        let speaks = if namespaces.is_some() { "containerd" } else { "the CRI" };
        self.context.report.note("runtime", format!("{}: {speaks}", socket.display()));
        match namespaces {
            Some(_) => self.listen(&client).await,
            None => self.poll(&client).await,
        }
        .map_err(|s| told(&s))
    }

    fn poll_timer(&self) -> PollTimer {
        PollTimer::new(&self.context.shutdown, TICK)
    }

    /// Says where everything is that was told. Returns whether nothing more is to be told meanwhile.
    fn settle(&mut self, timer: &mut PollTimer) -> Result<bool, String> {
        let pause = self.cursor.try_save(self.context).map_err(|e| format!("the cursor: {e}"));
        self.context.sink.flush();
        if self.cursor.is_pending() {
            timer.wake_soon();
        }
        let now = clock::instant();
        if self.published.is_some_and(|last| now.duration_since(last) < PUBLISH_EVERY) {
            return pause;
        }
        self.published = Some(now);
        let report = &self.context.report;
        report.count("containers", self.observed.len() as u64);
        report.count("untracked", self.observed.untracked);
        report.count("events", self.counts.events);
        report.count("unknown_events", self.counts.unknown);
        report.count("connections", self.counts.connections);
        pause
    }
}

/// A status as a person reads it.
fn told(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
