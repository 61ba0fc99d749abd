//! Annotations and silences over HTTP: kept over a restart, and part of the stories.

use std::io::{Read as _, Write as _};

use serde_json::{Value as Json, json};

use super::*;

/// Sends a request with a body; `Null`: without one.
pub(super) fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    media_type: &str,
    body: &Json,
) -> (u16, Json) {
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

/// A server with ten events and so many stories of a node.
fn server_with_stories(dir: &Path, stories: u8) -> ServerHandle {
    let server = start(dir, any_port());
    let mut node = node(config(server.grpc_addr));
    for n in 1..=stories {
        node.writers[0].write_story(&story(n, 0)).unwrap();
    }
    node.writers = node.feed(0..10).join().unwrap();
    assert_cons1(&node.end(), 10, 10);
    server
}

#[test]
fn annotations_survive_a_restart_and_are_part_of_the_story() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_stories(dir.path(), 2);
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
    for body in [json!({"texts": "a"}), json!(["a"])] {
        let (code, problem) = json("POST", &note, body);
        assert_eq!((code, &problem["parameter"]), (400, &json!("body")));
    }
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

fn listed(web: SocketAddr, query: &str) -> Vec<Json> {
    let (code, body) = http(web, &format!("/api/v1/annotations{query}"));
    assert_eq!(code, 200, "{query}: {body}");
    let page: Json = serde_json::from_str(&body).unwrap();
    page["items"].as_array().unwrap().clone()
}

fn connect(server: &ServerHandle) -> (tokio::runtime::Runtime, Channel) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let channel = Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
    let channel = runtime.block_on(channel.connect()).unwrap();
    (runtime, channel)
}

/// Marks three stories and silences a rule.
fn annotate(runtime: &tokio::runtime::Runtime, channel: Channel) {
    use proto::annotate_request::Action;
    let mut operate = proto::operate_client::OperateClient::new(channel);
    for (id, action) in [
        (1, Action::Acknowledged(true)),
        (1, Action::WrongCause("the disk".into())),
        (2, Action::WrongCause(String::new())),
        (2, Action::RightCause(true)),
        (3, Action::RightCause(true)),
        (3, Action::RightCause(false)),
        (3, Action::Note("a".into())),
    ] {
        let request = proto::AnnotateRequest {
            story_id: vec![id; 16],
            by: "ann".into(),
            action: Some(action),
        };
        runtime.block_on(operate.annotate(request)).unwrap();
    }
    let silence = proto::AddSilenceRequest {
        rule: "test-rule".into(),
        duration_nanos: 1_000_000_000_000,
        ..Default::default()
    };
    runtime.block_on(operate.add_silence(silence)).unwrap();
}

