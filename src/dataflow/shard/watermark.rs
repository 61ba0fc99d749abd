//! Events that wait for their place in the total order while they stream: each is given out when
//! nothing earlier is expected any more. What that means is decided by the events' own times, and
//! by the wall clock only where a source is silent.

use std::collections::BTreeMap;
use std::sync::Arc;

use tapio_core::event::ClockQuality;
use tapio_core::ring::{MAX_COLLECTORS, OwnedRecord};

/// A source nothing was heard of for so long holds nobody back.
const IDLE_NS: u64 = 1_000_000_000;
/// How long a source that tells of the past may be silent at most.
const MAX_PATIENCE_NS: u64 = 30_000_000_000;
/// How late a source may be for others to wait for it. One that is later tells of the past.
const MAX_LAG_NS: u64 = 10_000_000_000;
/// How much later than the last one its next event is expected, where a source falls behind: a kubelet sends five Events a
/// second, so in a burst each is later than the one before.
const LAG_GROWS_NS: u64 = 500_000_000;
/// How long after a break every source is given to say what happened meanwhile.
const CATCH_UP_NS: u64 = 5_000_000_000;
/// How long after the last word of the past another one may follow.
const NEXT_WORD_NS: u64 = 2_000_000_000;
/// Events that wait at once; past it the earliest goes on before its time, and is counted.
const MAX_WAITING: usize = 16_384;
/// Clocks by how finely they tick.
const QUALITIES: usize = 3;

