//! JSON against the messages of `opentelemetry-proto`.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::otlp::{OtlpValue, otlp_logs, otlp_points};

fn value() -> impl Strategy<Value = AnyValue> {
    use any_value::Value as V;
    let leaf = prop_oneof![
        any::<String>().prop_map(V::StringValue),
        any::<bool>().prop_map(V::BoolValue),
        any::<i64>().prop_map(V::IntValue),
        // serde_json reads others to the last bit but one.
        any::<i32>().prop_map(|n| V::DoubleValue(f64::from(n) / 8.0)),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(V::BytesValue),
    ];
    let value = leaf.prop_map(|value| AnyValue { value: Some(value) });
    value.prop_recursive(3, 16, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4);
        let pairs = prop::collection::vec(pair(inner), 0..4);
        prop_oneof![
            list.prop_map(|values| V::ArrayValue(ArrayValue { values })),
            pairs.prop_map(|values| V::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn pair(value: impl Strategy<Value = AnyValue>) -> impl Strategy<Value = KeyValue> {
    (any::<String>(), value).prop_map(|(key, value)| KeyValue {
        key,
        value: Some(value),
        ..KeyValue::default()
    })
}

fn pairs() -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::vec(pair(value()), 0..4)
}

fn id(bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), bytes)
}

prop_compose! {
    fn log()(
        times in any::<[u64; 2]>(), severity in 0..25i32, texts in any::<[String; 2]>(),
        body in prop::option::of(value()), attributes in pairs(), counts in any::<[u32; 2]>(),
        trace_id in id(16), span_id in id(8),
    ) -> LogRecord {
        let [severity_text, event_name] = texts;
        LogRecord {
            time_unix_nano: times[0],
            observed_time_unix_nano: times[1],
            severity_number: severity,
            severity_text,
            body,
            attributes,
            dropped_attributes_count: counts[0],
            flags: counts[1],
            trace_id,
            span_id,
            event_name,
        }
    }
}

prop_compose! {
    fn span()(
        ids in (id(16), id(8), id(8)), texts in any::<[String; 4]>(), kind in 0..6i32,
        times in any::<[u64; 3]>(), attributes in pairs(), counts in any::<[u32; 5]>(),
        code in 0..3i32,
    ) -> Span {
        let ((trace_id, span_id, parent_span_id), [trace_state, name, event, message]) =
            (ids, texts);
        let link = Link {
            trace_id: trace_id.clone(),
            span_id: span_id.clone(),
            trace_state: trace_state.clone(),
            attributes: attributes.clone(),
            dropped_attributes_count: counts[0],
            flags: counts[1],
        };
        Span {
            events: vec![Event {
                time_unix_nano: times[2],
                name: event,
                attributes: attributes.clone(),
                dropped_attributes_count: counts[2],
            }],
            links: vec![link],
            status: Some(Status { message, code }),
            start_time_unix_nano: times[0],
            end_time_unix_nano: times[1],
            dropped_events_count: counts[3],
            dropped_links_count: counts[4],
            trace_id,
            span_id,
            parent_span_id,
            trace_state,
            name,
            kind,
            attributes,
            ..Span::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Compares with the messages of `opentelemetry-proto`.
    #[test]
    fn json_becomes_the_same_message(
        logs in prop::collection::vec(log(), 0..3), spans in prop::collection::vec(span(), 0..3),
        attributes in pairs(),
    ) {
        let scope = InstrumentationScope {
            name: "s".into(),
            version: "1".into(),
            attributes: attributes.clone(),
            dropped_attributes_count: 1,
        };
        let resource =
            Resource { attributes, dropped_attributes_count: 2, ..Resource::default() };
        let logs = ExportLogsServiceRequest { resource_logs: vec![ResourceLogs {
            resource: Some(resource.clone()),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope.clone()),
                log_records: logs,
                schema_url: "u".into(),
            }],
            schema_url: "u".into(),
        }] };
        let json = serde_json::to_vec(&logs).unwrap();
        let encoded = otlp_from_json(OtlpSignal::Logs, &json).unwrap();
        prop_assert_eq!(ExportLogsServiceRequest::decode(&encoded[..]).unwrap(), logs);
        let spans = ExportTraceServiceRequest { resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: "u".into() }],
            schema_url: "u".into(),
        }] };
        let json = serde_json::to_vec(&spans).unwrap();
        let encoded = otlp_from_json(OtlpSignal::Traces, &json).unwrap();
        prop_assert_eq!(ExportTraceServiceRequest::decode(&encoded[..]).unwrap(), spans);
    }

    #[test]
    fn any_json_is_encoded_or_refused(json in "[\\[{\\]},:\"0-9a-z.]{0,80}") {
        let _ = otlp_from_json(OtlpSignal::Logs, json.as_bytes());
        let inner = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{json}]}}]}}]}}"#);
        if let Ok(encoded) = otlp_from_json(OtlpSignal::Logs, inner.as_bytes()) {
            otlp_logs(&encoded, |_, _, _| {}).unwrap();
        }
    }
}

