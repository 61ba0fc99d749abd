//! The CNI collector: pods' networks, and the node's own.
//!
//! | file | purpose |
//! | --- | --- |
//! | `report.rs` | what the plugin `tapio-cni` (`src/bin/tapio-cni/`) tells of each call |
//! | `socket.rs` | the socket it tells it to |
//! | `allocations.rs` | addresses given by host-local, from its files |
//! | `place.rs` | which of them were told, over restarts |
//! | `netlink.rs`, `links.rs` | the kernel's route netlink; what of it is news |
//! | `attachments.rs` | which container hangs on which link |
//! | `events.rs` | from all of these to events and to the directory |
//! | `look.rs` | a packet to each of the parsers, for the fuzz target |
//!
//! Three sources on one thread, each of which may be missing: a node without CNI still has links, and addresses are told
//! where the plugin isn't installed. Executions of plugins as the kernel sees them are told by the eBPF collector
//! (`src/collector/ebpf/cni.rs`), which has the processes' numbers, times and exit codes at hand.

mod allocations;
mod attachments;
mod events;
mod links;
mod look;
mod netlink;
mod place;
pub mod report;
mod socket;

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::allocations::{Allocation, Allocations, Change};
use self::events::Teller;
use self::links::Links;
use self::place::Place;
use self::socket::{Heard, Listener, Socket};
use crate::runtime::alarm::Alarm;
use crate::runtime::listener::ListenerSlot;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::clock;
use tapio_core::event::Reason;

pub use self::look::look;
pub(super) use self::report::PodNames;

/// How often it looks whether what was told is settled, while something isn't, and whether a peer has been silent for too long.
const SETTLE_EVERY: Duration = Duration::from_millis(80);
/// The sleep while an event waits for its pod's name.
const NAP: Duration = Duration::from_millis(20);
/// How often a missing source is looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long an allocation waits for somebody to say which pod its container belongs to: the plugin at the end of the
/// same call does, and the container runtime. Longer, and the order of times would be past it.
const IDENTITY_PATIENCE: Duration = Duration::from_secs(1);
/// The same for what was there at the start and is only a fact.
const FACT_PATIENCE: Duration = Duration::from_secs(30);
/// Allocations that wait at a time; more are told as they are.
const MAX_WAITING: usize = 4096;
/// Bad reports and strangers that are logged one by one.
const LOGGED: u64 = 10;

/// The section `collectors.cni`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// Where `tapio-cni` reports to.
    pub socket: PathBuf,
    /// Where host-local keeps the addresses it gives.
    pub networks: PathBuf,
    /// Whether to tell of the node's links, addresses and default routes.
    pub links: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: report::DEFAULT_SOCKET.into(),
            networks: "/var/lib/cni/networks".into(),
            links: true,
        }
    }
}

/// Waits for a full ring. Reports wait in the socket's queue, allocations in their files.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn factory(&self) -> CollectorFactory {
        let state = (self.clone(), ListenerSlot::default());
        factory(state, |(config, listener)| Cni(config, listener))
    }
}

struct Cni(Config, ListenerSlot<Listener>);

/// An allocation whose pod isn't known yet.
struct Waiting {
    allocation: Allocation,
    until: Instant,
    tell: bool,
}

/// One run.
struct Run<'a> {
    config: &'a Config,
    listener: &'a ListenerSlot<Listener>,
    context: &'a mut Context,
    alarm: Alarm,
    teller: Teller,
    socket: Option<Socket>,
    allocations: Option<Allocations>,
    links: Option<Links>,
    waiting: VecDeque<Waiting>,
    place: Place,
    /// The cursor has asked for a pause.
    pausing: bool,
    housekept: Option<Instant>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    reports: u64,
    bad: u64,
    strangers: u64,
    unresolved: u64,
}

