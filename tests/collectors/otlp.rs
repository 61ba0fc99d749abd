//! OTLP over gRPC and HTTP: logs and spans become events with their own trace.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::json;
use tapio_collectors::otlp;
use tonic::codec::CompressionEncoding;

use crate::support::net::free_port;
use crate::support::pipeline::Pipeline;

/// A length-delimited protobuf field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 16_384);
    let mut out = vec![number << 3 | 2];
    if bytes.len() >= 128 {
        out.push(bytes.len() as u8 & 0x7f | 0x80);
        out.push((bytes.len() >> 7) as u8);
    } else {
        out.push(bytes.len() as u8);
    }
    out.extend_from_slice(bytes);
    out
}

fn pair(key: &str, value: &str) -> Vec<u8> {
    [field(1, key.as_bytes()), field(2, &field(1, value.as_bytes()))].concat()
}

fn request(record: &[u8]) -> Vec<u8> {
    let resource = [
        field(1, &pair("service.name", "shop")),
        field(1, &pair("k8s.pod.uid", "3f2b8c1e-5d47-4a90-9b1c-7e6f5a4d3c2b")),
    ]
    .concat();
    let parts = [field(1, &resource), field(2, &field(2, record))];
    field(1, &parts.concat())
}

/// A request with one record of any size.
fn proto_request(record: &[u8]) -> Vec<u8> {
    let enclosed = |content: &[u8], number: u8| {
        let mut out = vec![number << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut out);
        [out, content.to_vec()].concat()
    };
    enclosed(&enclosed(&enclosed(record, 2), 2), 1)
}

fn log_record() -> Vec<u8> {
    [
        [vec![1 << 3 | 1], 1_768_471_200_000_000_000u64.to_le_bytes().to_vec()].concat(),
        vec![2 << 3, 17],
        field(5, &field(1, b"payment failed")),
        field(6, &pair("error.type", "Timeout")),
        field(9, &[0xab; 16]),
        field(10, &[0xcd; 8]),
    ]
    .concat()
}

/// A span with everything that is kept of one.
fn cart_span() -> Vec<u8> {
    [
        field(1, &[0xab; 16]),
        field(2, &[0xef; 8]),
        field(4, &[0x12; 8]),
        field(5, b"GET /cart"),
        vec![6 << 3, 3],
        field(11, &[field(2, b"exception"), field(3, &pair("exception.type", "E"))].concat()),
        vec![12 << 3, 2],
        field(13, &[field(1, &[0x34; 16]), field(2, &[0x56; 8])].concat()),
        field(15, &[field(2, b"refused"), vec![3 << 3, 2]].concat()),
        [vec![7 << 3 | 1], 1_768_471_200_000_000_000u64.to_le_bytes().to_vec()].concat(),
        [vec![8 << 3 | 1], 1_768_471_200_250_000_000u64.to_le_bytes().to_vec()].concat(),
    ]
    .concat()
}

/// Posts a request with further headers; returns the response.
fn post_with(port: u16, path: &str, headers: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\nContent-Length: {length}\r\n\r\n",
    )
    .unwrap();
    // A request that is too large is answered before it is read to its end.
    let _ = stream.write_all(body);
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}

/// Posts a request; returns the response's first line.
fn post(port: u16, path: &str, content_type: &str, body: &[u8]) -> String {
    let response = post_with(port, path, &format!("Content-Type: {content_type}"), body);
    response.lines().next().unwrap_or_default().to_owned()
}

/// The collector with its pipeline, and its ports: gRPC and HTTP.
fn start() -> (Pipeline, u16, u16) {
    let (grpc, http) = (free_port(), free_port());
    let config = otlp::Config {
        enabled: true,
        grpc_listen: (Ipv4Addr::LOCALHOST, grpc).into(),
        http_listen: (Ipv4Addr::LOCALHOST, http).into(),
        ..otlp::Config::default()
    };
    let pipeline = Pipeline::start("otlp", &config);
    pipeline.wait_until("the collector listens", |_| {
        TcpStream::connect((Ipv4Addr::LOCALHOST, http)).is_ok()
    });
    (pipeline, grpc, http)
}

