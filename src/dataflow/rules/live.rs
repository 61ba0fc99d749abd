//! The rule set in force while events stream. Collectors and shards read it without a lock; a
//! reload exchanges it as a whole, and so does a rule that fails repeatedly: it is disabled by a
//! set without it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::log_filter::ResourceFilter;
use super::rule::Rule;
use super::set::RuleSet;
use crate::guard::Failure;
use crate::sampling::Sampling;
use tapio_core::event::{Event, Name};
use tapio_core::ring::{LogFilter, Route, Router};

/// Failures within [`FAILURE_WINDOW_NS`] by which a rule is disabled.
const MAX_FAILURES: usize = 3;
const FAILURE_WINDOW_NS: u64 = 60_000_000_000;

/// The failures of a rule since the rules were loaded.
#[derive(Clone, Debug)]
pub struct RuleFailures {
    /// The rule; `None`: code outside of the rules.
    pub rule: Option<Name>,
    /// File and line of the rule; empty without one.
    pub origin: String,
    /// Message and place of the latest panic.
    pub cause: String,
    /// How often it failed.
    pub failures: u64,
    /// The time of the latest failure, ns since the Unix epoch.
    pub last_ns: u64,
    /// When the rule was disabled, ns since the Unix epoch.
    pub disabled_ns: Option<u64>,
    /// The times of the latest failures.
    recent: VecDeque<u64>,
}

/// The consequence of a reported failure.
#[derive(Clone, Debug)]
pub(crate) enum Reported {
    /// The first one of its rule since the rules were loaded.
    First(RuleFailures),
    /// The rule is disabled.
    Disabled(RuleFailures),
    /// Counted with earlier ones.
    Again,
}

/// The rule set in force.
pub struct LiveRules {
    current: ArcSwap<RuleSet>,
    /// Held while the set is exchanged.
    failures: Mutex<Vec<RuleFailures>>,
    sampling: Arc<Sampling>,
}

impl LiveRules {
    /// Starts with these rules.
    #[must_use]
    pub fn new(rules: impl Into<Arc<RuleSet>>) -> Self {
        Self {
            current: ArcSwap::new(rules.into()),
            failures: Mutex::default(),
            sampling: Arc::default(),
        }
    }

    /// The part of spans and log records that services are learned from, whatever the rules need.
    #[must_use]
    pub fn sampling(&self) -> &Arc<Sampling> {
        &self.sampling
    }

    /// The rule set in force.
    #[must_use]
    pub fn current(&self) -> Arc<RuleSet> {
        self.current.load_full()
    }

    /// The rule set in force, if it is another one than `than`.
    #[must_use]
    pub fn newer(&self, than: &Arc<RuleSet>) -> Option<Arc<RuleSet>> {
        let current = self.current.load();
        (!Arc::ptr_eq(&current, than)).then(|| Arc::clone(&current))
    }

    /// Puts other rules in force. Keys keep their owners, so partial matches and stories of an
    /// unchanged rule stay on their shards. Each shard takes over the set before its next record;
    /// an event in flight visits the shards to which either set routes it. Disabled rules are
    /// enabled again if the new rules contain them.
    pub fn replace(&self, rules: Vec<Rule>) {
        let mut failures = self.lock();
        let next = self.current.load().successor(rules);
        self.current.store(Arc::new(next));
        failures.clear();
    }

    /// The rules that failed since the rules were loaded.
    #[must_use]
    pub fn failures(&self) -> Vec<RuleFailures> {
        self.lock().clone()
    }

