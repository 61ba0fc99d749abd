//! What happened to units and jobs, as events (docs/kinds.md).

use crate::ebpf::signal_name;
use crate::events::event_builder::{EventBuilder, EventHeader};
use crate::runtime::Context;
use tapio_core::clock;
use tapio_core::event::{ClockQuality, EventId, Name, Severity, names};

use super::unit::{Exit, Told, What};
use super::watch::{Job, News};

/// `ExecMainCode`: CLD_EXITED of waitid(2).
const EXITED: i32 = 1;
/// CLD_KILLED and CLD_DUMPED.
const BY_SIGNAL: [i32; 2] = [2, 3];

/// Puts events together.
pub(super) struct Teller {
    draft: EventBuilder,
    /// Tells jobs of different boots apart, whose numbers begin anew.
    boot_id: String,
}

fn kind_of(what: What) -> Name {
    match what {
        What::Started => names::SYSTEMD_UNIT_STARTED,
        What::Stopped => names::SYSTEMD_UNIT_STOPPED,
        What::Failed => names::SYSTEMD_UNIT_FAILED,
        What::Restarting => names::SYSTEMD_UNIT_RESTARTING,
        What::Reloaded => names::SYSTEMD_UNIT_RELOADED,
        What::Oom => names::SYSTEMD_UNIT_OOM,
    }
}

fn severity_of(told: &Told) -> Severity {
    match told.what {
        What::Failed | What::Oom => Severity::ERROR,
        What::Restarting => Severity::WARN,
        _ if told.result.is_empty() || &*told.result == "success" => Severity::INFO,
        _ => Severity::WARN,
    }
}

impl Teller {
    pub(super) fn new(boot_id: &str) -> Self {
        Self { draft: EventBuilder::default(), boot_id: boot_id.to_owned() }
    }

    /// Tells one piece of news. The sink accounts for it.
    pub(super) fn tell(&mut self, news: &News, context: &mut Context) {
        let observed_ns = clock::wall_ns();
        let draft = &mut self.draft;
        draft.clear();
        draft.text(names::HOST_NAME, &context.site.node);
        let (unit, invocation_id) = match news {
            News::Unit { unit, told } => (unit, &told.invocation_id),
            News::Job { unit, invocation_id, .. } => (unit, invocation_id),
        };
        draft.text(names::SYSTEMD_UNIT, unit);
        draft.text(names::SYSTEMD_INVOCATION_ID, invocation_id);
        draft.end_entities();
        let (kind, severity, time_ns, id) = match news {
            News::Unit { told, .. } => {
                unit_fields(draft, unit, told);
                let kind = kind_of(told.what);
                let restart = told.restarts.unwrap_or_default();
                let id = format!(
                    "{}/{unit}/{invocation_id}/{kind}/{}/{restart}",
                    self.boot_id, told.at.mono_us
                );
                (kind, severity_of(told), told.at.wall_us * 1_000, id)
            }
            News::Job { job, .. } => {
                let canceled = job.result == "canceled";
                job_fields(draft, unit, job);
                let severity = if canceled { Severity::INFO } else { Severity::WARN };
                let id = format!("{}/{unit}/job/{}", self.boot_id, job.id);
                (names::SYSTEMD_JOB_FAILED, severity, observed_ns, id)
            }
        };
        let meta = EventHeader {
            id: EventId::from_natural("systemd", &id),
            // A stamp systemd doesn't have: the event is of the moment in which it was seen.
            time_ns: if time_ns == 0 { observed_ns } else { time_ns },
            observed_ns,
            kind,
            source: names::SYSTEMD,
            clock: ClockQuality::Micros,
            severity,
        };
        // The sink has counted what it couldn't take.
        let _ = draft.offer(&meta, &mut context.sink);
    }
}

fn unit_fields(draft: &mut EventBuilder, unit: &str, told: &Told) {
    let result = &*told.result;
    draft.text(names::TAPIO_SYSTEMD_RESULT, result);
    if let Some(exit) = told.exit {
        exit_fields(draft, exit);
    }
    if let Some(trigger) = &told.triggered_by {
        draft.text(names::TAPIO_SYSTEMD_TRIGGERED_BY, trigger);
    }
    if let Some(restarts) = told.restarts {
        draft.int(names::TAPIO_SYSTEMD_RESTARTS, restarts);
    }
    if let Some((result, down_ns)) = &told.comes_back_from {
        draft.text(names::TAPIO_SYSTEMD_PREVIOUS_RESULT, result);
        draft.int(names::TAPIO_SYSTEMD_DOWN_NS, *down_ns);
    }
    let how = if result.is_empty() { String::new() } else { format!(" with result '{result}'") };
    match told.what {
        What::Started => draft.message(format_args!("{unit} started")),
        What::Stopped => draft.message(format_args!("{unit} stopped{how}")),
        What::Failed => draft.message(format_args!("{unit} failed{how}")),
        What::Restarting => draft.message(format_args!(
            "{unit} ended{how} and is restarted, for the {}. time",
            told.restarts.unwrap_or_default()
        )),
        What::Reloaded => draft.message(format_args!("{unit} reloaded{how}")),
        What::Oom => {
            draft.message(format_args!("a process of {unit} was killed for want of memory"));
        }
    }
}

fn exit_fields(draft: &mut EventBuilder, exit: Exit) {
    if exit.code == EXITED {
        draft.int(names::PROCESS_EXIT_CODE, exit.status);
    } else if BY_SIGNAL.contains(&exit.code) {
        draft.word(names::TAPIO_SIGNAL_NAME, signal_name(exit.status.unsigned_abs()));
    }
}

fn job_fields(draft: &mut EventBuilder, unit: &str, job: &Job) {
    // A job that ended before it could be asked what it does is a start that was refused at once;
    // of one that was canceled so soon nothing is known.
    let refused = if job.result == "canceled" { "" } else { "start" };
    let kind = job.kind.as_deref().unwrap_or(refused);
    draft.text(names::TAPIO_SYSTEMD_JOB_TYPE, kind);
    draft.text(names::TAPIO_SYSTEMD_JOB_RESULT, &job.result);
    let what = if kind.is_empty() { "" } else { " to " };
    let result = &job.result;
    match &job.failed_dependency {
        Some(failed) => {
            draft.text(names::TAPIO_SYSTEMD_DEPENDENCY, failed);
            draft.message(format_args!(
                "the job{what}{kind} {unit} ended: {failed}, which it needs, failed"
            ));
        }
        None => draft.message(format_args!("the job{what}{kind} {unit} ended: {result}")),
    }
}
