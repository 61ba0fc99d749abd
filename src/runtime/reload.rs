//! The rule set of a running agent: read from its files, and reloaded when they change or on
//! SIGHUP. A rule set with errors is refused: the rules in force stay, and the errors are reported
//! with file, line and column.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::sections::DataflowConfig;
use crate::telemetry::in_span;
use tapio_core::counters::Reading;
use tapio_dataflow::rules::{self, LiveRules, Rule};

tapio_core::counters! {
    /// Reloads of the rule set, by outcome.
    struct ReloadOutcomes {
        applied: Counter = "Reloads that took effect.",
        refused: Counter = "Reloads refused because of an error in the rules.",
    }
}

/// The reloads of the rule set, for other threads.
#[derive(Default)]
pub struct ReloadStats {
    outcomes: ReloadOutcomes,
    last_error: Mutex<String>,
}

impl ReloadStats {
    /// Reads the numbers of reloads by outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = Reading> + use<> {
        self.outcomes.readings()
    }

    /// The errors of the last reload; empty if it took effect.
    #[must_use]
    pub fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_last_error(&self, error: &str) {
        error.clone_into(&mut self.last_error.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Reloads the rules when their files change.
pub(super) struct RuleFiles {
    config: DataflowConfig,
    live: Arc<LiveRules>,
    /// The [`fingerprint`] of the files when they were last read.
    fingerprint: u64,
    stats: Arc<ReloadStats>,
}

impl RuleFiles {
    /// `live` was read from the files that `config` names, when they had this [`fingerprint`].
    pub(super) fn new(config: DataflowConfig, live: Arc<LiveRules>, fingerprint: u64) -> Self {
        Self { config, live, fingerprint, stats: Arc::default() }
    }

    pub(super) fn stats(&self) -> Arc<ReloadStats> {
        Arc::clone(&self.stats)
    }

    /// Reloads the rules if their files have changed.
    pub(super) fn poll(&mut self) {
        if fingerprint(&self.config.rules) != self.fingerprint {
            self.reload(None);
        }
    }

    /// Reloads the rules, from the files of a new configuration if there is one.
    /// Returns whether there was no error.
    pub(super) fn reload(&mut self, config: Option<DataflowConfig>) -> bool {
        let config = config.unwrap_or_else(|| self.config.clone());
        // Computed before the files are read: a change in between causes another reload.
        self.fingerprint = fingerprint(&config.rules);
        match in_span("rules.reload", || load(&config)) {
            Ok(rules) => {
                let number = rules.len();
                self.live.replace(rules);
                self.config = config;
                self.stats.outcomes.applied.add(1);
                self.stats.set_last_error("");
                tracing::info!(rules = number, "rules reloaded");
                true
            }
            Err(errors) => {
                self.stats.outcomes.refused.add(1);
                tracing::error!("rule reload refused; keeping the rules in force:\n{errors}");
                self.stats.set_last_error(&errors);
                false
            }
        }
    }
}

/// Reads the rules that a configuration names.
///
/// # Errors
/// The errors in the documents, one per line.
pub(super) fn load(config: &DataflowConfig) -> Result<Vec<Rule>, String> {
    let mut loaded = if config.builtin_rules { rules::builtin() } else { rules::Loaded::default() };
    let own = rules::load(&config.rules);
    loaded.errors.extend(own.errors);
    own.warnings.iter().for_each(|warning| tracing::warn!("rules: {warning}"));
    for rule in own.rules {
        // A user's rule replaces the built-in rule of the same name.
        loaded.rules.retain(|r| r.name != rule.name);
        loaded.rules.push(rule);
    }
    let longest_ns = u64::try_from(config.group_retention_period.as_nanos()).unwrap_or(u64::MAX);
    for rule in &mut loaded.rules {
        rule.story.max_age_ns = rule.story.max_age_ns.min(longest_ns);
        // `tapio rules test` runs them.
        rule.tests = Vec::new();
    }
    if loaded.errors.is_empty() {
        return Ok(loaded.rules);
    }
    let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
    Err(errors.join("\n"))
}

/// A hash of names, sizes, times and inodes of the rule files. Links are followed, so that a
/// mounted ConfigMap, which is exchanged by a link, is seen to change.
pub(super) fn fingerprint(paths: &[PathBuf]) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut hasher = std::hash::DefaultHasher::new();
    let mut add = |path: &Path| {
        path.hash(&mut hasher);
        if let Ok(m) = std::fs::metadata(path) {
            (m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())
                .hash(&mut hasher);
        }
    };
    for path in paths {
        rules::rule_files(path).0.iter().for_each(|file| add(file));
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_dataflow::rules::RuleSet;

    const RULE: &str = "rule: r\nevents: { e: { kind: t.e } }\n\
                        count: { event: e, within: 10s, at_least: 3 }\nstory: { pattern: p }\n";

    #[test]
    fn changed_files_are_reloaded_and_files_with_errors_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), RULE).unwrap();
        let config = DataflowConfig {
            rules: vec![dir.path().to_owned()],
            builtin_rules: false,
            ..DataflowConfig::default()
        };
        let before = fingerprint(&config.rules);
        let live = Arc::new(LiveRules::new(RuleSet::new(load(&config).unwrap(), "", 2)));
        let mut files = RuleFiles::new(config, Arc::clone(&live), before);
        let before = live.current();
        files.poll();
        assert!(live.newer(&before).is_none(), "nothing has changed");
        let more = RULE.replace("rule: r", "rule: s");
        std::fs::write(dir.path().join("b.yaml"), &more).unwrap();
        files.poll();
        let after = live.newer(&before).unwrap();
        assert_eq!(after.rules.len(), 2);
        assert_eq!(after.numbers_of(&before), [Some(0)]);
        assert_eq!(after.hash(b"key"), before.hash(b"key"), "keys keep their shards");
        std::fs::write(dir.path().join("b.yaml"), more.replace("within", "withn")).unwrap();
        files.poll();
        assert_eq!(live.current().rules.len(), 2);
        assert!(files.stats().outcomes().all(|outcome| outcome.value == 1));
        assert!(
            files.stats().last_error().contains("b.yaml:3:20"),
            "{}",
            files.stats().last_error()
        );
        std::fs::write(dir.path().join("a.yaml"), RULE.replace("at_least: 3", "at_least: 4"))
            .unwrap();
        std::fs::remove_file(dir.path().join("b.yaml")).unwrap();
        files.poll();
        assert_eq!(live.current().numbers_of(&after), [None, None], "one changed, one was removed");
        assert_eq!(files.stats().last_error(), "");
    }
}
