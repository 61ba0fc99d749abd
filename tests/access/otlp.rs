//! The agent's own listeners: OTLP with tokens and receiver with certificates.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tapio::load::{LoadConfig, run};
use tapio::runtime::Agent;
use tapio_core::shutdown::Shutdown;
use tapio_wire::{
    ClientAccess, OtlpClient, OtlpClientConfig, OtlpCompression, OtlpProtocol, OtlpRequest,
    OtlpSignal,
};

use super::pki::{Authority, secret};
use super::sender::{batch, config, send, server};
use super::support::eventually::eventually;
use super::support::net::free_port;

/// The status line of the response to one log record.
fn post(port: u16, headers: &str) -> String {
    let body =
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}]}"#;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn agents_listeners_ask_for_tokens_and_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let tokens = folder.path().join("tokens");
    secret(&tokens, "write app token-of-app\nread web token-of-web\n");
    let server = server(folder.path(), "");
    let [grpc, http, receiver] = [free_port(), free_port(), free_port()];
    let text = format!(
        "node: n1\nstate_dir: {}\nadmin: {{ listen: \"127.0.0.1:0\" }}\ncollectors:\n  \
         only: [otlp, receiver]\n  otlp: {{ enabled: true, grpc_listen: \"127.0.0.1:{grpc}\", \
         http_listen: \"127.0.0.1:{http}\", token_file: {} }}\n  receiver: {{ enabled: true, \
         listen: \"127.0.0.1:{receiver}\", tls: {{ {} }} }}\nbridge: {{ endpoint: \"{}\" }}\n",
        folder.path().join("state").display(),
        tokens.display(),
        authority.mutual(),
        server.grpc_endpoint()
    );
    let agent = Agent::start(config(&text), false).unwrap();
    eventually("the listeners are open", || {
        [http, receiver].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
    });
    assert_eq!(post(http, ""), "HTTP/1.1 401 Unauthorized");
    assert_eq!(post(http, "Authorization: Bearer token-of-web\r\n"), "HTTP/1.1 403 Forbidden");
    assert_eq!(post(http, "Authorization: Bearer token-of-app\r\n"), "HTTP/1.1 200 OK");

    let endpoint = format!("https://127.0.0.1:{receiver}");
    let load = LoadConfig {
        target: endpoint.clone(),
        access: authority.node("n2"),
        node: "n2".into(),
        rate: Some(1_000),
        duration: Duration::from_millis(100),
        ..LoadConfig::default()
    };
    assert_eq!(run(&load, &Shutdown::default()).unwrap().acked, 100);
    let error = send(&endpoint, &authority.node("n2"), &[batch("n3", 7, 0, 5)]).unwrap_err();
    assert_eq!(error, "the batch is of node \"n3\", its sender is n2");
    let poison = batch("n2", 7, 1 << 62, 1);
    let acks = send(&endpoint, &authority.node("n2"), &[poison]).unwrap();
    assert!(acks[0].refused[0].cause.contains("more than 2^32"), "{acks:?}");
    assert!(send(&endpoint, &authority.nobody(), &[batch("n2", 8, 0, 5)]).is_err());

    let counter = |collector: &str, name: &str| {
        let all = agent.collectors();
        let of = all.iter().find(|status| status.name == collector).unwrap();
        of.counters.iter().find(|counter| counter.0 == name).map_or(0, |counter| counter.1)
    };
    eventually("the refusals are counted", || {
        counter("otlp", "requests_denied") == 2
            && counter("receiver", "batches_denied") == 1
            && counter("receiver", "jumps_refused") == 1
            && counter("receiver", "handshakes_failed") == 1
    });
    let account = agent.finish().account;
    assert!(account.holds(), "{account:?}");
    assert_eq!(server.status().ingest.events, 101);
}

/// One log record with the body "hi", as an encoded `ExportLogsServiceRequest`.
const RECORD: &[u8] = &[10, 10, 18, 8, 18, 6, 42, 4, 10, 2, b'h', b'i'];

#[test]
fn otlp_is_sent_and_taken_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = server(folder.path(), "");
    let [grpc, http] = [free_port(), free_port()];
    let text = format!(
        "node: n1\nstate_dir: {}\nadmin: {{ listen: \"127.0.0.1:0\" }}\ncollectors:\n  \
         only: [otlp]\n  otlp: {{ enabled: true, grpc_listen: \"127.0.0.1:{grpc}\", \
         http_listen: \"127.0.0.1:{http}\", tls: {{ {} }} }}\nbridge: {{ endpoint: \"{}\" }}\n",
        folder.path().join("state").display(),
        authority.mutual(),
        server.grpc_endpoint()
    );
    let agent = Agent::start(config(&text), false).unwrap();
    eventually("the listeners are open", || {
        [grpc, http].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let export = |port: u16, protocol: OtlpProtocol, access: ClientAccess| {
        let config = OtlpClientConfig {
            endpoint: format!("https://localhost:{port}"),
            is_signal_endpoint: false,
            protocol,
            tls: access.tls,
            headers: Vec::new(),
            compression: OtlpCompression::Gzip,
            timeout: Duration::from_secs(60),
        };
        let request = OtlpRequest { signal: OtlpSignal::Logs, bytes: RECORD.into(), records: 1 };
        runtime.block_on(async { OtlpClient::new(&config).unwrap().export(&request).await })
    };
    for (port, protocol) in [(grpc, OtlpProtocol::Grpc), (http, OtlpProtocol::Http)] {
        let exported = export(port, protocol, authority.node("app"));
        assert_eq!(exported.unwrap().rejected, 0);
        assert!(export(port, protocol, authority.nobody()).is_err());
    }
    let account = agent.finish().account;
    assert!(account.holds(), "{account:?}");
    assert_eq!(server.status().ingest.events, 2);
}
