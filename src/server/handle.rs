//! Start and stop of the server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::http::Method;
use tonic::service::Routes;

use super::config::ServerConfig;
use super::health::{Health, ServerHealth};
use super::ingest::Ingest;
use super::rule_text::RuleText;
use super::scrub::ScrubThread;
use super::shared::Shared;
use super::status::ServerStatus;
use super::story_log::SharedLog;
use super::sync::SyncThread;
use super::{health, http, operate_rpc, page, query_line, query_rpc, reflection};
use crate::notify::{Notifier, Placed, ReceiverConfig, StoryLog};
use crate::store::{Files, OsFiles};
use crate::telemetry::MetricSource;
use tapio_wire::{
    Access, AccessLayer, DoorListener, IngestServer, ListenAddress, Listening, PeerInfo, Right,
    bind, grpc_server,
};

/// How long open connections may take to end.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(200);

/// A server to be started.
pub struct Server;

/// The running server. Dropping it stops it.
pub struct ServerHandle {
    /// The address for agents and gRPC queries; the port is 0 where it is a unix socket.
    pub grpc_addr: SocketAddr,
    /// The address for HTTP; the port is 0 where it is a unix socket.
    pub http_addr: SocketAddr,
    /// The address for agents and gRPC queries, as clients' configuration has it.
    grpc_endpoint: String,
    shared: Arc<Shared>,
    /// Notifies about stories.
    notifier: Notifier,
    /// Its receivers.
    notify: Vec<Placed<ReceiverConfig>>,
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
        let access = access(&config)?;
        let grpc = bind("grpc_listen", &config.grpc_listen)?;
        let web = bind("http_listen", &config.http_listen)?;
        let (grpc_address, http_address) = (grpc.address()?, web.address()?);
        let tcp = |address: &ListenAddress| {
            address.tcp().unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into())
        };
        let (grpc_addr, http_addr) = (tcp(&grpc_address), tcp(&http_address));
        let ingest = Ingest::open(&config, files)?;
        let shared = Arc::clone(ingest.shared());
        shared.set_access(access.clone());
        let notifier = notifier(&config, &shared)?;
        let sync = SyncThread::start(Arc::clone(&shared))?;
        let scrub = ScrubThread::start(Arc::clone(&shared))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(query_line::running())
            .on_thread_start(query_line::lower_weight)
            .build()?;
        let scheme = if config.tls.is_some() { "https://" } else { "" };
        let grpc_endpoint = match &grpc_address {
            ListenAddress::Tcp(address) => format!("{scheme}{address}"),
            ListenAddress::Unix(_) => grpc_address.to_string(),
        };
        let services = Services { ingest, has_reflection: config.grpc_reflection };
        let thread = std::thread::Builder::new().name("server".into()).spawn(move || {
            if let Err(error) = runtime.block_on(serve([grpc, web], access, services)) {
                tracing::error!(
                    %grpc_addr, %http_addr, %error,
                    "server: stopped; agents keep their batches and retry"
                );
            }
            runtime.shutdown_timeout(SHUTDOWN_GRACE);
        })?;
        let data_dir = config.data_dir.display();
        tracing::info!(
            grpc_addr = %grpc_address, http_addr = %http_address, %data_dir,
            "server: listening"
        );
        Ok(ServerHandle {
            grpc_addr,
            http_addr,
            grpc_endpoint,
            shared,
            notifier,
            notify: config.notify,
            thread: Some(thread),
            scrub: Some(scrub),
            sync: Some(sync),
        })
    }
}

/// Starts the receivers of notifications.
fn notifier(config: &ServerConfig, shared: &Arc<Shared>) -> io::Result<Notifier> {
    let log: Arc<dyn StoryLog> = Arc::new(SharedLog(Arc::clone(shared)));
    let started = Notifier::start(&config.notify, &config.cluster, &config.data_dir, &log);
    let notifier = started.map_err(|e| io::Error::new(e.kind(), format!("server.notify: {e}")))?;
    *shared.receivers() = notifier.stats().to_vec();
    Ok(notifier)
}

/// Access to the listeners of gRPC and HTTP.
fn access(config: &ServerConfig) -> io::Result<[Arc<Access>; 2]> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, format!("server: {e}"));
    let of = config.access();
    let grpc = Access::grpc("server.grpc_listen", &of, grpc_right).map_err(invalid)?;
    let http = Access::http("server.http_listen", &config.http_listen, &of, http_right);
    Ok([grpc, http.map_err(invalid)?])
}

