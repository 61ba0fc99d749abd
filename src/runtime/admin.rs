//! The agent's own pages on a loopback port: `/healthz`, `/readyz`, `/status`, `/metrics`,
//! `/suggested-rules`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::Notify;

use super::status::Status;

/// The running pages.
pub(super) struct Admin {
    /// Where they are.
    pub(super) addr: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

fn routes(status: Status) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/status", get(async |State(s): State<Arc<Status>>| axum::Json(s.json())))
        .route("/metrics", get(metrics))
        .route("/suggested-rules", get(suggested_rules))
        .with_state(Arc::new(status))
}

async fn ready(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    match status.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], status.metrics())
}

async fn suggested_rules(State(status): State<Arc<Status>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/yaml")], status.suggested_rules())
}

impl Admin {
    /// Serves the pages on a thread of their own.
    ///
    /// # Errors
    /// When the address can't be had or the system gives no thread.
    pub(super) fn start(listen: SocketAddr, status: Status) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)
            .map_err(|e| io::Error::new(e.kind(), format!("{listen}: {e}")))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = Arc::new(Notify::new());
        let theirs = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async {
                let serve = async {
                    axum::serve(tokio::net::TcpListener::from_std(listener)?, routes(status)).await
                };
                tokio::select! {
                    ended = serve => if let Err(error) = ended {
                        tracing::error!(%error, "the admin pages failed");
                    },
                    () = theirs.notified() => {}
                }
            });
        })?;
        Ok(Self { addr, stop, thread: Some(thread) })
    }

    /// Ends the pages.
    pub(super) fn stop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
