//! Server side of the `Ingest` service: batches arrive as undecoded bytes, acks are encoded by
//! prost. Structured like generated code; only the codec differs (`codec.rs`).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::codec::CompressionEncoding;
use tonic::codegen::{Body, BoxFuture, BoxStream, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_layer::Stack;

use super::access::{Access, AccessLayer, Caller, Denied, PeerInfo, Refused};
use super::codec::RawCodec;
use super::decode::MAX_BATCH_BYTES;
use super::door::DoorLayer;
use super::proto::{Ack, AgentStatus, ReportStatusResponse};

/// Path of the method.
pub(super) const INGEST_PATH: &str = "/tapio.v1.Ingest/Ingest";
/// Path of the method by which an agent reports its state.
const REPORT_STATUS_PATH: &str = "/tapio.v1.Ingest/ReportStatus";
/// Largest report.
pub const MAX_STATUS_BYTES: usize = 16 * 1024;
/// HTTP/2 flow control of a stream and of a connection: enough for a few batches in flight.
pub(super) const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// The largest HTTP/2 frame: a batch should fit into one.
pub(super) const FRAME_BYTES: u32 = 1024 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of a connection at a time: more than an exporter of OpenTelemetry's Collector has
/// (`sending_queue.num_consumers`, 10).
const MAX_CONCURRENT_STREAMS: u32 = 64;
/// Batches that one ack answers at most.
const BATCHES_PER_ACK: usize = 32;

/// Handler of the streams that clients open.
pub trait IngestHandler: Send + Sync + 'static {
    /// Handles a new stream of batches; returns the stream of acks.
    ///
    /// # Errors
    /// A status that refuses the stream.
    fn open(&self, batches: Streaming<Bytes>, caller: Caller) -> Result<BoxStream<Ack>, Status>;

    /// Takes an agent's report of its state.
    ///
    /// # Errors
    /// A status that refuses it; by default, since the handler keeps none.
    fn report_status(&self, _: AgentStatus, _: &Caller) -> Result<(), Status> {
        Err(Status::unimplemented("this receiver keeps no status of agents"))
    }
}

/// Serves `tapio.v1.Ingest`.
#[derive(Debug)]
pub struct IngestServer<H>(Arc<H>);

impl<H> IngestServer<H> {
    /// A service that passes its streams to `handler`.
    pub fn new(handler: H) -> Self {
        Self(Arc::new(handler))
    }
}

impl<H> Clone for IngestServer<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H> NamedService for IngestServer<H> {
    const NAME: &'static str = "tapio.v1.Ingest";
}

struct Method<H>(Arc<H>);

impl<H: IngestHandler> StreamingService<Bytes> for Method<H> {
    type Response = Ack;
    type ResponseStream = BoxStream<Ack>;
    type Future = std::future::Ready<Result<Response<BoxStream<Ack>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let caller = Caller::of(request.extensions());
        let acks = self.0.open(request.into_inner(), caller);
        std::future::ready(acks.map(Response::new))
    }
}

struct ReportStatus<H>(Arc<H>);

impl<H: IngestHandler> UnaryService<AgentStatus> for ReportStatus<H> {
    type Response = ReportStatusResponse;
    type Future = std::future::Ready<Result<Response<ReportStatusResponse>, Status>>;

    fn call(&mut self, request: Request<AgentStatus>) -> Self::Future {
        let caller = Caller::of(request.extensions());
        let taken = self.0.report_status(request.into_inner(), &caller);
        std::future::ready(taken.map(|()| Response::new(ReportStatusResponse {})))
    }
}

impl<H, B> Service<http::Request<B>> for IngestServer<H>
where
    H: IngestHandler,
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
        let handler = Arc::clone(&self.0);
        match request.uri().path() {
            INGEST_PATH => Box::pin(async move {
                let mut grpc = Grpc::new(RawCodec::default())
                    .apply_max_message_size_config(Some(MAX_BATCH_BYTES), None)
                    .accept_compressed(CompressionEncoding::Zstd);
                Ok(grpc.streaming(Method(handler), request).await)
            }),
            REPORT_STATUS_PATH => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::default())
                    .apply_max_message_size_config(Some(MAX_STATUS_BYTES), None);
                Ok(grpc.unary(ReportStatus(handler), request).await)
            }),
            other => {
                let unknown = Status::unimplemented(format!("no method {other}"));
                Box::pin(async move { Ok(unknown.into_http()) })
            }
        }
    }
}

