//! OTLP/HTTP (opentelemetry.io, "OTLP Specification", section OTLP/HTTP).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Status};

use super::encoding::{ENCODINGS, Media, UnpackError, unpack};
use super::intake::{self, Intake, MAX_REQUEST_BYTES, Refusal};
use tapio_wire::{
    Access, AccessLayer, DoorLayer, DoorListener, OtlpResponse, OtlpSignal, PeerInfo, RpcStatus,
    otlp_from_json,
};

/// Serves until the listener fails.
pub(super) async fn serve(
    listener: DoorListener,
    access: Arc<Access>,
    intake: Intake,
) -> std::io::Result<()> {
    let route = |signal: OtlpSignal| {
        post(move |State(intake): State<Intake>, headers: HeaderMap, body| async move {
            respond(&intake, signal, &headers, body).await
        })
    };
    let routes = Router::new()
        .route("/v1/logs", route(OtlpSignal::Logs))
        .route("/v1/traces", route(OtlpSignal::Traces))
        .route("/v1/metrics", route(OtlpSignal::Metrics))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .layer(DoorLayer::new(Body::new, |extensions| {
            extensions.get::<ConnectInfo<PeerInfo>>()?.0.address
        }))
        .layer(AccessLayer::http(access))
        .with_state(intake);
    axum::serve(listener, routes.into_make_service_with_connect_info::<PeerInfo>()).await
}

/// A refusal: the HTTP status, the gRPC code in its body, the cause, and when to retry.
struct Refused {
    status: StatusCode,
    code: Code,
    cause: String,
    retry_after: Option<Duration>,
}

impl Refused {
    fn new(status: StatusCode, code: Code, cause: impl Into<String>) -> Self {
        Self { status, code, cause: cause.into(), retry_after: None }
    }

    fn too_large() -> Self {
        let cause = format!("request is larger than {MAX_REQUEST_BYTES} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, cause)
    }

    /// The body: a `google.rpc.Status` in the media type of the request.
    fn message(&self, media: Option<Media>) -> Vec<u8> {
        let (code, cause) = (self.code, &self.cause);
        match media {
            Some(Media::Json) => {
                serde_json::json!({"code": code as i32, "message": cause}).to_string().into_bytes()
            }
            _ => RpcStatus::new(code, cause.clone()).encode_to_vec(),
        }
    }
}

impl From<UnpackError> for Refused {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::TooLarge => Self::too_large(),
            UnpackError::Invalid(cause) => {
                Self::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, cause)
            }
            UnpackError::Encoding(encoding) => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::InvalidArgument,
                format!("encoding {encoding:?} isn't supported, use one of {ENCODINGS}"),
            ),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let (status, code, retry_after) = match &refusal {
            Refusal::QueueFull => {
                let after = Some(intake::RETRY_AFTER);
                (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, after)
            }
            Refusal::Malformed(_) => (StatusCode::BAD_REQUEST, Code::InvalidArgument, None),
            Refusal::ShuttingDown => {
                (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(intake::RETRY_AFTER))
            }
        };
        Self { status, code, cause: refusal.to_string(), retry_after }
    }
}

async fn respond(
    intake: &Intake,
    signal: OtlpSignal,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let media = Media::of(headers);
    let (status, message, retry_after) = match export(intake, signal, media, headers, body).await {
        Ok(response) => {
            let message = match media {
                Some(Media::Json) => response.json(signal).to_string().into_bytes(),
                _ => response.encode_to_vec(),
            };
            (StatusCode::OK, message, None)
        }
        Err(refused) => (refused.status, refused.message(media), refused.retry_after),
    };
    answer(status, media, message, retry_after)
}

async fn export(
    intake: &Intake,
    signal: OtlpSignal,
    media: Option<Media>,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<OtlpResponse, Refused> {
    let Some(media) = media else {
        return Err(Refused::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::InvalidArgument,
            "Content-Type must be application/x-protobuf or application/json",
        ));
    };
    let body = body.map_err(|e| match (e.status(), cause_of(&e)) {
        (StatusCode::PAYLOAD_TOO_LARGE, _) => Refused::too_large(),
        (_, Some(cause)) => Refused {
            retry_after: Some(intake::RETRY_AFTER),
            ..Refused::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, cause.message())
        },
        _ => Refused::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, e.body_text()),
    })?;
    let mut body = unpack(headers, body)?;
    if media == Media::Json {
        let invalid = |e| Refused::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, e);
        body = otlp_from_json(signal, &body).map_err(invalid)?.into();
    }
    let rejected = intake.submit(signal, body).await?;
    Ok(OtlpResponse::new(rejected.total(), &rejected))
}

/// Why the listener's bounds have ended a request's body, if they have.
fn cause_of<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Status> {
    let mut errors = std::iter::successors(Some(error), |error| error.source());
    errors.find_map(|error| error.downcast_ref())
}

/// A response in the media type of its request; protobuf where that is unknown.
fn answer(
    status: StatusCode,
    media: Option<Media>,
    message: Vec<u8>,
    retry_after: Option<Duration>,
) -> Response {
    let media = media.unwrap_or(Media::Protobuf);
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(media.as_str()));
    if let Some(delay) = retry_after {
        headers.insert(RETRY_AFTER, delay.as_secs().max(1).into());
    }
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        headers.insert(ACCEPT_ENCODING, axum::http::HeaderValue::from_static(ENCODINGS));
    }
    response
}
