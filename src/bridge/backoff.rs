//! Pauses between attempts: exponential, with full jitter, so that a thousand agents don't come
//! back to a server that restarts all at once.

use std::time::Duration;

/// The first pause's upper bound.
const FIRST: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Backoff {
    longest: Duration,
    bound: Duration,
    state: u64,
}

impl Backoff {
    /// `seed` is any number that differs between agents.
    pub(super) fn new(longest: Duration, seed: u64) -> Self {
        Self { longest, bound: FIRST.min(longest), state: seed | 1 }
    }

    /// The next pause: anything from nothing to a bound that doubles each time.
    pub(super) fn next_pause(&mut self) -> Duration {
        // xorshift64*: any spread will do here.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let share =
            (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64;
        let pause = self.bound.mul_f64(share);
        self.bound = (self.bound * 2).min(self.longest);
        pause
    }

    pub(super) fn reset(&mut self) {
        self.bound = FIRST.min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_spread_and_stay_bounded() {
        let longest = Duration::from_secs(2);
        let mut backoff = Backoff::new(longest, 42);
        assert!(backoff.next_pause() <= FIRST);
        let late: Vec<Duration> = (0..1000).map(|_| backoff.next_pause()).skip(10).collect();
        assert!(late.iter().all(|p| *p <= longest));
        let mean = late.iter().sum::<Duration>() / late.len() as u32;
        assert!(mean > longest.mul_f64(0.45) && mean < longest.mul_f64(0.55), "{mean:?}");
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
    }
}
