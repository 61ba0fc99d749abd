//! Learned pairs: how much more often than by chance one kind of event comes before another on the same
//! entity, and after how long.
//!
//! The lift of A before B is how many Bs had an A within the look-back, over how many would have had
//! one if As were strewn at random over the time their entities were watched. Counts fade by half every
//! six hours: they are kept by the hour of event time, so that sums commute whatever shard they come
//! from, and weighed when somebody asks.

use super::super::lru::Lru;
use crate::rules::Home;
use tapio_core::event::{Name, names};

/// How far back a kind counts as having come before.
pub(super) const LOOK_BACK_NS: u64 = 60_000_000_000;
/// Kinds remembered for an entity.
const REMEMBERED: usize = 8;
/// Counts are kept by this much event time.
const EPOCH_NS: u64 = 3_600_000_000_000;
/// Epochs in which a count fades by half.
const HALF_LIFE_EPOCHS: f64 = 6.0;
/// Epochs that are kept: the rest has faded to a two hundred and fiftieth.
const KEPT_EPOCHS: usize = 48;
/// Octaves of a delay in milliseconds: up to the look-back.
pub(super) const OCTAVES: usize = 17;
/// Gaps in an entity's events longer than this weren't watched.
const MAX_GAP_NS: u64 = EPOCH_NS;

/// Which sort of home an entity is: what a rule about it joins by.
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

    /// The sort of a home.
    pub(super) fn of(home: &Home<'_>) -> Self {
        match home {
            Home::Pod(_) => Self::Pod,
            Home::Invocation(_) => Self::Invocation,
            Home::ProcessTree(_) => Self::ProcessTree,
            Home::Unit(_) => Self::Unit,
            Home::Node => Self::Node,
        }
    }

    /// The fields that a rule about such entities joins by.
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

/// Two kinds on entities of one sort, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairKey {
    /// The sort of entity.
    pub home: HomeKind,
    /// What came first.
    pub before: Name,
    /// What came then.
    pub after: Name,
}

/// The hour of event time a count belongs to.
pub(super) fn epoch(time_ns: u64) -> u32 {
    u32::try_from(time_ns / EPOCH_NS).unwrap_or(u32::MAX)
}

/// The octave of a delay: 0 is below two milliseconds, each further one twice as long.
pub(super) fn octave(delay_ns: u64) -> usize {
    ((delay_ns / 1_000_000).max(1).ilog2() as usize).min(OCTAVES - 1)
}

/// What one entity did lately, at its home shard.
struct Past {
    kinds: Vec<(Name, u64)>,
    last_ns: u64,
}

/// What an event adds to what is learned.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Step {
    /// Kinds that came before, with the delay since their last event.
    pub(super) before: Vec<(Name, u64)>,
    /// How much longer its entity was watched.
    pub(super) watched_ns: u64,
}

/// What the entities of a shard did lately.
pub(super) struct Pasts {
    homes: Lru<u64, Past>,
}

impl Pasts {
    pub(super) fn new(capacity: usize) -> Self {
        Self { homes: Lru::new(capacity) }
    }

    pub(super) fn evicted(&self) -> u64 {
        self.homes.evicted
    }

    /// Shows an event of an entity. `None` where the same was shown within the same second: a storm
    /// of one kind says no more than its first event.
    pub(super) fn show(&mut self, home: u64, kind: Name, time_ns: u64) -> Option<Step> {
        let Some(past) = self.homes.get(&home) else {
            self.homes.insert(home, Past { kinds: vec![(kind, time_ns)], last_ns: time_ns });
            // An entity is watched for a look-back at least, or one that lives for a moment would
            // make everything about it look certain.
            return Some(Step { before: Vec::new(), watched_ns: LOOK_BACK_NS });
        };
        let second = |ns: u64| ns / 1_000_000_000;
        let known = past.kinds.iter().position(|(k, _)| *k == kind);
        if known.is_some_and(|at| second(past.kinds[at].1) == second(time_ns)) {
            return None;
        }
        let recent = |t: u64| time_ns.checked_sub(t).filter(|d| *d <= LOOK_BACK_NS);
        let others = past.kinds.iter().filter(|(k, _)| *k != kind);
        let before = others.filter_map(|(k, t)| Some((*k, recent(*t)?))).collect();
        let watched_ns = time_ns.saturating_sub(past.last_ns).min(MAX_GAP_NS);
        past.last_ns = past.last_ns.max(time_ns);
        match known {
            Some(at) => past.kinds[at].1 = past.kinds[at].1.max(time_ns),
            None => {
                if past.kinds.len() >= REMEMBERED {
                    let oldest = past.kinds.iter().enumerate().min_by_key(|(at, k)| (k.1, *at));
                    if let Some((at, _)) = oldest {
                        past.kinds.remove(at);
                    }
                }
                past.kinds.push((kind, time_ns));
            }
        }
        Some(Step { before, watched_ns })
    }
}

