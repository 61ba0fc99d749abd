//! Changes of units and jobs as events (docs/kinds.md).

use crate::events::event_builder::{EventBuilder, EventHeader};
use crate::events::signals::signal_name;
use crate::runtime::Context;
use tapio_core::clock;
use tapio_core::event::{ClockQuality, EventId, Name, Severity, names, rfc3339};

use super::unit::{Exit, Transition, TransitionKind};
use super::unit_table::{Change, Job};

/// `ExecMainCode`: CLD_EXITED of waitid(2).
const EXITED: i32 = 1;
/// CLD_KILLED and CLD_DUMPED.
const BY_SIGNAL: [i32; 2] = [2, 3];

/// Converts changes to events.
pub(super) struct EventConverter {
    event: EventBuilder,
    /// Distinguishes the jobs of different boots, whose ids start again.
    boot_id: String,
}

fn kind_of(kind: TransitionKind) -> Name {
    match kind {
        TransitionKind::Started => names::SYSTEMD_UNIT_STARTED,
        TransitionKind::Stopped => names::SYSTEMD_UNIT_STOPPED,
        TransitionKind::Failed => names::SYSTEMD_UNIT_FAILED,
        TransitionKind::Restarting => names::SYSTEMD_UNIT_RESTARTING,
        TransitionKind::Reloaded => names::SYSTEMD_UNIT_RELOADED,
        TransitionKind::Oom => names::SYSTEMD_UNIT_OOM,
    }
}

fn severity_of(transition: &Transition) -> Severity {
    match transition.kind {
        TransitionKind::Failed | TransitionKind::Oom => Severity::ERROR,
        TransitionKind::Restarting => Severity::WARN,
        _ if transition.result.is_empty() || &*transition.result == "success" => Severity::INFO,
        _ => Severity::WARN,
    }
}

impl EventConverter {
    pub(super) fn new(boot_id: &str) -> Self {
        Self { event: EventBuilder::default(), boot_id: boot_id.to_owned() }
    }

    /// Emits the event of a change. The sink accounts for it.
    pub(super) fn emit(&mut self, change: &Change, context: &mut Context) {
        let observed_ns = clock::wall_ns();
        let event = &mut self.event;
        event.clear();
        event.text(names::HOST_NAME, &context.site.node);
        let (unit, invocation_id) = match change {
            Change::Unit { unit, transition } => (unit, &transition.invocation_id),
            Change::Job { unit, invocation_id, .. } => (unit, invocation_id),
        };
        event.text(names::SYSTEMD_UNIT, unit);
        event.text(names::SYSTEMD_INVOCATION_ID, invocation_id);
        event.end_entities();
        let (kind, severity, time_ns, id) = match change {
            Change::Unit { transition, .. } => {
                unit_fields(event, unit, transition);
                let kind = kind_of(transition.kind);
                let restart = transition.restarts.unwrap_or_default();
                let id = format!(
                    "{}/{unit}/{invocation_id}/{kind}/{}/{restart}",
                    self.boot_id, transition.at.mono_us
                );
                (kind, severity_of(transition), transition.at.wall_us * 1_000, id)
            }
            Change::Job { job, .. } => {
                let canceled = job.result == "canceled";
                job_fields(event, unit, job);
                let severity = if canceled { Severity::INFO } else { Severity::WARN };
                let id = format!("{}/{unit}/job/{}", self.boot_id, job.id);
                (names::SYSTEMD_JOB_FAILED, severity, observed_ns, id)
            }
        };
        let header = EventHeader {
            id: EventId::from_natural("systemd", &id),
            // Without a timestamp from systemd, the time of the observation.
            time_ns: if time_ns == 0 { observed_ns } else { time_ns },
            observed_ns,
            kind,
            source: names::SYSTEMD,
            clock: ClockQuality::Micros,
            severity,
        };
        // The sink has counted an event that it dropped.
        let _ = event.offer(&header, &mut context.sink);
    }
}

fn unit_fields(event: &mut EventBuilder, unit: &str, transition: &Transition) {
    let result = &*transition.result;
    event.text(names::TAPIO_SYSTEMD_RESULT, result);
    if let Some(exit) = transition.exit {
        exit_fields(event, exit);
    }
    if let Some(trigger) = &transition.triggered_by {
        event.text(names::TAPIO_SYSTEMD_TRIGGERED_BY, trigger);
    }
    if let Some(restarts) = transition.restarts {
        event.int(names::TAPIO_SYSTEMD_RESTARTS, restarts);
    }
    if let Some((result, down_ns)) = &transition.recovered_from {
        event.text(names::TAPIO_SYSTEMD_PREVIOUS_RESULT, result);
        event.int(names::TAPIO_SYSTEMD_DOWN_NS, *down_ns);
    }
    if let Some(since_us) = transition.failed_before {
        event.bool(names::TAPIO_SYSTEMD_FOUND, true);
        event.text(names::TAPIO_SYSTEMD_FAILED_AT, rfc3339(since_us.saturating_mul(1_000)));
    }
    let with_result =
        if result.is_empty() { String::new() } else { format!(" with result '{result}'") };
    match transition.kind {
        TransitionKind::Started => event.message(format_args!("{unit} started")),
        TransitionKind::Stopped => event.message(format_args!("{unit} stopped{with_result}")),
        TransitionKind::Failed if transition.failed_before.is_some() => {
            event.message(format_args!("{unit} was found failed{with_result}"));
        }
        TransitionKind::Failed => event.message(format_args!("{unit} failed{with_result}")),
        TransitionKind::Restarting => event.message(format_args!(
            "{unit} ended{with_result} and is restarted (restart {})",
            transition.restarts.unwrap_or_default()
        )),
        TransitionKind::Reloaded => event.message(format_args!("{unit} reloaded{with_result}")),
        TransitionKind::Oom => {
            event.message(format_args!("a process of {unit} was OOM-killed"));
        }
    }
}

fn exit_fields(event: &mut EventBuilder, exit: Exit) {
    if exit.code == EXITED {
        event.int(names::PROCESS_EXIT_CODE, exit.status);
    } else if BY_SIGNAL.contains(&exit.code) {
        event.word(names::TAPIO_SIGNAL_NAME, signal_name(exit.status.unsigned_abs()));
    }
}

fn job_fields(event: &mut EventBuilder, unit: &str, job: &Job) {
    // A job that ended before its type could be read is a start that was refused at once. The
    // type of one that was canceled as quickly is unknown.
    let default_type = if job.result == "canceled" { "" } else { "start" };
    let job_type = job.job_type.as_deref().unwrap_or(default_type);
    event.text(names::TAPIO_SYSTEMD_JOB_TYPE, job_type);
    event.text(names::TAPIO_SYSTEMD_JOB_RESULT, &job.result);
    let to = if job_type.is_empty() { "" } else { " to " };
    let result = &job.result;
    match &job.failed_dependency {
        Some(failed) => {
            event.text(names::TAPIO_SYSTEMD_DEPENDENCY, failed);
            event.message(format_args!(
                "job{to}{job_type} {unit} ended: its dependency {failed} failed"
            ));
        }
        None => {
            event.message(format_args!("job{to}{job_type} {unit} ended with result '{result}'"))
        }
    }
}
