//! TLS of the server, with and without the right certificates.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tapio_wire::ClientAccess;

use super::pki::Authority;
use super::sender::{batch, events_of, exchange, http, send, server};
use super::support::agent::{run, utf8};
use super::support::eventually::eventually;

#[test]
fn handshake_that_isnt_finished_ends_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = server(folder.path(), &format!(", tls: {{ {} }}", authority.mutual()));
    let silent = TcpStream::connect(server.grpc_addr).unwrap();
    let mut slow = TcpStream::connect(server.grpc_addr).unwrap();
    // The begin of a ClientHello of 512 bytes (RFC 8446, section 5.1).
    slow.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    let acks =
        send(server.grpc_endpoint(), &authority.node("n1"), &[batch("n1", 7, 0, 10)]).unwrap();
    assert_eq!(acks[0].through, 10);
    eventually("both are ended", || server.status().access.handshakes_failed["timeout"] == 2);
    for mut stream in [silent, slow] {
        assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
    }
}

/// A page over HTTPS.
fn https(to: std::net::SocketAddr, path: &str, access: &ClientAccess) -> std::io::Result<String> {
    let tls = access.tls.as_ref().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls.ca.as_ref().unwrap()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(cert).unwrap()],
                PrivateKeyDer::from_pem_file(key).unwrap(),
            )
            .unwrap(),
        _ => builder.with_no_client_auth(),
    };
    let name = "localhost".try_into().unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = rustls::StreamOwned::new(client, TcpStream::connect(to)?);
    exchange(stream, path, "Host: localhost\r\n")
}

#[test]
fn nodes_write_and_readers_read_with_their_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let settings = format!(", tls: {{ {} }}, readers: [reader]", authority.mutual());
    let server = server(folder.path(), &settings);
    let endpoint = server.grpc_endpoint().to_owned();
    assert!(endpoint.starts_with("https://127.0.0.1:"), "{endpoint}");
    let (node, reader) = (authority.node("n1"), authority.node("reader"));
    let acks = send(&endpoint, &node, &[batch("n1", 7, 0, 10), batch("n1", 7, 10, 5)]).unwrap();
    assert_eq!(acks[1].through, 15);
    assert_eq!(events_of(&endpoint, &reader, "n1"), Ok(15));
    assert!(https(server.http_addr, "/status", &reader).unwrap().starts_with("HTTP/1.1 200"));
    // A node's certificate isn't a reader's.
    let error = events_of(&endpoint, &node, "n1").unwrap_err();
    assert_eq!(error, "n1 has no right to read");
    let page = https(server.http_addr, "/api/v1/stories", &node).unwrap();
    assert!(page.starts_with("HTTP/1.1 403") && page.contains("no right to read"), "{page}");
    assert!(https(server.http_addr, "/healthz", &node).unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn load_and_explain_take_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let settings = format!(", tls: {{ {} }}, readers: [reader]", authority.mutual());
    let server = server(folder.path(), &settings);
    let with = |mut arguments: Vec<String>, access: &ClientAccess| {
        let tls = access.tls.clone().unwrap();
        for (name, file) in [("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)] {
            arguments.push(format!("--tls-{name}={}", file.unwrap().display()));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&arguments)
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let target = format!("--target={}", server.grpc_endpoint());
    let load = words("load --rate 1000 --duration 1s --output json --node n1");
    let output = with([load, vec![target]].concat(), &authority.node("n1"));
    assert!(utf8(&output.stdout).contains("\"acked\":1000"), "{}", utf8(&output.stderr));
    let at = format!("--server={}", server.grpc_endpoint());
    let explain = [words("explain 1234"), vec![at]].concat();
    let output = with(explain.clone(), &authority.node("reader"));
    assert!(utf8(&output.stderr).contains("no story 1234"), "{}", utf8(&output.stderr));
    let output = with(explain, &authority.node("n1"));
    assert!(utf8(&output.stderr).contains("no right to read"), "{}", utf8(&output.stderr));
}

#[test]
fn commands_name_what_to_use_instead() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let other = Authority::new(folder.path(), "other");
    let settings = format!(", tls: {{ {} }}, readers: [reader]", authority.mutual());
    let server = server(folder.path(), &settings);
    let endpoint = server.grpc_endpoint().to_owned();
    let plain = endpoint.replace("https://", "");
    let error = |arguments: &[&str]| {
        let output = run(&[&["stories"], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        utf8(&output.stderr)
    };
    let without_tls = error(&["--server", &plain]);
    assert!(without_tls.contains(&plain) && without_tls.contains("use https://"), "{without_tls}");
    let ca = other.ca.display().to_string();
    let unknown = error(&["--server", &endpoint, "--tls-ca", &ca]);
    assert!(unknown.contains(&endpoint) && unknown.contains("--tls-ca names"), "{unknown}");
}

#[test]
fn wrong_clients_are_refused_and_counted_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let other = Authority::new(folder.path(), "other");
    let settings = format!(", tls: {{ {} }}, readers: [reader]", authority.mutual());
    let server = server(folder.path(), &settings);
    let endpoint = server.grpc_endpoint().to_owned();
    let plain = endpoint.replace("https://", "http://");
    let honest = authority.node("n1");
    let one = [batch("n1", 7, 0, 10)];
    assert_eq!(send(&endpoint, &honest, &one).unwrap()[0].through, 10);

    // The client's certificate is of an authority that the server doesn't trust.
    let mut stranger = other.node("n1");
    stranger.tls.as_mut().unwrap().ca = Some(authority.ca.clone());
    let refused = |access: &ClientAccess| send(&endpoint, access, &one).unwrap_err();
    let errors = [
        (refused(&stranger), "UnknownCA"),
        (refused(&authority.expired("n1")), "CertificateExpired"),
        (refused(&authority.nobody()), "CertificateRequired"),
        // The client doesn't trust the server's authority.
        (refused(&other.nobody()), "UnknownIssuer"),
        (send(&plain, &ClientAccess::default(), &one).unwrap_err(), "this port speaks TLS only"),
        (
            send(&endpoint, &honest, &[batch("n2", 7, 0, 10)]).unwrap_err(),
            "the batch is of node \"n2\", its sender is n1",
        ),
    ];
    for (error, expected) in &errors {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let page = http(server.http_addr, "/status", "Host: localhost\r\n");
    assert!(page.starts_with("HTTP/1.1 400") && page.ends_with("TLS only\n"), "{page}");

    let expected = [("bad_certificate", 2), ("no_certificate", 1), ("not_tls", 2), ("rejected", 1)];
    eventually("the failures are counted", || {
        let failed = server.status().access.handshakes_failed;
        expected.iter().all(|(reason, count)| failed[reason] == *count)
    });
    let counts = server.status().ingest;
    assert_eq!((counts.batches_denied, counts.events), (1, 10));
    let acks = send(&endpoint, &honest, &[batch("n1", 7, 10, 10)]).unwrap();
    assert_eq!(acks[0].through, 20);
    let page = https(server.http_addr, "/metrics", &authority.node("reader")).unwrap();
    for line in [
        "tapio_server_handshakes_failed_total{reason=\"not_tls\"} 2\n",
        "tapio_server_batches_denied_total 1\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
}
