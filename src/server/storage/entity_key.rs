//! Keys of entities in filters.

/// The keys that the key of a filter stands for. A container has its name in other keys where
/// Kubernetes runs it, and an id.
pub(super) fn key_names(key: &str) -> impl Iterator<Item = &str> {
    let (first, others): (&str, &'static [&'static str]) = match key {
        "container" => ("k8s.container.name", &["container.name", "container.id"]),
        key => (key, &[]),
    };
    std::iter::once(first).chain(others.iter().copied())
}
