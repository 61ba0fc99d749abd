//! Requests to the API server, their responses and their errors.
//!
//! Uses `kube`'s client below its typed calls, for three things that those don't offer: the
//! response's `Retry-After`, a bound on the length of a line, and lists in which one bad item
//! doesn't affect the others.

use std::pin::Pin;
use std::time::Duration;

use http_body::Body as _;
use kube::client::{Body, Client};
use serde::Deserialize;

/// The longest response or line that is read. etcd stores no object larger than 1.5 MiB, and a page
/// holds at most [`PAGE_OBJECTS`] of them; real ones are a few KiB.
const MAX_BYTES: usize = 64 << 20;
/// Objects in a page of a list.
pub(super) const PAGE_OBJECTS: u32 = 250;
/// Time limit for the start of a response, and again for all of it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    /// The server no longer has the requested version (410).
    #[error("the version is too old")]
    Gone,
    /// A permission is missing (403).
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// Too many requests (429); when to retry, if the server gives it.
    #[error("throttled")]
    Throttled(Option<Duration>),
    /// The credentials aren't valid, or no longer (401).
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// The server has no such resource (404).
    #[error("not found")]
    NotFound,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// The API's `Status` object.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    code: u16,
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    retry_after_seconds: u64,
    causes: Option<Vec<Cause>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
}

impl Status {
    /// Converts the status to an error. `retry_after`: from the header.
    pub(super) fn into_error(self, retry_after: Option<Duration>) -> RequestError {
        let details = self.details.unwrap_or_default();
        let retry_in_body =
            Some(details.retry_after_seconds).filter(|s| *s > 0).map(Duration::from_secs);
        // A version that the server hasn't reached yet belongs to another cluster's history.
        let ahead = details
            .causes
            .unwrap_or_default()
            .iter()
            .any(|c| c.reason == "ResourceVersionTooLarge");
        match self.code {
            _ if ahead || self.message.contains("Too large resource version") => RequestError::Gone,
            410 => RequestError::Gone,
            _ if matches!(&*self.reason, "Expired" | "Gone") => RequestError::Gone,
            401 => RequestError::Unauthorized(self.message),
            403 => RequestError::Forbidden(self.message),
            404 => RequestError::NotFound,
            429 => RequestError::Throttled(retry_in_body.or(retry_after)),
            code => RequestError::Failed(format!("{code} {}", truncated(&self.message))),
        }
    }
}

/// The first 300 characters of a text from outside.
fn truncated(text: &str) -> &str {
    let end = text.char_indices().map(|(i, _)| i).nth(300).unwrap_or(text.len());
    &text[..end]
}

fn failed(error: impl std::fmt::Display) -> RequestError {
    RequestError::Failed(truncated(&error.to_string()).to_owned())
}

/// A response whose body is read as it arrives.
pub(super) struct Response {
    body: Body,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were returned.
    taken: usize,
    /// Bytes of `buffer` that contain no line feed.
    searched: usize,
}

