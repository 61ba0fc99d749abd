//! One story, its events, its entities, and the evidence for its root cause.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::{Value, json};

use super::super::annotations::Annotations;
use super::super::query::{MAX_LIMIT, PageRequest};
use super::super::query_line::QueryError;
use super::super::shared::Shared;
use super::super::storage::Filter;
use super::graph::{graph_json, graph_of};
use super::list_query::{ListQuery, parse_id};
use super::page_json::{self, event_array, page};
use super::problem::Problem;
use tapio_core::clock;
use tapio_core::event::{Candidate, LinkedStory, TraceId, rfc3339};
use tapio_wire::annotated_json;
use tapio_wire::proto::StoryGraph;

/// The id in a path.
pub(super) struct StoryId(pub(super) TraceId);

impl<S: Send + Sync> FromRequestParts<S> for StoryId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|e| Problem::parameter("id", e.body_text()))?;
        parse_id(&id).map(Self).map_err(|cause| Problem::parameter("id", cause))
    }
}

/// The story with this id.
async fn find(shared: &Shared, id: TraceId) -> Result<LinkedStory, Problem> {
    shared.story(id).await?.ok_or_else(|| Problem::missing("story", id))
}

pub(super) async fn story(
    State(shared): State<Arc<Shared>>,
    StoryId(id): StoryId,
) -> Result<Json<Value>, Problem> {
    let linked = find(&shared, id).await?;
    Ok(Json(annotated(&shared.annotations(), &linked)))
}

/// A story as JSON, with its annotations and the silence that it falls under, if it has any.
pub(super) fn annotated(annotations: &Annotations, linked: &LinkedStory) -> Value {
    let (of_story, silence) = annotations.of(linked, clock::wall_ns());
    annotated_json(linked, of_story.as_ref(), silence.as_ref())
}

/// The incident of which one story has this id.
pub(super) async fn incident(
    State(shared): State<Arc<Shared>>,
    StoryId(id): StoryId,
) -> Result<Json<Value>, Problem> {
    let found = shared.incident(id).await?;
    let incident = found.ok_or_else(|| Problem::missing("incident with story", id))?;
    Ok(Json(incident.json()))
}

/// The stored events of the story's trace, newest first.
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    StoryId(id): StoryId,
    ListQuery(mut request): ListQuery,
) -> Result<Response, Problem> {
    let linked = find(&shared, id).await?;
    if !request.filter.trace_id.is_empty() {
        return Err(Problem::parameter("trace_id", "is that of the story here"));
    }
    of_story(&mut request.filter, &linked);
    Ok(page(shared.events(request, event_array).await?))
}

/// Restricts a filter to the events of a story. Times restrict it further: the segments to read.
fn of_story(filter: &mut Filter, linked: &LinkedStory) {
    let story = &linked.story;
    filter.trace_id = story.trace_id.0.to_vec();
    let parts = linked.parts.iter();
    let first_ns = parts.clone().map(|part| part.first_ns).min().unwrap_or(story.first_ns);
    let last_ns = parts.map(|part| part.last_ns).max().unwrap_or(story.last_ns);
    filter.since_ns = filter.since_ns.max(first_ns);
    let end_ns = last_ns.max(story.last_ns).saturating_add(1);
    filter.until_ns = if filter.until_ns == 0 { end_ns } else { filter.until_ns.min(end_ns) };
}

/// The entities of the story's events and their relations.
pub(super) async fn graph(
    State(shared): State<Arc<Shared>>,
    StoryId(id): StoryId,
) -> Result<Json<Value>, Problem> {
    let graph = story_graph(&shared, id).await?;
    Ok(Json(graph_json(&graph.ok_or_else(|| Problem::missing("story", id))?)))
}

/// The entities of a story's stored events and their relations; `None`: there is no such story.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn story_graph(
    shared: &Shared,
    id: TraceId,
) -> Result<Option<StoryGraph>, QueryError> {
    let Some(linked) = shared.story(id).await? else { return Ok(None) };
    let mut request = PageRequest { limit: MAX_LIMIT as u32, ..PageRequest::default() };
    of_story(&mut request.filter, &linked);
    let story = linked.story;
    let render = move |found: &[_]| Ok(graph_of(&story, &page_json::events(found)?));
    Ok(Some(shared.events(request, render).await?.items))
}

/// The candidates for the story's root cause with every term of their scores.
pub(super) async fn explain(
    State(shared): State<Arc<Shared>>,
    StoryId(id): StoryId,
) -> Result<Json<Value>, Problem> {
    Ok(Json(explanation_json(&find(&shared, id).await?)))
}

/// The candidates for a story's root cause, with every term of their scores.
pub(crate) fn explanation_json(linked: &LinkedStory) -> Value {
    let story = &linked.story;
    let next_score = |rank: usize| story.root_cause.get(rank + 1).map(|next| next.score);
    let candidates = story.root_cause.iter().enumerate();
    let candidates: Vec<Value> =
        candidates.map(|(rank, one)| candidate_json(rank, one, next_score(rank))).collect();
    json!({
        "id": story.id.to_string(),
        "name": story.name,
        "confidence": story.confidence,
        "first": rfc3339(story.first_ns),
        "candidates": candidates,
        "impact": story.impact,
        "links": linked.json()["links"],
    })
}

/// `odds`: how many times as likely as the next candidate it is.
fn candidate_json(rank: usize, candidate: &Candidate, next_score: Option<f64>) -> Value {
    let mut terms = candidate.terms.clone();
    terms.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    let evidence = candidate.evidence.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "rank": rank + 1,
        "cause": candidate.cause,
        "entity": candidate.entity.as_ref().map(|entity| json!({
            "kind": entity.kind,
            "name": entity.name,
            "id": entity.id,
            "node": entity.node,
        })),
        "score": candidate.score,
        "odds": next_score.map(|next| (candidate.score - next).exp()).filter(|n| n.is_finite()),
        "evidence": evidence,
        "terms": terms,
    })
}
