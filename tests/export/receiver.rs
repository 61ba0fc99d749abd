//! A receiver of OTLP, over gRPC and HTTP, that answers as a test says.

use std::collections::VecDeque;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use opentelemetry_proto::tonic::collector::logs::v1 as logs;
use opentelemetry_proto::tonic::collector::metrics::v1 as metrics;
use opentelemetry_proto::tonic::collector::trace::v1 as traces;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::{Request, Response, Status};

/// An answer to a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The request isn't taken.
    Status(Status),
    /// It is taken, except for this many records.
    Rejected(i64),
}

#[derive(Default)]
struct State_ {
    logs: Vec<ResourceLogs>,
    traces: Vec<ResourceSpans>,
    metrics: Vec<ResourceMetrics>,
    headers: Vec<HeaderMap>,
    answers: VecDeque<Answer>,
    /// Requests with more records are too large.
    max_records: Option<usize>,
}

/// A receiver, in a thread of its own until the process ends.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    state: Arc<Mutex<State_>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into())
    }

    /// Starts a receiver whose gRPC door is at this address.
    pub(crate) fn start_on(grpc: SocketAddr) -> Self {
        let bind = |address: SocketAddr| {
            let listener = std::net::TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let (grpc, http) = (bind(grpc), bind(([127, 0, 0, 1], 0).into()));
        let receiver = Self {
            grpc: grpc.local_addr().unwrap(),
            http: http.local_addr().unwrap(),
            state: Arc::default(),
        };
        let service = receiver.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let grpc = tokio::net::TcpListener::from_std(grpc).unwrap();
                let http = tokio::net::TcpListener::from_std(http).unwrap();
                tokio::spawn(axum::serve(http, service.pages()).into_future());
                service.serve(grpc).await;
            });
        });
        receiver
    }

    async fn serve(self, listener: tokio::net::TcpListener) {
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        macro_rules! service {
            ($server:path) => {
                <$server>::new(self.clone())
                    .accept_compressed(Gzip)
                    .accept_compressed(Zstd)
                    .max_decoding_message_size(64 << 20)
            };
        }
        let server = tonic::transport::Server::builder()
            .add_service(service!(logs::logs_service_server::LogsServiceServer<Self>))
            .add_service(service!(traces::trace_service_server::TraceServiceServer<Self>))
            .add_service(service!(metrics::metrics_service_server::MetricsServiceServer<Self>));
        server.serve_with_incoming(incoming).await.unwrap();
    }

    fn pages(&self) -> axum::Router {
        axum::Router::new().fallback(axum::routing::post(page)).with_state(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the next requests like this.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state().answers.extend(answers);
    }

    /// Refuses requests with more records as too large.
    pub(crate) fn limit(&self, records: usize) {
        self.state().max_records = Some(records);
    }

    pub(crate) fn logs(&self) -> Vec<ResourceLogs> {
        self.state().logs.clone()
    }

    pub(crate) fn traces(&self) -> Vec<ResourceSpans> {
        self.state().traces.clone()
    }

    pub(crate) fn metrics(&self) -> Vec<ResourceMetrics> {
        self.state().metrics.clone()
    }

    /// The headers of each request that was taken.
    pub(crate) fn headers(&self) -> Vec<HeaderMap> {
        self.state().headers.clone()
    }

    pub(crate) fn log_records(&self) -> Vec<LogRecord> {
        log_records(&self.logs())
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let scopes = self.traces().into_iter().flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// Takes a request with so many records, or not. Returns how many it rejects.
    fn take(&self, headers: &HeaderMap, records: usize) -> Result<i64, Status> {
        let mut state = self.state();
        if state.max_records.is_some_and(|max| records > max) {
            return Err(Status::resource_exhausted("too many records"));
        }
        match state.answers.pop_front() {
            Some(Answer::Status(status)) => Err(status),
            other => {
                state.headers.push(headers.clone());
                Ok(if let Some(Answer::Rejected(n)) = other { n } else { 0 })
            }
        }
    }

    fn take_logs(
        &self,
        headers: &HeaderMap,
        request: logs::ExportLogsServiceRequest,
    ) -> Result<logs::ExportLogsServiceResponse, Status> {
        let rejected = self.take(headers, log_records(&request.resource_logs).len())?;
        if rejected == 0 {
            self.state().logs.extend(request.resource_logs);
        }
        let partial = logs::ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: "not these".into(),
        };
        let partial_success = (rejected > 0).then_some(partial);
        Ok(logs::ExportLogsServiceResponse { partial_success })
    }
}

fn log_records(resources: &[ResourceLogs]) -> Vec<LogRecord> {
    let scopes = resources.iter().flat_map(|resource| &resource.scope_logs);
    scopes.flat_map(|scope| scope.log_records.clone()).collect()
}

#[tonic::async_trait]
impl logs::logs_service_server::LogsService for Receiver {
    async fn export(
        &self,
        request: Request<logs::ExportLogsServiceRequest>,
    ) -> Result<Response<logs::ExportLogsServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        self.take_logs(&headers, request.into_inner()).map(Response::new)
    }
}

#[tonic::async_trait]
impl traces::trace_service_server::TraceService for Receiver {
    async fn export(
        &self,
        request: Request<traces::ExportTraceServiceRequest>,
    ) -> Result<Response<traces::ExportTraceServiceResponse>, Status> {
        self.take(&request.metadata().clone().into_headers(), 1)?;
        self.state().traces.extend(request.into_inner().resource_spans);
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl metrics::metrics_service_server::MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<metrics::ExportMetricsServiceRequest>,
    ) -> Result<Response<metrics::ExportMetricsServiceResponse>, Status> {
        self.take(&request.metadata().clone().into_headers(), 1)?;
        self.state().metrics.extend(request.into_inner().resource_metrics);
        Ok(Response::new(Default::default()))
    }
}

/// A request over HTTP.
async fn page(
    State(receiver): State<Receiver>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let body = match headers.get("content-encoding").map(|value| value.to_str().unwrap()) {
        Some("gzip") => {
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut out).unwrap();
            out
        }
        Some("zstd") => zstd::stream::decode_all(&body[..]).unwrap(),
        None => body.to_vec(),
        Some(other) => panic!("content-encoding {other}"),
    };
    let response = match uri.path() {
        "/v1/logs" => {
            let request = logs::ExportLogsServiceRequest::decode(&body[..]).unwrap();
            receiver.take_logs(&headers, request).map(|response| response.encode_to_vec())
        }
        "/v1/traces" => receiver.take(&headers, 1).map(|_| {
            let request = traces::ExportTraceServiceRequest::decode(&body[..]).unwrap();
            receiver.state().traces.extend(request.resource_spans);
            Vec::new()
        }),
        "/v1/metrics" => receiver.take(&headers, 1).map(|_| {
            let request = metrics::ExportMetricsServiceRequest::decode(&body[..]).unwrap();
            receiver.state().metrics.extend(request.resource_metrics);
            Vec::new()
        }),
        other => panic!("{other}"),
    };
    match response {
        Ok(response) => (StatusCode::OK, response),
        Err(status) if status.code() == tonic::Code::ResourceExhausted => {
            (StatusCode::PAYLOAD_TOO_LARGE, status.message().into())
        }
        Err(status) => (StatusCode::SERVICE_UNAVAILABLE, status.message().into()),
    }
}
