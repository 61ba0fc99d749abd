//! The listener for HTTP: the page, the API, `/mcp`, health checks and metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::api::{self, Problem};
use super::mcp;
use super::page;
use super::shared::Shared;

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .merge(api::routes())
        .merge(mcp::routes())
        .merge(page::routes())
        .route("/status", get(api::stats))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(api::no_such_path)
        .method_not_allowed_fallback(api::no_such_method)
        .with_state(shared)
}

/// Ready unless the disk refused the last batch, or the server stops.
async fn ready(State(shared): State<Arc<Shared>>) -> Result<&'static str, Problem> {
    let health = *shared.health.borrow();
    match health.obstacle() {
        Some(cause) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, cause)),
        None => Ok("ready\n"),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], shared.metrics().text())
}
