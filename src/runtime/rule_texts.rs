//! The built-in rules in words, for a server's page.

use crate::server::RuleText;
use tapio_dataflow::rules::{Rule, builtin, explain};

/// Describes the built-in rules.
#[must_use]
pub fn builtin_rule_texts() -> Vec<RuleText> {
    let describe = |rule: &Rule| RuleText {
        name: rule.name.text().to_owned(),
        pattern: rule.story.pattern.text().to_owned(),
        description: rule.description.clone(),
        text: explain(rule),
        tests: rule.tests.len(),
    };
    builtin().rules.iter().map(describe).collect()
}
