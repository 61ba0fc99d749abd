//! A client's stream to an `Ingest` service. Batches leave as the buffers they were written into:
//! nothing between the encoder and the socket copies them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::codec::Codec;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::encode::EncodedBatch;
use super::proto::Ack;
use super::service::{CONNECTION_WINDOW_BYTES, FRAME_BYTES, INGEST_PATH, STREAM_WINDOW_BYTES};

/// Batches handed to HTTP/2 that it has not taken yet.
const QUEUED_BATCHES: usize = 8;

/// Where a line leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineConfig {
    /// `host:port` or `http://host:port`.
    pub endpoint: String,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// After how long a silence the peer is asked whether it lives; it has half of that to answer.
    pub keepalive: Duration,
}

impl LineConfig {
    /// A line to an endpoint with the usual times.
    #[must_use]
    pub fn to(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(20),
        }
    }

    fn channel(&self) -> Result<Endpoint, LineError> {
        let uri = if self.endpoint.contains("://") {
            self.endpoint.clone()
        } else {
            format!("http://{}", self.endpoint)
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|e| LineError::Endpoint(self.endpoint.clone(), e.to_string()))?;
        if endpoint.uri().scheme_str() != Some("http") {
            let cause = "the scheme must be http".to_owned();
            return Err(LineError::Endpoint(self.endpoint.clone(), cause));
        }
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keepalive)
            .keep_alive_timeout(self.keepalive / 2)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES))
    }
}

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The endpoint can't be understood.
    #[error("endpoint {0:?}: {1}")]
    Endpoint(String, String),
    /// Nobody answers there.
    #[error("{0}: {1}")]
    Connect(String, String),
    /// Somebody answers, but takes no batches.
    #[error("{0}: {1}")]
    Refused(String, String),
}

/// Why a batch wasn't taken by the line; it is still the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The line has enough to do; acks will come.
    Full,
    /// The line is broken.
    Broken,
}

/// An open stream.
pub struct Line {
    batches: mpsc::Sender<Bytes>,
    acks: Streaming<Ack>,
    _channel: Channel,
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

impl Line {
    /// Connects and opens the stream.
    ///
    /// # Errors
    /// With the endpoint and the cause in words.
    pub async fn connect(config: &LineConfig) -> Result<Self, LineError> {
        let to = || config.endpoint.clone();
        let mut channel = config
            .channel()?
            .connect()
            .await
            .map_err(|e| LineError::Connect(to(), root_cause(&e)))?;
        let (batches, queue) = mpsc::channel(QUEUED_BATCHES);
        let request = http::Request::post(INGEST_PATH)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::new(BatchBody(queue)))
            .map_err(|e| LineError::Endpoint(to(), e.to_string()))?;
        let broken = |e: tonic::transport::Error| LineError::Connect(to(), root_cause(&e));
        std::future::poll_fn(|cx| Service::poll_ready(&mut channel, cx)).await.map_err(broken)?;
        let response = Service::call(&mut channel, request).await.map_err(broken)?;
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Err(LineError::Refused(to(), status.message().to_owned()));
        }
        let (head, body) = response.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(LineError::Refused(to(), head.status.to_string()));
        }
        let decoder = tonic_prost::ProstCodec::<Ack, Ack>::default().decoder();
        Ok(Self {
            batches,
            acks: Streaming::new_response(decoder, body, head.status, None, None),
            _channel: channel,
        })
    }

    /// Hands a batch to the line.
    ///
    /// # Errors
    /// When the line is full or broken; the batch wasn't taken.
    pub fn send(&self, batch: &EncodedBatch) -> Result<(), NotSent> {
        self.send_framed(batch.framed())
    }

    /// Hands bytes that stand behind their gRPC prefix to the line.
    ///
    /// # Errors
    /// As [`Line::send`].
    pub fn send_framed(&self, framed: Bytes) -> Result<(), NotSent> {
        self.batches.try_send(framed).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => NotSent::Full,
            mpsc::error::TrySendError::Closed(_) => NotSent::Broken,
        })
    }

    /// Waits until the line takes another batch.
    ///
    /// # Errors
    /// When the line is broken.
    pub async fn ready(&self) -> Result<(), NotSent> {
        self.batches.reserve().await.map(drop).map_err(|_| NotSent::Broken)
    }

    /// The next ack, when there is one; an error when the line is broken.
    pub fn poll_ack(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ack, String>> {
        Pin::new(&mut self.acks).poll_next(cx).map(|ack| match ack {
            Some(Ok(ack)) => Ok(ack),
            Some(Err(status)) => Err(status.message().to_owned()),
            None => Err("the peer closed the stream".to_owned()),
        })
    }

    /// Waits for an ack.
    ///
    /// # Errors
    /// When the line is broken.
    pub async fn ack(&mut self) -> Result<Ack, String> {
        std::future::poll_fn(|cx| self.poll_ack(cx)).await
    }
}

/// What an error says at its root: "connection refused" rather than "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
