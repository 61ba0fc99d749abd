//! The node's conditions and the rollouts of Deployments: what was told, and what is new. Pure, as `pods.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::objects::{Condition, Deployment, Node, Text};

/// A condition of the node changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) condition: Text,
    /// `true`, `false` or `unknown`.
    pub(super) status: &'static str,
    pub(super) reason: Text,
    pub(super) message: Text,
    pub(super) time_ns: Option<u64>,
    pub(super) is_bad: bool,
    pub(super) natural: String,
}

/// The conditions that were told: type to status and the time of its transition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ToldConditions(BTreeMap<Text, (Text, u64)>);

fn status_word(status: &str) -> &'static str {
    match status {
        "True" => "true",
        "False" => "false",
        _ => "unknown",
    }
}

/// `Ready` is good when it is true; all others name something bad.
fn is_bad(condition: &Condition) -> bool {
    (&*condition.status == "True") != (&*condition.r#type == "Ready")
}

impl ToldConditions {
    /// Looks at the node; returns what changed. A condition seen for the first time is told where it is bad.
    pub(super) fn step(&mut self, node: &Node) -> Vec<Changed> {
        let mut out = Vec::new();
        for condition in &node.status.conditions {
            let since_ns = condition.last_transition_time.map_or(0, |t| t.ns);
            let now = (condition.status.clone(), since_ns);
            let before = self.0.insert(condition.r#type.clone(), now.clone());
            let is_bad = is_bad(condition);
            let changed = before.as_ref().map_or(is_bad, |before| *before != now);
            // The kubelet of a node that comes back writes the same status with a new time.
            let same = before.as_ref().is_some_and(|(status, _)| *status == condition.status);
            if !changed || (same && !is_bad) {
                continue;
            }
            let status = status_word(&condition.status);
            out.push(Changed {
                condition: condition.r#type.clone(),
                status,
                reason: condition.reason.clone(),
                message: condition.message.clone(),
                time_ns: (since_ns > 0).then_some(since_ns),
                is_bad,
                natural: format!("condition/{}/{status}/{since_ns}", condition.r#type),
            });
        }
        self.0.retain(|told, _| node.status.conditions.iter().any(|c| c.r#type == *told));
        out
    }
}

/// How a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rollout {
    Progressing = 1,
    Complete = 2,
    Failed = 4,
}

impl Rollout {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Progressing => "progressing",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }
}

/// A rollout came into another state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RolledOut {
    pub(super) state: Rollout,
    pub(super) revision: u64,
    pub(super) reason: Text,
    pub(super) message: Text,
    pub(super) time_ns: Option<u64>,
    pub(super) natural: String,
}

/// What was told of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ToldRollout {
    revision: u64,
    /// [`Rollout`]s of this revision that were told, as bits: a revision comes into each once.
    states: u8,
    /// The ReplicaSet that is being rolled out.
    pub(super) progressing: Option<Text>,
}

/// The name between quotes in the controller's own words: `ReplicaSet "web-7d9c5b" is progressing.`
fn quoted(message: &str) -> Option<&str> {
    message.split_once('"')?.1.split_once('"').map(|(name, _)| name).filter(|n| !n.is_empty())
}

/// The state of a Deployment's rollout, once its controller has seen the latest specification
/// (deployment/progress.go of the controller manager names the reasons).
fn rollout_of(deployment: &Deployment) -> Option<(Rollout, &Condition)> {
    let status = &deployment.status;
    if status.observed_generation < deployment.metadata.generation {
        return None;
    }
    let progress = status.conditions.iter().find(|c| &*c.r#type == "Progressing")?;
    let state = match (&*progress.status, &*progress.reason) {
        ("False", _) => Rollout::Failed,
        // Neither a pause nor its end is a rollout.
        (_, "DeploymentPaused" | "DeploymentResumed") => return None,
        (_, "NewReplicaSetAvailable") => Rollout::Complete,
        _ => Rollout::Progressing,
    };
    Some((state, progress))
}

impl ToldRollout {
    /// Looks at the Deployment; returns what is new.
    pub(super) fn step(&mut self, deployment: &Deployment) -> Option<RolledOut> {
        let revision = deployment.metadata.annotations.get("deployment.kubernetes.io/revision");
        let revision: u64 = revision?.parse().ok()?;
        let (state, progress) = rollout_of(deployment)?;
        if revision != self.revision {
            *self = Self { revision, ..Self::default() };
        }
        self.progressing = match state {
            Rollout::Complete => None,
            _ => quoted(&progress.message).map(Text::from),
        };
        if self.states & state as u8 != 0 {
            return None;
        }
        self.states |= state as u8;
        let times = [progress.last_update_time, progress.last_transition_time];
        Some(RolledOut {
            state,
            revision,
            reason: progress.reason.clone(),
            message: progress.message.clone(),
            time_ns: times.into_iter().flatten().map(|t| t.ns).max(),
            natural: format!("rollout/{revision}/{}", state.word()),
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
    fn a_condition_is_told_when_it_changes_and_at_first_where_it_is_bad() {
        let mut told = ToldConditions::default();
        let at = "2026-01-15T09:00:00Z";
        assert_eq!(told.step(&node("True", at, "False")), []);
        let bad = told.step(&node("False", "2026-01-15T10:00:00Z", "False"));
        assert_eq!((bad.len(), bad[0].status, bad[0].is_bad), (1, "false", true));
        assert_eq!(bad[0].natural, "condition/Ready/false/1768471200000000000");
        assert_eq!(told.step(&node("False", "2026-01-15T10:00:00Z", "False")), []);
        let unknown = told.step(&node("Unknown", "2026-01-15T10:05:00Z", "False"));
        assert_eq!((unknown[0].status, unknown[0].is_bad), ("unknown", true));
        let good = told.step(&node("True", "2026-01-15T10:06:00Z", "True"));
        assert_eq!(
            good.iter().map(|c| (&*c.condition, c.is_bad)).collect::<Vec<_>>(),
            [("Ready", false), ("MemoryPressure", true)]
        );
        let first = ToldConditions::default().step(&node("False", at, "True"));
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
    fn a_rollout_comes_into_each_state_once() {
        let mut told = ToldRollout::default();
        let mut step = |revision, status: &str, reason: &str, observed| {
            let new = told.step(&deployment(revision, status, reason, observed)).map(|r| r.natural);
            (new.unwrap_or_default(), told.progressing.clone().unwrap_or_default().to_string())
        };
        let is = |told: &str, rolls: &str| (told.to_owned(), rolls.to_owned());
        assert_eq!(step(1, "True", "NewReplicaSetAvailable", 5), is("rollout/1/complete", ""));
        assert_eq!(
            step(2, "True", "ReplicaSetUpdated", 4),
            is("", ""),
            "its controller hasn't seen it"
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
