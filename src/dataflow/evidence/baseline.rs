//! How often a kind of event is usual for an entity: counts in buckets of event time, and how far one
//! bucket lies from the ones before it, by median and interquartile range, which a few wild buckets
//! don't move.
//!
//! Counts are sums, so shards add theirs in any order and every order gives the same series.

use super::super::lru::Lru;
use super::entity::Entity;
use super::observer::Bounds;
use tapio_core::event::{Name, Severity};

/// The length of a bucket.
pub(super) const BUCKET_NS: u64 = 10_000_000_000;
/// Buckets before now that say what is usual: ten minutes.
const USUAL_BUCKETS: u32 = 60;
/// Fewer buckets than this say nothing: no quartile of them would mean anything.
const LEAST_BUCKETS: u32 = 6;
/// The interquartile range of a normal distribution in standard deviations.
const IQR_IN_SIGMA: f64 = 1.349;

/// Which bucket a time is in.
pub(super) fn bucket(time_ns: u64) -> u32 {
    u32::try_from(time_ns / BUCKET_NS).unwrap_or(u32::MAX)
}

/// How far a count is from the usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// The count.
    pub now: u32,
    /// The median of the buckets before.
    pub median: f64,
    /// Their interquartile range.
    pub iqr: f64,
    /// How many buckets that were.
    pub buckets: u32,
    /// `(now − median) / scale`.
    pub robust_z: f64,
}

/// The value below which a share of a sorted list lies, interpolated between neighbours.
fn quantile(sorted: &[u32], share: f64) -> f64 {
    let at = share * (sorted.len().saturating_sub(1)) as f64;
    let low = sorted.get(at.floor() as usize).copied().unwrap_or(0);
    let high = sorted.get(at.ceil() as usize).copied().unwrap_or(low);
    f64::from(low) + (f64::from(high) - f64::from(low)) * at.fract()
}

/// The deviation of a count from the counts before it, in any order. `None` where they are too few.
#[must_use]
pub fn deviation(before: &mut [u32], now: u32) -> Option<Deviation> {
    let buckets = u32::try_from(before.len()).unwrap_or(u32::MAX);
    if buckets < LEAST_BUCKETS {
        return None;
    }
    before.sort_unstable();
    let median = quantile(before, 0.5);
    let iqr = quantile(before, 0.75) - quantile(before, 0.25);
    // Counts of independent events scatter by the square root of their mean at least, and a count
    // can't be resolved finer than one event.
    let scale = (iqr / IQR_IN_SIGMA).max(median.sqrt()).max(1.0);
    let robust_z = (f64::from(now) - median) / scale;
    Some(Deviation { now, median, iqr, buckets, robust_z })
}

/// What happened in one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) bucket: u32,
    pub(super) count: u32,
    pub(super) worst: Severity,
    /// The first event's time: a bucket is too coarse to say what came first.
    pub(super) first_ns: u64,
}

impl Tally {
    /// One event.
    pub(super) fn one(time_ns: u64, severity: Severity) -> Self {
        Self { bucket: bucket(time_ns), count: 1, worst: severity, first_ns: time_ns }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.worst = self.worst.max(other.worst);
        self.first_ns = self.first_ns.min(other.first_ns);
    }
}

/// The counts of one entity and kind: buckets that aren't empty, in order.
#[derive(Default)]
struct Series {
    buckets: Vec<Tally>,
}

impl Series {
    fn add(&mut self, tally: Tally, kept: usize) {
        match self.buckets.binary_search_by_key(&tally.bucket, |b| b.bucket) {
            Ok(at) => self.buckets[at].add(tally),
            Err(at) => {
                self.buckets.insert(at, tally);
                if self.buckets.len() > kept {
                    self.buckets.remove(0);
                }
            }
        }
    }

