//! A rule set: its plans by kind of event, and the routing of events to shards.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use super::field::{FieldRef, View, build_key};
use super::log_filter::LogRules;
use super::plan::KindPlan;
use super::rule::Rule;
use super::shape::Shape;
use tapio_core::event::{Event, Name, Value, names, stable_hash};
use tapio_core::ring::{Route, Router};

/// A set of rules. Immutable and shared; a reload makes a new one.
pub struct RuleSet {
    /// The rules; the number of a rule is its position.
    pub rules: Vec<Rule>,
    /// The cluster's name, part of every trace id.
    pub cluster: String,
    shards: u32,
    hasher: ahash::RandomState,
    plans: Box<[OnceLock<Box<KindPlan>>]>,
    log_rules: OnceLock<Arc<LogRules>>,
    digest: OnceLock<[u8; 16]>,
}

/// The home entity of an event: the one whose lifecycle it belongs to if no rule joins it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Home<'a> {
    /// A pod, by uid.
    Pod(&'a str),
    /// One run of a systemd unit, by InvocationID.
    Invocation(&'a str),
    /// A process and its descendants, by the root's exec id.
    ProcessTree(&'a str),
    /// A systemd unit with unknown InvocationID.
    Unit(&'a str),
    /// Nothing narrower than the node.
    Node,
}

/// The home entity of an event.
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
            log_rules: OnceLock::new(),
            digest: OnceLock::new(),
        }
    }

    /// A hash of the rules, the same on every node with equal rules, whatever files they are in.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        *self.digest.get_or_init(|| {
            let mut ids: Vec<[u8; 16]> = self.rules.iter().map(|rule| rule.id().bytes()).collect();
            ids.sort_unstable();
            stable_hash(&[b"rules", ids.as_flattened()])
        })
    }

    /// Compiles other rules for the same shards: keys keep their hashes and owners.
    #[must_use]
    pub fn successor(&self, rules: Vec<Rule>) -> Self {
        Self { hasher: self.hasher.clone(), ..Self::new(rules, &self.cluster, self.shards()) }
    }

    /// For each rule of an older set its number in this one; `None` if it is missing or has
    /// changed.
    #[must_use]
    pub fn numbers_of(&self, older: &Self) -> Vec<Option<u16>> {
        let number = |old: &Rule| {
            let at = self.rules.iter().position(|new| new.name == old.name)?;
            (self.rules[at].id() == old.id()).then_some(at as u16)
        };
        older.rules.iter().map(number).collect()
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards as usize
    }

    /// How far sources may be out of order among each other, if every rule fixes it; `None`:
    /// derived from their clocks.
    #[must_use]
    pub fn slack_ns(&self) -> Option<u64> {
        let fixed = self.rules.iter().map(|rule| match &rule.shape {
            Shape::Sequence(s) => s.slack_ns,
            Shape::Aggregate(_) => None,
        });
        fixed.collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    /// For how long an event matters at most: a story can change for as long after its first
    /// event, and depend on what was learned before.
    #[must_use]
    pub fn longest_relevance_ns(&self) -> u64 {
        let each = |r: &Rule| {
            let learned_ns = match &r.shape {
                Shape::Aggregate(a) => a.learned_ns(),
                Shape::Sequence(_) => 0,
            };
            r.within_ns().saturating_add(r.story.max_age_ns.max(learned_ns))
        };
        self.rules.iter().map(each).max().unwrap_or(0)
    }

    /// The plan for events of a kind, made at the first use.
    #[must_use]
    pub fn plan(&self, kind: Name) -> &KindPlan {
        self.plans[usize::from(kind.0) % Name::CAPACITY]
            .get_or_init(|| Box::new(KindPlan::new(&self.rules, kind)))
    }

    /// The conditions of the rules on log records, made at the first use.
    pub(super) fn log_rules(&self) -> &Arc<LogRules> {
        self.log_rules
            .get_or_init(|| Arc::new(LogRules::new(self.plan(names::OTLP_LOG).predicates())))
    }

    /// The hash of a join key. Random per process, so that an attacker can't aim at one shard.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The shard that owns a join key.
    #[must_use]
    pub fn owner(&self, key_hash: u64) -> usize {
        // The high bits: the low ones select the bucket in a shard's tables.
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
        thread_local! {
            // Of a collector's thread, which routes each of its events.
            static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let mut visits = 1u64 << self.home_shard(event);
        let mut key = KEY.take();
        for by in &self.plan(event.kind).keys {
            if build_key(event, by, &mut key) {
                visits |= 1 << self.owner(self.hash(&key));
            }
        }
        KEY.set(key);
        Route { visits }
    }
}
