//! OTLP/HTTP with protobuf bodies (opentelemetry.io, "OTLP Specification", section OTLP/HTTP).

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use prost::Message as _;

use super::grpc::ExportResponse;
use super::intake::{self, Intake, MAX_REQUEST_BYTES, Refusal};
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
    let has = |name, prefix: &str| {
        headers.get(name).is_some_and(|v| v.to_str().is_ok_and(|v| v.starts_with(prefix)))
    };
    if !has(CONTENT_TYPE, PROTOBUF) || headers.contains_key(CONTENT_ENCODING) {
        let remedy = "send application/x-protobuf without compression\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, remedy).into_response();
    }
    match intake.submit(signal, body).await {
        Ok(dropped) => {
            let response = ExportResponse::new(dropped).encode_to_vec();
            ([(CONTENT_TYPE, PROTOBUF)], response).into_response()
        }
        Err(Refusal::QueueFull) => {
            let after = [(RETRY_AFTER, intake::RETRY_AFTER.as_secs().to_string())];
            (StatusCode::TOO_MANY_REQUESTS, after).into_response()
        }
        Err(Refusal::Malformed(cause)) => (StatusCode::BAD_REQUEST, cause).into_response(),
        Err(Refusal::ShuttingDown) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
