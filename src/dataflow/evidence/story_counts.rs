//! Counts of emitted stories by pattern and severity, for `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tapio_core::event::{Story, StoryState};

/// Patterns that are counted by name. Patterns come from the rules; past this bound, stories count
/// under [`OTHER`].
const MAX_PATTERNS: usize = 256;
/// Stands for the patterns past the bound.
const OTHER: &str = "other";

/// Counts each story once, at its first emission. Lifecycles aren't counted: they are no rule's.
#[derive(Debug, Default)]
pub(super) struct StoryCounts(Mutex<BTreeMap<String, BTreeMap<&'static str, u64>>>);

impl StoryCounts {
    /// Counts an emitted story, unless it is an update of one that was counted.
    pub(super) fn add(&self, story: &Story) {
        if story.revision > 0 || story.is_lifecycle() || story.state == StoryState::Retracted {
            return;
        }
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_label = counts.len() < MAX_PATTERNS || counts.contains_key(&story.pattern);
        let pattern = if has_label { story.pattern.as_str() } else { OTHER };
        *counts
            .entry(pattern.to_owned())
            .or_default()
            .entry(story.severity.as_str())
            .or_default() += 1;
    }

    /// Pattern, severity and number of stories.
    pub(super) fn get(&self) -> Vec<(String, &'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = counts.iter().flat_map(|(pattern, by_severity)| {
            by_severity.iter().map(move |(severity, n)| (pattern.clone(), *severity, *n))
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::Severity;

    fn story(pattern: &str, severity: Severity, revision: u32) -> Story {
        Story { rule: "r".into(), pattern: pattern.into(), revision, severity, ..Story::default() }
    }

    #[test]
    fn story_is_counted_once_by_pattern_and_severity() {
        let counts = StoryCounts::default();
        counts.add(&story("b", Severity::ERROR, 0));
        counts.add(&story("a", Severity::WARN, 0));
        counts.add(&story("a", Severity::ERROR, 1));
        counts.add(&Story { rule: "pod-lifecycle".into(), ..story("pod", Severity::ERROR, 0) });
        assert_eq!(counts.get(), [("a".into(), "warn", 1), ("b".into(), "error", 1)]);
    }

    #[test]
    fn patterns_past_the_bound_are_counted_together() {
        let counts = StoryCounts::default();
        for n in 0..MAX_PATTERNS + 2 {
            counts.add(&story(&format!("p{n:03}"), Severity::ERROR, 0));
        }
        counts.add(&story("p000", Severity::ERROR, 0));
        let rows = counts.get();
        assert_eq!(rows.len(), MAX_PATTERNS + 1);
        assert!(rows.contains(&(OTHER.into(), "error", 2)));
        assert!(rows.contains(&("p000".into(), "error", 2)));
    }
}
