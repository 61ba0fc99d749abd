//! OTLP/HTTP with protobuf.

use std::io::Write as _;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message as _;

use super::config::{OtlpClientConfig, OtlpCompression};
use super::outcome::{OtlpExported, OtlpFailure};
use crate::dialer::{Connector, root_cause};
use crate::otlp::OtlpSignal;
use crate::otlp_out::OtlpRequest;
use crate::otlp_response::OtlpResponse;
use crate::retry_info::RpcStatus;

/// The largest response that is read.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;
/// The longest wait that a receiver can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A client over HTTP.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<Connector, Body>,
    /// For logs, traces and metrics.
    uris: [Uri; 3],
    headers: HeaderMap,
    compression: OtlpCompression,
    timeout: Duration,
}

impl HttpClient {
    pub(super) fn new(config: &OtlpClientConfig) -> Result<Self, String> {
        let base = config.uri()?;
        let signal_uri = |signal: &str| -> Result<Uri, String> {
            if config.is_signal_endpoint {
                return Ok(base.clone());
            }
            let path = format!("{}/v1/{signal}", base.path().trim_end_matches('/'));
            let mut parts = base.clone().into_parts();
            parts.path_and_query = Some(path.parse().map_err(|e| format!("endpoint: {e}"))?);
            Uri::from_parts(parts).map_err(|e| format!("endpoint: {e}"))
        };
        // The time limit of a request bounds that of its connection.
        let connector = config.connector(&base, "http/1.1")?;
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            uris: [signal_uri("logs")?, signal_uri("traces")?, signal_uri("metrics")?],
            headers: config.header_map()?,
            compression: config.compression,
            timeout: config.timeout,
        })
    }

    pub(super) async fn export(&self, request: &OtlpRequest) -> Result<OtlpExported, OtlpFailure> {
        let uri = match request.signal {
            OtlpSignal::Logs => &self.uris[0],
            OtlpSignal::Traces => &self.uris[1],
            OtlpSignal::Metrics => &self.uris[2],
        };
        let (body, encoding) = compress(&request.bytes, self.compression);
        let mut message = Request::post(uri.clone());
        if let Some(headers) = message.headers_mut() {
            headers.extend(self.headers.clone());
        }
        message = message.header(CONTENT_TYPE, "application/x-protobuf");
        if let Some(encoding) = encoding {
            message = message.header(CONTENT_ENCODING, encoding);
        }
        let message =
            message.body(Body::from(body)).map_err(|e| OtlpFailure::Refused(e.to_string()))?;
        let answer = async {
            let response = self.client.request(message).await;
            let response = response.map_err(|e| OtlpFailure::connection(root_cause(&e)))?;
            read(response.map(Body::new)).await
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(OtlpFailure::connection(format!("no answer within {:?}", self.timeout))),
        }
    }
}

async fn read(response: Response<Body>) -> Result<OtlpExported, OtlpFailure> {
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, MAX_RESPONSE_BYTES).await;
    if head.status.is_success() {
        // A response that can't be read says that the request was taken.
        let response = OtlpResponse::decode(body.unwrap_or_default()).unwrap_or_default();
        return Ok(response.into());
    }
    let after = head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let after = after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    // An error has a google.rpc.Status in protobuf, or any text.
    let body = body.unwrap_or_default();
    let text = match RpcStatus::decode(&body[..]) {
        Ok(status) if !status.message.is_empty() => status.message,
        _ => String::from_utf8_lossy(&body).into_owned(),
    };
    Err(OtlpFailure::of_http(head.status, &text, after))
}

/// The body, and its encoding. Writing into memory can't fail.
fn compress(bytes: &Bytes, compression: OtlpCompression) -> (Bytes, Option<&'static str>) {
    match compression {
        OtlpCompression::None => (bytes.clone(), None),
        OtlpCompression::Gzip => {
            let out = Vec::with_capacity(bytes.len() / 4);
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
            match encoder.write_all(bytes).and_then(|()| encoder.finish()) {
                Ok(packed) => (packed.into(), Some("gzip")),
                Err(_) => (bytes.clone(), None),
            }
        }
        OtlpCompression::Zstd => match zstd::bulk::compress(bytes, 1) {
            Ok(packed) => (packed.into(), Some("zstd")),
            Err(_) => (bytes.clone(), None),
        },
    }
}
