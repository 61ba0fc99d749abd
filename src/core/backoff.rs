//! Exponential backoff: pauses that double after each failure, up to a maximum.

use std::time::Duration;

/// The pauses between attempts.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    /// The next pause, or its upper bound with jitter.
    next: Duration,
    /// The state of the random numbers; `None` without jitter.
    jitter: Option<u64>,
    has_failed: bool,
}

impl Backoff {
    /// Pauses from `first` to `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        let first = first.min(max);
        Self { first, max, next: first, jitter: None, has_failed: false }
    }

    /// Makes each pause a random time between 0 and its full length, so that a thousand agents
    /// don't reconnect to a restarted server all at once. `seed`: any number that differs between
    /// agents.
    #[must_use]
    pub fn with_jitter(self, seed: u64) -> Self {
        Self { jitter: Some(seed | 1), ..self }
    }

    /// Whether no attempt has failed since the start or the last reset.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        !self.has_failed
    }

    /// The pause before the next attempt; the one after it is twice as long.
    pub fn next_pause(&mut self) -> Duration {
        let pause = match &mut self.jitter {
            Some(state) => self.next.mul_f64(random_fraction(state)),
            None => self.next,
        };
        self.has_failed = true;
        self.next = (self.next * 2).min(self.max);
        pause
    }

    /// Starts with the first pause again.
    pub fn reset(&mut self) {
        self.next = self.first;
        self.has_failed = false;
    }
}

/// A number from 0 to less than 1, by xorshift64*: any distribution is good enough here.
fn random_fraction(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(2);

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(FIRST, MAX);
        assert!(backoff.is_reset());
        let pauses: Vec<u128> = (0..8).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert!(!backoff.is_reset());
        backoff.reset();
        assert_eq!(backoff.next_pause(), FIRST);
    }

    #[test]
    fn jitter_spreads_pauses_from_zero_to_their_length() {
        let mut backoff = Backoff::new(FIRST, MAX).with_jitter(42);
        assert!(backoff.next_pause() <= FIRST);
        let late: Vec<Duration> = (0..1000).map(|_| backoff.next_pause()).skip(10).collect();
        assert!(late.iter().all(|p| *p <= MAX));
        let mean = late.iter().sum::<Duration>() / late.len() as u32;
        assert!(mean > MAX.mul_f64(0.45) && mean < MAX.mul_f64(0.55), "{mean:?}");
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
    }
}
