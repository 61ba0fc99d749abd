//! A client of HTTP/1.1, such as for the admin pages: over TCP, TLS or a unix socket, with a token
//! where there is one.

use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::dialer::{ClientAccess, Connector, Dialer, TLS, UNIX, root_cause};
use super::tls::ClientTls;

/// A client of one server.
pub struct HttpClient {
    client: Client<Connector, Body>,
    base: String,
    token: Option<HeaderValue>,
}

impl HttpClient {
    /// A client of `http://HOST:PORT`, `https://HOST:PORT`, `HOST:PORT` or `unix:/PATH`.
    ///
    /// # Errors
    /// With the endpoint or the file that can't be used.
    pub fn new(endpoint: &str, access: &ClientAccess) -> Result<Self, String> {
        let (base, path) = match endpoint.strip_prefix(UNIX) {
            Some(path) => ("http://localhost".to_owned(), Some(path.into())),
            None if endpoint.contains("://") => (endpoint.trim_end_matches('/').to_owned(), None),
            None => (format!("http://{endpoint}"), None),
        };
        access.check([("endpoint", endpoint)])?;
        let config = access.tls.clone().unwrap_or_default();
        let tls = base.starts_with(TLS).then(|| ClientTls::new(&config, &["http/1.1"]));
        let tls = tls.transpose().map_err(|e| e.to_string())?;
        let token_file = ClientAccess { tls: None, token_file: access.token_file.clone() };
        let token = Dialer::new(&token_file, []).map_err(|e| e.to_string())?.token();
        let client = Client::builder(TokioExecutor::new()).build(Connector::new(tls, path));
        Ok(Self { client, base, token })
    }

    /// Sends a request with further headers; `body`: JSON, or empty.
    ///
    /// # Errors
    /// When the server can't be reached, with the cause.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Response<Body>, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if self.base == "http://localhost" {
            request = request.header(HOST, "localhost");
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Body::from(body)).map_err(|e| e.to_string())?;
        let response = self.client.request(request).await.map_err(|e| root_cause(&e))?;
        Ok(response.map(Body::new))
    }
}
