//! `/mcp`: the protocol over HTTP (its "streamable HTTP", with JSON answers and without streams and
//! sessions). The listener checks `Host`, `Origin` and the right to read, as for the API.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::super::api::Problem;
use super::super::query_rpc;
use super::super::shared::Shared;
use super::protocol::{MAX_MESSAGE_BYTES, is_revision, reply};

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const JSON: &str = "application/json";

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/mcp", post(message).layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES)))
}

/// Answers one message.
async fn message(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    check(&headers)?;
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let source = query_rpc::queries(shared);
    Ok(match reply(&source, &body).await {
        Some(answer) => ([(CONTENT_TYPE, JSON)], answer).into_response(),
        None => StatusCode::ACCEPTED.into_response(),
    })
}

/// Checks the headers. A page of another origin can't send JSON without being asked for leave by
/// its browser, which this listener never gives.
fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: HeaderName| {
        let values = headers.get_all(name).into_iter();
        values.map(|value| value.to_str().unwrap_or("?")).collect::<Vec<_>>()
    };
    let media = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if text(CONTENT_TYPE).first().is_none_or(|value| media(value) != JSON) {
        let detail = "a message is application/json, and Content-Type has this";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let admits = |accept: &str| {
        accept.split(',').any(|one| matches!(&*media(one), JSON | "application/*" | "*/*"))
    };
    let accepted = text(ACCEPT);
    if !accepted.is_empty() && !accepted.into_iter().any(admits) {
        let detail = "answers are application/json, which Accept doesn't have";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, detail));
    }
    match headers.get(PROTOCOL_VERSION) {
        Some(version) if !is_revision(version.as_bytes()) => {
            let detail = format!("MCP-Protocol-Version: {version:?} isn't spoken here");
            Err(Problem::new(StatusCode::BAD_REQUEST, detail))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_checked() {
        let status = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            check(&headers).err().map(|problem| problem.into_response().status().as_u16())
        };
        let json = ("content-type", "Application/JSON; charset=utf-8");
        let accept = ("accept", "application/json, text/event-stream");
        assert_eq!(status(&[json, accept, ("mcp-protocol-version", "2025-06-18")]), None);
        assert_eq!(status(&[json]), None);
        assert_eq!(status(&[]), Some(415));
        assert_eq!(status(&[("content-type", "text/plain")]), Some(415));
        assert_eq!(status(&[json, ("accept", "text/event-stream")]), Some(406));
        assert_eq!(status(&[json, accept, ("mcp-protocol-version", "1999-01-01")]), Some(400));
    }
}
