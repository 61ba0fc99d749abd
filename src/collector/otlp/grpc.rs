//! OTLP/gRPC: the `Export` methods of logs and traces, on undecoded requests. The structure is that
//! of generated code; only the codec is tapio's (`wire/codec.rs`).

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message;
use tonic::codegen::{Body, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::intake::{Intake, MAX_REQUEST_BYTES, RETRY_AFTER, Refusal};
use tapio_wire::{OtlpSignal, RawCodec, grpc_server};

const LOGS: &str = "opentelemetry.proto.collector.logs.v1.LogsService";
const TRACES: &str = "opentelemetry.proto.collector.trace.v1.TraceService";

/// Serves until the listener fails.
pub(super) async fn serve(
    listener: tokio::net::TcpListener,
    intake: Intake,
) -> std::io::Result<()> {
    grpc_server()
        .add_service(Logs(intake.clone()))
        .add_service(Traces(intake))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await
        .map_err(std::io::Error::other)
}

/// `ExportLogsServiceResponse` and `ExportTraceServiceResponse`, which have the same encoding.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// How many records were dropped, and why.
#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

impl ExportResponse {
    /// A response: empty, or with the number of dropped records.
    pub(super) fn new(dropped: u64) -> Self {
        let partial_success = (dropped > 0).then(|| PartialSuccess {
            rejected: dropped as i64,
            error_message: "records that can't be decoded were dropped".into(),
        });
        Self { partial_success }
    }
}

struct Export(Intake, OtlpSignal);

impl UnaryService<Bytes> for Export {
    type Response = ExportResponse;
    type Future = BoxFuture<Response<ExportResponse>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (intake, signal) = (self.0.clone(), self.1);
        Box::pin(async move {
            match intake.submit(signal, request.into_inner()).await {
                Ok(dropped) => Ok(Response::new(ExportResponse::new(dropped))),
                Err(Refusal::QueueFull) => Err(queue_full()),
                Err(Refusal::Malformed(cause)) => Err(Status::invalid_argument(cause)),
                Err(Refusal::ShuttingDown) => Err(Status::unavailable("agent is shutting down")),
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
    grpc.unary(export, request).await
}

/// RESOURCE_EXHAUSTED with google.rpc.RetryInfo: without it senders must not retry (OTLP
/// specification, "OTLP/gRPC Throttling").
fn queue_full() -> Status {
    let message = "agent is overloaded";
    // RetryInfo { retry_delay: Duration { seconds } }
    let info = field(1, &[1 << 3, RETRY_AFTER.as_secs() as u8]);
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &info)].concat();
    let code = Code::ResourceExhausted;
    let status = [vec![1 << 3, code as u8], field(2, message.as_bytes()), field(3, &any)].concat();
    Status::with_details(code, message, status.into())
}

/// Encodes a length-delimited protobuf field of fewer than 128 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_has_retry_info() {
        let status = queue_full();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.details();
        // google.rpc.Status: code 8, a message, and one detail, which ends in a Duration of one
        // second.
        assert_eq!(details[..2], [8, 8]);
        assert!(details.ends_with(&[0x12, 4, 0x0a, 2, 8, 1]), "{details:?}");
        assert!(String::from_utf8_lossy(details).contains("google.rpc.RetryInfo"));
    }

    #[test]
    fn response_has_number_of_dropped_records() {
        assert!(ExportResponse::new(0).encode_to_vec().is_empty());
        let response = ExportResponse::new(300).encode_to_vec();
        assert_eq!(response[..5], [0x0a, response.len() as u8 - 2, 8, 0xac, 2]);
    }
}
