//! Which names are wanted: lists of patterns as file names have them, `*` and `?`.

use serde::Deserialize;

use tapio_core::glob;

/// Wanted is what an entry of `include` matches and none of `exclude`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Patterns of what is wanted; none means everything.
    #[serde(default)]
    pub include: Vec<String>,
    /// Patterns of what isn't.
    #[serde(default)]
    pub exclude: Vec<String>,
}

impl Filter {
    /// Whether a name is wanted.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| glob::matches(p, name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusion_wins() {
        let filter = Filter { include: vec!["*.service".into()], exclude: vec!["user@*".into()] };
        assert!(filter.wants("a.service"));
        assert!(!filter.wants("user@0.service") && !filter.wants("a.mount"));
        assert!(Filter { include: vec![], exclude: vec![] }.wants("anything"));
    }
}
