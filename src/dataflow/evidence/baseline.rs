//! Baselines: the usual count of a kind for an entity, and deviations from it. Events are counted
//! in buckets of event time. A bucket is compared with those before it by median and interquartile
//! range, which a few outliers don't change.
//!
//! Counts are sums, so shards add theirs in any order, and every order gives the same series.

use super::bounds::Bounds;
use super::entity::Entity;
use crate::lru::Lru;
use crate::robust::Quantiles;
use tapio_core::event::{Name, Severity};

/// Length of a bucket.
pub(super) const BUCKET_NS: u64 = 10_000_000_000;
/// Buckets before a bucket that form its baseline: ten minutes.
const BASELINE_BUCKETS: u32 = 60;
/// Minimum number of buckets in a baseline: quartiles of fewer are meaningless.
const MIN_BUCKETS: u32 = 6;

/// The bucket that contains a time.
pub(super) fn bucket(time_ns: u64) -> u32 {
    u32::try_from(time_ns / BUCKET_NS).unwrap_or(u32::MAX)
}

/// Deviation of a count from its baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// The count.
    pub now: u32,
    /// Median of the buckets before.
    pub median: f64,
    /// Interquartile range of the buckets before.
    pub iqr: f64,
    /// Number of buckets before.
    pub buckets: u32,
    /// `(now − median) / scale`.
    pub robust_z: f64,
}

/// Deviation of a count from the counts before it, which may be in any order. `None` if they are
/// too few.
#[must_use]
pub fn deviation(before: &mut [u32], now: u32) -> Option<Deviation> {
    let buckets = u32::try_from(before.len()).unwrap_or(u32::MAX);
    if buckets < MIN_BUCKETS {
        return None;
    }
    before.sort_unstable();
    let quantiles = Quantiles::of_sorted(before);
    let Quantiles { median, iqr, .. } = quantiles;
    let scale = quantiles.sigma().max(quantiles.count_floor());
    let robust_z = (f64::from(now) - median) / scale;
    Some(Deviation { now, median, iqr, buckets, robust_z })
}

/// Count of events in one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketCount {
    pub(super) bucket: u32,
    pub(super) count: u32,
    pub(super) worst: Severity,
    /// Time of the first event: a bucket is too coarse to order causes.
    pub(super) first_ns: u64,
}

impl BucketCount {
    /// The count of one event.
    pub(super) fn single(time_ns: u64, severity: Severity) -> Self {
        Self { bucket: bucket(time_ns), count: 1, worst: severity, first_ns: time_ns }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.worst = self.worst.max(other.worst);
        self.first_ns = self.first_ns.min(other.first_ns);
    }
}

/// A count as a series keeps it. There are hundreds of thousands, so it is small.
#[derive(Clone, Copy)]
struct KeptCount {
    bucket: u32,
    count: u32,
    /// Nanoseconds from the bucket's start to its first event, and in the last byte the worst
    /// severity.
    first_and_worst: u64,
}

impl From<BucketCount> for KeptCount {
    fn from(BucketCount { bucket, count, worst, first_ns }: BucketCount) -> Self {
        let offset_ns = first_ns.saturating_sub(u64::from(bucket) * BUCKET_NS);
        let first_and_worst = offset_ns.min(u64::MAX >> 8) << 8 | u64::from(worst.0);
        Self { bucket, count, first_and_worst }
    }
}

impl KeptCount {
    fn first_ns(self) -> u64 {
        u64::from(self.bucket) * BUCKET_NS + (self.first_and_worst >> 8)
    }

    fn worst(self) -> Severity {
        Severity(self.first_and_worst as u8)
    }

    fn add(&mut self, count: BucketCount) {
        let Self { bucket, count: before, .. } = *self;
        let (worst, first_ns) = (self.worst(), self.first_ns());
        let mut sum = BucketCount { bucket, count: before, worst, first_ns };
        sum.add(count);
        *self = sum.into();
    }
}

/// Counts of one entity and kind: the buckets that aren't empty, in order. Those that are older
/// than the newest one by a number of buckets are forgotten.
#[derive(Default)]
struct Series {
    buckets: Vec<KeptCount>,
}

impl Series {
    fn add(&mut self, count: BucketCount, max_buckets: usize) {
        match self.buckets.binary_search_by_key(&count.bucket, |b| b.bucket) {
            Ok(at) => self.buckets[at].add(count),
            Err(at) => {
                // Most entities occur in one bucket only.
                if self.buckets.is_empty() {
                    self.buckets.reserve_exact(1);
                }
                self.buckets.insert(at, count.into());
                let oldest = self.oldest(max_buckets);
                let forgotten = self.buckets.partition_point(|b| b.bucket < oldest);
                self.buckets.drain(..forgotten);
            }
        }
    }

