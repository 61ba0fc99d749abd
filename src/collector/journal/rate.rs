//! The rate limit of each unit: a token bucket.

use std::collections::HashMap;
use std::sync::Arc;

use crate::runtime::LiveRate;

/// Maximum number of buckets. Full buckets are evicted first: a new bucket is full too.
const MAX_UNITS: usize = 4_096;

struct Bucket {
    tokens: f64,
    at_ns: u64,
}

/// Limits the records of each unit.
pub(super) struct RateLimiter {
    /// Records per second; zero for no limit.
    per_second: f64,
    burst: f64,
    buckets: HashMap<Box<str>, Bucket>,
    /// Replaces both numbers once it is set.
    live: Arc<LiveRate>,
}

impl RateLimiter {
    /// Admits `per_second` records of each unit on average, and `burst` at once after a pause.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        let (per_second, buckets) = (f64::from(per_second), HashMap::new());
        Self { per_second, burst, buckets, live: Arc::default() }
    }

    /// Follows a limit that changes.
    pub(super) fn following(mut self, live: Arc<LiveRate>) -> Self {
        self.live = live;
        self
    }

    /// Whether a record of this unit is within its limit. `now_ns`: CLOCK_MONOTONIC.
    pub(super) fn admits(&mut self, unit: &str, now_ns: u64) -> bool {
        if let Some((per_second, burst)) = self.live.get() {
            (self.per_second, self.burst) = (f64::from(per_second), f64::from(burst.max(1)));
        }
        if self.per_second == 0.0 {
            return true;
        }
        if !self.buckets.contains_key(unit) {
            if self.buckets.len() >= MAX_UNITS {
                self.evict(now_ns);
            }
            self.buckets.insert(unit.into(), Bucket { tokens: self.burst, at_ns: now_ns });
        }
        let Some(bucket) = self.buckets.get_mut(unit) else { return false };
        let passed_s = now_ns.saturating_sub(bucket.at_ns) as f64 / 1e9;
        bucket.tokens = (bucket.tokens + passed_s * self.per_second).min(self.burst);
        bucket.at_ns = now_ns;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Evicts the buckets that are full by now, or all if none is.
    fn evict(&mut self, now_ns: u64) {
        let (rate, burst) = (self.per_second, self.burst);
        self.buckets
            .retain(|_, b| b.tokens + now_ns.saturating_sub(b.at_ns) as f64 / 1e9 * rate < burst);
        if self.buckets.len() >= MAX_UNITS {
            self.buckets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_limit_is_in_force_for_the_next_record() {
        let live = Arc::new(LiveRate::default());
        let mut rates = RateLimiter::new(0, 1).following(Arc::clone(&live));
        let admitted = |rates: &mut RateLimiter, now_ns| {
            (0..100).filter(|_| rates.admits("a", now_ns)).count()
        };
        assert_eq!(admitted(&mut rates, 0), 100);
        live.set(10, 5);
        assert_eq!(admitted(&mut rates, 1), 5);
        live.set(20, 50);
        assert_eq!(admitted(&mut rates, 1_000_000_001), 20);
        live.set(0, 1);
        assert_eq!(admitted(&mut rates, 1_000_000_001), 100);
    }

    #[test]
    fn burst_is_admitted_then_average_rate() {
        let mut rates = RateLimiter::new(10, 5);
        let admitted = |rates: &mut RateLimiter, unit: &str, now_ns, n| {
            (0..n).filter(|_| rates.admits(unit, now_ns)).count()
        };
        assert_eq!(admitted(&mut rates, "a", 0, 100), 5);
        assert_eq!(admitted(&mut rates, "b", 0, 100), 5, "each unit has its own");
        assert_eq!(admitted(&mut rates, "a", 1_000_000_000, 100), 5);
        assert_eq!(admitted(&mut rates, "a", 1_200_000_000, 100), 2);
        assert_eq!(admitted(&mut RateLimiter::new(0, 1), "a", 0, 100), 100, "no limit");
        for n in 0..3 * MAX_UNITS {
            rates.admits(&n.to_string(), 1_300_000_000);
        }
        assert!(rates.buckets.len() <= MAX_UNITS);
    }
}
