//! Access to listeners of HTTP.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use super::counts::Refused;
use super::identity::PeerInfo;
use super::layer::AccessLayer;
use super::rights::{Access, Denied};

impl AccessLayer<Body> {
    /// Checks the requests of a listener of HTTP, whose service is made with [`PeerInfo`] as the
    /// connection's information.
    #[must_use]
    pub fn http(access: Arc<Access>) -> Self {
        let peer = |extensions: &http::Extensions| {
            extensions.get::<ConnectInfo<PeerInfo>>().map(|peer| peer.0.clone())
        };
        Self::new(access, peer, refuse, Body::new)
    }
}

/// The response to a request that isn't allowed: a problem (RFC 9457), as other errors of the API
/// are, with the text as `error` too, which errors of the admin listener have.
fn refuse(denied: &Denied) -> Response<Body> {
    let is_unknown = matches!(denied.refused, Refused::Unauthenticated | Refused::Revoked);
    let status = if is_unknown { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": denied.cause,
        "error": denied.cause,
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if is_unknown {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
