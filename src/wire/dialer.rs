//! Connections of gRPC clients: over TCP, with TLS where the endpoint is `https://`, or over a unix
//! socket, with a token where there is one.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use super::first_answer::FirstAnswer;
use super::tls::{
    ClientTls, Reloaded, TlsClientConfig, TlsError, expiry_warning, handshake_error, resolve,
    secret_text,
};

/// The prefixes of an endpoint with TLS, and of one of a unix socket.
pub(crate) const TLS: &str = "https://";
pub(crate) const UNIX: &str = "unix:";

/// How a client authenticates the server, and itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAccess {
    /// TLS of endpoints that are `https://`.
    pub tls: Option<TlsClientConfig>,
    /// The file of the token that is sent.
    pub token_file: Option<PathBuf>,
}

impl ClientAccess {
    /// Validates the values for endpoints, by their keys.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid.
    pub fn check<'e>(
        &self,
        endpoints: impl IntoIterator<Item = (&'e str, &'e str)>,
    ) -> Result<(), String> {
        if let Some(tls) = &self.tls {
            tls.check().map_err(|e| format!("tls.{e}"))?;
        }
        for (key, endpoint) in endpoints {
            parse(endpoint).map_err(|cause| format!("{key}: {endpoint:?}: {cause}"))?;
            let has_tls = endpoint.starts_with(TLS);
            if self.tls.is_some() && !has_tls && !endpoint.starts_with(UNIX) {
                return Err(format!("{key}: {endpoint:?} has no TLS, but tls is set: use {TLS}"));
            }
            // Without a file of authorities, it depends on the system whether TLS is possible.
            if has_tls && self.tls.as_ref().is_none_or(|tls| tls.ca.is_none()) {
                ClientTls::new(&TlsClientConfig::default(), &[])
                    .map_err(|error| format!("{key}: {endpoint:?}: {error}"))?;
            }
        }
        Ok(())
    }

    /// Opens the files, as a start does. Returns warnings, by key, about those that can be used
    /// but won't be accepted. `now`: the time as `YYYYMMDDHHMMSS` in UTC.
    ///
    /// # Errors
    /// The key, the file that can't be used, and why.
    pub fn check_files(&self, now: &str) -> Result<Vec<String>, String> {
        Dialer::new(&Self { tls: None, token_file: self.token_file.clone() }, [])
            .map_err(|e| format!("token_file: {e}"))?;
        let Some(tls) = &self.tls else { return Ok(Vec::new()) };
        ClientTls::new(tls, &[]).map_err(|e| format!("tls: {e}"))?;
        let expired = tls.cert.as_deref().map(|path| expiry_warning(path, now)).transpose();
        let expired = expired.map_err(|e| format!("tls.cert: {e}"))?.flatten();
        Ok(expired.map(|warning| format!("tls.cert: {warning}")).into_iter().collect())
    }
}

/// The address to connect to, as tonic has it, and the path of a unix socket.
fn parse(endpoint: &str) -> Result<(Endpoint, Option<PathBuf>), String> {
    let (uri, path) = match endpoint.strip_prefix(UNIX) {
        Some(path) if path.starts_with('/') => ("http://localhost".to_owned(), Some(path.into())),
        Some(_) => return Err("the path of a unix socket must be absolute".into()),
        None if endpoint.contains("://") => (endpoint.to_owned(), None),
        None => (format!("http://{endpoint}"), None),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|e| e.to_string())?;
    match endpoint.uri().scheme_str() {
        Some("http" | "https") => Ok((endpoint, path)),
        _ => Err("the scheme must be http or https".into()),
    }
}

/// Connects clients. Clones share the files, which are read again when they change.
#[derive(Clone, Default)]
pub struct Dialer {
    tls: Option<ClientTls>,
    token: Option<Arc<Reloaded<HeaderValue>>>,
    answer_timeout: Option<Duration>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither certificates nor the token.
        let (tls, token) = (self.tls.is_some(), self.token.is_some());
        f.debug_struct("Dialer").field("tls", &tls).field("token", &token).finish()
    }
}

