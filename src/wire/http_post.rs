//! Requests to web hooks: JSON by POST, over HTTP/1.1, with or without TLS. Redirects aren't
//! followed: the next host would get the credentials.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::dialer::{Connector, root_cause};
use super::secret_file::SecretFile;
use super::tls::{ClientTls, TlsClientConfig};
use tapio_core::clock;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The longest wait that a receiver can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);
/// The longest part of an answer in a cause, characters.
const MAX_CAUSE_CHARS: usize = 200;
/// The shortest part of a URL's path that may be a secret.
const MIN_SECRET_CHARS: usize = 8;

/// A receiver of requests.
#[derive(Clone)]
pub struct HttpPostConfig {
    /// `http://` or `https://`, host, port and path. It may contain secrets.
    pub url: String,
    /// TLS of a URL that is `https://`; by default with the authorities of the system.
    pub tls: Option<TlsClientConfig>,
    /// The file of a token that is sent as `Authorization: Bearer`.
    pub token_file: Option<PathBuf>,
    /// Headers of each request: name and value.
    pub headers: Vec<(String, String)>,
    /// Time limit of a request.
    pub timeout: Duration,
    /// Whether a URL beyond this machine may be `http://`.
    pub insecure: bool,
}

/// Why a request wasn't taken. The cause has no secret of the configuration in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostFailure {
    /// The same request may succeed later.
    #[error("{cause}")]
    Retry {
        /// The cause.
        cause: String,
        /// The least time to wait, if the receiver asked for one.
        after: Option<Duration>,
    },
    /// The same request will fail again.
    #[error("{0}")]
    Refused(String),
}

impl HttpPostConfig {
    /// Validates the values.
    ///
    /// # Errors
    /// The key of an invalid value, and why it is invalid; never a part of the URL's path.
    pub fn check(&self) -> Result<(), String> {
        let uri = self.uri()?;
        let has_tls = uri.scheme_str() == Some("https");
        if !has_tls && !self.insecure && !is_local(uri.host().unwrap_or_default()) {
            return Err("url: http:// to another machine shows its content to the network: use \
                        https://, or set insecure"
                .into());
        }
        match &self.tls {
            Some(_) if !has_tls => return Err("tls: the url isn't https://".into()),
            Some(tls) => tls.check().map_err(|e| format!("tls.{e}"))?,
            None => {}
        }
        if self.timeout.is_zero() {
            return Err("timeout: must be greater than zero".into());
        }
        self.header_map().map(drop)
    }

    fn uri(&self) -> Result<Uri, String> {
        let uri: Uri = self.url.parse().map_err(|e| format!("url: {e}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("url: must begin with http:// or https://".into());
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err("url: has no host".into());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("url: user and password belong into headers".into());
        }
        Ok(uri)
    }

    fn header_map(&self) -> Result<HeaderMap, String> {
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

    /// The host and port, for logs and status.
    #[must_use]
    pub fn host(&self) -> String {
        let uri = self.uri().ok();
        uri.and_then(|uri| uri.authority().map(ToString::to_string)).unwrap_or_default()
    }

    /// The texts that no message may have: parts of the URL, and values of headers.
    fn secrets(&self) -> Vec<String> {
        let path = self.uri().ok().and_then(|uri| uri.path_and_query().cloned());
        let path = path.as_ref().map(|path| path.as_str()).unwrap_or_default();
        let parts = path.split(['/', '?', '&', '=']);
        let values = self.headers.iter().flat_map(|(_, value)| value.split(' '));
        let long = parts.chain(values).filter(|part| part.chars().count() >= MIN_SECRET_CHARS);
        long.map(str::to_owned).collect()
    }
}

/// Whether a host is this machine.
fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Sends requests to one receiver. It connects with the first request, and again after a lost
/// connection.
#[derive(Clone)]
pub struct HttpPoster {
    client: Client<Connector, Body>,
    uri: Uri,
    headers: HeaderMap,
    token: Option<SecretFile>,
    timeout: Duration,
    secrets: Vec<String>,
}

impl fmt::Debug for HttpPoster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the path nor the headers.
        f.debug_struct("HttpPoster").field("host", &self.uri.host()).finish_non_exhaustive()
    }
}

