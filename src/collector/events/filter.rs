//! Filters names by glob patterns with `*` and `?`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use tapio_core::glob;

/// Selects the names that match a pattern of `include` and none of `exclude`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Patterns of the selected names; an empty list selects all.
    #[serde(default)]
    #[schemars(extend("examples" = [["*.service"], ["nginx-?.service"]]))]
    pub include: Vec<String>,
    /// Patterns of the names that aren't selected.
    #[serde(default)]
    #[schemars(extend("examples" = [["noisy-*.service"]]))]
    pub exclude: Vec<String>,
}

impl Filter {
    /// Whether the filter selects a name.
    #[must_use]
    pub fn selects(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| glob::matches(p, name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclude_overrides_include() {
        let filter = Filter { include: vec!["*.service".into()], exclude: vec!["user@*".into()] };
        assert!(filter.selects("a.service"));
        assert!(!filter.selects("user@0.service") && !filter.selects("a.mount"));
        assert!(Filter { include: vec![], exclude: vec![] }.selects("anything"));
    }
}
