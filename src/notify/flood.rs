//! Floods of new stories: beyond a number within a time, there is one notification about all of
//! them, and one for each further window until a window has fewer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::DigestConfig;
use tapio_core::event::Story;

/// Most rules that a digest lists; the others are counted together.
const MAX_RULES: usize = 50;

/// New stories of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RuleCount {
    /// Empty for those of further rules.
    pub(super) rule: String,
    pub(super) pattern: String,
    /// The highest one.
    pub(super) severity: u8,
    pub(super) stories: u64,
}

/// The new stories of a window that have no notification of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Digest {
    /// Its window, nanoseconds since the Unix epoch.
    pub(super) from_ns: u64,
    pub(super) until_ns: u64,
    /// Most stories first.
    pub(super) rules: Vec<RuleCount>,
}

impl Digest {
    /// All stories of it.
    pub(super) fn stories(&self) -> u64 {
        self.rules.iter().map(|rule| rule.stories).sum()
    }

    fn add(&mut self, story: &Story) {
        let (rule, pattern) = match self.rules.len() < MAX_RULES
            || self.rules.iter().any(|counted| counted.rule == story.rule)
        {
            true => (story.rule.as_str(), story.pattern.as_str()),
            false => ("", ""),
        };
        let found = self.rules.iter_mut().find(|counted| counted.rule == rule);
        match found {
            Some(counted) => {
                counted.stories += 1;
                counted.severity = counted.severity.max(story.severity.0);
            }
            None => self.rules.push(RuleCount {
                rule: rule.to_owned(),
                pattern: pattern.to_owned(),
                severity: story.severity.0,
                stories: 1,
            }),
        }
    }
}

/// The window that counts new stories.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Flood {
    /// When the window began, nanoseconds since the Unix epoch; 0: there is none.
    start_ns: u64,
    /// New stories in it.
    stories: u64,
    /// Whether all of them are for the digest: the window before had too many.
    is_flood: bool,
    digest: Digest,
}

impl Flood {
    /// Counts a new story. Returns whether it has a notification of its own; else a digest counts
    /// it.
    pub(super) fn is_announced(
        &mut self,
        config: &DigestConfig,
        story: &Story,
        now_ns: u64,
    ) -> bool {
        if config.stories == 0 {
            return true;
        }
        if self.start_ns == 0 {
            self.start_ns = now_ns;
        }
        self.stories += 1;
        let is_announced = !self.is_flood && self.stories <= u64::from(config.stories);
        if !is_announced {
            self.digest.add(story);
        }
        is_announced
    }

    /// When the window ends; `None` if there is none.
    pub(super) fn due_ns(&self, config: &DigestConfig) -> Option<u64> {
        (self.start_ns > 0).then(|| self.start_ns.saturating_add(as_ns(config.within)))
    }

    /// Ends the window if its time is over. Returns its digest, if it has one.
    pub(super) fn end(&mut self, config: &DigestConfig, now_ns: u64) -> Option<Digest> {
        // A clock that was set back would never end it.
        let is_back = now_ns < self.start_ns;
        if !is_back && self.due_ns(config).is_none_or(|due_ns| now_ns < due_ns) {
            return None;
        }
        let mut digest = std::mem::take(&mut self.digest);
        let is_flood = self.stories > u64::from(config.stories);
        // A flood goes on in the next window, which ends it if it has few.
        let start_ns = if is_flood { now_ns } else { 0 };
        let from_ns = self.start_ns;
        *self = Self { start_ns, is_flood, ..Self::default() };
        (!digest.rules.is_empty()).then(|| {
            (digest.from_ns, digest.until_ns) = (from_ns, now_ns);
            digest.rules.sort_by(|a, b| b.stories.cmp(&a.stories).then(a.rule.cmp(&b.rule)));
            digest
        })
    }
}

fn as_ns(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::Severity;

    const CONFIG: DigestConfig = DigestConfig { stories: 3, within: Duration::from_nanos(100) };

    fn story(rule: &str) -> Story {
        Story { rule: rule.into(), severity: Severity::ERROR, ..Story::default() }
    }

    #[test]
    fn stories_beyond_the_number_are_counted_by_rule_until_the_flood_ends() {
        let mut flood = Flood::default();
        let announced: usize =
            (0..10).map(|n| usize::from(flood.is_announced(&CONFIG, &story("a"), 1_000 + n))).sum();
        assert_eq!(announced, 3);
        assert!(!flood.is_announced(&CONFIG, &story("b"), 1_050));
        assert_eq!(flood.end(&CONFIG, 1_099), None);
        let digest = flood.end(&CONFIG, 1_100).unwrap();
        assert_eq!((digest.stories(), digest.from_ns, digest.until_ns), (8, 1_000, 1_100));
        let counts: Vec<_> = digest.rules.iter().map(|r| (&*r.rule, r.stories)).collect();
        assert_eq!(counts, [("a", 7), ("b", 1)]);
        // The flood goes on: the next ones are for the digest, although they are few.
        assert!(!flood.is_announced(&CONFIG, &story("c"), 1_150));
        assert_eq!(flood.end(&CONFIG, 1_200).unwrap().stories(), 1);
        assert_eq!(flood.due_ns(&CONFIG), None, "it is over");
        assert!(flood.is_announced(&CONFIG, &story("c"), 1_250));
    }

    #[test]
    fn clock_that_is_set_back_ends_the_window() {
        let mut flood = Flood::default();
        (0..4).for_each(|_| {
            flood.is_announced(&CONFIG, &story("a"), 1_000);
        });
        assert_eq!(flood.end(&CONFIG, 10).unwrap().stories(), 1);
    }

    #[test]
    fn digest_lists_a_bounded_number_of_rules() {
        let mut digest = Digest::default();
        (0..200).for_each(|n| digest.add(&story(&format!("rule-{n}"))));
        assert_eq!((digest.rules.len(), digest.stories()), (MAX_RULES + 1, 200));
        assert_eq!(digest.rules.last().unwrap().stories, 150);
    }
}
