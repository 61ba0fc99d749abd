//! Records as events (docs/kinds.md).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::events::enrich::Subject;
use crate::events::event_builder::{EventBuilder, EventHeader, Lossy};
use crate::events::signals::signal_name;
use crate::runtime::Context;
use tapio_core::clock;
use tapio_core::event::{ClockQuality, EventId, Name, Severity, names};
use tapio_core::identity::CgroupNames;

use super::record::{Field, Record};

/// SD_MESSAGE_COREDUMP (sd-messages.h).
const COREDUMP: &str = "fc2e22bc6ee647b6b90729ab34a250b1";
/// Mount points of cgroup2: beside version 1, or alone.
const CGROUP_ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// Maximum number of cached cgroup ids, and for how long each is valid: a unit's cgroup is created
/// anew for each invocation.
const MAX_CACHED_CGROUPS: usize = 1_024;
const CACHE_TTL_NS: u64 = 1_000_000_000;

/// The time of a batch of records, by two clocks.
#[derive(Clone, Copy)]
pub(super) struct Now {
    wall_ns: u64,
    pub(super) monotonic_ns: u64,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { wall_ns: clock::wall_ns(), monotonic_ns: clock::monotonic_ns() }
    }
}

/// Converts records to events.
#[derive(Default)]
pub(super) struct EventConverter {
    event: EventBuilder,
    natural_id: String,
    /// By path: the cgroup's id, and when it was read.
    cgroup_ids: HashMap<Box<str>, (Option<u64>, u64)>,
}

/// The container whose output a record is: Docker, Podman and CRI-O add its id to the lines that
/// they write to the journal for it.
pub(super) fn container_of(record: &Record) -> Option<&str> {
    [Field::ContainerId, Field::ShortContainerId]
        .map(|field| record.text(field))
        .into_iter()
        .find(|id| !id.is_empty())
}

/// The unit that a record is about. Only systemd may name another unit than the sender's. A
/// container's line has none: its sender is the runtime, `docker.service`.
fn unit_of(record: &Record) -> &str {
    if container_of(record).is_some() { "" } else { sender_unit(record) }
}

/// The unit whose records a configuration selects: that of [`unit_of`], and of a container's line
/// the runtime's.
pub(super) fn sender_unit(record: &Record) -> &str {
    if is_coredump(record) {
        return record.text(Field::CoredumpUnit);
    }
    let is_from_systemd = record.text(Field::Pid) == "1";
    match record.text(Field::Unit) {
        unit if is_from_systemd && !unit.is_empty() => unit,
        _ => record.text(Field::SystemdUnit),
    }
}

pub(super) fn is_from_kernel(record: &Record) -> bool {
    record.get(Field::Transport) == b"kernel"
}

/// Whether the record is from systemd-coredump, which runs as root.
fn is_coredump(record: &Record) -> bool {
    record.text(Field::MessageId) == COREDUMP && !record.get(Field::CoredumpPid).is_empty()
}

/// Maps the priorities of syslog(3).
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

impl EventConverter {
    /// Emits the event of a record. The sink accounts for it.
    pub(super) fn emit(&mut self, record: &Record, now: Now, context: &mut Context) {
        let Now { wall_ns: observed_ns, monotonic_ns } = now;
        self.natural_id.clear();
        let _ = write!(self.natural_id, "{}", record.position);
        let source_us = record.number(Field::SourceTime).filter(|us| *us > 0);
        let time_us = source_us.unwrap_or(record.position.realtime_us);
        let kind = if is_from_kernel(record) {
            self.kernel(record, context);
            names::KERNEL_LOG
        } else if is_coredump(record) {
            self.coredump(record, monotonic_ns, context);
            names::JOURNAL_COREDUMP
        } else {
            self.message(record, monotonic_ns, context);
            names::JOURNAL_MESSAGE
        };
        self.event.message(format_args!("{}", Lossy(record.get(Field::Message))));
        let header = EventHeader {
            id: EventId::from_natural("journal", &self.natural_id),
            time_ns: time_us.saturating_mul(1_000),
            observed_ns,
            kind,
            source: names::JOURNAL,
            clock: ClockQuality::Micros,
            severity: severity(record.text(Field::Priority)),
        };
        // The sink has counted an event that it dropped.
        let _ = self.event.offer(&header, &mut context.sink);
    }

    fn begin(&mut self, context: &Context) {
        self.event.clear();
        self.event.text(names::HOST_NAME, &context.site.node);
    }

    fn field(&mut self, key: Name, record: &Record, field: Field) {
        self.event.text(key, Lossy(record.get(field)));
    }

    /// Adds the entity keys of a cgroup's container and pod.
    fn cgroup(&mut self, path: &str, monotonic_ns: u64, context: &Context) {
        if path.is_empty() {
            return;
        }
        if let Some(id) = self.cgroup_id(path, monotonic_ns) {
            self.event.int(names::CGROUP_ID, id);
        }
        let names = CgroupNames::parse_below(&context.site.cgroup_base, path);
        let directory = &context.site.directory;
        self.event.enrich(Subject::of(&names, directory), directory);
    }