/// How far a source's times can lie behind what has already been seen of others: how finely its
/// clock ticks, and the way its events take to us.
#[must_use]
pub(crate) fn slack_ns(quality: ClockQuality) -> u64 {
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
struct Clock {
    /// The latest event time seen; 0: none yet.
    latest_ns: u64,
    /// When the last event was seen, by the driver's clock.
    seen_ns: u64,
    /// How late its events came lately.
    lag_ns: u64,
}

impl Clock {
    /// How late its next event may be: half as much after as long a silence again.
    fn lag_at(&self, now_ns: u64) -> u64 {
        self.lag_ns.saturating_sub(now_ns.saturating_sub(self.seen_ns) / 2)
    }
}

/// What happened while nobody looked is told by each source as soon as it is there again, by some later than others
/// tell what happens now.
#[derive(Clone, Copy)]
enum Break {
    /// None, or it is over.
    Over,
    /// What was seen before it is shown again.
    Showing,
    /// Nothing was seen since.
    Before,
    /// The watermark stays until then; the other is when it goes on at the latest.
    Until(u64, u64),
}

/// A place in the total order: event time, collector, place in the collector's own order.
type Place = (u64, u8, u64);

/// Events that wait for the watermark.
pub(crate) struct Reorder {
    waiting: BTreeMap<Place, Arc<OwnedRecord>>,
    clocks: [[Clock; QUALITIES]; MAX_COLLECTORS],
    /// What the rules ask for; `None`: as the clocks say.
    slack_ns: Option<u64>,
    /// The coarsest clock seen.
    coarsest_ns: u64,
    /// Everything up to here has been given out.
    released_ns: u64,
    after_break: Break,
    /// Given out before their time, for want of room.
    pub(crate) forced: u64,
}

impl Reorder {
    pub(crate) fn new(slack_ns: Option<u64>) -> Self {
        Self {
            waiting: BTreeMap::new(),
            clocks: [[Clock::default(); QUALITIES]; MAX_COLLECTORS],
            slack_ns,
            coarsest_ns: 0,
            released_ns: 0,
            after_break: Break::Over,
            forced: 0,
        }
    }

    /// Takes over what other rules ask for. The watermark never goes back.
    pub(crate) fn set_slack(&mut self, slack_ns: Option<u64>) {
        self.slack_ns = slack_ns;
    }

    /// What comes now was seen before a break. How late sources were then isn't known any more, so that the watermark
    /// stays as far back as any may be: what they say after the break may be as old.
    pub(crate) fn show_past(&mut self) {
        self.after_break = Break::Showing;
    }

    /// The past was shown: what follows begins with what happened meanwhile.
    pub(crate) fn go_on_after_break(&mut self) {
        self.after_break = Break::Before;
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Everything of before this time has been given out.
    pub(crate) fn released_ns(&self) -> u64 {
        self.released_ns
    }

    /// Whether some must go on before their time.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() > MAX_WAITING
    }

    /// Takes note of an event's time, wanted or not: it shows how far its source is.
    pub(crate) fn observe(
        &mut self,
        collector: u8,
        quality: ClockQuality,
        time_ns: u64,
        now_ns: u64,
    ) {
        let clock =
            &mut self.clocks[usize::from(collector) % MAX_COLLECTORS][quality as usize % QUALITIES];
        if clock.latest_ns == 0 {
            self.coarsest_ns = self.coarsest_ns.max(slack_ns(quality));
        }
        let lag_ns = now_ns.saturating_sub(time_ns);
        let still_ns = clock.lag_at(now_ns);
        clock.lag_ns = if lag_ns <= MAX_LAG_NS { still_ns.max(lag_ns) } else { still_ns };
        // A clock that runs ahead mustn't make everybody else late.
        clock.latest_ns = clock.latest_ns.max(time_ns.min(now_ns.saturating_add(IDLE_NS)));
        clock.seen_ns = now_ns;
        if let Break::Until(until_ns, most_ns) = &mut self.after_break
            && lag_ns > MAX_LAG_NS
        {
            *until_ns = (*until_ns).max(now_ns.saturating_add(NEXT_WORD_NS)).min(*most_ns);
        }
    }

    /// Whether the place of an event of this time has been given out.
    pub(crate) fn is_late(&self, time_ns: u64) -> bool {
        time_ns < self.released_ns
    }

    /// Keeps an event that isn't late until its place has come.
    pub(crate) fn hold(&mut self, order: u64, record: Arc<OwnedRecord>) {
        let header = *record.record().header();
        self.waiting.insert((header.time_ns, header.collector, order), record);
    }

    /// Up to which event time nothing earlier is expected.
    fn watermark_ns(&self, now_ns: u64) -> u64 {
        let seen = || self.clocks.iter().flatten().filter(|c| c.latest_ns > 0);
        let active = seen().filter(|c| now_ns.saturating_sub(c.seen_ns) <= IDLE_NS);
        let reached = match active.map(|c| c.latest_ns).min() {
            Some(earliest_ns) => earliest_ns,
            None => {
                // All are silent: time goes on as the wall clock does.
                let Some(newest) = seen().max_by_key(|c| c.latest_ns) else { return 0 };
                let silent_ns = now_ns.saturating_sub(newest.seen_ns);
                // A source that tells of the past tells it at a pace of its own: its silence says
                // less.
                let lag_ns = newest.seen_ns.saturating_sub(newest.latest_ns).min(MAX_PATIENCE_NS);
                newest.latest_ns.saturating_add(silent_ns.saturating_sub(IDLE_NS + lag_ns))
            }
        };
        let slack_ns = self.slack_ns.unwrap_or_else(|| self.slack_at(now_ns));
        let is_past = matches!(self.after_break, Break::Showing);
        reached.saturating_sub(if is_past { slack_ns.max(MAX_LAG_NS) } else { slack_ns })
    }

    /// What the clocks ask for, and what the latest of the sources does where it falls behind.
    fn slack_at(&self, now_ns: u64) -> u64 {
        let lags = self.clocks.iter().flatten().map(|c| c.lag_at(now_ns)).filter(|lag| *lag > 0);
        let lag_ns = lags.max().map_or(0, |lag| lag.saturating_add(LAG_GROWS_NS));
        self.coarsest_ns.max(lag_ns)
    }

    /// Moves the watermark. Returns it.
    pub(crate) fn advance(&mut self, now_ns: u64) -> u64 {
        match self.after_break {
            Break::Over | Break::Showing => {}
            Break::Before => {
                let [until_ns, most_ns] =
                    [CATCH_UP_NS, MAX_PATIENCE_NS].map(|ns| now_ns.saturating_add(ns));
                self.after_break = Break::Until(until_ns, most_ns);
                return self.released_ns;
            }
            Break::Until(until_ns, _) if now_ns < until_ns => return self.released_ns,
            Break::Until(..) => self.after_break = Break::Over,
        }
        self.released_ns = self.released_ns.max(self.watermark_ns(now_ns));
        self.released_ns
    }

    /// Everything waits for nothing more: the input ended.
    pub(crate) fn end(&mut self) {
        self.released_ns = u64::MAX;
    }

    /// The next event whose place has come. One of the watermark's very time still waits: others
    /// of that time may follow.
    pub(crate) fn pop(&mut self) -> Option<Arc<OwnedRecord>> {
        let time_ns = self.waiting.first_key_value()?.0.0;
        let due = time_ns < self.released_ns;
        if !due && !self.is_full() {
            return None;
        }
        if !due {
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

    fn drained(reorder: &mut Reorder) -> Vec<u64> {
        std::iter::from_fn(|| reorder.pop()).map(|r| r.record().header().time_ns).collect()
    }

    #[test]
    fn after_a_break_the_sources_say_first_what_happened_meanwhile() {
        let mut reorder = Reorder::new(None);
        let before = 1_000 * SECOND;
        reorder.show_past();
        reorder.observe(0, ClockQuality::Kernel, before, before);
        reorder.advance(before + SECOND / 2);
        assert!(!reorder.is_late(before - 9 * SECOND), "another may not have told all");
        reorder.go_on_after_break();
        let start = before + 60 * SECOND;
        reorder.advance(start);
        // The kernel has no past to tell, the API server has, and needs a while for it.
        reorder.observe(0, ClockQuality::Kernel, start, start);
        reorder.hold(1, record(0, start));
        reorder.advance(start + 3 * SECOND);
        let meanwhile = before + 20 * SECOND;
        assert!(!reorder.is_late(meanwhile));
        reorder.observe(1, ClockQuality::Seconds, meanwhile, start + 4 * SECOND);
        reorder.hold(2, record(1, meanwhile));
        reorder.advance(start + 5 * SECOND);
        assert!(!reorder.is_late(meanwhile + SECOND), "it hasn't said all yet");
        reorder.advance(start + 10 * SECOND);
        assert_eq!(drained(&mut reorder), [meanwhile, start]);
        // One that goes on about the past holds nobody for ever.
        let mut reorder = Reorder::new(None);
        reorder.go_on_after_break();
        for second in 0..40 {
            let now = start + second * SECOND;
            reorder.advance(now);
            reorder.observe(1, ClockQuality::Seconds, meanwhile, now);
            reorder.observe(0, ClockQuality::Kernel, now, now);
        }
        assert!(matches!(reorder.after_break, Break::Over));
    }

    #[test]
    fn a_silent_source_holds_nobody_back() {
        let mut reorder = Reorder::new(None);
        let start = 1_000 * SECOND;
        for (collector, time_ns) in [(0, start), (1, start)] {
            reorder.observe(collector, ClockQuality::Kernel, time_ns, start);
            reorder.hold(1, record(collector, time_ns));
        }
        reorder.observe(0, ClockQuality::Kernel, start + SECOND, start + SECOND);
        reorder.advance(start + SECOND);
        assert!(drained(&mut reorder).is_empty(), "the other source may still be where it was");
        reorder.observe(0, ClockQuality::Kernel, start + 2 * SECOND, start + 2 * SECOND);
        reorder.advance(start + 2 * SECOND);
        assert_eq!(drained(&mut reorder), [start, start]);
        // Both fall silent: time goes on by the wall clock.
        reorder.hold(2, record(0, start + 2 * SECOND));
        reorder.advance(start + 6 * SECOND);
        assert_eq!(drained(&mut reorder), [start + 2 * SECOND]);
        assert!(reorder.is_late(start));
    }

    #[test]
    fn a_coarse_clock_is_waited_for() {
        let mut reorder = Reorder::new(None);
        let start = 1_000 * SECOND;
        reorder.observe(1, ClockQuality::Seconds, start, start);
        reorder.observe(0, ClockQuality::Kernel, start + 3 * SECOND / 2, start + 3 * SECOND / 2);
        reorder.hold(1, record(0, start + 3 * SECOND / 2));
        // The Kubernetes event of this very moment says it was a second ago.
        reorder.advance(start + 3 * SECOND);
        assert!(!reorder.is_late(start + SECOND));
        reorder.hold(1, record(1, start + SECOND));
        reorder.advance(start + 8 * SECOND);
        assert_eq!(drained(&mut reorder), [start + SECOND, start + 3 * SECOND / 2]);
    }

    #[test]
    fn a_source_that_falls_behind_is_waited_for() {
        let mut reorder = Reorder::new(None);
        let start = 1_000 * SECOND;
        // A burst: what happened in one second is sent at five a second.
        for n in 0..40 {
            let now = start + n * SECOND / 5;
            reorder.observe(0, ClockQuality::Kernel, now, now);
            // Beside what the same source tells in time.
            reorder.observe(1, ClockQuality::Seconds, now, now);
            reorder.observe(1, ClockQuality::Seconds, start, now);
            assert!(!reorder.is_late(start), "number {n} comes {} s late", n / 5);
            reorder.hold(n, record(1, start));
            reorder.advance(now);
        }
        // It is through: nobody waits for it any longer.
        let end = start + 40 * SECOND;
        reorder.observe(0, ClockQuality::Kernel, end, end);
        reorder.advance(end);
        assert_eq!(drained(&mut reorder).len(), 40);
        assert!(reorder.is_late(end - 3 * SECOND));
    }

    #[test]
    fn who_tells_of_the_past_is_not_waited_for() {
        let mut reorder = Reorder::new(None);
        let start = 1_000 * SECOND;
        reorder.observe(0, ClockQuality::Kernel, start, start);
        reorder.observe(1, ClockQuality::Kernel, start - 20 * SECOND, start);
        let now = start + 2 * SECOND;
        reorder.observe(0, ClockQuality::Kernel, now, now);
        reorder.advance(now);
        assert!(reorder.is_late(now - SECOND));
    }

    #[test]
    fn a_clock_that_runs_ahead_makes_nobody_late() {
        let mut reorder = Reorder::new(None);
        let start = 1_000 * SECOND;
        reorder.observe(0, ClockQuality::Kernel, start + 3_600 * SECOND, start);
        reorder.advance(start);
        assert!(!reorder.is_late(start + SECOND));
    }

    proptest! {
        /// However events arrive, within the slack they come out in their order and none is lost.
        #[test]
        fn order_is_restored(
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
            let mut reorder = Reorder::new(None);
            let mut out = Vec::new();
            for (order, (now_ns, time_ns, collector)) in (1u64..).zip(&arrivals) {
                reorder.observe(*collector, ClockQuality::Kernel, *time_ns, *now_ns);
                prop_assert!(!reorder.is_late(*time_ns));
                reorder.hold(order, record(*collector, *time_ns));
                reorder.advance(*now_ns);
                out.extend(drained(&mut reorder));
            }
            reorder.end();
            out.extend(drained(&mut reorder));
            prop_assert!(out.is_sorted(), "{out:?}");
            prop_assert_eq!((out.len(), reorder.forced), (delays.len(), 0));
        }
    }
}
