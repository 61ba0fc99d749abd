//! Random numbers of the tests that generate stories.

use tapio_core::event::Severity;

/// SplitMix64: the same stories on every host.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to less than 1.
    pub(super) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.next() < probability
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next()
    }

    /// An approximately normal deviate: the sum of twelve uniform ones.
    pub(super) fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        mean + deviation * ((0..12).map(|_| self.next()).sum::<f64>() - 6.0)
    }

    /// A severity by the shares, which sum up to 1.
    pub(super) fn pick(&mut self, shares: &[(f64, Severity)]) -> Severity {
        let mut at = self.next();
        for (share, severity) in shares {
            at -= share;
            if at < 0.0 {
                return *severity;
            }
        }
        Severity::ERROR
    }
}
