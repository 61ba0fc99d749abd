//! Following a server: what it stores, as it stores it.

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use tapio_core::event::{Story, StoryState};
use tapio_core::shutdown::Shutdown;
use tapio_wire::proto::query_client::QueryClient;
use tapio_wire::{MAX_BATCH_BYTES, proto, story_from_proto};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How soon a server that isn't there is tried again.
const RECONNECT: Duration = Duration::from_millis(250);
/// After a stop, what is on its way counts as complete after so long a silence.
const QUIET: Duration = Duration::from_millis(200);

/// A runtime for one thread that talks to a server.
///
/// # Errors
/// When the system gives none.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A client of a server's queries at `host:port`.
///
/// # Errors
/// When it isn't an address or nobody answers there.
pub(super) async fn connect(server: &str) -> Result<QueryClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{server}"))
        .map_err(|e| format!("{server}: isn't host:port: {e}"))?;
    let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await;
    let channel = channel.map_err(|e| {
        let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), deepest);
        format!("no server answers at {server}: {cause}")
    })?;
    Ok(QueryClient::new(channel).max_decoding_message_size(MAX_BATCH_BYTES))
}

/// A page of an agent or a server at `host:port`, as text.
///
/// # Errors
/// When nobody answers there, or not with the page.
pub(super) fn http_text(address: &str, path: &str) -> anyhow::Result<String> {
    let failed = |what: &str| format!("{what} at {address}");
    let mut stream = TcpStream::connect(address).with_context(|| failed("no agent answers"))?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    let read = stream.take(MAX_BATCH_BYTES as u64).read_to_string(&mut answer);
    read.with_context(|| failed("the answer can't be read"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| failed("no page"))?;
    let status = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status.split(' ').nth(1) == Some("200"), "{}: {status}", failed(path));
    Ok(body.to_owned())
}

/// What is at the bottom of an error: the system's own words.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Waits for something, but not longer than until a stop and the silence after it. `None`: stopped.
async fn unless_stopped<T>(shutdown: &Shutdown, waiting: impl Future<Output = T>) -> Option<T> {
    let stopped = async {
        shutdown.requested().await;
        tokio::time::sleep(QUIET).await;
    };
    tokio::select! {
        biased;
        done = waiting => Some(done),
        () = stopped => None,
    }
}

/// Follows the stories a server is told, on a thread of its own, until `stop` is set and what was
/// on its way has come. Connects again whenever the server isn't there. `on_story` sees each story
/// when it opens and when it ends; lives of entities and updates are left out.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn follow_stories(
    server: String,
    shutdown: Shutdown,
    mut on_story: impl FnMut(&Story) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    std::thread::Builder::new().name("stories".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                let followed = follow(&server, &shutdown, &mut on_story).await;
                if shutdown.is_requested() {
                    return;
                }
                if let Err(error) = followed {
                    tracing::debug!(%error, "following stories");
                }
                tokio::time::sleep(RECONNECT).await;
            }
        });
    })
}

async fn follow(
    server: &str,
    shutdown: &Shutdown,
    on_story: &mut impl FnMut(&Story),
) -> Result<(), String> {
    let Some(client) = unless_stopped(shutdown, connect(server)).await else {
        return Ok(());
    };
    let request = proto::TailRequest { stories: true, no_events: true, ..Default::default() };
    let mut stream = tail(&mut client?, request).await?;
    while let Some(item) = unless_stopped(shutdown, stream.message()).await {
        let Some(item) = item.map_err(|e| e.message().to_owned())? else {
            return Ok(());
        };
        let stories = item.batch.unwrap_or_default().stories;
        for story in stories.into_iter().filter_map(story_from_proto) {
            if !story.is_lifecycle() && story.state != StoryState::Updated {
                on_story(&story);
            }
        }
    }
    Ok(())
}

/// Opens the stream of what is stored from now on.
///
/// # Errors
/// With what the server says.
pub(super) async fn tail(
    client: &mut QueryClient<Channel>,
    request: proto::TailRequest,
) -> Result<Streaming<proto::TailItem>, String> {
    let stream = client.tail(request).await;
    stream
        .map(tonic::Response::into_inner)
        .map_err(|e: Status| format!("the server doesn't let us tail: {}", e.message()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::runtime::{Agent, Config};
    use tapio_core::clock;

    /// Ten refusals by an address that no round before had: a story of its own each time.
    fn storm(file: &mut std::fs::File, round: u32) {
        let time_ns = clock::wall_ns();
        for i in 0..10 {
            let line = serde_json::json!({
                "id": format!("{round}-{i}"), "time": time_ns + i, "kind": "kernel.tcp.refused", "source": "test",
                "entity": {"node": "n", "systemd.unit": "a.service"},
                "attributes": {"network.peer.address": "10.0.0.1", "network.peer.port": round},
            });
            writeln!(file, "{line}").unwrap();
        }
    }

    #[test]
    fn stories_are_followed_from_before_the_server_is_there_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&seen);
        let shutdown = Shutdown::default();
        let follower = follow_stories(address.to_string(), shutdown.clone(), move |g| {
            theirs.lock().unwrap().push(g.clone());
        })
        .unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let path = dir.path().join("events.jsonl");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut config = Config { state_dir: Some(dir.path().join("state")), ..Config::default() };
        config.collectors.ebpf.enabled = false;
        config.collectors.systemd.enabled = false;
        config.collectors.journal.enabled = false;
        config.collectors.jsonl.paths = vec![path.clone()];
        config.collectors.jsonl.follow = true;
        config.server.data_dir = dir.path().join("data");
        config.server.grpc_listen = address;
        config.server.http_listen.set_port(0);
        config.admin.listen.set_port(0);
        let mut agent = Agent::start(config, true).unwrap();
        let mut round = 0;
        while seen.lock().unwrap().is_empty() && round < 200 {
            round += 1;
            storm(&mut file, round);
            std::thread::sleep(Duration::from_millis(100));
        }
        let account = agent.drain();
        shutdown.request();
        follower.join().unwrap();
        let _ = agent.finish();
        assert!(account.holds() && account.total.held == 0, "{account:?}");
        let seen = seen.lock().unwrap();
        let told = |state| seen.iter().filter(|g| g.state == state).count();
        assert!(told(StoryState::Opened) > 0, "{seen:?}");
        assert_eq!(told(StoryState::Closed), round as usize, "every story ends");
        assert_eq!(told(StoryState::Updated), 0);
        assert!(seen.iter().all(|g| g.pattern == "connection-refused"));
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let said = runtime().unwrap().block_on(connect("127.0.0.1:1"));
        let error = said.unwrap_err();
        assert!(
            error.starts_with("no server answers at 127.0.0.1:1: Connection refused"),
            "{error}"
        );
    }
}
