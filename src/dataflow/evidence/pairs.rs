//! Learned pairs: how much more often than by chance one kind of event precedes another on the same
//! entity, and with which delay.
//!
//! The lift of A before B is the number of Bs with an A within the look-back, over the number
//! expected if As were distributed at random over the time for which their entities were observed.
//! Counts decay by half every six hours. They are kept by hour of event time and weighted when they
//! are queried, so sums of all shards commute.

use crate::lru::Lru;
use crate::rules::Home;
use tapio_core::event::{Name, names};

/// Maximum delay at which a kind counts as preceding another.
pub(super) const LOOK_BACK_NS: u64 = 60_000_000_000;
/// Recent kinds kept for an entity.
const MAX_RECENT_KINDS: usize = 8;
/// Length of an epoch, by which counts are kept.
const EPOCH_NS: u64 = 3_600_000_000_000;
/// Epochs in which a count decays by half.
const HALF_LIFE_EPOCHS: f64 = 6.0;
/// Epochs that are kept: older ones have decayed to 1/256.
const MAX_EPOCHS: usize = 48;
/// Octaves of delays in milliseconds, up to the look-back.
pub(super) const OCTAVES: usize = 17;
/// Maximum gap between an entity's events that counts as observed time.
const MAX_GAP_NS: u64 = EPOCH_NS;

/// Kind of an entity's home, which determines the join fields of a rule about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum HomeKind {
    /// A pod.
    Pod,
    /// One run of a unit.
    Invocation,
    /// A process and its descendants.
    ProcessTree,
    /// A unit.
    Unit,
    /// A node.
    Node,
}

impl HomeKind {
    const ALL: [Self; 5] = [Self::Pod, Self::Invocation, Self::ProcessTree, Self::Unit, Self::Node];

    /// The kind of a home.
    pub(super) fn of(home: &Home<'_>) -> Self {
        match home {
            Home::Pod(_) => Self::Pod,
            Home::Invocation(_) => Self::Invocation,
            Home::ProcessTree(_) => Self::ProcessTree,
            Home::Unit(_) => Self::Unit,
            Home::Node => Self::Node,
        }
    }

    /// The join fields of a rule about such entities.
    #[must_use]
    pub fn fields(self) -> &'static [Name] {
        match self {
            Self::Pod => &[names::K8S_POD_UID],
            Self::Invocation => &[names::SYSTEMD_INVOCATION_ID],
            Self::ProcessTree => &[names::TAPIO_PROCESS_TREE],
            Self::Unit => &[names::HOST_NAME, names::SYSTEMD_UNIT],
            Self::Node => &[names::HOST_NAME],
        }
    }
}

/// Two kinds on entities of one home kind, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairKey {
    /// The home kind.
    pub home: HomeKind,
    /// The first kind.
    pub before: Name,
    /// The second kind.
    pub after: Name,
}

/// The epoch (hour of event time) of a count.
pub(super) fn epoch(time_ns: u64) -> u32 {
    u32::try_from(time_ns / EPOCH_NS).unwrap_or(u32::MAX)
}

/// The octave of a delay: octave 0 ends at two milliseconds, each further one is twice as long.
pub(super) fn octave(delay_ns: u64) -> usize {
    ((delay_ns / 1_000_000).max(1).ilog2() as usize).min(OCTAVES - 1)
}

/// The recent kinds of one entity, at its home shard.
struct History {
    kinds: Vec<(Name, u64)>,
    last_ns: u64,
}

/// The contribution of an event to the learned pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PairStep {
    /// Preceding kinds, with the delay since their last event.
    pub(super) before: Vec<(Name, u64)>,
    /// Additional time for which the entity was observed.
    pub(super) observed_ns: u64,
}

/// The recent kinds of a shard's entities.
pub(super) struct RecentKinds {
    homes: Lru<u64, History>,
}

impl RecentKinds {
    pub(super) fn new(capacity: usize) -> Self {
        Self { homes: Lru::new(capacity) }
    }

    pub(super) fn evicted(&self) -> u64 {
        self.homes.evicted
    }

    /// Sets the number of entities; evicts those beyond it.
    pub(super) fn limit(&mut self, entities: usize) {
        self.homes.limit(entities);
    }