impl Dialer {
    /// Reads the files, those of TLS if one of the endpoints needs them.
    ///
    /// # Errors
    /// With the file that can't be used.
    pub fn new<'e>(
        access: &ClientAccess,
        endpoints: impl IntoIterator<Item = &'e str>,
    ) -> Result<Self, TlsError> {
        let has_tls = endpoints.into_iter().any(|endpoint| endpoint.starts_with(TLS));
        let config = access.tls.clone().unwrap_or_default();
        let tls = has_tls.then(|| ClientTls::new(&config, &["h2"])).transpose()?;
        let token = access.token_file.as_deref().map(|path| {
            let path = resolve(path);
            let read_from = path.clone();
            let read = move || {
                let invalid = |cause: &str| TlsError {
                    file: read_from.display().to_string(),
                    cause: cause.into(),
                };
                let text = secret_text(&read_from)?;
                let token = text.trim();
                if token.is_empty() || token.contains(char::is_whitespace) {
                    return Err(invalid("isn't one token"));
                }
                let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| invalid("has characters that no header may have"))?;
                value.set_sensitive(true);
                Ok(value)
            };
            Reloaded::new(vec![path], read).map(Arc::new)
        });
        Ok(Self { tls, token: token.transpose()?, answer_timeout: None })
    }

    /// Limits the time for the first bytes of a server, which must be those of HTTP/2.
    #[must_use]
    pub fn with_answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = Some(timeout);
        self
    }

    /// The header with the token, as the file has it now.
    pub(crate) fn token(&self) -> Option<HeaderValue> {
        self.token.as_ref().map(|token| HeaderValue::clone(&token.look()))
    }

    /// Connects to an endpoint. `settings`: those of the connection.
    ///
    /// # Errors
    /// When the endpoint is invalid, or with the cause of the failure.
    pub async fn connect(
        &self,
        endpoint: &str,
        settings: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<AuthorizedChannel, DialError> {
        let (address, path) = parse(endpoint).map_err(DialError::Endpoint)?;
        let answer_timeout = self.answer_timeout;
        let connector = Connector { tls: self.tls.clone(), path, answer_timeout };
        let connected = settings(address).connect_with_connector(connector).await;
        let channel = connected.map_err(|error| DialError::Connect(root_cause(&error)))?;
        Ok(AuthorizedChannel { channel, token: self.token.clone() })
    }
}

/// Why a client isn't connected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The endpoint is invalid.
    #[error("{0}")]
    Endpoint(String),
    /// No connection.
    #[error("{0}")]
    Connect(String),
}

/// The innermost cause of an error: "connection refused" rather than "transport error".
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A channel whose requests have the token.
#[derive(Clone)]
pub struct AuthorizedChannel {
    channel: Channel,
    token: Option<Arc<Reloaded<HeaderValue>>>,
}

impl Service<http::Request<tonic::body::Body>> for AuthorizedChannel {
    type Response = http::Response<tonic::body::Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<tonic::body::Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, cx)
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::clone(&token.look()));
        }
        Service::call(&mut self.channel, request)
    }
}

/// Opens connections.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: Option<ClientTls>,
    /// Of a unix socket.
    path: Option<PathBuf>,
    /// The time for the first bytes of an HTTP/2 server.
    answer_timeout: Option<Duration>,
}

impl Connector {
    /// Opens connections to a unix socket, or over TCP.
    pub(crate) fn new(tls: Option<ClientTls>, path: Option<PathBuf>) -> Self {
        Self { tls, path, answer_timeout: None }
    }

