//! Reports of agents about themselves: of the sender's own node only, within bounds.

use std::time::Duration;

use tapio_wire::proto::{AgentStatus, CollectorState};
use tapio_wire::{ClientAccess, Dialer, IngestClient, IngestClientConfig};
use tonic::Code;

use super::pki::secret;
use super::sender::{http, server};

#[test]
fn status_is_of_the_senders_node_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (tokens, own) = (folder.path().join("tokens"), folder.path().join("own"));
    secret(&tokens, "write n1 token-of-n1\nread web token-of-web\n");
    secret(&own, "token-of-n1\n");
    let server = server(folder.path(), &format!(", token_file: {}", tokens.display()));
    let endpoint = server.grpc_endpoint().to_owned();
    let report = |status: AgentStatus| {
        let access = ClientAccess { tls: None, token_file: Some(own.clone()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dialer = Dialer::new(&access, [endpoint.as_str()]).unwrap();
            let config = IngestClientConfig { dialer, ..IngestClientConfig::to(&endpoint) };
            let client = IngestClient::connect(&config).await.unwrap();
            let reported = client.report_status(status, Duration::from_secs(30)).await;
            reported.map_err(|status| status.code())
        })
    };
    let of = |node: &str| AgentStatus { node: node.into(), epoch: 7, ..AgentStatus::default() };
    assert_eq!(report(of("n1")), Ok(()));
    assert_eq!(report(of("n2")), Err(Code::PermissionDenied));
    assert_eq!(report(AgentStatus { epoch: u64::MAX, ..of("n1") }), Err(Code::InvalidArgument));
    let many = vec![CollectorState::default(); 1_000];
    assert_eq!(report(AgentStatus { collectors: many, ..of("n1") }), Err(Code::InvalidArgument));
    let long = "x".repeat(100_000);
    let large = AgentStatus { problems: vec![long], ..of("n1") };
    assert_eq!(report(large), Err(Code::OutOfRange));
    let status = server.status();
    assert_eq!((status.ingest.statuses, status.ingest.statuses_refused), (1, 3));
    assert_eq!(status.agents, 1);
    let answer = http(server.http_addr, "/api/v1/agents", "Authorization: Bearer token-of-web\r\n");
    assert!(answer.contains("\"node\":\"n1\""), "{answer}");
    let answer = http(server.http_addr, "/api/v1/agents", "");
    assert!(answer.starts_with("HTTP/1.0 401") || answer.contains(" 401 "), "{answer}");
}
