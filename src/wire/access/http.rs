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

/// The response to a request that isn't allowed.
fn refuse(denied: &Denied) -> Response<Body> {
    let body = serde_json::json!({"error": denied.cause}).to_string();
    let mut response = Response::new(Body::from(body));
    let is_unknown = matches!(denied.refused, Refused::Unauthenticated | Refused::Revoked);
    *response.status_mut() =
        if is_unknown { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if is_unknown {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
