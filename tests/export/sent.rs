//! Records of applications leave as they came.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
    Sum, Summary, SummaryDataPoint, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde_json::json;

use crate::receiver::Receiver;
use crate::support::agent::{TestAgent, start, terminate, utf8};
use crate::support::net::free_port;

const NOW_NS: u64 = 1_790_000_000_000_000_000;

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(text: &str) -> AnyValue {
    any(Value::StringValue(text.to_owned()))
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

fn nested() -> AnyValue {
    let list = any(Value::ArrayValue(ArrayValue {
        values: vec![any(Value::IntValue(-3)), text("b"), any(Value::BoolValue(true))],
    }));
    let inner = attribute("depth", any(Value::DoubleValue(0.5)));
    let map = any(Value::KvlistValue(KeyValueList { values: vec![inner] }));
    let values = vec![attribute("list", list), attribute("map", map)];
    any(Value::KvlistValue(KeyValueList { values }))
}

fn attributes() -> Vec<KeyValue> {
    vec![
        attribute("http.route", text("/cart/{id}")),
        attribute("http.response.status_code", any(Value::IntValue(503))),
        attribute("app.ratio", any(Value::DoubleValue(0.25))),
        attribute("app.cached", any(Value::BoolValue(false))),
        attribute("app.nested", nested()),
    ]
}

fn resource() -> Option<Resource> {
    let attributes = vec![
        attribute("service.name", text("shop")),
        attribute("service.version", text("1.2.3")),
        attribute("host.name", text("other-host")),
        attribute("app.shard", any(Value::IntValue(7))),
    ];
    Some(Resource { attributes, ..Default::default() })
}

fn scope() -> Option<InstrumentationScope> {
    let (name, version) = ("shop.instrumentation".into(), "0.4".into());
    Some(InstrumentationScope { name, version, ..Default::default() })
}

fn logs() -> ResourceLogs {
    let full = LogRecord {
        time_unix_nano: NOW_NS,
        observed_time_unix_nano: NOW_NS + 5,
        severity_number: 17,
        severity_text: "ERROR".into(),
        body: Some(text("payment failed: café ☃")),
        attributes: attributes(),
        dropped_attributes_count: 2,
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        ..Default::default()
    };
    let structured = LogRecord {
        time_unix_nano: NOW_NS + 10,
        observed_time_unix_nano: NOW_NS + 11,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(nested()),
        event_name: "shop.checkout.done".into(),
        ..Default::default()
    };
    let bare = LogRecord {
        time_unix_nano: NOW_NS + 20,
        severity_number: 13,
        severity_text: "WARN".into(),
        ..Default::default()
    };
    let scope_logs = ScopeLogs {
        scope: scope(),
        log_records: vec![full, structured, bare],
        ..Default::default()
    };
    ResourceLogs { resource: resource(), scope_logs: vec![scope_logs], ..Default::default() }
}

fn spans() -> ResourceSpans {
    let event = Event {
        time_unix_nano: NOW_NS + 3_000,
        name: "exception".into(),
        attributes: vec![attribute("exception.type", text("Timeout"))],
        ..Default::default()
    };
    let link = Link {
        trace_id: vec![0x11; 16],
        span_id: vec![0x22; 8],
        attributes: vec![attribute("why", text("batch"))],
        ..Default::default()
    };
    let failed = Span {
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        parent_span_id: vec![0xef; 8],
        name: "GET /cart".into(),
        kind: 3,
        start_time_unix_nano: NOW_NS,
        end_time_unix_nano: NOW_NS + 250_000_000,
        attributes: attributes(),
        dropped_attributes_count: 1,
        events: vec![event],
        dropped_events_count: 2,
        links: vec![link],
        dropped_links_count: 3,
        status: Some(Status { message: "refused".into(), code: 2 }),
        ..Default::default()
    };
    let plain = Span {
        trace_id: vec![0xab; 16],
        span_id: vec![0xef; 8],
        name: "POST /checkout".into(),
        kind: 2,
        start_time_unix_nano: NOW_NS,
        end_time_unix_nano: NOW_NS + 1_000,
        ..Default::default()
    };
    let scope_spans =
        ScopeSpans { scope: scope(), spans: vec![failed, plain], ..Default::default() };
    ResourceSpans { resource: resource(), scope_spans: vec![scope_spans], ..Default::default() }
}

fn metrics() -> ResourceMetrics {
    let point = |value: f64| NumberDataPoint {
        attributes: vec![attribute("queue", text("orders"))],
        start_time_unix_nano: NOW_NS - 1_000,
        time_unix_nano: NOW_NS,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    };
    // A gauge has no start.
    let gauge_point = NumberDataPoint { start_time_unix_nano: 0, ..point(12.5) };
    let histogram = HistogramDataPoint {
        attributes: vec![attribute("route", text("/"))],
        start_time_unix_nano: NOW_NS - 1_000,
        time_unix_nano: NOW_NS,
        count: 6,
        sum: Some(21.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![1.0, 5.0],
        min: Some(0.5),
        max: Some(9.0),
        ..Default::default()
    };
    let quantile = |quantile, value| ValueAtQuantile { quantile, value };
    let summary = SummaryDataPoint {
        attributes: vec![attribute("route", text("/"))],
        start_time_unix_nano: NOW_NS - 1_000,
        time_unix_nano: NOW_NS,
        count: 4,
        sum: 8.5,
        quantile_values: vec![quantile(0.5, 2.0), quantile(0.99, 4.5)],
        ..Default::default()
    };
    let metric = |name: &str, unit: &str, data| Metric {
        name: name.into(),
        unit: unit.into(),
        data: Some(data),
        ..Default::default()
    };
    let sum = Sum { data_points: vec![point(3.0)], aggregation_temporality: 2, is_monotonic: true };
    let histogram = Histogram { data_points: vec![histogram], aggregation_temporality: 1 };
    let metrics = vec![
        metric("queue.depth", "{item}", Data::Gauge(Gauge { data_points: vec![gauge_point] })),
        metric("orders", "1", Data::Sum(sum)),
        metric("latency", "s", Data::Histogram(histogram)),
        metric("old.latency", "ms", Data::Summary(Summary { data_points: vec![summary] })),
    ];
    let scope_metrics = ScopeMetrics { scope: scope(), metrics, ..Default::default() };
    ResourceMetrics {
        resource: resource(),
        scope_metrics: vec![scope_metrics],
        ..Default::default()
    }
}

/// Sends everything to an agent's OTLP door.
fn send(port: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let to = format!("http://127.0.0.1:{port}");
        let mut client = LogsServiceClient::connect(to.clone()).await.unwrap();
        client.export(ExportLogsServiceRequest { resource_logs: vec![logs()] }).await.unwrap();
        let mut client = TraceServiceClient::connect(to.clone()).await.unwrap();
        client.export(ExportTraceServiceRequest { resource_spans: vec![spans()] }).await.unwrap();
        let mut client = MetricsServiceClient::connect(to).await.unwrap();
        let request = ExportMetricsServiceRequest { resource_metrics: vec![metrics()] };
        client.export(request).await.unwrap();
    });
}

