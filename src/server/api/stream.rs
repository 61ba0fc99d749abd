//! `/api/v1/stream`: stories and events as they are stored, as server-sent events (WHATWG HTML).
//! The id of a message is the position behind its batch: a client that connects again with
//! `Last-Event-ID` gets what was stored since, from the log. Annotations aren't in the log: they
//! are sent as they are made, and not again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::super::annotations::Entry;
use super::super::follow::{parse_position, position_text};
use super::super::shared::Shared;
use super::super::tail_filter::TailFilter;
use super::list_query::{page_request, pairs};
use super::problem::Problem;
use crate::store::FramePosition;
use tapio_core::clock;
use tapio_wire::batch_json;

/// Messages queued for one client.
const QUEUED: usize = 64;
/// Interval at which a silent stream has a comment, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The parameter that selects the types of items.
const TYPES: &str = "types";
/// The types, as the parameter has them.
const EVENTS: &str = "events";
const STORIES: &str = "stories";
const ANNOTATIONS: &str = "annotations";
/// Parameters of lists that a stream doesn't have.
const OF_LISTS: [&str; 5] = ["limit", "page_token", "since", "until", "id_prefix"];

/// The stream that a client asks for.
pub(super) struct StreamRequest {
    filter: TailFilter,
    /// Whether annotations are sent: all of them, whatever the filter.
    annotations: bool,
    /// The position behind the last batch that it has.
    last: Option<FramePosition>,
}

impl<S: Sync> FromRequestParts<S> for StreamRequest {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let (types, filters): (Vec<_>, Vec<_>) =
            pairs(parts)?.into_iter().partition(|(name, _)| name == TYPES);
        let is_of_list = |(name, _): &&(String, String)| OF_LISTS.contains(&name.as_str());
        if let Some((name, _)) = filters.iter().find(is_of_list) {
            return Err(Problem::parameter(name, "has a meaning for lists only"));
        }
        let types = types.last().map_or(STORIES, |(_, types)| types.as_str());
        if let Some(other) =
            types.split(',').find(|one| ![EVENTS, STORIES, ANNOTATIONS].contains(one))
        {
            let cause = format!("{other:?} isn't {STORIES}, {EVENTS} or {ANNOTATIONS}");
            return Err(Problem::parameter(TYPES, cause));
        }
        let [events, stories, annotations] =
            [EVENTS, STORIES, ANNOTATIONS].map(|name| types.split(',').any(|one| one == name));
        let filter = page_request(&filters, clock::wall_ns())?.filter;
        filter.check()?;
        let header = parts.headers.get("last-event-id").and_then(|id| id.to_str().ok());
        let last = header.filter(|id| !id.is_empty()).map(|id| {
            parse_position(id).ok_or_else(|| {
                Problem::parameter("Last-Event-ID", "isn't an id that this server has sent")
            })
        });
        let filter = TailFilter { events, stories, filter };
        Ok(Self { filter, annotations, last: last.transpose()? })
    }
}

type Messages = mpsc::Sender<Result<Event, Infallible>>;

pub(super) async fn stream(
    State(shared): State<Arc<Shared>>,
    request: StreamRequest,
) -> Result<impl IntoResponse, Problem> {
    let busy = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many streams are open");
    let place = shared.enter_stream().ok_or_else(busy)?;
    let (to, messages) = mpsc::channel(QUEUED);
    // Before the response: what is noted once a client has it is sent.
    let annotated = request.annotations.then(|| shared.annotated.subscribe());
    tokio::spawn(async move {
        tokio::select! {
            () = to.closed() => {}
            () = follow(shared, request, &to, place) => {}
            () = send_annotations(annotated, &to) => {}
        }
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(ReceiverStream::new(messages)).keep_alive(keep_alive))
}

/// Sends what is stored after a position, and then what will be.
async fn follow(
    shared: Arc<Shared>,
    request: StreamRequest,
    to: &Messages,
    _place: OwnedSemaphorePermit,
) {
    let mut filter = request.filter;
    shared.resolve_pattern(&mut filter.filter);
    let stories_only = !filter.events;
    let render = Arc::new(move |bytes: &[u8]| items(&filter, bytes));
    let mut follower = shared.follow(request.last, stories_only, render);
    if follower.has_gap() {
        let gap = json!({"detail": "the position of Last-Event-ID isn't stored any more"});
        if send(to, message("gap", &gap, None)).await.is_err() {
            return;
        }
    }
    // After an error the client connects again, with its last id.
    while let Ok(Some(followed)) = follower.next().await {
        for (items, at) in followed.items {
            if send_all(to, items, at).await.is_err() {
                return;
            }
        }
    }
}

/// Sends what operators note, until the client is gone. Without a receiver it never ends.
async fn send_annotations(annotated: Option<Receiver<Arc<Entry>>>, to: &Messages) {
    let Some(mut annotated) = annotated else { return std::future::pending().await };
    loop {
        let message = match annotated.recv().await {
            Ok(entry) => message("annotation", &json!(*entry), None),
            Err(RecvError::Lagged(missed)) => {
                message("gap", &json!({"detail": format!("missed {missed} annotations")}), None)
            }
            Err(RecvError::Closed) => return,
        };
        if send(to, message).await.is_err() {
            return;
        }
    }
}

/// The matching items of a batch; `true` marks a story.
fn items(filter: &TailFilter, batch: &[u8]) -> Option<Vec<(bool, Value)>> {
    let matching = filter.apply(batch)?;
    batch_json(&matching.encode_to_vec()).map(|(items, _)| items).ok()
}

fn message(event: &str, data: &Value, id: Option<String>) -> Event {
    let message = Event::default().event(event).data(data.to_string());
    match id {
        Some(id) => message.id(id),
        None => message,
    }
}

async fn send(to: &Messages, message: Event) -> Result<(), ()> {
    to.send(Ok(message)).await.map_err(drop)
}

/// Sends items. The last one has the id: a client that has only some of them gets all of them
/// again.
async fn send_all(to: &Messages, items: Vec<(bool, Value)>, at: FramePosition) -> Result<(), ()> {
    let count = items.len();
    for (number, (is_story, item)) in (1..).zip(items) {
        let event = if is_story { "story" } else { "event" };
        let id = (number == count).then(|| position_text(at));
        send(to, message(event, &item, id)).await?;
    }
    Ok(())
}
