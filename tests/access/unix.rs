//! Unix sockets.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;

use tapio::server::Server;
use tapio_wire::ClientAccess;

use super::sender::{batch, config, events_of, exchange, send};

#[test]
fn server_on_unix_sockets_serves_its_own_user() {
    let folder = tempfile::tempdir().unwrap();
    let (grpc, web) = (folder.path().join("g.sock"), folder.path().join("h.sock"));
    let text = format!(
        "server: {{ data_dir: {}, grpc_listen: \"unix:{}\", http_listen: \"unix:{}\" }}",
        folder.path().join("store").display(),
        grpc.display(),
        web.display()
    );
    // The second one replaces the sockets that the first one leaves.
    for run in 0..2 {
        let server = Server::start(config(&text).server()).unwrap();
        let endpoint = server.grpc_endpoint().to_owned();
        assert_eq!(endpoint, format!("unix:{}", grpc.display()));
        assert_eq!(std::fs::metadata(&grpc).unwrap().mode() & 0o777, 0o660);
        let anybody = ClientAccess::default();
        let acks = send(&endpoint, &anybody, &[batch("n1", 7, 10 * run, 10)]).unwrap();
        assert_eq!(acks[0].through, 10 * (run + 1));
        assert_eq!(events_of(&endpoint, &anybody, "n1"), Ok(10 * (run as usize + 1)));
        let get = |host: &str| {
            let stream = UnixStream::connect(&web).unwrap();
            exchange(stream, "/status", &format!("Host: {host}\r\n")).unwrap()
        };
        assert!(get("localhost").starts_with("HTTP/1.1 200"));
        assert!(get("attacker.example").starts_with("HTTP/1.1 403"));
        let second = Server::start(config(&text).server()).err().unwrap().to_string();
        assert!(second.contains("another process listens there"), "{second}");
    }
}