    /// The oldest bucket that is kept.
    fn oldest(&self, max_buckets: usize) -> u32 {
        let newest = self.buckets.last().map_or(0, |b| b.bucket);
        newest.saturating_sub(u32::try_from(max_buckets).unwrap_or(u32::MAX).saturating_sub(1))
    }

    fn deviation(&self, now: u32, since: u32) -> Option<Deviation> {
        let first = now.saturating_sub(BASELINE_BUCKETS).max(since);
        let from = self.buckets.partition_point(|b| b.bucket < first);
        let to = self.buckets.partition_point(|b| b.bucket < now);
        let mut before: Vec<u32> = self.buckets[from..to].iter().map(|b| b.count).collect();
        // Empty buckets since the entity was first seen.
        before.resize(now.saturating_sub(first) as usize, 0);
        let in_bucket = self.buckets.get(to).filter(|b| b.bucket == now).map_or(0, |b| b.count);
        deviation(&mut before, in_bucket)
    }
}

/// Counts of one entity.
struct EntityHistory {
    /// Its first bucket.
    since: u32,
    kinds: Vec<(Name, Series)>,
}

impl EntityHistory {
    /// Adds a count of a kind. Returns whether it is the first one of that kind.
    fn add(&mut self, kind: Name, count: BucketCount, bounds: &Bounds) -> bool {
        self.since = self.since.min(count.bucket);
        if let Some((_, series)) = self.kinds.iter_mut().find(|(known, _)| *known == kind) {
            series.add(count, bounds.buckets);
            return false;
        }
        let has_room = self.kinds.len() < bounds.history;
        if has_room {
            let mut series = Series::default();
            series.add(count, bounds.buckets);
            self.kinds.push((kind, series));
        }
        has_room
    }
}

/// Series of counts of many entities.
pub(super) struct Baselines {
    bounds: Bounds,
    entities: Lru<Entity, EntityHistory>,
    series: u64,
}

