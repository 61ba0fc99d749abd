//! The collector: its configuration, and the loop that reads reports, allocations and the node's
//! network.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::allocations::{Allocation, Allocations, Change};
use super::ipam_cursor::IpamCursor;
use super::links::Links;
use super::socket::{Listener, Received, Socket};
use super::to_event::EventWriter;
use crate::cni_report;
use crate::runtime::alarm::Alarm;
use crate::runtime::listener::ListenerSlot;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::clock;
use tapio_core::event::Reason;
use tapio_core::sandbox::FileRights;

/// Longest sleep while a position waits to be saved or a peer's packet hasn't arrived.
const CURSOR_INTERVAL: Duration = Duration::from_millis(80);
/// Longest sleep while an allocation waits for the name of its pod.
const PENDING_INTERVAL: Duration = Duration::from_millis(20);
/// Interval at which missing sources are opened and counters published.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait of a new allocation for its pod, which the plugin reports at the end of the same
/// call, and the container runtime as well. A longer wait would make the event late.
const NEW_ALLOCATION_WAIT: Duration = Duration::from_secs(1);
/// Longest wait of an allocation that existed at the start and isn't emitted.
const FOUND_ALLOCATION_WAIT: Duration = Duration::from_secs(30);
/// Allocations that may wait; further ones are emitted without a pod.
const MAX_WAITING: usize = 4096;
/// Refused reports, and refused connections, that are logged one by one.
const MAX_LOGGED: u64 = 10;

/// The section `collectors.cni`.
#[derive(
    Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// The socket that `tapio-cni` sends reports to.
    pub socket: PathBuf,
    /// The folder in which host-local keeps its allocations.
    pub networks: PathBuf,
    /// Whether to emit changes of the node's links, addresses and default routes.
    pub links: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: cni_report::DEFAULT_SOCKET.into(),
            networks: "/var/lib/cni/networks".into(),
            links: true,
        }
    }
}

// A full ring: the collector waits; reports queue up in the socket, allocations in their files.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn reads_again(&self) -> bool {
        true
    }

    fn files(&self) -> Vec<(PathBuf, FileRights)> {
        let socket = self.socket.parent().map(|folder| (folder.to_owned(), FileRights::Write));
        socket.into_iter().chain([(self.networks.clone(), FileRights::Read)]).collect()
    }

    fn factory(&self) -> CollectorFactory {
        factory((self.clone(), ListenerSlot::default()), |(config, listener)| Cni(config, listener))
    }
}

struct Cni(Config, ListenerSlot<Listener>);

/// An allocation whose pod isn't known yet.
struct PendingAllocation {
    allocation: Allocation,
    deadline: Instant,
    /// Not emitted before, by this or an earlier run.
    is_new: bool,
}

/// State of one run.
struct Run<'a> {
    config: &'a Config,
    listener: &'a ListenerSlot<Listener>,
    context: &'a mut Context,
    alarm: Alarm,
    writer: EventWriter,
    socket: Option<Socket>,
    allocations: Option<Allocations>,
    links: Option<Links>,
    pending: VecDeque<PendingAllocation>,
    cursor: IpamCursor,
    /// No allocations are read until the cursor is saved.
    is_paused: bool,
    last_housekeeping: Option<Instant>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    reports: u64,
    refused: u64,
    unauthorized: u64,
    unresolved: u64,
}

impl Collector for Cni {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let mut run = Run::start(&self.0, &self.1, context)?;
        while !run.context.shutdown.is_requested() {
            run.housekeeping();
            let is_ready = run.wait();
            run.process(is_ready)?;
        }
        run.emit_resolved(true);
        run.cursor.finish(run.context).map_err(|e| CollectorError::new("saving the cursor", e))?;
        Ok(Ended::Stopped)
    }
}

