//! Client of an `Ingest` service: one stream of batches, and the acks for them. Batches leave as
//! the buffers they were written into: nothing between the encoder and the socket copies them. They
//! leave at once: a server may send its response's headers with its first ack only.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::codec::Codec;
use tonic::codegen::Service;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use super::dialer::{AuthorizedChannel, DialError, Dialer, root_cause};
use super::proto::{self, Ack, AgentStatus};
use super::retry_info::retry_delay;
use super::service::{CONNECTION_WINDOW_BYTES, FRAME_BYTES, INGEST_PATH, STREAM_WINDOW_BYTES};

/// Batches queued for HTTP/2.
const QUEUED_BATCHES: usize = 8;

/// How to connect.
#[derive(Clone, Debug)]
pub struct IngestClientConfig {
    /// `host:port`, `http://host:port`, `https://host:port` or `unix:/path`.
    pub endpoint: String,
    /// Time limit for a connection.
    pub connect_timeout: Duration,
    /// Time without traffic after which a keepalive ping is sent; the answer is due within half of
    /// it.
    pub keepalive: Duration,
    /// Further headers of the request.
    pub headers: HeaderMap,
    /// Whether [`IngestClient::send_framed`] gets batches that are compressed with zstd.
    pub is_compressed: bool,
    /// Opens the connection.
    pub dialer: Dialer,
}

impl IngestClientConfig {
    /// A configuration for an endpoint, with the default times.
    #[must_use]
    pub fn to(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(20),
            headers: HeaderMap::new(),
            is_compressed: false,
            dialer: Dialer::default(),
        }
    }

    fn settings(&self, endpoint: Endpoint) -> Endpoint {
        endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keepalive)
            .keep_alive_timeout(self.keepalive / 2)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
    }
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint is invalid.
    #[error("endpoint {0:?}: {1}")]
    Endpoint(String, String),
    /// No connection.
    #[error("{0}: {1}")]
    Connect(String, String),
}

/// Why a stream has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StreamEnd {
    /// The cause.
    pub message: String,
    /// The least time until another attempt, if the server said one (`google.rpc.RetryInfo`).
    pub retry_after: Option<Duration>,
    /// Whether the server objects to the content of a batch: the same batch will fail again.
    pub is_refusal: bool,
}

impl StreamEnd {
    fn other(message: impl Into<String>) -> Self {
        Self { message: message.into(), retry_after: None, is_refusal: false }
    }

    fn of_status(status: &Status) -> Self {
        let retry_after = retry_delay(status.details());
        let is_refusal = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => true,
            // With RetryInfo the server is overloaded, without it the message is too large
            // (OTLP specification, "OTLP/gRPC Throttling").
            Code::ResourceExhausted => retry_after.is_none(),
            _ => false,
        };
        let message = match status.message() {
            "" => status.code().to_string(),
            message => message.to_owned(),
        };
        Self { message, retry_after, is_refusal }
    }
}

/// Why a batch wasn't queued. The caller still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The queue is full; acks will come.
    Full,
    /// The stream is closed.
    Closed,
}

/// An open stream.
pub struct IngestClient {
    batches: mpsc::Sender<Bytes>,
    acks: Acks,
    channel: AuthorizedChannel,
}

type Response = http::Response<tonic::body::Body>;

enum Acks {
    /// The response's headers haven't come yet.
    Waiting(Pin<Box<dyn Future<Output = Result<Response, tonic::transport::Error>> + Send>>),
    Open(Box<Streaming<Ack>>),
}

/// The request's body: framed batches, one HTTP/2 data chunk each.
struct BatchBody(mpsc::Receiver<Bytes>);

impl http_body::Body for BatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(cx).map(|batch| batch.map(|b| Ok(Frame::data(b))))
    }
}

