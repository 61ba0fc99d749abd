//! From a kernel record to an event: who it is about, in which cgroup, and under which id.

use std::sync::Arc;

use super::cgroups::{Cgroup, Cgroups};
use super::cni::CniCalls;
use super::kinds::Kind;
use super::nameless::Nameless;
use super::processes::{ExecId, Processes};
use super::raw::{CGROUP_REMOVED, Head, Record, What};
use crate::events::enrich::{Resolution, Subject};
use crate::events::event_builder::{EventBuilder, EventHeader, Lossy};
use crate::runtime::Site;
use tapio_core::clock;
use tapio_core::event::{ClockQuality, EventId, Reason, Severity, names};
use tapio_core::identity::Directory;
use tapio_core::ring::Sink;

/// Cgroup file systems are read again at most this often when a number is unknown.
const SCAN_EVERY_NS: u64 = 1_000_000_000;
/// The source numbers of this collector's event ids: this and the CPU.
const SOURCE: u16 = 0x4000;
/// The CPU of ids made in user space.
pub(super) const NO_CPU: u16 = 0x3fff;

fn known(cgroup: &Cgroup) -> Subject<'_> {
    let names = &cgroup.names;
    Subject { container_id: names.container_id.as_deref(), pod_uid: names.pod_uid.as_deref() }
}

/// Turns records into events.
pub(super) struct Decoder {
    pub(super) node: Arc<str>,
    pub(super) origin: u64,
    pub(super) directory: Arc<Directory>,
    pub(super) cgroups: Cgroups,
    pub(super) processes: Processes,
    pub(super) cni: CniCalls,
    pub(super) draft: EventBuilder,
    /// The record at hand is about a process that used too much memory, which no sandbox does.
    pub(super) is_victim: bool,
    /// Wall time minus CLOCK_MONOTONIC.
    pub(super) wall_offset_ns: u64,
    /// When user space saw the records at hand, wall time.
    pub(super) observed_ns: u64,
    pub(super) page_bytes: u64,
    /// The latest id of each CPU: an id is the record's time, moved on where two would be equal.
    latest: Vec<u64>,
    scanned_ns: u64,
    /// Events whose cgroup's path wasn't known.
    pub(super) unresolved: u64,
    /// Events that wait for a pod's or container's name.
    pub(super) nameless: Nameless,
    /// The event at hand has none.
    missing: bool,
    pub(super) lossy: String,
    pub(super) clean: String,
}

impl Decoder {
    pub(super) fn new(site: &Site, cgroups: Cgroups, processes: Processes, cni: CniCalls) -> Self {
        Self {
            node: Arc::clone(&site.node),
            origin: site.origin,
            directory: Arc::clone(&site.directory),
            cgroups,
            processes,
            cni,
            draft: EventBuilder::default(),
            is_victim: false,
            wall_offset_ns: 0,
            observed_ns: 0,
            page_bytes: rustix::param::page_size() as u64,
            latest: Vec::new(),
            scanned_ns: 0,
            unresolved: 0,
            nameless: Nameless::default(),
            missing: false,
            lossy: String::new(),
            clean: String::new(),
        }
    }

    /// An id that no other event of this boot has, whichever run of the agent makes it: the time at
    /// which its CPU made it.
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

    /// What an event is besides its fields.
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

    /// Takes a record in. One that can't be read is counted. Returns whether it was (meant to be)
    /// an event, not a control record.
    pub(super) fn record(&mut self, bytes: &[u8], sink: &mut Sink) -> bool {
        let Some(record) = Record::parse(bytes) else {
            sink.refuse(Reason::BadInput, 1);
            return true;
        };
        let kind = match record.what {
            What::Cgroup => {
                self.cgroup(&record);
                return false;
            }
            What::Event(kind) => kind,
        };
        let severity = match kind {
            Kind::Exec => self.exec(&record),
            Kind::Fork => self.fork(&record),
            Kind::Exit => self.exit(&record),
            Kind::Signal => self.signal(&record),
            Kind::OomKill => self.oom_kill(&record),
            Kind::BlockError | Kind::BlockSlow => self.block(kind, &record),
            Kind::SyscallEnter => self.syscall_enter(&record),
            // No record has this kind: `Record::parse` refuses it.
            Kind::SyscallErrorRate => Severity::INFO,
            Kind::Connect | Kind::Accept | Kind::Close | Kind::Refused | Kind::Reset => {
                self.tcp(kind, &record)
            }
            Kind::Retransmit | Kind::Timeout => self.tcp(kind, &record),
        };
        let meta = self.meta(kind, record.head.cpu, record.head.time_ns, severity);
        self.send(record.head.cgroup, meta, record.head.time_ns, sink);
        match kind {
            Kind::Exec => self.plugin_began(&record),
            Kind::Exit => self.plugin_ended(&record, sink),
            _ => {}
        }
        true
    }

