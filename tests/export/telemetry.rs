//! tapio's own logs, metrics and spans (`telemetry.otlp`), taken by a receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::Status;

use crate::receiver::{Answer, Receiver};
use crate::support::agent::{TestAgent, start, terminate, utf8};
use crate::support::eventually::eventually;
use crate::support::net::{free_address, get, get_json};

fn text(value: &KeyValue) -> (String, String) {
    let value_text = match value.value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("{}: {other:?}", value.key),
    };
    (value.key.clone(), value_text)
}

fn attributes(resource: Option<&Resource>) -> BTreeMap<String, String> {
    resource.unwrap().attributes.iter().map(text).collect()
}

fn span<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"))
}

/// The names of counters, gauges and histograms, with the number of their points.
fn metrics(receiver: &Receiver) -> BTreeMap<String, usize> {
    let last = receiver.metrics().pop();
    let scopes = last.into_iter().flat_map(|resource| resource.scope_metrics);
    let points = |data: Option<Data>| match data {
        Some(Data::Sum(sum)) => {
            assert!(sum.is_monotonic);
            sum.data_points.len()
        }
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        other => panic!("{other:?}"),
    };
    scopes.flat_map(|s| s.metrics).map(|m| (m.name, points(m.data))).collect()
}

/// The names on a page of `/metrics` that have samples.
fn names(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let names = lines.map(|line| line.split(['{', ' ']).next().unwrap());
    let suffixes = ["_bucket", "_sum", "_count"];
    let family = |name: &str| {
        let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
        base.filter(|base| base.ends_with("_seconds")).unwrap_or(name).to_owned()
    };
    names.map(family).collect()
}

fn agent(fixture: &TestAgent, telemetry: &str) -> Child {
    let input = fixture.file("input.jsonl", "");
    let config = format!(
        "state_dir: {}\nnode: n1\ncluster: c1\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
         server: {{ grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\" }}\n\
         collectors:\n  only: [jsonl]\n  jsonl: {{ paths: [\"{input}\"], follow: true }}\n\
         telemetry:\n{telemetry}",
        input.replace("input.jsonl", "state"),
        fixture.admin,
        fixture.grpc,
        fixture.http,
    );
    let config = fixture.file("tapio.yaml", &config);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapio"));
    command.args(["run", "--standalone", "--config", &config]);
    command.env("OTEL_RESOURCE_ATTRIBUTES", "team=nodes,host.name=from-env");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn logs_metrics_and_spans_of_an_agent_arrive() {
    let receiver = Receiver::start();
    let fixture = TestAgent::new();
    let telemetry = format!(
        "  metrics_interval: 1s\n  otlp: {{ endpoint: \"http://{}\", headers: {{ x-key: k }} }}\n",
        receiver.grpc
    );
    let process = agent(&fixture, &telemetry);
    eventually("metrics arrive", || !receiver.metrics().is_empty());
    let (_, page) = fixture.page("/metrics").unwrap();
    let (_, server_page) = get(fixture.http, "/metrics").unwrap();
    // A page and a collection are made at different times: what has samples on the page by now has
    // points in one of the next collections.
    let mut expected = names(&page);
    expected.extend(names(&server_page));
    eventually("each metric of both pages arrives", || {
        let exported = metrics(&receiver);
        expected.iter().all(|name| exported.get(name).is_some_and(|points| *points > 0))
    });
    let resource = attributes(receiver.metrics()[0].resource.as_ref());
    let output = terminate(process);
    assert!(output.status.success(), "{}", utf8(&output.stderr));

    for (key, value) in [
        ("service.name", "tapio"),
        ("service.instance.id", "n1"),
        ("k8s.cluster.name", "c1"),
        ("host.name", "from-env"),
        ("team", "nodes"),
        ("telemetry.sdk.language", "rust"),
    ] {
        assert_eq!(resource.get(key).map(String::as_str), Some(value), "{resource:?}");
    }
    let spans = receiver.spans();
    let started = span(&spans, "agent.start");
    let loaded = span(&spans, "rules.load");
    assert_eq!(loaded.parent_span_id, started.span_id);
    assert_eq!(loaded.trace_id, started.trace_id);
    span(&spans, "agent.drain");
    // The last entry of the log arrives, too; those of the start are in its trace.
    let logs = receiver.log_records();
    let body = |text: &str| {
        let is_body = |v: &Value| matches!(v, Value::StringValue(body) if body.contains(text));
        logs.iter().find(|record| {
            record.body.as_ref().and_then(|body| body.value.as_ref()).is_some_and(is_body)
        })
    };
    let ended = body("agent ended").unwrap_or_else(|| panic!("{logs:?}"));
    assert_eq!((ended.severity_number, ended.severity_text.as_str()), (9, "INFO"));
    let listening = body("server: listening").unwrap();
    assert_eq!(listening.trace_id, started.trace_id);
    assert!(receiver.headers().iter().all(|headers| headers["x-key"] == "k"));
}

#[test]
fn a_server_names_itself_and_its_queries_are_spans() {
    let receiver = Receiver::start();
    let fixture = TestAgent::new();
    let data = fixture.file("x", "").replace("/x", "/store");
    let config = format!(
        "node: n1\nserver: {{ grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\", \
         data_dir: {data} }}\ntelemetry:\n  otlp:\n    endpoint: \"http://{}\"\n    \
         protocol: http/protobuf\n    signals: [traces, logs]\n    min_severity: warn\n",
        fixture.grpc, fixture.http, receiver.http
    );
    let config = fixture.file("server.yaml", &config);
    let process = start(&["server", "--config", &config]);
    eventually("server answers", || get_json(fixture.http, "/api/v1/stories").is_some());
    let output = terminate(process);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    let traces = receiver.traces();
    assert_eq!(attributes(traces[0].resource.as_ref())["service.name"], "tapio-server");
    span(&receiver.spans(), "server.start");
    span(&receiver.spans(), "query.stories");
    assert!(receiver.metrics().is_empty());
    assert!(receiver.log_records().iter().all(|record| record.severity_number >= 13));
}

#[test]
fn refused_telemetry_is_counted_and_an_absent_receiver_delays_nothing() {
    let receiver = Receiver::start();
    let refused = || Answer::Status(Status::invalid_argument("no"));
    receiver.answer((0..3).map(|_| refused()));
    let fixture = TestAgent::new();
    let telemetry =
        format!("  metrics_interval: 1s\n  otlp: {{ endpoint: \"http://{}\" }}\n", receiver.grpc);
    let process = agent(&fixture, &telemetry);
    eventually("refused requests are counted", || {
        let page = fixture.page("/metrics").map(|(_, page)| page).unwrap_or_default();
        let lost = |signal: &str| {
            let sample = format!("tapio_telemetry_records_lost_total{{signal=\"{signal}\"}} ");
            let value = page.lines().find_map(|line| line.strip_prefix(&sample));
            value.is_some_and(|value| value != "0")
        };
        page.contains("\ntapio_telemetry_requests_failed_total 3\n")
            && ["logs", "traces", "metrics"].into_iter().any(lost)
    });
    let output = terminate(process);
    let log = utf8(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("telemetry: the receiver doesn't take a request"), "{log}");

    let fixture = TestAgent::new();
    let process =
        agent(&fixture, &format!("  otlp: {{ endpoint: \"http://{}\" }}\n", free_address()));
    fixture.wait(|status| status["cons1"]["holds"] == true);
    let output = terminate(process);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
}
