//! The agents that a server lists: what it has received of them, and what they report.

use serde_json::{Value as Json, json};
use tapio_wire::proto::{AgentStatus, CollectorState, EventAccount};

use super::support::scripted_server::{Reply, ScriptedServer};
use super::*;

fn status(version: &str) -> AgentStatus {
    AgentStatus {
        node: "node-1".into(),
        epoch: 4711,
        version: version.into(),
        state: "ok".into(),
        collectors: vec![CollectorState { name: "jsonl".into(), ..Default::default() }],
        total: Some(EventAccount { received: 12, ..EventAccount::default() }),
        ..AgentStatus::default()
    }
}

fn agent(server: &ServerHandle) -> Json {
    let (_, body) = http(server.http_addr, "/api/v1/agents/node-1");
    serde_json::from_str(&body).unwrap_or_default()
}

fn reporting_node(endpoint: SocketAddr, reports: &Arc<LatestReport>) -> Node {
    let reports = Arc::clone(reports);
    node_of(NodeOptions { config: config(endpoint), reports, ..NodeOptions::default() }, |_| None)
}

#[test]
fn agent_is_listed_with_its_counts_and_its_last_report() {
    let dir = tempfile::tempdir().unwrap();
    let reports = Arc::new(LatestReport::default());
    let server = start(dir.path(), any_port());
    let address = server.grpc_addr;
    let mut node = reporting_node(address, &reports);
    reports.write(status("1"));
    eventually("an agent without events is listed", || agent(&server)["status"]["version"] == "1");
    assert_eq!(agent(&server)["connected"], true);
    assert!(agent(&server)["last_batch"].is_null());
    node.writers[0].write_story(&story(1, 0)).unwrap();
    node.writers = node.feed(0..100).join().unwrap();
    reports.write(status("2"));
    eventually("the next report replaces it", || {
        let agent = agent(&server);
        agent["status"]["version"] == "2" && agent["events"] == 100
    });
    let listed = agent(&server);
    assert_eq!((&listed["stories"], &listed["processes"]), (&json!(1), &json!(1)), "{listed}");
    assert_eq!(listed["started"], "1970-01-01T00:00:00.000004711Z");
    assert_eq!(listed["status"]["cons1"]["received"], 12);
    let (_, page) = http(server.http_addr, "/api/v1/agents?limit=1&node=node-1");
    let page: Json = serde_json::from_str(&page).unwrap();
    assert_eq!(
        (&page["items"][0]["node"], &page["next_page_token"]),
        (&json!("node-1"), &Json::Null)
    );
    let (head, _) = http(server.http_addr, "/api/v1/agents/node-2");
    assert_eq!(head, 404);
    assert_cons1(&node.end(), 100, 100);
    eventually("it is disconnected", || agent(&server)["connected"] == false);
    assert_eq!(server.status().agents, 1);
    drop(server);
    let server = start(dir.path(), any_port());
    let restored = agent(&server);
    assert_eq!((&restored["events"], &restored["status"]["version"]), (&json!(100), &json!("2")));
    assert_eq!(restored["connected"], false, "the agent hasn't come back");
}

#[test]
fn report_is_sent_again_after_the_server_has_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let reports = Arc::new(LatestReport::default());
    let server = start(dir.path(), any_port());
    let address = server.grpc_addr;
    let node = reporting_node(address, &reports);
    reports.write(status("1"));
    eventually("the report is listed", || agent(&server)["status"]["version"] == "1");
    drop(server);
    std::fs::remove_file(dir.path().join("agents.pb")).unwrap();
    let server = start(dir.path(), address);
    eventually("the report is listed again", || agent(&server)["status"]["version"] == "1");
    assert_cons1(&node.end(), 0, 0);
}

#[test]
fn server_without_reports_gets_the_batches_all_the_same() {
    let server = ScriptedServer::start(any_port(), |_, _| Reply::Store);
    let reports = Arc::new(LatestReport::default());
    let mut node = reporting_node(server.address, &reports);
    for part in 0..3 {
        reports.write(status("1"));
        node.writers = node.feed(part * 10..part * 10 + 10).join().unwrap();
        // The bridge sends reports once a second.
        std::thread::sleep(Duration::from_millis(1_100));
    }
    assert_eq!(counter(node.bridge.stats(), "connects"), 1, "the connection stays");
    assert_cons1(&node.end(), 30, 30);
}
