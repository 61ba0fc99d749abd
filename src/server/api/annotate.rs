//! Annotations of stories, and silences. A request needs the media type of JSON: a page of another
//! origin can't send that.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::annotations::Refusal;
use super::super::operate::{Mark, NewSilence, OperateError, Sender};
use super::super::shared::Shared;
use super::problem::Problem;
use super::story::StoryId;
use tapio_wire::{Identity, annotations_json, silence_json};

/// Largest body.
const MAX_BODY_BYTES: usize = 1024 * 1024;

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
        // Serde takes a list of the fields' values, too.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(Problem::parameter("body", "isn't a JSON object"));
        }
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
pub(super) struct RightCause {
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
type Authenticated = Option<Extension<Arc<Identity>>>;

fn sender(identity: Authenticated, by: String) -> Sender {
    Sender { identity: identity.map(|Extension(identity)| identity), by }
}

/// Keeps an action about a story. Returns the story's annotations.
async fn annotate(
    shared: Arc<Shared>,
    StoryId(id): StoryId,
    mark: Mark,
    sender: Sender,
) -> Result<Json<Value>, Problem> {
    Ok(Json(annotations_json(&shared.annotate(id, mark, sender).await?)))
}

pub(super) async fn acknowledge(
    State(shared): State<Arc<Shared>>,
    identity: Authenticated,
    id: StoryId,
    JsonBody(body): JsonBody<Acknowledgement>,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, Mark::Acknowledge, sender(identity, body.by)).await
}

pub(super) async fn unacknowledge(
    State(shared): State<Arc<Shared>>,
    identity: Authenticated,
    id: StoryId,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, Mark::Unacknowledge, sender(identity, String::new())).await
}

pub(super) async fn note(
    State(shared): State<Arc<Shared>>,
    identity: Authenticated,
    id: StoryId,
    JsonBody(Note { text, by }): JsonBody<Note>,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, Mark::Note(text), sender(identity, by)).await
}

pub(super) async fn wrong_cause(
    State(shared): State<Arc<Shared>>,
    identity: Authenticated,
    id: StoryId,
    JsonBody(WrongCause { cause, by }): JsonBody<WrongCause>,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, Mark::WrongCause(cause), sender(identity, by)).await
}

pub(super) async fn right_cause(
    State(shared): State<Arc<Shared>>,
    identity: Authenticated,
    id: StoryId,
    JsonBody(RightCause { by }): JsonBody<RightCause>,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, Mark::RightCause, sender(identity, by)).await
}

pub(super) async fn unmark_cause(
    State(shared): State<Arc<Shared>>,
    identity: Authenticated,
    id: StoryId,
) -> Result<Json<Value>, Problem> {
    annotate(shared, id, Mark::UnmarkCause, sender(identity, String::new())).await
}

/// The silences in force.
pub(super) async fn silences(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let silences: Vec<Value> = shared.silences().iter().map(silence_json).collect();
    Json(json!({"items": silences}))
}

pub(super) async fn silence(
    State(shared): State<Arc<Shared>>,
    identity: Authenticated,
    JsonBody(body): JsonBody<Silence>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Silence { rule, key, lasts, reason, by } = body;
    let lasts = tapio_core::durations::parse(&lasts);
    let lasts = lasts.map_err(|e| Problem::parameter("for", e.to_string()))?;
    let silence = NewSilence { rule, key, lasts, reason };
    let added = shared.silence(silence, sender(identity, by)).await?;
    Ok((StatusCode::CREATED, Json(silence_json(&added))))
}

pub(super) async fn unsilence(
    State(shared): State<Arc<Shared>>,
    identity: Authenticated,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    shared.unsilence(id, sender(identity, String::new())).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<OperateError> for Problem {
    fn from(error: OperateError) -> Self {
        let text = error.to_string();
        let status = match error {
            OperateError::Query(error) => return error.into(),
            OperateError::Invalid(error) => return error.into(),
            OperateError::NoStory(_) | OperateError::Refused(Refusal::NoSilence(_)) => {
                StatusCode::NOT_FOUND
            }
            OperateError::Refused(Refusal::Text(_)) => StatusCode::BAD_REQUEST,
            OperateError::Refused(Refusal::TooMany(_)) => StatusCode::CONFLICT,
            OperateError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, text)
    }
}