/// Sends a request over gRPC; returns the status code.
fn export(port: u16, path: &'static str, body: Vec<u8>) -> tonic::Code {
    export_as(port, path, body, None).map_or_else(|e| e.code(), |_| tonic::Code::Ok)
}

/// Sends a request over gRPC in an encoding; returns the response's partial success.
fn export_as(
    port: u16,
    path: &'static str,
    body: Vec<u8>,
    encoding: Option<CompressionEncoding>,
) -> Result<Vec<u8>, tonic::Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = format!("http://127.0.0.1:{port}");
        let channel =
            tonic::transport::Channel::from_shared(address).unwrap().connect().await.unwrap();
        let mut grpc = tonic::client::Grpc::new(channel);
        if let Some(encoding) = encoding {
            grpc = grpc.send_compressed(encoding);
        }
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        // A request is one length-delimited field with number 1, as prost encodes this message.
        let message = Request { resources: vec![body[body.len() - inner_len(&body)..].to_vec()] };
        let codec = tonic_prost::ProstCodec::<Request, Response>::default();
        let response = grpc.unary(tonic::Request::new(message), path, codec).await?;
        Ok(response.into_inner().partial_success)
    })
}

/// Length of the content of a request's only field.
fn inner_len(body: &[u8]) -> usize {
    let mut content = &body[1..];
    prost::encoding::decode_varint(&mut content).map_or(0, |len| len as usize)
}

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(bytes = "vec", repeated, tag = "1")]
    resources: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(bytes = "vec", tag = "1")]
    partial_success: Vec<u8>,
}

#[test]
fn logs_and_spans_become_events_with_their_own_trace() {
    let (pipeline, grpc, http) = start();
    assert_eq!(post(http, "/v1/logs", PROTOBUF, &request(&log_record())), "HTTP/1.1 200 OK");
    let traces = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert_eq!(export(grpc, traces, request(&cart_span())), tonic::Code::Ok);
    let other = [log_record(), field(12, b"payment.failed")].concat();
    assert_eq!(export(grpc, LOGS, request(&other)), tonic::Code::Ok);
    let many: Vec<u8> = (0..300).flat_map(|n| field(6, &pair(&format!("n{n}"), "v"))).collect();
    let many = [log_record(), many, vec![7 << 3, 5]].concat();
    assert_eq!(export(grpc, LOGS, request(&many)), tonic::Code::Ok);
    pipeline.wait_until("all events", |p| p.count() == 4);
    {
        let got = pipeline.events();
        let log = &got[0];
        assert_eq!(log["kind"], json!("otlp.log"));
        assert_eq!(log["severity"], json!("error"));
        assert_eq!(log["message"], json!("payment failed"));
        assert_eq!(log["trace_id"], json!("abababababababababababababababab"));
        assert_eq!(log["span_id"], json!("cdcdcdcdcdcdcdcd"));
        assert_eq!(log["entity"]["service.name"], json!("shop"));
        assert_eq!(log["entity"]["k8s.pod.uid"], json!("3f2b8c1e-5d47-4a90-9b1c-7e6f5a4d3c2b"));
        assert_eq!(log["attributes"]["error.type"], json!("Timeout"));
        let span = &got[1];
        assert_eq!((&span["kind"], &span["message"]), (&json!("otlp.span"), &json!("GET /cart")));
        assert_eq!(span["severity"], json!("error"));
        let expected = json!({
            "tapio.span.duration_ns": 250_000_000,
            "tapio.span.parent_id": "1212121212121212",
            "tapio.span.kind": "client",
            "otel.status_description": "refused",
            "exception.type": "E",
            "tapio.span.events": [{
                "name": "exception", "time": "1970-01-01T00:00:00Z",
                "attributes": {"exception.type": "E"},
            }],
            "tapio.span.links": [{
                "trace_id": "34343434343434343434343434343434", "span_id": "5656565656565656",
                "attributes": {},
            }],
            "otel.dropped_events_count": 2,
        });
        assert_eq!(span["attributes"], expected);
        assert_eq!(got[2]["attributes"]["otel.event.name"], json!("payment.failed"));
        // Attributes beyond the limit are counted together with those that the sender dropped.
        let attributes = got[3]["attributes"].as_object().unwrap();
        let numbered = attributes.keys().filter(|key| key.starts_with('n')).count();
        assert!((150..300).contains(&numbered), "{numbered}");
        assert_eq!(attributes["error.type"], json!("Timeout"));
        assert_eq!(attributes["otel.dropped_attributes_count"], json!(5 + 300 - numbered));
    }
    // An invalid request is refused and counted; other requests aren't affected.
    assert_eq!(post(http, "/v1/logs", PROTOBUF, &[0xff; 9]), "HTTP/1.1 400 Bad Request");
    let text = post(http, "/v1/logs", "text/plain", b"{}");
    assert_eq!(text, "HTTP/1.1 415 Unsupported Media Type");
    assert_eq!(
        export(grpc, "/opentelemetry.proto.collector.logs.v1.LogsService/Nope", request(&[])),
        tonic::Code::Unimplemented
    );
    let account = pipeline.end().snapshot;
    assert_eq!((account.total.received, account.total.forwarded), (5, 4));
}