    /// Sends the draft on its way: at once, or when its pod's name has come.
    pub(super) fn send(&mut self, cgroup: u64, meta: EventHeader, now_ns: u64, sink: &mut Sink) {
        let mut meta = Some(meta);
        if std::mem::take(&mut self.missing)
            && let Some(cgroup) = self.cgroups.get(cgroup)
        {
            let (draft, directory) = (&mut self.draft, &self.directory);
            let take = |m| self.nameless.take(draft, m, known(cgroup), directory, now_ns);
            meta = meta.and_then(take);
        }
        if let Some(meta) = meta {
            // The sink has counted an event it couldn't take.
            let _ = self.draft.offer(&meta, sink);
        }
    }

    /// Lets events go whose names have come or whose time is over; all of them at the `end`.
    pub(super) fn release(&mut self, end: bool, sink: &mut Sink) {
        if self.nameless.len() > 0 {
            self.nameless.release(&self.directory, clock::monotonic_ns(), end, sink);
        }
    }

    fn cgroup(&mut self, record: &Record<'_>) {
        let number = record.bytes.u64(32);
        if !self.cgroups.follows(number) {
            return;
        }
        if record.head.flags & CGROUP_REMOVED != 0 {
            self.cgroups.gone(number, record.head.time_ns);
            return;
        }
        let path = record.bytes.text(40, 512);
        let path = String::from_utf8_lossy(path);
        self.cgroups.made(number, &path, record.head.time_ns);
    }

    /// Starts a draft with who the event is about: the node, the process (`start_ns` 0: whichever
    /// has the number now), the cgroup and what its path says.
    pub(super) fn identify(&mut self, head: &Head, start_ns: u64, comm: &[u8]) {
        self.draft.clear();
        self.draft.text(names::HOST_NAME, &self.node);
        if head.tgid != 0 {
            self.draft.int(names::PROCESS_PID, head.tgid);
        }
        self.place(head.cgroup, head.time_ns);
        let process = match head.tgid {
            0 => None,
            pid => self.processes.get(pid, start_ns),
        };
        let id = process
            .map(|p| p.id)
            .or((start_ns != 0).then_some(ExecId { pid: head.tgid, start_ns }));
        if let Some(id) = id {
            self.draft.text(names::TAPIO_PROCESS_EXEC_ID, id);
            let tree = process.map_or(id, |p| p.tree);
            self.draft.text(names::TAPIO_PROCESS_TREE, tree);
        }
        self.draft.end_entities();
        if let Some(cgroup) = self.cgroups.get(head.cgroup) {
            self.draft.text(names::TAPIO_CGROUP_PATH, &cgroup.names.path);
        }
        if !comm.is_empty() {
            self.draft.text(names::PROCESS_EXECUTABLE_NAME, Lossy(comm));
        }
        if let Some(path) = process.and_then(|p| p.path.as_deref()) {
            self.draft.text(names::PROCESS_EXECUTABLE_PATH, path);
        }
    }

    /// The cgroup's entity keys.
    pub(super) fn place(&mut self, number: u64, time_ns: u64) {
        if number == 0 {
            return;
        }
        if self.cgroups.get(number).is_none()
            && time_ns.saturating_sub(self.scanned_ns) >= SCAN_EVERY_NS
        {
            self.scan(time_ns);
        }
        self.draft.int(names::CGROUP_ID, number);
        let Some(cgroup) = self.cgroups.look(number) else {
            self.unresolved += 1;
            return;
        };
        let whose = known(cgroup);
        let mut found = self.draft.enrich(whose, &self.directory);
        if found == Resolution::Incomplete && self.is_victim {
            found = self.draft.only_container(whose, &self.directory);
        }
        self.missing = found == Resolution::Incomplete;
        if let Some(id) = &cgroup.invocation_id {
            self.draft.text(names::SYSTEMD_INVOCATION_ID, id);
        }
        if let Some(unit) = &cgroup.names.unit {
            self.draft.text(names::SYSTEMD_UNIT, unit);
        }
    }

    /// Reads the cgroup file systems.
    pub(super) fn scan(&mut self, now_ns: u64) {
        self.scanned_ns = now_ns;
        self.cgroups.scan(now_ns);
    }
}
