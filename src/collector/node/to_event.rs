//! From a sample to an event.

use super::pressure::Sample;
use super::zombies::Parent;
use crate::events::enrich::Subject;
use crate::events::event_builder::{EventBuilder, EventHeader};
use crate::runtime::Context;
use tapio_core::clock;
use tapio_core::event::{ClockQuality, EventId, Name, Severity, names};
use tapio_core::identity::CgroupNames;

/// Source number of this collector's event ids.
const SOURCE: u16 = 0x0100;

/// Builds and emits the collector's events.
#[derive(Default)]
pub(super) struct EventWriter {
    event: EventBuilder,
    /// The latest id.
    latest_ns: u64,
}

impl EventWriter {
    /// Starts an event with the node and the entities of a cgroup.
    fn start(&mut self, names: Option<&CgroupNames>, context: &Context) {
        self.event.clear();
        self.event.text(names::HOST_NAME, &context.site.node);
        if let Some(names) = names {
            let subject = Subject::of(names, &context.site.directory);
            // Names that are missing now are in the directory at the next sample.
            let _ = self.event.enrich(subject, &context.site.directory);
            if let Some(unit) = &names.unit {
                self.event.text(names::SYSTEMD_UNIT, unit);
            }
        }
    }

    fn send(&mut self, kind: Name, severity: Severity, context: &mut Context) {
        let now_ns = clock::wall_ns();
        // The id is the time of its creation, so no other run of this boot has the same one.
        self.latest_ns = clock::monotonic_ns().max(self.latest_ns + 1);
        let meta = EventHeader {
            id: EventId::from_sequence(context.site.origin, SOURCE, self.latest_ns),
            time_ns: now_ns,
            observed_ns: now_ns,
            kind,
            source: names::NODE,
            clock: ClockQuality::Micros,
            severity,
        };
        // The sink counts an event that it rejects.
        let _ = self.event.offer(&meta, &mut context.sink);
    }

    /// Emits a step of the wall clock.
    pub(super) fn clock_step(&mut self, jump_ns: i64, context: &mut Context) {
        self.start(None, context);
        self.event.end_entities();
        self.event.int(names::TAPIO_CLOCK_JUMP_NS, jump_ns);
        let direction = if jump_ns < 0 { "back" } else { "forward" };
        let milliseconds = jump_ns.unsigned_abs() as f64 / 1e6;
        self.event.message(format_args!("the clock was set {direction} by {milliseconds:.1} ms"));
        self.send(names::KERNEL_CLOCK_CHANGED, Severity::WARN, context);
    }

    /// Emits the pressure and use of a cgroup.
    pub(super) fn pressure(&mut self, sample: &Sample<'_>, context: &mut Context) {
        self.start(Some(sample.names), context);
        self.event.int(names::CGROUP_ID, sample.cgroup_id);
        self.event.end_entities();
        self.event.text(names::TAPIO_CGROUP_PATH, &sample.names.path);
        self.event.word(names::TAPIO_PRESSURE_RESOURCE, sample.resource);
        self.event.float(names::TAPIO_PRESSURE_SOME_PERCENT, sample.some_percent);
        self.event.float(names::TAPIO_PRESSURE_USAGE_SHARE, sample.usage_share);
        self.event.message(format_args!(
            "{} waited for {} {:.0} % of the time and used {:.0} % of the node's use",
            sample.names.path,
            sample.resource,
            sample.some_percent,
            sample.usage_share * 100.0
        ));
        let severity = if sample.some_percent >= 50.0 { Severity::WARN } else { Severity::INFO };
        self.send(names::KERNEL_PRESSURE, severity, context);
    }

    /// Emits a process that has zombie children.
    pub(super) fn zombies(&mut self, parent: &Parent, context: &mut Context) {
        self.start(Some(&parent.cgroup), context);
        self.event.int(names::PROCESS_PID, parent.pid);
        self.event.end_entities();
        self.event.text(names::TAPIO_CGROUP_PATH, &parent.cgroup.path);
        self.event.text(names::PROCESS_EXECUTABLE_NAME, &parent.name);
        self.event.int(names::TAPIO_COUNT, parent.zombies);
        self.event.message(format_args!(
            "{} (pid {}) has {} zombies",
            parent.name, parent.pid, parent.zombies
        ));
        self.send(names::KERNEL_PROCESS_ZOMBIES, Severity::WARN, context);
    }
}
