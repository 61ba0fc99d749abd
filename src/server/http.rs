//! JSON over HTTP, for people, scripts and web pages.

use std::io;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::{Answer, PageRequest};
use super::query_line::QueryError;
use super::shared::Shared;
use super::storage::{Filter, MatchingBatch};
use tapio_core::event::{IncidentView, LinkedStory, Severity, TraceId, rfc3339};
use tapio_wire::{Batch, Item, decoded_json};

/// The token of the next page; absent on the last one.
const NEXT_PAGE_TOKEN: HeaderName = HeaderName::from_static("tapio-next-page-token");
/// The time since which the pages so far are complete, RFC 3339.
const COMPLETE_SINCE: HeaderName = HeaderName::from_static("tapio-complete-since");

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/v1/stories", get(stories))
        .route("/api/v1/stories/{id}", get(story))
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/incidents/{id}", get(incident))
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

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let text = error.to_string();
        let status = match error {
            QueryError::Invalid(_) => StatusCode::BAD_REQUEST,
            QueryError::Busy => StatusCode::SERVICE_UNAVAILABLE,
            QueryError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, text)
    }
}

/// The query string of a list.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ListQuery {
    limit: u32,
    page_token: String,
    since: String,
    until: String,
    severity: String,
    pattern: String,
    trace_id: String,
    node: String,
    kind: String,
    /// As `key=value`.
    entity: String,
    text: String,
    id_prefix: String,
}

impl ListQuery {
    fn request(self) -> Result<PageRequest, QueryError> {
        let trace_id = match self.trace_id.as_str() {
            "" => Vec::new(),
            text => {
                let id: Result<TraceId, _> = text.parse();
                id.map_err(|e| QueryError::Invalid(format!("trace_id: {e}")))?.0.to_vec()
            }
        };
        let filter = Filter {
            since_ns: parse_time("since", &self.since).map_err(QueryError::Invalid)?,
            until_ns: parse_time("until", &self.until).map_err(QueryError::Invalid)?,
            severity: parse_severity(&self.severity).map_err(QueryError::Invalid)?,
            pattern: self.pattern,
            trace_id,
            node: self.node,
            kind: self.kind,
            entity: self.entity,
            text: self.text,
            id_prefix: self.id_prefix,
        };
        Ok(PageRequest { filter, limit: self.limit, page_token: self.page_token })
    }
}

/// Parses a time: RFC 3339, or nanoseconds since the Unix epoch; empty for 0.
fn parse_time(name: &str, text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let time: Option<jiff::Timestamp> = text.parse().ok();
    let parsed = match time {
        Some(time) => u64::try_from(time.as_nanosecond()).ok(),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| {
        format!("{name}: {text:?} isn't an RFC 3339 time or nanoseconds since the Unix epoch")
    })
}

fn parse_severity(text: &str) -> Result<Severity, String> {
    if text.is_empty() {
        return Ok(Severity(0));
    }
    Severity::parse(text).ok_or_else(|| {
        format!("severity: {text:?} isn't a severity, such as \"warn\", or a number from 0 to 24")
    })
}

/// A page as a JSON array; the token of the next one and the time since which the answer is
/// complete are in headers.
fn list(answer: Answer<Vec<u8>>) -> Response {
    let complete_since = rfc3339(answer.complete_since_ns);
    let mut response = ([(CONTENT_TYPE, "application/json")], answer.items).into_response();
    let mut add = |name, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().insert(name, value);
        }
    };
    add(COMPLETE_SINCE, complete_since);
    if !answer.next_page_token.is_empty() {
        add(NEXT_PAGE_TOKEN, answer.next_page_token);
    }
    response
}

fn array(items: impl Iterator<Item = Value>) -> io::Result<Vec<u8>> {
    serde_json::to_vec(&items.collect::<Vec<_>>()).map_err(io::Error::from)
}

/// The answer with one item; 404 without one.
fn one(found: Option<Value>, what: &str, id: TraceId) -> Result<Json<Value>, Failure> {
    let missing = || Failure(StatusCode::NOT_FOUND, format!("no {what} {id}"));
    found.map(Json).ok_or_else(missing)
}

/// Lists stories, last updated first.
async fn stories(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let render = |stories: &[LinkedStory]| array(stories.iter().map(LinkedStory::json));
    Ok(list(shared.stories(query.request()?, render).await?))
}

/// Lists incidents, last updated first.
async fn incidents(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let render = |incidents: &[IncidentView]| array(incidents.iter().map(IncidentView::json));
    Ok(list(shared.incidents(query.request()?, render).await?))
}

async fn incident(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let id = parse_id(&id)?;
    let found = shared.incident(id).await?;
    one(found.map(|incident| incident.json()), "incident with story", id)
}

fn parse_id(id: &str) -> Result<TraceId, Failure> {
    id.parse().map_err(|e| Failure(StatusCode::BAD_REQUEST, format!("story id: {e}")))
}

async fn story(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let id = parse_id(&id)?;
    let found = shared.story(id).await?;
    one(found.map(|story| story.json()), "story", id)
}

/// Lists events, newest first.
async fn events(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let render = |found: &[MatchingBatch]| {
        let mut events = Vec::new();
        for found in found {
            append_json(found, &mut events).map_err(io::Error::other)?;
        }
        serde_json::to_vec(&events).map_err(io::Error::from)
    };
    Ok(list(shared.events(query.request()?, render).await?))
}

/// Appends the events of a batch, newest first. In the place of an event that can't be decoded
/// stands an object with the error.
fn append_json(found: &MatchingBatch, out: &mut Vec<Value>) -> Result<(), tapio_wire::WireError> {
    let batch = Batch::parse(&found.batch).map_err(|(_, error)| error)?;
    let mut decoder = batch.display_decoder();
    let first = out.len();
    for item in batch.items() {
        if let Item::Event(raw) = item {
            out.push(match decoder.event(raw) {
                Ok(decoded) => decoded_json(&batch, &decoded),
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

/// Ready unless the disk refused the last batch, or the server stops.
async fn ready(State(shared): State<Arc<Shared>>) -> Result<&'static str, Failure> {
    let health = *shared.health.borrow();
    match health.obstacle() {
        Some(cause) => Err(Failure(StatusCode::SERVICE_UNAVAILABLE, cause.to_owned())),
        None => Ok("ready\n"),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], shared.metrics().text())
}