impl HttpPoster {
    /// A sender that isn't connected yet. To be called inside a runtime of tokio.
    ///
    /// # Errors
    /// When a value is invalid, or a file can't be used.
    pub fn new(config: &HttpPostConfig) -> Result<Self, String> {
        config.check()?;
        let uri = config.uri()?;
        let tls = config.tls.clone().unwrap_or_default();
        let tls = (uri.scheme_str() == Some("https")).then(|| ClientTls::new(&tls, &["http/1.1"]));
        let tls = tls.transpose().map_err(|e| format!("tls: {e}"))?;
        let token = config.token_file.as_deref().map(SecretFile::new).transpose();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(Connector::tcp(tls)),
            uri,
            headers: config.header_map()?,
            token: token.map_err(|e| format!("token_file: {e}"))?,
            timeout: config.timeout,
            secrets: config.secrets(),
        })
    }

    /// Sends a body of JSON to the URL, with `path` after its own, and waits for the answer, at
    /// most for the configured time. Returns the answer's body.
    ///
    /// # Errors
    /// When the receiver hasn't taken it.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Bytes, PostFailure> {
        let request = self.request(path, headers, body).map_err(PostFailure::Refused)?;
        let answer = async {
            let retry = |e: &dyn std::error::Error| self.retry(root_cause(e));
            let response = self.client.request(request).await.map_err(|e| retry(&e))?;
            let (head, body) = response.into_parts();
            let body = axum::body::to_bytes(Body::new(body), MAX_ANSWER_BYTES).await;
            match (head.status.is_success(), body) {
                // The answer was cut off, or is large: the request was taken.
                (true, body) => Ok(body.unwrap_or_default()),
                (false, body) => {
                    Err(self.failure(head.status, &head.headers, &body.unwrap_or_default()))
                }
            }
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.retry(format!("no answer within {:?}", self.timeout))),
        }
    }

    fn request(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Request<Body>, String> {
        let mut parts = self.uri.clone().into_parts();
        if !path.is_empty() {
            let whole = format!("{}/{path}", self.uri.path().trim_end_matches('/'));
            parts.path_and_query = Some(whole.parse().map_err(|_| "url: invalid path".to_owned())?);
        }
        let uri = Uri::from_parts(parts).map_err(|_| "url: invalid".to_owned())?;
        let mut request = Request::post(uri)
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .header(USER_AGENT, concat!("tapio/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            let value = HeaderValue::try_from(format!("Bearer {}", token.text()));
            let mut value = value.map_err(|_| "token_file: isn't one token".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(all) = request.headers_mut() {
            self.headers.iter().for_each(|(name, value)| {
                all.insert(name.clone(), value.clone());
            });
        }
        request.body(Body::from(body)).map_err(|_| "headers: invalid".to_owned())
    }

    fn retry(&self, cause: String) -> PostFailure {
        PostFailure::Retry { cause: self.without_secrets(&cause), after: None }
    }

    /// The failure that an answer means.
    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> PostFailure {
        let after = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
        let text = String::from_utf8_lossy(body);
        let text: String =
            text.trim().chars().filter(|c| !c.is_control()).take(MAX_CAUSE_CHARS).collect();
        let cause = match (status.is_redirection(), text.is_empty()) {
            (true, _) => format!("HTTP {status}: redirects aren't followed"),
            (false, true) => format!("HTTP {status}"),
            (false, false) => format!("HTTP {status}: {text}"),
        };
        let cause = self.without_secrets(&cause);
        match status.as_u16() {
            300..400 | 400 | 404..=407 | 410..=424 => PostFailure::Refused(cause),
            // Also 401 and 403: credentials can be mended while it waits.
            _ => PostFailure::Retry { cause, after },
        }
    }

    /// An answer may repeat the request, and with it its secrets.
    fn without_secrets(&self, text: &str) -> String {
        let token = self.token.as_ref().map(|token| token.text().to_string());
        let mut text = text.to_owned();
        for secret in self.secrets.iter().chain(&token) {
            text = text.replace(secret.as_str(), "…");
        }
        text
    }
}

/// The wait that `Retry-After` asks for: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    let wait = match value.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
            let date_ns = u64::try_from(date.as_nanosecond()).ok()?;
            Duration::from_nanos(date_ns.saturating_sub(clock::wall_ns()))
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> HttpPostConfig {
        HttpPostConfig {
            url: url.into(),
            tls: None,
            token_file: None,
            headers: Vec::new(),
            timeout: Duration::from_secs(1),
            insecure: false,
        }
    }

    #[test]
    fn urls_are_checked_and_errors_have_no_path() {
        for url in ["http://localhost:9093", "http://127.0.0.1/a", "http://[::1]:1/"] {
            assert_eq!(config(url).check(), Ok(()), "{url}");
        }
        for (url, expected) in [
            ("http://example.com/secret-path", "insecure"),
            ("ftp://localhost/secret-path", "http://"),
            ("/secret-path", "http://"),
            ("http://u:secret-path@localhost/", "belong into headers"),
            ("http://local host/secret-path", "url: "),
            ("", "url: "),
        ] {
            let error = config(url).check().unwrap_err();
            assert!(error.starts_with("url: ") && error.contains(expected), "{url}: {error}");
            assert!(!error.contains("secret-path"), "{error}");
        }
        assert_eq!(HttpPostConfig { insecure: true, ..config("http://am:9093") }.check(), Ok(()));
        let tls = Some(TlsClientConfig::default());
        let error = HttpPostConfig { tls, ..config("http://localhost") }.check().unwrap_err();
        assert_eq!(error, "tls: the url isn't https://");
        let headers = vec![("a b".to_owned(), String::new())];
        let error = HttpPostConfig { headers, ..config("http://localhost") }.check().unwrap_err();
        assert!(error.starts_with("headers: "), "{error}");
    }

    #[tokio::test]
    async fn answers_say_whether_to_retry_and_repeat_no_secret() {
        let headers = vec![("x-key".to_owned(), "Key 0123456789".to_owned())];
        let url = "http://localhost/services/T0001/B000SECRET/xyz-token?key=abcdefghij";
        let poster = HttpPoster::new(&HttpPostConfig { headers, ..config(url) }).unwrap();
        let of = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            poster.failure(status, &HeaderMap::new(), body.as_bytes())
        };
        for status in [401, 403, 408, 425, 429, 500, 502, 503] {
            assert!(matches!(of(status, "x"), PostFailure::Retry { .. }), "{status}");
        }
        for status in [301, 302, 400, 404, 405, 410, 413, 422] {
            assert!(matches!(of(status, "x"), PostFailure::Refused(_)), "{status}");
        }
        let failure = of(404, "/services/T0001/B000SECRET/xyz-token?key=abcdefghij 0123456789\n");
        let text = failure.to_string();
        for secret in ["B000SECRET", "xyz-token", "abcdefghij", "0123456789"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(
            format!("{poster:?}").contains("localhost") && !format!("{poster:?}").contains("xyz")
        );
    }

    #[test]
    fn wait_is_in_seconds_or_until_a_date_and_bounded() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("Wed, 21 Oct 2099 07:28:00 GMT"), Some(MAX_RETRY_AFTER));
        assert_eq!((retry_after("soon"), retry_after("-1")), (None, None));
    }
}
