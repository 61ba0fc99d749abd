//! Tokens: who may write, who may read.

use std::io::{Read as _, Write as _};
use std::path::Path;

use tapio::server::Server;
use tapio_wire::ClientAccess;

use super::pki::{Authority, secret};
use super::sender::{add_silence, assert_problem, batch, config, events_of, http, send, server};
use super::support::agent::{run, utf8};
use super::support::eventually::eventually;

/// A client with a token.
fn with_token(folder: &Path, token: &str) -> ClientAccess {
    let path = folder.join(format!("{token}.token"));
    secret(&path, &format!("{token}\n"));
    ClientAccess { tls: None, token_file: Some(path) }
}

#[test]
fn token_writes_as_its_node_or_reads() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    secret(
        &tokens,
        "# nodes\nwrite n1 token-of-n1\nwrite * token-of-all\nread web token-of-web\noperate ann token-of-ann\n",
    );
    let settings = format!(", token_file: {}", tokens.display());
    let server = server(folder.path(), &settings);
    let endpoint = server.grpc_endpoint().to_owned();
    let token = |token: &str| with_token(folder.path(), token);
    let of = |node: &str| [batch(node, 7, 0, 10)];
    assert!(send(&endpoint, &token("token-of-n1"), &of("n1")).is_ok());
    let error = send(&endpoint, &token("token-of-n1"), &of("n2")).unwrap_err();
    assert_eq!(error, "the batch is of node \"n2\", its sender is n1");
    assert!(send(&endpoint, &token("token-of-all"), &of("n2")).is_ok());
    let error = send(&endpoint, &token("token-of-web"), &of("n1")).unwrap_err();
    assert_eq!(error, "web has no right to write");
    assert_eq!(events_of(&endpoint, &token("token-of-web"), "n1"), Ok(10));
    let error = events_of(&endpoint, &token("token-of-n1"), "n1").unwrap_err();
    assert_eq!(error, "n1 has no right to read");
    assert_eq!(send(&endpoint, &token("wrong"), &of("n1")).unwrap_err(), "the token isn't valid");
    let nobody = ClientAccess::default();
    assert!(send(&endpoint, &nobody, &of("n1")).unwrap_err().contains("needs a client cert"));
    assert!(events_of(&endpoint, &nobody, "n1").is_err());
    let hint = utf8(&run(&["stories", "--server", &endpoint]).stderr);
    assert!(hint.contains("or a token (the commands' --token-file, or"), "{hint}");

    let page = |header: &str| {
        http(server.http_addr, "/api/v1/stories", &format!("Host: localhost\r\n{header}"))
    };
    assert_problem(&page(""), 401, "needs a client cert");
    assert_problem(&page("Authorization: Bearer token-of-n1\r\n"), 403, "n1 has no right to read");
    assert!(page("Authorization: bearer token-of-web\r\n").starts_with("HTTP/1.1 200"));
    // Who may read may not silence.
    let silence = |token: &str| {
        let mut stream = std::net::TcpStream::connect(server.http_addr).unwrap();
        write!(
            stream,
            "POST /api/v1/silences HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 2\r\n\r\n{{}}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert_problem(&silence("token-of-web"), 403, "web has no right to operate");
    // It may; what it sends isn't a silence.
    assert!(silence("token-of-ann").starts_with("HTTP/1.1 400"));
    let silenced = |name: &str| add_silence(&endpoint, &token(name));
    assert_eq!(silenced("token-of-web").unwrap_err(), "web has no right to operate");
    assert_eq!(silenced("token-of-ann").unwrap().by, "ann", "the token's name, not the given one");
    let status = server.status();
    assert_eq!((status.ingest.events, status.ingest.batches_denied), (20, 1));
    let refused = status.access.requests_refused;
    assert_eq!((refused["unauthenticated"], refused["forbidden"]), (5, 5));
}

#[test]
fn changed_tokens_are_used_and_broken_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    secret(&tokens, "write n1 first-token\n");
    let server = server(folder.path(), &format!(", token_file: {}", tokens.display()));
    let endpoint = server.grpc_endpoint().to_owned();
    let sends = |token: &str| {
        send(&endpoint, &with_token(folder.path(), token), &[batch("n1", 7, 0, 10)]).is_ok()
    };
    assert!(sends("first-token"));
    secret(&tokens, "write n1 second-token\n");
    eventually("the new token is taken", || sends("second-token"));
    assert!(!sends("first-token"));
    secret(&tokens, "nonsense\n");
    eventually("the broken file is noticed", || {
        assert!(sends("second-token"), "the tokens before stay in use");
        server.status().access.reload_failures == 1
    });
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    secret(&tokens, "write n1 hidden-token\n");
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    };
    open(&tokens);
    let start = |settings: &str| {
        let text = format!("server: {{ data_dir: {}{settings} }}", folder.path().display());
        Server::start(config(&text).server()).err().unwrap().to_string()
    };
    let error = start(&format!(", token_file: {}", tokens.display()));
    assert!(error.contains("tokens: has mode 0644: others can use it"), "{error}");
    assert!(!error.contains("hidden"), "{error}");
    let authority = Authority::new(folder.path(), "authority");
    let tls = authority.server();
    open(&folder.path().join("authority-server.key.pem"));
    let error = start(&format!(", tls: {{ {tls} }}"));
    assert!(error.contains("server.key.pem: has mode 0644"), "{error}");
    std::fs::remove_file(folder.path().join("authority-server.cert.pem")).unwrap();
    let error = start(&format!(", tls: {{ {tls} }}"));
    assert!(error.contains("server.cert.pem: No such file"), "{error}");
}