    /// Records an event of an entity. `None` if the same kind was recorded within the same second:
    /// a storm of one kind adds no more than its first event.
    pub(super) fn record(&mut self, home: u64, kind: Name, time_ns: u64) -> Option<PairStep> {
        let Some(history) = self.homes.get(&home) else {
            self.homes.insert(home, History { kinds: vec![(kind, time_ns)], last_ns: time_ns });
            // An entity counts as observed for at least a look-back. Otherwise all kinds of a
            // short-lived entity would seem certain to occur.
            return Some(PairStep { before: Vec::new(), observed_ns: LOOK_BACK_NS });
        };
        let second = |ns: u64| ns / 1_000_000_000;
        let at = history.kinds.iter().position(|(k, _)| *k == kind);
        if at.is_some_and(|at| second(history.kinds[at].1) == second(time_ns)) {
            return None;
        }
        let recent = |t: u64| time_ns.checked_sub(t).filter(|d| *d <= LOOK_BACK_NS);
        let others = history.kinds.iter().filter(|(k, _)| *k != kind);
        let before = others.filter_map(|(k, t)| Some((*k, recent(*t)?))).collect();
        let observed_ns = time_ns.saturating_sub(history.last_ns).min(MAX_GAP_NS);
        history.last_ns = history.last_ns.max(time_ns);
        match at {
            Some(at) => history.kinds[at].1 = history.kinds[at].1.max(time_ns),
            None => {
                if history.kinds.len() >= MAX_RECENT_KINDS {
                    let oldest = history.kinds.iter().enumerate().min_by_key(|(at, k)| (k.1, *at));
                    if let Some((at, _)) = oldest {
                        history.kinds.remove(at);
                    }
                }
                history.kinds.push((kind, time_ns));
            }
        }
        Some(PairStep { before, observed_ns })
    }
}

/// A count that decays.
#[derive(Clone, Debug, Default)]
struct DecayingCount {
    epochs: Vec<(u32, u64)>,
}

impl DecayingCount {
    fn add(&mut self, epoch: u32, count: u64) {
        match self.epochs.binary_search_by_key(&epoch, |e| e.0) {
            Ok(at) => self.epochs[at].1 = self.epochs[at].1.saturating_add(count),
            Err(at) => {
                self.epochs.insert(at, (epoch, count));
                if self.epochs.len() > MAX_EPOCHS {
                    self.epochs.remove(0);
                }
            }
        }
    }

    fn at(&self, epoch: u32) -> f64 {
        let weight = |e: u32| (-f64::from(epoch.saturating_sub(e)) / HALF_LIFE_EPOCHS).exp2();
        self.epochs.iter().map(|(e, count)| weight(*e) * *count as f64).sum()
    }
}

#[derive(Default)]
struct Pair {
    count: DecayingCount,
    delays: [u32; OCTAVES],
}

/// A learned pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearnedPair {
    /// Its kinds and home kind.
    pub key: PairKey,
    /// How often the first kind preceded the second one, with decay.
    pub support: f64,
    /// How often it would have by chance.
    pub chance: f64,
    /// Upper bound of half of the delays, to an octave.
    pub median_delay_ns: u64,
    /// Upper bound of 95 % of the delays, to an octave.
    pub p95_delay_ns: u64,
    /// Share of the first kind's events that the second kind followed.
    pub share: f64,
}

impl LearnedPair {
    /// Logarithm of the ratio of support to chance, each plus half an event.
    #[must_use]
    pub fn log_lift(&self) -> f64 {
        ((self.support + 0.5) / (self.chance + 0.5)).ln()
    }
}

/// All learned pairs. Bounded: the pair unused for the longest time is evicted.
pub(super) struct Pairs {
    pairs: Lru<PairKey, Pair>,
    kinds: Lru<(HomeKind, Name), DecayingCount>,
    observed_ms: [DecayingCount; 5],
    epoch: u32,
}

