//! The Model Context Protocol over both doors; tests/mcp has the tests with a client library.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

use super::query_commands::TestServer;
use super::support::agent::{TAPIO, utf8};

/// The answers of `tapio mcp` to messages.
fn over_stdio(server: &TestServer, messages: &[Json]) -> Vec<Json> {
    let mut command = Command::new(TAPIO);
    command.args(["mcp", "--server", &server.address()]).stdin(Stdio::piped());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    for message in messages {
        writeln!(input, "{message}").unwrap();
    }
    drop(input);
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", utf8(&output.stderr));
    utf8(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The answer of `/mcp` to a message.
fn over_http(server: &TestServer, message: &Json) -> Option<Json> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.http_port())).unwrap();
    let body = message.to_string();
    write!(
        stream,
        "POST /mcp HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1);
    assert!(status == Some("200") || status == Some("202") && body.is_empty(), "{response}");
    (status == Some("200")).then(|| serde_json::from_str(body).unwrap())
}

#[test]
fn assistant_gets_the_same_answers_over_both_doors() {
    let server = TestServer::with_recordings(&["nginx-cascade.jsonl"]);
    let call = |id: u32, tool: &str, arguments: Json| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}})
    };
    let stories = server.items(&["stories", "--pattern", "cascade-failure"]);
    let (id, trace_id) = (&stories[0]["id"], &stories[0]["trace_id"]);
    let messages = [
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": {"protocolVersion": "2025-06-18"}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        call(1, "list_stories", json!({"pattern": "cascade-failure"})),
        call(2, "get_story", json!({"id": id})),
        call(3, "explain_story", json!({"id": id})),
        call(4, "search_events", json!({"trace_id": trace_id, "limit": 2})),
        call(5, "search_events", json!({"limit": 0})),
    ];
    let answers = over_stdio(&server, &messages);
    let same: Vec<Json> =
        messages.iter().filter_map(|message| over_http(&server, message)).collect();
    assert_eq!(answers, same);
    assert_eq!(answers[0]["result"]["protocolVersion"], "2025-06-18");
    let text = |answer: usize, part: usize| {
        answers[answer]["result"]["content"][part]["text"].as_str().unwrap()
    };
    assert_eq!(text(1, 0), "stories: 1");
    for answer in 1..=4 {
        let data = text(answer, 1).strip_prefix("<untrusted-data>\n").unwrap();
        let data = data.strip_suffix("\n</untrusted-data>").unwrap();
        let data: Json = serde_json::from_str(data).unwrap();
        let has_cause = data.to_string().contains("nginx configuration error");
        assert!(has_cause || answer == 4, "{data}");
    }
    assert!(text(4, 0).starts_with("events: 2\nmore: "), "{}", text(4, 0));
    assert_eq!(text(5, 0), "limit: isn't a number from 1 to 50");
}
