//! The messages of OTLP as tables (opentelemetry-proto 1.x: common/v1, resource/v1, logs/v1,
//! trace/v1, metrics/v1 and the collector's requests), by which JSON is encoded.

/// The type of a field.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Text,
    Bool,
    /// `bytes`: base64 in JSON.
    Bytes,
    /// `bytes` of an id: hexadecimal digits in JSON.
    Id,
    /// `int64`, `int32`, `uint32`, `uint64` and enums.
    Int,
    /// `sint32`
    ZigZag,
    Fixed32,
    /// `fixed64` and `sfixed64`
    Fixed64,
    Double,
    Message(&'static Schema),
    Messages(&'static Schema),
    PackedInts,
    PackedFixed64,
    PackedDoubles,
}

/// A message.
pub(super) struct Schema {
    /// Whether one that is invalid costs itself only: an attribute, a record.
    pub(super) costs_itself: bool,
    /// The fields: name in the definition, number, type.
    pub(super) fields: &'static [(&'static str, u32, Type)],
}

use Type::{
    Bool, Bytes, Double, Fixed32, Fixed64, Id, Int, Message, Messages, PackedDoubles,
    PackedFixed64, PackedInts, Text, ZigZag,
};

const fn schema(fields: &'static [(&'static str, u32, Type)]) -> Schema {
    Schema { costs_itself: false, fields }
}

const fn item(fields: &'static [(&'static str, u32, Type)]) -> Schema {
    Schema { costs_itself: true, fields }
}

static VALUE: Schema = schema(&[
    ("string_value", 1, Text),
    ("bool_value", 2, Bool),
    ("int_value", 3, Int),
    ("double_value", 4, Double),
    ("array_value", 5, Message(&ARRAY)),
    ("kvlist_value", 6, Message(&PAIRS)),
    ("bytes_value", 7, Bytes),
]);

static ARRAY: Schema = schema(&[("values", 1, Messages(&VALUE))]);
static PAIRS: Schema = schema(&[("values", 1, Messages(&PAIR))]);
static PAIR: Schema = item(&[("key", 1, Text), ("value", 2, Message(&VALUE))]);

static RESOURCE: Schema =
    schema(&[("attributes", 1, Messages(&PAIR)), ("dropped_attributes_count", 2, Int)]);

static SCOPE: Schema = schema(&[
    ("name", 1, Text),
    ("version", 2, Text),
    ("attributes", 3, Messages(&PAIR)),
    ("dropped_attributes_count", 4, Int),
]);

/// `ExportLogsServiceRequest`, and a line of the Collector's file exporter.
pub(super) static LOGS: Schema = schema(&[("resource_logs", 1, Messages(&RESOURCE_LOGS))]);

static RESOURCE_LOGS: Schema = schema(&[
    ("resource", 1, Message(&RESOURCE)),
    ("scope_logs", 2, Messages(&SCOPE_LOGS)),
    ("schema_url", 3, Text),
]);

static SCOPE_LOGS: Schema = schema(&[
    ("scope", 1, Message(&SCOPE)),
    ("log_records", 2, Messages(&LOG_RECORD)),
    ("schema_url", 3, Text),
]);

static LOG_RECORD: Schema = item(&[
    ("time_unix_nano", 1, Fixed64),
    ("severity_number", 2, Int),
    ("severity_text", 3, Text),
    ("body", 5, Message(&VALUE)),
    ("attributes", 6, Messages(&PAIR)),
    ("dropped_attributes_count", 7, Int),
    ("flags", 8, Fixed32),
    ("trace_id", 9, Id),
    ("span_id", 10, Id),
    ("observed_time_unix_nano", 11, Fixed64),
    ("event_name", 12, Text),
]);

/// `ExportTraceServiceRequest`
pub(super) static TRACES: Schema = schema(&[("resource_spans", 1, Messages(&RESOURCE_SPANS))]);

static RESOURCE_SPANS: Schema = schema(&[
    ("resource", 1, Message(&RESOURCE)),
    ("scope_spans", 2, Messages(&SCOPE_SPANS)),
    ("schema_url", 3, Text),
]);

static SCOPE_SPANS: Schema = schema(&[
    ("scope", 1, Message(&SCOPE)),
    ("spans", 2, Messages(&SPAN)),
    ("schema_url", 3, Text),
]);

static SPAN: Schema = item(&[
    ("trace_id", 1, Id),
    ("span_id", 2, Id),
    ("trace_state", 3, Text),
    ("parent_span_id", 4, Id),
    ("name", 5, Text),
    ("kind", 6, Int),
    ("start_time_unix_nano", 7, Fixed64),
    ("end_time_unix_nano", 8, Fixed64),
    ("attributes", 9, Messages(&PAIR)),
    ("dropped_attributes_count", 10, Int),
    ("events", 11, Messages(&SPAN_EVENT)),
    ("dropped_events_count", 12, Int),
    ("links", 13, Messages(&SPAN_LINK)),
    ("dropped_links_count", 14, Int),
    ("status", 15, Message(&STATUS)),
    ("flags", 16, Fixed32),
]);