impl Pairs {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            pairs: Lru::new(capacity),
            kinds: Lru::new(capacity),
            observed_ms: Default::default(),
            epoch: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.pairs.evicted
    }

    /// Adds the count of a pair in an epoch, with delays of an octave.
    pub(super) fn add(&mut self, key: PairKey, octave: usize, epoch: u32, count: u32) {
        self.epoch = self.epoch.max(epoch);
        if self.pairs.get(&key).is_none() {
            self.pairs.insert(key, Pair::default());
        }
        if let Some(pair) = self.pairs.get(&key) {
            pair.count.add(epoch, u64::from(count));
            let delays = &mut pair.delays[octave.min(OCTAVES - 1)];
            *delays = delays.saturating_add(count);
        }
    }

    /// Adds the count of a kind's events in an epoch.
    pub(super) fn add_kind(&mut self, home: HomeKind, kind: Name, epoch: u32, count: u32) {
        self.epoch = self.epoch.max(epoch);
        let key = (home, kind);
        if self.kinds.get(&key).is_none() {
            self.kinds.insert(key, DecayingCount::default());
        }
        if let Some(sum) = self.kinds.get(&key) {
            sum.add(epoch, u64::from(count));
        }
    }

    /// Adds the time for which entities were observed in an epoch.
    pub(super) fn add_observed_time(&mut self, home: HomeKind, epoch: u32, milliseconds: u64) {
        self.epoch = self.epoch.max(epoch);
        self.observed_ms[home as usize].add(epoch, milliseconds);
    }

    /// Evaluates a pair as of the latest epoch.
    fn evaluate(&self, key: PairKey) -> Option<LearnedPair> {
        let pair = self.pairs.peek(&key)?;
        let count = |kind| self.kinds.peek(&(key.home, kind)).map_or(0.0, |f| f.at(self.epoch));
        let (before, after) = (count(key.before), count(key.after));
        let observed_ms = self.observed_ms[key.home as usize].at(self.epoch).max(1.0);
        let covered = (before * (LOOK_BACK_NS / 1_000_000) as f64 / observed_ms).min(1.0);
        let support = pair.count.at(self.epoch);
        Some(LearnedPair {
            key,
            support,
            chance: after * covered,
            median_delay_ns: pair.delay_ns(0.5),
            p95_delay_ns: pair.delay_ns(0.95),
            share: if before > 0.0 { (support / before).min(1.0) } else { 0.0 },
        })
    }

    /// The pair of two kinds on the home kind with the most support.
    pub(super) fn best(&self, before: Name, after: Name) -> Option<LearnedPair> {
        let keys = HomeKind::ALL.into_iter().map(|home| PairKey { home, before, after });
        let pairs = keys.filter_map(|key| self.evaluate(key));
        pairs.max_by(|a, b| a.support.total_cmp(&b.support))
    }

    /// Counts of the delays between two kinds by octave, summed over home kinds.
    pub(super) fn delays(&self, before: Name, after: Name) -> [u32; OCTAVES] {
        let mut out = [0; OCTAVES];
        let keys = HomeKind::ALL.into_iter().map(|home| PairKey { home, before, after });
        for pair in keys.filter_map(|key| self.pairs.peek(&key)) {
            out.iter_mut().zip(pair.delays).for_each(|(sum, n)| *sum += n);
        }
        out
    }

    /// All pairs, the strongest lift first.
    pub(super) fn all(&self) -> Vec<LearnedPair> {
        let mut out: Vec<LearnedPair> =
            self.pairs.iter().filter_map(|(key, _)| self.evaluate(*key)).collect();
        let text = |l: &LearnedPair| (l.key.home, l.key.before.text(), l.key.after.text());
        out.sort_by(|a, b| b.log_lift().total_cmp(&a.log_lift()).then(text(a).cmp(&text(b))));
        out
    }
}

