//! Keys of entities in filters.

use tapio_core::event::well_known_names::canonical;

/// The keys that the key of a filter stands for: the canonical one first, of `node` and
/// `systemd.unit.name`, then its alias, which a sender may have stored. A container has its name in
/// other keys where Kubernetes runs it, and an id.
pub(super) fn key_names(key: &str) -> impl Iterator<Item = &str> {
    let (first, others): (&str, &'static [&'static str]) = match canonical(key) {
        "container" => ("k8s.container.name", &["container.name", "container.id"]),
        "host.name" => ("host.name", &["node"]),
        "systemd.unit" => ("systemd.unit", &["systemd.unit.name"]),
        key => (key, &[]),
    };
    std::iter::once(first).chain(others.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_and_canonical_key_stand_for_the_same_keys() {
        for (alias, key) in [("node", "host.name"), ("systemd.unit.name", "systemd.unit")] {
            let names: Vec<&str> = key_names(alias).collect();
            assert_eq!(names, [key, alias]);
            assert_eq!(key_names(key).collect::<Vec<_>>(), names);
        }
        assert_eq!(key_names("k8s.pod.name").collect::<Vec<_>>(), ["k8s.pod.name"]);
        assert_eq!(key_names("container").count(), 3);
    }
}
