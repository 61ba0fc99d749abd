//! Stories, events and agents as answers have them.

use serde_json::{Map, Value, json};

use tapio_core::event::LinkedStory;
use tapio_wire::{agent_json, annotated_json, proto};

/// Problems of an agent in a list.
const MAX_PROBLEMS: usize = 5;

/// A story, with its annotations and its silence, as the API has it.
pub(super) struct StoryView {
    pub(super) linked: LinkedStory,
    pub(super) json: Value,
}

impl StoryView {
    /// Converts a story from protobuf; `None`: it is invalid.
    pub(super) fn from_proto(mut story: proto::Story) -> Option<Self> {
        let (annotations, silence) = (story.annotations.take(), story.silence.take());
        let linked = tapio_wire::linked_from_proto(story)?;
        let json = annotated_json(&linked, annotations.as_ref(), silence.as_ref());
        Some(Self { linked, json })
    }

    /// The story in a list: without members, and with the first of its root causes.
    pub(super) fn summary(&self) -> Value {
        let json = &self.json;
        let mut summary = Map::new();
        for name in ["id", "trace_id", "name", "pattern", "state", "severity", "first", "last"] {
            summary.insert(name.into(), json[name].clone());
        }
        summary.insert("events".into(), json["members_total"].clone());
        let nodes: Vec<&str> = self.linked.parts.iter().map(|part| &*part.node).collect();
        summary.insert("nodes".into(), nodes.into());
        if let Some(cause) = self.linked.story.root_cause.first() {
            let first = &json["root_causes"][0];
            let root_cause = json!({
                "cause": cause.cause,
                "entity": first["entity"],
                "confidence": json["confidence"],
                "candidates": self.linked.story.root_cause.len(),
            });
            summary.insert("root_cause".into(), root_cause);
        }
        summary.insert("affected".into(), json["impact"]["affected"].clone());
        summary.insert("actions".into(), json["actions"].clone());
        for name in ["incident", "annotations", "silence"] {
            if let Some(value) = json.get(name) {
                summary.insert(name.into(), value.clone());
            }
        }
        summary.into()
    }

    /// The story without the terms of its root causes' scores.
    pub(super) fn document(mut self) -> Value {
        let causes = self.json.get_mut("root_causes").and_then(Value::as_array_mut);
        for cause in causes.into_iter().flatten() {
            if let Some(cause) = cause.as_object_mut() {
                cause.shift_remove("terms");
            }
        }
        self.json
    }
}

/// An agent in a list.
pub(super) fn agent_summary(agent: &proto::Agent) -> Value {
    let json = agent_json(agent);
    let status = &json["status"];
    let collectors = status["collectors"].as_array().into_iter().flatten();
    // The row of the spool has no health: it only accounts for what the spool dropped.
    let faulty = collectors.filter(|one| {
        let healthy = ["", "running", "finished", "starting", "stopped"];
        !one["health"].as_str().is_some_and(|health| healthy.contains(&health))
    });
    let faulty: Vec<Value> = faulty
        .map(|one| json!({"name": one["name"], "health": one["health"], "last_error": one["last_error"]}))
        .collect();
    let problems = status["problems"].as_array().into_iter().flatten().take(MAX_PROBLEMS);
    json!({
        "node": json["node"],
        "connected": json["connected"],
        "state": status["state"],
        "version": status["version"],
        "problems": problems.collect::<Vec<_>>(),
        "faulty_collectors": faulty,
        "last_batch": json["last_batch"],
        "last_status": json["last_status"],
        "events": json["events"],
        "items_dropped": json["items_dropped"],
        "batches_refused": json["batches_refused"],
        "dropped": status["cons1"]["dropped"],
        "spool_bytes": status["spool_bytes"],
        "spool_oldest_seconds": status["spool_oldest_seconds"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_in_a_list_has_its_faulty_collectors() {
        let collector = |name: &str, health: &str| proto::CollectorState {
            name: name.into(),
            health: health.into(),
            last_error: "cause".into(),
            ..proto::CollectorState::default()
        };
        let status = proto::AgentStatus {
            state: "degraded".into(),
            problems: vec!["p".into(); 9],
            collectors: [("kmsg", "running"), ("ebpf", "hung"), ("spool", "")]
                .map(|(name, health)| collector(name, health))
                .into(),
            ..proto::AgentStatus::default()
        };
        let agent = proto::Agent { status: Some(status), ..proto::Agent::default() };
        let json = agent_summary(&agent);
        let faulty = json!([{"name": "ebpf", "health": "hung", "last_error": "cause"}]);
        assert_eq!(json["faulty_collectors"], faulty);
        assert_eq!(json["problems"].as_array().unwrap().len(), MAX_PROBLEMS);
        assert!(agent_summary(&proto::Agent::default())["state"].is_null());
    }
}
