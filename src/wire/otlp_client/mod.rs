//! Client of an OTLP receiver (opentelemetry.io, "OTLP Specification" 1.x): a request is answered,
//! or the failure says whether the same request can succeed later.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`OtlpClientConfig`]: where to and how |
//! | `outcome.rs` | [`OtlpExported`], [`OtlpFailure`]: what the receiver says |
//! | `grpc.rs` | OTLP/gRPC |
//! | `http.rs` | OTLP/HTTP with protobuf |

mod config;
mod grpc;
mod http;
mod outcome;

use grpc::GrpcClient;
use http::HttpClient;

pub use config::{OtlpClientConfig, OtlpCompression, OtlpProtocol};
pub use outcome::{OtlpExported, OtlpFailure};

use crate::otlp_out::OtlpRequest;

/// A client. It connects with the first request, and again after a lost connection.
#[derive(Clone)]
pub enum OtlpClient {
    /// Over gRPC.
    Grpc(Box<GrpcClient>),
    /// Over HTTP.
    Http(Box<HttpClient>),
}

impl OtlpClient {
    /// A client that isn't connected yet. To be called inside a runtime of tokio.
    ///
    /// # Errors
    /// When the endpoint or a header is invalid.
    pub fn new(config: &OtlpClientConfig) -> Result<Self, String> {
        config.check()?;
        Ok(match config.protocol {
            OtlpProtocol::Grpc => Self::Grpc(Box::new(GrpcClient::new(config)?)),
            OtlpProtocol::Http => Self::Http(Box::new(HttpClient::new(config)?)),
        })
    }

    /// Sends a request and waits for the answer, at most for the configured time.
    ///
    /// # Errors
    /// When the receiver hasn't taken it.
    pub async fn export(&self, request: &OtlpRequest) -> Result<OtlpExported, OtlpFailure> {
        match self {
            Self::Grpc(client) => client.export(request).await,
            Self::Http(client) => client.export(request).await,
        }
    }
}