/// A count that fades.
#[derive(Clone, Debug, Default)]
struct Faded {
    epochs: Vec<(u32, u64)>,
}

impl Faded {
    fn add(&mut self, epoch: u32, count: u64) {
        match self.epochs.binary_search_by_key(&epoch, |e| e.0) {
            Ok(at) => self.epochs[at].1 = self.epochs[at].1.saturating_add(count),
            Err(at) => {
                self.epochs.insert(at, (epoch, count));
                if self.epochs.len() > KEPT_EPOCHS {
                    self.epochs.remove(0);
                }
            }
        }
    }

    fn now(&self, epoch: u32) -> f64 {
        let weight = |e: u32| (-f64::from(epoch.saturating_sub(e)) / HALF_LIFE_EPOCHS).exp2();
        self.epochs.iter().map(|(e, count)| weight(*e) * *count as f64).sum()
    }
}

#[derive(Default)]
struct Pair {
    count: Faded,
    delays: [u32; OCTAVES],
}

/// What was learned of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learned {
    /// Which pair.
    pub key: PairKey,
    /// How often the second kind had the first before it, faded.
    pub support: f64,
    /// How often that would have been by chance.
    pub chance: f64,
    /// Half of the delays are at most this long, to an octave.
    pub median_delay_ns: u64,
    /// Nineteen in twenty are at most this long, to an octave.
    pub p95_delay_ns: u64,
    /// The share of the first kind's events that the second one followed.
    pub share: f64,
}

impl Learned {
    /// How much more often than by chance, as a logarithm; half an event on both sides.
    #[must_use]
    pub fn log_lift(&self) -> f64 {
        ((self.support + 0.5) / (self.chance + 0.5)).ln()
    }
}

/// Everything learned of pairs. Bounded: what wasn't seen for longest makes room.
pub(super) struct Pairs {
    pairs: Lru<PairKey, Pair>,
    kinds: Lru<(HomeKind, Name), Faded>,
    watched_ms: [Faded; 5],
    epoch: u32,
}

impl Pairs {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            pairs: Lru::new(capacity),
            kinds: Lru::new(capacity),
            watched_ms: Default::default(),
            epoch: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.pairs.evicted
    }

    /// Pairs came so often in an epoch, after a delay of an octave.
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

    /// Events of a kind came so often in an epoch.
    pub(super) fn add_kind(&mut self, home: HomeKind, kind: Name, epoch: u32, count: u32) {
        self.epoch = self.epoch.max(epoch);
        let key = (home, kind);
        if self.kinds.get(&key).is_none() {
            self.kinds.insert(key, Faded::default());
        }
        if let Some(faded) = self.kinds.get(&key) {
            faded.add(epoch, u64::from(count));
        }
    }

    /// Entities were watched for so long in an epoch, all of them together.
    pub(super) fn add_watched(&mut self, home: HomeKind, epoch: u32, milliseconds: u64) {
        self.epoch = self.epoch.max(epoch);
        self.watched_ms[home as usize].add(epoch, milliseconds);
    }

    /// What was learned of a pair.
    fn learned(&self, key: PairKey) -> Option<Learned> {
        let pair = self.pairs.peek(&key)?;
        let count = |kind| self.kinds.peek(&(key.home, kind)).map_or(0.0, |f| f.now(self.epoch));
        let (before, after) = (count(key.before), count(key.after));
        let watched_ms = self.watched_ms[key.home as usize].now(self.epoch).max(1.0);
        let covered = (before * (LOOK_BACK_NS / 1_000_000) as f64 / watched_ms).min(1.0);
        let support = pair.count.now(self.epoch);
        Some(Learned {
            key,
            support,
            chance: after * covered,
            median_delay_ns: pair.delay_ns(0.5),
            p95_delay_ns: pair.delay_ns(0.95),
            share: if before > 0.0 { (support / before).min(1.0) } else { 0.0 },
        })
    }

    /// What is known of one kind before another, on the sort of entity that shows it most often.
    pub(super) fn best(&self, before: Name, after: Name) -> Option<Learned> {
        let keys = HomeKind::ALL.into_iter().map(|home| PairKey { home, before, after });
        let known = keys.filter_map(|key| self.learned(key));
        known.max_by(|a, b| a.support.total_cmp(&b.support))
    }

    /// How often each octave of delay was seen between two kinds, on whatever entity.
    pub(super) fn delays(&self, before: Name, after: Name) -> [u32; OCTAVES] {
        let mut out = [0; OCTAVES];
        let keys = HomeKind::ALL.into_iter().map(|home| PairKey { home, before, after });
        for pair in keys.filter_map(|key| self.pairs.peek(&key)) {
            out.iter_mut().zip(pair.delays).for_each(|(sum, n)| *sum += n);
        }
        out
    }

    /// Everything, the strongest lift first.
    pub(super) fn all(&self) -> Vec<Learned> {
        let mut out: Vec<Learned> =
            self.pairs.iter().filter_map(|(key, _)| self.learned(*key)).collect();
        let text = |l: &Learned| (l.key.home, l.key.before.text(), l.key.after.text());
        out.sort_by(|a, b| b.log_lift().total_cmp(&a.log_lift()).then(text(a).cmp(&text(b))));
        out
    }
}