/// Sorts attributes by their keys: their order means nothing.
fn sorted(mut attributes: Vec<KeyValue>) -> Vec<KeyValue> {
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    for attribute in &mut attributes {
        if let Some(Value::KvlistValue(list)) =
            attribute.value.as_mut().and_then(|v| v.value.as_mut())
        {
            list.values = sorted(std::mem::take(&mut list.values));
        }
    }
    attributes
}

fn sorted_resource(resource: Option<Resource>) -> Option<Resource> {
    let sort = |r: Resource| Resource { attributes: sorted(r.attributes), ..r };
    resource.map(sort)
}

/// Log records with resource and scope, in the order of their times.
fn flat_logs(
    resources: Vec<ResourceLogs>,
) -> Vec<(Option<Resource>, Option<InstrumentationScope>, LogRecord)> {
    let mut flat = Vec::new();
    for resource in resources {
        for scope in resource.scope_logs {
            for mut record in scope.log_records {
                record.attributes = sorted(record.attributes);
                // The one thing that is added: tapio notes when it received a record without a
                // time of observation, here the one without a body.
                if record.body.is_none() {
                    record.observed_time_unix_nano = 0;
                }
                if let Some(Value::KvlistValue(list)) =
                    record.body.as_mut().and_then(|body| body.value.as_mut())
                {
                    list.values = sorted(std::mem::take(&mut list.values));
                }
                flat.push((
                    sorted_resource(resource.resource.clone()),
                    scope.scope.clone(),
                    record,
                ));
            }
        }
    }
    flat.sort_by_key(|(_, _, record)| record.time_unix_nano);
    flat
}

