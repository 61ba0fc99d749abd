//! The counters of a shard, for other threads.

use crate::shard::shard::ShardStats;

tapio_core::counters! {
    /// The counters of a shard, for other threads.
    pub struct WorkerStats {
        events: Counter = "Events processed",
        events_waiting: Gauge = "Events that wait for the watermark",
        events_forced: Counter = "Events processed before the watermark, for lack of room",
        events_late: Counter = "Late events: older than the watermark",
        events_unrecorded: Counter =
            "Relevant events missing from the recovery log, for lack of room in its ring",
        matches: Counter = "Matches completed",
        keys: Gauge = "Join keys with state, by rule",
        keys_evicted: Counter = "Join keys evicted",
        partial_matches_dropped: Counter =
            "Partial matches dropped because their key had too many",
        stories_open: Gauge = "Open stories",
        stories_opened: Counter = "Stories opened",
        stories_closed: Counter = "Stories closed",
        stories_expired: Counter = "Stories ended by age or for lack of room",
        stories_relinked: Counter =
            "Stories emitted under another id because event time begins them with another event",
        stories_retracted: Counter = "Emitted stories that event time didn't confirm",
        stories_dropped_unemitted: Counter = "Stories evicted before they were emitted",
        lifecycles: Gauge = "Lifecycles tracked",
        lifecycles_opened: Counter = "Lifecycles started",
        lifecycles_evicted: Counter = "Lifecycles evicted",
        entity_histories_evicted: Counter = "Entities whose recent history was evicted",
        evidence_dropped: Counter =
            "Facts dropped for lack of room in the ring to the assessor",
    }
}

impl WorkerStats {
    /// Publishes the counters of the shard. The worker adds its own.
    pub(crate) fn publish(&self, stats: &ShardStats) {
        let ShardStats { lane, event_time, .. } = stats;
        self.matches.set(lane.matches);
        self.keys.set(lane.keys);
        self.keys_evicted.set(lane.keys_evicted);
        self.partial_matches_dropped.set(lane.partial_matches_dropped);
        self.stories_open.set(lane.stories_open);
        self.stories_opened.set(lane.stories_opened);
        self.stories_closed.set(lane.stories_closed);
        self.stories_expired.set(lane.stories_expired);
        self.events_waiting.set(event_time.waiting);
        self.events_forced.set(event_time.forced);
        self.events_late.set(event_time.late);
        self.stories_relinked.set(event_time.relinked);
        self.stories_retracted.set(event_time.retracted);
        self.stories_dropped_unemitted.set(event_time.dropped_unemitted);
        self.lifecycles.set(stats.lifecycles);
        self.lifecycles_opened.set(stats.lifecycles_opened);
        self.lifecycles_evicted.set(stats.lifecycles_evicted);
        self.entity_histories_evicted.set(stats.entity_histories_evicted);
    }
}
