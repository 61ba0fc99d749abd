//! From a kernel record to an event: its process, its cgroup and its id.

use std::sync::Arc;

use super::cgroups::Cgroups;
use super::enrichment_queue::EnrichmentQueue;
use super::fatal_signals::FatalSignals;
use super::kinds::Kind;
use super::plugin_runs::PluginRuns;
use super::processes::{ExecId, Processes};
use super::raw::{CGROUP_REMOVED, Head, Record, RecordKind, SIGNAL_BY_KERNEL, SIGNAL_FATAL};
use super::users::Users;
use crate::events::enrich::{Resolution, Subject};
use crate::events::event_builder::{EventBuilder, EventHeader, Lossy};
use crate::runtime::{KernelFacts, Site};
use tapio_core::clock;
use tapio_core::event::{ClockQuality, EventId, Reason, Severity, names};
use tapio_core::identity::Directory;
use tapio_core::log_line::KernelFact;
use tapio_core::ring::Sink;

/// Shortest interval between two scans of the cgroup file systems for unknown numbers.
const SCAN_INTERVAL_NS: u64 = 1_000_000_000;
/// Source number of this collector's event ids; the CPU is in the lower bits.
const SOURCE: u16 = 0x4000;
/// The CPU in ids of events that user space creates.
pub(super) const NO_CPU: u16 = 0x3fff;

/// The facts of a record that the kernel logs as well.
fn kernel_facts(kind: Kind, record: &Record<'_>) -> Vec<KernelFact> {
    let task = record.bytes.u32(24);
    match kind {
        // A line names the process, or the thread of it that has its memory.
        Kind::OomKill => [task, record.head.tgid].map(|task| KernelFact::OomKill { task }).into(),
        // SIGILL, SIGBUS, SIGFPE, SIGSEGV of a fault, without a handler.
        Kind::Signal if matches!(record.bytes.u32(72), 4 | 7 | 8 | 11) => {
            let needed = SIGNAL_BY_KERNEL | SIGNAL_FATAL;
            let is_fault = record.head.flags & needed == needed;
            is_fault.then_some(KernelFact::Crash { task }).into_iter().collect()
        }
        Kind::BlockError => {
            let device = String::from_utf8_lossy(record.bytes.text(72, 32)).into_owned();
            let sector = record.bytes.u64(32);
            let at = KernelFact::BlockError { device: device.clone(), sector };
            vec![at, KernelFact::DeviceError { device }]
        }
        _ => Vec::new(),
    }
}

/// Decodes records into events.
pub(super) struct Decoder {
    pub(super) node: Arc<str>,
    pub(super) origin: u64,
    pub(super) directory: Arc<Directory>,
    pub(super) cgroups: Cgroups,
    pub(super) processes: Processes,
    pub(super) plugins: PluginRuns,
    pub(super) users: Users,
    facts: Arc<KernelFacts>,
    pub(super) fatal_signals: FatalSignals,
    /// The event under construction.
    pub(super) event: EventBuilder,
    /// The current record is about an OOM victim, which a pod's sandbox never is.
    pub(super) is_victim: bool,
    /// Wall time minus CLOCK_MONOTONIC.
    pub(super) wall_offset_ns: u64,
    /// Wall time at which user space read the current records.
    pub(super) observed_ns: u64,
    pub(super) page_bytes: u64,
    /// The latest id of each CPU: an id is the record's time, incremented to keep ids distinct.
    latest: Vec<u64>,
    scanned_ns: u64,
    /// Events whose cgroup has no known path.
    pub(super) unresolved: u64,
    /// Events that wait for the name of their pod or container.
    pub(super) enrichment: EnrichmentQueue,
    /// The name of the current event's pod or container isn't known yet.
    name_missing: bool,
    /// A buffer for command lines, kept for reuse.
    pub(super) lossy: String,
}