/// Clients of gRPC and of HTTP get the same list, with each filter, in pages.
#[test]
fn grpc_and_http_list_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_stories(dir.path(), 3);
    let (runtime, channel) = connect(&server);
    let mut query = proto::query_client::QueryClient::new(channel.clone());
    annotate(&runtime, channel);

    let all = listed(server.http_addr, "");
    let actions: Vec<&str> = all.iter().map(|one| one["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["acknowledge", "wrong_cause", "right_cause", "note", "silence"]);
    let since = all[2]["time_ns"].as_u64().unwrap();
    let id = vec![1; 16];
    let of_causes = vec!["wrong_cause".to_owned(), "right_cause".to_owned()];
    let any = proto::ListAnnotationsRequest::default;
    let story = format!("?story={}", "01".repeat(16));
    for (http_query, request, count) in [
        (String::new(), any(), 5),
        (story, proto::ListAnnotationsRequest { story_id: id, ..any() }, 2),
        (
            "?action=right_cause,wrong_cause".into(),
            proto::ListAnnotationsRequest { actions: of_causes, ..any() },
            2,
        ),
        (format!("?since={since}"), proto::ListAnnotationsRequest { since, ..any() }, 3),
        (format!("?until={since}"), proto::ListAnnotationsRequest { until: since, ..any() }, 2),
    ] {
        let mut found = Vec::new();
        let mut request = proto::ListAnnotationsRequest { limit: 2, ..request };
        loop {
            let page = runtime.block_on(query.list_annotations(request.clone())).unwrap();
            let page = page.into_inner();
            assert!(page.entries.len() <= 2);
            found.extend(page.entries.iter().map(tapio_wire::annotation_entry_json));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(found, listed(server.http_addr, &http_query), "{http_query}");
        assert_eq!(found.len(), count, "{http_query}");
    }
    for (request, cause) in [
        (proto::ListAnnotationsRequest { story_id: vec![1], ..any() }, "story_id: 1 bytes"),
        (proto::ListAnnotationsRequest { actions: vec!["x".into()], ..any() }, "action: no action"),
        (proto::ListAnnotationsRequest { page_token: "00".into(), ..any() }, "page_token: isn't"),
    ] {
        let refused = runtime.block_on(query.list_annotations(request)).err().unwrap();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().starts_with(cause), "{}", refused.message());
    }
}

/// Incidents, graphs and rules over gRPC have what HTTP's have.
#[test]
fn grpc_has_the_other_answers_of_http() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_stories(dir.path(), 3);
    let json =
        |path: &str| -> Json { serde_json::from_str(&http(server.http_addr, path).1).unwrap() };
    let (runtime, channel) = connect(&server);
    let mut query = proto::query_client::QueryClient::new(channel);
    let request = proto::ListIncidentsRequest { limit: 2, ..Default::default() };
    let page = runtime.block_on(query.list_incidents(request.clone())).unwrap().into_inner();
    let token = page.next_page_token.clone();
    let request = proto::ListIncidentsRequest { page_token: token, ..request };
    let rest = runtime.block_on(query.list_incidents(request)).unwrap().into_inner();
    assert!(rest.next_page_token.is_empty());
    let incidents = [page.incidents, rest.incidents].concat();
    let over_http = json("/api/v1/incidents");
    let over_http = over_http["items"].as_array().unwrap();
    assert_eq!((incidents.len(), over_http.len()), (3, 3));
    for (incident, json) in incidents.iter().zip(over_http) {
        let id = TraceId(incident.id.as_slice().try_into().unwrap()).to_string();
        assert_eq!((&json["id"], &json["name"]), (&json!(id), &json!(incident.name)));
        assert_eq!(json["state"] == "open", incident.open);
        assert_eq!(json["stories"][0]["node"], incident.stories[0].node);
    }
    let request = proto::GetStoryGraphRequest { story_id: vec![2; 16] };
    let graph = runtime.block_on(query.get_story_graph(request)).unwrap().into_inner();
    let over_http = json(&format!("/api/v1/stories/{}/graph", "02".repeat(16)));
    assert_eq!(graph.id, [2; 16]);
    let ids = over_http["nodes"].as_array().unwrap().iter().map(|node| node["id"].clone());
    assert_eq!(
        graph.nodes.iter().map(|node| json!(node.id)).collect::<Vec<_>>(),
        ids.collect::<Vec<_>>()
    );
    let absent = proto::GetStoryGraphRequest { story_id: vec![9; 16] };
    let refused = runtime.block_on(query.get_story_graph(absent)).err().unwrap();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    let rules = runtime.block_on(query.list_rules(proto::ListRulesRequest {})).unwrap();
    let rules = rules.into_inner().rules;
    let over_http = json("/api/v1/rules");
    assert_eq!(rules.len(), over_http["items"].as_array().unwrap().len());
    assert_eq!(over_http["items"][0]["name"], rules[0].name);
    assert_eq!(over_http["items"][0]["stories"], rules[0].stories);
    let stats = runtime.block_on(query.get_stats(proto::GetStatsRequest {})).unwrap().into_inner();
    assert_eq!((stats.stories_kept, stats.agents), (3, 1));
}
