//! The counting sink: takes OTLP/gRPC log requests and counts their records.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::codegen::{Body, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::tally::Arrivals;
use tapio_core::clock;
use tapio_wire::{OtlpResponse, RawCodec};

/// Name of the sink's thread, by which its CPU time is found.
pub const SINK_THREAD: &str = "sink";
/// HTTP/2 flow control: windows and streams that never limit the sender.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
const FRAME_BYTES: u32 = 1 << 20;
const MAX_STREAMS: u32 = 1_024;

/// The arrivals of the current run.
pub(super) type SharedArrivals = Arc<Mutex<Arrivals>>;

/// A sink on a thread of its own.
pub(super) struct Sink {
    address: SocketAddr,
    /// Whether the sink is there. The thread ends with this sender.
    up: watch::Sender<bool>,
    /// Whether the thread listens, as it reports.
    listening: watch::Receiver<bool>,
}

impl Sink {
    /// Starts a sink on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be bound or no thread started.
    pub(super) fn start(arrivals: SharedArrivals) -> io::Result<Self> {
        let first = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = first.local_addr()?;
        let (up, is_up) = watch::channel(true);
        let (report, listening) = watch::channel(true);
        std::thread::Builder::new().name(SINK_THREAD.into()).spawn(move || {
            let ended = serve(first, address, &arrivals, is_up, &report);
            if let Err(error) = ended {
                tracing::error!(%error, %address, "the sink ended");
            }
        })?;
        Ok(Self { address, up, listening })
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Closes all connections and the port, or opens the port again. Returns once that is done.
    ///
    /// # Errors
    /// When the port can't be opened again.
    pub(super) fn set_up(&mut self, is_up: bool) -> io::Result<()> {
        let gone = || io::Error::other("the sink's thread has ended");
        self.up.send(is_up).map_err(|_| gone())?;
        let mut listening = self.listening.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let changed = runtime.block_on(listening.wait_for(|listening| *listening == is_up));
        changed.map(drop).map_err(|_| gone())
    }
}

/// Serves while the sink is up, until its owner is gone.
fn serve(
    first: std::net::TcpListener,
    address: SocketAddr,
    arrivals: &SharedArrivals,
    mut is_up: watch::Receiver<bool>,
    report: &watch::Sender<bool>,
) -> io::Result<()> {
    let mut bound = Some(first);
    loop {
        // A runtime for each period: its end closes every connection, as that of a process does.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let is_over = runtime.block_on(async {
            let listener = match bound.take() {
                Some(listener) => {
                    listener.set_nonblocking(true)?;
                    TcpListener::from_std(listener)?
                }
                None => TcpListener::bind(address).await?,
            };
            report.send_replace(true);
            tokio::select! {
                served = serve_requests(listener, arrivals) => served.map(|()| true),
                left = is_up.wait_for(|up| !up) => Ok(left.is_err()),
            }
        });
        drop(runtime);
        if is_over? {
            return Ok(());
        }
        report.send_replace(false);
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        if runtime.block_on(is_up.wait_for(|up| *up)).is_err() {
            return Ok(());
        }
    }
}

async fn serve_requests(listener: TcpListener, arrivals: &SharedArrivals) -> io::Result<()> {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(Logs(Arc::clone(arrivals)))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await
        .map_err(io::Error::other)
}

#[derive(Clone)]
struct Logs(SharedArrivals);

impl NamedService for Logs {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl UnaryService<Bytes> for Logs {
    type Response = OtlpResponse;
    type Future = std::future::Ready<Result<Response<OtlpResponse>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let mut arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.arrive(request.get_ref(), clock::wall_ns());
        std::future::ready(Ok(Response::new(OtlpResponse::new(0, &""))))
    }
}

impl<B> Service<http::Request<B>> for Logs
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
        let logs = self.clone();
        Box::pin(async move {
            // Peers may compress whatever they are asked for.
            let mut grpc = Grpc::new(RawCodec::default())
                .apply_max_message_size_config(Some(usize::MAX), None)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd);
            Ok(grpc.unary(logs, request).await)
        })
    }
}
