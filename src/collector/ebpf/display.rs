//! Sizes and durations as event messages show them.

use std::fmt;

/// A size in bytes: `15.9 MiB`.
pub(super) struct ByteSize(pub(super) u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", units[unit])
    }
}

/// A duration in nanoseconds: `3.4 ms`.
pub(super) struct Elapsed(pub(super) u64);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n < 1_000_000 => write!(f, "{} µs", n / 1_000),
            n if n < 1_000_000_000 => write!(f, "{:.1} ms", n as f64 / 1e6),
            n if n < 120_000_000_000 => write!(f, "{:.1} s", n as f64 / 1e9),
            n => write!(f, "{} min", n / 60_000_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_the_magnitude() {
        assert_eq!(ByteSize(16 << 20).to_string(), "16.0 MiB");
        assert_eq!(ByteSize(0).to_string(), "0.0 KiB");
        assert_eq!(Elapsed(3_420_000).to_string(), "3.4 ms");
    }
}
