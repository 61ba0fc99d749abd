//! The metrics of the pipeline: events, stories, shards, evidence, recovery log, bridge.

use crate::metrics::{Kind, Metric};
use tapio_core::counters::{self, Reading};

/// The counters of a component, by their names in `/status`, and the metrics they are exported as.
/// Kind and help of a metric are those that the counter declares.
pub(super) type Names = &'static [(&'static str, &'static str)];

/// The metric of a counter; `None` if `names` has none for it.
pub(super) fn metric_of(
    counter: &Reading,
    names: Names,
    labels: &'static [&'static str],
) -> Option<Metric> {
    let (_, name) = names.iter().find(|(name, _)| *name == counter.name)?;
    let kind = match counter.kind {
        counters::Kind::Counter => Kind::Counter,
        counters::Kind::Gauge => Kind::Gauge,
    };
    Some(Metric { name, kind, labels, help: counter.help })
}

const COLLECTOR: &[&str] = &["collector"];

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
pub(super) const TRUNCATED: Metric = Metric::counter(
    "tapio_events_truncated_total",
    COLLECTOR,
    "Events whose texts were cut to fit into a record; they are forwarded.",
);
pub(super) const REDACTED: Metric = Metric::counter(
    "tapio_events_redacted_total",
    COLLECTOR,
    "Events of which secrets were removed; they are forwarded.",
);
pub(super) const HELD: Metric =
    Metric::gauge("tapio_events_held", COLLECTOR, "Events in rings and queues.");
