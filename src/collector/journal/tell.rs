//! Records as events (docs/kinds.md).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::ebpf::signal_name;
use crate::events::enrich::Subject;
use crate::events::event_builder::{EventBuilder, EventHeader, Lossy};
use crate::runtime::Context;
use tapio_core::event::{ClockQuality, EventId, Name, Severity, names};
use tapio_core::identity::CgroupNames;

use super::record::{Field, Record};

/// SD_MESSAGE_COREDUMP (sd-messages.h).
const COREDUMP: &str = "fc2e22bc6ee647b6b90729ab34a250b1";
/// Where cgroup2 is: beside version 1, or alone.
const CGROUP_ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// Cgroups whose ids are remembered, and for how long: a unit's cgroup is made anew for each run.
const MOST_CGROUPS: usize = 1_024;
const REMEMBERED_NS: u64 = 1_000_000_000;

/// Puts events together.
#[derive(Default)]
pub(super) struct Teller {
    draft: EventBuilder,
    natural: String,
    cgroups: HashMap<Box<str>, (Option<u64>, u64)>,
}

/// The unit a record is about. What a program other than systemd says of others isn't believed.
pub(super) fn unit_of(record: &Record) -> &str {
    if is_coredump(record) {
        return record.text(Field::CoredumpUnit);
    }
    let by_systemd = record.text(Field::Pid) == "1";
    match record.text(Field::Unit) {
        unit if by_systemd && !unit.is_empty() => unit,
        _ => record.text(Field::SystemdUnit),
    }
}

pub(super) fn is_kernels(record: &Record) -> bool {
    record.get(Field::Transport) == b"kernel"
}

/// systemd-coredump's own, which runs as root.
fn is_coredump(record: &Record) -> bool {
    record.text(Field::MessageId) == COREDUMP && !record.get(Field::CoredumpPid).is_empty()
}

/// syslog(3)'s priorities.
fn severity(priority: &str) -> Severity {
    match priority {
        "0" => Severity::FATAL,
        "1" => Severity(19),
        "2" => Severity::CRITICAL,
        "3" => Severity::ERROR,
        "4" => Severity::WARN,
        "5" => Severity(10),
        "7" => Severity::DEBUG,
        _ => Severity::INFO,
    }
}

impl Teller {
    /// Tells a record. The sink accounts for it.
    pub(super) fn tell(&mut self, record: &Record, now: (u64, u64), context: &mut Context) {
        let (observed_ns, monotonic_ns) = now;
        self.natural.clear();
        let _ = write!(self.natural, "{}", record.position);
        let source_us = record.number(Field::SourceTime).filter(|us| *us > 0);
        let time_us = source_us.unwrap_or(record.position.realtime_us);
        let kind = if is_kernels(record) {
            self.kernel(record, context);
            names::KERNEL_LOG
        } else if is_coredump(record) {
            self.coredump(record, monotonic_ns, context);
            names::JOURNAL_COREDUMP
        } else {
            self.message(record, monotonic_ns, context);
            names::JOURNAL_MESSAGE
        };
        self.draft.message(format_args!("{}", Lossy(record.get(Field::Message))));
        let meta = EventHeader {
            id: EventId::from_natural("journal", &self.natural),
            time_ns: time_us.saturating_mul(1_000),
            observed_ns,
            kind,
            source: names::JOURNAL,
            clock: ClockQuality::Micros,
            severity: severity(record.text(Field::Priority)),
        };
        // The sink has counted what it couldn't take.
        let _ = self.draft.offer(&meta, &mut context.sink);
    }

    fn begin(&mut self, context: &Context) {
        self.draft.clear();
        self.draft.text(names::HOST_NAME, &context.site.node);
    }

    fn field(&mut self, key: Name, record: &Record, field: Field) {
        self.draft.text(key, Lossy(record.get(field)));
    }