impl IngestClient {
    /// Connects and opens the stream. The server's answer comes with [`IngestClient::poll_ack`].
    ///
    /// # Errors
    /// With the endpoint and the cause.
    pub async fn connect(config: &IngestClientConfig) -> Result<Self, ConnectError> {
        let to = || config.endpoint.clone();
        let settings = |endpoint| config.settings(endpoint);
        let connected = config.dialer.connect(&config.endpoint, settings).await;
        let mut channel = connected.map_err(|error| match error {
            DialError::Endpoint(cause) => ConnectError::Endpoint(to(), cause),
            DialError::Connect(cause) => ConnectError::Connect(to(), cause),
        })?;
        let (batches, queue) = mpsc::channel(QUEUED_BATCHES);
        let mut request = http::Request::post(INGEST_PATH)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::new(BatchBody(queue)))
            .map_err(|e| ConnectError::Endpoint(to(), e.to_string()))?;
        request.headers_mut().extend(config.headers.clone());
        if config.is_compressed {
            let zstd = http::HeaderValue::from_static("zstd");
            request.headers_mut().insert("grpc-encoding", zstd);
        }
        let failed = |e: tonic::transport::Error| ConnectError::Connect(to(), root_cause(&e));
        std::future::poll_fn(|cx| Service::poll_ready(&mut channel, cx)).await.map_err(failed)?;
        let response = Service::call(&mut channel, request);
        Ok(Self { batches, acks: Acks::Waiting(Box::pin(response)), channel })
    }

    /// Reports the agent's state on the stream's connection, within the time limit.
    ///
    /// # Errors
    /// The server's status; `Unimplemented` of one that keeps no states.
    pub fn report_status(
        &self,
        status: AgentStatus,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), Status>> + Send + use<> {
        let mut client = proto::ingest_client::IngestClient::new(self.channel.clone());
        let mut request = tonic::Request::new(status);
        request.set_timeout(timeout);
        async move {
            let answered = tokio::time::timeout(timeout, client.report_status(request)).await;
            let answered = answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
            answered.map(drop)
        }
    }

    /// Whether the server has answered the request: its headers have come.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        matches!(self.acks, Acks::Open(_))
    }

    /// Queues a batch that starts with its gRPC prefix.
    ///
    /// # Errors
    /// When the queue is full or the stream is closed.
    pub fn send_framed(&self, framed: Bytes) -> Result<(), SendError> {
        self.batches.try_send(framed).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Closed,
        })
    }

    /// Waits until the queue has room.
    ///
    /// # Errors
    /// When the stream is closed.
    pub async fn ready(&self) -> Result<(), SendError> {
        self.batches.reserve().await.map(drop).map_err(|_| SendError::Closed)
    }

    /// Polls for the next ack; an error when the stream has ended.
    pub fn poll_ack(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ack, StreamEnd>> {
        loop {
            match &mut self.acks {
                Acks::Waiting(response) => {
                    let response = std::task::ready!(response.as_mut().poll(cx));
                    self.acks = Acks::Open(Box::new(acks_of(response)?));
                }
                Acks::Open(acks) => {
                    return Pin::new(acks).poll_next(cx).map(|ack| match ack {
                        Some(Ok(ack)) => Ok(ack),
                        Some(Err(status)) => Err(StreamEnd::of_status(&status)),
                        None => Err(StreamEnd::other("the peer closed the stream")),
                    });
                }
            }
        }
    }

    /// Waits for an ack.
    ///
    /// # Errors
    /// When the stream has ended.
    pub async fn ack(&mut self) -> Result<Ack, StreamEnd> {
        std::future::poll_fn(|cx| self.poll_ack(cx)).await
    }
}

fn acks_of(
    response: Result<Response, tonic::transport::Error>,
) -> Result<Streaming<Ack>, StreamEnd> {
    let response = response.map_err(|e| StreamEnd::other(root_cause(&e)))?;
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(StreamEnd::of_status(&status));
    }
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(StreamEnd::other(format!("HTTP status {}", head.status)));
    }
    let decoder = tonic_prost::ProstCodec::<Ack, Ack>::default().decoder();
    Ok(Streaming::new_response(decoder, body, head.status, None, None))
}