    fn deviation(&self, now: u32, since: u32) -> Option<Deviation> {
        let first = now.saturating_sub(USUAL_BUCKETS).max(since);
        let from = self.buckets.partition_point(|b| b.bucket < first);
        let to = self.buckets.partition_point(|b| b.bucket < now);
        let mut before: Vec<u32> = self.buckets[from..to].iter().map(|b| b.count).collect();
        // Buckets in which the entity was known and this didn't happen.
        before.resize(now.saturating_sub(first) as usize, 0);
        let counted = self.buckets.get(to).filter(|b| b.bucket == now).map_or(0, |b| b.count);
        deviation(&mut before, counted)
    }
}

/// What one entity was seen to do.
struct Known {
    since: u32,
    kinds: Vec<(Name, Series)>,
}

/// Series of many entities.
pub(super) struct Baselines {
    bounds: Bounds,
    entities: Lru<Entity, Known>,
    series: u64,
}

impl Baselines {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, entities: Lru::new(bounds.entities), series: 0 }
    }

    /// Series followed now.
    pub(super) fn len(&self) -> u64 {
        self.series
    }

    pub(super) fn evicted(&self) -> u64 {
        self.entities.evicted
    }

    pub(super) fn add(&mut self, entity: &Entity, kind: Name, tally: Tally) {
        if self.entities.get(entity).is_none() {
            let known = Known { since: tally.bucket, kinds: Vec::new() };
            if let Some((_, gone)) = self.entities.insert(entity.clone(), known) {
                self.series -= gone.kinds.len() as u64;
            }
        }
        let Bounds { buckets: kept, history: most_kinds, .. } = self.bounds;
        let Some(known) = self.entities.get(entity) else {
            return;
        };
        known.since = known.since.min(tally.bucket);
        let at = known.kinds.iter().position(|(k, _)| *k == kind);
        let at = at.or_else(|| {
            (known.kinds.len() < most_kinds).then(|| {
                known.kinds.push((kind, Series::default()));
                self.series += 1;
                known.kinds.len() - 1
            })
        });
        if let Some((_, series)) = at.and_then(|at| known.kinds.get_mut(at)) {
            series.add(tally, kept);
        }
    }

    /// The largest deviation of an entity's kind between two times, each bucket against those
    /// before it.
    pub(super) fn deviation(
        &self,
        entity: &Entity,
        kind: Name,
        from_ns: u64,
        to_ns: u64,
    ) -> Option<Deviation> {
        let known = self.entities.peek(entity)?;
        let (_, series) = known.kinds.iter().find(|(k, _)| *k == kind)?;
        let (from, to) = (bucket(from_ns), bucket(to_ns));
        let seen = series.buckets.iter().map(|b| b.bucket).filter(|b| (from..=to).contains(b));
        let deviations = seen.filter_map(|b| series.deviation(b, known.since));
        deviations.max_by(|a, b| a.robust_z.total_cmp(&b.robust_z))
    }

    /// What the entity did between two times: kind, first time and worst severity for each bucket.
    pub(super) fn seen(
        &self,
        entity: &Entity,
        from_ns: u64,
        before_ns: u64,
    ) -> Vec<(Name, u64, Severity)> {
        let Some(known) = self.entities.peek(entity) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for (kind, series) in &known.kinds {
            let within =
                series.buckets.iter().filter(|b| (from_ns..before_ns).contains(&b.first_ns));
            out.extend(within.map(|b| (*kind, b.first_ns, b.worst)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entity::EntityKind;
    use super::*;
    use tapio_core::event::names;

    fn unit(name: &str) -> Entity {
        Entity::new(EntityKind::Unit, name)
    }

    fn bounds(entities: usize, buckets: usize) -> Bounds {
        Bounds { entities, buckets, ..Bounds::LIVE }
    }

    fn tally(bucket: u32, count: u32) -> Tally {
        let first_ns = u64::from(bucket) * BUCKET_NS;
        Tally { bucket, count, worst: Severity::ERROR, first_ns }
    }

    /// The median by its definition, from a sorted list.
    fn middle(sorted: &[u32]) -> f64 {
        let half = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            f64::from(sorted[half])
        } else {
            (f64::from(sorted[half - 1]) + f64::from(sorted[half])) / 2.0
        }
    }

    proptest! {
        #[test]
        fn median_and_quartiles_equal_sorting(mut counts in prop::collection::vec(0u32..1000, 6..80), now in 0u32..5000) {
            let found = deviation(&mut counts.clone(), now).unwrap();
            counts.sort_unstable();
            prop_assert_eq!(found.median, middle(&counts));
            // A quarter lies at or below the lower quartile, a quarter at or above the upper one.
            let (low, high) = (quantile(&counts, 0.25), quantile(&counts, 0.75));
            prop_assert!((found.iqr - (high - low)).abs() < 1e-9);
            let quarter = counts.len().div_ceil(4);
            prop_assert!(counts.iter().filter(|c| f64::from(**c) <= low).count() >= quarter);
            prop_assert!(counts.iter().filter(|c| f64::from(**c) >= high).count() >= quarter);
            prop_assert_eq!(found.robust_z > 0.0, f64::from(now) > found.median);
        }

        /// Shards send sums in any order and in any portions.
        #[test]
        fn order_and_portions_dont_matter(
            mut facts in prop::collection::vec((0u32..40, 1u32..9), 1..80), ask in 0u32..45,
        ) {
            let fill = |facts: &[(u32, u32)]| {
                let mut all = Baselines::new(bounds(8, 1000));
                for (bucket, count) in facts {
                    all.add(&unit("a"), names::JOURNAL_MESSAGE, tally(*bucket, *count));
                }
                let at_ns = u64::from(ask) * BUCKET_NS;
                all.deviation(&unit("a"), names::JOURNAL_MESSAGE, 0, at_ns)
            };
            let first = fill(&facts);
            let single: Vec<(u32, u32)> =
                facts.iter().flat_map(|(b, n)| std::iter::repeat_n((*b, 1), *n as usize)).collect();
            prop_assert_eq!(fill(&single), first);
            facts.reverse();
            prop_assert_eq!(fill(&facts), first);
        }
    }

    #[test]
    fn silence_before_counts_as_silence() {
        let mut all = Baselines::new(bounds(8, 1000));
        all.add(&unit("a"), names::SYSTEMD_UNIT_STARTED, tally(100, 1));
        all.add(&unit("a"), names::JOURNAL_MESSAGE, tally(130, 9));
        let at_ns = 130 * BUCKET_NS;
        let found = all.deviation(&unit("a"), names::JOURNAL_MESSAGE, at_ns, at_ns).unwrap();
        assert_eq!((found.now, found.median, found.buckets, found.robust_z), (9, 0.0, 30, 9.0));
    }

    #[test]
    fn without_a_past_nothing_is_said() {
        let mut all = Baselines::new(bounds(8, 1000));
        all.add(&unit("a"), names::JOURNAL_MESSAGE, tally(130, 9));
        assert_eq!(all.deviation(&unit("a"), names::JOURNAL_MESSAGE, 0, u64::MAX), None);
        assert_eq!(all.deviation(&unit("b"), names::JOURNAL_MESSAGE, 0, u64::MAX), None);
    }

    #[test]
    fn entities_and_buckets_are_bounded() {
        let mut all = Baselines::new(bounds(2, 4));
        for (n, name) in ["a", "b", "c"].iter().enumerate() {
            for bucket in 0..10 {
                all.add(&unit(name), names::JOURNAL_MESSAGE, tally(bucket + n as u32, 1));
            }
        }
        assert_eq!((all.len(), all.evicted()), (2, 1));
        assert_eq!(all.seen(&unit("c"), 0, u64::MAX).len(), 4);
        assert!(all.seen(&unit("a"), 0, u64::MAX).is_empty());
    }
}
