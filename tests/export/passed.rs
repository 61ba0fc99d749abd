//! Log records that pass as they came reach a receiver unchanged and a server as events, once each
//! also where the agent is killed before its answer arrives.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::{Value as Json, json};

use crate::receiver::Receiver;
use crate::support::agent::{TestAgent, start, terminate, utf8};
use crate::support::net::{free_port, items};

const NOW_NS: u64 = 1_768_471_200_000_000_000;
/// Records that nothing has to look at, and one error behind them.
const PLAIN: u64 = 300;

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn text(text: String) -> Value {
    Value::StringValue(text)
}

fn record(n: u64) -> LogRecord {
    LogRecord {
        time_unix_nano: NOW_NS + n,
        observed_time_unix_nano: NOW_NS + n + 9,
        severity_number: if n == PLAIN { 17 } else { 9 },
        severity_text: "info".into(),
        body: Some(AnyValue { value: Some(text(format!("order {n} shipped"))) }),
        attributes: vec![
            attribute("app.item", text(format!("item-{n}"))),
            attribute("app.count", Value::IntValue(n as i64)),
        ],
        dropped_attributes_count: 1,
        flags: 1,
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        event_name: "shop.shipped".into(),
    }
}

fn logs() -> ResourceLogs {
    let attributes = vec![
        attribute("host.name", text("other-host".into())),
        attribute("app.shard", Value::IntValue(7)),
    ];
    let scope = InstrumentationScope {
        name: "shop.lib".into(),
        version: "0.4".into(),
        attributes: vec![attribute("lib.mode", text("fast".into()))],
        ..Default::default()
    };
    let scope_logs = ScopeLogs {
        scope: Some(scope),
        log_records: (0..=PLAIN).map(record).collect(),
        ..Default::default()
    };
    let resource = Some(Resource { attributes, ..Default::default() });
    ResourceLogs { resource, scope_logs: vec![scope_logs], ..Default::default() }
}

fn send(port: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let to = format!("http://127.0.0.1:{port}");
        let mut client = LogsServiceClient::connect(to).await.unwrap();
        let request = ExportLogsServiceRequest { resource_logs: vec![logs()] };
        let answer = client.export(request).await.unwrap().into_inner();
        assert_eq!(answer.partial_success, None);
    });
}

fn config(fixture: &TestAgent, otlp: u16, receiver: &Receiver) -> String {
    let dir = fixture.file("unused", "").replace("/unused", "");
    let text = format!(
        "state_dir: {dir}/state\nnode: test\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
         collectors:\n  only: [otlp]\n  otlp: {{ enabled: true, grpc_listen: \"127.0.0.1:{otlp}\", \
         http_listen: \"127.0.0.1:{}\" }}\n\
         bridge: {{ endpoint: \"127.0.0.1:{}\" }}\n\
         server: {{ grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\", \
         data_dir: \"{dir}/store\" }}\n\
         export: {{ otlp: [{{ endpoint: \"http://{}\", forward: all, compression: none }}] }}\n",
        fixture.admin,
        free_port(),
        fixture.grpc,
        fixture.grpc,
        fixture.http,
        receiver.grpc,
    );
    fixture.file("tapio.yaml", &text)
}

/// The stored events, in the order of their times.
fn stored(fixture: &TestAgent) -> Vec<Json> {
    let mut events = items(fixture.http, "/api/v1/events?limit=1000").unwrap();
    events.sort_by_key(|event| event["attributes"]["app.count"].as_u64());
    events
}

#[test]
fn passed_records_arrive_once_and_unchanged() {
    let (fixture, receiver, otlp) = (TestAgent::new(), Receiver::start(), free_port());
    let path = config(&fixture, otlp, &receiver);
    let server = start(&["server", "--config", &path]);
    let mut agent = start(&["run", "--config", &path]);
    fixture.wait(|s| s["collectors"]["otlp"]["health"] == json!("running"));
    send(otlp);
    let all = json!(PLAIN + 1);
    let is_done = |status: &Json| {
        let mut sinks = status["export"].as_object().unwrap().values();
        status["cons1"]["total"]["forwarded"] == all && sinks.all(|sink| sink["events"] == all)
    };
    fixture.wait(is_done);
    // The collector reports its counts once a second.
    let passed = format!("\ntapio_otlp_records_passed_total {PLAIN}\n");
    let has_passed = || fixture.page("/metrics").is_some_and(|(_, page)| page.contains(&passed));
    crate::support::eventually::eventually("the count of records that passed", has_passed);

    let received = receiver.logs();
    let mut records: Vec<LogRecord> = receiver.log_records();
    records.sort_by_key(|record| record.time_unix_nano);
    let mut expected: Vec<LogRecord> = (0..=PLAIN).map(record).collect();
    // The error is an event. Its scope's attributes are the record's there, and flags aren't kept.
    let error = expected.last_mut().unwrap();
    error.attributes.push(attribute("lib.mode", text("fast".into())));
    (error.flags, error.severity_text) = (0, "ERROR".into());
    assert_eq!(records, expected);
    let scopes = received.iter().flat_map(|of| &of.scope_logs).map(|of| of.scope.clone());
    assert!(scopes.into_iter().any(|scope| scope == logs().scope_logs[0].scope));
    assert!(received.iter().all(|of| of.resource == logs().resource), "{:?}", received[0].resource);

    let events = stored(&fixture);
    assert_eq!(json!(events.len()), all);
    assert_eq!(events[5]["message"], "order 5 shipped");
    assert_eq!(
        events[5]["attributes"],
        json!({
            "otel.event.name": "shop.shipped", "otel.observed_time_ns": NOW_NS + 14,
            "otel.scope.name": "shop.lib", "otel.scope.version": "0.4", "app.item": "item-5",
            "app.count": 5, "lib.mode": "fast", "app.shard": 7,
            "otel.dropped_attributes_count": 1,
        })
    );
    assert_eq!(events[5]["entity"], json!({ "node": "other-host" }));
    assert_eq!(events[5]["trace_id"], "ab".repeat(16));

    // A sender whose answer a kill took sends again.
    agent.kill().unwrap();
    agent.wait().unwrap();
    let agent = start(&["run", "--config", &path]);
    fixture.wait(|s| s["collectors"]["otlp"]["health"] == json!("running"));
    send(otlp);
    let read_again = |s: &Json| s["cons1"]["collectors"]["otlp"]["dropped"] != json!({});
    let status = fixture.wait(|s| read_again(s) && s["cons1"]["total"]["held"] == json!(0));
    let of_otlp = &status["cons1"]["collectors"]["otlp"];
    assert_eq!(of_otlp["received"], all, "{of_otlp}");
    assert_eq!(of_otlp["dropped"], json!({ "bridge/read_again": PLAIN + 1 }));
    assert_eq!(json!(stored(&fixture).len()), all);
    for child in [agent, server] {
        let output = terminate(child);
        assert!(output.status.success(), "{}", utf8(&output.stderr));
    }
}
