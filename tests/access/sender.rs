//! Servers, and clients that send batches and queries to them.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use tapio::runtime::Config;
use tapio::server::{Server, ServerHandle};
use tapio_core::clock;
use tapio_wire::proto::operate_client::OperateClient;
use tapio_wire::proto::query_client::QueryClient;
use tapio_wire::{
    AuthorizedChannel, ClientAccess, Dialer, IngestClient, IngestClientConfig, grpc_framed, proto,
};

/// Parses a configuration.
pub(crate) fn config(text: &str) -> Config {
    Config::parse("test.yaml", text, |_| None).unwrap()
}

/// Starts a server with these further settings in its section, each with a comma before it.
pub(crate) fn server(folder: &Path, settings: &str) -> ServerHandle {
    let text = format!(
        "server: {{ data_dir: {}, grpc_listen: \"127.0.0.1:0\", http_listen: \"127.0.0.1:0\"{settings} }}",
        folder.join("store").display()
    );
    Server::start(config(&text).server()).unwrap()
}

/// A batch of a node with as many events.
pub(crate) fn batch(node: &str, epoch: u64, first_sequence: u64, count: u32) -> proto::EventBatch {
    let event = |n: u32| proto::Event {
        time_unix_nano: clock::wall_ns(),
        id: ((u128::from(epoch) << 64) | (u128::from(first_sequence) + u128::from(n)))
            .to_be_bytes()
            .to_vec(),
        ..proto::Event::default()
    };
    proto::EventBatch {
        first_sequence,
        count,
        node: node.into(),
        epoch,
        names: vec!["test.kind".into()],
        events: (0..count).map(event).collect(),
        ..proto::EventBatch::default()
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Sends batches on one stream; the error is why the connection failed or the stream ended.
pub(crate) fn send(
    endpoint: &str,
    access: &ClientAccess,
    batches: &[proto::EventBatch],
) -> Result<Vec<proto::Ack>, String> {
    let exchange = async {
        let dialer = Dialer::new(access, [endpoint]).map_err(|e| e.to_string())?;
        let config = IngestClientConfig { dialer, ..IngestClientConfig::to(endpoint) };
        let mut client = IngestClient::connect(&config).await.map_err(|e| e.to_string())?;
        let mut acks = Vec::new();
        for batch in batches {
            client
                .send_framed(grpc_framed(&batch.encode_to_vec()))
                .map_err(|e| format!("{e:?}"))?;
            acks.push(client.ack().await.map_err(|e| e.to_string())?);
        }
        Ok(acks)
    };
    runtime().block_on(async {
        let answer = tokio::time::timeout(Duration::from_secs(60), exchange).await;
        answer.unwrap_or_else(|_| Err("no answer".into()))
    })
}

/// A stream that stays open.
pub(crate) struct Stream {
    runtime: tokio::runtime::Runtime,
    client: IngestClient,
}

impl Stream {
    pub(crate) fn open(endpoint: &str) -> Self {
        Self::open_as(endpoint, &ClientAccess::default())
    }

    /// Opens a stream of a client with a token or a certificate.
    pub(crate) fn open_as(endpoint: &str, access: &ClientAccess) -> Self {
        let runtime = runtime();
        let dialer = Dialer::new(access, [endpoint]).unwrap();
        let config = IngestClientConfig { dialer, ..IngestClientConfig::to(endpoint) };
        let client = runtime.block_on(IngestClient::connect(&config)).unwrap();
        Self { runtime, client }
    }

    /// Waits for the end of the stream; returns why it ended.
    pub(crate) fn wait_for_end(&mut self) -> String {
        let ended = async {
            loop {
                if let Err(end) = self.client.ack().await {
                    return end.to_string();
                }
            }
        };
        let limited = async { tokio::time::timeout(Duration::from_secs(60), ended).await };
        self.runtime.block_on(limited).unwrap()
    }

    pub(crate) fn send(&mut self, batch: &proto::EventBatch) -> Result<proto::Ack, String> {
        self.client.send_framed(grpc_framed(&batch.encode_to_vec())).unwrap();
        self.runtime.block_on(self.client.ack()).map_err(|e| e.to_string())
    }
}

/// Opens a tail and reads it to its end; the error is why it ended.
pub(crate) fn tail_to_end(endpoint: &str, access: &ClientAccess) -> Result<(), String> {
    query(endpoint, access, async |mut client| {
        let response = client.tail(proto::TailRequest::default()).await;
        let mut stream = response.map_err(|e| e.message().to_owned())?.into_inner();
        while stream.message().await.map_err(|e| e.message().to_owned())?.is_some() {}
        Ok(())
    })
}

/// The number of events that a node has in the server's store; the error is the server's.
pub(crate) fn events_of(
    endpoint: &str,
    access: &ClientAccess,
    node: &str,
) -> Result<usize, String> {
    query(endpoint, access, async |mut client| {
        let request =
            proto::ListEventsRequest { limit: 10_000, node: node.into(), ..Default::default() };
        let response = client.list_events(request).await;
        let batches = response.map_err(|e| e.message().to_owned())?.into_inner().batches;
        Ok(batches.iter().map(|batch| batch.events.len()).sum())
    })
}

/// The epoch of a node's process that has events in the server's store.
pub(crate) fn epoch_of(endpoint: &str, node: &str) -> Option<u64> {
    let epoch = query(endpoint, &ClientAccess::default(), async |mut client| {
        let request =
            proto::ListEventsRequest { limit: 1, node: node.into(), ..Default::default() };
        let response = client.list_events(request).await.map_err(|e| e.message().to_owned())?;
        Ok(response.into_inner().batches.first().map(|batch| batch.epoch))
    });
    epoch.unwrap()
}

/// The stories of a server.
pub(crate) fn stories(endpoint: &str, access: &ClientAccess) -> Vec<proto::Story> {
    let stories = query(endpoint, access, async |mut client| {
        let response = client.list_stories(proto::ListStoriesRequest::default()).await;
        Ok(response.map_err(|e| e.message().to_owned())?.into_inner().stories)
    });
    stories.unwrap()
}

/// Adds a silence under another name than the sender's.
pub(crate) fn add_silence(endpoint: &str, access: &ClientAccess) -> Result<proto::Silence, String> {
    let request = proto::AddSilenceRequest {
        rule: "oom-kill".into(),
        duration_nanos: 1_000_000_000,
        by: "somebody".into(),
        ..Default::default()
    };
    runtime().block_on(async {
        let channel = channel(endpoint, access).await?;
        let added = OperateClient::new(channel).add_silence(request).await;
        added.map(tonic::Response::into_inner).map_err(|e| e.message().to_owned())
    })
}

pub(crate) async fn channel(
    endpoint: &str,
    access: &ClientAccess,
) -> Result<AuthorizedChannel, String> {
    let dialer = Dialer::new(access, [endpoint]).map_err(|e| e.to_string())?;
    dialer.connect(endpoint, |settings| settings).await.map_err(|e| e.to_string())
}

fn query<T>(
    endpoint: &str,
    access: &ClientAccess,
    ask: impl AsyncFnOnce(QueryClient<AuthorizedChannel>) -> Result<T, String>,
) -> Result<T, String> {
    runtime().block_on(async { ask(QueryClient::new(channel(endpoint, access).await?)).await })
}

/// The response to the lines of a request over plain HTTP/1.1.
pub(crate) fn http(to: SocketAddr, path: &str, headers: &str) -> String {
    let stream = TcpStream::connect(to).unwrap();
    exchange(stream, path, headers).unwrap()
}

/// Asserts that a response over HTTP is a problem with this status, whose detail has this part.
#[track_caller]
pub(crate) fn assert_problem(response: &str, status: u16, part: &str) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    assert!(head.contains("content-type: application/problem+json"), "{response}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(body["detail"].as_str().unwrap().contains(part), "{body}");
    assert_eq!((&body["status"], &body["error"]), (&status.into(), &body["detail"]));
    assert!(!body["title"].as_str().unwrap().is_empty() && body["type"] == "about:blank");
}

/// Sends a request and reads to the end of the connection.
pub(crate) fn exchange(
    mut stream: impl std::io::Read + std::io::Write,
    path: &str,
    headers: &str,
) -> std::io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n")?;
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        // A peer that ends without close_notify has sent its response all the same.
        Err(error) if text.is_empty() => Err(error),
        _ => Ok(text),
    }
}
