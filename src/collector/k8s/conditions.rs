//! State machines of the node's conditions and of Deployments' rollouts. Pure, as
//! `pod_lifecycle.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::objects::{Condition, Deployment, Node, Text};

/// A change of a node condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConditionChange {
    pub(super) condition: Text,
    /// `true`, `false` or `unknown`.
    pub(super) status: &'static str,
    pub(super) reason: Text,
    pub(super) message: Text,
    pub(super) time_ns: Option<u64>,
    pub(super) is_bad: bool,
    pub(super) natural_key: String,
}

/// The last known conditions: type to status and the time of its transition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct NodeConditions(BTreeMap<Text, (Text, u64)>);

fn status_value(status: &str) -> &'static str {
    match status {
        "True" => "true",
        "False" => "false",
        _ => "unknown",
    }
}

/// Whether a condition is a fault: `Ready` unless it is true, every other type when it is true.
fn is_bad(condition: &Condition) -> bool {
    (&*condition.status == "True") != (&*condition.r#type == "Ready")
}

impl NodeConditions {
    /// Processes the node's state and returns the changes. A condition that is seen for the first
    /// time is a change where it is bad.
    pub(super) fn step(&mut self, node: &Node) -> Vec<ConditionChange> {
        let mut out = Vec::new();
        for condition in &node.status.conditions {
            let since_ns = condition.last_transition_time.map_or(0, |t| t.ns);
            let now = (condition.status.clone(), since_ns);
            let before = self.0.insert(condition.r#type.clone(), now.clone());
            let is_bad = is_bad(condition);
            let changed = before.as_ref().map_or(is_bad, |before| *before != now);
            // The kubelet of a returning node writes the same status with a new time.
            let same = before.as_ref().is_some_and(|(status, _)| *status == condition.status);
            if !changed || (same && !is_bad) {
                continue;
            }
            let status = status_value(&condition.status);
            out.push(ConditionChange {
                condition: condition.r#type.clone(),
                status,
                reason: condition.reason.clone(),
                message: condition.message.clone(),
                time_ns: (since_ns > 0).then_some(since_ns),
                is_bad,
                natural_key: format!("condition/{}/{status}/{since_ns}", condition.r#type),
            });
        }
        self.0.retain(|known, _| node.status.conditions.iter().any(|c| c.r#type == *known));
        out
    }
}

/// The phase of a rollout; the values are bits of [`RolloutState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RolloutPhase {
    Progressing = 1,
    Complete = 2,
    Failed = 4,
}

impl RolloutPhase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Progressing => "progressing",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }
}

/// A rollout that entered another phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RolloutChange {
    pub(super) phase: RolloutPhase,
    pub(super) revision: u64,
    pub(super) reason: Text,
    pub(super) message: Text,
    pub(super) time_ns: Option<u64>,
    pub(super) natural_key: String,
}

/// The emitted phases of a Deployment's rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RolloutState {
    revision: u64,
    /// Emitted [`RolloutPhase`]s of this revision, as bits: a revision enters each phase once.
    #[serde(rename = "states")]
    phases: u8,
    /// The ReplicaSet that is being rolled out.
    pub(super) progressing: Option<Text>,
}

/// The quoted name in a message of the controller: `ReplicaSet "web-7d9c5b" is progressing.`
fn quoted(message: &str) -> Option<&str> {
    message.split_once('"')?.1.split_once('"').map(|(name, _)| name).filter(|n| !n.is_empty())
}

