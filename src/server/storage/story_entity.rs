//! The entities that a story is about.

use super::entity_key::key_names;
use tapio_core::event::{CauseEntity, Story};

/// The kind of entity that an entity key names, as root causes and impacts have it.
fn kind_of(key: &str) -> Option<&'static str> {
    Some(match key {
        "k8s.pod.name" | "k8s.pod.uid" => "pod",
        "container" | "container.id" | "container.name" | "k8s.container.name" => "container",
        "systemd.unit" => "unit",
        "service.name" => "service",
        "process.executable.name" => "process",
        "host.name" | "k8s.node.name" | "node" => "node",
        _ => return None,
    })
}

/// Whether a name is this one, without its namespace or with it.
fn is_named(name: &str, wanted: &str) -> bool {
    name == wanted || name.rsplit_once('/').is_some_and(|(_, short)| short == wanted)
}

/// Whether a story is about an entity: its key has it, it is one of the possible root causes, or it
/// is affected.
pub(super) fn concerns(story: &Story, key: &str, value: &str) -> bool {
    if story.key.iter().any(|(k, v)| v == value && key_names(key).any(|name| k == name)) {
        return true;
    }
    let is_namespace = key == "k8s.namespace.name";
    let Some(kind) = kind_of(key).or(is_namespace.then_some("pod")) else { return false };
    let is_wanted = |name: &str| match is_namespace {
        true => name.split_once('/').is_some_and(|(namespace, _)| namespace == value),
        false => is_named(name, value),
    };
    let is_it = |entity: &CauseEntity| {
        entity.kind == kind && (is_wanted(&entity.name) || (!is_namespace && entity.id == value))
    };
    // An affected entity is written as its kind and its name.
    let is_affected = |affected: &String| {
        affected.split_once(' ').is_some_and(|(of, name)| of == kind && is_wanted(name))
    };
    story.root_cause.iter().filter_map(|c| c.entity.as_ref()).any(is_it)
        || story.impact.affected.iter().any(is_affected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{Candidate, Impact};

    #[test]
    fn story_concerns_its_key_its_causes_and_what_is_affected() {
        let entity = CauseEntity {
            kind: "pod".into(),
            name: "shop/cart-1".into(),
            id: "11-22".into(),
            node: String::new(),
        };
        let candidate = Candidate {
            cause: String::new(),
            entity: Some(entity),
            evidence: Vec::new(),
            labels: Vec::new(),
            score: 1.0,
            terms: Vec::new(),
        };
        let story = Story {
            key: vec![("cgroup.id".into(), "7".into())],
            root_cause: vec![candidate],
            impact: Impact { affected: vec!["unit nginx.service".into()], ..Impact::default() },
            ..Story::default()
        };
        for (key, value) in [
            ("cgroup.id", "7"),
            ("k8s.pod.name", "cart-1"),
            ("k8s.pod.name", "shop/cart-1"),
            ("k8s.pod.uid", "11-22"),
            ("k8s.namespace.name", "shop"),
            ("systemd.unit", "nginx.service"),
        ] {
            assert!(concerns(&story, key, value), "{key}={value}");
        }
        for (key, value) in [
            ("cgroup.id", "8"),
            ("k8s.pod.name", "cart"),
            ("systemd.unit", "cart-1"),
            ("k8s.namespace.name", "11-22"),
            ("other", "7"),
        ] {
            assert!(!concerns(&story, key, value), "{key}={value}");
        }
    }
}
