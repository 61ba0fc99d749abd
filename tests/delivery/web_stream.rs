//! Server-sent events: what is stored while a client listens, and what was stored while it was
//! away.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use super::*;

/// A connection to `/api/v1/stream`.
struct Client(BufReader<TcpStream>);

/// A message: its event, its id, and its data.
type Message = (String, Option<String>, Json);

impl Client {
    fn connect(to: SocketAddr, query: &str, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let last = last.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let head = "HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n";
        write!(stream, "GET /api/v1/stream{query} {head}{last}\r\n").unwrap();
        let mut client = Self(BufReader::new(stream));
        let status = client.line();
        assert!(status.contains("200"), "{status}");
        while !client.line().is_empty() {}
        client
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
        line.trim_end().to_owned()
    }

    fn message(&mut self) -> Message {
        let (mut event, mut id, mut data) = (String::new(), None, Json::Null);
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("event", text)) => event = text.to_owned(),
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("data", text)) => data = serde_json::from_str(text).unwrap(),
                _ if line.is_empty() && !event.is_empty() => return (event, id, data),
                _ => {}
            }
        }
    }
}

/// Sends stories to the server, and then as many events, as a process of its own.
fn store(server: &ServerHandle, stories: std::ops::RangeInclusive<u8>) {
    let (config, epoch) = (config(server.grpc_addr), 5_000 + u64::from(*stories.start()));
    let options = NodeOptions { config, epoch, ..NodeOptions::default() };
    let mut node = node_of(options, |_| None);
    for n in stories.clone() {
        node.writers[0].write_story(&story(n, 0)).unwrap();
    }
    let events = stories.count() as u64;
    node.writers = node.feed(0..events).join().unwrap();
    assert_cons1(&node.end(), events, events);
}

#[test]
fn stream_goes_on_where_a_client_lost_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let mut client = Client::connect(server.http_addr, "", None);
    store(&server, 1..=3);
    let mut seen = Vec::new();
    let mut last = None;
    for _ in 0..3 {
        let (event, id, data) = client.message();
        assert_eq!(event, "story");
        seen.push(data["name"].as_str().unwrap().to_owned());
        last = id.or(last);
    }
    assert_eq!(seen, ["story 1", "story 2", "story 3"]);
    drop(client);
    store(&server, 4..=5);
    let last = last.unwrap();
    let mut client = Client::connect(server.http_addr, "?pattern=odd", Some(&last));
    assert_eq!(client.message().2["name"], "story 5");
    // What is in the log already comes first, then what is stored.
    store(&server, 7..=7);
    assert_eq!(client.message().2["name"], "story 7");
    let mut client = Client::connect(server.http_addr, "?types=events", Some(&last));
    for _ in 0..3 {
        let (event, _, data) = client.message();
        assert_eq!((event.as_str(), &data["message"]), ("event", &"something happened".into()));
    }
    let mut client = Client::connect(server.http_addr, "", Some("ffff-0"));
    assert_eq!(client.message().0, "gap");
    let (code, body) = http(server.http_addr, "/api/v1/stream?limit=3");
    assert!(code == 400 && body.contains("\"parameter\":\"limit\""), "{body}");
}

#[test]
fn stream_has_annotations_as_they_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    store(&server, 1..=2);
    let mut client = Client::connect(server.http_addr, "?types=annotations&pattern=odd", None);
    let mut stories = Client::connect(server.http_addr, "?types=annotations,stories", None);
    let id = "02".repeat(16);
    let path = format!("/api/v1/stories/{id}/acknowledgement");
    let change = |method: &str, body: &Json| {
        annotations::send(server.http_addr, method, &path, "application/json", body).0
    };
    assert_eq!(change("PUT", &serde_json::json!({"by": "ann"})), 200);
    assert_eq!(change("DELETE", &Json::Null), 200);
    for client in [&mut client, &mut stories] {
        for action in ["acknowledge", "unacknowledge"] {
            let (event, id_of_message, data) = client.message();
            assert_eq!((event.as_str(), id_of_message), ("annotation", None));
            assert_eq!((&data["action"], &data["story"]), (&action.into(), &id.as_str().into()));
        }
    }
    // One that is refused isn't sent: the next message is that of the story.
    assert_eq!(change("PUT", &serde_json::json!({"by": 7})), 400);
    store(&server, 3..=3);
    assert_eq!(stories.message().2["name"], "story 3");
    let (code, body) = http(server.http_addr, "/api/v1/stream?types=stories,other");
    assert!(code == 400 && body.contains("\"parameter\":\"types\""), "{body}");
}