    /// Records a failure of a shard that evaluates `set`. With `disables`, the rule is disabled if
    /// it fails repeatedly.
    pub(crate) fn report(
        &self,
        set: &Arc<RuleSet>,
        failure: &Failure,
        now_ns: u64,
        disables: bool,
    ) -> Reported {
        let mut all = self.lock();
        let current = self.current.load();
        // A rule of an older set may have been changed since.
        if !Arc::ptr_eq(&current, set) {
            return Reported::Again;
        }
        let known = all.iter().position(|f| f.rule == failure.rule);
        let at = known.unwrap_or_else(|| {
            all.push(RuleFailures::new(failure, set));
            all.len() - 1
        });
        let entry = &mut all[at];
        entry.add(failure, now_ns);
        if disables
            && let Some(rule) = failure.rule
            && entry.recent.len() >= MAX_FAILURES
        {
            let others = current.rules.iter().filter(|other| other.name != rule).cloned();
            self.current.store(Arc::new(current.successor(others.collect())));
            entry.disabled_ns = Some(now_ns);
            return Reported::Disabled(entry.clone());
        }
        if known.is_some() { Reported::Again } else { Reported::First(entry.clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<RuleFailures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RuleFailures {
    fn new(failure: &Failure, set: &RuleSet) -> Self {
        let rule = set.rules.iter().find(|rule| Some(rule.name) == failure.rule);
        Self {
            rule: failure.rule,
            origin: rule.map(|rule| rule.origin.clone()).unwrap_or_default(),
            cause: String::new(),
            failures: 0,
            last_ns: 0,
            disabled_ns: None,
            recent: VecDeque::new(),
        }
    }

    fn add(&mut self, failure: &Failure, now_ns: u64) {
        self.cause.clone_from(&failure.cause);
        self.failures += failure.times;
        self.last_ns = now_ns;
        let times = usize::try_from(failure.times).unwrap_or(MAX_FAILURES).min(MAX_FAILURES);
        self.recent.extend(std::iter::repeat_n(now_ns, times));
        let first_ns = now_ns.saturating_sub(FAILURE_WINDOW_NS);
        self.recent.retain(|at_ns| *at_ns >= first_ns);
    }
}

impl Router for LiveRules {
    fn route(&self, event: &Event<'_>) -> Route {
        self.current.load().route(event)
    }

    fn home(&self, event: &Event<'_>) -> usize {
        self.current.load().home_shard(event)
    }

    fn log_filter(&self, shared: &Event<'_>) -> Option<Arc<dyn LogFilter>> {
        let rules = Arc::clone(self.current.load().log_rules());
        let filter = ResourceFilter::new(rules, Arc::clone(&self.sampling), shared)?;
        Some(Arc::new(filter))
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Loaded;
    use super::*;

    fn rules() -> Vec<Rule> {
        let rule = "rule: NAME\nevents: { e: { kind: t.e } }\n\
                    count: { event: e, within: 1s, at_least: 1 }\nstory: { pattern: p }\n---\n";
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", &(rule.replace("NAME", "good") + &rule.replace("NAME", "bad")));
        assert_eq!(loaded.errors, []);
        loaded.rules
    }

    fn names(live: &LiveRules) -> Vec<&'static str> {
        live.current().rules.iter().map(|rule| rule.name.text()).collect()
    }

    #[test]
    fn rule_that_fails_repeatedly_is_disabled_until_the_next_reload() {
        const SECOND: u64 = 1_000_000_000;
        let live = LiveRules::new(RuleSet::new(rules(), "", 1));
        let set = live.current();
        let failure = Failure { rule: Some(set.rules[1].name), cause: "c".into(), times: 1 };
        let report = |at_s: u64| live.report(&set, &failure, at_s * SECOND, true);
        let Reported::First(first) = report(10) else { panic!("the first one") };
        assert_eq!(first.origin, "r.yaml:6");
        assert!(matches!(report(60), Reported::Again));
        assert!(matches!(report(71), Reported::Again), "the first one is too long ago");
        let unattributed = Failure { rule: None, ..failure.clone() };
        for _ in 0..5 {
            live.report(&set, &unattributed, 71 * SECOND, true);
        }
        assert_eq!(names(&live), ["good", "bad"]);
        let Reported::Disabled(disabled) = report(72) else { panic!("the third in a minute") };
        assert_eq!((disabled.failures, disabled.disabled_ns), (4, Some(72 * SECOND)));
        assert_eq!(names(&live), ["good"]);
        assert!(matches!(report(73), Reported::Again), "a shard that has the old set yet");
        assert_eq!(live.failures().len(), 2);
        live.replace(rules());
        assert_eq!((names(&live), live.failures().len()), (vec!["good", "bad"], 0));
    }

    #[test]
    fn replay_disables_no_rule() {
        let live = LiveRules::new(RuleSet::new(rules(), "", 1));
        let set = live.current();
        let failure = Failure { rule: Some(set.rules[1].name), cause: "c".into(), times: 9 };
        assert!(matches!(live.report(&set, &failure, 1, false), Reported::First(_)));
        assert!(Arc::ptr_eq(&set, &live.current()));
    }
}
