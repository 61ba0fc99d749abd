//! Secrets that are planted in every source that a test can feed don't leave the agent: they are in
//! no stored event, story, page or line of the log.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value as Json, json};

use super::support::eventually::eventually_ok;
use super::support::net::free_port;
use super::support::planted::PlantedAgent;
use super::support::planter::Planter;

/// A length-delimited protobuf field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn pair(key: &str, value: &str) -> Vec<u8> {
    [field(1, key.as_bytes()), field(2, &field(1, value.as_bytes()))].concat()
}

/// A request of OTLP with one resource.
fn otlp_request(resource: &[(String, String)], records: &[Vec<u8>]) -> Vec<u8> {
    let resource: Vec<u8> = resource.iter().flat_map(|(k, v)| field(1, &pair(k, v))).collect();
    let records: Vec<u8> = records.iter().flat_map(|record| field(2, record)).collect();
    field(1, &[field(1, &resource), field(2, &records)].concat())
}

fn log_record(body: &str, attributes: &[(String, String)]) -> Vec<u8> {
    let attributes: Vec<u8> = attributes.iter().flat_map(|(k, v)| field(6, &pair(k, v))).collect();
    [field(5, &field(1, body.as_bytes())), attributes].concat()
}

/// A span whose name, status and exception have texts.
fn span(number: u8, [name, status, exception]: [&str; 3]) -> Vec<u8> {
    let event = [field(2, b"exception"), field(3, &pair("exception.message", exception))].concat();
    let status = [field(2, status.as_bytes()), vec![3 << 3, 2]].concat();
    let id = [field(1, &[number + 1; 16]), field(2, &[number + 1; 8])].concat();
    [id, field(5, name.as_bytes()), field(11, &event), field(15, &status)].concat()
}

fn post(port: u16, path: &str, content_type: &str, body: &[u8]) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n",
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(bytes = "vec", repeated, tag = "1")]
    resources: Vec<Vec<u8>>,
}

/// Sends a request of logs over gRPC.
fn export(port: u16, body: &[u8]) {
    let request: Request = prost::Message::decode(body).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = format!("http://127.0.0.1:{port}");
        let channel = tonic::transport::Channel::from_shared(address).unwrap();
        let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
        grpc.ready().await.unwrap();
        let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
        let path = http::uri::PathAndQuery::from_static(path);
        let codec = tonic_prost::ProstCodec::<Request, ()>::default();
        grpc.unary(tonic::Request::new(request), path, codec).await.unwrap();
    });
}

/// Sends a failed call of a CNI plugin, as `tapio-cni` does.
fn report_cni_error(socket: &str, number: usize, message: &str) {
    let report = json!({
        "command": "ADD", "network": "podnet", "plugin": "bridge", "ifname": "eth0",
        "container_id": format!("c{number}"), "time_ns": 1_768_471_200_000_000_000u64,
        "error": {"code": 11, "message": message},
    });
    let packet = report.to_string();
    let address = SocketAddrUnix::new(socket).unwrap();
    eventually_ok("the CNI collector takes a report", || {
        let flags = SocketFlags::CLOEXEC;
        let family = AddressFamily::UNIX;
        let socket = rustix::net::socket_with(family, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &address)?;
        rustix::net::send(&socket, packet.as_bytes(), SendFlags::NOSIGNAL).map(drop)
    });
}

/// The lines of a JSON lines file: a message each, attributes each, and nested JSON.
fn json_lines(plant: &mut Planter) -> String {
    let mut lines = String::new();
    let mut add = |more: Json| {
        let number = lines.lines().count();
        let mut line = json!({
            "id": format!("e-{number}"), "time": "2026-01-15T10:00:00Z", "kind": "t.secret",
            "source": "app", "severity": "error", "entity": {"service.name": "shop"},
        });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        lines += &format!("{line}\n");
    };
    for text in plant.surrounded() {
        add(json!({"message": text}));
    }
    for (name, value) in plant.attributes() {
        add(json!({"message": "x", "attributes": {name: value}}));
    }
    let (nested, command) = (plant.secret(), plant.secret());
    add(json!({"message": "x", "attributes": {
        "request": [{"headers": {"x-api-key": nested}}],
        "process.command_args": ["mysql", format!("-p{command}"), "shop"],
    }}));
    lines
}

