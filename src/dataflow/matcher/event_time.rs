//! Event time as it is processed: times of the future are of now.

/// The most by which a clock may be ahead: beyond it, its events count as of now. The wall clock is
/// read once for many events.
const MAX_AHEAD_NS: u64 = 1_000_000_000;

/// How far event time is by an event of this time, as it is processed: a clock that is ahead, or a
/// sender that claims to be, moves nobody's time into the future.
pub(crate) fn reached_by(time_ns: u64, now_ns: u64) -> u64 {
    if time_ns > now_ns.saturating_add(MAX_AHEAD_NS) { now_ns } else { time_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_future_are_of_now() {
        let now_ns = 1_000_000_000_000;
        for (time_ns, expected) in [
            (now_ns - 1, now_ns - 1),
            (now_ns + MAX_AHEAD_NS, now_ns + MAX_AHEAD_NS),
            (now_ns + MAX_AHEAD_NS + 1, now_ns),
            (u64::MAX, now_ns),
        ] {
            assert_eq!(reached_by(time_ns, now_ns), expected);
        }
    }
}
