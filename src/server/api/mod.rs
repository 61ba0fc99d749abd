//! JSON over HTTP, for people, scripts and web pages: `/api/v1/`. docs/queries.md describes it, and
//! `/openapi.json` does for programs.
//!
//! | file | purpose |
//! | --- | --- |
//! | `list_query.rs` | the query string of a list |
//! | `lists.rs` | stories, incidents, events |
//! | `story.rs` | one story: its events, its graph, its explanation |
//! | `graph.rs` | the entities of a story and how they are related |
//! | `entities.rs` | one entity: its stories and events |
//! | `agents.rs` | the agents |
//! | `rules.rs` | the rules in words, with the number of stories of each |
//! | `annotate.rs` | annotates stories, silences rules |
//! | `annotations.rs` | what was annotated |
//! | `stream.rs` | stories and events as they are stored |
//! | `page_json.rs` | the envelope of a page |
//! | `openapi.rs` | the description of the API |
//! | `problem.rs` | errors |

mod agents;
mod annotate;
mod annotations;
mod entities;
mod graph;
mod list_query;
mod lists;
mod openapi;
mod page_json;
mod problem;
mod rules;
mod story;
mod stream;

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Json, Router};

use super::shared::Shared;
use super::status::ServerStatus;

pub(super) use list_query::page_request;
pub(super) use problem::{Problem, no_such_method, no_such_path};
pub(super) use rules::listed_rules;
pub(super) use story::{explanation_json, story_graph};

type Route = (&'static str, fn() -> MethodRouter<Arc<Shared>>);

/// Every path of the API. `/openapi.json` describes each of them but the stream, whose response has
/// no end: a client that is driven by the description would wait for it.
const ROUTES: &[Route] = &[
    ("/api/v1/stories", || get(lists::stories)),
    ("/api/v1/stories/{id}", || get(story::story)),
    ("/api/v1/stories/{id}/events", || get(story::events)),
    ("/api/v1/stories/{id}/graph", || get(story::graph)),
    ("/api/v1/stories/{id}/explain", || get(story::explain)),
    ("/api/v1/stories/{id}/acknowledgement", || {
        put(annotate::acknowledge).delete(annotate::unacknowledge)
    }),
    ("/api/v1/stories/{id}/notes", || post(annotate::note)),
    ("/api/v1/stories/{id}/wrong-cause", || {
        put(annotate::wrong_cause).delete(annotate::unmark_cause)
    }),
    ("/api/v1/stories/{id}/right-cause", || {
        put(annotate::right_cause).delete(annotate::unmark_cause)
    }),
    ("/api/v1/silences", || get(annotate::silences).post(annotate::silence)),
    ("/api/v1/silences/{id}", || delete(annotate::unsilence)),
    ("/api/v1/annotations", || get(annotations::annotations)),
    ("/api/v1/incidents", || get(lists::incidents)),
    ("/api/v1/incidents/{id}", || get(story::incident)),
    ("/api/v1/events", || get(lists::events)),
    ("/api/v1/entities/{id}", || get(entities::entity)),
    ("/api/v1/agents", || get(agents::agents)),
    ("/api/v1/agents/{node}", || get(agents::agent)),
    ("/api/v1/rules", || get(rules::rules)),
    ("/api/v1/stream", || get(stream::stream)),
    ("/api/v1/stats", || get(stats)),
    ("/openapi.json", || get(openapi::document)),
];

pub(super) fn routes() -> Router<Arc<Shared>> {
    ROUTES.iter().fold(Router::new(), |router, (path, handler)| router.route(path, handler()))
}

/// The counters of the server.
pub(super) async fn stats(State(shared): State<Arc<Shared>>) -> Json<ServerStatus> {
    Json(shared.status())
}