/// Sends secrets over OTLP: protobuf and JSON over HTTP, and gRPC. Returns the number of records.
fn send_otlp(plant: &mut Planter, grpc: u16, http: u16) -> usize {
    let mut sent = 0;
    let mut logs = |plant: &mut Planter| {
        let texts = plant.surrounded();
        let records: Vec<_> = texts.iter().map(|t| log_record(t, &plant.attributes())).collect();
        sent += records.len();
        otlp_request(&[("resource.password".into(), plant.secret())], &records)
    };
    post(http, "/v1/logs", "application/x-protobuf", &logs(plant));
    export(grpc, &logs(plant));
    let texts = plant.surrounded();
    let spans: Vec<_> = texts
        .chunks_exact(3)
        .zip(0u8..)
        .map(|(t, number)| span(number, [&t[0], &t[1], &t[2]]))
        .collect();
    post(http, "/v1/traces", "application/x-protobuf", &otlp_request(&[], &spans));
    let string = |text: String| json!({"stringValue": text});
    let of_json: Vec<Json> = plant
        .surrounded()
        .into_iter()
        .map(|text| {
            let (key, value) = ("session.token", plant.secret());
            let nested = json!({"kvlistValue": {"values": [
                {"key": "password", "value": string(plant.secret())},
            ]}});
            json!({"body": string(text), "attributes": [
                {"key": key, "value": string(value)}, {"key": "nested", "value": nested},
            ]})
        })
        .collect();
    let records = of_json.len();
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": of_json}]}]});
    post(http, "/v1/logs", "application/json", body.to_string().as_bytes());
    sent + spans.len() + records
}

fn collectors(dir: &str, ports: [u16; 2]) -> String {
    format!(
        "only: [jsonl, otlp, cni, k8s], jsonl: {{ paths: [\"{dir}/events.jsonl\"] }}, \
         otlp: {{ enabled: true, grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\" }}, \
         cni: {{ socket: \"{dir}/cni.sock\", networks: \"{dir}/networks\", links: false }}, \
         k8s: {{ kubeconfig: \"{dir}/kubeconfig\" }}",
        ports[0], ports[1],
    )
}

fn plant_and_search(redacts: bool) {
    let mut agent = PlantedAgent::new(redacts);
    let mut plant = Planter::default();
    let lines = json_lines(&mut plant);
    let jsonl = agent.fixture.file("events.jsonl", &lines);
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"https://joe:{}@127.0.0.1:1\"}}}}]\n\
         users: [{{name: u, user: {{token: {}}}}}]\n",
        plant.secret(),
        plant.secret(),
    );
    agent.fixture.file("kubeconfig", &kubeconfig);
    let ports = [free_port(), free_port()];
    let dir = jsonl.trim_end_matches("/events.jsonl");
    agent.start(&collectors(dir, ports), "t.secret, otlp.log, otlp.span, cni.failed");
    let fixture = &agent.fixture;
    fixture.wait(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, ports[1])).is_ok());
    fixture.wait(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, ports[0])).is_ok());
    let mut records = lines.lines().count() + send_otlp(&mut plant, ports[0], ports[1]);
    for (number, text) in plant.surrounded().iter().enumerate() {
        report_cni_error(&format!("{dir}/cni.sock"), number, text);
        records += 1;
    }
    let status = fixture.wait(|s| {
        let k8s = &s["collectors"]["k8s"];
        let has_failed = k8s["last_error"] != json!("") || k8s["notes"] != json!({});
        s["cons1"]["total"]["forwarded"].as_u64() >= Some(records as u64) && has_failed
    });
    for collector in ["jsonl", "otlp", "cni"] {
        let redacted = status["cons1"]["collectors"][collector]["redacted"].as_u64();
        assert_eq!(redacted > Some(20), redacts, "{collector}: {}", status["cons1"]);
    }
    agent.finish(records).verify();
}

#[test]
fn planted_secrets_do_not_leave_the_agent() {
    plant_and_search(true);
}

#[test]
fn search_finds_secrets_that_are_not_redacted() {
    plant_and_search(false);
}
