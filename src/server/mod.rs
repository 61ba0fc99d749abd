//! The receiving end: takes batches in, stores them, answers questions about them. It runs on a
//! thread of its own, so that it can be a process or live inside an agent's.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`ServerConfig`] |
//! | `ingest.rs` | batches → store, acks |
//! | `store/` | the embedded store |
//! | `query.rs` | gRPC queries |
//! | `http.rs` | JSON over HTTP, health |
//! | `metrics.rs` | `/metrics` |

mod config;
mod http;
mod ingest;
mod metrics;
mod query;
mod store;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::{Notify, broadcast};
use tonic::transport::server::TcpIncoming;

pub use config::ServerConfig;
pub use store::{Filter, Found, Scan, Store, StoreStats, StoryFilter};

use tapio_wire::{IngestServer, bind, grpc_server};

/// Batches that a tail may be behind before it misses some.
const TAIL_BATCHES: usize = 256;
/// Delays that can be told apart: up to a minute, to three digits.
const MOST_DELAY_NS: u64 = 60_000_000_000;
/// How long open connections may take to end.
const END_GRACE: Duration = Duration::from_millis(200);

/// What the server did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerCounts {
    /// Batches stored.
    pub batches: u64,
    /// Events stored.
    pub events: u64,
    /// Stories stored.
    pub stories: u64,
    /// Items received again and not stored again.
    pub duplicates: u64,
    /// Batches refused.
    pub refused: u64,
    /// Times the disk didn't take a batch.
    pub disk_errors: u64,
    /// Batches that tails were too slow for.
    pub tail_missed: u64,
    /// Whether the disk didn't take the last batch.
    pub disk_failing: bool,
}

/// Delays from an event's own time to its receipt, for events whose clock is the kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LatencyStats {
    /// Events measured.
    pub count: u64,
    /// Half of the events took at most so long.
    pub p50_ns: u64,
    /// 90 %.
    pub p90_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p999_ns: u64,
    /// The slowest.
    pub max_ns: u64,
}

/// Everything `/api/v1/stats` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// What was taken in.
    pub ingest: ServerCounts,
    /// How long it took to get here.
    pub latency: LatencyStats,
    /// What is stored.
    pub store: StoreStats,
    /// Stories that can be listed.
    pub stories_kept: u64,
}

struct Stats {
    counts: ServerCounts,
    latency: Histogram<u64>,
}

/// What the server's parts share. They all run on its one thread, but for queries that read
/// segments, so its locks are free nearly always.
struct Shared {
    store: Mutex<Store>,
    stats: Mutex<Stats>,
    tail: broadcast::Sender<Bytes>,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a stored batch to those who tail.
    fn tell(&self, batch: &Bytes) {
        if self.tail.receiver_count() > 0 {
            // An error only says that the last listener has just left.
            let _ = self.tail.send(batch.clone());
        }
    }

    fn disk_failed(&self, error: &io::Error) {
        let mut stats = self.stats();
        stats.counts.disk_errors += 1;
        if !std::mem::replace(&mut stats.counts.disk_failing, true) {
            tracing::error!(%error, "a batch can't be stored; agents keep theirs until it can");
        }
    }

    fn status(&self) -> ServerStatus {
        let (store, stories_kept) = {
            let store = self.store();
            (store.stats(), store.stories_kept() as u64)
        };
        let stats = self.stats();
        let at = |quantile| stats.latency.value_at_quantile(quantile);
        ServerStatus {
            ingest: stats.counts,
            latency: LatencyStats {
                count: stats.latency.len(),
                p50_ns: at(0.5),
                p90_ns: at(0.9),
                p99_ns: at(0.99),
                p999_ns: at(0.999),
                max_ns: stats.latency.max(),
            },
            store,
            stories_kept,
        }
    }
}

/// The receiving end, to be started.
pub struct Server;

/// The running server. Dropping it ends it.
pub struct ServerHandle {
    /// Where agents deliver.
    pub grpc_addr: SocketAddr,
    /// Where HTTP is answered.
    pub http_addr: SocketAddr,
    shared: Arc<Shared>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Opens the store, listens and starts the thread.
    ///
    /// # Errors
    /// With the configuration key: a value that can't work, an address in use, a folder that can't
    /// be used.
    pub fn start(config: ServerConfig) -> io::Result<ServerHandle> {
        let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, format!("server.{e}"));
        config.check().map_err(invalid)?;
        let grpc = bind("grpc_listen", config.grpc_listen)?;
        let web = bind("http_listen", config.http_listen)?;
        let (grpc_addr, http_addr) = (grpc.local_addr()?, web.local_addr()?);
        let latency = Histogram::new_with_bounds(1, MOST_DELAY_NS, 3)
            .map_err(|e| io::Error::other(e.to_string()))?;
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::open(&config)?),
            stats: Mutex::new(Stats { counts: ServerCounts::default(), latency }),
            tail: broadcast::channel(TAIL_BATCHES).0,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build()?;
        let stop = Arc::new(Notify::new());
        let theirs = (Arc::clone(&shared), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("server".into()).spawn(move || {
            let (shared, stop) = theirs;
            if let Err(error) = runtime.block_on(serve(grpc, web, shared, stop)) {
                tracing::error!(%error, "the server failed");
            }
            runtime.shutdown_timeout(END_GRACE);
        })?;
        tracing::info!(%grpc_addr, %http_addr, data_dir = %config.data_dir.display(), "the server listens");
        Ok(ServerHandle { grpc_addr, http_addr, shared, stop, thread: Some(thread) })
    }
}

async fn serve(
    grpc: TcpListener,
    web: TcpListener,
    shared: Arc<Shared>,
    stop: Arc<Notify>,
) -> io::Result<()> {
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(grpc)?);
    let agents = grpc_server()
        .add_service(IngestServer::new(ingest::Ingest(Arc::clone(&shared))))
        .add_service(query::service(Arc::clone(&shared)))
        .serve_with_incoming(incoming.with_nodelay(Some(true)));
    let web = axum::serve(tokio::net::TcpListener::from_std(web)?, http::routes(shared));
    tokio::select! {
        ended = agents => ended.map_err(io::Error::other),
        ended = async { web.await } => ended,
        () = stop.notified() => Ok(()),
    }
}

impl ServerHandle {
    /// What was taken in and stored so far.
    #[must_use]
    pub fn status(&self) -> ServerStatus {
        self.shared.status()
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the server: what is stored is stored, what is on its way comes again.
    pub fn stop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server panicked");
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