impl<'a> Run<'a> {
    fn start(
        config: &'a Config,
        listener: &'a ListenerSlot<Listener>,
        context: &'a mut Context,
    ) -> Result<Self, CollectorError> {
        let cursor =
            IpamCursor::open(context).map_err(|e| CollectorError::new("opening the cursor", e))?;
        let mut problems = Vec::new();
        let mut failed = |source: &str, missing: &str, cause: std::io::Error| {
            problems.push(format!("{source}: {cause}"));
            let state = format!("{source} disabled: {cause}; {missing} will be missing");
            context.report.note(source, state);
        };
        let mut allocations = Allocations::open(&config.networks)
            .map_err(|e| failed("inotify", "IP allocations of host-local", e))
            .ok();
        if let Some(allocations) = &mut allocations {
            allocations.restore(cursor.allocations());
        }
        let links = match config.links {
            true => {
                let missing = "changes of links, addresses and routes";
                Links::open().map_err(|e| failed("netlink", missing, e)).ok()
            }
            false => None,
        };
        if allocations.is_none() && links.is_none() {
            return Err(CollectorError::Failed(problems.join("; ")));
        }
        let writer = EventWriter::new(&context.site);
        Ok(Self {
            config,
            listener,
            alarm: Alarm::new(&context.shutdown)?,
            context,
            writer,
            socket: None,
            allocations,
            links,
            pending: VecDeque::new(),
            cursor,
            is_paused: false,
            last_housekeeping: None,
            counts: Counts::default(),
        })
    }

    /// Opens missing sources and publishes counters, about once a second.
    fn housekeeping(&mut self) {
        let now = clock::instant();
        if self.last_housekeeping.is_some_and(|last| now - last < HOUSEKEEPING_INTERVAL) {
            return;
        }
        self.last_housekeeping = Some(now);
        if self.socket.is_none() {
            let path = self.config.socket.display();
            let state = match Socket::open(&self.config.socket, self.listener) {
                Ok(socket) => {
                    self.socket = Some(socket);
                    format!("listening on {path}")
                }
                Err(e) => {
                    format!("socket disabled: {path}: {e}; reports of tapio-cni will be missing")
                }
            };
            self.context.report.note("socket", state);
        }
        let mut changes = Vec::new();
        if let Some(allocations) = &mut self.allocations {
            allocations.watch_base(&mut changes);
        }
        self.apply(changes);
        self.publish_counters();
    }

    fn publish_counters(&self) {
        let report = &self.context.report;
        report.count("reports", self.counts.reports);
        report.count("reports_invalid", self.counts.refused);
        report.count("connections_refused", self.counts.unauthorized);
        report.count("repeated_dels", self.writer.repeated);
        report.count("unresolved", self.counts.unresolved);
        report.count("attachments", self.writer.attachments.len() as u64);
        report.count("addresses", self.allocations.as_ref().map_or(0, |a| a.len() as u64));
        let missed = self.allocations.as_ref().map_or(0, |a| a.missed);
        report.count("allocations_missed", missed);
        report.count("links", self.links.as_ref().map_or(0, |l| l.len() as u64));
        report.count("netlink_overruns", self.links.as_ref().map_or(0, |l| l.overruns));
    }

    /// Sleeps until a source is readable. Returns whether one is.
    fn wait(&self) -> bool {
        let reports = self.socket.iter().flat_map(Socket::sources);
        let allocations = self.allocations.iter().filter(|_| !self.is_paused).map(|a| a.as_fd());
        let sources = reports.chain(allocations).chain(self.links.iter().map(|l| l.as_fd()));
        let has_peers = self.socket.as_ref().is_some_and(Socket::has_peers);
        let timeout = if !self.pending.is_empty() || self.is_paused {
            PENDING_INTERVAL
        } else if has_peers || self.cursor.is_pending() {
            CURSOR_INTERVAL
        } else {
            self.context.shutdown.heartbeat_interval()
        };
        self.alarm.wait(sources, timeout) || has_peers
    }

    /// Reads the sources if one is ready, emits resolved allocations and saves the cursor.
    fn process(&mut self, is_ready: bool) -> Result<(), CollectorError> {
        if is_ready {
            self.read()?;
        }
        self.emit_resolved(false);
        self.is_paused = self
            .cursor
            .try_save(self.context)
            .map_err(|e| CollectorError::new("saving the cursor", e))?;
        self.context.sink.flush();
        Ok(())
    }