static SPAN_EVENT: Schema = schema(&[
    ("time_unix_nano", 1, Fixed64),
    ("name", 2, Text),
    ("attributes", 3, Messages(&PAIR)),
    ("dropped_attributes_count", 4, Int),
]);

static SPAN_LINK: Schema = schema(&[
    ("trace_id", 1, Id),
    ("span_id", 2, Id),
    ("trace_state", 3, Text),
    ("attributes", 4, Messages(&PAIR)),
    ("dropped_attributes_count", 5, Int),
    ("flags", 6, Fixed32),
]);

static STATUS: Schema = schema(&[("message", 2, Text), ("code", 3, Int)]);

/// `ExportMetricsServiceRequest`
pub(super) static METRICS: Schema = schema(&[("resource_metrics", 1, Messages(&RESOURCE_METRICS))]);

static RESOURCE_METRICS: Schema = schema(&[
    ("resource", 1, Message(&RESOURCE)),
    ("scope_metrics", 2, Messages(&SCOPE_METRICS)),
    ("schema_url", 3, Text),
]);

static SCOPE_METRICS: Schema = schema(&[
    ("scope", 1, Message(&SCOPE)),
    ("metrics", 2, Messages(&METRIC)),
    ("schema_url", 3, Text),
]);

static METRIC: Schema = item(&[
    ("name", 1, Text),
    ("description", 2, Text),
    ("unit", 3, Text),
    ("gauge", 5, Message(&NUMBERS)),
    ("sum", 7, Message(&NUMBERS)),
    ("histogram", 9, Message(&HISTOGRAM)),
    ("exponential_histogram", 10, Message(&EXPONENTIAL_HISTOGRAM)),
    ("summary", 11, Message(&SUMMARY)),
    ("metadata", 12, Messages(&PAIR)),
]);

/// `Gauge` and `Sum`
static NUMBERS: Schema = schema(&[
    ("data_points", 1, Messages(&NUMBER)),
    ("aggregation_temporality", 2, Int),
    ("is_monotonic", 3, Bool),
]);

static HISTOGRAM: Schema =
    schema(&[("data_points", 1, Messages(&HISTOGRAM_POINT)), ("aggregation_temporality", 2, Int)]);

static EXPONENTIAL_HISTOGRAM: Schema = schema(&[
    ("data_points", 1, Messages(&EXPONENTIAL_POINT)),
    ("aggregation_temporality", 2, Int),
]);

static SUMMARY: Schema = schema(&[("data_points", 1, Messages(&SUMMARY_POINT))]);

static NUMBER: Schema = item(&[
    ("start_time_unix_nano", 2, Fixed64),
    ("time_unix_nano", 3, Fixed64),
    ("as_double", 4, Double),
    ("exemplars", 5, Messages(&EXEMPLAR)),
    ("as_int", 6, Fixed64),
    ("attributes", 7, Messages(&PAIR)),
    ("flags", 8, Int),
]);

static HISTOGRAM_POINT: Schema = item(&[
    ("start_time_unix_nano", 2, Fixed64),
    ("time_unix_nano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("bucket_counts", 6, PackedFixed64),
    ("explicit_bounds", 7, PackedDoubles),
    ("exemplars", 8, Messages(&EXEMPLAR)),
    ("attributes", 9, Messages(&PAIR)),
    ("flags", 10, Int),
    ("min", 11, Double),
    ("max", 12, Double),
]);

static EXPONENTIAL_POINT: Schema = item(&[
    ("attributes", 1, Messages(&PAIR)),
    ("start_time_unix_nano", 2, Fixed64),
    ("time_unix_nano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("scale", 6, ZigZag),
    ("zero_count", 7, Fixed64),
    ("positive", 8, Message(&BUCKETS)),
    ("negative", 9, Message(&BUCKETS)),
    ("flags", 10, Int),
    ("exemplars", 11, Messages(&EXEMPLAR)),
    ("min", 12, Double),
    ("max", 13, Double),
    ("zero_threshold", 14, Double),
]);

static BUCKETS: Schema = schema(&[("offset", 1, ZigZag), ("bucket_counts", 2, PackedInts)]);

static SUMMARY_POINT: Schema = item(&[
    ("start_time_unix_nano", 2, Fixed64),
    ("time_unix_nano", 3, Fixed64),
    ("count", 4, Fixed64),
    ("sum", 5, Double),
    ("quantile_values", 6, Messages(&QUANTILE)),
    ("attributes", 7, Messages(&PAIR)),
    ("flags", 8, Int),
]);

static QUANTILE: Schema = schema(&[("quantile", 1, Double), ("value", 2, Double)]);

static EXEMPLAR: Schema = schema(&[
    ("time_unix_nano", 2, Fixed64),
    ("as_double", 3, Double),
    ("span_id", 4, Id),
    ("trace_id", 5, Id),
    ("as_int", 6, Fixed64),
    ("filtered_attributes", 7, Messages(&PAIR)),
]);
