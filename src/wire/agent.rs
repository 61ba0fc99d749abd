//! Agents as a server lists them, as JSON.

use serde_json::{Map, Value, json};

use super::proto::{Agent, AgentStatus, CollectorState, EventAccount};
use tapio_core::event::rfc3339;

/// The time as text; `null` for none.
fn time(ns: u64) -> Value {
    (ns > 0).then(|| rfc3339(ns)).into()
}

/// An agent as JSON.
#[must_use]
pub fn agent_json(agent: &Agent) -> Value {
    let delay = agent.latency.as_ref().map(|delay| {
        json!({
            "count": delay.count, "p50_ns": delay.p50_ns, "p90_ns": delay.p90_ns,
            "p99_ns": delay.p99_ns, "p999_ns": delay.p999_ns, "max_ns": delay.max_ns,
        })
    });
    json!({
        "node": agent.node,
        "started": time(agent.epoch),
        "connected": agent.connected,
        "first_seen": time(agent.first_seen_unix_nano),
        "last_batch": time(agent.last_batch_unix_nano),
        "last_status": time(agent.last_status_unix_nano),
        "batches": agent.batches,
        "events": agent.events,
        "stories": agent.stories,
        "batches_refused": agent.batches_refused,
        "items_dropped": agent.items_dropped,
        "processes": agent.processes,
        "delay": delay,
        "status": agent.status.as_ref().map(status_json),
    })
}

fn status_json(status: &AgentStatus) -> Value {
    let digest: String = status.rules_digest.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "time": time(status.time_unix_nano),
        "version": status.version,
        "state": status.state,
        "problems": status.problems,
        "collectors": status.collectors.iter().map(collector_json).collect::<Vec<_>>(),
        "cons1": account_json(status.total.as_ref()),
        "spool_bytes": status.spool_bytes,
        "spool_oldest_seconds": status.spool_oldest_seconds,
        "queue_bytes": status.queue_bytes,
        "memory_bytes": status.memory_bytes,
        "memory_limit_bytes": (status.memory_limit_bytes > 0).then_some(status.memory_limit_bytes),
        "rules": {
            "count": status.rules, "disabled": status.rules_disabled, "digest": digest,
        },
    })
}

fn collector_json(collector: &CollectorState) -> Value {
    json!({
        "name": collector.name,
        "health": collector.health,
        "restarts": collector.restarts,
        "last_error": collector.last_error,
        "cons1": account_json(collector.account.as_ref()),
    })
}

/// An account in the form that it has in an agent's `/status`.
fn account_json(account: Option<&EventAccount>) -> Value {
    let Some(account) = account else { return Value::Null };
    let dropped = account.dropped.iter();
    let dropped: Map<String, Value> = dropped
        .map(|loss| (format!("{}/{}", loss.stage, loss.reason), loss.count.into()))
        .collect();
    json!({
        "received": account.received, "forwarded": account.forwarded, "dropped": dropped,
        "held": account.held, "residual": account.residual, "truncated": account.truncated,
        "redacted": account.redacted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Loss;

    #[test]
    fn agent_without_a_status_and_with_one() {
        let mut agent = Agent { node: "n".into(), epoch: 1_000_000_000, ..Agent::default() };
        let json = agent_json(&agent);
        assert_eq!(json["started"], "1970-01-01T00:00:01Z");
        assert!(json["status"].is_null() && json["last_batch"].is_null());
        let account = EventAccount {
            received: 3,
            residual: -1,
            dropped: vec![Loss { stage: "bridge".into(), reason: "spool_full".into(), count: 2 }],
            ..EventAccount::default()
        };
        agent.status = Some(AgentStatus {
            rules_digest: vec![0xab, 1],
            total: Some(account),
            ..AgentStatus::default()
        });
        let status = &agent_json(&agent)["status"];
        assert_eq!(status["rules"]["digest"], "ab01");
        assert_eq!(status["cons1"]["dropped"]["bridge/spool_full"], 2);
        assert_eq!(status["cons1"]["residual"], -1);
    }
}
