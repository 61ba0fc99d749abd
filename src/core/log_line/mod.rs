//! Facts in the text of logged lines: the level that a program wrote into its line, what it
//! complains about, and the process, cgroup and device that a line of the kernel names.
//!
//! The sink calls [`interpret`] and [`with_complaint`] for every event, so that a line has the same
//! fields whether the kernel's log, the journal or a replayed file delivers it.
//!
//! | file | purpose |
//! | --- | --- |
//! | `severity.rs` | levels as loggers write them |
//! | `complaint.rs` | lines in which a program complains |
//! | `kernel.rs` | lines of the kernel: crashes, OOM kills |
//! | `fact.rs` | facts that another source can report as well |
//! | `device.rs` | names of block devices |

mod complaint;
mod device;
mod fact;
mod kernel;
mod severity;

use crate::event::{Event, Field, Name, Value, names};
use crate::identity::CgroupNames;

use complaint::{Writer, complaint};

pub use device::block_device;
pub use fact::KernelFact;
pub use severity::logged_severity;

/// Calls `read` with the event completed by the facts in its message: the severity of a
/// `journal.message`, entity keys and attributes of a `kernel.log`. Fields that the event has
/// already stay. Other kinds pass unchanged.
pub fn interpret<R>(event: &Event<'_>, read: impl FnOnce(&Event<'_>) -> R) -> R {
    if event.kind == names::JOURNAL_MESSAGE {
        return match logged_severity(event.message) {
            Some(severity) => read(&Event { severity, ..*event }),
            None => read(event),
        };
    }
    if event.kind == names::KERNEL_LOG {
        return with_kernel_facts(event, read);
    }
    read(event)
}

/// Calls `read` with the event; a `journal.message` in which a program complains has the
/// complaint's text and error as attributes, which are copies of parts of the message: secrets are
/// removed before.
pub fn with_complaint<R>(event: &Event<'_>, read: impl FnOnce(&Event<'_>) -> R) -> R {
    if event.kind != names::JOURNAL_MESSAGE {
        return read(event);
    }
    let text = |value| if let Some(Value::Str(text)) = value { text } else { "" };
    let mut attributes = event.attributes().iter();
    let identifier = attributes.find(|field| field.key == names::TAPIO_JOURNAL_IDENTIFIER);
    let identifier = text(identifier.map(|field| field.value));
    let unit = text(event.entity(names::SYSTEMD_UNIT));
    let found = complaint(event.message, event.severity, Writer { identifier, unit });
    let attributes = found.into_iter().flat_map(|found| {
        let error = found.error.map(|error| (names::TAPIO_COMPLAINT_ERROR, Value::Str(error)));
        [Some((names::TAPIO_COMPLAINT_TEXT, Value::Str(found.text))), error].into_iter().flatten()
    });
    complete(event, std::iter::empty(), attributes, read)
}

/// The cgroup that a line of the kernel's log names, such as that of an OOM kill.
#[must_use]
pub fn cgroup_in(message: &str) -> Option<&str> {
    kernel::Facts::of(message).cgroup
}

fn with_kernel_facts<R>(event: &Event<'_>, read: impl FnOnce(&Event<'_>) -> R) -> R {
    let facts = kernel::Facts::of(event.message);
    let cgroup = facts.cgroup.map(CgroupNames::parse).unwrap_or_default();
    let text = |value: Option<&'_ str>| value.map(str::to_owned);
    let owned = [
        (names::K8S_POD_UID, text(cgroup.pod_uid.as_deref())),
        (names::CONTAINER_ID, text(cgroup.container_id.as_deref())),
        (names::SYSTEMD_UNIT, text(cgroup.unit.as_deref())),
    ];
    let entities = owned
        .iter()
        .filter_map(|(key, value)| Some((*key, Value::Str(value.as_deref()?))))
        .chain(facts.pid.map(|pid| (names::PROCESS_PID, Value::Int(pid))));
    let attributes = [
        (names::TAPIO_BLOCK_DEVICE, facts.device.map(Value::Str)),
        (names::PROCESS_EXECUTABLE_NAME, facts.program.map(Value::Str)),
        (names::TAPIO_SIGNAL_NAME, facts.signal.map(Value::Str)),
        (names::TAPIO_CGROUP_PATH, facts.cgroup.map(Value::Str)),
        (names::TAPIO_OOM_SCOPE, facts.oom_scope.map(Value::Str)),
        (names::TAPIO_OOM_CGROUP, facts.oom_cgroup.map(Value::Str)),
        (names::TAPIO_OOM_RSS_BYTES, facts.rss_bytes.map(Value::Int)),
    ];
    let attributes = attributes.into_iter().filter_map(|(key, value)| Some((key, value?)));
    complete(event, entities, attributes, read)
}

