//! The agent's report of its own state for the server, which lists the agents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;

use super::memory;
use super::status::Status;
use crate::bridge::LatestReport;
use tapio_collectors::{CollectorStatus, Health};
use tapio_core::clock;
use tapio_core::counters::Reading;
use tapio_core::ring::CollectorAccount;
use tapio_core::text_prefix::text_prefix;
use tapio_wire::MAX_STATUS_BYTES;
use tapio_wire::proto::{AgentStatus, CollectorState, EventAccount, Loss};

/// Interval of reports.
const INTERVAL: Duration = Duration::from_secs(10);
/// Longest text of an error or a problem.
const MAX_TEXT_BYTES: usize = 256;
/// Most problems.
const MAX_PROBLEMS: usize = 16;

/// A change of it is reported at once.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    state: &'static str,
    health: Vec<Health>,
    disabled_rules: u64,
}

/// Writes reports.
#[derive(Debug)]
pub(super) struct StatusReporter {
    latest: Arc<LatestReport>,
    last: Option<(Instant, Summary)>,
}

impl StatusReporter {
    pub(super) fn new(latest: Arc<LatestReport>) -> Self {
        Self { latest, last: None }
    }

    /// Writes a report if one is due. To be called about once a second.
    pub(super) fn poll(&mut self, status: &Status, now: Instant) {
        let summary = Summary {
            state: status.current_state().0,
            health: status.collectors().iter().map(|collector| collector.health).collect(),
            disabled_rules: status.disabled_rules(),
        };
        let is_due = self.last.as_ref().is_none_or(|(at, last)| {
            *last != summary || now.saturating_duration_since(*at) >= INTERVAL
        });
        if is_due {
            self.latest.write(report(status));
            self.last = Some((now, summary));
        }
    }
}

/// The report now.
fn report(status: &Status) -> AgentStatus {
    let (state, problems) = status.current_state();
    let account = status.account();
    let collectors = status.collectors();
    // The last account is that of the spool.
    let accounts = account.collectors.iter().map(|account| {
        let collector = collectors.iter().find(|collector| collector.name == account.name);
        collector_state(status, account, collector)
    });
    let bridge = |name| reading(status.bridge.readings(), name);
    let memory =
        |name| status.memory.as_ref().map_or(0, |memory| reading(memory.stats.readings(), name));
    let rules = status.rules.current();
    let problems = problems.iter().take(MAX_PROBLEMS).map(|problem| text(status, problem));
    let report = AgentStatus {
        node: status.node.clone(),
        epoch: status.started_ns,
        time_unix_nano: clock::wall_ns(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: state.to_owned(),
        problems: problems.collect(),
        collectors: accounts.collect(),
        total: Some(event_account(&account.total)),
        spool_bytes: bridge("spool_bytes"),
        spool_oldest_seconds: bridge("spool_oldest_seconds"),
        queue_bytes: bridge("queue_bytes"),
        memory_bytes: memory::used_bytes().unwrap_or_default(),
        memory_limit_bytes: memory("limit_bytes"),
        rules: rules.rules.len() as u32,
        rules_disabled: status.disabled_rules() as u32,
        rules_digest: rules.digest().to_vec(),
    };
    fitting(report)
}

fn reading(mut readings: impl Iterator<Item = Reading>, name: &str) -> u64 {
    readings.find(|reading| reading.name == name).map_or(0, |reading| reading.value)
}

/// A text without secrets, cut to its bound.
fn text(status: &Status, text: &str) -> String {
    text_prefix(&status.redactor.text(text), MAX_TEXT_BYTES).to_owned()
}

/// A collector, or the spool, which has an account as well.
fn collector_state(
    status: &Status,
    account: &CollectorAccount,
    collector: Option<&CollectorStatus>,
) -> CollectorState {
    CollectorState {
        name: account.name.clone(),
        health: collector.map_or("", |collector| collector.health.as_str()).to_owned(),
        restarts: collector.map_or(0, |collector| collector.restarts),
        last_error: collector.map_or(String::new(), |c| text(status, &c.last_error)),
        account: Some(event_account(account)),
    }
}

fn event_account(account: &CollectorAccount) -> EventAccount {
    let dropped = account.dropped.iter().map(|(stage, reason, count)| Loss {
        stage: stage.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        count: *count,
    });
    EventAccount {
        received: account.received,
        forwarded: account.forwarded,
        held: account.held,
        residual: account.residual,
        dropped: dropped.collect(),
        truncated: account.truncated,
        redacted: account.redacted,
    }
}

/// The report within the bound of its length: without errors, and then without the collectors'
/// losses, if they don't fit.
fn fitting(mut report: AgentStatus) -> AgentStatus {
    if report.encoded_len() > MAX_STATUS_BYTES {
        report.collectors.iter_mut().for_each(|collector| collector.last_error.clear());
    }
    if report.encoded_len() > MAX_STATUS_BYTES {
        let accounts = report.collectors.iter_mut().filter_map(|c| c.account.as_mut());
        accounts.for_each(|account| account.dropped.clear());
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_of_many_long_errors_fits() {
        let loss = Loss { stage: "bridge".into(), reason: "spool_full".into(), count: u64::MAX };
        let account = EventAccount { dropped: vec![loss; 25], ..EventAccount::default() };
        let collector = CollectorState {
            last_error: "e".repeat(MAX_TEXT_BYTES),
            account: Some(account.clone()),
            ..CollectorState::default()
        };
        let large = AgentStatus {
            collectors: vec![collector; 24],
            problems: vec!["p".repeat(MAX_TEXT_BYTES); MAX_PROBLEMS],
            total: Some(account),
            ..AgentStatus::default()
        };
        assert!(large.encoded_len() > MAX_STATUS_BYTES);
        let report = fitting(large.clone());
        assert!(report.encoded_len() <= MAX_STATUS_BYTES);
        assert_eq!((report.collectors.len(), report.problems), (24, large.problems));
    }
}
