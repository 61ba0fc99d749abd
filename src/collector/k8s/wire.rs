//! Requests to the API server, their answers, and what went wrong with them.
//!
//! Below `kube`'s own calls, for three things they don't give: the answer's `Retry-After`, a bound on the length of a line, and
//! a list of which one bad item costs no other.

use std::pin::Pin;
use std::time::Duration;

use http_body::Body as _;
use kube::client::{Body, Client};
use serde::Deserialize;

/// The longest answer or line that is read: etcd keeps no object larger than 1.5 MiB, and a page holds [`PAGE`] of them at most;
/// real ones are a few KiB.
const MAX_BYTES: usize = 64 << 20;
/// Objects in a page of a list.
pub(super) const PAGE: u32 = 250;
/// How long the server may take to begin its answer, and again to give the whole of it.
const ANSWER: Duration = Duration::from_secs(60);

/// Why a request didn't bring what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// The version that was asked for is forgotten (410).
    #[error("the version is too old")]
    Gone,
    /// A permission is missing (403).
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The server is asked too much (429); when to come again, where it says so.
    #[error("throttled")]
    Throttled(Option<Duration>),
    /// The credentials aren't valid (any more) (401).
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// The server has no such resource (404).
    #[error("not there")]
    Missing,
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
    /// What a failure means; `retry_after` is the header's.
    pub(super) fn trouble(self, retry_after: Option<Duration>) -> Trouble {
        let details = self.details.unwrap_or_default();
        let asked = Some(details.retry_after_seconds).filter(|s| *s > 0).map(Duration::from_secs);
        // A version that the server hasn't reached belongs to another cluster's history.
        let ahead = details
            .causes
            .unwrap_or_default()
            .iter()
            .any(|c| c.reason == "ResourceVersionTooLarge");
        match self.code {
            _ if ahead || self.message.contains("Too large resource version") => Trouble::Gone,
            410 => Trouble::Gone,
            _ if matches!(&*self.reason, "Expired" | "Gone") => Trouble::Gone,
            401 => Trouble::Unauthorized(self.message),
            403 => Trouble::Forbidden(self.message),
            404 => Trouble::Missing,
            429 => Trouble::Throttled(asked.or(retry_after)),
            code => Trouble::Failed(format!("{code} {}", short(&self.message))),
        }
    }
}

/// The beginning of a text that somebody else wrote.
fn short(text: &str) -> &str {
    let end = text.char_indices().map(|(i, _)| i).nth(300).unwrap_or(text.len());
    &text[..end]
}

fn failed(error: impl std::fmt::Display) -> Trouble {
    Trouble::Failed(short(&error.to_string()).to_owned())
}

/// A body that is read as it comes.
pub(super) struct Answer {
    body: Body,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were given out.
    taken: usize,
    /// Bytes of `buffer` that hold no line's end.
    searched: usize,
}

impl Answer {
    /// Asks. `Accept` is JSON, or what `accept` says.
    pub(super) async fn get(client: &Client, path: &str, accept: &str) -> Result<Self, Trouble> {
        let request = http::Request::get(path)
            .header(http::header::ACCEPT, accept)
            // Compressed watches come in pieces that can't be read as they arrive.
            .header(http::header::ACCEPT_ENCODING, "identity")
            .body(Body::empty())
            .map_err(failed)?;
        let answer = tokio::time::timeout(ANSWER, client.send(request)).await;
        let answer = answer.map_err(|_| failed("no answer"))?.map_err(with_causes)?;
        let code = answer.status().as_u16();
        let retry_after = answer.headers().get(http::header::RETRY_AFTER);
        let retry_after =
            retry_after.and_then(|v| v.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let answer = Self { body: answer.into_body(), buffer: Vec::new(), taken: 0, searched: 0 };
        if (200..300).contains(&code) {
            return Ok(answer);
        }
        let text = answer.whole().await.unwrap_or_default();
        let status = serde_json::from_slice(&text).unwrap_or_else(|_| Status {
            message: String::from_utf8_lossy(&text).into_owned(),
            ..Status::default()
        });
        Err(Status { code, ..status }.trouble(retry_after))
    }

    /// Reads more. Returns whether there was any.
    async fn more(&mut self) -> Result<bool, Trouble> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame {
                None => return Ok(false),
                Some(Err(error)) => return Err(with_causes(error)),
                Some(Ok(frame)) => {
                    let Some(data) = frame.data_ref() else { continue };
                    if self.buffer.len() + data.len() > MAX_BYTES {
                        return Err(failed("an answer of more than 64 MiB"));
                    }
                    self.buffer.extend_from_slice(data);
                    return Ok(true);
                }
            }
        }
    }

    /// The whole of it.
    pub(super) async fn whole(mut self) -> Result<Vec<u8>, Trouble> {
        let read = async {
            while self.more().await? {}
            Ok(std::mem::take(&mut self.buffer))
        };
        tokio::time::timeout(ANSWER, read).await.map_err(|_| failed("half an answer"))?
    }

    /// The next line, without its end; `None` when there is no more. What stands behind the last line's end
    /// is a line that was cut off, and isn't given.
    pub(super) async fn line(&mut self) -> Result<Option<&[u8]>, Trouble> {
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
            if !self.more().await? {
                return Ok(None);
            }
        }
    }
}

/// An error with what caused it: the outermost one alone says no more than "service error".
fn with_causes(error: impl std::error::Error) -> Trouble {
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

/// Text as a part of a query: all but letters, digits, `-`, `.`, `_` as `%XX` (RFC 3986).
pub(super) fn query(text: &str) -> String {
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

    fn trouble(code: u16, text: &str, header: Option<u64>) -> Trouble {
        let status: Status = serde_json::from_str(text).unwrap();
        Status { code, ..status }.trouble(header.map(Duration::from_secs))
    }

    #[test]
    fn a_status_says_what_to_do() {
        let expired = r#"{"kind":"Status","status":"Failure","message":"too old resource version: 1 (9)","reason":"Expired","code":410}"#;
        assert_eq!(trouble(410, expired, None), Trouble::Gone);
        assert_eq!(trouble(500, r#"{"reason":"Expired"}"#, None), Trouble::Gone);
        let ahead = r#"{"message":"Timeout: Too large resource version: 90, current: 5","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1}}"#;
        assert_eq!(trouble(504, ahead, None), Trouble::Gone);
        let wait = |s| Trouble::Throttled(Some(Duration::from_secs(s)));
        assert_eq!(trouble(429, r#"{"details":{"retryAfterSeconds":7}}"#, Some(3)), wait(7));
        assert_eq!(trouble(429, "{}", Some(3)), wait(3));
        assert_eq!(trouble(429, "{}", None), Trouble::Throttled(None));
        assert_eq!(trouble(404, "{}", None), Trouble::Missing);
        assert!(
            matches!(trouble(403, r#"{"message":"no"}"#, None), Trouble::Forbidden(m) if m == "no")
        );
        assert!(
            matches!(trouble(503, r#"{"message":"away"}"#, None), Trouble::Failed(m) if m == "503 away")
        );
    }

    #[test]
    fn a_query_is_escaped() {
        assert_eq!(query("spec.nodeName=a b/c&d"), "spec.nodeName%3Da%20b%2Fc%26d");
    }
}