const PROTOBUF: &str = "application/x-protobuf";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

#[test]
fn requests_are_unpacked_within_a_bound() {
    let (pipeline, grpc, http) = start();
    let packed = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let gzip = "Content-Type: Application/X-Protobuf; charset=utf-8\r\nContent-Encoding: gzip";
    let response = post_with(http, "/v1/logs", gzip, &packed(&request(&log_record())));
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    let encodings =
        [CompressionEncoding::Gzip, CompressionEncoding::Zstd, CompressionEncoding::Deflate];
    for encoding in encodings {
        let exported = export_as(grpc, LOGS, request(&log_record()), Some(encoding));
        assert_eq!(exported.map_err(|e| e.to_string()), Ok(Vec::new()), "{encoding:?}");
    }
    pipeline.wait_until("all events", |p| p.count() == 4);

    let brotli = "Content-Type: application/x-protobuf\r\nContent-Encoding: br";
    let response = post_with(http, "/v1/logs", brotli, b"x");
    assert!(response.starts_with("HTTP/1.1 415"), "{response}");
    assert!(response.contains("accept-encoding: gzip, zstd, deflate, identity"), "{response}");
    assert!(response.contains("\"br\" isn't supported"), "{response}");
    // A bomb: 17 MiB in 17 KiB.
    let large = vec![0; 17 << 20];
    let response = post_with(http, "/v1/logs", gzip, &packed(&large));
    assert!(response.starts_with("HTTP/1.1 413"), "{response}");
    let plain = "Content-Type: application/x-protobuf";
    let response = post_with(http, "/v1/logs", plain, &large);
    assert!(response.starts_with("HTTP/1.1 413"), "{response}");
    let body = [&[0x0a, 0x80, 0x80, 0xc0, 0x08][..], &large].concat();
    for encoding in encodings.map(Some).into_iter().chain([None]) {
        let refused = export_as(grpc, LOGS, body.clone(), encoding).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{encoding:?}: {refused}");
        assert_eq!(refused.details(), b"", "senders don't retry without RetryInfo");
    }
    let account = pipeline.end().snapshot;
    assert_eq!((account.total.received, account.total.forwarded), (4, 4));
}

#[test]
fn large_records_are_cut_with_a_mark() {
    let (pipeline, grpc, _) = start();
    let large = [log_record(), field(6, &pair("query", &"q".repeat(16_000)))].concat();
    let large = [large, field(6, &pair("plan", &"p".repeat(16_000)))].concat();
    let body: Vec<u8> = "b".repeat(60_000).into_bytes();
    // A field of more than 16 KiB has a length of three bytes.
    let body = [vec![0x0a, 0xe0, 0xd4, 0x03], body].concat();
    let request = proto_request(&[large, [vec![0x2a, 0xe4, 0xd4, 0x03], body].concat()].concat());
    assert_eq!(export_as(grpc, LOGS, request, None).map_err(|e| e.to_string()), Ok(Vec::new()));
    pipeline.wait_until("the event", |p| p.count() == 1);
    {
        let got = pipeline.events();
        let message = got[0]["message"].as_str().unwrap();
        assert!(message.starts_with("bbbb") && message.ends_with(" bytes cut]"));
        let attributes = &got[0]["attributes"];
        assert_eq!(attributes["query"], json!("q".repeat(16_000)), "the longest is cut first");
        assert!(attributes["tapio.truncated_bytes"].as_u64() > Some(26_000), "{attributes}");
    }
    let account = pipeline.end().snapshot;
    assert_eq!((account.total.received, account.total.truncated), (1, 1));
}

