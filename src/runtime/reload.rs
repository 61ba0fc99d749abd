//! The rules of a running agent: read from their files, read again when these change or when the agent is
//! asked to (SIGHUP). Wrong rules change nothing: the agent goes on with those it has and says what is
//! wrong, with its place.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::config::DataflowConfig;
use tapio_dataflow::rules::{self, LiveRules, Rule};

/// How reloading went so far.
#[derive(Default)]
pub struct ReloadStats {
    rules: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
    last_error: Mutex<String>,
}

impl ReloadStats {
    /// Rules in force.
    #[must_use]
    pub fn rules(&self) -> u64 {
        // Relaxed, as all of these: numbers for people.
        self.rules.load(Ordering::Relaxed)
    }

    /// Reloads that took effect, and reloads that were refused.
    #[must_use]
    pub fn reloads(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// Why the last reload was refused; empty if it wasn't.
    #[must_use]
    pub fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn say(&self, error: &str) {
        error.clone_into(&mut self.last_error.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Watches the rules' files.
pub(super) struct RuleFiles {
    config: DataflowConfig,
    live: Arc<LiveRules>,
    /// What the files looked like when they were read last.
    seen: u64,
    stats: Arc<ReloadStats>,
}

impl RuleFiles {
    /// `live` was read from what `config` names when the files looked like `seen` ([`look`]).
    pub(super) fn new(config: DataflowConfig, live: Arc<LiveRules>, seen: u64) -> Self {
        let stats = Arc::<ReloadStats>::default();
        stats.rules.store(live.current().rules.len() as u64, Ordering::Relaxed);
        Self { config, live, seen, stats }
    }

    pub(super) fn stats(&self) -> Arc<ReloadStats> {
        Arc::clone(&self.stats)
    }

    /// Reads the rules again if their files have changed.
    pub(super) fn look(&mut self) {
        if look(&self.config.rules) != self.seen {
            self.reload(None);
        }
    }

    /// Reads the rules again, from where a new configuration says if there is one.
    pub(super) fn reload(&mut self, config: Option<DataflowConfig>) {
        let config = config.unwrap_or_else(|| self.config.clone());
        // Looked at before reading: what changes meanwhile is read again.
        self.seen = look(&config.rules);
        match load(&config) {
            Ok(rules) => {
                let number = rules.len();
                self.live.replace(rules);
                self.config = config;
                self.stats.rules.store(number as u64, Ordering::Relaxed);
                self.stats.done.fetch_add(1, Ordering::Relaxed);
                self.stats.say("");
                tracing::info!(rules = number, "rules reloaded");
            }
            Err(complaints) => {
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    "the new rules are refused, the old ones stay in force:\n{complaints}"
                );
                self.stats.say(&complaints);
            }
        }
    }
}

/// The rules that a configuration names.
///
/// # Errors
/// What is wrong with them, a line each.
pub(super) fn load(config: &DataflowConfig) -> Result<Vec<Rule>, String> {
    let mut loaded = if config.builtin_rules { rules::builtin() } else { rules::Loaded::default() };
    let own = rules::load(&config.rules);
    loaded.errors.extend(own.errors);
    for rule in own.rules {
        // A rule of the user's with a built-in one's name takes its place.
        loaded.rules.retain(|r| r.name != rule.name);
        loaded.rules.push(rule);
    }
    let longest_ns = u64::try_from(config.group_retention_period.as_nanos()).unwrap_or(u64::MAX);
    for rule in &mut loaded.rules {
        rule.story.max_age_ns = rule.story.max_age_ns.min(longest_ns);
    }
    if loaded.errors.is_empty() {
        return Ok(loaded.rules);
    }
    let complaints: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
    Err(complaints.join("\n"))
}

/// What the rules' files look like from outside: a hash of their names, sizes, times and inodes. Links are
/// followed, so that a mounted ConfigMap, which is exchanged by a link, is seen to change.
pub(super) fn look(paths: &[PathBuf]) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut hasher = std::hash::DefaultHasher::new();
    let mut file = |path: &Path| {
        path.hash(&mut hasher);
        if let Ok(m) = std::fs::metadata(path) {
            (m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())
                .hash(&mut hasher);
        }
    };
    for path in paths {
        let mut inside: Vec<PathBuf> = match std::fs::read_dir(path) {
            Ok(entries) => entries.filter_map(|e| e.ok().map(|e| e.path())).collect(),
            Err(_) => vec![path.clone()],
        };
        inside.sort();
        inside.iter().for_each(|p| file(p));
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
    fn files_that_change_are_read_and_wrong_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), RULE).unwrap();
        let config = DataflowConfig {
            rules: vec![dir.path().to_owned()],
            builtin_rules: false,
            ..DataflowConfig::default()
        };
        let seen = look(&config.rules);
        let live = Arc::new(LiveRules::new(RuleSet::new(load(&config).unwrap(), "", 2)));
        let mut files = RuleFiles::new(config, Arc::clone(&live), seen);
        let before = live.current();
        files.look();
        assert!(live.newer(&before).is_none(), "nothing has changed");
        let more = RULE.replace("rule: r", "rule: s");
        std::fs::write(dir.path().join("b.yaml"), &more).unwrap();
        files.look();
        let after = live.newer(&before).unwrap();
        assert_eq!((after.rules.len(), files.stats().rules()), (2, 2));
        assert_eq!(after.numbers_of(&before), [Some(0)]);
        assert_eq!(after.hash(b"key"), before.hash(b"key"), "keys keep their owners");
        std::fs::write(dir.path().join("b.yaml"), more.replace("within", "withn")).unwrap();
        files.look();
        assert_eq!(live.current().rules.len(), 2);
        assert_eq!(files.stats().reloads(), (1, 1));
        assert!(
            files.stats().last_error().contains("b.yaml:3:20"),
            "{}",
            files.stats().last_error()
        );
        std::fs::write(dir.path().join("a.yaml"), RULE.replace("at_least: 3", "at_least: 4"))
            .unwrap();
        std::fs::remove_file(dir.path().join("b.yaml")).unwrap();
        files.look();
        assert_eq!(live.current().numbers_of(&after), [None, None], "one changed, one is gone");
        assert_eq!(files.stats().last_error(), "");
    }
}