fn grpc_right(_: &Method, path: &str) -> Option<Right> {
    match path {
        path if path.starts_with("/tapio.v1.Ingest/") => Some(Right::Write),
        path if path.starts_with("/tapio.v1.Operate/") => Some(Right::Operate),
        path if path.starts_with("/grpc.health.v1.Health/") => None,
        _ => Some(Right::Read),
    }
}

fn http_right(method: &Method, path: &str) -> Option<Right> {
    match (path, *method == Method::GET || *method == Method::HEAD) {
        ("/healthz" | "/readyz", _) => None,
        (path, true) if page::is_static(path) => None,
        // It has queries only, which are sent by POST.
        ("/mcp", _) | (_, true) => Some(Right::Read),
        (_, false) => Some(Right::Operate),
    }
}

fn check(config: &ServerConfig) -> io::Result<()> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, format!("server.{e}"));
    config.check().map_err(invalid)
}

/// The services of gRPC that depend on the configuration.
struct Services {
    ingest: Ingest,
    has_reflection: bool,
}

/// Serves until the server stops.
async fn serve(
    [grpc, web]: [Listening; 2],
    [grpc_access, web_access]: [Arc<Access>; 2],
    Services { ingest, has_reflection }: Services,
) -> io::Result<()> {
    let shared = Arc::clone(ingest.shared());
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let reported = health::report(shared.health.subscribe(), reporter);
    let mut services = Routes::builder();
    services
        .add_service(IngestServer::new(ingest))
        .add_service(query_rpc::service(Arc::clone(&shared)))
        .add_service(operate_rpc::service(Arc::clone(&shared)))
        .add_service(health_service);
    if has_reflection {
        reflection::add(&mut services).map_err(io::Error::other)?;
    }
    let agents = grpc_server(Arc::clone(&grpc_access))
        .add_routes(services.routes())
        .serve_with_incoming(DoorListener::new(grpc, grpc_access)?);
    let routes = http::routes(shared).layer(AccessLayer::http(Arc::clone(&web_access)));
    let routes = routes.into_make_service_with_connect_info::<PeerInfo>();
    let web = axum::serve(DoorListener::new(web, web_access)?, routes);
    tokio::select! {
        ended = agents => ended.map_err(io::Error::other),
        ended = async { web.await } => ended,
        () = reported => Ok(()),
    }
}

impl ServerHandle {
    /// The address for agents and gRPC queries, as clients' configuration has it.
    #[must_use]
    pub fn grpc_endpoint(&self) -> &str {
        &self.grpc_endpoint
    }

    /// The current counters.
    #[must_use]
    pub fn status(&self) -> ServerStatus {
        self.shared.status()
    }

    /// Whether it stores batches, also after the handle is gone.
    #[must_use]
    pub fn health(&self) -> ServerHealth {
        ServerHealth(self.shared.health.subscribe())
    }

    /// The server's metrics.
    #[must_use]
    pub fn metrics(&self) -> MetricSource {
        let shared = Arc::clone(&self.shared);
        MetricSource::new(move || shared.metrics())
    }

    /// Sets the source of the rules in words that come with the server, for its page.
    pub fn describe_rules(&self, source: fn() -> Vec<RuleText>) {
        self.shared.rules.set(source);
    }

    /// Takes over retention, `sync_interval` and `stories_kept`; the rest takes effect at a start
    /// only.
    ///
    /// # Errors
    /// With the configuration key: an invalid value. The configuration in force stays.
    pub fn reload(&mut self, config: ServerConfig) -> io::Result<()> {
        check(&config)?;
        self.shared.set_limits(&config);
        if config.notify == self.notify {
            return Ok(());
        }
        // Each receiver goes on where it ended.
        self.notifier.stop();
        match notifier(&config, &self.shared) {
            Ok(started) => (self.notifier, self.notify) = (started, config.notify),
            Err(error) => {
                let before = ServerConfig { notify: self.notify.clone(), ..config };
                self.notifier = notifier(&before, &self.shared)?;
                return Err(error);
            }
        }
        Ok(())
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
        // After ingest: what it has stored is in their positions.
        self.notifier.stop();
        self.scrub = None;
        self.sync = None;
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
