//! Secrets that are planted in every source that a test can feed don't leave the agent: they are in
//! no stored event, story, page or line of the log.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value as Json, json};

use super::support::agent::{TAPIO, TestAgent, terminate, utf8};
use super::support::eventually::eventually_ok;
use super::support::net::get;

/// Texts with a secret, which stands for `S`.
const FORMS: &[&str] = &[
    "login failed: app --password S --user joe",
    "app --password=S",
    "mysql -uroot -pS shop",
    "curl -u joe:S https://example.com",
    "PGPASSWORD=S psql -h db",
    "curl -H 'Authorization: Bearer S' https://example.com",
    "sshpass -p S ssh host",
    "redis-cli -a S ping",
    "docker login -u joe -p S registry",
    "openssl rsa -passin pass:S -in k",
    "kubeadm join 10.0.0.1:6443 --token S",
    "GET /?token=S HTTP/1.1",
    "GET https://x/y?a=b&access_token=S&c=d",
    "https://x/y?X-Amz-Signature=S",
    "refused: https://joe:S@10.0.0.1:6443",
    "postgres://joe:S@db/shop",
    "Cookie: session=S; theme=dark",
    "X-Api-Key: S",
    r#"{"user":"joe","password":"S"}"#,
    r#"{"body":"{\"api_key\":\"S\"}"}"#,
    "db:\n  password: S\n  port: 5432",
    "level=info client_secret=S port=1",
    "Server=h;Uid=u;Pwd=S;Database=d",
    "-----BEGIN PRIVATE KEY-----\nS\n-----END PRIVATE KEY-----",
    "ghp_SabcdefghijABCDEFGHIJ0123456789abcd",
];
/// Attributes whose values are secrets by their names.
const NAMES: &[&str] = &[
    "password",
    "db.password",
    "secret",
    "auth.token",
    "apiKey",
    "aws.credential",
    "tls.private_key",
    "db.connection_string",
    "http.request.header.authorization",
    "http.request.header.cookie",
];

/// Plants numbered secrets.
#[derive(Default)]
struct Planter(usize);

impl Planter {
    /// A secret of its own.
    fn secret(&mut self) -> String {
        self.0 += 1;
        // Letters and digits, so that every form keeps it whole.
        format!("S3CRETx{:04}x", self.0)
    }

    fn text(&mut self, form: &str) -> String {
        let secret = self.secret();
        match form.split_once("ghp_S") {
            Some((_, rest)) => format!("ghp_{secret}{rest}"),
            None => match form.rfind("=S").or_else(|| form.find(":S@")) {
                Some(at) => format!("{}{secret}{}", &form[..=at], &form[at + 2..]),
                None => replace_word(form, &secret),
            },
        }
    }

    fn texts(&mut self) -> Vec<String> {
        FORMS.iter().map(|form| self.text(form)).collect()
    }

    /// Attributes with secrets by their names, and one of a URL.
    fn attributes(&mut self) -> Vec<(String, String)> {
        let mut all: Vec<_> = NAMES.iter().map(|name| ((*name).into(), self.secret())).collect();
        all.push(("url.full".into(), self.text("https://joe:S@host/")));
        all
    }
}

/// Replaces the last `S` that isn't a part of a longer word of letters behind it.
fn replace_word(form: &str, secret: &str) -> String {
    let is_word = |at: &usize| !form[at + 1..].starts_with(|c: char| c.is_ascii_alphanumeric());
    let at = form.match_indices('S').map(|(at, _)| at).rfind(is_word).unwrap();
    format!("{}{secret}{}", &form[..at], &form[at + 1..])
}

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
    for text in plant.texts() {
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
    let logs = |plant: &mut Planter| {
        let texts = plant.texts();
        let records: Vec<_> = texts.iter().map(|t| log_record(t, &plant.attributes())).collect();
        otlp_request(&[("resource.password".into(), plant.secret())], &records)
    };
    post(http, "/v1/logs", "application/x-protobuf", &logs(plant));
    export(grpc, &logs(plant));
    let texts = plant.texts();
    let spans: Vec<_> = texts
        .chunks_exact(3)
        .zip(0u8..)
        .map(|(t, number)| span(number, [&t[0], &t[1], &t[2]]))
        .collect();
    post(http, "/v1/traces", "application/x-protobuf", &otlp_request(&[], &spans));
    let string = |text: String| json!({"stringValue": text});
    let of_json: Vec<Json> = plant
        .texts()
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
    2 * FORMS.len() + spans.len() + records
}

const RULE: &str = "rule: leaking
events: { e: { kind: [t.secret, otlp.log, otlp.span, cni.failed] } }
count: { event: e, by: [kind], within: 60s, at_least: 1 }
story:
  pattern: leaking
  name: '{e.message}'
  root_cause: ['{e.message}']
  actions: ['look at {e.message}']
";