/// Calls `read` with the event and those of the fields that it doesn't have.
fn complete<'a, R>(
    event: &Event<'a>,
    entities: impl Iterator<Item = (Name, Value<'a>)>,
    attributes: impl Iterator<Item = (Name, Value<'a>)>,
    read: impl FnOnce(&Event<'_>) -> R,
) -> R {
    let is_new = |key: &Name| event.fields.iter().all(|field| field.key != *key);
    let field = |(key, value)| Field { key, value };
    let mut fields = event.entity_fields().to_vec();
    fields.extend(entities.filter(|(key, _)| is_new(key)).map(field));
    // An event with resource attributes keeps their positions; only OTLP sends such events.
    let Ok(count) = u8::try_from(fields.len()) else { return read(event) };
    if event.resource[1] != 0 {
        return read(event);
    }
    fields.extend(event.attributes());
    fields.extend(attributes.filter(|(key, _)| is_new(key)).map(field));
    if fields.len() == event.fields.len() {
        return read(event);
    }
    read(&Event { entities: count, fields: &fields, ..*event })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Severity};

    fn line(kind: Name, message: &str, read: impl FnOnce(&Event<'_>)) {
        let fields = [
            Field { key: names::HOST_NAME, value: Value::Str("n1") },
            Field { key: names::TAPIO_BLOCK_DEVICE, value: Value::Str("given") },
        ];
        let event = Event::new(EventId::from_natural("t", "1"), 1, kind, names::JOURNAL);
        interpret(&Event { entities: 1, fields: &fields, message, ..event }, read);
    }

    #[test]
    fn kernel_line_gets_the_fields_that_it_names() {
        let message = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,\
            mems_allowed=0,oom_memcg=/system.slice/hog.service,\
            task_memcg=/system.slice/hog.service,task=hog (sda1),pid=966,uid=0";
        line(names::KERNEL_LOG, message, |event| {
            let text = |key| match event.entity(key) {
                Some(Value::Str(text)) => text.to_owned(),
                other => format!("{other:?}"),
            };
            assert_eq!(text(names::SYSTEMD_UNIT), "hog.service");
            assert_eq!(event.entity(names::PROCESS_PID), Some(Value::Int(966)));
            let has = |key, value| event.attributes().contains(&Field { key, value });
            assert!(has(names::TAPIO_OOM_SCOPE, Value::Str("cgroup")));
            assert!(has(names::PROCESS_EXECUTABLE_NAME, Value::Str("hog (sda1)")));
            assert!(has(names::TAPIO_BLOCK_DEVICE, Value::Str("given")), "a given value stays");
            assert_eq!(event.entities, 3);
        });
        line(names::KERNEL_LOG, "usb 1-1: new device", |event| assert_eq!(event.fields.len(), 2));
    }

    #[test]
    fn level_in_the_text_is_the_severity_of_journal_lines_only() {
        let klog = "E0118 17:33:58.888700 1457370 bootstrap.go:265] expired";
        line(names::JOURNAL_MESSAGE, klog, |e| assert_eq!(e.severity, Severity::ERROR));
        line(names::KERNEL_LOG, klog, |e| assert_eq!(e.severity, Severity::INFO));
        line(names::JOURNAL_MESSAGE, "listening", |e| assert_eq!(e.severity, Severity::INFO));
    }
}
