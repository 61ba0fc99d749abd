//! The `Ingest` service over ready-made bytes: batches come out of the stream undecoded, acks go in
//! as prost writes them. The shape is that of generated code; only the codec is ours (`codec.rs`).

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::codegen::{Body, BoxFuture, BoxStream, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::codec::Undecoded;
use super::decode::MAX_BATCH_BYTES;
use super::proto::Ack;

/// The method's path, as clients call it.
pub(super) const INGEST_PATH: &str = "/tapio.v1.Ingest/Ingest";
/// HTTP/2 flow control of a stream and of a connection: enough for a few batches on their way.
pub(super) const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// The largest HTTP/2 frame taken: a batch should travel in one.
pub(super) const FRAME_BYTES: u32 = 1024 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Batches taken in for one ack, where so many are at hand.
const BATCHES_PER_ACK: usize = 32;

/// What is done with the streams that clients open.
pub trait IngestHandler: Send + Sync + 'static {
    /// A client has opened a stream of batches; returns the stream of acks.
    ///
    /// # Errors
    /// A status that refuses the stream.
    fn open(
        &self,
        batches: Streaming<Bytes>,
        peer: Option<SocketAddr>,
    ) -> Result<BoxStream<Ack>, Status>;
}

/// Serves `tapio.v1.Ingest`.
#[derive(Debug)]
pub struct IngestServer<H>(Arc<H>);

impl<H> IngestServer<H> {
    /// A service that hands its streams to `handler`.
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
        let peer = request.remote_addr();
        let acks = self.0.open(request.into_inner(), peer);
        std::future::ready(acks.map(Response::new))
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
        if request.uri().path() != INGEST_PATH {
            let unknown = Status::unimplemented(format!("no method {}", request.uri().path()));
            return Box::pin(async move { Ok(unknown.into_http()) });
        }
        let method = Method(Arc::clone(&self.0));
        Box::pin(async move {
            let mut grpc = Grpc::new(Undecoded::default())
                .apply_max_message_size_config(Some(MAX_BATCH_BYTES), None);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

/// A gRPC server as both ends of tapio want it: prompt, with room for batches, noticing dead peers.
#[must_use]
pub fn grpc_server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Listens on an address, for tokio.
///
/// # Errors
/// With the address and the setting it came from, as when another process listens there.
pub fn bind(setting: &str, address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .map_err(|e| io::Error::new(e.kind(), format!("{setting}: {address}: {e}")))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What takes batches in, one stream's.
pub trait Intake: Send + 'static {
    /// Takes a batch: stores it, finds it seen, or refuses it. `Some`: can't now, try again after
    /// that time.
    fn take(&mut self, batch: &Bytes) -> Option<Duration>;

    /// What to tell the sender about the batches taken since it was told last: asked until there
    /// is nothing more to say.
    fn next_ack(&mut self) -> Option<Ack>;
}

/// The acks of a stream of batches: polling it takes batches in. One ack answers all batches that
/// were at hand.
pub struct AckStream<T> {
    batches: Streaming<Bytes>,
    intake: T,
    later: Option<(Bytes, Pin<Box<Sleep>>)>,
    unacked: usize,
    acking: bool,
    end: Option<Option<Status>>,
}

impl<T: Intake> AckStream<T> {
    /// Acks for these batches.
    pub fn new(batches: Streaming<Bytes>, intake: T) -> Self {
        Self { batches, intake, later: None, unacked: 0, acking: false, end: None }
    }

    fn next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some((batch, sleep)) = &mut self.later {
            std::task::ready!(sleep.as_mut().poll(cx));
            let batch = std::mem::take(batch);
            self.later = None;
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
}

impl<T: Intake + Unpin> Stream for AckStream<T> {
    type Item = Result<Ack, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.acking {
                match this.intake.next_ack() {
                    Some(ack) => return Poll::Ready(Some(Ok(ack))),
                    None => this.acking = false,
                }
            }
            while this.unacked < BATCHES_PER_ACK {
                match this.next_batch(cx) {
                    Poll::Ready(Some(batch)) => match this.intake.take(&batch) {
                        None => this.unacked += 1,
                        Some(wait) => {
                            this.later = Some((batch, Box::pin(tokio::time::sleep(wait))));
                        }
                    },
                    Poll::Ready(None) => break,
                    Poll::Pending if this.unacked == 0 => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            if this.unacked == 0 {
                let end = this.end.as_mut().and_then(Option::take);
                return Poll::Ready(end.map(Err));
            }
            this.unacked = 0;
            this.acking = true;
        }
    }
}