    /// The id of a cgroup, which is the inode of its folder; `None` once it is removed.
    fn cgroup_id(&mut self, path: &str, monotonic_ns: u64) -> Option<u64> {
        if let Some((id, at_ns)) = self.cgroup_ids.get(path)
            && monotonic_ns.saturating_sub(*at_ns) < CACHE_TTL_NS
        {
            return *id;
        }
        let root =
            CGROUP_ROOTS.into_iter().find(|root| Path::new(root).join("cgroup.procs").exists());
        let id = root
            .and_then(|root| std::fs::metadata(format!("{root}{path}")).ok())
            .map(|metadata| metadata.ino());
        if self.cgroup_ids.len() >= MAX_CACHED_CGROUPS {
            self.cgroup_ids.clear();
        }
        self.cgroup_ids.insert(path.into(), (id, monotonic_ns));
        id
    }

    fn message(&mut self, record: &Record, monotonic_ns: u64, context: &Context) {
        self.begin(context);
        if let Some(id) = container_of(record) {
            // Process, cgroup and unit of the record are the runtime's.
            let subject = Subject { container_id: Some(id), pod_uid: None };
            let _ = self.event.enrich(subject, &context.site.directory);
            self.field(names::CONTAINER_NAME, record, Field::ContainerName);
            self.event.end_entities();
            self.field(names::TAPIO_JOURNAL_IDENTIFIER, record, Field::Identifier);
            return;
        }
        let unit = unit_of(record);
        self.event.text(names::SYSTEMD_UNIT, unit);
        let is_about_another = unit != record.text(Field::SystemdUnit);
        let invocation = if is_about_another { Field::UnitInvocation } else { Field::Invocation };
        self.field(names::SYSTEMD_INVOCATION_ID, record, invocation);
        if let Some(pid) = record.number(Field::Pid).filter(|_| !is_about_another) {
            self.event.int(names::PROCESS_PID, pid);
        }
        if !is_about_another {
            self.cgroup(record.text(Field::Cgroup), monotonic_ns, context);
        }
        self.event.end_entities();
        self.field(names::PROCESS_EXECUTABLE_NAME, record, Field::Comm);
        self.field(names::TAPIO_JOURNAL_IDENTIFIER, record, Field::Identifier);
        self.field(names::TAPIO_JOURNAL_MESSAGE_ID, record, Field::MessageId);
    }

    fn coredump(&mut self, record: &Record, monotonic_ns: u64, context: &Context) {
        self.begin(context);
        self.field(names::SYSTEMD_UNIT, record, Field::CoredumpUnit);
        if let Some(pid) = record.number(Field::CoredumpPid) {
            self.event.int(names::PROCESS_PID, pid);
        }
        self.cgroup(record.text(Field::CoredumpCgroup), monotonic_ns, context);
        self.event.end_entities();
        self.field(names::PROCESS_EXECUTABLE_NAME, record, Field::CoredumpComm);
        self.field(names::PROCESS_EXECUTABLE_PATH, record, Field::CoredumpExe);
        if let Some(signal) = record.number(Field::CoredumpSignal) {
            let signal = u32::try_from(signal).unwrap_or_default();
            self.event.word(names::TAPIO_SIGNAL_NAME, signal_name(signal));
        }
        self.field(names::TAPIO_COREDUMP_FILE, record, Field::CoredumpFile);
    }

    fn kernel(&mut self, record: &Record, context: &Context) {
        self.begin(context);
        self.event.cgroup_of_kernel_line(record.text(Field::Message), &context.site);
        self.event.end_entities();
        // `_KERNEL_DEVICE` of a block device is `b` and its numbers; udev has its name.
        if record.get(Field::KernelDevice).first() == Some(&b'b') {
            self.field(names::TAPIO_BLOCK_DEVICE, record, Field::UdevName);
        }
        // The journal's copy of the line comes later than the kernel's own event.
        let facts = &context.site.kernel_facts;
        if let Some(first) = facts.repeated_by(record.text(Field::Message), u64::MAX) {
            self.event.text(names::TAPIO_REPEATS, first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &[(Field, &str)]) -> Record {
        let mut record = Record::default();
        for (field, value) in fields {
            record.put(*field, value.as_bytes());
        }
        record
    }

    #[test]
    fn line_of_container_is_not_its_runtimes() {
        let docker = (Field::SystemdUnit, "docker.service");
        let own = record(&[docker]);
        assert_eq!((unit_of(&own), container_of(&own)), ("docker.service", None));
        let full = "4f2a1c9d0b7e".to_owned() + &"0".repeat(52);
        for id in [(Field::ContainerId, &*full), (Field::ShortContainerId, "4f2a1c9d0b7e")] {
            let line = record(&[docker, id]);
            assert_eq!((unit_of(&line), container_of(&line)), ("", Some(id.1)));
            assert_eq!(sender_unit(&line), "docker.service", "filters select it as before");
        }
    }
}