impl Collector for Cni {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let mut run = Run::start(&self.0, &self.1, context)?;
        while !run.context.shutdown.is_requested() {
            run.housekeeping();
            let ready = run.wait();
            run.turn(ready)?;
        }
        run.resolve(true);
        run.place
            .finish(run.context)
            .map_err(|e| CollectorError::new("keeping the position", e))?;
        Ok(Ended::Stopped)
    }
}

impl<'a> Run<'a> {
    fn start(
        config: &'a Config,
        listener: &'a ListenerSlot<Listener>,
        context: &'a mut Context,
    ) -> Result<Self, CollectorError> {
        let place = Place::open(context).map_err(|e| CollectorError::new("the cursor", e))?;
        let mut problems = Vec::new();
        let mut open = |what: &str, problem: std::io::Error| {
            problems.push(format!("{what}: {problem}"));
            context.report.note(what, problem.to_string());
        };
        let mut allocations =
            Allocations::open(&config.networks).map_err(|e| open("inotify", e)).ok();
        if let Some(allocations) = &mut allocations {
            allocations.remember(place.given());
        }
        let links = match config.links {
            true => Links::open().map_err(|e| open("netlink", e)).ok(),
            false => None,
        };
        if allocations.is_none() && links.is_none() {
            return Err(CollectorError::Failed(problems.join("; ")));
        }
        let teller = Teller::new(&context.site);
        Ok(Self {
            config,
            listener,
            alarm: Alarm::new(&context.shutdown)?,
            context,
            teller,
            socket: None,
            allocations,
            links,
            waiting: VecDeque::new(),
            place,
            pausing: false,
            housekept: None,
            counts: Counts::default(),
        })
    }

    /// About once a second: what was missing is looked for, counters are published.
    fn housekeeping(&mut self) {
        let now = clock::instant();
        if self.housekept.is_some_and(|last| now.duration_since(last) < HOUSEKEEPING) {
            return;
        }
        self.housekept = Some(now);
        if self.socket.is_none() {
            let path = self.config.socket.display();
            let state = match Socket::open(&self.config.socket, self.listener) {
                Ok(socket) => {
                    self.socket = Some(socket);
                    format!("listening at {path}")
                }
                Err(e) => format!("{path}: {e}; calls of tapio-cni aren't told"),
            };
            self.context.report.note("socket", state);
        }
        let mut changes = Vec::new();
        if let Some(allocations) = &mut self.allocations {
            allocations.look(&mut changes);
        }
        self.take(changes);
        let report = &self.context.report;
        report.count("reports", self.counts.reports);
        report.count("bad_reports", self.counts.bad);
        report.count("strangers", self.counts.strangers);
        report.count("repeated_dels", self.teller.repeated);
        report.count("unresolved", self.counts.unresolved);
        report.count("attachments", self.teller.attachments.len() as u64);
        report.count("addresses", self.allocations.as_ref().map_or(0, |a| a.len() as u64));
        report.count("links", self.links.as_ref().map_or(0, |l| l.len() as u64));
        report.count("netlink_overruns", self.links.as_ref().map_or(0, |l| l.overruns));
    }

    /// Sleeps until there is something to read. Returns whether there is.
    fn wait(&self) -> bool {
        let reports = self.socket.iter().flat_map(Socket::sources);
        let allocations = self.allocations.iter().filter(|_| !self.pausing).map(|a| a.as_fd());
        let sources = reports.chain(allocations).chain(self.links.iter().map(|l| l.as_fd()));
        let has_peers = self.socket.as_ref().is_some_and(Socket::has_peers);
        let at_most = if !self.waiting.is_empty() || self.pausing {
            NAP
        } else if has_peers || self.place.is_waiting() {
            SETTLE_EVERY
        } else {
            self.context.shutdown.heartbeat_interval()
        };
        self.alarm.wait(sources, at_most) || has_peers
    }

    fn turn(&mut self, ready: bool) -> Result<(), CollectorError> {
        if ready {
            self.read()?;
        }
        self.resolve(false);
        self.pausing =
            self.place.settle(self.context).map_err(|e| CollectorError::new("the cursor", e))?;
        self.context.sink.flush();
        Ok(())
    }

