//! JSON over HTTP, for people, scripts and pages.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::limit;
use super::store::{Filter, Found, StoryFilter};
use super::{Shared, metrics};
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

/// A request that can't be answered, and why.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
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
    Query(asked): Query<StoriesQuery>,
) -> Json<Vec<Value>> {
    let filter = StoryFilter { pattern: asked.pattern, node: asked.node, ..StoryFilter::default() };
    let stories = shared.store().stories(limit(asked.limit), &filter);
    Json(stories.iter().map(|story| story.json()).collect())
}

async fn story(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let id: TraceId =
        id.parse().map_err(|e| Refused(StatusCode::BAD_REQUEST, format!("story id: {e}")))?;
    let found = shared.store().story(id.0);
    found
        .map(|story| Json(story.json()))
        .ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("no story {id}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct EventsQuery {
    limit: u32,
    kind: String,
    trace_id: String,
    node: String,
}

/// The latest events first.
async fn events(
    State(shared): State<Arc<Shared>>,
    Query(asked): Query<EventsQuery>,
) -> Result<Json<Vec<Value>>, Refused> {
    let trace_id = match asked.trace_id.as_str() {
        "" => Vec::new(),
        text => {
            let id: Result<TraceId, _> = text.parse();
            id.map_err(|e| Refused(StatusCode::BAD_REQUEST, format!("trace_id: {e}")))?.0.to_vec()
        }
    };
    let filter = Filter { kind: asked.kind, trace_id, node: asked.node };
    let found = shared
        .latest(filter, limit(asked.limit))
        .await
        .map_err(|e| Refused(StatusCode::INTERNAL_SERVER_ERROR, e))?;
    let mut out = Vec::new();
    for found in &found {
        append_json(found, &mut out)
            .map_err(|e| Refused(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    }
    Ok(Json(out))
}

/// A batch's wanted events, the last first. One that can't be decoded says so in its place.
fn append_json(found: &Found, out: &mut Vec<Value>) -> Result<(), tapio_wire::WireError> {
    let batch = Batch::parse(&found.batch).map_err(|(_, error)| error)?;
    let mut decoder = batch.decoder()?;
    let first = out.len();
    let raw_events = batch.items().filter_map(|item| match item {
        Item::Event(event) => Some(event),
        Item::Story(_) => None,
    });
    for (place, raw) in raw_events.enumerate() {
        if found.places.binary_search(&place).is_ok() {
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

/// Ready while the disk takes what comes.
async fn ready(State(shared): State<Arc<Shared>>) -> Result<&'static str, Refused> {
    if shared.stats().counts.disk_failing {
        let cause = "the disk doesn't take batches".to_owned();
        return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, cause));
    }
    Ok("ready\n")
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let page = metrics::page(&shared.status(), &shared.delays());
    ([(CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], page)
}