#[test]
fn json_is_answered_in_json() {
    let (pipeline, _, http) = start();
    let json = "Content-Type: application/json";
    let records = r#"{"timeUnixNano":"1768471200000000000","severityNumber":17,
        "body":{"stringValue":"payment failed"},"traceId":"ABABABABABABABABABABABABABABABAB",
        "attributes":[{"key":"error.type","value":{"stringValue":"Timeout"}}]}, {"body":7}"#;
    let logs = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#);
    let response = post_with(http, "/v1/logs", json, logs.as_bytes());
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    assert!(response.contains("content-type: application/json"), "{response}");
    let rejected = r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"records not accepted: 1 can't be decoded"}}"#;
    assert!(response.ends_with(rejected), "{response}");
    let response = post_with(http, "/v1/traces", json, b"{}");
    assert!(response.ends_with("\r\n\r\n{}"), "{response}");
    let response = post_with(http, "/v1/traces", json, b"{\"resourceSpans\":3}");
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
    let status = r#"{"code":3,"message":"resource_spans: unexpected 3"}"#;
    assert!(response.ends_with(status), "{response}");
    pipeline.wait_until("the event", |p| p.count() == 1);
    {
        let got = pipeline.events();
        assert_eq!(got[0]["message"], json!("payment failed"));
        assert_eq!(got[0]["trace_id"], json!("abababababababababababababababab"));
        assert_eq!(got[0]["attributes"]["error.type"], json!("Timeout"));
    }
    let account = pipeline.end().snapshot;
    assert_eq!((account.total.received, account.total.forwarded), (2, 1));
}

/// Records of several resources, of which one has an identity of its own.
#[test]
fn records_have_their_resource_and_their_own_identity() {
    let (pipeline, _, http) = start();
    let record = |n: &str, more: &[u8]| {
        field(
            2,
            &[field(5, &field(1, n.as_bytes())), field(6, &pair("n", n)), more.to_vec()].concat(),
        )
    };
    let resource = |service: &str, records: &[Vec<u8>]| {
        let attributes = ["service.name", "region"].map(|key| field(1, &pair(key, service)));
        field(1, &[field(1, &attributes.concat()), field(2, &records.concat())].concat())
    };
    let own = [("node", "n9"), ("container.id", "c9"), ("region", "own")];
    let own = own.map(|(key, value)| field(6, &pair(key, value))).concat();
    let request = [
        resource("shop", &[record("1", b""), record("2", &own), record("3", b"")]),
        resource("pay", &[record("4", b"")]),
        field(1, &field(2, &record("5", b""))),
    ];
    assert_eq!(post(http, "/v1/logs", PROTOBUF, &request.concat()), "HTTP/1.1 200 OK");
    pipeline.wait_until("all events", |p| p.count() == 5);
    let events = pipeline.events();
    let parts = |event: &serde_json::Value| json!([event["entity"], event["attributes"]]);
    let attributes = |n: &str, region: &str| json!({"n": n, "region": region});
    let node = &events[0]["entity"]["node"];
    let plain = |n: &str, service: &str| json!([{"node": node, "service.name": service}, attributes(n, service)]);
    assert_eq!(parts(&events[0]), plain("1", "shop"));
    let own = json!({"node": "n9", "container.id": "c9", "service.name": "shop"});
    assert_eq!(parts(&events[1]), json!([own, attributes("2", "own")]));
    assert_eq!(parts(&events[2]), plain("3", "shop"));
    assert_eq!(parts(&events[3]), plain("4", "pay"));
    assert_eq!(parts(&events[4]), json!([{"node": node}, {"n": "5"}]));
    drop(events);
    pipeline.end();
}

