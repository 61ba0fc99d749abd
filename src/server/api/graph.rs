//! The entities of a story and how they are related: a node has units and pods, a pod has
//! containers, these have processes, and processes connect to addresses.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use tapio_core::event::{Severity, Story, TraceId};
use tapio_wire::proto;

/// The layers from the outside to the inside; an entity contains those of later layers that the
/// same event has.
const LAYERS: &[Layer] = &[
    Layer { kind: "node", keys: &["host.name", "k8s.node.name", "node"] },
    Layer { kind: "unit", keys: &["systemd.unit"] },
    Layer { kind: "pod", keys: &["k8s.pod.name", "k8s.pod.uid"] },
    Layer { kind: "service", keys: &["service.name"] },
    Layer { kind: "container", keys: &["k8s.container.name", "container.name", "container.id"] },
    Layer { kind: "process", keys: &["process.executable.name", "process.pid"] },
];
/// The layer behind them.
const ADDRESS: &str = "address";
const PEER_KEYS: &[&str] = &["network.peer.address", "server.address"];
const NAMESPACE: &str = "k8s.namespace.name";

struct Layer {
    kind: &'static str,
    /// The keys that identify an entity; the first that an event has counts.
    keys: &'static [&'static str],
}

/// An entity of the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    layer: usize,
    kind: &'static str,
    /// As a filter has it: `key=value`.
    entity: String,
    name: String,
}

/// The events that an entity or a relation has.
#[derive(Default)]
struct Counted {
    events: u64,
    severity: Severity,
}

impl Counted {
    fn add(&mut self, severity: Severity) {
        self.events += 1;
        self.severity = self.severity.max(severity);
    }
}

