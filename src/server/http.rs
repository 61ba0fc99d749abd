//! JSON over HTTP, for people, scripts and web pages.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::metrics;
use super::query::limit;
use super::shared::Shared;
use super::storage::{EventFilter, MatchingBatch, StoryFilter};
use tapio_core::event::TraceId;
use tapio_wire::{Batch, Item, decoded_json};

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/v1/stories", get(stories))
        .route("/api/v1/stories/{id}", get(story))
        .route("/api/v1/events", get(events))
        .route("/api/v1/stats", get(status))
        .route("/status", get(status))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

/// Error response: status and cause.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

fn internal(cause: String) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, cause)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct StoriesQuery {
    limit: u32,
    pattern: String,
    node: String,
}

async fn stories(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<StoriesQuery>,
) -> Result<Json<Vec<Value>>, Failure> {
    let filter = StoryFilter { pattern: query.pattern, node: query.node, ..StoryFilter::default() };
    let stories = shared.stories(&filter, limit(query.limit)).await.map_err(internal)?;
    Ok(Json(stories.iter().map(|story| story.json()).collect()))
}

async fn story(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let id: TraceId =
        id.parse().map_err(|e| Failure(StatusCode::BAD_REQUEST, format!("story id: {e}")))?;
    let found = shared.story(id.0).await.map_err(internal)?;
    found
        .map(|story| Json(story.json()))
        .ok_or_else(|| Failure(StatusCode::NOT_FOUND, format!("no story {id}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct EventsQuery {
    limit: u32,
    kind: String,
    trace_id: String,
    node: String,
    /// As `key=value`.
    entity: String,
}

/// Lists events, newest first.
async fn events(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<Vec<Value>>, Failure> {
    let trace_id = match query.trace_id.as_str() {
        "" => Vec::new(),
        text => {
            let id: Result<TraceId, _> = text.parse();
            id.map_err(|e| Failure(StatusCode::BAD_REQUEST, format!("trace_id: {e}")))?.0.to_vec()
        }
    };
    let filter = EventFilter { kind: query.kind, trace_id, node: query.node, entity: query.entity };
    let found = shared.events(filter, limit(query.limit)).await.map_err(internal)?;
    let mut out = Vec::new();
    for found in &found {
        append_json(found, &mut out).map_err(|e| internal(e.to_string()))?;
    }
    Ok(Json(out))
}

/// Appends the matching events of a batch, newest first. In the place of an event that can't be
/// decoded stands an object with the error.
fn append_json(found: &MatchingBatch, out: &mut Vec<Value>) -> Result<(), tapio_wire::WireError> {
    let batch = Batch::parse(&found.batch).map_err(|(_, error)| error)?;
    let mut decoder = batch.decoder()?;
    let first = out.len();
    let raw_events = batch.items().filter_map(|item| match item {
        Item::Event(event) => Some(event),
        Item::Story(_) => None,
    });
    for (position, raw) in raw_events.enumerate() {
        if found.positions.binary_search(&position).is_ok() {
            out.push(match decoder.event(raw) {
                Ok(decoded) => decoded_json(&decoded),
                Err(error) => json!({"error": error.to_string()}),
            });
        }
    }
    out[first..].reverse();
    Ok(())
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.status()).into_response()
}

/// Ready unless the disk refused the last batch.
async fn ready(State(shared): State<Arc<Shared>>) -> Result<&'static str, Failure> {
    if shared.stats().counts.disk_failing {
        let cause = "storage: the disk refuses writes".to_owned();
        return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, cause));
    }
    Ok("ready\n")
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let page = metrics::page(&shared.status(), &shared.delays());
    ([(CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], page)
}
