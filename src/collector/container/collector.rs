//! The collector: its configuration, connecting and reconnecting to the runtime, and the cursor.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::client::Client;
use super::table::ContainerTable;
use super::to_event::EventWriter;
use crate::runtime::cursor::Cursor;
use crate::runtime::poll_timer::{self, PollTimer};
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
    tokio_runtime,
};
use tapio_core::clock;
use tapio_core::shutdown::Shutdown;

/// Interval at which the cursor is checked while a position waits to be saved.
const CURSOR_INTERVAL: Duration = Duration::from_millis(80);
/// How long after the shutdown request the collector waits for outstanding responses.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);
/// Interval at which counters are published.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The section `collectors.container`.
#[derive(
    Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// Sockets of runtimes; the first that exists is used.
    pub sockets: Vec<PathBuf>,
    /// The namespaces of containerd to report (`k8s.io`, `moby`, `default`); empty: all.
    pub namespaces: Vec<String>,
    /// Whether to use the CRI's lists only, as with a runtime other than containerd.
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

// A full ring: the collector waits, and events queue up in the connection.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn reads_again(&self) -> bool {
        true
    }

    fn sockets(&self) -> Vec<PathBuf> {
        self.sockets.clone()
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Containers)
    }
}

struct Containers(Config);

/// State of one run.
pub(super) struct Run<'a> {
    pub(super) config: &'a Config,
    pub(super) context: &'a mut Context,
    pub(super) writer: EventWriter,
    pub(super) containers: ContainerTable,
    pub(super) cursor: Cursor,
    /// Time up to which an earlier start of the agent emitted transitions, ns since the Unix epoch.
    /// 0 once the lists have been compared for the first time.
    pub(super) emitted_until_ns: u64,
    /// Time of the newest emitted event.
    pub(super) newest_ns: u64,
    pub(super) counts: Counts,
    published: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Counts {
    connections: u64,
    pub(super) events: u64,
    /// Events that couldn't be decoded.
    pub(super) unknown: u64,
}

impl Collector for Containers {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let runtime = tokio_runtime()?;
        let mut run = Run::start(&self.0, context)?;
        let shutdown = run.context.shutdown.clone();
        let ended = runtime.block_on(async {
            // A runtime that doesn't respond delays neither the shutdown nor the heartbeat.
            tokio::select! {
                ended = run.serve() => ended,
                () = grace_period_over(&shutdown) => Ok(Ended::Stopped),
            }
        });
        // Connections are tasks of this runtime and end with it.
        runtime.shutdown_background();
        run.cursor.finish(run.context).map_err(|e| CollectorError::new("saving the cursor", e))?;
        ended
    }
}

/// Checks a saved cursor: the time of the newest emitted event.
fn check_time(saved: &str) -> Result<(), String> {
    saved.parse::<u64>().map(drop).map_err(|e| format!("not a time: {e}"))
}

/// Completes when the grace period after a shutdown request is over.
async fn grace_period_over(shutdown: &Shutdown) {
    poll_timer::shutdown_requested(shutdown).await;
    tokio::time::sleep(SHUTDOWN_GRACE).await;
}

impl<'a> Run<'a> {
    fn start(config: &'a Config, context: &'a mut Context) -> Result<Self, CollectorError> {
        let cursor = Cursor::open(context, "container", check_time)
            .map_err(|e| CollectorError::new("opening the cursor", e))?;
        // The very first start doesn't emit what happened before it.
        let emitted_until_ns = cursor.saved().parse().unwrap_or_else(|_| clock::wall_ns());
        let writer = EventWriter::new(&context.site);
        let mut run = Self {
            config,
            context,
            writer,
            containers: ContainerTable::default(),
            cursor,
            emitted_until_ns,
            newest_ns: emitted_until_ns,
            counts: Counts::default(),
            published: None,
        };
        run.cursor.advance(&emitted_until_ns.to_string());
        Ok(run)
    }

    /// Connects, and reconnects when the connection ends. A missing runtime isn't an error: it may
    /// start later, or never.
    async fn serve(&mut self) -> Result<Ended, CollectorError> {
        let mut reported = String::new();
        while !self.context.shutdown.is_requested() {
            let socket = self.config.sockets.iter().find(|s| s.exists());
            let is_installed = socket.is_some();
            let state = match socket {
                None => "no socket of a container runtime found; retrying every second; container \
                         events will be missing"
                    .to_owned(),
                Some(socket) => match self.session(socket).await {
                    Ok(()) => return Ok(Ended::Stopped),
                    Err(cause) => format!("{}: {cause}", socket.display()),
                },
            };
            // Repeated attempts with the same result are logged once.
            if state != reported {
                // A node without a container runtime is no fault.
                match is_installed {
                    true => tracing::warn!(
                        collector = "container",
                        error = state,
                        "container runtime unavailable"
                    ),
                    false => tracing::info!(collector = "container", "{state}"),
                }
                self.context.report.note("runtime", state.as_str());
                reported = state;
            }
            self.pause(RETRY_INTERVAL).await;
        }
        Ok(Ended::Stopped)
    }

    /// Sleeps until `duration` has passed or shutdown is requested; saves the cursor meanwhile.
    async fn pause(&mut self, duration: Duration) {
        let mut timer = self.poll_timer();
        let until = clock::instant() + duration;
        while !self.context.shutdown.is_requested() && clock::instant() < until {
            // A cursor that can't be saved doesn't end the run; the next iteration tries again.
            let _ = self.save_cursor(&mut timer);
            timer.next().await;
        }
    }

    /// Serves one connection. Returns `Ok` on shutdown.
    async fn session(&mut self, socket: &Path) -> Result<(), String> {
        let client = Client::connect(socket).await?;
        let namespaces = match self.config.cri_only {
            true => None,
            false => client.namespaces().await.map_err(|s| describe(&s))?,
        };
        self.counts.connections += 1;
        let api = if namespaces.is_some() { "containerd" } else { "CRI" };
        self.context.report.note("runtime", format!("{}: {api}", socket.display()));
        match namespaces {
            Some(_) => self.subscribe(&client).await,
            None => self.poll(&client).await,
        }
        .map_err(|s| describe(&s))
    }

    pub(super) fn poll_timer(&self) -> PollTimer {
        PollTimer::new(&self.context.shutdown, CURSOR_INTERVAL)
    }

    /// Saves the cursor if every event before it is finalized, and publishes counters. Returns
    /// whether the source should pause until then.
    pub(super) fn save_cursor(&mut self, timer: &mut PollTimer) -> Result<bool, String> {
        let is_paused =
            self.cursor.try_save(self.context).map_err(|e| format!("saving the cursor: {e}"));
        self.context.sink.flush();
        if self.cursor.is_pending() {
            timer.wake_soon();
        }
        let now = clock::instant();
        if self.published.is_some_and(|last| now.duration_since(last) < PUBLISH_INTERVAL) {
            return is_paused;
        }
        self.published = Some(now);
        let report = &self.context.report;
        report.count("containers", self.containers.len() as u64);
        report.count("untracked", self.containers.untracked);
        report.count("runtime_events", self.counts.events);
        report.count("unknown_events", self.counts.unknown);
        report.count("connections", self.counts.connections);
        is_paused
    }
}

/// A status as text.
fn describe(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_not_a_time() {
        assert_eq!(check_time("1795871296000000000"), Ok(()));
        for bad in ["\0\u{1}", "{}", "-1", "1.5", "1795871296000000000 x"] {
            assert!(check_time(bad).is_err(), "{bad}");
        }
    }
}
