//! Streams that are open when the token or the authority of their client is removed.

use std::path::Path;

use tapio_wire::ClientAccess;

use super::pki::{Authority, secret};
use super::sender::{Stream, batch, server, tail_to_end};
use super::support::eventually::eventually;

/// A client with a token.
fn with_token(folder: &Path, token: &str) -> ClientAccess {
    let path = folder.join(format!("{token}.token"));
    secret(&path, &format!("{token}\n"));
    ClientAccess { tls: None, token_file: Some(path) }
}

#[test]
fn streams_of_a_removed_token_end_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    secret(&tokens, "write n1 token-of-n1\nwrite n2 token-of-n2\nread web token-of-web\n");
    let server = server(folder.path(), &format!(", token_file: {}", tokens.display()));
    let endpoint = server.grpc_endpoint().to_owned();
    let open = |token: &str| Stream::open_as(&endpoint, &with_token(folder.path(), token));
    let (mut removed, mut kept) = (open("token-of-n1"), open("token-of-n2"));
    removed.send(&batch("n1", 7, 0, 10)).unwrap();
    kept.send(&batch("n2", 7, 0, 10)).unwrap();
    let reader = with_token(folder.path(), "token-of-web");
    std::thread::scope(|scope| {
        let tail = scope.spawn(|| tail_to_end(&endpoint, &reader));
        // A token that moves to another identity isn't that of the stream any more.
        std::thread::sleep(std::time::Duration::from_millis(1_500));
        assert!(!tail.is_finished(), "a tail stays open while its token is accepted");
        secret(&tokens, "write n2 token-of-n2\nread other token-of-web\n");
        let end = removed.wait_for_end();
        assert!(end.contains("n1's token or certificate isn't accepted any more"), "{end}");
        let end = tail.join().unwrap().unwrap_err();
        assert_eq!(end, "web's token or certificate isn't accepted any more");
    });
    assert!(kept.send(&batch("n2", 7, 10, 10)).is_ok());
    eventually("the ends are counted", || server.status().access.requests_refused["revoked"] >= 2);
    assert_eq!(server.status().ingest.events, 30);
}

#[test]
fn streams_of_a_removed_authority_end_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let theirs = Authority::new(folder.path(), "theirs");
    let pem = |authority: &Authority| std::fs::read_to_string(&authority.ca).unwrap();
    let accepted = folder.path().join("accepted.pem");
    secret(&accepted, &(pem(&ours) + &pem(&theirs)));
    let settings = format!(", tls: {{ {}, client_ca: {} }}", ours.server(), accepted.display());
    let server = server(folder.path(), &settings);
    let endpoint = server.grpc_endpoint().to_owned();
    let mut their_client = theirs.node("n1");
    // Servers are still those of our authority.
    their_client.tls.as_mut().unwrap().ca = Some(ours.ca.clone());
    let mut removed = Stream::open_as(&endpoint, &their_client);
    let mut kept = Stream::open_as(&endpoint, &ours.node("n2"));
    removed.send(&batch("n1", 7, 0, 10)).unwrap();
    kept.send(&batch("n2", 7, 0, 10)).unwrap();
    secret(&accepted, &pem(&ours));
    let end = removed.wait_for_end();
    assert!(end.contains("n1's token or certificate isn't accepted any more"), "{end}");
    assert!(kept.send(&batch("n2", 7, 10, 10)).is_ok());
    assert_eq!(server.status().access.requests_refused["revoked"], 1);
    assert_eq!(server.status().ingest.events, 30);
}