impl Decoder {
    pub(super) fn new(
        site: &Site,
        cgroups: Cgroups,
        processes: Processes,
        plugins: PluginRuns,
        users: Users,
    ) -> Self {
        Self {
            node: Arc::clone(&site.node),
            origin: site.origin,
            directory: Arc::clone(&site.directory),
            cgroups,
            processes,
            plugins,
            users,
            facts: Arc::clone(&site.kernel_facts),
            fatal_signals: FatalSignals::default(),
            event: EventBuilder::default(),
            is_victim: false,
            wall_offset_ns: 0,
            observed_ns: 0,
            page_bytes: rustix::param::page_size() as u64,
            latest: Vec::new(),
            scanned_ns: 0,
            unresolved: 0,
            enrichment: EnrichmentQueue::default(),
            name_missing: false,
            lossy: String::new(),
        }
    }

    /// An id that is unique within this boot, across runs of the agent: the CPU and its time.
    fn id(&mut self, cpu: u16, time_ns: u64) -> EventId {
        let cpu = cpu.min(NO_CPU);
        let slot = usize::from(cpu);
        if slot >= self.latest.len() {
            self.latest.resize(slot + 1, 0);
        }
        let id = time_ns.max(self.latest[slot] + 1);
        self.latest[slot] = id;
        EventId::from_sequence(self.origin, SOURCE | cpu, id)
    }

    /// The metadata of an event: id, times, kind and severity.
    pub(super) fn meta(
        &mut self,
        kind: Kind,
        cpu: u16,
        time_ns: u64,
        severity: Severity,
    ) -> EventHeader {
        EventHeader {
            id: self.id(cpu, time_ns),
            time_ns: time_ns.wrapping_add(self.wall_offset_ns),
            observed_ns: self.observed_ns,
            kind: kind.name(),
            source: names::EBPF,
            clock: ClockQuality::Kernel,
            severity,
        }
    }

    /// Processes one record. Counts one that can't be parsed. Returns whether it is (or was meant
    /// as) an event, not a control record.
    pub(super) fn record(&mut self, bytes: &[u8], sink: &mut Sink) -> bool {
        let Some(record) = Record::parse(bytes) else {
            sink.refuse(Reason::BadInput, 1);
            return true;
        };
        let kind = match record.kind {
            RecordKind::Cgroup => {
                self.cgroup(&record);
                return false;
            }
            RecordKind::Event(kind) => kind,
        };
        let severity = match kind {
            Kind::Exec => self.exec(&record),
            Kind::Fork => self.fork(&record),
            Kind::Exit => self.exit(&record),
            Kind::Signal => self.signal(&record),
            Kind::OomKill => self.oom_kill(&record),
            Kind::FileCreate => self.file_create(&record),
            Kind::BlockError | Kind::BlockSlow => self.block(kind, &record),
            Kind::SyscallEnter => self.syscall_enter(&record),
            // No record has this kind: `Record::parse` rejects it.
            Kind::SyscallErrorRate => Severity::INFO,
            Kind::Connect | Kind::Accept | Kind::Close | Kind::Refused | Kind::Reset => {
                self.tcp(kind, &record)
            }
            Kind::Retransmit | Kind::Timeout => self.tcp(kind, &record),
        };
        let meta = self.meta(kind, record.head.cpu, record.head.time_ns, severity);
        for fact in kernel_facts(kind, &record) {
            self.facts.report(fact, meta.id);
        }
        self.send(record.head.cgroup, meta, record.head.time_ns, sink);
        match kind {
            Kind::Exec => self.plugin_started(&record),
            Kind::Exit => self.plugin_exited(&record, sink),
            _ => {}
        }
        true
    }

    /// Emits the event: at once, or after the name of its pod is known.
    pub(super) fn send(&mut self, cgroup: u64, meta: EventHeader, now_ns: u64, sink: &mut Sink) {
        let mut meta = Some(meta);
        if std::mem::take(&mut self.name_missing)
            && let Some(cgroup) = self.cgroups.get(cgroup)
        {
            let (event, directory) = (&mut self.event, &self.directory);
            let push = |m| {
                self.enrichment.push(
                    event,
                    m,
                    Subject::of(&cgroup.names, directory),
                    directory,
                    now_ns,
                )
            };
            meta = meta.and_then(push);
        }
        if let Some(meta) = meta {
            // The sink counts an event that it rejects.
            let _ = self.event.offer(&meta, sink);
        }
    }