#[derive(Default)]
struct Graph {
    nodes: BTreeMap<Id, Counted>,
    edges: BTreeMap<(Id, Id, &'static str), Counted>,
}

/// The text of an entity or an attribute of an event.
fn text(event: &Value, part: &str, key: &str) -> Option<String> {
    match event.get(part)?.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The entities that an event has, from the outside to the inside.
fn chain(event: &Value) -> Vec<Id> {
    let of_layer = |(layer, of): (usize, &Layer)| {
        let mut keys = of.keys.iter();
        let (key, value) = keys.find_map(|key| Some((key, text(event, "entity", key)?)))?;
        let namespace = text(event, "entity", NAMESPACE).filter(|_| *key == "k8s.pod.name");
        let name = match namespace {
            Some(namespace) => format!("{namespace}/{value}"),
            None => value.clone(),
        };
        Some(Id { layer, kind: of.kind, entity: format!("{key}={value}"), name })
    };
    LAYERS.iter().enumerate().filter_map(of_layer).collect()
}

impl Graph {
    fn add(&mut self, event: &Value) {
        let severity = event.get("severity").and_then(Value::as_str).and_then(Severity::parse);
        let severity = severity.unwrap_or_default();
        let mut chain = chain(event);
        let connected = PEER_KEYS.iter().find_map(|key| {
            let value = text(event, "entity", key).or_else(|| text(event, "attributes", key))?;
            let entity = format!("{key}={value}");
            Some(Id { layer: LAYERS.len(), kind: ADDRESS, entity, name: value })
        });
        for pair in chain.windows(2) {
            let edge = (pair[0].clone(), pair[1].clone(), "contains");
            self.edges.entry(edge).or_default().add(severity);
        }
        if let (Some(from), Some(to)) = (chain.last().cloned(), connected) {
            self.edges.entry((from, to.clone(), "connects to")).or_default().add(severity);
            chain.push(to);
        }
        for id in chain {
            self.nodes.entry(id).or_default().add(severity);
        }
    }
}

/// The graph of a story with these events.
pub(super) fn graph_of(story: &Story, events: &[Value]) -> proto::StoryGraph {
    let mut graph = Graph::default();
    events.iter().for_each(|event| graph.add(event));
    let rank = |id: &Id| {
        let is_it = |entity: &tapio_core::event::CauseEntity| {
            let has_id = !entity.id.is_empty() && id.entity.ends_with(&entity.id);
            entity.kind == id.kind && (entity.name == id.name || has_id)
        };
        let mut causes = story.root_cause.iter();
        let place = causes.position(|c| c.entity.as_ref().is_some_and(is_it));
        place.map_or(0, |place| place as u32 + 1)
    };
    let nodes = graph.nodes.iter().map(|(id, counted)| proto::GraphNode {
        id: id.entity.clone(),
        kind: id.kind.to_owned(),
        name: id.name.clone(),
        layer: id.layer as u32,
        events: counted.events,
        severity: u32::from(counted.severity.0),
        cause_rank: rank(id),
    });
    let edges = graph.edges.iter().map(|((from, to, relation), counted)| proto::GraphEdge {
        from: from.entity.clone(),
        to: to.entity.clone(),
        relation: (*relation).to_owned(),
        events: counted.events,
        severity: u32::from(counted.severity.0),
    });
    let (nodes, edges) = (nodes.collect(), edges.collect());
    proto::StoryGraph { id: story.id.0.to_vec(), nodes, edges }
}

/// The graph of a story as JSON.
pub(super) fn graph_json(graph: &proto::StoryGraph) -> Value {
    let id = graph.id.as_slice().try_into().map(TraceId).unwrap_or_default();
    let severity = |number: u32| Severity(number as u8).as_str();
    let nodes = graph.nodes.iter().map(|node| {
        json!({
            "id": node.id,
            "kind": node.kind,
            "name": node.name,
            "layer": node.layer,
            "events": node.events,
            "severity": severity(node.severity),
            "cause_rank": (node.cause_rank > 0).then_some(node.cause_rank),
        })
    });
    let edges = graph.edges.iter().map(|edge| {
        json!({
            "from": edge.from,
            "to": edge.to,
            "relation": edge.relation,
            "events": edge.events,
            "severity": severity(edge.severity),
        })
    });
    json!({
        "id": id.to_string(),
        "nodes": nodes.collect::<Vec<_>>(),
        "edges": edges.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{Candidate, CauseEntity};

    fn names(graph: &Value, part: &str, field: &str) -> Vec<String> {
        let texts = graph[part].as_array().unwrap().iter();
        texts.map(|one| one[field].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn entities_of_an_event_contain_each_other() {
        let events = [
            json!({"severity": "error", "entity": {
                "node": "a", "k8s.namespace.name": "shop", "k8s.pod.name": "cart-1",
                "container.id": "c1", "process.executable.name": "cart", "process.pid": 7,
            }, "attributes": {"network.peer.address": "10.0.0.9"}}),
            json!({"severity": "info", "entity": {"node": "a", "systemd.unit": "db.service"}}),
        ];
        let entity = CauseEntity {
            kind: "unit".into(),
            name: "db.service".into(),
            ..CauseEntity::default()
        };
        let cause = Candidate {
            cause: "db".into(),
            entity: Some(entity),
            evidence: Vec::new(),
            labels: Vec::new(),
            score: 1.0,
            terms: Vec::new(),
        };
        let story = Story { root_cause: vec![cause], ..Story::default() };
        let graph = graph_json(&graph_of(&story, &events));
        assert_eq!(
            names(&graph, "nodes", "name"),
            ["a", "db.service", "shop/cart-1", "c1", "cart", "10.0.0.9"]
        );
        assert_eq!(
            names(&graph, "edges", "to"),
            [
                "systemd.unit=db.service",
                "k8s.pod.name=cart-1",
                "container.id=c1",
                "process.executable.name=cart",
                "network.peer.address=10.0.0.9",
            ]
        );
        assert_eq!(graph["nodes"][0]["events"], 2);
        assert_eq!(graph["nodes"][0]["severity"], "error");
        assert_eq!(graph["nodes"][1]["cause_rank"], 1);
        assert_eq!(graph["nodes"][2]["cause_rank"], Value::Null);
    }
}
