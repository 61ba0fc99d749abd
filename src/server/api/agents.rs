//! The agents, with the status that each has reported of itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde_json::{Value, json};

use super::super::agent_query::AgentRequest;
use super::super::shared::Shared;
use super::super::storage::InvalidParameter;
use super::list_query::{pairs, parse_limit};
use super::problem::Problem;
use tapio_core::clock;
use tapio_wire::agent_json;

/// The parameters of the list.
const PARAMETERS: [&str; 3] = ["limit", "page_token", "node"];

/// Longest name of a node, in characters.
const MAX_NODE_CHARS: usize = 255;

/// The page of agents that a request asks for.
pub(super) struct AgentQuery(AgentRequest);

impl<S: Sync> FromRequestParts<S> for AgentQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(parse(&pairs(parts)?)?))
    }
}

fn parse(pairs: &[(String, String)]) -> Result<AgentRequest, InvalidParameter> {
    let mut request = AgentRequest::default();
    for (at, (name, value)) in pairs.iter().enumerate() {
        let Some(name) = PARAMETERS.into_iter().find(|known| *known == name) else {
            let cause = format!("unknown parameter {name:?}; known: {}", PARAMETERS.join(", "));
            return Err(InvalidParameter { name: "query", cause });
        };
        let invalid = |cause: &str| InvalidParameter { name, cause: cause.to_owned() };
        if pairs[..at].iter().any(|(other, _)| other == name) {
            return Err(invalid("given twice"));
        }
        if value.is_empty() {
            return Err(invalid("is empty"));
        }
        match name {
            "limit" => request.limit = parse_limit(value).map_err(|cause| invalid(&cause))?,
            "page_token" => value.clone_into(&mut request.page_token),
            _ if value.chars().count() > MAX_NODE_CHARS => return Err(invalid("is too long")),
            _ => value.clone_into(&mut request.node),
        }
    }
    Ok(request)
}

/// Lists agents, in the order of their nodes.
pub(super) async fn agents(
    State(shared): State<Arc<Shared>>,
    AgentQuery(request): AgentQuery,
) -> Result<Json<Value>, Problem> {
    let page = shared.list_agents(&request)?;
    let items: Vec<Value> = page.agents.iter().map(agent_json).collect();
    let token = Some(page.next_page_token).filter(|token| !token.is_empty());
    Ok(Json(json!({"items": items, "next_page_token": token, "complete_since": null})))
}

/// The agent of a node.
pub(super) async fn agent(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(node) = path.map_err(|e| Problem::parameter("node", e.body_text()))?;
    let agent = shared.agents().get(&node, clock::wall_ns());
    let agent = agent.ok_or_else(|| Problem::missing("agent of node", format!("{node:?}")))?;
    Ok(Json(agent_json(&agent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_checked() {
        let parse = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
            parse(&pairs).map_err(|e| e.to_string())
        };
        let request = parse(&[("limit", "3"), ("node", "n"), ("page_token", "61")]).unwrap();
        assert_eq!((request.limit, &*request.node, &*request.page_token), (3, "n", "61"));
        for (pairs, expected) in [
            (&[("limit", "0")][..], "limit: "),
            (&[("node", "")], "node: is empty"),
            (&[("node", &"n".repeat(256))], "node: is too long"),
            (&[("node", "a"), ("node", "b")], "node: given twice"),
            (&[("since", "1m")], "query: unknown parameter \"since\"; known: limit, "),
        ] {
            let error = parse(pairs).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