    /// Emits queued events whose names are known or whose time is over; with `all`, every one.
    pub(super) fn release(&mut self, all: bool, sink: &mut Sink) {
        if self.enrichment.len() > 0 {
            self.enrichment.release(&self.directory, clock::monotonic_ns(), all, sink);
        }
    }

    /// Processes a control record: a created or removed cgroup.
    fn cgroup(&mut self, record: &Record<'_>) {
        let number = record.bytes.u64(32);
        if !self.cgroups.is_tracked(number) {
            return;
        }
        if record.head.flags & CGROUP_REMOVED != 0 {
            self.cgroups.mark_removed(number, record.head.time_ns);
            return;
        }
        let path = record.bytes.text(40, 512);
        let path = String::from_utf8_lossy(path);
        self.cgroups.created(number, &path, record.head.time_ns);
    }

    /// Starts an event with its entities: the node, the process (`start_ns` 0: whichever has the
    /// number now), the cgroup and the names in its path.
    pub(super) fn identify(&mut self, head: &Head, start_ns: u64, comm: &[u8]) {
        self.event.clear();
        self.event.text(names::HOST_NAME, &self.node);
        if head.tgid != 0 {
            self.event.int(names::PROCESS_PID, head.tgid);
        }
        self.add_cgroup(head.cgroup, head.time_ns);
        let process = match head.tgid {
            0 => None,
            pid => self.processes.get(pid, start_ns),
        };
        let id = process
            .map(|p| p.id)
            .or((start_ns != 0).then_some(ExecId { pid: head.tgid, start_ns }));
        if let Some(id) = id {
            self.event.text(names::TAPIO_PROCESS_EXEC_ID, id);
            let tree = process.map_or(id, |p| p.tree);
            self.event.text(names::TAPIO_PROCESS_TREE, tree);
        }
        self.event.end_entities();
        if let Some(cgroup) = self.cgroups.get(head.cgroup) {
            self.event.text(names::TAPIO_CGROUP_PATH, &cgroup.names.path);
        }
        if !comm.is_empty() {
            self.event.text(names::PROCESS_EXECUTABLE_NAME, Lossy(comm));
        }
        if let Some(path) = process.and_then(|p| p.program.path.as_deref()) {
            self.event.text(names::PROCESS_EXECUTABLE_PATH, path);
        }
    }

    /// Adds the cgroup and the entities that its path names.
    pub(super) fn add_cgroup(&mut self, number: u64, time_ns: u64) {
        if number == 0 {
            return;
        }
        if self.cgroups.get(number).is_none()
            && time_ns.saturating_sub(self.scanned_ns) >= SCAN_INTERVAL_NS
        {
            self.scan(time_ns);
        }
        self.event.int(names::CGROUP_ID, number);
        let Some(cgroup) = self.cgroups.with_invocation(number) else {
            self.unresolved += 1;
            return;
        };
        let subject = Subject::of(&cgroup.names, &self.directory);
        let mut found = self.event.enrich(subject, &self.directory);
        if found == Resolution::Incomplete && self.is_victim {
            found = self.event.only_container(subject, &self.directory);
        }
        self.name_missing = found == Resolution::Incomplete;
        if let Some(id) = &cgroup.invocation_id {
            self.event.text(names::SYSTEMD_INVOCATION_ID, id);
        }
        if let Some(unit) = &cgroup.names.unit {
            self.event.text(names::SYSTEMD_UNIT, unit);
        }
    }

    /// Reads the cgroup file systems.
    pub(super) fn scan(&mut self, now_ns: u64) {
        self.scanned_ns = now_ns;
        self.cgroups.scan(now_ns);
    }
}
