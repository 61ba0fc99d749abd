//! OTLP/HTTP with protobuf bodies (opentelemetry.io, "OTLP Specification", section OTLP/HTTP).

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use prost::Message as _;

use super::grpc::Exported;
use super::{Intake, MAX_REQUEST_BYTES, RETRY, Refusal};
use tapio_wire::OtlpSignal;

const PROTOBUF: &str = "application/x-protobuf";

/// Serves until the listener fails.
pub(super) async fn serve(
    listener: tokio::net::TcpListener,
    intake: Intake,
) -> std::io::Result<()> {
    let logs = |State(intake): State<Intake>, headers: HeaderMap, body: Bytes| async move {
        export(&intake, OtlpSignal::Logs, &headers, body).await
    };
    let traces = |State(intake): State<Intake>, headers: HeaderMap, body: Bytes| async move {
        export(&intake, OtlpSignal::Traces, &headers, body).await
    };
    let routes = Router::new()
        .route("/v1/logs", post(logs))
        .route("/v1/traces", post(traces))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(intake);
    axum::serve(listener, routes).await
}

async fn export(intake: &Intake, signal: OtlpSignal, headers: &HeaderMap, body: Bytes) -> Response {
    let is = |name, wanted: &str| {
        headers.get(name).is_some_and(|v| v.to_str().is_ok_and(|v| v.starts_with(wanted)))
    };
    if !is(CONTENT_TYPE, PROTOBUF) || headers.contains_key(CONTENT_ENCODING) {
        let why = "send application/x-protobuf without compression\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, why).into_response();
    }
    match intake.take(signal, body).await {
        Ok(broken) => {
            let said = Exported::without(broken).encode_to_vec();
            ([(CONTENT_TYPE, PROTOBUF)], said).into_response()
        }
        Err(Refusal::Later) => {
            let after = [(RETRY_AFTER, RETRY.as_secs().to_string())];
            (StatusCode::TOO_MANY_REQUESTS, after).into_response()
        }
        Err(Refusal::Broken(why)) => (StatusCode::BAD_REQUEST, why).into_response(),
        Err(Refusal::Ending) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