impl Pair {
    /// End of the octave that bounds a share of the delays.
    fn delay_ns(&self, share: f64) -> u64 {
        let all: u64 = self.delays.iter().map(|n| u64::from(*n)).sum();
        let mut sum = 0;
        for (octave, n) in self.delays.iter().enumerate() {
            sum += u64::from(*n);
            if sum as f64 >= share * all as f64 {
                return (2u64 << octave) * 1_000_000;
            }
        }
        LOOK_BACK_NS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;
    const A: Name = names::SYSTEMD_UNIT_RESTARTING;
    const B: Name = names::SYSTEMD_UNIT_FAILED;
    const C: Name = names::JOURNAL_MESSAGE;

    /// Adds the pairs of some entities' events.
    fn learn(pairs: &mut Pairs, events: &[(u64, Name, u64)]) {
        let mut recent = RecentKinds::new(64);
        for (home, kind, time_ns) in events {
            let Some(step) = recent.record(*home, *kind, *time_ns) else { continue };
            let at = epoch(*time_ns);
            pairs.add_kind(HomeKind::Unit, *kind, at, 1);
            pairs.add_observed_time(HomeKind::Unit, at, step.observed_ns / 1_000_000);
            for (before, delay_ns) in step.before {
                let key = PairKey { home: HomeKind::Unit, before, after: *kind };
                pairs.add(key, octave(delay_ns), at, 1);
            }
        }
    }

    #[test]
    fn preceding_kind_has_lift_and_background_kind_has_none() {
        let mut events = Vec::new();
        for minute in 0..300u64 {
            // C occurs every minute; A every tenth minute, and B five seconds after it.
            events.push((7, C, minute * 60 * S));
            if minute % 10 == 0 {
                events.push((7, A, minute * 60 * S + 10 * S));
                events.push((7, B, minute * 60 * S + 15 * S));
            }
        }
        let mut pairs = Pairs::new(64);
        learn(&mut pairs, &events);
        let ab = pairs.best(A, B).unwrap();
        assert!(ab.log_lift() > 2.0, "{ab:?}");
        assert!(ab.share > 0.99 && ab.support > 10.0, "{ab:?}");
        assert_eq!(ab.median_delay_ns, 8_192_000_000, "end of the octave of five seconds");
        let cb = pairs.best(C, B).unwrap();
        assert!(cb.log_lift().abs() < 0.1, "{cb:?}");
        assert_eq!(pairs.best(B, C).map(|l| l.log_lift() > 1.0), Some(false));
        assert_eq!(pairs.all()[0].key.before, A);
    }

    #[test]
    fn support_decays() {
        let events = |from: u64| -> Vec<_> {
            (0..50)
                .flat_map(|i| {
                    let at = from + i * 100 * S;
                    [(1, A, at), (1, B, at + S)]
                })
                .collect()
        };
        let mut pairs = Pairs::new(64);
        learn(&mut pairs, &events(0));
        let fresh = pairs.best(A, B).unwrap().support;
        pairs.add_kind(HomeKind::Unit, C, epoch(13 * 3600 * S), 1);
        let old = pairs.best(A, B).unwrap().support;
        assert!(fresh > 40.0 && old < fresh / 3.0, "{fresh} {old}");
    }

    #[test]
    fn storm_counts_once_per_second_and_distant_events_are_no_pair() {
        let mut recent = RecentKinds::new(4);
        assert!(recent.record(1, A, S).is_some());
        assert_eq!(recent.record(1, A, S + 5), None);
        let step = recent.record(1, B, 3 * S).unwrap();
        assert_eq!((step.before, step.observed_ns), (vec![(A, 2 * S)], 2 * S));
        assert_eq!(recent.record(1, B, 100 * S).unwrap().before, []);
        assert_eq!(recent.record(2, B, 100 * S).unwrap().before, [], "another entity");
    }

    proptest! {
        /// Shards add in any order and partition.
        #[test]
        fn sums_commute(mut facts in prop::collection::vec((0usize..3, 0usize..6, 0u32..30, 1u32..5), 1..50)) {
            let kinds = [A, B, C];
            let fill = |facts: &[(usize, usize, u32, u32)]| {
                let mut pairs = Pairs::new(64);
                for (which, octave, epoch, n) in facts {
                    let key = PairKey { home: HomeKind::Pod, before: kinds[*which], after: B };
                    pairs.add(key, *octave, *epoch, *n);
                    pairs.add_kind(HomeKind::Pod, kinds[*which], *epoch, *n);
                    pairs.add_observed_time(HomeKind::Pod, *epoch, u64::from(*n) * 1000);
                }
                pairs.all()
            };
            let first = fill(&facts);
            facts.reverse();
            prop_assert_eq!(fill(&facts), first);
        }
    }
}