    fn read(&mut self) -> Result<(), CollectorError> {
        // Reports first: they say whose the allocations are.
        self.reports();
        if !self.pausing
            && let Some(allocations) = &mut self.allocations
        {
            let mut changes = Vec::new();
            allocations.read(&mut changes);
            self.take(changes);
        }
        if let Some(links) = &mut self.links {
            let mut news = Vec::new();
            links.read(&mut news).map_err(|e| CollectorError::new("netlink", e))?;
            let now_ns = clock::wall_ns();
            for one in &news {
                self.teller.news(one, now_ns, &mut self.context.sink);
            }
        }
        Ok(())
    }

    fn reports(&mut self) {
        let Self { socket: Some(socket), teller, counts, context, .. } = self else {
            return;
        };
        let now_ns = clock::wall_ns();
        socket.read(|heard| {
            let wrong = match heard {
                Heard::Packet(packet) => {
                    counts.reports += 1;
                    teller.report(packet, now_ns, &mut context.sink).err()
                }
                Heard::TooLong => {
                    context.sink.refuse(Reason::BadInput, 1);
                    Some(format!("longer than {} bytes", report::MAX_REPORT_BYTES))
                }
                Heard::Silent => None,
                Heard::Stranger(uid) => {
                    counts.strangers += 1;
                    if counts.strangers <= LOGGED {
                        tracing::warn!(uid, "a user who may not report to the agent tried to");
                    }
                    None
                }
            };
            if let Some(cause) = wrong {
                counts.bad += 1;
                if counts.bad <= LOGGED {
                    tracing::warn!("a report to the CNI socket is refused: {cause}");
                }
            }
        });
    }

    /// Takes in what became of addresses. What isn't anybody's yet waits.
    fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            let (allocation, tell) = match change {
                Change::Given(allocation) => (allocation, true),
                // It is news if the agent wasn't there when it happened.
                Change::Found(allocation) => {
                    let tell = self.place.is_news(&allocation);
                    (allocation, tell)
                }
                Change::TakenBack(allocation, at_ns) => {
                    self.give_up(&allocation);
                    self.place.taken_back(&allocation);
                    self.teller.taken_back(&allocation, at_ns, &mut self.context.sink);
                    continue;
                }
            };
            let patience = if tell { IDENTITY_PATIENCE } else { FACT_PATIENCE };
            let until = clock::instant() + patience;
            self.waiting.push_back(Waiting { allocation, until, tell });
        }
        self.resolve(false);
    }

    /// Tells an allocation that still waits: it was taken back.
    fn give_up(&mut self, allocation: &Allocation) {
        if let Some(at) = self.waiting.iter().position(|w| w.allocation == *allocation)
            && let Some(waiting) = self.waiting.remove(at)
        {
            self.tell(&waiting);
        }
    }

    fn tell(&mut self, waiting: &Waiting) {
        let Waiting { allocation, tell, .. } = waiting;
        if *tell && !self.teller.knows(allocation) {
            self.counts.unresolved += 1;
        }
        let now_ns = clock::wall_ns();
        self.teller.given(allocation, *tell, now_ns, &mut self.context.sink);
        self.place.told(allocation, *tell);
    }

    /// Tells what waited for its pod and has it now, or waited for long enough.
    fn resolve(&mut self, all: bool) {
        if self.waiting.is_empty() {
            return self.place.advance();
        }
        let now = clock::instant();
        let mut still = VecDeque::new();
        while let Some(waiting) = self.waiting.pop_front() {
            let over = all || now >= waiting.until || still.len() >= MAX_WAITING;
            if over || self.teller.knows(&waiting.allocation) {
                self.tell(&waiting);
            } else {
                still.push_back(waiting);
            }
        }
        self.waiting = still;
        if !self.waiting.iter().any(|w| w.tell) {
            self.place.advance();
        }
    }
}
