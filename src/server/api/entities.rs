//! One entity, as `key=value`: its latest stories and events.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde_json::{Value, json};

use super::super::query::PageRequest;
use super::super::shared::Shared;
use super::super::storage::Filter;
use super::list_query::ListQuery;
use super::page_json::events;
use super::problem::Problem;
use super::story::annotated;
use tapio_core::event::LinkedStory;

/// The entity in a path.
pub(super) struct EntityId(String);

impl<S: Send + Sync> FromRequestParts<S> for EntityId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|e| Problem::parameter("id", e.body_text()))?;
        let filter = Filter { entities: vec![id.clone()], ..Filter::default() };
        let checked = filter.check().map_err(|e| Problem::parameter("id", e.cause));
        checked.map(|()| Self(id))
    }
}

/// The latest stories about the entity, and its latest events.
pub(super) async fn entity(
    State(shared): State<Arc<Shared>>,
    EntityId(id): EntityId,
    ListQuery(mut request): ListQuery,
) -> Result<Json<Value>, Problem> {
    if !request.page_token.is_empty() {
        return Err(Problem::parameter("page_token", "has a meaning for lists only"));
    }
    request.filter.entities.push(id.clone());
    let of_events = PageRequest {
        filter: Filter { state: None, id_prefix: String::new(), ..request.filter.clone() },
        limit: request.limit,
        page_token: String::new(),
    };
    let of_shared = Arc::clone(&shared);
    let render = move |stories: &[LinkedStory]| {
        let annotations = of_shared.annotations();
        Ok(stories.iter().map(|story| annotated(&annotations, story)).collect())
    };
    let stories: Vec<Value> = shared.stories(request, render).await?.items;
    let events = shared.events(of_events, events).await?.items;
    Ok(Json(json!({"id": id, "stories": stories, "events": events})))
}