#[test]
fn records_that_are_sent_again_have_the_same_id() {
    let (pipeline, _, http) = start();
    let mut sent = 0;
    let mut send = |path: &str, records: &[Vec<u8>]| {
        sent += records.len();
        let records: Vec<u8> = records.iter().flat_map(|r| field(2, r)).collect();
        let request = field(1, &field(2, &records));
        assert_eq!(post(http, path, PROTOBUF, &request), "HTTP/1.1 200 OK");
    };
    let span = |n: u8| [field(1, &[n; 16]), field(2, &[n; 8]), field(5, b"GET /pay")].concat();
    let log = |time_ns: u64, text: &[u8]| {
        let time = [vec![1 << 3 | 1], time_ns.to_le_bytes().to_vec()].concat();
        [time, field(5, &field(1, text))].concat()
    };
    for _ in 0..3 {
        send("/v1/traces", &[span(1), span(2)]);
        send("/v1/logs", &[log(1_768_471_200_000_000_001, b"a")]);
    }
    // In another request.
    send("/v1/traces", &[span(2), span(3)]);
    // The same line twice at the same time is two lines.
    let line = log(1_768_471_200_000_000_002, b"b");
    send("/v1/logs", &[line.clone(), line]);
    // Lines with the time in seconds, or without one, can't be distinguished from others.
    for _ in 0..3 {
        send("/v1/logs", &[log(1_768_471_200_000_000_000, b"c"), log(0, b"d")]);
    }
    pipeline.wait_until("all events", |p| p.count() == sent);
    let ids: std::collections::HashSet<String> = pipeline.texts("id").into_iter().collect();
    assert_eq!(ids.len(), 3 + 1 + 2 + 6);
    let account = pipeline.end().snapshot;
    assert_eq!((account.total.received, account.total.forwarded), (sent as u64, sent as u64));
}

#[test]
fn metrics_become_measurements() {
    let (pipeline, grpc, http) = start();
    let json = "Content-Type: application/json";
    let measured = |time: u64, requests: u64, counts: [u64; 3]| {
        let total: u64 = counts.iter().sum();
        json!({"resourceMetrics": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeMetrics": [{"scope": {"name": "lib"}, "metrics": [
                {"name": "queue.length", "unit": "{item}", "gauge": {"dataPoints": [
                    {"timeUnixNano": time, "asDouble": 2.5,
                     "attributes": [{"key": "queue", "value": {"stringValue": "q1"}}]}]}},
                {"name": "http.requests", "sum": {
                    "aggregationTemporality": 2, "isMonotonic": true,
                    "dataPoints": [{"timeUnixNano": time, "asInt": requests.to_string()}]}},
                {"name": "http.duration", "unit": "s", "histogram": {
                    "aggregationTemporality": 2,
                    "dataPoints": [{"timeUnixNano": time, "count": total, "sum": total,
                        "explicitBounds": [1, 2], "bucketCounts": counts, "max": 1.75}]}},
            ]}],
        }]})
    };
    for (time, requests, counts) in [(10, 100, [5, 0, 0]), (20, 130, [5, 10, 0])] {
        let body = measured(time, requests, counts).to_string();
        let response = post_with(http, "/v1/metrics", json, body.as_bytes());
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    }
    const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    assert_eq!(export(grpc, METRICS, request(&[])), tonic::Code::Ok);
    pipeline.wait_until("all events", |p| p.count() == 6);
    {
        let got = pipeline.events();
        let (gauge, sum, histogram) = (&got[3], &got[4], &got[5]);
        assert_eq!(
            (&gauge["kind"], &gauge["message"]),
            (&json!("otlp.metric"), &json!("queue.length"))
        );
        assert_eq!(gauge["entity"]["service.name"], json!("shop"));
        let expected = json!({
            "tapio.metric.name": "queue.length", "tapio.metric.unit": "{item}",
            "tapio.metric.type": "gauge", "tapio.metric.value": 2.5, "otel.scope.name": "lib",
            "queue": "q1",
        });
        assert_eq!(gauge["attributes"], expected);
        assert_eq!(got[1]["attributes"]["tapio.metric.delta"], json!(null), "the first point");
        assert_eq!(sum["attributes"]["tapio.metric.value"], json!(130));
        assert_eq!(sum["attributes"]["tapio.metric.delta"], json!(30));
        let attributes = &histogram["attributes"];
        assert_eq!(attributes["tapio.metric.count"], json!(10));
        assert_eq!(attributes["tapio.metric.p50"], json!(1.5));
        assert_eq!(attributes["tapio.metric.max"], json!(1.75));
    }
    let account = pipeline.end().snapshot;
    assert_eq!((account.total.received, account.total.forwarded), (6, 6));
}
