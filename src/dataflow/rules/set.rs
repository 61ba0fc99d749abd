//! All rules, by what an event of a kind has to be shown to; and the routing that follows from it.

use std::sync::OnceLock;

use super::field::{FieldRef, View, build_key};
use super::plan::KindPlan;
use super::rule::{Rule, Shape};
use tapio_core::event::{Event, Name, Value, names};
use tapio_core::ring::{Route, Router};

/// The rules in force. Shared and never changed; a reload makes a new one.
pub struct RuleSet {
    /// The rules; a rule's number is its place.
    pub rules: Vec<Rule>,
    /// The cluster's name, part of every trace id.
    pub cluster: String,
    shards: u32,
    hasher: ahash::RandomState,
    plans: Box<[OnceLock<Box<KindPlan>>]>,
}

/// The entity an event belongs to where no rule joins it: its life is told as one trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Home<'a> {
    /// A pod, by uid.
    Pod(&'a str),
    /// One run of a systemd unit, by InvocationID.
    Invocation(&'a str),
    /// A process and its descendants, by the root's exec id.
    ProcessTree(&'a str),
    /// A systemd unit whose InvocationID isn't known.
    Unit(&'a str),
    /// Nothing narrower than the node.
    Node,
}

/// The home of an event.
pub fn home(event: &impl View) -> Home<'_> {
    let text = |name| match event.field(FieldRef::Entity(name)) {
        Some(Value::Str(s)) if !s.is_empty() => Some(s),
        _ => None,
    };
    if let Some(uid) = text(names::K8S_POD_UID) {
        Home::Pod(uid)
    } else if let Some(id) = text(names::SYSTEMD_INVOCATION_ID) {
        Home::Invocation(id)
    } else if let Some(root) = text(names::TAPIO_PROCESS_TREE) {
        Home::ProcessTree(root)
    } else if let Some(unit) = text(names::SYSTEMD_UNIT) {
        Home::Unit(unit)
    } else {
        Home::Node
    }
}

impl RuleSet {
    /// Compiles rules for a number of shards (1 to 64).
    #[must_use]
    pub fn new(rules: Vec<Rule>, cluster: &str, shards: usize) -> Self {
        Self {
            rules,
            cluster: cluster.to_owned(),
            shards: shards.clamp(1, 64) as u32,
            hasher: ahash::RandomState::new(),
            plans: std::iter::repeat_with(OnceLock::new).take(Name::CAPACITY).collect(),
        }
    }

    /// Other rules for the same shards: keys keep their hashes and owners.
    #[must_use]
    pub fn successor(&self, rules: Vec<Rule>) -> Self {
        Self { hasher: self.hasher.clone(), ..Self::new(rules, &self.cluster, self.shards()) }
    }

    /// Where each rule of an older set stands in this one; `None` for one that is gone or was changed.
    #[must_use]
    pub fn places_of(&self, older: &Self) -> Vec<Option<u16>> {
        let place = |old: &Rule| {
            let at = self.rules.iter().position(|new| new.name == old.name)?;
            self.rules[at].means_the_same(old).then_some(at as u16)
        };
        older.rules.iter().map(place).collect()
    }

    /// How many shards events are spread over.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards as usize
    }

    /// How far sources may be out of order among each other, where every rule says so; else what
    /// their clocks say is at least needed: `None`.
    #[must_use]
    pub fn slack_ns(&self) -> Option<u64> {
        let asked = self.rules.iter().map(|rule| match &rule.shape {
            Shape::Sequence(s) => s.slack_ns,
            Shape::Aggregate(_) => None,
        });
        asked.collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    /// How long after its first event a story may still change.
    #[must_use]
    pub fn longest_story_ns(&self) -> u64 {
        let each = |r: &Rule| r.within_ns().saturating_add(r.telling.max_age_ns);
        self.rules.iter().map(each).max().unwrap_or(0)
    }

    /// What has to be done with events of a kind. The first look makes the plan.
    #[must_use]
    pub fn plan(&self, kind: Name) -> &KindPlan {
        self.plans[usize::from(kind.0) % Name::CAPACITY]
            .get_or_init(|| Box::new(KindPlan::new(&self.rules, kind)))
    }

    /// The hash of a join key: the same for every thread of this process, different in every
    /// process, so that nobody outside can aim at one shard.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The shard that owns a join key.
    #[must_use]
    pub fn owner(&self, key_hash: u64) -> usize {
        // The high bits: the low ones choose the place in a shard's tables.
        ((u128::from(key_hash) * u128::from(self.shards)) >> 64) as usize
    }

    /// The shard of an event's home entity.
    #[must_use]
    pub fn home_shard(&self, event: &impl View) -> usize {
        let hash = match home(event) {
            Home::Pod(t) | Home::Invocation(t) | Home::ProcessTree(t) | Home::Unit(t) => {
                self.hash(t.as_bytes())
            }
            Home::Node => 0,
        };
        self.owner(hash)
    }
}

impl Router for RuleSet {
    fn route(&self, event: &Event<'_>) -> Route {
        if self.shards == 1 {
            return Route { visits: 1 };
        }
        let mut visits = 1u64 << self.home_shard(event);
        let plan = self.plan(event.kind);
        let mut key = Vec::with_capacity(if plan.keys.is_empty() { 0 } else { 128 });
        for by in &plan.keys {
            if build_key(event, by, &mut key) {
                visits |= 1 << self.owner(self.hash(&key));
            }
        }
        Route { visits }
    }
}
