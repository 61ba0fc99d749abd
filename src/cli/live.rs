//! A client of the server's queries, and of the stream of what it stores.

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tonic::{Code, Status, Streaming, TimeoutExpired};

use super::output::{Usage, plain};
use tapio_core::event::{Story, StoryState};
use tapio_core::shutdown::Shutdown;
use tapio_wire::proto::operate_client::OperateClient;
use tapio_wire::proto::query_client::QueryClient;
use tapio_wire::{
    AuthorizedChannel, ClientAccess, DialError, Dialer, MAX_BATCH_BYTES, proto, story_from_proto,
};

/// Interval of pings on a silent connection, and the longest time for their answer: a server that
/// is gone without a word is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the first bytes of a server that has accepted the connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the answer to a request, and for the beginning of a stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(3);
/// Time before the next attempt to connect.
const RECONNECT: Duration = Duration::from_millis(250);
/// Silence after which, once shutdown is requested, the stream counts as complete.
const QUIET: Duration = Duration::from_millis(200);

/// Creates a runtime for one thread that queries a server.
///
/// # Errors
/// When the system lacks the resources.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Connects to the queries of a server.
///
/// # Errors
/// When the address or a file is invalid, or no server answers.
pub(super) async fn connect(
    server: &str,
    access: &ClientAccess,
) -> Result<QueryClient<AuthorizedChannel>, String> {
    let channel = channel(server, access).await?;
    Ok(QueryClient::new(channel).max_decoding_message_size(MAX_BATCH_BYTES))
}

/// Connects to a server for the actions of operators.
///
/// # Errors
/// As [`connect`].
pub(super) async fn connect_operate(
    server: &str,
    access: &ClientAccess,
) -> Result<OperateClient<AuthorizedChannel>, String> {
    Ok(OperateClient::new(channel(server, access).await?))
}

async fn channel(server: &str, access: &ClientAccess) -> Result<AuthorizedChannel, String> {
    let dialer = Dialer::new(access, [server]).map_err(|e| e.to_string())?;
    let dialer = dialer.with_answer_timeout(ANSWER_TIMEOUT);
    let settings = |endpoint: tonic::transport::Endpoint| {
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
    };
    dialer.connect(server, settings).await.map_err(|error| match error {
        DialError::Endpoint(cause) => format!("{server}: not an address: {cause}"),
        DialError::Connect(cause) => format!("can't reach a server at {server}: {cause}"),
    })
}

/// The text of a status: the server's message, or the innermost cause of a connection that failed.
pub(super) fn status_text(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return format!("no answer within {REQUEST_TIMEOUT:?}");
        }
        text = error.to_string();
        cause = error.source();
    }
    // tonic has no kind for an answer whose body isn't gRPC's.
    if status.code() == Code::Internal && text.contains("invalid compression flag") {
        return "a web server answers: is this the HTTP port? gRPC's is 7600".to_owned();
    }
    text
}

/// The error of a request to a server.
pub(super) fn failure(server: &str, status: &Status) -> anyhow::Error {
    refusal(server, status, &[])
}

/// The error of a request to a server. One in an argument is [`Usage`]; `options`: parameters of
/// the API, each with the option that sets it.
pub(super) fn refusal(server: &str, status: &Status, options: &[(&str, &str)]) -> anyhow::Error {
    let text = plain(&status_text(status));
    if status.code() != Code::InvalidArgument {
        // The error of a connection has the address.
        return match text.contains(server) {
            true => anyhow::anyhow!(text),
            false => anyhow::anyhow!("{server}: {text}"),
        };
    }
    let named = text.split_once(": ").and_then(|(parameter, cause)| {
        let option = options.iter().find(|(name, _)| *name == parameter);
        option.map(|(_, option)| format!("{option}: {cause}"))
    });
    Usage(named.unwrap_or_else(|| format!("{server}: {text}"))).into()
}

