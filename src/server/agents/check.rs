//! Whether a reported status is taken: bounds on what is kept of it, and its node and start.

use tapio_core::ring::MAX_COLLECTORS;
use tapio_wire::proto::{AgentStatus, CollectorState, EventAccount};
use tapio_wire::{Jump, MAX_NODE_BYTES};

/// Most problems, and reasons of losses of one collector.
const MAX_PROBLEMS: usize = 64;
const MAX_LOSSES: usize = 128;
/// Longest name: of a collector, a state, a stage, a reason, a version.
const MAX_NAME_BYTES: usize = 64;
/// Longest digest of a rule set.
const MAX_DIGEST_BYTES: usize = 32;

/// Why a status is refused; `None` if it is taken. `now_ns`: the wall clock. Its length is bounded
/// when it is received.
pub(crate) fn status_refusal(status: &AgentStatus, now_ns: u64) -> Option<String> {
    if status.node.is_empty() || status.node.len() > MAX_NODE_BYTES {
        return Some(format!("node: not a name of 1 to {MAX_NODE_BYTES} bytes"));
    }
    if let Some(jump) = Jump::check(status.epoch, 0, || 0, now_ns) {
        return Some(jump.to_string());
    }
    let is_long = |text: &String| text.len() > MAX_NAME_BYTES;
    let bounded = status.problems.len() <= MAX_PROBLEMS
        && status.collectors.len() <= MAX_COLLECTORS
        && status.rules_digest.len() <= MAX_DIGEST_BYTES
        && ![&status.version, &status.state].into_iter().any(is_long)
        && status.total.as_ref().is_none_or(is_bounded)
        && status.collectors.iter().all(is_bounded_collector);
    (!bounded).then(|| "a list or a name in it is longer than an agent's".to_owned())
}

fn is_bounded_collector(collector: &CollectorState) -> bool {
    collector.name.len() <= MAX_NAME_BYTES
        && collector.health.len() <= MAX_NAME_BYTES
        && collector.account.as_ref().is_none_or(is_bounded)
}

fn is_bounded(account: &EventAccount) -> bool {
    account.dropped.len() <= MAX_LOSSES
        && account
            .dropped
            .iter()
            .all(|loss| loss.stage.len() <= MAX_NAME_BYTES && loss.reason.len() <= MAX_NAME_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_wire::proto::Loss;

    #[test]
    fn status_out_of_bounds_is_refused() {
        let fine = AgentStatus { node: "n".into(), epoch: 5, ..AgentStatus::default() };
        let refusal = |change: &dyn Fn(&mut AgentStatus)| {
            let mut status = fine.clone();
            change(&mut status);
            status_refusal(&status, 10)
        };
        assert_eq!(refusal(&|_| {}), None);
        assert!(refusal(&|s| s.node.clear()).unwrap().starts_with("node: "));
        assert!(refusal(&|s| s.node = "n".repeat(256)).unwrap().starts_with("node: "));
        assert!(refusal(&|s| s.epoch = u64::MAX).unwrap().contains("days ahead"));
        assert!(refusal(&|s| s.version = "1".repeat(65)).is_some());
        assert!(refusal(&|s| s.problems = vec![String::new(); 65]).is_some());
        assert!(refusal(&|s| s.collectors = vec![CollectorState::default(); 25]).is_some());
        assert!(refusal(&|s| s.rules_digest = vec![0; 33]).is_some());
        let losses = EventAccount { dropped: vec![Loss::default(); 129], ..Default::default() };
        assert!(refusal(&|s| s.total = Some(losses.clone())).is_some());
    }
}