    fn read(&mut self) -> Result<(), CollectorError> {
        // Reports first: they name the pods of the allocations.
        self.read_reports();
        if !self.is_paused
            && let Some(allocations) = &mut self.allocations
        {
            let mut changes = Vec::new();
            allocations.read(&mut changes);
            self.apply(changes);
        }
        if let Some(links) = &mut self.links {
            let mut changes = Vec::new();
            links.read(&mut changes).map_err(|e| CollectorError::new("netlink", e))?;
            let now_ns = clock::wall_ns();
            for change in &changes {
                self.writer.network_change(change, now_ns, &mut self.context.sink);
            }
        }
        Ok(())
    }

    fn read_reports(&mut self) {
        let Self { socket: Some(socket), writer, counts, context, .. } = self else {
            return;
        };
        let now_ns = clock::wall_ns();
        socket.read(|received| {
            let error = match received {
                Received::Packet(packet) => {
                    counts.reports += 1;
                    writer.report(packet, now_ns, &mut context.sink).err()
                }
                Received::TooLong => {
                    context.sink.refuse(Reason::BadInput, 1);
                    Some(format!("longer than {} bytes", cni_report::MAX_REPORT_BYTES))
                }
                Received::TimedOut => None,
                Received::Unauthorized(uid) => {
                    counts.unauthorized += 1;
                    if counts.unauthorized <= MAX_LOGGED {
                        tracing::warn!(
                            collector = "cni",
                            uid,
                            "refused a connection from an unauthorized user"
                        );
                    }
                    None
                }
            };
            if let Some(cause) = error {
                counts.refused += 1;
                if counts.refused <= MAX_LOGGED {
                    tracing::warn!(collector = "cni", error = cause, "refused a report");
                }
            }
        });
    }

    /// Applies changes of allocations. An allocation without a known pod waits for it.
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            let (allocation, is_new) = match change {
                Change::Allocated(allocation) => (allocation, true),
                // New if it was made while the agent didn't run.
                Change::Found(allocation) => {
                    let is_new = self.cursor.is_new(&allocation);
                    (allocation, is_new)
                }
                Change::Released(allocation, released_ns) => {
                    self.emit_pending(&allocation);
                    self.cursor.remove(&allocation);
                    self.writer.released(&allocation, released_ns, &mut self.context.sink);
                    continue;
                }
            };
            let wait = if is_new { NEW_ALLOCATION_WAIT } else { FOUND_ALLOCATION_WAIT };
            let deadline = clock::instant() + wait;
            self.pending.push_back(PendingAllocation { allocation, deadline, is_new });
        }
        self.emit_resolved(false);
    }

    /// Emits an allocation if it still waits: it was released.
    fn emit_pending(&mut self, allocation: &Allocation) {
        if let Some(at) = self.pending.iter().position(|p| p.allocation == *allocation)
            && let Some(pending) = self.pending.remove(at)
        {
            self.emit(&pending);
        }
    }

    fn emit(&mut self, pending: &PendingAllocation) {
        let &PendingAllocation { ref allocation, is_new, .. } = pending;
        if is_new && !self.writer.is_resolved(allocation) {
            self.counts.unresolved += 1;
        }
        let now_ns = clock::wall_ns();
        self.writer.allocated(allocation, is_new, now_ns, &mut self.context.sink);
        self.cursor.add(allocation, is_new);
    }

    /// Emits the allocations whose pod is known now or whose wait is over; with `all`, every one.
    fn emit_resolved(&mut self, all: bool) {
        if self.pending.is_empty() {
            return self.cursor.advance();
        }
        let now = clock::instant();
        let mut remaining = VecDeque::new();
        while let Some(pending) = self.pending.pop_front() {
            let is_over = all || now >= pending.deadline || remaining.len() >= MAX_WAITING;
            if is_over || self.writer.is_resolved(&pending.allocation) {
                self.emit(&pending);
            } else {
                remaining.push_back(pending);
            }
        }
        self.pending = remaining;
        if !self.pending.iter().any(|p| p.is_new) {
            self.cursor.advance();
        }
    }
}