impl Baselines {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, entities: Lru::new(bounds.entities), series: 0 }
    }

    /// Number of series.
    pub(super) fn len(&self) -> u64 {
        self.series
    }

    pub(super) fn evicted(&self) -> u64 {
        self.entities.evicted
    }

    /// Sets the number of entities; evicts those beyond it.
    pub(super) fn limit(&mut self, entities: usize) {
        for (_, evicted) in self.entities.limit(entities) {
            self.series -= evicted.kinds.len() as u64;
        }
    }

    /// Adds a count of an entity's events of a kind.
    pub(super) fn add(&mut self, entity: &Entity, kind: Name, count: BucketCount) {
        if let Some(history) = self.entities.get(entity) {
            self.series += u64::from(history.add(kind, count, &self.bounds));
            return;
        }
        let mut history = EntityHistory { since: count.bucket, kinds: Vec::with_capacity(1) };
        self.series += u64::from(history.add(kind, count, &self.bounds));
        if let Some((_, evicted)) = self.entities.insert(entity.clone(), history) {
            self.series -= evicted.kinds.len() as u64;
        }
    }

    /// The largest deviation of an entity's kind between two times, each bucket compared with those
    /// before it.
    pub(super) fn deviation(
        &self,
        entity: &Entity,
        kind: Name,
        from_ns: u64,
        to_ns: u64,
    ) -> Option<Deviation> {
        let history = self.entities.peek(entity)?;
        let (_, series) = history.kinds.iter().find(|(k, _)| *k == kind)?;
        let (from, to) = (bucket(from_ns), bucket(to_ns));
        let buckets = series.buckets.iter().map(|b| b.bucket).filter(|b| (from..=to).contains(b));
        // Of the time before the oldest bucket nothing is known any more.
        let since = history.since.max(series.oldest(self.bounds.buckets));
        let deviations = buckets.filter_map(|b| series.deviation(b, since));
        deviations.max_by(|a, b| a.robust_z.total_cmp(&b.robust_z))
    }

    /// The entity's events between two times: kind, first time and worst severity of each bucket.
    pub(super) fn between(
        &self,
        entity: &Entity,
        from_ns: u64,
        before_ns: u64,
    ) -> Vec<(Name, u64, Severity)> {
        let Some(history) = self.entities.peek(entity) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for (kind, series) in &history.kinds {
            let within =
                series.buckets.iter().filter(|b| (from_ns..before_ns).contains(&b.first_ns()));
            out.extend(within.map(|b| (*kind, b.first_ns(), b.worst())));
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

    fn in_bucket(bucket: u32, count: u32) -> BucketCount {
        let first_ns = u64::from(bucket) * BUCKET_NS;
        BucketCount { bucket, count, worst: Severity::ERROR, first_ns }
    }

    proptest! {
        #[test]
        fn deviation_has_the_sign_of_the_distance(
            mut counts in prop::collection::vec(0u32..1000, 6..80), now in 0u32..5000,
        ) {
            let found = deviation(&mut counts, now).unwrap();
            prop_assert_eq!(found.robust_z > 0.0, f64::from(now) > found.median);
        }

        /// Shards send sums in any order and partition.
        #[test]
        fn deviation_is_independent_of_order_and_partition(
            mut facts in prop::collection::vec((0u32..40, 1u32..9), 1..80), query in 0u32..45,
        ) {
            let fill = |facts: &[(u32, u32)]| {
                let mut all = Baselines::new(bounds(8, 1000));
                for (bucket, count) in facts {
                    all.add(&unit("a"), names::JOURNAL_MESSAGE, in_bucket(*bucket, *count));
                }
                let at_ns = u64::from(query) * BUCKET_NS;
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
    fn empty_buckets_count_as_zero() {
        let mut all = Baselines::new(bounds(8, 1000));
        all.add(&unit("a"), names::SYSTEMD_UNIT_STARTED, in_bucket(100, 1));
        all.add(&unit("a"), names::JOURNAL_MESSAGE, in_bucket(130, 9));
        let at_ns = 130 * BUCKET_NS;
        let found = all.deviation(&unit("a"), names::JOURNAL_MESSAGE, at_ns, at_ns).unwrap();
        assert_eq!((found.now, found.median, found.buckets, found.robust_z), (9, 0.0, 30, 9.0));
    }

    #[test]
    fn short_history_has_no_deviation() {
        let mut all = Baselines::new(bounds(8, 1000));
        all.add(&unit("a"), names::JOURNAL_MESSAGE, in_bucket(130, 9));
        assert_eq!(all.deviation(&unit("a"), names::JOURNAL_MESSAGE, 0, u64::MAX), None);
        assert_eq!(all.deviation(&unit("b"), names::JOURNAL_MESSAGE, 0, u64::MAX), None);
    }

    #[test]
    fn rare_events_are_forgotten_by_their_age() {
        let mut all = Baselines::new(bounds(8, 100));
        for bucket in (0..1000).step_by(30) {
            all.add(&unit("a"), names::JOURNAL_MESSAGE, in_bucket(bucket, 1));
        }
        let kept: Vec<u64> = all
            .between(&unit("a"), 0, u64::MAX)
            .iter()
            .map(|(_, first_ns, _)| first_ns / BUCKET_NS)
            .collect();
        assert_eq!(kept, [900, 930, 960, 990]);
        // One that comes later than that isn't kept either.
        all.add(&unit("a"), names::JOURNAL_MESSAGE, in_bucket(100, 1));
        assert_eq!(all.between(&unit("a"), 0, u64::MAX).len(), 4);
        // The baseline of the second one begins where the memory does, at 891.
        let at_ns = 900 * BUCKET_NS;
        let found = all.deviation(&unit("a"), names::JOURNAL_MESSAGE, at_ns, at_ns).unwrap();
        assert_eq!((found.now, found.buckets), (1, 9));
    }

    #[test]
    fn kept_count_has_first_time_and_severity() {
        let mut all = Baselines::new(bounds(8, 100));
        for (first_ns, worst) in
            [(12_345_678_901, Severity::INFO), (12_345_678_900, Severity::FATAL)]
        {
            let count = BucketCount { bucket: 1, count: 1, worst, first_ns };
            all.add(&unit("a"), names::JOURNAL_MESSAGE, count);
        }
        let expected = (names::JOURNAL_MESSAGE, 12_345_678_900, Severity::FATAL);
        assert_eq!(all.between(&unit("a"), 0, u64::MAX), [expected]);
    }

    #[test]
    fn entities_and_buckets_are_bounded() {
        let mut all = Baselines::new(bounds(2, 4));
        for (n, name) in ["a", "b", "c"].iter().enumerate() {
            for bucket in 0..10 {
                all.add(&unit(name), names::JOURNAL_MESSAGE, in_bucket(bucket + n as u32, 1));
            }
        }
        assert_eq!((all.len(), all.evicted()), (2, 1));
        assert_eq!(all.between(&unit("c"), 0, u64::MAX).len(), 4);
        assert!(all.between(&unit("a"), 0, u64::MAX).is_empty());
    }
}
