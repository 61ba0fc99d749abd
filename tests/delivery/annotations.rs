//! Annotations and silences over HTTP: kept over a restart, and part of the stories.

use std::io::{Read as _, Write as _};

use serde_json::{Value as Json, json};

use super::*;

/// Sends a request with a body; `Null`: without one.
fn send(to: SocketAddr, method: &str, path: &str, media_type: &str, body: &Json) -> (u16, Json) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = std::net::TcpStream::connect(to).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {media_type}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap_or_default())
}

#[test]
fn annotations_survive_a_restart_and_are_part_of_the_story() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), any_port());
    let mut node = node(config(server.grpc_addr));
    for n in 1..=2 {
        node.writers[0].write_story(&story(n, 0)).unwrap();
    }
    node.writers = node.feed(0..10).join().unwrap();
    assert_cons1(&node.end(), 10, 10);
    let web = server.http_addr;
    let path = format!("/api/v1/stories/{}", "02".repeat(16));
    let json = |method: &str, path: &str, body: Json| {
        send(web, method, path, "application/json; charset=utf-8", &body)
    };
    let (code, marks) = json("PUT", &format!("{path}/acknowledgement"), json!({"by": "ann"}));
    assert_eq!((code, &marks["acknowledged"]["by"]), (200, &json!("ann")));
    let note = format!("{path}/notes");
    assert_eq!(json("POST", &note, json!({"text": "restarted it", "by": "bob"})).0, 200);
    assert_eq!(json("PUT", &format!("{path}/wrong-cause"), json!({"cause": "the disk"})).0, 200);
    let key = json!({"host.name": "node-1"});
    let silence = json!({"rule": "test-rule", "key": key, "for": "2h", "reason": "known"});
    let (code, silence) = json("POST", "/api/v1/silences", silence);
    assert_eq!((code, &silence["rule"]), (201, &json!("test-rule")), "{silence}");

    let (code, problem) = json("POST", &note, json!({"text": " "}));
    assert!(code == 400 && problem["detail"].as_str().unwrap().starts_with("text: "), "{problem}");
    let (code, problem) = json("POST", &note, json!({"texts": "a"}));
    assert_eq!((code, &problem["parameter"]), (400, &json!("body")));
    let absent = format!("/api/v1/stories/{}/notes", "ab".repeat(16));
    assert_eq!(json("POST", &absent, json!({"text": "a"})).0, 404);
    assert_eq!(send(web, "POST", &note, "text/plain", &json!({"text": "a"})).0, 415);
    assert_eq!(json("POST", &path, Json::Null).0, 405);
    assert_eq!(json("DELETE", "/api/v1/silences/none", Json::Null).0, 404);

    drop(server);
    let server = start(dir.path(), any_port());
    let web = server.http_addr;
    let (code, body) = http(web, &path);
    let stored: Json = serde_json::from_str(&body).unwrap();
    let marks = &stored["annotations"];
    assert_eq!((code, &marks["acknowledged"]["by"]), (200, &json!("ann")), "{stored}");
    assert_eq!(marks["notes"][0]["text"], "restarted it");
    assert_eq!(marks["wrong_cause"]["cause"], "the disk");
    assert_eq!(stored["silence"]["reason"], "known");
    assert!(http(web, "/api/v1/stories?pattern=even").1.contains("restarted it"));
    let (_, body) = http(web, "/api/v1/annotations");
    let all: Json = serde_json::from_str(&body).unwrap();
    assert_eq!(all["items"].as_array().unwrap().len(), 4, "{all}");

    let path = format!("/api/v1/silences/{}", silence["id"].as_str().unwrap());
    assert_eq!(send(web, "DELETE", &path, "application/json", &Json::Null).0, 204);
    assert_eq!(http(web, "/api/v1/silences").1, "{\"items\":[]}");
}