fn flat_spans(
    resources: Vec<ResourceSpans>,
) -> Vec<(Option<Resource>, Option<InstrumentationScope>, Span)> {
    let mut flat = Vec::new();
    for resource in resources {
        for scope in resource.scope_spans {
            for mut span in scope.spans {
                span.attributes = sorted(span.attributes);
                flat.push((sorted_resource(resource.resource.clone()), scope.scope.clone(), span));
            }
        }
    }
    flat.sort_by(|a, b| a.2.name.cmp(&b.2.name));
    flat
}

fn flat_metrics(
    resources: Vec<ResourceMetrics>,
) -> Vec<(Option<Resource>, Option<InstrumentationScope>, Metric)> {
    let mut flat = Vec::new();
    for resource in resources {
        for scope in resource.scope_metrics {
            for metric in scope.metrics {
                flat.push((
                    sorted_resource(resource.resource.clone()),
                    scope.scope.clone(),
                    metric,
                ));
            }
        }
    }
    flat.sort_by(|a, b| a.2.name.cmp(&b.2.name));
    flat
}

#[test]
fn everything_an_application_sends_leaves_as_it_came() {
    let (first, second) = (Receiver::start(), Receiver::start());
    let fixture = TestAgent::new();
    let otlp = free_port();
    let config = format!(
        "state_dir: {}\nnode: test\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
         collectors:\n  only: [otlp]\n  otlp: {{ enabled: true, grpc_listen: \"127.0.0.1:{otlp}\", \
         http_listen: \"127.0.0.1:{}\" }}\n\
         export:\n  otlp:\n\
         \x20   - {{ endpoint: \"http://{}\", forward: all, headers: {{ x-tenant: blue }} }}\n\
         \x20   - {{ endpoint: \"http://{}\", forward: all, protocol: http/protobuf, \
         compression: zstd }}\n",
        fixture.file("state", "").replace("/state", "/s"),
        fixture.admin,
        free_port(),
        first.grpc,
        second.http,
    );
    let agent = start(&["run", "--config", &fixture.file("tapio.yaml", &config)]);
    fixture.wait(|s| s["collectors"]["otlp"]["health"] == json!("running"));
    send(otlp);
    let status = fixture.wait(|s| {
        let sinks = s["export"].as_object().unwrap();
        s["cons1"]["total"]["forwarded"] == json!(9)
            && sinks.values().all(|sink| sink["events"] == json!(9))
    });
    for sink in status["export"].as_object().unwrap().values() {
        assert_eq!(
            [&sink["log_records"], &sink["spans"], &sink["data_points"], &sink["events_held"]],
            [3, 2, 4, 0],
            "{sink}"
        );
    }
    let output = terminate(agent);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    for receiver in [&first, &second] {
        assert_eq!(flat_logs(receiver.logs()), flat_logs(vec![logs()]));
        assert_eq!(flat_spans(receiver.traces()), flat_spans(vec![spans()]));
        assert_eq!(flat_metrics(receiver.metrics()), flat_metrics(vec![metrics()]));
    }
    assert!(first.headers().iter().all(|headers| headers["x-tenant"] == "blue"));
    assert!(second.headers().iter().all(|headers| headers["content-encoding"] == "zstd"));
}