pub(super) const RESIDUAL: Metric = Metric::gauge(
    "tapio_cons1_residual",
    COLLECTOR,
    "Events received - forwarded - dropped - held; a value other than 0 is a defect in tapio.",
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
pub(super) const RULES_DISABLED: Metric = Metric::gauge(
    "tapio_rules_disabled",
    &[],
    "Rules disabled because they failed repeatedly, until the rules are reloaded.",
);
pub(super) const RELOADS: Metric = Metric::counter(
    "tapio_rule_reloads_total",
    &["outcome"],
    "Reloads of the rule set, by outcome (applied, refused).",
);
pub(super) const ADMIN_HANDSHAKES_FAILED: Metric = Metric::counter(
    "tapio_admin_handshakes_failed_total",
    &["reason"],
    "TLS handshakes with the admin pages that failed.",
);
pub(super) const ADMIN_REQUESTS_REFUSED: Metric = Metric::counter(
    "tapio_admin_requests_refused_total",
    &["reason"],
    "Requests for admin pages refused for lack of a right, or because of the name they are for.",
);
pub(super) const ADMIN_RELOAD_FAILURES: Metric = Metric::counter(
    "tapio_admin_access_reload_failures_total",
    &[],
    "Changed certificates and token files that could not be used; those before stay in use.",
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
pub(super) const CONNECTED: Metric =
    Metric::gauge("tapio_bridge_connected", &[], "1 while the server is connected, otherwise 0.");

/// A shard's counters, by shard.
pub(super) const SHARD_METRICS: Names = &[
    ("events", "tapio_shard_events_total"),
    ("rounds", "tapio_shard_rounds_total"),
    ("rule_matches", "tapio_rule_matches_total"),
    ("join_keys", "tapio_join_keys"),
    ("join_keys_evicted", "tapio_join_keys_evicted_total"),
    ("baselines", "tapio_baselines"),
    ("baselines_evicted", "tapio_baselines_evicted_total"),
    ("partial_matches_dropped", "tapio_partial_matches_dropped_total"),
    ("stories_open", "tapio_stories_open"),
    ("stories_opened", "tapio_stories_opened_total"),
    ("stories_closed", "tapio_stories_closed_total"),
    ("stories_expired", "tapio_stories_expired_total"),
    ("correlation_failures", "tapio_correlation_failures_total"),
    ("join_keys_failed", "tapio_join_keys_failed_total"),
    ("lifecycles", "tapio_lifecycles"),
    ("lifecycles_opened", "tapio_lifecycles_opened_total"),
    ("lifecycles_evicted", "tapio_lifecycles_evicted_total"),
    ("feature_histories_evicted", "tapio_feature_histories_evicted_total"),
    ("evidence_messages_dropped", "tapio_evidence_messages_dropped_total"),
    ("stories_unassessed", "tapio_stories_unassessed_total"),
    ("event_time_lane_events", "tapio_event_time_lane_events"),
    ("events_forced", "tapio_events_forced_total"),
    ("events_late", "tapio_events_late_total"),
    ("events_repeated", "tapio_events_repeated_total"),
    ("events_uncorrelated", "tapio_events_uncorrelated_total"),
    ("stories_relinked", "tapio_stories_relinked_total"),
    ("stories_retracted", "tapio_stories_retracted_total"),
    ("stories_evicted_unemitted", "tapio_stories_evicted_unemitted_total"),
    ("recovery_log_overruns", "tapio_recovery_log_overruns_total"),
];

/// The assessor's counters.
pub(super) const ASSESSOR_METRICS: Names = &[
    ("facts", "tapio_evidence_facts_total"),
    ("stories_assessed", "tapio_stories_assessed_total"),
    ("stories_oversize", "tapio_stories_oversize_total"),
    ("stories_abandoned", "tapio_stories_abandoned_total"),
    ("entities", "tapio_evidence_entities"),
    ("relations", "tapio_evidence_relations"),
    ("series", "tapio_evidence_series"),
    ("pairs", "tapio_evidence_pairs"),
    ("evicted", "tapio_evidence_evicted_total"),
    ("service_operations", "tapio_service_operations"),
    ("service_spans", "tapio_service_spans"),
    ("service_pairs", "tapio_service_pairs"),
    ("services_refused", "tapio_services_refused_total"),
    ("services_sampled_out", "tapio_services_sampled_out_total"),
    ("failures", "tapio_assessor_failures_total"),
    ("rounds", "tapio_assessor_rounds_total"),
];

/// A sink's counters, by sink.
pub(super) const SINK_METRICS: Names = &[
    ("events", "tapio_export_events_total"),
    ("events_filtered", "tapio_export_events_filtered_total"),
    ("events_invalid", "tapio_export_events_invalid_total"),
    ("events_lost", "tapio_export_events_lost_total"),
    ("events_held", "tapio_export_events_held"),
    ("log_records", "tapio_export_log_records_total"),
    ("spans", "tapio_export_spans_total"),
    ("data_points", "tapio_export_data_points_total"),
    ("records_rejected", "tapio_export_records_rejected_total"),
    ("requests", "tapio_export_requests_total"),
    ("requests_failed", "tapio_export_requests_failed_total"),
    ("request_bytes", "tapio_export_request_bytes_total"),
];

/// The entity directory's losses; its sizes are [`IDENTITY_ENTRIES`].
pub(super) const IDENTITY_METRICS: Names = &[
    ("refused", "tapio_identity_refused_total"),
    ("evicted", "tapio_identity_evicted_total"),
    ("ambiguous", "tapio_identity_ambiguous_total"),
];

/// The recovery log's counters.
pub(super) const RECOVERY_METRICS: Names = &[
    ("recorded", "tapio_recovery_log_recorded_total"),
    ("dropped", "tapio_recovery_log_dropped_total"),
    ("restored", "tapio_recovery_log_restored_total"),
    ("unavailable", "tapio_recovery_log_unavailable"),
];

/// The memory's counters.
pub(super) const MEMORY_METRICS: Names = &[
    ("limit_bytes", "tapio_memory_limit_bytes"),
    ("used_bytes", "tapio_memory_used_bytes"),
    ("bounds_divisor", "tapio_memory_bounds_divisor"),
    ("paused", "tapio_memory_paused"),
    ("pauses", "tapio_memory_pauses_total"),
];

/// The bridge's counters.
pub(super) const BRIDGE_METRICS: Names = &[
    ("rounds", "tapio_bridge_rounds_total"),
    ("connects", "tapio_bridge_connects_total"),
    ("failed_connects", "tapio_bridge_failed_connects_total"),
    ("batches_sent", "tapio_bridge_batches_sent_total"),
    ("batches_resent", "tapio_bridge_batches_resent_total"),
    ("batches_acked", "tapio_bridge_batches_acked_total"),
    ("sent_bytes", "tapio_bridge_sent_bytes_total"),
    ("events_acked", "tapio_bridge_events_acked_total"),
    ("stories_acked", "tapio_bridge_stories_acked_total"),
    ("events_refused", "tapio_bridge_events_refused_total"),
    ("batches_split", "tapio_bridge_batches_split_total"),
    ("items_quarantined", "tapio_bridge_items_quarantined_total"),
    ("circuit_state", "tapio_bridge_circuit_state"),
    ("queue_bytes", "tapio_bridge_queue_bytes"),
    ("spool_bytes", "tapio_bridge_spool_bytes"),
    ("spool_oldest_seconds", "tapio_bridge_spool_oldest_seconds"),
];
