//! Where to export, and how.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::dialer::Connector;
use crate::tls::{ClientTls, TlsClientConfig};

/// The transport.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
pub enum OtlpProtocol {
    /// OTLP/gRPC.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP/HTTP with protobuf.
    #[serde(rename = "http/protobuf", alias = "http")]
    Http,
}

/// How requests are compressed.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OtlpCompression {
    /// Not at all.
    None,
    /// With gzip, which every receiver takes.
    #[default]
    Gzip,
    /// With zstd.
    Zstd,
}

/// Where to export, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpClientConfig {
    /// `http://host:port`, or `https://host:port` with TLS. Over HTTP, `/v1/logs` and so on are
    /// appended to its path.
    pub endpoint: String,
    /// Whether the endpoint is used as it is over HTTP, without the signal's path.
    pub is_signal_endpoint: bool,
    /// The transport.
    pub protocol: OtlpProtocol,
    /// TLS of an endpoint that is `https://`; by default with the authorities of the system.
    pub tls: Option<TlsClientConfig>,
    /// Headers of each request: name and value.
    pub headers: Vec<(String, String)>,
    /// How requests are compressed.
    pub compression: OtlpCompression,
    /// Time limit of a request.
    pub timeout: Duration,
}

impl OtlpClientConfig {
    /// Validates endpoint and headers.
    ///
    /// # Errors
    /// With the invalid part; never with the value of a header.
    pub fn check(&self) -> Result<(), String> {
        let uri = self.uri()?;
        let has_tls = uri.scheme_str() == Some("https");
        match &self.tls {
            Some(_) if !has_tls => return Err("tls: the endpoint isn't https://".into()),
            Some(tls) => tls.check().map_err(|e| format!("tls.{e}"))?,
            None => {}
        }
        // Without a file of authorities, it depends on the system whether TLS is possible.
        if has_tls && self.tls.as_ref().is_none_or(|tls| tls.ca.is_none()) {
            ClientTls::new(&TlsClientConfig::default(), &[]).map_err(|e| e.to_string())?;
        }
        self.header_map().map(drop)
    }

    /// Opens the connections.
    pub(super) fn connector(&self, uri: &Uri, protocol: &str) -> Result<Connector, String> {
        let has_tls = uri.scheme_str() == Some("https");
        let config = self.tls.clone().unwrap_or_default();
        let tls = has_tls.then(|| ClientTls::new(&config, &[protocol])).transpose();
        tls.map(Connector::tcp).map_err(|e| e.to_string())
    }

    /// The endpoint.
    pub(super) fn uri(&self) -> Result<Uri, String> {
        let text = match self.endpoint.contains("://") {
            true => self.endpoint.clone(),
            false => format!("http://{}", self.endpoint),
        };
        let uri: Uri = text.parse().map_err(|e| format!("endpoint: {e}"))?;
        let has_port = uri.port_u16().is_some() || self.protocol == OtlpProtocol::Http;
        match uri.scheme_str() {
            _ if uri.host().is_none_or(str::is_empty) => Err("endpoint: has no host".into()),
            _ if uri.authority().is_some_and(|a| a.as_str().contains('@')) => {
                Err("endpoint: user and password belong into headers".into())
            }
            Some("http" | "https") if has_port => Ok(uri),
            Some("http" | "https") => Err("endpoint: has no port".into()),
            _ => Err("endpoint: the scheme must be http or https".into()),
        }
    }

    /// The headers.
    pub(super) fn header_map(&self) -> Result<HeaderMap, String> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let header: HeaderName =
                name.parse().map_err(|_| format!("headers: {name:?} is no header name"))?;
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("headers: the value of {name:?} isn't allowed in a header"))?;
            value.set_sensitive(true);
            map.append(header, value);
        }
        Ok(map)
    }
}