fn configuration(fixture: &TestAgent, jsonl: &str, ports: [u16; 2], kubeconfig: &str) -> String {
    let rule = fixture.file("rule.yaml", RULE);
    let dir = rule.trim_end_matches("/rule.yaml");
    let text = format!(
        "state_dir: {dir}\nnode: test\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
         log: {{ level: debug }}\ndataflow: {{ rules: [\"{rule}\"] }}\n\
         collectors:\n  only: [jsonl, otlp, cni, k8s]\n  jsonl: {{ paths: [\"{jsonl}\"] }}\n  \
         otlp: {{ enabled: true, grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\" }}\n  \
         cni: {{ socket: \"{dir}/cni.sock\", networks: \"{dir}/networks\", links: false }}\n  \
         k8s: {{ kubeconfig: \"{kubeconfig}\" }}\n\
         bridge: {{ endpoint: \"127.0.0.1:{}\", drain_timeout: 300ms }}\n\
         server: {{ grpc_listen: \"127.0.0.1:{}\", http_listen: \"127.0.0.1:{}\" }}\n",
        fixture.admin, ports[0], ports[1], fixture.grpc, fixture.grpc, fixture.http,
    );
    fixture.file("tapio.yaml", &text)
}

/// Names a place and the secrets in its text.
fn leaks(place: &str, text: &str) -> Option<String> {
    let found: Vec<&str> =
        text.match_indices("S3CRETx").filter_map(|(at, _)| text.get(at..at + 12)).collect();
    (!found.is_empty()).then(|| format!("{place}: {found:?}"))
}

#[test]
fn planted_secrets_do_not_leave_the_agent() {
    let fixture = TestAgent::new();
    let mut plant = Planter::default();
    let lines = json_lines(&mut plant);
    let jsonl = fixture.file("events.jsonl", &lines);
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"https://joe:{}@127.0.0.1:1\"}}}}]\n\
         users: [{{name: u, user: {{token: {}}}}}]\n",
        plant.secret(),
        plant.secret(),
    );
    let kubeconfig = fixture.file("kubeconfig", &kubeconfig);
    let ports = [super::support::net::free_port(), super::support::net::free_port()];
    let config = configuration(&fixture, &jsonl, ports, &kubeconfig);
    // A pipe would fill up.
    let log_path = fixture.file("log", "");
    let mut agent = Command::new(TAPIO);
    agent.args(["run", "--standalone", "--config", &config]).stdin(Stdio::null());
    agent.stdout(Stdio::piped()).stderr(File::create(&log_path).unwrap());
    let agent = agent.spawn().unwrap();
    fixture.wait(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, ports[1])).is_ok());
    fixture.wait(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, ports[0])).is_ok());
    let mut records = lines.lines().count() + send_otlp(&mut plant, ports[0], ports[1]);
    let socket = config.replace("tapio.yaml", "cni.sock");
    for (number, text) in plant.texts().iter().enumerate() {
        report_cni_error(&socket, number, text);
        records += 1;
    }
    assert!(plant.0 >= 120, "{} secrets", plant.0);
    let status = fixture.wait(|s| {
        let k8s = &s["collectors"]["k8s"];
        let has_failed = k8s["last_error"] != json!("") || k8s["notes"] != json!({});
        s["cons1"]["total"]["forwarded"].as_u64() >= Some(records as u64) && has_failed
    });
    for collector in ["jsonl", "otlp", "cni"] {
        let redacted = status["cons1"]["collectors"][collector]["redacted"].as_u64();
        assert!(redacted > Some(20), "{collector}: {}", status["cons1"]);
    }
    let page = |port, path: &str| {
        let (head, body) = get(port, path).unwrap();
        assert!(head.contains("200"), "{path}: {head}\n{body}");
        body
    };
    let events = page(fixture.http, "/api/v1/events?limit=10000");
    let stories = eventually_ok("the stories of each kind", || {
        let stories = page(fixture.http, "/api/v1/stories?limit=10000");
        let count = serde_json::from_str::<Vec<Json>>(&stories).unwrap().len();
        if count >= 4 { Ok(stories) } else { Err(stories) }
    });
    assert!(events.matches("[redacted]").count() >= records, "{events}");
    assert!(stories.contains("leaking") && stories.contains("[redacted]"), "{stories}");
    let mut places = vec![
        ("events".to_owned(), events),
        ("stories".to_owned(), stories),
        ("server's metrics".to_owned(), page(fixture.http, "/metrics")),
    ];
    for path in ["/status", "/metrics", "/suggested-rules"] {
        places.push((path.to_owned(), page(fixture.admin, path)));
    }
    let output = terminate(agent);
    let log = std::fs::read_to_string(&log_path).unwrap();
    assert!(output.status.success(), "{log}");
    assert!(log.contains("DEBUG"), "{log}");
    places.push(("log".to_owned(), log));
    places.push(("output".to_owned(), utf8(&output.stdout)));
    let found: Vec<String> = places.iter().filter_map(|(name, text)| leaks(name, text)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
