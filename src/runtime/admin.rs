//! The agent's admin pages: `/healthz`, `/readyz`, `/status`, `/metrics`, `/suggested-rules`, by
//! default on a loopback port.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::Notify;

use super::sections::AdminConfig;
use super::start_error::{StartError, system_error};
use super::status::Status;
use super::{debug_pages, metrics};
use tapio_wire::{Access, AccessLayer, DoorListener, ListenAddress, PeerInfo, Right, bind};

/// The running admin server.
pub(super) struct Admin {
    /// The address it listens on; the port is 0 where it is a unix socket.
    pub(super) addr: SocketAddr,
    shutdown: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

fn routes(status: Arc<Status>) -> Router {
    debug_pages::routes(&status)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/status", get(async |State(s): State<Arc<Status>>| axum::Json(s.json())))
        .route("/metrics", get(metrics_page))
        .route("/suggested-rules", get(suggested_rules))
        .with_state(status)
}

async fn ready(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    match status.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".into()),
        Err(obstacles) => (StatusCode::SERVICE_UNAVAILABLE, obstacles.join("\n") + "\n"),
    }
}

async fn metrics_page(State(status): State<Arc<Status>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], metrics::page(&status).text())
}

async fn suggested_rules(State(status): State<Arc<Status>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/yaml")], status.suggested_rules())
}

/// Access to the pages.
///
/// # Errors
/// With the file that can't be used.
pub(super) fn access(config: &AdminConfig) -> Result<Arc<Access>, StartError> {
    let right = |method: &_, path: &str| match path {
        "/healthz" | "/readyz" => None,
        path if debug_pages::is_operation(method, path) => Some(Right::Operate),
        _ => Some(Right::Read),
    };
    let access = Access::http("admin.listen", &config.listen, &config.access(), right);
    access.map_err(|e| system_error("admin")(io::Error::other(e)))
}

impl Admin {
    /// Serves the pages on a thread of their own.
    ///
    /// # Errors
    /// When the address can't be bound or the thread can't be started.
    pub(super) fn start(listen: &ListenAddress, status: Arc<Status>) -> io::Result<Self> {
        let listener = bind("admin.listen", listen)?;
        let addr = listener.address()?.tcp();
        let addr = addr.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into());
        let access = Arc::clone(&status.access);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shutdown = Arc::new(Notify::new());
        let requested = Arc::clone(&shutdown);
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async {
                let serve = async {
                    let routes = routes(status).layer(AccessLayer::http(Arc::clone(&access)));
                    let routes = routes.into_make_service_with_connect_info::<PeerInfo>();
                    axum::serve(DoorListener::new(listener, access)?, routes).await
                };
                tokio::select! {
                    served = serve => if let Err(error) = served {
                        tracing::error!(
                            %addr, %error,
                            "admin server failed; /status and /metrics are unavailable"
                        );
                    },
                    () = requested.notified() => {}
                }
            });
        })?;
        Ok(Self { addr, shutdown, thread: Some(thread) })
    }

    /// Ends the server and waits for its thread.
    pub(super) fn shutdown(&mut self) {
        self.shutdown.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
