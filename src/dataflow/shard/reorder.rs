//! The events that wait for the watermark, in total order, while they stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::matcher::event_time::reached_by;
use crate::shard::catch_up::CatchUp;
use crate::shard::watermark::{MAX_LAG_NS, Watermark};
use tapio_core::event::ClockQuality;
use tapio_core::memory::MemoryLevel;
use tapio_core::ring::OwnedRecord;

/// Events that wait at once; beyond it the earliest is forced, and counted.
const MAX_WAITING: usize = 16_384;

/// A position in the total order: event time, collector, position in the collector's order.
type Position = (u64, u8, u64);

/// Buffer that releases events in total order, once the watermark has passed them.
pub(crate) struct ReorderBuffer {
    waiting: BTreeMap<Position, Arc<OwnedRecord>>,
    watermark: Watermark,
    catch_up: CatchUp,
    /// Events that wait at once.
    max_waiting: usize,
    /// The watermark in force. It never goes back; a forced event moves it forward.
    released_ns: u64,
    /// Events released before the watermark, for lack of room.
    pub(crate) forced: u64,
}

impl ReorderBuffer {
    /// Creates a buffer with the slack that the rules ask for; `None`: by the clocks.
    /// `given_times`: as for [`Watermark::new`].
    pub(crate) fn new(slack_ns: Option<u64>, given_times: u32) -> Self {
        Self {
            waiting: BTreeMap::new(),
            watermark: Watermark::new(slack_ns, given_times),
            catch_up: CatchUp::Done,
            max_waiting: MAX_WAITING,
            released_ns: 0,
            forced: 0,
        }
    }

    /// Sets the slack that the reloaded rules ask for.
    pub(crate) fn set_slack(&mut self, slack_ns: Option<u64>) {
        self.watermark.set_slack(slack_ns);
    }

    /// Sets how many events wait at once; those beyond it are forced.
    pub(crate) fn limit(&mut self, level: MemoryLevel) {
        self.max_waiting = level.bound(MAX_WAITING);
    }

    /// The events from now on come from the recovery log.
    pub(crate) fn start_restore(&mut self) {
        self.catch_up = CatchUp::Restoring;
    }

    /// The recovery log ended; sources now report what happened in the meantime.
    pub(crate) fn finish_restore(&mut self) {
        self.catch_up = CatchUp::Restored;
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// All events of before this time have been released.
    pub(crate) fn released_ns(&self) -> u64 {
        self.released_ns
    }

    /// Whether events have to be forced.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() > self.max_waiting
    }

    /// Records the time of an event, relevant or not: it shows how far its source is.
    pub(crate) fn observe(
        &mut self,
        collector: u8,
        quality: ClockQuality,
        time_ns: u64,
        now_ns: u64,
    ) {
        let lag_ns = self.watermark.observe(collector, quality, time_ns, now_ns);
        if lag_ns > MAX_LAG_NS {
            self.catch_up.extend(now_ns);
        }
    }

    /// Whether an event of this time is older than the watermark.
    pub(crate) fn is_late(&self, time_ns: u64) -> bool {
        time_ns < self.released_ns
    }

    /// Holds an event that isn't late until the watermark has passed it; one of the future, as if
    /// it were of now.
    pub(crate) fn hold(&mut self, order: u64, record: Arc<OwnedRecord>, now_ns: u64) {
        let header = *record.record().header();
        let time_ns = reached_by(header.time_ns, now_ns).max(self.released_ns);
        self.waiting.insert((time_ns, header.collector, order), record);
    }

    /// Advances the watermark. Returns it.
    pub(crate) fn advance(&mut self, now_ns: u64) -> u64 {
        if !self.catch_up.holds(now_ns) {
            let min_slack_ns = if self.catch_up.is_restoring() { MAX_LAG_NS } else { 0 };
            self.released_ns = self.released_ns.max(self.watermark.at(now_ns, min_slack_ns));
        }
        self.released_ns
    }

    /// Releases all events, at the end of the input.
    pub(crate) fn end(&mut self) {
        self.released_ns = u64::MAX;
    }