/// The phase of a Deployment's rollout, once its controller has observed the latest specification.
/// The reasons are those of deployment/progress.go in the controller manager.
fn phase_of(deployment: &Deployment) -> Option<(RolloutPhase, &Condition)> {
    let status = &deployment.status;
    if status.observed_generation < deployment.metadata.generation {
        return None;
    }
    let progress = status.conditions.iter().find(|c| &*c.r#type == "Progressing")?;
    let phase = match (&*progress.status, &*progress.reason) {
        ("False", _) => RolloutPhase::Failed,
        // Pausing and resuming are no rollouts.
        (_, "DeploymentPaused" | "DeploymentResumed") => return None,
        (_, "NewReplicaSetAvailable") => RolloutPhase::Complete,
        _ => RolloutPhase::Progressing,
    };
    Some((phase, progress))
}

impl RolloutState {
    /// Processes the Deployment's state and returns the phase that it entered, if any.
    pub(super) fn step(&mut self, deployment: &Deployment) -> Option<RolloutChange> {
        let revision = deployment.metadata.annotations.get("deployment.kubernetes.io/revision");
        let revision: u64 = revision?.parse().ok()?;
        let (phase, progress) = phase_of(deployment)?;
        if revision != self.revision {
            *self = Self { revision, ..Self::default() };
        }
        self.progressing = match phase {
            RolloutPhase::Complete => None,
            _ => quoted(&progress.message).map(Text::from),
        };
        if self.phases & phase as u8 != 0 {
            return None;
        }
        self.phases |= phase as u8;
        let times = [progress.last_update_time, progress.last_transition_time];
        Some(RolloutChange {
            phase,
            revision,
            reason: progress.reason.clone(),
            message: progress.message.clone(),
            time_ns: times.into_iter().flatten().map(|t| t.ns).max(),
            natural_key: format!("rollout/{revision}/{}", phase.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(ready: &str, since: &str, memory: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"uid": "n"}, "status": {"conditions": [
            {"type": "Ready", "status": ready, "reason": "KubeletReady", "lastTransitionTime": since, "lastHeartbeatTime": "2026-01-15T10:00:00Z"},
            {"type": "MemoryPressure", "status": memory, "lastTransitionTime": "2026-01-15T09:00:00Z"}]}}))
        .unwrap()
    }

    #[test]
    fn condition_changes_on_transition_and_initially_where_bad() {
        let mut conditions = NodeConditions::default();
        let at = "2026-01-15T09:00:00Z";
        assert_eq!(conditions.step(&node("True", at, "False")), []);
        let bad = conditions.step(&node("False", "2026-01-15T10:00:00Z", "False"));
        assert_eq!((bad.len(), bad[0].status, bad[0].is_bad), (1, "false", true));
        assert_eq!(bad[0].natural_key, "condition/Ready/false/1768471200000000000");
        assert_eq!(conditions.step(&node("False", "2026-01-15T10:00:00Z", "False")), []);
        let unknown = conditions.step(&node("Unknown", "2026-01-15T10:05:00Z", "False"));
        assert_eq!((unknown[0].status, unknown[0].is_bad), ("unknown", true));
        let good = conditions.step(&node("True", "2026-01-15T10:06:00Z", "True"));
        assert_eq!(
            good.iter().map(|c| (&*c.condition, c.is_bad)).collect::<Vec<_>>(),
            [("Ready", false), ("MemoryPressure", true)]
        );
        let first = NodeConditions::default().step(&node("False", at, "True"));
        assert_eq!(first.len(), 2);
    }

    fn deployment(revision: u64, status: &str, reason: &str, observed: i64) -> Deployment {
        let message = format!("ReplicaSet \"web-{revision}\" is there.");
        serde_json::from_value(json!({
            "metadata": {"uid": "d", "generation": 5, "annotations": {"deployment.kubernetes.io/revision": revision.to_string(), "other": "x"}},
            "status": {"observedGeneration": observed, "conditions": [
                {"type": "Available", "status": "True"},
                {"type": "Progressing", "status": status, "reason": reason, "message": message, "lastUpdateTime": "2026-01-15T10:00:00Z"}]}}))
        .unwrap()
    }

    #[test]
    fn rollout_enters_each_phase_once() {
        let mut rollout = RolloutState::default();
        let mut step = |revision, status: &str, reason: &str, observed| {
            let new = rollout
                .step(&deployment(revision, status, reason, observed))
                .map(|r| r.natural_key);
            (new.unwrap_or_default(), rollout.progressing.clone().unwrap_or_default().to_string())
        };
        let is = |key: &str, replicaset: &str| (key.to_owned(), replicaset.to_owned());
        assert_eq!(step(1, "True", "NewReplicaSetAvailable", 5), is("rollout/1/complete", ""));
        assert_eq!(
            step(2, "True", "ReplicaSetUpdated", 4),
            is("", ""),
            "its controller hasn't observed it"
        );
        assert_eq!(step(2, "True", "ReplicaSetUpdated", 5), is("rollout/2/progressing", "web-2"));
        assert_eq!(step(2, "True", "FoundNewReplicaSet", 5), is("", "web-2"));
        assert_eq!(
            step(2, "False", "ProgressDeadlineExceeded", 5),
            is("rollout/2/failed", "web-2")
        );
        assert_eq!(step(2, "Unknown", "DeploymentPaused", 5), is("", "web-2"));
        assert_eq!(step(2, "True", "NewReplicaSetAvailable", 5), is("rollout/2/complete", ""));
        assert_eq!(
            step(2, "True", "NewReplicaSetAvailable", 5),
            is("", ""),
            "scaling isn't a rollout"
        );
        assert_eq!(step(3, "True", "NewReplicaSetCreated", 5).0, "rollout/3/progressing");
    }
}