type Bounds = DoorLayer<tonic::body::Body, tonic::body::Body>;

/// A gRPC server whose requests are allowed, and within the bounds of its listener.
pub type GrpcServer = tonic::transport::Server<
    Stack<AccessLayer<tonic::body::Body>, Stack<Bounds, tower_layer::Identity>>,
>;

/// A gRPC server with the settings that all of tapio's services use: no Nagle delay, windows for
/// batches, keepalive pings that detect dead peers, bounds on what clients send, and a check of
/// each request.
#[must_use]
pub fn grpc_server(access: Arc<Access>) -> GrpcServer {
    let peer = |extensions: &http::Extensions| extensions.get::<PeerInfo>()?.address;
    let info = |extensions: &http::Extensions| extensions.get::<PeerInfo>().cloned();
    tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(DoorLayer::new(tonic::body::Body::new, peer))
        .layer(AccessLayer::new(access, info, refuse, tonic::body::Body::new))
}

/// The response to a request that isn't allowed.
fn refuse(denied: &Denied) -> http::Response<tonic::body::Body> {
    let cause = denied.cause.as_str();
    match denied.refused {
        Refused::Unauthenticated | Refused::Revoked => Status::unauthenticated(cause).into_http(),
        Refused::Forbidden | Refused::Host | Refused::User => {
            Status::permission_denied(cause).into_http()
        }
    }
}

/// Handler of one stream's batches.
pub trait BatchHandler: Send + 'static {
    /// Handles a batch: accepts it, recognises it as a duplicate, or refuses it. `Some`: not
    /// possible now, retry after that time.
    fn handle(&mut self, batch: &Bytes) -> Option<Duration>;

    /// Ends a group of batches, which are acknowledged together.
    fn end_group(&mut self);

    /// The next ack of an ended group. `None`: every group is acknowledged. Pending: the next one
    /// can't be acknowledged yet.
    ///
    /// # Errors
    /// The status that ends the stream: nothing more can be acknowledged.
    fn poll_ack(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Ack>, Status>>;
}

/// The acks for a stream of batches. Polling it handles batches; those that were ready are a group,
/// which one ack answers.
pub struct AckStream<T> {
    batches: Streaming<Bytes>,
    handler: T,
    /// A batch to retry.
    retry: Option<(Bytes, Pin<Box<Sleep>>)>,
    /// The end of the batches: `Some(None)` without an error.
    end: Option<Option<Status>>,
}

impl<T: BatchHandler> AckStream<T> {
    /// Handles these batches.
    pub fn new(batches: Streaming<Bytes>, handler: T) -> Self {
        Self { batches, handler, retry: None, end: None }
    }

    fn next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some((batch, sleep)) = &mut self.retry {
            std::task::ready!(sleep.as_mut().poll(cx));
            let batch = std::mem::take(batch);
            self.retry = None;
            return Poll::Ready(Some(batch));
        }
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        match std::task::ready!(Pin::new(&mut self.batches).poll_next(cx)) {
            Some(Ok(batch)) => return Poll::Ready(Some(batch)),
            Some(Err(status)) => self.end = Some(Some(status)),
            None => self.end = Some(None),
        }
        Poll::Ready(None)
    }

    /// Handles the batches that are ready. Returns their number.
    fn handle_batches(&mut self, cx: &mut Context<'_>) -> usize {
        let mut handled = 0;
        while handled < BATCHES_PER_ACK
            && let Poll::Ready(Some(batch)) = self.next_batch(cx)
        {
            match self.handler.handle(&batch) {
                None => handled += 1,
                Some(wait) => self.retry = Some((batch, Box::pin(tokio::time::sleep(wait)))),
            }
        }
        handled
    }
}

impl<T: BatchHandler + Unpin> Stream for AckStream<T> {
    type Item = Result<Ack, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let all_acked = match this.handler.poll_ack(cx) {
                Poll::Ready(Ok(Some(ack))) => return Poll::Ready(Some(Ok(ack))),
                Poll::Ready(Ok(None)) => true,
                Poll::Ready(Err(status)) => return Poll::Ready(Some(Err(status))),
                Poll::Pending => false,
            };
            if this.handle_batches(cx) > 0 {
                this.handler.end_group();
            } else if this.end.is_some() && all_acked {
                let end = this.end.as_mut().and_then(Option::take);
                return Poll::Ready(end.map(Err));
            } else {
                return Poll::Pending;
            }
        }
    }
}