    /// The next event that the watermark has passed. One at the watermark's very time still waits,
    /// since others of that time may follow.
    pub(crate) fn pop(&mut self) -> Option<Arc<OwnedRecord>> {
        let time_ns = self.waiting.first_key_value()?.0.0;
        let is_due = time_ns < self.released_ns;
        if !is_due && !self.is_full() {
            return None;
        }
        if !is_due {
            self.forced += 1;
            self.released_ns = time_ns;
        }
        self.waiting.pop_first().map(|(_, record)| record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use tapio_core::event::{Event, EventId, Name};
    use tapio_core::ring::{Header, ring};

    const SECOND: u64 = 1_000_000_000;

    fn record(collector: u8, time_ns: u64) -> Arc<OwnedRecord> {
        let (mut writer, mut reader) = ring(1 << 12);
        let kind = Name::intern("t.a").unwrap();
        let event = Event::new(EventId::from_sequence(1, 1, time_ns), time_ns, kind, kind);
        writer.write_event(&Header::event(collector, 1, time_ns), &event).unwrap();
        let mut kept = None;
        reader.drain(usize::MAX, |r| {
            kept = Some(Arc::new(r.to_owned()));
            true
        });
        kept.unwrap()
    }

    fn drained(buffer: &mut ReorderBuffer) -> Vec<u64> {
        std::iter::from_fn(|| buffer.pop()).map(|r| r.record().header().time_ns).collect()
    }

    #[test]
    fn watermark_waits_for_history_after_restart() {
        let mut buffer = ReorderBuffer::new(None, 0);
        let before = 1_000 * SECOND;
        buffer.start_restore();
        buffer.observe(0, ClockQuality::Kernel, before, before);
        buffer.advance(before + SECOND / 2);
        assert!(!buffer.is_late(before - 9 * SECOND), "another source may be behind");
        buffer.finish_restore();
        let start = before + 60 * SECOND;
        buffer.advance(start);
        // The kernel has no history to report; the API server has, and takes a while.
        buffer.observe(0, ClockQuality::Kernel, start, start);
        buffer.hold(1, record(0, start), start);
        buffer.advance(start + 3 * SECOND);
        let meanwhile = before + 20 * SECOND;
        assert!(!buffer.is_late(meanwhile));
        buffer.observe(1, ClockQuality::Seconds, meanwhile, start + 4 * SECOND);
        buffer.hold(2, record(1, meanwhile), start + 4 * SECOND);
        buffer.advance(start + 5 * SECOND);
        assert!(!buffer.is_late(meanwhile + SECOND), "more history may follow");
        buffer.advance(start + 10 * SECOND);
        assert_eq!(drained(&mut buffer), [meanwhile, start]);
        // Endless history doesn't hold the watermark forever.
        let mut buffer = ReorderBuffer::new(None, 0);
        buffer.finish_restore();
        for second in 0..40 {
            let now = start + second * SECOND;
            buffer.advance(now);
            buffer.observe(1, ClockQuality::Seconds, meanwhile, now);
            buffer.observe(0, ClockQuality::Kernel, now, now);
        }
        assert!(matches!(buffer.catch_up, CatchUp::Done));
    }

    #[test]
    fn times_that_senders_choose_make_nobody_late() {
        let start = 1_000 * SECOND;
        for given in
            [start + 365 * 86_400 * SECOND, start + 3_600 * SECOND, start + 2 * SECOND + 1, 1]
        {
            let mut buffer = ReorderBuffer::new(None, 0b10);
            for step in 0..100 {
                let now = start + step * SECOND / 10;
                buffer.observe(1, ClockQuality::Micros, given, now);
                buffer.hold(2 * step, record(1, given), now);
                buffer.advance(now);
                // The kernel's events of now, half a second apart.
                if step % 5 == 0 {
                    assert!(!buffer.is_late(now), "{given} {step}");
                    buffer.observe(0, ClockQuality::Kernel, now, now);
                    buffer.hold(2 * step + 1, record(0, now), now);
                }
            }
            // And they wait for ten seconds at most.
            let after = start + 25 * SECOND;
            buffer.observe(0, ClockQuality::Kernel, after, after);
            buffer.observe(1, ClockQuality::Micros, given, after);
            buffer.advance(after);
            let times = drained(&mut buffer);
            assert_eq!(times.iter().filter(|time| **time != given).count(), 20, "{given}");
        }
    }

    #[test]
    fn silent_source_does_not_hold_back_watermark() {
        let mut buffer = ReorderBuffer::new(None, 0);
        let start = 1_000 * SECOND;
        for (collector, time_ns) in [(0, start), (1, start)] {
            buffer.observe(collector, ClockQuality::Kernel, time_ns, start);
            buffer.hold(1, record(collector, time_ns), u64::MAX);
        }
        buffer.observe(0, ClockQuality::Kernel, start + SECOND, start + SECOND);
        buffer.advance(start + SECOND);
        assert!(drained(&mut buffer).is_empty(), "the other source may still be behind");
        buffer.observe(0, ClockQuality::Kernel, start + 2 * SECOND, start + 2 * SECOND);
        buffer.advance(start + 2 * SECOND);
        assert_eq!(drained(&mut buffer), [start, start]);
        // Both are silent: time advances with the wall clock.
        buffer.hold(2, record(0, start + 2 * SECOND), u64::MAX);
        buffer.advance(start + 6 * SECOND);
        assert_eq!(drained(&mut buffer), [start + 2 * SECOND]);
        assert!(buffer.is_late(start));
    }

    #[test]
    fn watermark_waits_for_coarse_clock() {
        let mut buffer = ReorderBuffer::new(None, 0);
        let start = 1_000 * SECOND;
        buffer.observe(1, ClockQuality::Seconds, start, start);
        buffer.observe(0, ClockQuality::Kernel, start + 3 * SECOND / 2, start + 3 * SECOND / 2);
        buffer.hold(1, record(0, start + 3 * SECOND / 2), u64::MAX);
        // The Kubernetes event of this moment has a time of a second ago.
        buffer.advance(start + 3 * SECOND);
        assert!(!buffer.is_late(start + SECOND));
        buffer.hold(1, record(1, start + SECOND), u64::MAX);
        buffer.advance(start + 8 * SECOND);
        assert_eq!(drained(&mut buffer), [start + SECOND, start + 3 * SECOND / 2]);
    }

    #[test]
    fn lagging_source_widens_slack() {
        let mut buffer = ReorderBuffer::new(None, 0);
        let start = 1_000 * SECOND;
        // A burst: the events of one second are sent at five a second.
        for n in 0..40 {
            let now = start + n * SECOND / 5;
            buffer.observe(0, ClockQuality::Kernel, now, now);
            // Besides punctual events of the same source.
            buffer.observe(1, ClockQuality::Seconds, now, now);
            buffer.observe(1, ClockQuality::Seconds, start, now);
            assert!(!buffer.is_late(start), "event {n} lags {} s", n / 5);
            buffer.hold(n, record(1, start), u64::MAX);
            buffer.advance(now);
        }
        // The burst is over: the slack shrinks again.
        let end = start + 40 * SECOND;
        buffer.observe(0, ClockQuality::Kernel, end, end);
        buffer.advance(end);
        assert_eq!(drained(&mut buffer).len(), 40);
        assert!(buffer.is_late(end - 3 * SECOND));
    }

    #[test]
    fn stale_source_does_not_hold_back_watermark() {
        let mut buffer = ReorderBuffer::new(None, 0);
        let start = 1_000 * SECOND;
        buffer.observe(0, ClockQuality::Kernel, start, start);
        buffer.observe(1, ClockQuality::Kernel, start - 20 * SECOND, start);
        let now = start + 2 * SECOND;
        buffer.observe(0, ClockQuality::Kernel, now, now);
        buffer.advance(now);
        assert!(buffer.is_late(now - SECOND));
    }

    #[test]
    fn clock_ahead_does_not_make_others_late() {
        let mut buffer = ReorderBuffer::new(None, 0);
        let start = 1_000 * SECOND;
        buffer.observe(0, ClockQuality::Kernel, start + 3_600 * SECOND, start);
        buffer.advance(start);
        assert!(!buffer.is_late(start + SECOND));
    }

    proptest! {
        /// Events that arrive within the slack are released in order, and none is lost.
        #[test]
        fn total_order_is_restored(
            delays in prop::collection::vec((0..4u8, 0..180u64), 1..80),
        ) {
            let start = 1_000 * SECOND;
            let mut arrivals: Vec<(u64, u64, u8)> = (0u64..)
                .zip(&delays)
                .map(|(i, (collector, delay_ms))| {
                    let time_ns = start + i * 10_000_000;
                    (time_ns + delay_ms * 1_000_000, time_ns, *collector)
                })
                .collect();
            arrivals.sort_unstable();
            let mut buffer = ReorderBuffer::new(None, 0);
            let mut out = Vec::new();
            for (order, (now_ns, time_ns, collector)) in (1u64..).zip(&arrivals) {
                buffer.observe(*collector, ClockQuality::Kernel, *time_ns, *now_ns);
                prop_assert!(!buffer.is_late(*time_ns));
                buffer.hold(order, record(*collector, *time_ns), u64::MAX);
                buffer.advance(*now_ns);
                out.extend(drained(&mut buffer));
            }
            buffer.end();
            out.extend(drained(&mut buffer));
            prop_assert!(out.is_sorted(), "{out:?}");
            prop_assert_eq!((out.len(), buffer.forced), (delays.len(), 0));
        }
    }
}
