//! The limit of requests: a bucket of tokens.

use std::time::{Duration, Instant};

use super::config::RateLimit;

/// Allows so many requests at once, and as many within each time after that.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: RateLimit,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(limit: RateLimit, now: Instant) -> Self {
        Self { limit, tokens: f64::from(limit.requests), filled: now }
    }

    /// The time to wait before the next request; zero if it may be sent now.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        let per_second = f64::from(self.limit.requests) / self.limit.per.as_secs_f64();
        let filled = now.saturating_duration_since(self.filled).as_secs_f64() * per_second;
        self.tokens = (self.tokens + filled).min(f64::from(self.limit.requests));
        self.filled = now;
        if self.tokens >= 1.0 {
            return Duration::ZERO;
        }
        // Rounded up: a timer that is early would fire twice.
        Duration::from_secs_f64((1.0 - self.tokens) / per_second) + Duration::from_millis(1)
    }

    /// Counts a request.
    pub(super) fn take(&mut self) {
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::clock;

    #[test]
    fn requests_beyond_the_limit_wait() {
        let start = clock::instant();
        let limit = RateLimit { requests: 2, per: Duration::from_secs(10) };
        let mut bucket = Bucket::new(limit, start);
        for _ in 0..2 {
            assert_eq!(bucket.wait(start), Duration::ZERO);
            bucket.take();
        }
        let wait = bucket.wait(start);
        assert!(wait >= Duration::from_secs(5) && wait < Duration::from_millis(5_010), "{wait:?}");
        assert_eq!(bucket.wait(start + wait), Duration::ZERO);
        bucket.take();
        // An hour of silence allows no more than the limit.
        let later = start + Duration::from_secs(3_600);
        bucket.wait(later);
        (0..2).for_each(|_| bucket.take());
        assert!(bucket.wait(later) > Duration::ZERO);
    }
}
