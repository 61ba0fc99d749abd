//! The place of an event's field in OTLP, by its name.

use tapio_core::event::{Name, names};

/// The place of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// An attribute of the record.
    Record,
    /// An attribute of the resource, in an event that tapio collected.
    Resource,
    /// A measured interval that ended at the event's time.
    Interval,
    /// One of the fields that [`SPECIAL`] lists.
    Special(Special),
}

/// Fields of an event that have a field of their own in OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// The id that its source gave it.
    GivenId,
    /// Attributes whose names the agent had no room for.
    Unnamed,
    ScopeName,
    ScopeVersion,
    EventName,
    ObservedTime,
    DroppedAttributes,
    DroppedEvents,
    DroppedLinks,
    StructuredBody,
    SpanDuration,
    SpanParent,
    SpanKind,
    SpanEvents,
    SpanLinks,
    StatusDescription,
    MetricName,
    MetricUnit,
    MetricType,
    MetricValue,
    MetricMin,
    MetricMax,
    MetricPoint,
    /// Derived from the point and the one before it.
    MetricInterval,
}

const SPECIAL: &[(Name, Special)] = &[
    (names::TAPIO_EVENT_ID, Special::GivenId),
    (names::TAPIO_UNNAMED, Special::Unnamed),
    (names::OTEL_SCOPE_NAME, Special::ScopeName),
    (names::OTEL_SCOPE_VERSION, Special::ScopeVersion),
    (names::OTEL_EVENT_NAME, Special::EventName),
    (names::OTEL_OBSERVED_TIME_NS, Special::ObservedTime),
    (names::OTEL_DROPPED_ATTRIBUTES_COUNT, Special::DroppedAttributes),
    (names::OTEL_DROPPED_EVENTS_COUNT, Special::DroppedEvents),
    (names::OTEL_DROPPED_LINKS_COUNT, Special::DroppedLinks),
    (names::TAPIO_LOG_STRUCTURED, Special::StructuredBody),
    (names::TAPIO_SPAN_DURATION_NS, Special::SpanDuration),
    (names::TAPIO_SPAN_PARENT_ID, Special::SpanParent),
    (names::TAPIO_SPAN_KIND, Special::SpanKind),
    (names::TAPIO_SPAN_EVENTS, Special::SpanEvents),
    (names::TAPIO_SPAN_LINKS, Special::SpanLinks),
    (names::OTEL_STATUS_DESCRIPTION, Special::StatusDescription),
    (names::TAPIO_METRIC_NAME, Special::MetricName),
    (names::TAPIO_METRIC_UNIT, Special::MetricUnit),
    (names::TAPIO_METRIC_TYPE, Special::MetricType),
    (names::TAPIO_METRIC_VALUE, Special::MetricValue),
    (names::TAPIO_METRIC_MIN, Special::MetricMin),
    (names::TAPIO_METRIC_MAX, Special::MetricMax),
    (names::TAPIO_METRIC_POINT, Special::MetricPoint),
    (names::TAPIO_METRIC_DELTA, Special::MetricInterval),
    (names::TAPIO_METRIC_COUNT, Special::MetricInterval),
    (names::TAPIO_METRIC_SUM, Special::MetricInterval),
    (names::TAPIO_METRIC_P50, Special::MetricInterval),
    (names::TAPIO_METRIC_P90, Special::MetricInterval),
    (names::TAPIO_METRIC_P99, Special::MetricInterval),
];

/// Attributes with an interval that ended at the event's time, nanoseconds.
const INTERVALS: &[Name] = &[
    names::TAPIO_PROCESS_DURATION_NS,
    names::TAPIO_TCP_DURATION_NS,
    names::TAPIO_BLOCK_LATENCY_NS,
    names::TAPIO_SYSTEMD_DOWN_NS,
    names::TAPIO_CNI_DURATION_NS,
    names::TAPIO_CONTAINER_DURATION_NS,
    names::TAPIO_IMAGE_PULL_NS,
    names::TAPIO_K8S_STARTUP_NS,
    names::TAPIO_K8S_PENDING_NS,
];

/// Namespaces of the semantic conventions' resources ("Resource Semantic Conventions").
const RESOURCE: &[&str] = &["host.", "k8s.", "container.", "service.", "deployment.", "cloud."];

impl Key {
    /// The place of fields with this name.
    pub(super) fn of(name: &str) -> Self {
        if let Some((_, special)) = SPECIAL.iter().find(|(n, _)| n.text() == name) {
            return Self::Special(*special);
        }
        if INTERVALS.iter().any(|n| n.text() == name) {
            return Self::Interval;
        }
        match RESOURCE.iter().any(|prefix| name.starts_with(prefix)) {
            true => Self::Resource,
            false => Self::Record,
        }
    }
}
