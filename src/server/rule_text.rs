//! Rules in words. A server evaluates none, so the program that starts it describes those that come
//! with it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// A rule in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText {
    /// Its name.
    pub name: String,
    /// The pattern of its stories.
    pub pattern: String,
    /// One line about it.
    pub description: String,
    /// Its shape, state and story.
    pub text: String,
    /// The number of its tests.
    pub tests: usize,
}

/// The rules by name, read when they are first asked for.
#[derive(Default)]
pub(super) struct RuleTexts {
    source: OnceLock<fn() -> Vec<RuleText>>,
    rules: OnceLock<BTreeMap<String, RuleText>>,
}

impl RuleTexts {
    /// Sets where they come from; once.
    pub(super) fn set(&self, source: fn() -> Vec<RuleText>) {
        let _ = self.source.set(source);
    }

    /// The rules; none where nobody describes them.
    pub(super) fn get(&self) -> &BTreeMap<String, RuleText> {
        self.rules.get_or_init(|| {
            let rules = self.source.get().map_or_else(Vec::new, |source| source());
            rules.into_iter().map(|rule| (rule.name.clone(), rule)).collect()
        })
    }
}
