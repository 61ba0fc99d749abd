//! OTLP/gRPC: the `Export` methods of logs and traces over undecoded requests. The shape is that of generated
//! code; only the codec is ours.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Body, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::{Intake, MAX_REQUEST_BYTES, RETRY, Refusal};
use crate::wire::{OtlpSignal, grpc_server};

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

/// Bytes in, bytes out.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

struct Export(Intake, OtlpSignal);

impl UnaryService<Bytes> for Export {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (intake, signal) = (self.0.clone(), self.1);
        Box::pin(async move {
            match intake.take(signal, request.into_inner()).await {
                Ok(broken) => Ok(Response::new(partial_success(broken))),
                Err(Refusal::Later) => Err(later()),
                Err(Refusal::Broken(why)) => Err(Status::invalid_argument(why)),
                Err(Refusal::Ending) => Err(Status::unavailable("the agent ends")),
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
                Box::pin(async move { Ok(answer(export, request).await) })
            }
        }
    )*};
}

service! {
    Logs: LOGS, OtlpSignal::Logs;
    Traces: TRACES, OtlpSignal::Traces;
}

async fn answer<B>(export: Export, request: http::Request<B>) -> http::Response<tonic::body::Body>
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    if !request.uri().path().ends_with("/Export") {
        return Status::unimplemented(format!("no method {}", request.uri().path())).into_http();
    }
    let mut grpc = Grpc::new(Raw).apply_max_message_size_config(Some(MAX_REQUEST_BYTES), None);
    grpc.unary(export, request).await
}

/// RESOURCE_EXHAUSTED with google.rpc.RetryInfo: without it senders must not try again (OTLP specification,
/// "OTLP/gRPC Throttling").
fn later() -> Status {
    let message = "the agent can't take more now";
    // RetryInfo { retry_delay: Duration { seconds } }
    let info = field(1, &[1 << 3, RETRY.as_secs() as u8]);
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &info)].concat();
    let code = Code::ResourceExhausted;
    let status = [vec![1 << 3, code as u8], field(2, message.as_bytes()), field(3, &any)].concat();
    Status::with_details(code, message, status.into())
}

/// A field of fewer than 128 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// An export's response: empty, or with how many records were left out.
pub(super) fn partial_success(broken: u64) -> Bytes {
    if broken == 0 {
        return Bytes::new();
    }
    let mut rejected = vec![1 << 3];
    let mut n = broken;
    while n >= 0x80 {
        rejected.push(n as u8 | 0x80);
        n >>= 7;
    }
    rejected.push(n as u8);
    let said = [rejected, field(2, b"records that can't be read")].concat();
    field(1, &said).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_try_again() {
        let status = later();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.details();
        // google.rpc.Status: code 8, a message, one detail that ends in a Duration of one second.
        assert_eq!(details[..2], [8, 8]);
        assert!(details.ends_with(&[0x12, 4, 0x0a, 2, 8, 1]), "{details:?}");
        assert!(String::from_utf8_lossy(details).contains("google.rpc.RetryInfo"));
    }

    #[test]
    fn what_was_left_out_is_said() {
        assert!(partial_success(0).is_empty());
        let said = partial_success(300);
        assert_eq!(said[..5], [0x0a, said.len() as u8 - 2, 8, 0xac, 2]);
    }
}