/// Fetches a page of an agent or a server at `host:port` as text.
///
/// # Errors
/// When nothing answers, or the response isn't the page.
pub(super) fn http_text(address: &str, path: &str) -> anyhow::Result<String> {
    let failed = |cause: &str| format!("{cause} at {address}");
    let mut stream = TcpStream::connect(address).with_context(|| failed("can't reach an agent"))?;
    stream.set_read_timeout(Some(PAGE_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut response = String::new();
    let read = stream.take(MAX_BATCH_BYTES as u64).read_to_string(&mut response);
    read.with_context(|| failed("can't read the response"))?;
    let (head, body) =
        response.split_once("\r\n\r\n").with_context(|| failed("no HTTP response"))?;
    let status = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status.split(' ').nth(1) == Some("200"), "{}: {status}", failed(path));
    Ok(body.to_owned())
}

/// Waits for `future`, at most until shutdown is requested and [`QUIET`] has passed. `None`: shut
/// down.
async fn unless_shut_down<T>(shutdown: &Shutdown, future: impl Future<Output = T>) -> Option<T> {
    let shut_down = async {
        shutdown.requested().await;
        tokio::time::sleep(QUIET).await;
    };
    tokio::select! {
        biased;
        done = future => Some(done),
        () = shut_down => None,
    }
}

/// Follows the stories that a server stores, on a thread of its own, until shutdown is requested
/// and the stream is silent. Reconnects when the connection is lost. `on_story` receives each story
/// when it opens and when it ends, without updates and lifecycles. Returns after the first attempt:
/// where it succeeded, no story that is stored from then on is missed.
///
/// # Errors
/// When the thread can't be started.
pub(crate) fn follow_stories(
    server: String,
    access: ClientAccess,
    shutdown: Shutdown,
    mut on_story: impl FnMut(&Story) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    let (attempted, first_attempt) = sync_channel(1);
    let thread = std::thread::Builder::new().name("stories".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                let followed = follow(&server, &access, &shutdown, &attempted, &mut on_story).await;
                let _ = attempted.try_send(());
                if shutdown.is_requested() {
                    return;
                }
                if let Err(error) = followed {
                    tracing::debug!(%error, "story stream lost, reconnecting");
                }
                tokio::time::sleep(RECONNECT).await;
            }
        });
    })?;
    // The sender's end sends in any case, at the latest when its thread ends.
    let _ = first_attempt.recv();
    Ok(thread)
}

async fn follow(
    server: &str,
    access: &ClientAccess,
    shutdown: &Shutdown,
    subscribed: &SyncSender<()>,
    on_story: &mut impl FnMut(&Story),
) -> Result<(), String> {
    let Some(client) = unless_shut_down(shutdown, connect(server, access)).await else {
        return Ok(());
    };
    let request = proto::TailRequest { stories: true, no_events: true, ..Default::default() };
    let mut stream = tail(&mut client?, request).await?;
    // Full from the second attempt on: nobody waits any more.
    let _ = subscribed.try_send(());
    while let Some(item) = unless_shut_down(shutdown, stream.message()).await {
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

/// Opens the stream of what the server stores from now on.
///
/// # Errors
/// The server's message.
pub(super) async fn tail(
    client: &mut QueryClient<AuthorizedChannel>,
    request: proto::TailRequest,
) -> Result<Streaming<proto::TailItem>, String> {
    let stream = client.tail(request).await;
    stream
        .map(tonic::Response::into_inner)
        .map_err(|e: Status| format!("server refused to stream: {}", e.message()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::runtime::{Agent, Config};
    use tapio_core::clock;

    /// Writes ten refusals by an address of its own for each round: one story per round.
    fn refusals(file: &mut std::fs::File, round: u32) {
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
    fn stories_are_followed_across_server_start_until_closed() {
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&seen);
        let shutdown = Shutdown::default();
        let follower = follow_stories(
            address.to_string(),
            ClientAccess::default(),
            shutdown.clone(),
            move |story| {
                received.lock().unwrap().push(story.clone());
            },
        )
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
        config.server.grpc_listen = address.into();
        config.server.http_listen.set_port(0);
        config.admin.listen.set_port(0);
        let mut agent = Agent::start(config, true).unwrap();
        let mut round = 0;
        while seen.lock().unwrap().is_empty() && round < 200 {
            round += 1;
            refusals(&mut file, round);
            std::thread::sleep(Duration::from_millis(100));
        }
        let account = agent.drain();
        shutdown.request();
        follower.join().unwrap();
        let _ = agent.finish();
        assert!(account.holds() && account.total.held == 0, "{account:?}");
        let seen = seen.lock().unwrap();
        let count = |state| seen.iter().filter(|s| s.state == state).count();
        assert!(count(StoryState::Opened) > 0, "{seen:?}");
        assert_eq!(count(StoryState::Closed), round as usize, "every story ends");
        assert_eq!(count(StoryState::Updated), 0);
        assert!(seen.iter().all(|s| s.pattern == "connection-refused"));
    }

    #[test]
    fn connection_error_has_the_address() {
        let connected =
            runtime().unwrap().block_on(connect("127.0.0.1:1", &ClientAccess::default()));
        let error = connected.err().unwrap();
        assert!(
            error.starts_with("can't reach a server at 127.0.0.1:1: Connection refused"),
            "{error}"
        );
    }
}
