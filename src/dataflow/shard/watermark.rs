//! The watermark: the event time before which no more events are expected. It follows the event
//! times of the sources, and the wall clock only while all of them are silent.

use tapio_core::event::ClockQuality;
use tapio_core::ring::MAX_COLLECTORS;

/// A clock without an event for this long doesn't hold back the watermark.
const IDLE_NS: u64 = 1_000_000_000;
/// The most by which the watermark waits longer for silent sources that report history.
const MAX_PATIENCE_NS: u64 = 30_000_000_000;
/// The largest lag that widens the slack. A source that is later reports history.
pub(crate) const MAX_LAG_NS: u64 = 10_000_000_000;
/// By how much later than the last one the next event of a lagging source is expected: a kubelet
/// sends five Events a second, so in a burst each is later than the one before.
const LAG_GROWTH_NS: u64 = 500_000_000;
/// Clock qualities.
const QUALITIES: usize = 3;

/// The slack of a clock: how far its events can be behind those of other sources, by its resolution
/// and the path of the events.
fn slack_ns(quality: ClockQuality) -> u64 {
    match quality {
        // Straight from the kernel: a batch of the ring buffer.
        ClockQuality::Kernel => 200_000_000,
        // Through a socket and a file.
        ClockQuality::Micros => 500_000_000,
        // The tick itself, and the way through the API server.
        ClockQuality::Seconds => 2_000_000_000,
    }
}

/// One clock of one collector.
#[derive(Clone, Copy, Default)]
struct SourceClock {
    /// The latest event time; 0: no event yet.
    latest_ns: u64,
    /// When the last event was seen, by the driver's clock.
    seen_ns: u64,
    /// The recent lag of its events.
    lag_ns: u64,
}

impl SourceClock {
    /// The expected lag of its next event: it decays by half of the time since the last event.
    fn lag_at(&self, now_ns: u64) -> u64 {
        self.lag_ns.saturating_sub(now_ns.saturating_sub(self.seen_ns) / 2)
    }
}

/// The clocks of all sources, and the slack behind them.
pub(crate) struct Watermark {
    clocks: [[SourceClock; QUALITIES]; MAX_COLLECTORS],
    /// Bit n: the times of collector n are its senders' choice.
    given_times: u32,
    /// The slack that the rules ask for; `None`: by the clocks.
    slack_ns: Option<u64>,
    /// The slack of the coarsest clock seen.
    coarsest_ns: u64,
}

impl Watermark {
    /// Creates a watermark with the slack that the rules ask for; `None`: by the clocks.
    /// `given_times`: bit n is set for a collector whose senders choose the times of its events.
    /// While another source is active, such times hold the watermark back by [`MAX_LAG_NS`] at
    /// most.
    pub(crate) fn new(slack_ns: Option<u64>, given_times: u32) -> Self {
        Self {
            clocks: [[SourceClock::default(); QUALITIES]; MAX_COLLECTORS],
            given_times,
            slack_ns,
            coarsest_ns: 0,
        }
    }

    /// Sets the slack that the rules ask for.
    pub(crate) fn set_slack(&mut self, slack_ns: Option<u64>) {
        self.slack_ns = slack_ns;
    }

    /// Records the time of an event. Returns the event's lag.
    pub(crate) fn observe(
        &mut self,
        collector: u8,
        quality: ClockQuality,
        time_ns: u64,
        now_ns: u64,
    ) -> u64 {
        let clock =
            &mut self.clocks[usize::from(collector) % MAX_COLLECTORS][quality as usize % QUALITIES];
        if clock.latest_ns == 0 {
            self.coarsest_ns = self.coarsest_ns.max(slack_ns(quality));
        }
        let lag_ns = now_ns.saturating_sub(time_ns);
        let decayed_ns = clock.lag_at(now_ns);
        clock.lag_ns = if lag_ns <= MAX_LAG_NS { decayed_ns.max(lag_ns) } else { decayed_ns };
        // A clock that runs ahead must not make the events of all others late.
        clock.latest_ns = clock.latest_ns.max(time_ns.min(now_ns));
        clock.seen_ns = now_ns;
        lag_ns
    }

    /// The watermark by the clocks. `min_slack_ns`: the least slack, whatever rules and clocks ask
    /// for.
    pub(crate) fn at(&self, now_ns: u64, min_slack_ns: u64) -> u64 {
        let seen = || self.clocks.iter().flatten().filter(|c| c.latest_ns > 0);
        let earliest = |given: bool| {
            let of_kind = (0u32..).zip(&self.clocks).filter(|(n, _)| self.is_given(*n) == given);
            let clocks = of_kind.flat_map(|(_, clocks)| clocks).filter(|c| c.latest_ns > 0);
            let active = clocks.filter(|c| now_ns.saturating_sub(c.seen_ns) <= IDLE_NS);
            active.map(|c| c.latest_ns).min()
        };
        let reached_ns = match (earliest(false), earliest(true)) {
            (Some(own_ns), Some(given_ns)) => {
                own_ns.min(given_ns.max(now_ns.saturating_sub(MAX_LAG_NS)))
            }
            (Some(earliest_ns), None) | (None, Some(earliest_ns)) => earliest_ns,
            (None, None) => {
                // All are silent: time advances with the wall clock.
                let Some(newest) = seen().max_by_key(|c| c.latest_ns) else { return 0 };
                let silent_ns = now_ns.saturating_sub(newest.seen_ns);
                // A source that reports history does so at its own pace: its silence means less.
                let lag_ns = newest.seen_ns.saturating_sub(newest.latest_ns).min(MAX_PATIENCE_NS);
                newest.latest_ns.saturating_add(silent_ns.saturating_sub(IDLE_NS + lag_ns))
            }
        };
        let slack_ns = self.slack_ns.unwrap_or_else(|| self.slack_at(now_ns));
        reached_ns.saturating_sub(slack_ns.max(min_slack_ns))
    }

    fn is_given(&self, collector: u32) -> bool {
        self.given_times >> collector & 1 == 1
    }

    /// The slack by the coarsest clock, or more where the source with the largest lag needs it.
    fn slack_at(&self, now_ns: u64) -> u64 {
        let lags = self.clocks.iter().flatten().map(|c| c.lag_at(now_ns)).filter(|lag| *lag > 0);
        let lag_ns = lags.max().map_or(0, |lag| lag.saturating_add(LAG_GROWTH_NS));
        self.coarsest_ns.max(lag_ns)
    }
}
