//! OTLP/gRPC: the `Export` methods of logs, traces and metrics, on undecoded requests. The
//! structure is that of generated code; only the codec is tapio's (`wire/codec.rs`).

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tonic::codec::CompressionEncoding;
use tonic::codegen::{Body, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};

use super::intake::{Intake, MAX_REQUEST_BYTES, RETRY_AFTER, Refusal};
use tapio_wire::{
    Access, DoorListener, OtlpResponse, OtlpSignal, RawCodec, RpcStatus, grpc_server,
};

const LOGS: &str = "opentelemetry.proto.collector.logs.v1.LogsService";
const TRACES: &str = "opentelemetry.proto.collector.trace.v1.TraceService";
const METRICS: &str = "opentelemetry.proto.collector.metrics.v1.MetricsService";

/// Serves until the listener fails.
pub(super) async fn serve(
    listener: DoorListener,
    access: Arc<Access>,
    intake: Intake,
) -> std::io::Result<()> {
    grpc_server(access)
        .add_service(Logs(intake.clone()))
        .add_service(Traces(intake.clone()))
        .add_service(Metrics(intake))
        .serve_with_incoming(listener)
        .await
        .map_err(std::io::Error::other)
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let cause = refusal.to_string();
        match refusal {
            // With RetryInfo: without it senders must not retry (OTLP specification, "OTLP/gRPC
            // Throttling").
            Refusal::QueueFull => {
                RpcStatus::new(Code::ResourceExhausted, cause).retry_after(RETRY_AFTER).into()
            }
            Refusal::Malformed(_) => Self::invalid_argument(cause),
            Refusal::ShuttingDown => Self::unavailable(cause),
        }
    }
}

struct Export(Intake, OtlpSignal);

impl UnaryService<Bytes> for Export {
    type Response = OtlpResponse;
    type Future = BoxFuture<Response<OtlpResponse>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (intake, signal) = (self.0.clone(), self.1);
        Box::pin(async move {
            match intake.submit(signal, request.into_inner()).await {
                Ok(rejected) => Ok(Response::new(OtlpResponse::new(rejected.total(), &rejected))),
                Err(refusal) => Err(refusal.into()),
            }
        })
    }
}

macro_rules! service {
    ($($type:ident: $name:expr, $signal:expr;)*) => {$(
        #[derive(Clone)]
        struct $type(Intake);

        impl NamedService for $type {
            const NAME: &'static str = $name;
        }

        impl<B> Service<http::Request<B>> for $type
        where
            B: Body + Send + 'static,
            B::Error: Into<StdError> + Send + 'static,
        {
            type Response = http::Response<tonic::body::Body>;
            type Error = Infallible;
            type Future = BoxFuture<Self::Response, Infallible>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<B>) -> Self::Future {
                let export = Export(self.0.clone(), $signal);
                Box::pin(async move { Ok(respond(export, request).await) })
            }
        }
    )*};
}

service! {
    Logs: LOGS, OtlpSignal::Logs;
    Traces: TRACES, OtlpSignal::Traces;
    Metrics: METRICS, OtlpSignal::Metrics;
}

async fn respond<B>(export: Export, request: http::Request<B>) -> http::Response<tonic::body::Body>
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    if !request.uri().path().ends_with("/Export") {
        return Status::unimplemented(format!("no method {}", request.uri().path())).into_http();
    }
    let mut grpc =
        Grpc::new(RawCodec::default()).apply_max_message_size_config(Some(MAX_REQUEST_BYTES), None);
    for encoding in
        [CompressionEncoding::Gzip, CompressionEncoding::Zstd, CompressionEncoding::Deflate]
    {
        grpc = grpc.accept_compressed(encoding);
    }
    with_size_code(grpc.unary(export, request).await)
}

/// The code of a request that is larger than [`MAX_REQUEST_BYTES`] is RESOURCE_EXHAUSTED, whether
/// it is compressed or not; without RetryInfo senders don't retry (OTLP specification, "OTLP/gRPC
/// Throttling").
fn with_size_code(
    mut response: http::Response<tonic::body::Body>,
) -> http::Response<tonic::body::Body> {
    let code = |code: Code| http::HeaderValue::from(code as i32);
    if let Some(status) = response.headers_mut().get_mut("grpc-status")
        && *status == code(Code::OutOfRange)
    {
        *status = code(Code::ResourceExhausted);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::otlp::Rejected;
    use prost::Message as _;
    use tapio_core::event::Reason;

    #[test]
    fn only_an_overload_has_retry_info() {
        let status = Status::from(Refusal::QueueFull);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(String::from_utf8_lossy(status.details()).contains("google.rpc.RetryInfo"));
        let status = Status::from(Refusal::Malformed("no".into()));
        assert_eq!((status.code(), status.details()), (Code::InvalidArgument, &[][..]));
    }

    #[test]
    fn response_has_number_of_rejected_records_and_why() {
        let mut rejected = Rejected::default();
        assert!(OtlpResponse::new(rejected.total(), &rejected).encode_to_vec().is_empty());
        rejected.add(Reason::BadInput, 299);
        rejected.add(Reason::Oversize, 1);
        let response = OtlpResponse::new(rejected.total(), &rejected);
        let encoded = response.encode_to_vec();
        assert_eq!(encoded[..5], [0x0a, encoded.len() as u8 - 2, 8, 0xac, 2]);
        let json = response.json(OtlpSignal::Logs);
        assert_eq!(json["partialSuccess"]["rejectedLogRecords"], "300");
        assert_eq!(OtlpResponse::default().json(OtlpSignal::Traces), serde_json::json!({}));
        assert_eq!(
            response.json(OtlpSignal::Logs)["partialSuccess"]["errorMessage"],
            "records not accepted: 299 can't be decoded, 1 larger than a record may be"
        );
    }
}
