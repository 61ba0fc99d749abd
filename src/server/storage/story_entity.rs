//! The entities that a story is about.

use super::entity_key::key_names;
use tapio_core::event::well_known_names::canonical;
use tapio_core::event::{CauseEntity, Story, stable_hash};

/// The kind of entity that an entity key names, as root causes and impacts have it.
fn kind_of(key: &str) -> Option<&'static str> {
    Some(match canonical(key) {
        "k8s.pod.name" | "k8s.pod.uid" => "pod",
        "container" | "container.id" | "container.name" | "k8s.container.name" => "container",
        "systemd.unit" => "unit",
        "service.name" => "service",
        "process.executable.name" => "process",
        "host.name" | "k8s.node.name" => "node",
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

/// The values of the entities that a story is about, as a Bloom filter of 128 bits with three for
/// each: of 100 stories about ten pods each, six are read in vain for another value. It is on the
/// disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EntityValues(pub(super) u128);

impl EntityValues {
    /// Those of a story: all for which [`concerns`] may be true.
    pub(super) fn of(story: &Story) -> Self {
        let mut all = Self::default();
        story.key.iter().for_each(|(_, value)| all.0 |= bits(value));
        for entity in story.root_cause.iter().filter_map(|cause| cause.entity.as_ref()) {
            all.add_name(&entity.name);
            all.0 |= bits(&entity.id);
        }
        for affected in &story.impact.affected {
            affected.split_once(' ').iter().for_each(|(_, name)| all.add_name(name));
        }
        all
    }

    /// A name, without its namespace too, and the namespace.
    fn add_name(&mut self, name: &str) {
        self.0 |= bits(name);
        name.rsplit_once('/').iter().for_each(|(_, short)| self.0 |= bits(short));
        name.split_once('/').iter().for_each(|(namespace, _)| self.0 |= bits(namespace));
    }

    /// Whether the story may be about an entity with this value; `false` is certain. A story that
    /// was stored without its values may be about any.
    pub(super) fn may_have(self, value: &str) -> bool {
        let bits = bits(value);
        self.0 == 0 || self.0 & bits == bits
    }
}

fn bits(value: &str) -> u128 {
    let [a, b, c, ..] = stable_hash(&[value.as_bytes()]);
    [a, b, c].iter().fold(0, |bits, byte| bits | 1 << (byte & 127))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tapio_core::event::{Candidate, Impact};

    prop_compose! {
        /// A story whose names are of few parts, so that queries often meet them.
        fn any_story()(
            key in prop::collection::vec(("[a-c]|k8s.pod.name|node", "[a-c]{1,2}"), 0..3),
            causes in prop::collection::vec(("pod|unit|node", "[a-c](/[a-c]){0,2}", "[a-c]?"), 0..3),
            affected in prop::collection::vec("(pod|unit|process) [a-c](/[a-c]){0,2}", 0..3),
        ) -> Story {
            let cause = |(kind, name, id): (String, String, String)| Candidate {
                cause: String::new(),
                entity: Some(CauseEntity { kind, name, id, node: String::new() }),
                evidence: Vec::new(),
                labels: Vec::new(),
                score: 1.0,
                terms: Vec::new(),
            };
            Story {
                key,
                root_cause: causes.into_iter().map(cause).collect(),
                impact: Impact { affected, ..Impact::default() },
                ..Story::default()
            }
        }
    }

    proptest! {
        #[test]
        fn every_entity_that_a_story_is_about_is_among_its_values(
            story in any_story(),
            key in "[a-c]|k8s.pod.name|k8s.pod.uid|k8s.namespace.name|node|systemd.unit|container",
            value in "[a-c]?(/[a-c]){0,2}",
        ) {
            prop_assert!(!concerns(&story, &key, &value) || EntityValues::of(&story).may_have(&value));
        }
    }

    #[test]
    fn most_other_values_are_excluded() {
        let affected = (0..10).map(|n| format!("pod shop/cart-{n}")).collect();
        let impact = Impact { affected, ..Impact::default() };
        let values = EntityValues::of(&Story { impact, ..Story::default() });
        let wrong = (0..1_000).filter(|n| values.may_have(&format!("other-{n}"))).count();
        assert!(wrong < 100, "{wrong} of 1,000");
    }

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
            key: vec![("cgroup.id".into(), "7".into()), ("host.name".into(), "n1".into())],
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
            ("systemd.unit.name", "nginx.service"),
            ("host.name", "n1"),
            ("node", "n1"),
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