impl Response {
    /// Sends a GET request. `accept`: the header of that name.
    pub(super) async fn get(
        client: &Client,
        path: &str,
        accept: &str,
    ) -> Result<Self, RequestError> {
        let request = http::Request::get(path)
            .header(http::header::ACCEPT, accept)
            // The parts of a compressed watch can't be decoded as they arrive.
            .header(http::header::ACCEPT_ENCODING, "identity")
            .body(Body::empty())
            .map_err(failed)?;
        let sent = tokio::time::timeout(RESPONSE_TIMEOUT, client.send(request)).await;
        let received = sent.map_err(|_| failed("no response"))?.map_err(with_causes)?;
        let code = received.status().as_u16();
        let retry_after = received.headers().get(http::header::RETRY_AFTER);
        let retry_after =
            retry_after.and_then(|v| v.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let response =
            Self { body: received.into_body(), buffer: Vec::new(), taken: 0, searched: 0 };
        if (200..300).contains(&code) {
            return Ok(response);
        }
        let text = response.into_bytes().await.unwrap_or_default();
        let status = serde_json::from_slice(&text).unwrap_or_else(|_| Status {
            message: String::from_utf8_lossy(&text).into_owned(),
            ..Status::default()
        });
        Err(Status { code, ..status }.into_error(retry_after))
    }

    /// Reads the next part of the body. Returns false at its end.
    async fn read_more(&mut self) -> Result<bool, RequestError> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame {
                None => return Ok(false),
                Some(Err(error)) => return Err(with_causes(error)),
                Some(Ok(frame)) => {
                    let Some(data) = frame.data_ref() else { continue };
                    if self.buffer.len() + data.len() > MAX_BYTES {
                        return Err(failed("response is larger than 64 MiB"));
                    }
                    self.buffer.extend_from_slice(data);
                    return Ok(true);
                }
            }
        }
    }

    /// Reads the whole body.
    pub(super) async fn into_bytes(mut self) -> Result<Vec<u8>, RequestError> {
        let read = async {
            while self.read_more().await? {}
            Ok(std::mem::take(&mut self.buffer))
        };
        tokio::time::timeout(RESPONSE_TIMEOUT, read)
            .await
            .map_err(|_| failed("response is incomplete"))?
    }

    /// Reads the next line, without its line feed; `None` at the end. Bytes behind the last line
    /// feed are a truncated line and aren't returned.
    pub(super) async fn next_line(&mut self) -> Result<Option<&[u8]>, RequestError> {
        self.buffer.drain(..self.taken);
        (self.taken, self.searched) = (0, 0);
        loop {
            let new = &self.buffer[self.searched..];
            if let Some(at) = new.iter().position(|b| *b == b'\n') {
                let end = self.searched + at;
                self.taken = end + 1;
                return Ok(Some(&self.buffer[..end]));
            }
            self.searched = self.buffer.len();
            if !self.read_more().await? {
                return Ok(None);
            }
        }
    }
}

/// Formats an error with its causes: the outermost one is only "service error".
fn with_causes(error: impl std::error::Error) -> RequestError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    failed(text)
}

/// Escapes text for a query: all but letters, digits, `-`, `.`, `_`, `~` as `%XX` (RFC 3986).
pub(super) fn escape_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, text: &str, header: Option<u64>) -> RequestError {
        let status: Status = serde_json::from_str(text).unwrap();
        Status { code, ..status }.into_error(header.map(Duration::from_secs))
    }

    #[test]
    fn status_maps_to_error() {
        let expired = r#"{"kind":"Status","status":"Failure","message":"too old resource version: 1 (9)","reason":"Expired","code":410}"#;
        assert_eq!(error(410, expired, None), RequestError::Gone);
        assert_eq!(error(500, r#"{"reason":"Expired"}"#, None), RequestError::Gone);
        let ahead = r#"{"message":"Timeout: Too large resource version: 90, current: 5","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1}}"#;
        assert_eq!(error(504, ahead, None), RequestError::Gone);
        let wait = |s| RequestError::Throttled(Some(Duration::from_secs(s)));
        assert_eq!(error(429, r#"{"details":{"retryAfterSeconds":7}}"#, Some(3)), wait(7));
        assert_eq!(error(429, "{}", Some(3)), wait(3));
        assert_eq!(error(429, "{}", None), RequestError::Throttled(None));
        assert_eq!(error(404, "{}", None), RequestError::NotFound);
        assert!(
            matches!(error(403, r#"{"message":"no"}"#, None), RequestError::Forbidden(m) if m == "no")
        );
        assert!(
            matches!(error(503, r#"{"message":"away"}"#, None), RequestError::Failed(m) if m == "503 away")
        );
    }

    #[test]
    fn query_is_escaped() {
        assert_eq!(escape_query("spec.nodeName=a b/c&d"), "spec.nodeName%3Da%20b%2Fc%26d");
    }
}
