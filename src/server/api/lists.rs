//! Stories, incidents and events, in pages.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::super::shared::Shared;
use super::list_query::ListQuery;
use super::page_json::{array, event_array, page};
use super::problem::Problem;
use super::story::annotated;
use tapio_core::event::{IncidentView, LinkedStory};

/// Lists stories, last updated first.
pub(super) async fn stories(
    State(shared): State<Arc<Shared>>,
    ListQuery(request): ListQuery,
) -> Result<Response, Problem> {
    let of_shared = Arc::clone(&shared);
    let render = move |stories: &[LinkedStory]| {
        let annotations = of_shared.annotations();
        array(stories.iter().map(|story| annotated(&annotations, story)))
    };
    Ok(page(shared.stories(request, render).await?))
}

/// Lists incidents, last updated first.
pub(super) async fn incidents(
    State(shared): State<Arc<Shared>>,
    ListQuery(request): ListQuery,
) -> Result<Response, Problem> {
    let render = |incidents: &[IncidentView]| array(incidents.iter().map(IncidentView::json));
    Ok(page(shared.incidents(request, render).await?))
}

/// Lists events, newest first.
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    ListQuery(request): ListQuery,
) -> Result<Response, Problem> {
    Ok(page(shared.events(request, event_array).await?))
}
