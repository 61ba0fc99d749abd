//! The web page: static files in the program, which are a client of the API in the browser.
//!
//! | file | purpose |
//! | --- | --- |
//! | `files.rs` | the files, each with its media type, its version and itself compressed |
//! | `assets/` | the page: `app.js` shows the view of the place in the URL |
//! | `assets/vendor/` | preact and htm, with their licences (`scripts/vendor-page.sh`) |
//!
//! The files have no data, so they need no right: the page asks for a token where the API does.

mod files;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::api::Problem;
use super::shared::Shared;
use files::{File, find};

/// Headers of every file. Scripts, styles and pictures come from this server only, and no other
/// page may show this one within itself.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    // A browser asks each time, and mostly gets no more than that it has the file already.
    (CACHE_CONTROL, "no-cache"),
    (VARY, "accept-encoding"),
];

/// The places of the page, all of which the same document shows.
const PLACES: &[&str] =
    &["/", "/stories", "/stories/{id}", "/entities/{id}", "/agents", "/agents/{node}", "/rules"];

pub(super) fn routes() -> Router<Arc<Shared>> {
    let places = PLACES.iter().fold(Router::new(), |router, place| router.route(place, get(index)));
    places.route("/assets/{*name}", get(asset)).route("/page.json", get(settings))
}

/// Whether a path is of a file of the page, which has no data.
pub(super) fn is_static(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    matches!(first, "" | "stories" | "entities" | "agents" | "rules" | "assets")
}

async fn index(state: State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Problem> {
    asset(state, Path("index.html".into()), headers).await
}

async fn asset(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = find(&name).ok_or_else(|| Problem::missing("file of the page", &name))?;
    match &shared.page.dir {
        // Names that aren't in the program aren't looked for, so no path leads out of the folder.
        Some(dir) => match std::fs::read(dir.join(file.name)) {
            Ok(bytes) => Ok(respond(file, None, bytes.into())),
            Err(e) => Err(Problem::new(StatusCode::NOT_FOUND, format!("web_dir: {name}: {e}"))),
        },
        None => Ok(embedded(file, &headers)),
    }
}

fn embedded(file: &'static File, headers: &HeaderMap) -> Response {
    let packed = file.packed();
    let has = |name: HeaderName, text: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|one| one.trim() == text)
    };
    let mut response = if has(IF_NONE_MATCH, &packed.etag) {
        respond(file, None, Bytes::new())
    } else if has(ACCEPT_ENCODING, "gzip") && packed.gzip.len() < file.bytes.len() {
        respond(file, Some("gzip"), Bytes::from_static(&packed.gzip))
    } else {
        respond(file, None, Bytes::from_static(file.bytes))
    };
    if has(IF_NONE_MATCH, &packed.etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    if let Ok(etag) = HeaderValue::from_str(&packed.etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

fn respond(file: &File, encoding: Option<&'static str>, bytes: Bytes) -> Response {
    let response = (HEADERS, [(CONTENT_TYPE, file.media_type)], bytes);
    match encoding {
        Some(encoding) => ([(CONTENT_ENCODING, encoding)], response).into_response(),
        None => response.into_response(),
    }
}

/// The page's part of the configuration.
async fn settings(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "trace_url": (!shared.page.trace_url.is_empty()).then_some(&shared.page.trace_url),
    }))
}
