//! The counters of a shard, for other threads.

use crate::shard::shard::ShardStats;

tapio_core::counters! {
    /// The counters of a shard, for other threads.
    pub struct WorkerStats {
        events: Counter = "Events processed by the shard.",
        rounds: Counter = "Passes of the shard over its rings, one a second at least.",
        event_time_lane_events: Gauge = "Events that wait in the event-time lane for the watermark.",
        events_forced: Counter =
            "Events that the event-time lane processed before the watermark, for lack of room.",
        events_late: Counter = "Events older than the watermark.",
        recovery_log_overruns: Counter =
            "Relevant events not recorded because the ring to the recovery log was full.",
        rule_matches: Counter = "Matches of rules; an aggregate counts each time its condition holds.",
        join_keys: Gauge = "Join keys with a partial match or an open window.",
        join_keys_evicted: Counter = "Join keys evicted to stay within dataflow.max_keys.",
        baselines: Gauge = "Join keys whose usual values are learned for a condition with a deviation.",
        baselines_evicted: Counter =
            "Join keys whose usual values were forgotten to stay within a fourth of dataflow.max_keys.",
        partial_matches_dropped: Counter =
            "Partial matches dropped because their key had too many.",
        stories_open: Gauge = "Stories open now.",
        stories_opened: Counter = "Stories opened by a match.",
        stories_closed: Counter = "Stories that closed.",
        stories_expired: Counter =
            "Stories ended by age or to stay within dataflow.max_stories.",
        stories_relinked: Counter =
            "Stories that event time begins with another event than the order of arrival did.",
        stories_retracted: Counter =
            "Emitted stories that the event-time lane did not confirm.",
        stories_evicted_unemitted: Counter =
            "Stories evicted for lack of room before they were emitted.",
        correlation_failures: Counter =
            "Failures of rules, and of other code while events are correlated.",
        join_keys_failed: Counter = "Join keys dropped because their rule failed.",
        events_repeated: Counter =
            "Events with the id of one that was correlated lately, or about the fact of another one; they are forwarded and count once.",
        events_uncorrelated: Counter =
            "Events forwarded without correlation because memory was at its limit.",
        lifecycles: Gauge = "Lifecycles of pods, units and process trees tracked now.",
        lifecycles_opened: Counter = "Lifecycles begun.",
        lifecycles_evicted: Counter = "Lifecycles evicted for lack of room.",
        feature_histories_evicted: Counter =
            "Entities whose recent history of features was evicted for lack of room.",
        evidence_messages_dropped: Counter =
            "Evidence messages dropped because the ring to the assessor was full.",
        stories_unassessed: Counter =
            "Story revisions sent without root causes and impact because the assessor was behind.",
    }
}

impl WorkerStats {
    /// Publishes the counters of the shard. The worker adds its own.
    pub(crate) fn publish(&self, stats: &ShardStats) {
        let ShardStats { lane, event_time, .. } = stats;
        self.rule_matches.set(lane.matches);
        self.join_keys.set(lane.keys);
        self.join_keys_evicted.set(lane.keys_evicted);
        self.baselines.set(lane.baselines);
        self.baselines_evicted.set(lane.baselines_evicted);
        self.partial_matches_dropped.set(lane.partial_matches_dropped);
        self.stories_open.set(lane.stories_open);
        self.stories_opened.set(lane.stories_opened);
        self.stories_closed.set(lane.stories_closed);
        self.stories_expired.set(lane.stories_expired);
        self.event_time_lane_events.set(event_time.waiting);
        self.events_forced.set(event_time.forced);
        self.events_late.set(event_time.late);
        self.stories_relinked.set(event_time.relinked);
        self.stories_retracted.set(event_time.retracted);
        self.stories_evicted_unemitted.set(event_time.dropped_unemitted);
        self.correlation_failures.set(stats.failures);
        self.join_keys_failed.set(stats.keys_failed);
        self.events_repeated.set(lane.repeated);
        self.events_uncorrelated.set(stats.uncorrelated);
        self.lifecycles.set(stats.lifecycles);
        self.lifecycles_opened.set(stats.lifecycles_opened);
        self.lifecycles_evicted.set(stats.lifecycles_evicted);
        self.feature_histories_evicted.set(stats.feature_histories_evicted);
    }
}
