//! The metrics of the pipeline: events, stories, shards, evidence, recovery log, bridge.

use crate::metrics::Metric;

/// A named counter of a component and the metric it is exported as.
pub(super) struct Counter {
    /// The counter's name in `/status`.
    pub(super) counter: &'static str,
    pub(super) metric: Metric,
}

const fn total(
    counter: &'static str,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Counter {
    Counter { counter, metric: Metric::counter(name, labels, help) }
}

const fn level(
    counter: &'static str,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Counter {
    Counter { counter, metric: Metric::gauge(name, labels, help) }
}

const COLLECTOR: &[&str] = &["collector"];
const SHARD: &[&str] = &["shard"];

pub(super) const SERVICE_INFO: Metric = Metric::gauge(
    "tapio_service_info",
    &["service_name", "service_version", "environment"],
    "Service resource of the agent as configured; the value is always 1.",
);
pub(super) const RECEIVED: Metric = Metric::counter(
    "tapio_events_received_total",
    COLLECTOR,
    "Events received from the source, including those lost in the kernel.",
);
pub(super) const FORWARDED: Metric = Metric::counter(
    "tapio_events_forwarded_total",
    COLLECTOR,
    "Events that the server has acknowledged as stored.",
);
pub(super) const DROPPED: Metric = Metric::counter(
    "tapio_events_dropped_total",
    &["collector", "stage", "reason"],
    "Events dropped, by stage and reason.",
);
pub(super) const HELD: Metric =
    Metric::gauge("tapio_events_held", COLLECTOR, "Events in rings and queues.");
pub(super) const RESIDUAL: Metric = Metric::gauge(
    "tapio_cons1_residual",
    COLLECTOR,
    "Events received - forwarded - dropped - held; a value other than 0 is a defect of tapio.",
);
pub(super) const COLLECTOR_UP: Metric =
    Metric::gauge("tapio_collector_up", COLLECTOR, "1 while the collector runs, otherwise 0.");
pub(super) const COLLECTOR_RESTARTS: Metric = Metric::counter(
    "tapio_collector_restarts_total",
    COLLECTOR,
    "Restarts of the collector after an error, a panic or a hang.",
);
pub(super) const HEARTBEAT_AGE: Metric = Metric::gauge(
    "tapio_collector_heartbeat_age_seconds",
    COLLECTOR,
    "Time since the collector's last heartbeat, in seconds.",
);
pub(super) const RULES: Metric = Metric::gauge("tapio_rules", &[], "Rules in force.");
pub(super) const RELOADS: Metric = Metric::counter(
    "tapio_rule_reloads_total",
    &["outcome"],
    "Reloads of the rule set, by outcome (done, refused).",
);
pub(super) const STORIES: Metric = Metric::counter(
    "tapio_stories_total",
    &["pattern", "severity"],
    "Stories emitted, each once, by pattern and by severity at first emission.",
);
pub(super) const IDENTITY_ENTRIES: Metric = Metric::gauge(
    "tapio_identity_entries",
    &["table"],
    "Entries of the entity directory, by table.",
);

/// A shard's counters.
pub(super) const SHARD_COUNTERS: &[Counter] = &[
    total("events", "tapio_shard_events_total", SHARD, "Events processed by the shard."),
    total(
        "matches",
        "tapio_rule_matches_total",
        SHARD,
        "Matches of rules; an aggregate counts each time its condition holds.",
    ),
    level("keys", "tapio_join_keys", SHARD, "Join keys with a partial match or an open window."),
    total(
        "keys_evicted",
        "tapio_join_keys_evicted_total",
        SHARD,
        "Join keys evicted to stay within dataflow.max_keys.",
    ),
    total(
        "partial_matches_dropped",
        "tapio_partial_matches_dropped_total",
        SHARD,
        "Partial matches dropped because their key had too many.",
    ),
    level("stories_open", "tapio_stories_open", SHARD, "Stories open now."),
    total("stories_opened", "tapio_stories_opened_total", SHARD, "Stories opened by a match."),
    total("stories_closed", "tapio_stories_closed_total", SHARD, "Stories that closed."),
    total(
        "stories_expired",
        "tapio_stories_expired_total",
        SHARD,
        "Stories ended by age or to stay within dataflow.max_stories.",
    ),
    level(
        "lifecycles",
        "tapio_lifecycles",
        SHARD,
        "Lifecycles of pods, units and process trees tracked now.",
    ),
    total("lifecycles_opened", "tapio_lifecycles_opened_total", SHARD, "Lifecycles begun."),
    total(
        "lifecycles_evicted",
        "tapio_lifecycles_evicted_total",
        SHARD,
        "Lifecycles evicted for lack of room.",
    ),
    total(
        "entity_histories_evicted",
        "tapio_feature_histories_evicted_total",
        SHARD,
        "Entities whose recent history of features was evicted for lack of room.",
    ),
    total(
        "evidence_dropped",
        "tapio_evidence_messages_dropped_total",
        SHARD,
        "Facts dropped because the ring to the assessor was full.",
    ),
    level(
        "events_waiting",
        "tapio_event_time_lane_events",
        SHARD,
        "Events that wait in the event-time lane for the watermark.",
    ),
    total(
        "events_forced",
        "tapio_events_forced_total",
        SHARD,
        "Events that the event-time lane processed before the watermark, for lack of room.",
    ),
    total("events_late", "tapio_events_late_total", SHARD, "Events older than the watermark."),
    total(
        "stories_relinked",
        "tapio_stories_relinked_total",
        SHARD,
        "Stories that event time begins with another event than the order of arrival did.",
    ),
    total(
        "stories_retracted",
        "tapio_stories_retracted_total",
        SHARD,
        "Emitted stories that the event-time lane did not confirm.",
    ),
    total(
        "stories_dropped_unemitted",
        "tapio_stories_evicted_unemitted_total",
        SHARD,
        "Stories evicted for lack of room before they were emitted.",
    ),
    total(
        "events_unrecorded",
        "tapio_recovery_log_overruns_total",
        SHARD,
        "Relevant events not recorded because the ring to the recovery log was full.",
    ),
];