/// The records of a request with these records in JSON: attributes kept, attributes dropped,
/// body; and the number of invalid records.
fn decoded(records: &str) -> (Vec<(usize, u32, String)>, u64) {
    let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#);
    let encoded = otlp_from_json(OtlpSignal::Logs, json.as_bytes()).unwrap();
    let mut all = Vec::new();
    let invalid = otlp_logs(&encoded, |_, _, r| {
        let body = match r.body {
            OtlpValue::Text(text) => text.to_owned(),
            other => other.json().to_string(),
        };
        all.push((r.attributes.list.len(), r.attributes.dropped, body));
    });
    (all, invalid.unwrap())
}

#[test]
fn forms_that_senders_use_are_understood() {
    for (record, expected) in [
        (r#"{"body":{"stringValue":"x"}}"#, "x"),
        (r#"{"body":{"string_value":"x"},"time_unix_nano":5,"new":{"a":[1]}}"#, "x"),
        (r#"{"body":{"intValue":"-5"}}"#, "-5"),
        (r#"{"body":{"intValue":5e3}}"#, "5000"),
        (r#"{"body":{"doubleValue":5}}"#, "5.0"),
        (r#"{"body":{"doubleValue":"NaN"}}"#, "null"),
        (r#"{"body":{"bytesValue":"_-8="}}"#, "\"ffef\""),
        (r#"{"body":{"newValue":1}}"#, "null"),
        (r#"{"body":null,"attributes":null,"severityNumber":null}"#, "null"),
        (r#"{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":""}"#, "null"),
    ] {
        assert_eq!(decoded(record), (vec![(0, 0, expected.to_owned())], 0), "{record}");
    }
}

#[test]
fn invalid_attribute_or_record_costs_itself() {
    let record = r#"{"body":{"stringValue":"x"},"attributes":[
        {"key":"a","value":{"intValue":"zzz"}}, {"key":"b","value":{"stringValue":"c"}},
        {"key":"d","value":{"stringValue":5}}, 7]}"#;
    let expected = (1, 3, "x".to_owned());
    assert_eq!(decoded(record), (vec![expected.clone()], 0));
    for bad in [r#"{"traceId":"zz"}"#, r#"{"traceId":"00"}"#, r#"{"body":"plain"}"#, "[]", "3"] {
        let records = format!("{bad},{record}");
        assert_eq!(decoded(&records), (vec![expected.clone()], 1), "{bad}");
    }
    for (bad, cause) in [
        ("{", "EOF while parsing"),
        ("{} x", "trailing characters"),
        (r#"{"resourceLogs":{}}"#, "resource_logs: unexpected object"),
        (r#"{"resourceLogs":[{"resource":3}]}"#, "resource: unexpected 3"),
        ("[]", "request: unexpected list"),
    ] {
        let refused = otlp_from_json(OtlpSignal::Logs, bad.as_bytes()).unwrap_err();
        assert!(refused.contains(cause), "{bad}: {refused}");
    }
    let empty = otlp_from_json(OtlpSignal::Traces, b"{}");
    assert_eq!(empty, Ok(Vec::new()));
}

/// A request with a metric of each type.
fn metrics() -> ExportMetricsServiceRequest {
    let attributes = vec![KeyValue {
        key: "k".into(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue("v".into())) }),
        ..KeyValue::default()
    }];
    let number = |value| NumberDataPoint {
        attributes: attributes.clone(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        value: Some(value),
        ..NumberDataPoint::default()
    };
    let histogram = HistogramDataPoint {
        attributes: attributes.clone(),
        time_unix_nano: 3,
        count: 6,
        sum: Some(31.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![5.0, 7.5],
        min: Some(-1.0),
        max: Some(9.0),
        ..HistogramDataPoint::default()
    };
    let exponential = ExponentialHistogramDataPoint {
        time_unix_nano: 4,
        count: 10,
        scale: -1,
        zero_count: 1,
        positive: Some(Buckets { offset: -2, bucket_counts: vec![2, 3] }),
        negative: Some(Buckets { offset: 1, bucket_counts: vec![4] }),
        ..ExponentialHistogramDataPoint::default()
    };
    let summary = SummaryDataPoint {
        time_unix_nano: 5,
        count: 2,
        sum: 3.0,
        quantile_values: vec![ValueAtQuantile { quantile: 0.5, value: 1.5 }],
        ..SummaryDataPoint::default()
    };
    let data = [
        Data::Gauge(Gauge { data_points: vec![number(Number::AsDouble(0.5))] }),
        Data::Sum(Sum {
            data_points: vec![number(Number::AsInt(-7))],
            aggregation_temporality: 2,
            is_monotonic: true,
        }),
        Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 1 }),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![exponential],
            aggregation_temporality: 2,
        }),
        Data::Summary(Summary { data_points: vec![summary] }),
    ];
    let metrics = data.into_iter().zip(0..).map(|(data, n)| Metric {
        name: format!("m{n}"),
        unit: "By".into(),
        data: Some(data),
        ..Metric::default()
    });
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics { metrics: metrics.collect(), ..Default::default() }],
            ..Default::default()
        }],
    }
}

#[test]
fn metrics_become_the_same_message_and_points() {
    let request = metrics();
    let json = serde_json::to_vec(&request).unwrap();
    let encoded = otlp_from_json(OtlpSignal::Metrics, &json).unwrap();
    assert_eq!(ExportMetricsServiceRequest::decode(&encoded[..]).unwrap(), request);
    let mut seen = Vec::new();
    let invalid = otlp_points(&encoded, |_, _, p| {
        assert_eq!(p.unit, "By");
        let buckets = p.buckets.clone();
        seen.push((p.name.to_owned(), p.time_ns, p.is_cumulative, p.value, p.count, buckets));
        if p.name == "m4" {
            assert_eq!((p.sum, &p.quantiles[..]), (Some(3.0), &[(0.5, 1.5)][..]));
        }
    });
    let explicit = vec![(5.0, 1), (7.5, 2), (f64::INFINITY, 3)];
    // Of scale -1, bucket i ends at 4^(i+1).
    let exponential = vec![(-4.0, 4), (0.0, 1), (0.25, 2), (1.0, 3)];
    let expected = [
        ("m0".to_owned(), 2, false, Some(0.5), 0, vec![]),
        ("m1".to_owned(), 2, true, Some(-7.0), 0, vec![]),
        ("m2".to_owned(), 3, false, None, 6, explicit),
        ("m3".to_owned(), 4, true, None, 10, exponential),
        ("m4".to_owned(), 5, true, None, 2, vec![]),
    ];
    assert_eq!((invalid, &seen[..]), (Ok(0), &expected[..]));
}

#[test]
fn invalid_point_costs_itself() {
    let points = r#"{"asInt":"1"}, {"asInt":"x"}, {"asDouble":2.5,"flags":1}, 7"#;
    let json = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[
            {{"name":"a","gauge":{{"dataPoints":[{points}]}}}},
            {{"gauge":{{"dataPoints":[{{"asInt":1}}]}}}},
            {{"name":"b","histogram":{{"dataPoints":[{{"bucketCounts":["1"],"explicitBounds":[1]}}]}}}},
            {{"name":"c"}}
        ]}}]}}]}}"#
    );
    let encoded = otlp_from_json(OtlpSignal::Metrics, json.as_bytes()).unwrap();
    let mut values = Vec::new();
    let invalid = otlp_points(&encoded, |_, _, p| values.push(p.value));
    assert_eq!((invalid, &values[..]), (Ok(4), &[Some(1.0), None][..]));
}

proptest! {
    #[test]
    fn any_bytes_are_points_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = otlp_points(&bytes, |_, _, _| {});
        let enclosed = |bytes: &[u8], number: u8| {
            let mut out = vec![number << 3 | LEN];
            prost::encoding::encode_varint(bytes.len() as u64, &mut out);
            [out, bytes.to_vec()].concat()
        };
        for number in [5, 7, 9, 10, 11] {
            let named = [&[0x0a, 1, b'm'][..], &enclosed(&enclosed(&bytes, 1), number)].concat();
            let request = enclosed(&enclosed(&enclosed(&named, 2), 2), 1);
            let decoded = otlp_points(&request, |_, _, _| {});
            prop_assert!(decoded.is_ok(), "{:?}", decoded);
        }
    }
}