    /// Opens connections over TCP, with TLS to addresses that are `https://`.
    pub(crate) fn tcp(tls: Option<ClientTls>) -> Self {
        Self { tls, path: None, answer_timeout: None }
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<ClientStream>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<ClientStream>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let (tls, path) = (self.tls.clone(), self.path.clone());
        let answer_timeout = self.answer_timeout;
        Box::pin(async move {
            let stream = match path {
                Some(path) => Stream::Unix(connect_unix(&path).await?),
                None => connect_tcp(&uri, tls).await?,
            };
            let first_answer = answer_timeout.map(FirstAnswer::within);
            Ok(TokioIo::new(ClientStream { stream, first_answer }))
        })
    }
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await.map_err(|error| {
        // A file that is no socket refuses connections, too.
        let is_other = std::fs::metadata(path).is_ok_and(|file| !file.file_type().is_socket());
        match is_other && error.kind() == io::ErrorKind::ConnectionRefused {
            true => io::Error::new(error.kind(), "it is no socket"),
            false => error,
        }
    })
}

async fn connect_tcp(uri: &Uri, tls: Option<ClientTls>) -> io::Result<Stream> {
    let invalid = |cause: &str| io::Error::new(io::ErrorKind::InvalidInput, cause);
    let host = uri.host().ok_or_else(|| invalid("no host"))?;
    let has_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if has_tls { 443 } else { 80 });
    let plain_host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((plain_host, port)).await?;
    stream.set_nodelay(true)?;
    if !has_tls {
        return Ok(Stream::Tcp(stream));
    }
    let tls = tls.ok_or_else(|| invalid("TLS isn't configured"))?;
    let name = tls.server_name(host).ok_or_else(|| invalid("the host is no name for TLS"))?;
    let connected = TlsConnector::from(tls.look()).connect(name, stream).await;
    Ok(Stream::Tls(Box::new(connected.map_err(handshake_error)?)))
}

/// A connection of a client.
pub(crate) struct ClientStream {
    stream: Stream,
    /// `None`: the server may begin with anything.
    first_answer: Option<FirstAnswer>,
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Calls a method of the stream.
macro_rules! stream {
    ($client:expr, $stream:ident => $call:expr) => {
        match $client {
            Stream::Tcp($stream) => $call,
            Stream::Tls($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl ClientStream {
    fn result<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &self.first_answer {
            Some(first) => first.result(done),
            None => done,
        }
    }
}

impl Connection for ClientStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = stream!(&mut self.stream, s => Pin::new(s).poll_read(cx, buffer));
        match &mut self.first_answer {
            Some(first) => first.read(cx, read, buffer, before),
            None => read,
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = stream!(&mut self.stream, s => Pin::new(s).poll_write(cx, bytes));
        self.result(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = stream!(&mut self.stream, s => Pin::new(s).poll_flush(cx));
        self.result(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        stream!(&mut self.stream, s => Pin::new(s).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = stream!(&mut self.stream, s => Pin::new(s).poll_write_vectored(cx, slices));
        self.result(written)
    }

    fn is_write_vectored(&self) -> bool {
        stream!(&self.stream, s => s.is_write_vectored())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_before_they_are_used() {
        let ca = TlsClientConfig { ca: Some("/ca.pem".into()), ..TlsClientConfig::default() };
        let with = |tls: Option<TlsClientConfig>| ClientAccess { tls, token_file: None };
        let check = |access: &ClientAccess, endpoint| access.check([("endpoint", endpoint)]);
        for endpoint in ["h:1", "http://h:1", "unix:/run/x"] {
            assert_eq!(check(&with(None), endpoint), Ok(()));
        }
        assert_eq!(check(&with(Some(ca.clone())), "https://h:1"), Ok(()));
        for endpoint in ["unix:x", "ftp://h:1", "h h"] {
            let error = check(&with(None), endpoint).unwrap_err();
            assert!(error.starts_with("endpoint: "), "{error}");
        }
        let error = check(&with(Some(ca.clone())), "http://h:1").unwrap_err();
        assert!(error.contains("has no TLS, but tls is set"), "{error}");
        let half = TlsClientConfig { cert: Some("c".into()), ..ca };
        assert!(check(&with(Some(half)), "https://h:1").unwrap_err().starts_with("tls.key: "));
    }
}