/// The assessor's counters.
pub(super) const ASSESSOR_COUNTERS: &[Counter] = &[
    total("facts", "tapio_evidence_facts_total", &[], "Facts received by the assessor."),
    total("stories", "tapio_stories_assessed_total", &[], "Story revisions assessed."),
    total(
        "stories_oversize",
        "tapio_stories_oversize_total",
        &[],
        "Story revisions dropped because they do not fit into the ring to the bridge.",
    ),
    level("entities", "tapio_evidence_entities", &[], "Entities in the entity graph."),
    level("edges", "tapio_evidence_relations", &[], "Relations in the entity graph."),
    level(
        "series",
        "tapio_evidence_series",
        &[],
        "Baselines: series of counts by kind and entity.",
    ),
    level("pairs", "tapio_evidence_pairs", &[], "Pairs of kinds whose order is learned."),
    total(
        "evicted",
        "tapio_evidence_evicted_total",
        &[],
        "Entities and pairs evicted, and relations refused, for lack of room.",
    ),
];

/// The entity directory's losses; its other counters are [`IDENTITY_ENTRIES`].
pub(super) const IDENTITY_COUNTERS: &[Counter] = &[
    total(
        "refused",
        "tapio_identity_refused_total",
        &[],
        "Entries refused because their table of the entity directory was full.",
    ),
    total(
        "evicted",
        "tapio_identity_evicted_total",
        &[],
        "Ended entities evicted from the entity directory for lack of room.",
    ),
    total(
        "ambiguous",
        "tapio_identity_ambiguous_total",
        &[],
        "Look-ups of an address that two entities claim; they have no result.",
    ),
];

/// The tables of [`IDENTITY_ENTRIES`].
pub(super) const IDENTITY_TABLES: &[&str] =
    &["pods", "containers", "addresses", "networks", "units", "endpoints"];

/// The recovery log's counters.
pub(super) const RECOVERY_COUNTERS: &[Counter] = &[
    total(
        "recorded",
        "tapio_recovery_log_recorded_total",
        &[],
        "Relevant events written to the recovery log.",
    ),
    total(
        "dropped",
        "tapio_recovery_log_dropped_total",
        &[],
        "Relevant events that could not be written to the recovery log.",
    ),
    total(
        "restored",
        "tapio_recovery_log_restored_total",
        &[],
        "Events from which the shards were restored at the start.",
    ),
];

pub(super) const CONNECTED: Metric =
    Metric::gauge("tapio_bridge_connected", &[], "1 while the server is connected, otherwise 0.");
pub(super) const CONNECTIONS: Metric = Metric::counter(
    "tapio_bridge_connections_total",
    &[],
    "Connections established to the server.",
);
pub(super) const CONNECTION_FAILURES: Metric = Metric::counter(
    "tapio_bridge_connection_failures_total",
    &[],
    "Failed attempts to connect to the server.",
);
pub(super) const BATCHES_SENT: Metric = Metric::counter(
    "tapio_bridge_batches_sent_total",
    &[],
    "Batches sent, including those sent again.",
);
pub(super) const BATCHES_RESENT: Metric = Metric::counter(
    "tapio_bridge_batches_resent_total",
    &[],
    "Batches sent again after a lost connection.",
);
pub(super) const BATCHES_ACKED: Metric = Metric::counter(
    "tapio_bridge_batches_acknowledged_total",
    &[],
    "Batches that the server has acknowledged.",
);
pub(super) const BYTES_SENT: Metric =
    Metric::counter("tapio_bridge_sent_bytes_total", &[], "Bytes of batches sent.");
pub(super) const EVENTS_ACKED: Metric = Metric::counter(
    "tapio_bridge_events_acknowledged_total",
    &[],
    "Events that the server has acknowledged.",
);
pub(super) const STORIES_ACKED: Metric = Metric::counter(
    "tapio_bridge_stories_acknowledged_total",
    &[],
    "Story revisions that the server has acknowledged.",
);
pub(super) const EVENTS_REFUSED: Metric = Metric::counter(
    "tapio_bridge_events_refused_total",
    &[],
    "Events in batches that the server refused.",
);
pub(super) const QUEUE_BYTES: Metric = Metric::gauge(
    "tapio_bridge_queue_bytes",
    &[],
    "Bytes of batches that are not acknowledged yet.",
);
