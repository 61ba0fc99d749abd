//! Annotations of stories, and silences. They change what the server keeps, so a request needs the
//! right to operate and the media type of JSON: a page of another origin can't send that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::annotations::{Action, Entry, Refusal};
use super::super::shared::Shared;
use super::problem::Problem;
use super::story::{StoryId, find};
use tapio_core::clock;
use tapio_core::event::stable_hash;
use tapio_wire::Identity;

/// Largest body.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Longest silence.
const MAX_SILENCE: Duration = Duration::from_secs(366 * 24 * 3600);

/// A body of JSON; an empty one is `{}`.
pub(super) struct JsonBody<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        let media_type = request.headers().get(CONTENT_TYPE).and_then(|t| t.to_str().ok());
        let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/json") {
            let cause = "the body must be application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, cause));
        }
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|e| Problem::new(e.status(), e.body_text()))?;
        if bytes.len() > MAX_BODY_BYTES {
            let cause = format!("{} bytes, at most {MAX_BODY_BYTES}", bytes.len());
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, cause));
        }
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let parsed = serde_json::from_slice(text);
        parsed.map(Self).map_err(|e| Problem::parameter("body", e.to_string()))
    }
}

/// `by`: the sender, where senders don't authenticate themselves.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Acknowledgement {
    #[serde(default)]
    by: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    text: String,
    #[serde(default)]
    by: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrongCause {
    /// The real cause, if it is known.
    #[serde(default)]
    cause: String,
    #[serde(default)]
    by: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Silence {
    rule: String,
    /// Names and values that the join key of a story has; empty: any.
    #[serde(default)]
    key: BTreeMap<String, String>,
    /// How long: `2h`.
    #[serde(rename = "for")]
    lasts: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    by: String,
}

/// The sender of a request, where senders authenticate themselves.
type Sender = Option<Extension<Arc<Identity>>>;

/// Keeps an action. An authenticated sender can't act under another name.
async fn add(
    shared: Arc<Shared>,
    action: Action,
    by: String,
    sender: Sender,
) -> Result<(), Problem> {
    let by = sender.map_or(by, |Extension(identity)| identity.to_string());
    let entry = Entry { time_ns: clock::wall_ns(), by, action };
    // The disk is waited for: not on the thread of ingest.
    let added = tokio::task::spawn_blocking(move || shared.annotations().add(entry)).await;
    let failed = |cause: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, cause);
    let added = added.map_err(|e| failed(e.to_string()))?;
    added.map_err(|e| failed(e.to_string()))?.map_err(|refusal| {
        let status = match refusal {
            Refusal::Text(_) => StatusCode::BAD_REQUEST,
            Refusal::TooMany(_) => StatusCode::CONFLICT,
            Refusal::NoSilence(_) => StatusCode::NOT_FOUND,
        };
        Problem::new(status, refusal.to_string())
    })
}

/// Keeps an action about a story. Returns the story's annotations.
async fn annotate(
    shared: Arc<Shared>,
    StoryId(id): StoryId,
    action: impl FnOnce(String) -> Action,
    by: String,
    sender: Sender,
) -> Result<Json<Value>, Problem> {
    // Its parts have annotations in common: those of the first one.
    let story = find(&shared, id).await?.story.id;
    add(Arc::clone(&shared), action(story.to_string()), by, sender).await?;
    let json = shared.annotations().marks().of_story([story].into_iter());
    Ok(Json(json.unwrap_or_else(|| json!({}))))
}

pub(super) async fn acknowledge(
    State(shared): State<Arc<Shared>>,
    sender: Sender,
    id: StoryId,
    JsonBody(body): JsonBody<Acknowledgement>,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, |story| Action::Acknowledge { story }, body.by, sender).await
}

pub(super) async fn unacknowledge(
    State(shared): State<Arc<Shared>>,
    sender: Sender,
    id: StoryId,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, |story| Action::Unacknowledge { story }, String::new(), sender).await
}

pub(super) async fn note(
    State(shared): State<Arc<Shared>>,
    sender: Sender,
    id: StoryId,
    JsonBody(Note { text, by }): JsonBody<Note>,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, |story| Action::Note { story, text }, by, sender).await
}

pub(super) async fn wrong_cause(
    State(shared): State<Arc<Shared>>,
    sender: Sender,
    id: StoryId,
    JsonBody(WrongCause { cause, by }): JsonBody<WrongCause>,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, |story| Action::WrongCause { story, cause }, by, sender).await
}

pub(super) async fn right_cause(
    State(shared): State<Arc<Shared>>,
    sender: Sender,
    id: StoryId,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, |story| Action::RightCause { story }, String::new(), sender).await
}

/// The silences in force.
pub(super) async fn silences(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"items": shared.annotations().marks().silences(clock::wall_ns())}))
}

pub(super) async fn silence(
    State(shared): State<Arc<Shared>>,
    sender: Sender,
    JsonBody(body): JsonBody<Silence>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Silence { rule, key, lasts, reason, by } = body;
    let lasts = tapio_core::durations::parse(&lasts);
    let lasts = lasts.map_err(|e| Problem::parameter("for", e.to_string()))?;
    if lasts.is_zero() || lasts > MAX_SILENCE {
        return Err(Problem::parameter("for", "must be greater than zero, and at most a year"));
    }
    if rule.is_empty() {
        return Err(Problem::parameter("rule", "is empty"));
    }
    let now_ns = clock::wall_ns();
    let until_ns = now_ns.saturating_add(lasts.as_nanos() as u64);
    let hash = stable_hash(&[&now_ns.to_be_bytes(), rule.as_bytes()]);
    let id: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let action = Action::Silence { id: id.clone(), rule, key, until_ns, reason };
    add(Arc::clone(&shared), action, by, sender).await?;
    let all = shared.annotations().marks().silences(now_ns);
    let added = all.into_iter().find(|one| one["id"] == id.as_str());
    Ok((StatusCode::CREATED, Json(added.unwrap_or_default())))
}

pub(super) async fn unsilence(
    State(shared): State<Arc<Shared>>,
    sender: Sender,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    add(shared, Action::Unsilence { id }, String::new(), sender).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Everything that was noted and is in force, oldest first: to be kept elsewhere, and to calibrate
/// the evidence by wrong causes.
pub(super) async fn annotations(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"items": shared.annotations().marks().entries()}))
}
