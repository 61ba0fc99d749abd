//! Pauses between attempts to connect: exponential, with full jitter, so that a thousand agents
//! don't reconnect to a restarted server all at once.

use std::time::Duration;

/// Upper bound of the first pause.
const INITIAL_BOUND: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Backoff {
    max_pause: Duration,
    bound: Duration,
    state: u64,
}

impl Backoff {
    /// `seed` is any number that differs between agents.
    pub(super) fn new(max_pause: Duration, seed: u64) -> Self {
        Self { max_pause, bound: INITIAL_BOUND.min(max_pause), state: seed | 1 }
    }

    /// The next pause: a random time up to a bound that doubles each time.
    pub(super) fn next_pause(&mut self) -> Duration {
        // xorshift64*: any distribution is good enough here.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let share =
            (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64;
        let pause = self.bound.mul_f64(share);
        self.bound = (self.bound * 2).min(self.max_pause);
        pause
    }

    pub(super) fn reset(&mut self) {
        self.bound = INITIAL_BOUND.min(self.max_pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_with_jitter() {
        let longest = Duration::from_secs(2);
        let mut backoff = Backoff::new(longest, 42);
        assert!(backoff.next_pause() <= INITIAL_BOUND);
        let late: Vec<Duration> = (0..1000).map(|_| backoff.next_pause()).skip(10).collect();
        assert!(late.iter().all(|p| *p <= longest));
        let mean = late.iter().sum::<Duration>() / late.len() as u32;
        assert!(mean > longest.mul_f64(0.45) && mean < longest.mul_f64(0.55), "{mean:?}");
        backoff.reset();
        assert!(backoff.next_pause() <= INITIAL_BOUND);
    }
}
