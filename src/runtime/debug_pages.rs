//! The admin pages below `/debug`: the level of the log, the flight recorder, the status of the
//! last hour.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Json as JsonBody, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::operator::OPERATOR_HEADER;
use super::sections::RecorderConfig;
use super::status::Status;
use tapio_core::durations;

/// The longest time for which a change is in force.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// The events of the flight recorder.
const EVENTS: &str = "/debug/recorder/events";

/// Whether a request changes the agent, or reads events.
pub(super) fn is_operation(method: &Method, path: &str) -> bool {
    !matches!(*method, Method::GET | Method::HEAD) || path == EVENTS
}

pub(super) fn routes(status: &Arc<Status>) -> Router<Arc<Status>> {
    Router::new()
        .route("/debug/status", get(debug_status))
        .route("/debug/history", get(async |State(s): State<Arc<Status>>| s.debug.history.text()))
        .route("/debug/log-level", post(log_level))
        .route("/debug/recorder", post(recorder))
        .route(EVENTS, get(events))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(status), require_secret))
}

/// Refuses operations without the secret, where there is one.
async fn require_secret(
    State(status): State<Arc<Status>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if let Some(secret) = &status.debug.secret
        && is_operation(request.method(), request.uri().path())
    {
        let given = request.headers().get(OPERATOR_HEADER);
        if !given.is_some_and(|given| secret.is(given.as_bytes())) {
            let cause = format!("the header {OPERATOR_HEADER} must have the secret of state_dir");
            return Err(Refusal(StatusCode::FORBIDDEN, cause));
        }
    }
    Ok(next.run(request).await)
}

/// A refused request and its cause.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

fn bad(cause: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, cause.into())
}

/// Validates for how long a change is in force.
fn check_time(time: Option<Duration>) -> Result<(), Refusal> {
    match time {
        Some(time) if time.is_zero() || time > MAX_TIME => {
            Err(bad("for: must be greater than zero, and at most 365d"))
        }
        _ => Ok(()),
    }
}

async fn debug_status(State(status): State<Arc<Status>>) -> Json<Value> {
    Json(status.debug.json())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelRequest {
    /// The level; without one, the configured level.
    level: Option<String>,
    /// For how long; without it, until the process ends.
    #[serde(default, rename = "for", with = "durations::option")]
    time: Option<Duration>,
}

async fn log_level(
    State(status): State<Arc<Status>>,
    JsonBody(request): JsonBody<LevelRequest>,
) -> Result<Json<Value>, Refusal> {
    let log = status.debug.log.as_ref().ok_or_else(|| bad("this agent's log has no level"))?;
    check_time(request.time)?;
    match request.level {
        Some(level) => log.set_for(&level, request.time).map_err(bad)?,
        None => log.reset(),
    }
    Ok(Json(status.debug.json()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecorderRequest {
    /// Whether it runs.
    on: bool,
    /// For how long; without it, until it is switched off.
    #[serde(default, rename = "for", with = "durations::option")]
    time: Option<Duration>,
    /// The time for which events are kept.
    #[serde(default, with = "durations::option")]
    keep: Option<Duration>,
    /// The most memory, such as `64MiB`.
    bytes: Option<String>,
}

async fn recorder(
    State(status): State<Arc<Status>>,
    JsonBody(request): JsonBody<RecorderRequest>,
) -> Result<Json<Value>, Refusal> {
    let recorder = &status.debug.recorder;
    if !request.on {
        recorder.stop();
        return Ok(Json(status.debug.json()));
    }
    check_time(request.time)?;
    let mut config = RecorderConfig::default();
    config.keep = request.keep.unwrap_or(config.keep);
    if let Some(size) = &request.bytes {
        let bytes = tapio_core::sizes::parse(size).and_then(|bytes| usize::try_from(bytes).ok());
        config.bytes = bytes.ok_or_else(|| bad(format!("bytes: {size:?} is no size")))?;
    }
    config.check().map_err(bad)?;
    recorder.start(config.limits(), request.time);
    tracing::info!(keep = ?config.keep, time = ?request.time, "flight recorder switched on");
    Ok(Json(status.debug.json()))
}

/// The events as JSON lines in the format that `tapio replay` reads, a batch at a time.
async fn events(State(status): State<Arc<Status>>) -> impl IntoResponse {
    let batches = status.debug.recorder.batches();
    let lines = batches.map(|batch| Ok::<_, Infallible>(event_lines(&batch)));
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(tokio_stream::iter(lines)))
}

fn event_lines(batch: &[u8]) -> String {
    let (items, _) = tapio_wire::batch_json(batch).unwrap_or_default();
    let events = items.into_iter().filter(|(is_story, _)| !is_story);
    events
        .filter_map(|(_, event)| as_received(event))
        .flat_map(|line| [line, "\n".into()])
        .collect()
}

/// An event as it was before correlation: without the trace of its story.
fn as_received(event: Value) -> Option<String> {
    let Value::Object(event) = event else { return None };
    let is_correlated = event.contains_key("correlation");
    let mut line = Map::new();
    for (key, value) in event {
        match key.as_str() {
            "incoming_trace_id" => line.insert("trace_id".into(), value),
            "incoming_span_id" => line.insert("span_id".into(), value),
            "correlation" => None,
            "trace_id" | "span_id" if is_correlated || line.contains_key(&key) => None,
            _ => line.insert(key, value),
        };
    }
    Some(Value::from(line).to_string())
}
