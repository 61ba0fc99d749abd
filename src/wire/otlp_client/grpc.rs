//! OTLP/gRPC.

use bytes::{BufMut as _, Bytes};
use http::HeaderMap;
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::config::{OtlpClientConfig, OtlpCompression};
use super::outcome::{OtlpExported, OtlpFailure};
use crate::dialer::root_cause;
use crate::otlp::OtlpSignal;
use crate::otlp_out::OtlpRequest;
use crate::otlp_response::OtlpResponse;

/// A client over gRPC.
#[derive(Clone)]
pub struct GrpcClient {
    grpc: Grpc<Channel>,
    metadata: HeaderMap,
}

impl GrpcClient {
    pub(super) fn new(config: &OtlpClientConfig) -> Result<Self, String> {
        let uri = config.uri()?;
        let connector = config.connector(&uri, "h2")?;
        let endpoint = Endpoint::from(uri)
            .connect_timeout(config.timeout)
            .timeout(config.timeout)
            .tcp_nodelay(true);
        let grpc = Grpc::new(endpoint.connect_with_connector_lazy(connector));
        let grpc = match config.compression {
            OtlpCompression::None => grpc,
            OtlpCompression::Gzip => grpc.send_compressed(CompressionEncoding::Gzip),
            OtlpCompression::Zstd => grpc.send_compressed(CompressionEncoding::Zstd),
        };
        let grpc = grpc
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        Ok(Self { grpc, metadata: config.header_map()? })
    }

    pub(super) async fn export(&self, request: &OtlpRequest) -> Result<OtlpExported, OtlpFailure> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|e| OtlpFailure::connection(root_cause(&e)))?;
        let path = PathAndQuery::from_static(match request.signal {
            OtlpSignal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            OtlpSignal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            OtlpSignal::Metrics => {
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            }
        });
        let mut message = Request::new(request.bytes.clone());
        *message.metadata_mut() = MetadataMap::from_headers(self.metadata.clone());
        let response = grpc.unary(message, path, EncodedCodec).await;
        let response = response.map_err(|status| OtlpFailure::of_status(&status))?;
        Ok(response.into_inner().into())
    }
}

/// Codec of requests that are encoded already.
#[derive(Clone, Copy, Debug, Default)]
struct EncodedCodec;

impl Codec for EncodedCodec {
    type Encode = Bytes;
    type Decode = OtlpResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for EncodedCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(request);
        Ok(())
    }
}

impl Decoder for EncodedCodec {
    type Item = OtlpResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<OtlpResponse>, Status> {
        // A response that can't be read says that the request was taken.
        Ok(Some(OtlpResponse::decode(from).unwrap_or_default()))
    }
}
