//! Start and stop of the server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::config::ServerConfig;
use super::health::Health;
use super::ingest::Ingest;
use super::reload::ConfigChanges;
use super::scrub::ScrubThread;
use super::shared::Shared;
use super::status::ServerStatus;
use super::sync::SyncThread;
use super::{health, http, query, query_line};
use crate::store::{Files, OsFiles};
use tapio_wire::{DoorListener, IngestServer, bind, grpc_server};

/// How long open connections may take to end.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(200);

/// A server to be started.
pub struct Server;

/// The running server. Dropping it stops it.
pub struct ServerHandle {
    /// The address for agents and gRPC queries.
    pub grpc_addr: SocketAddr,
    /// The address for HTTP.
    pub http_addr: SocketAddr,
    /// The configuration in force.
    config: ServerConfig,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    scrub: Option<ScrubThread>,
    /// Dropped last: it seals the log.
    sync: Option<SyncThread>,
}

impl Server {
    /// Opens the storage, listens and starts the thread.
    ///
    /// # Errors
    /// With the configuration key: an invalid value, an address in use, or a folder that can't be
    /// used.
    pub fn start(config: ServerConfig) -> io::Result<ServerHandle> {
        Self::start_on(config, Arc::new(OsFiles))
    }

    /// As [`Server::start`], with the storage on another file system.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_on(config: ServerConfig, files: Arc<dyn Files>) -> io::Result<ServerHandle> {
        check(&config)?;
        let grpc = bind("grpc_listen", config.grpc_listen)?;
        let web = bind("http_listen", config.http_listen)?;
        let (grpc_addr, http_addr) = (grpc.local_addr()?, web.local_addr()?);
        let ingest = Ingest::open(&config, files)?;
        let shared = Arc::clone(ingest.shared());
        let sync = SyncThread::start(Arc::clone(&shared))?;
        let scrub = ScrubThread::start(Arc::clone(&shared))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(query_line::running())
            .on_thread_start(query_line::lower_weight)
            .build()?;
        let thread = std::thread::Builder::new().name("server".into()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(grpc, web, ingest)) {
                tracing::error!(
                    %grpc_addr, %http_addr, %error,
                    "server: stopped; agents keep their batches and retry"
                );
            }
            runtime.shutdown_timeout(SHUTDOWN_GRACE);
        })?;
        tracing::info!(%grpc_addr, %http_addr, data_dir = %config.data_dir.display(), "server: listening");
        Ok(ServerHandle {
            grpc_addr,
            http_addr,
            config,
            shared,
            thread: Some(thread),
            scrub: Some(scrub),
            sync: Some(sync),
        })
    }
}

fn check(config: &ServerConfig) -> io::Result<()> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, format!("server.{e}"));
    config.check().map_err(invalid)
}

/// Serves until the server stops.
async fn serve(grpc: TcpListener, web: TcpListener, ingest: Ingest) -> io::Result<()> {
    let shared = Arc::clone(ingest.shared());
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let reported = health::report(shared.health.subscribe(), reporter);
    let agents = grpc_server()
        .add_service(IngestServer::new(ingest))
        .add_service(query::service(Arc::clone(&shared)))
        .add_service(health_service)
        .serve_with_incoming(DoorListener::new(grpc)?);
    let web = axum::serve(DoorListener::new(web)?, http::routes(shared));
    tokio::select! {
        ended = agents => ended.map_err(io::Error::other),
        ended = async { web.await } => ended,
        () = reported => Ok(()),
    }
}

impl ServerHandle {
    /// The current counters.
    #[must_use]
    pub fn status(&self) -> ServerStatus {
        self.shared.status()
    }

    /// Changes the configuration. Some values take effect at the next start only.
    ///
    /// # Errors
    /// With the configuration key: an invalid value. The configuration in force stays.
    pub fn reload(&mut self, config: ServerConfig) -> io::Result<ConfigChanges> {
        check(&config)?;
        let changes = ConfigChanges::apply(&mut self.config, config);
        self.shared.set_limits(&self.config);
        Ok(changes)
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops the server. Agents resend the batches that weren't acknowledged.
    pub fn stop(&mut self) {
        self.shared.set_health(Health::Stopping);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("server: thread panicked");
        }
        self.scrub = None;
        self.sync = None;
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
