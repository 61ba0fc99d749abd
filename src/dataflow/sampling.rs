//! The part of traces and log records from which the usual behaviour of services is learned: at
//! high rates one of two, four, … The assessor adapts it; collectors read it, because a log record
//! that nothing is learned from and no rule needs can pass as it came.

use std::sync::atomic::{AtomicU32, Ordering};

/// The level at which nothing is taken.
const NOTHING: u32 = 65;

/// How many are taken: one of 2 to the power of a level. Read with every record: nothing that is
/// written often is on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Sampling {
    // Relaxed, here and below: a level stands for itself, and any that was set before will do.
    traces: AtomicU32,
    logs: AtomicU32,
}

impl Sampling {
    /// Whether a trace is learned from, with all its spans and log records. `trace`: a half of its
    /// id.
    #[must_use]
    pub fn takes_trace(&self, trace: u64) -> bool {
        takes(trace, self.traces.load(Ordering::Relaxed))
    }

    /// Whether a log record without a trace is learned from.
    #[must_use]
    pub fn takes_log(&self, time_ns: u64) -> bool {
        takes(time_ns, self.logs.load(Ordering::Relaxed))
    }

    /// The level of log records.
    pub(crate) fn log_level(&self) -> u32 {
        self.logs.load(Ordering::Relaxed)
    }

    pub(crate) fn set_traces(&self, level: u32) {
        self.traces.store(level, Ordering::Relaxed);
    }

    pub(crate) fn set_logs(&self, level: u32) {
        self.logs.store(level, Ordering::Relaxed);
    }

    /// Takes nothing: there is no assessor.
    pub fn stop(&self) {
        self.set_traces(NOTHING);
        self.set_logs(NOTHING);
    }
}

fn takes(bits: u64, level: u32) -> bool {
    // The multiplier of Knuth's multiplicative hash, for 64 bits.
    bits.wrapping_mul(0x9e37_79b9_7f4a_7c15).leading_zeros() >= level
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_takes_its_part() {
        let sampling = Sampling::default();
        assert!((0..1000).all(|n| sampling.takes_log(n) && sampling.takes_trace(n)));
        sampling.set_logs(3);
        let taken = (0..8000).filter(|n| sampling.takes_log(*n * 1000)).count();
        assert!((900..1100).contains(&taken), "{taken}");
        sampling.stop();
        assert!(!(0..1000).any(|n| sampling.takes_log(n) || sampling.takes_trace(n)));
    }
}