impl Pair {
    /// The end of the octave up to which a share of the delays lies.
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

    /// Lets the events of some entities teach.
    fn learn(pairs: &mut Pairs, events: &[(u64, Name, u64)]) {
        let mut pasts = Pasts::new(64);
        for (home, kind, time_ns) in events {
            let Some(step) = pasts.show(*home, *kind, *time_ns) else { continue };
            let at = epoch(*time_ns);
            pairs.add_kind(HomeKind::Unit, *kind, at, 1);
            pairs.add_watched(HomeKind::Unit, at, step.watched_ns / 1_000_000);
            for (before, delay_ns) in step.before {
                let key = PairKey { home: HomeKind::Unit, before, after: *kind };
                pairs.add(key, octave(delay_ns), at, 1);
            }
        }
    }

    #[test]
    fn what_always_comes_before_is_lifted_and_what_comes_anyway_is_not() {
        let mut events = Vec::new();
        for minute in 0..300u64 {
            // C is always there; A comes every tenth time and B five seconds after it.
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
        assert_eq!(ab.median_delay_ns, 8_192_000_000, "the octave of five seconds ends there");
        let cb = pairs.best(C, B).unwrap();
        assert!(cb.log_lift().abs() < 0.1, "{cb:?}");
        assert_eq!(pairs.best(B, C).map(|l| l.log_lift() > 1.0), Some(false));
        assert_eq!(pairs.all()[0].key.before, A);
    }

    #[test]
    fn what_was_long_ago_fades() {
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
    fn a_storm_counts_once_a_second_and_far_events_not_at_all() {
        let mut pasts = Pasts::new(4);
        assert!(pasts.show(1, A, S).is_some());
        assert_eq!(pasts.show(1, A, S + 5), None);
        let step = pasts.show(1, B, 3 * S).unwrap();
        assert_eq!((step.before, step.watched_ns), (vec![(A, 2 * S)], 2 * S));
        assert_eq!(pasts.show(1, B, 100 * S).unwrap().before, []);
        assert_eq!(pasts.show(2, B, 100 * S).unwrap().before, [], "another entity");
    }

    proptest! {
        /// Shards add in any order and in any portions.
        #[test]
        fn sums_commute(mut facts in prop::collection::vec((0usize..3, 0usize..6, 0u32..30, 1u32..5), 1..50)) {
            let kinds = [A, B, C];
            let fill = |facts: &[(usize, usize, u32, u32)]| {
                let mut pairs = Pairs::new(64);
                for (which, octave, epoch, n) in facts {
                    let key = PairKey { home: HomeKind::Pod, before: kinds[*which], after: B };
                    pairs.add(key, *octave, *epoch, *n);
                    pairs.add_kind(HomeKind::Pod, kinds[*which], *epoch, *n);
                    pairs.add_watched(HomeKind::Pod, *epoch, u64::from(*n) * 1000);
                }
                pairs.all()
            };
            let first = fill(&facts);
            facts.reverse();
            prop_assert_eq!(fill(&facts), first);
        }
    }
}
