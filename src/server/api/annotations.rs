//! The list of annotations in force, in pages: to be kept elsewhere, and to calibrate the evidence
//! by the causes that were marked.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use serde_json::{Value, json};

use super::super::annotation_query::AnnotationRequest;
use super::super::shared::Shared;
use super::super::storage::InvalidParameter;
use super::list_query::{pairs, parse_id, parse_limit, parse_time};
use super::problem::Problem;
use tapio_core::clock;

/// The parameters of the list.
const PARAMETERS: [&str; 6] = ["limit", "page_token", "story", "action", "since", "until"];

/// The page of annotations that a request asks for.
pub(super) struct AnnotationQuery(AnnotationRequest);

impl<S: Sync> FromRequestParts<S> for AnnotationQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(parse(&pairs(parts)?, clock::wall_ns())?))
    }
}

fn parse(pairs: &[(String, String)], now_ns: u64) -> Result<AnnotationRequest, InvalidParameter> {
    let mut request = AnnotationRequest::default();
    for (at, (name, value)) in pairs.iter().enumerate() {
        let Some(name) = PARAMETERS.into_iter().find(|known| *known == name) else {
            let cause = format!("unknown parameter {name:?}; known: {}", PARAMETERS.join(", "));
            return Err(InvalidParameter { name: "query", cause });
        };
        let invalid = |cause: String| InvalidParameter { name, cause };
        if pairs[..at].iter().any(|(other, _)| other == name) {
            return Err(invalid("given twice".into()));
        }
        if value.is_empty() {
            return Err(invalid("is empty".into()));
        }
        match name {
            "limit" => request.limit = parse_limit(value).map_err(invalid)?,
            "page_token" => value.clone_into(&mut request.page_token),
            "story" => request.story = Some(parse_id(value).map_err(invalid)?),
            "action" => request.actions = value.split(',').map(str::to_owned).collect(),
            "since" => request.since_ns = parse_time(value, now_ns).map_err(invalid)?,
            // 0 is no limit.
            _ => request.until_ns = parse_time(value, now_ns).map_err(invalid)?.max(1),
        }
    }
    Ok(request)
}

/// Lists annotations, oldest first.
pub(super) async fn annotations(
    State(shared): State<Arc<Shared>>,
    AnnotationQuery(request): AnnotationQuery,
) -> Result<Json<Value>, Problem> {
    let (page, token) = shared.list_annotations(request).await?;
    let token = (!token.is_empty()).then_some(token);
    Ok(Json(json!({"items": page.entries, "next_page_token": token, "complete_since": null})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_checked() {
        let parse = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
            parse(&pairs, 100_000_000_000).map_err(|e| e.to_string())
        };
        let id = "07".repeat(16);
        let request = parse(&[("story", &id), ("action", "note,silence"), ("since", "10s")]);
        let request = request.unwrap();
        assert_eq!(request.story.unwrap().to_string(), id);
        assert_eq!((request.actions.len(), request.since_ns), (2, 90_000_000_000));
        for (pairs, expected) in [
            (&[("limit", "0")][..], "limit: "),
            (&[("story", "7")], "story: "),
            (&[("until", "soon")], "until: "),
            (&[("action", "")], "action: is empty"),
            (&[("action", "note"), ("action", "note")], "action: given twice"),
            (&[("node", "n")], "query: unknown parameter \"node\"; known: limit, "),
        ] {
            let error = parse(pairs).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