    /// The entity keys of what a cgroup belongs to.
    fn cgroup(&mut self, path: &str, record: &Record, monotonic_ns: u64, context: &Context) {
        if path.is_empty() {
            return;
        }
        if let Some(id) = self.cgroup_id(path, monotonic_ns) {
            self.draft.int(names::CGROUP_ID, id);
        }
        let known = CgroupNames::parse(path);
        let told = Some(record.text(Field::ContainerId)).filter(|id| !id.is_empty());
        let container_id = told.or(known.container_id.as_deref());
        self.draft.enrich(
            Subject { container_id, pod_uid: known.pod_uid.as_deref() },
            &context.site.directory,
        );
    }

    /// A cgroup's id: the inode of its folder; none once it is gone.
    fn cgroup_id(&mut self, path: &str, monotonic_ns: u64) -> Option<u64> {
        if let Some((id, at_ns)) = self.cgroups.get(path)
            && monotonic_ns.saturating_sub(*at_ns) < REMEMBERED_NS
        {
            return *id;
        }
        let root =
            CGROUP_ROOTS.into_iter().find(|root| Path::new(root).join("cgroup.procs").exists());
        let id = root
            .and_then(|root| std::fs::metadata(format!("{root}{path}")).ok())
            .map(|metadata| metadata.ino());
        if self.cgroups.len() >= MOST_CGROUPS {
            self.cgroups.clear();
        }
        self.cgroups.insert(path.into(), (id, monotonic_ns));
        id
    }

    fn message(&mut self, record: &Record, monotonic_ns: u64, context: &Context) {
        self.begin(context);
        let unit = unit_of(record);
        self.draft.text(names::SYSTEMD_UNIT, unit);
        let about_another = unit != record.text(Field::SystemdUnit);
        let run = if about_another { Field::UnitInvocation } else { Field::Invocation };
        self.field(names::SYSTEMD_INVOCATION_ID, record, run);
        if let Some(pid) = record.number(Field::Pid).filter(|_| !about_another) {
            self.draft.int(names::PROCESS_PID, pid);
        }
        if !about_another {
            self.cgroup(record.text(Field::Cgroup), record, monotonic_ns, context);
        }
        self.draft.end_entities();
        self.field(names::PROCESS_EXECUTABLE_NAME, record, Field::Comm);
        self.field(names::TAPIO_JOURNAL_IDENTIFIER, record, Field::Identifier);
        self.field(names::TAPIO_JOURNAL_MESSAGE_ID, record, Field::MessageId);
    }

    fn coredump(&mut self, record: &Record, monotonic_ns: u64, context: &Context) {
        self.begin(context);
        self.field(names::SYSTEMD_UNIT, record, Field::CoredumpUnit);
        if let Some(pid) = record.number(Field::CoredumpPid) {
            self.draft.int(names::PROCESS_PID, pid);
        }
        self.cgroup(record.text(Field::CoredumpCgroup), record, monotonic_ns, context);
        self.draft.end_entities();
        self.field(names::PROCESS_EXECUTABLE_NAME, record, Field::CoredumpComm);
        self.field(names::PROCESS_EXECUTABLE_PATH, record, Field::CoredumpExe);
        if let Some(signal) = record.number(Field::CoredumpSignal) {
            let signal = u32::try_from(signal).unwrap_or_default();
            self.draft.word(names::TAPIO_SIGNAL_NAME, signal_name(signal));
        }
        self.field(names::TAPIO_COREDUMP_FILE, record, Field::CoredumpFile);
    }

    fn kernel(&mut self, record: &Record, context: &Context) {
        self.begin(context);
        self.draft.end_entities();
        // `_KERNEL_DEVICE` of a block device is `b` and its numbers, and the name is udev's.
        if record.get(Field::KernelDevice).first() == Some(&b'b') {
            self.field(names::TAPIO_BLOCK_DEVICE, record, Field::UdevName);
        }
    }
}
