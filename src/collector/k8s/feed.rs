//! Lists one resource, then watches it; again after every end, gap and failure.
//!
//! ```text
//!            a position is saved                         410 Gone
//!  start ──┬──────────────────────────▶ watch ───────────────────▶ list; all differences apply
//!          └─▶ list (first start) ────▶ watch ── it ends ──▶ watch, from the last version
//! ```
//!
//! A feed retries without end and reports each failure; where a permission is missing, it retries
//! rarely.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::client::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};

use super::messages::{FeedMessage, FeedStatus, Resource, WatchEvent};
use super::objects::{List, ObjectMeta, Owned, Pod};
use super::owners::OwnerResolver;
use super::request::{PAGE_OBJECTS, RequestError, Response, Status, escape_query};
use tapio_core::clock;
use tapio_core::event::stable_hash;

const JSON: &str = "application/json";
/// The shortest time that the server is asked to keep a watch open. Up to half of it is added, by
/// node, so that a cluster's agents don't reconnect all at once.
const WATCH_S: u64 = 240;
/// How long a watch may outlive the requested time before its connection counts as dead.
const GRACE: Duration = Duration::from_secs(15);
/// A server that sends bookmarks sends one every 60 to 75 seconds (`defaultBookmarkFrequency` and a
/// random quarter of it). After a longer silence the connection is dead, even if it is open.
const SILENCE: Duration = Duration::from_secs(100);
/// A watch that ends sooner than this, without a message, didn't work.
const SHORT_WATCH: Duration = Duration::from_secs(5);
const MIN_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// A missing permission may be granted later.
const FORBIDDEN_DELAY: Duration = Duration::from_secs(30);

/// An object that can be watched.
pub(super) trait Watched: DeserializeOwned + Send + 'static {
    fn meta(&self) -> &ObjectMeta;
    /// Adds what other objects contain.
    fn complete(&mut self, _: &mut OwnerResolver) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

impl Watched for Pod {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    async fn complete(&mut self, owners: &mut OwnerResolver) {
        self.workload = owners.workload_of(self).await;
    }
}

macro_rules! watched {
    ($($object:ident),*) => {$(
        impl Watched for super::objects::$object {
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
        }
    )*};
}
watched!(Node, Deployment, Event, Service, Endpoints);

/// Where a feed begins without a saved position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the existing objects.
    List,
    /// With the changes from now on.
    Now,
}

/// Whether the server sends bookmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bookmarks {
    /// Not known yet; it does for most resources.
    Expected,
    /// It does.
    Seen,
    /// It doesn't: its silence means nothing.
    None,
}

/// A resource's feed.
pub(super) struct Feed<T> {
    pub(super) client: Client,
    pub(super) resource: Resource,
    /// Paths of the resource on servers of different versions, the newest first.
    pub(super) paths: Vec<String>,
    pub(super) field_selector: Option<String>,
    pub(super) start: Start,
    /// The version to watch from.
    pub(super) position: Option<String>,
    /// Whether objects are identified before their changes are reported.
    pub(super) identify_first: bool,
    pub(super) messages: mpsc::Sender<FeedMessage>,
    pub(super) wrap: fn(WatchEvent<T>) -> FeedMessage,
    pub(super) owners: OwnerResolver,
    /// Makes delays differ between nodes.
    pub(super) node: String,
    pub(super) bookmarks: Bookmarks,
    /// Notified by a feed whose connection died. Feeds without bookmarks can't detect that
    /// themselves, and reconnect.
    pub(super) connection_lost: Arc<Notify>,
}

/// The session has ended: its receiver is dropped.
struct SessionEnded;

/// Why a cycle ended.
enum CycleError {
    SessionEnded,
    Request(RequestError),
}

impl From<SessionEnded> for CycleError {
    fn from(_: SessionEnded) -> Self {
        Self::SessionEnded
    }
}

impl From<RequestError> for CycleError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// A line of a watch; the object stays text until its type is known.
#[derive(Deserialize)]
pub(super) struct WatchLine<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

impl<T: Watched> Feed<T> {
    /// Runs until the session ends.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let error = match self.cycle(&mut failures).await {
                Ok(()) => continue,
                Err(CycleError::SessionEnded) => return,
                Err(CycleError::Request(error)) => error,
            };
            let delay = self.retry_delay(&error, failures);
            failures += 1;
            let status = match error {
                RequestError::Gone => {
                    self.position = None;
                    self.start = Start::List;
                    FeedStatus::Expired
                }
                RequestError::NotFound if self.paths.len() > 1 => {
                    self.paths.remove(0);
                    continue;
                }
                other => FeedStatus::Failed(other),
            };
            if self.report(status).await.is_err() {
                return;
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// The delay after the n-th failure in a row: doubles each time, less up to half of it.
    fn retry_delay(&self, error: &RequestError, failures: u32) -> Duration {
        let base = match error {
            RequestError::Gone if failures == 0 => return Duration::ZERO,
            RequestError::Throttled(Some(requested)) => {
                return *requested + self.jitter(failures, MIN_DELAY);
            }
            RequestError::Forbidden(_) | RequestError::NotFound => FORBIDDEN_DELAY,
            _ => MIN_DELAY.saturating_mul(1 << failures.min(7)).min(MAX_DELAY),
        };
        base - self.jitter(failures, base / 2)
    }

    /// A part of `max` that differs by node and by `salt`.
    fn jitter(&self, salt: u32, max: Duration) -> Duration {
        let parts = [self.node.as_bytes(), self.paths[0].as_bytes(), &salt.to_le_bytes()];
        max.mul_f64(f64::from(stable_hash(&parts)[0]) / 256.0)
    }

    /// Lists where needed, and watches until the watch ends.
    async fn cycle(&mut self, failures: &mut u32) -> Result<(), CycleError> {
        if self.position.is_some() && self.identify_first {
            self.list(self.cached_version(), true).await?;
        } else if self.position.is_none() && self.start == Start::Now {
            let version = self.current_version().await?;
            self.send(WatchEvent::Bookmark(version.clone())).await?;
            self.position = Some(version);
        } else if self.position.is_none() {
            // After a gap the server's cache may be older than what was watched.
            let is_start = *failures == 0 && self.identify_first;
            let version = self.list(self.cached_version().filter(|_| is_start), false).await?;
            self.position = Some(version);
        }
        self.identify_first = false;
        self.watch(failures).await
    }

    /// The version to list right after a start: any version in the server's cache is recent enough
    /// and costs the server least. Such a list isn't paged, so only with a selector, which keeps it
    /// small.
    fn cached_version(&self) -> Option<&'static str> {
        self.field_selector.as_ref().map(|_| "0")
    }

    fn url(&self, rest: &str) -> String {
        let mut url = format!("{}?{rest}", self.paths[0]);
        if let Some(selector) = &self.field_selector {
            url = format!("{url}&fieldSelector={}", escape_query(selector));
        }
        url
    }

    async fn get(&self, rest: &str) -> Result<Response, RequestError> {
        Response::get(&self.client, &self.url(rest), JSON).await
    }

    async fn get_list(&self, rest: &str) -> Result<List, RequestError> {
        let body = self.get(rest).await?.into_bytes().await?;
        serde_json::from_slice(&body).map_err(|e| RequestError::Failed(e.to_string()))
    }

    async fn send(&self, event: WatchEvent<T>) -> Result<(), SessionEnded> {
        self.messages.send((self.wrap)(event)).await.map_err(|_| SessionEnded)
    }

    async fn report(&self, status: FeedStatus) -> Result<(), SessionEnded> {
        let message = FeedMessage::Status(self.resource, status);
        self.messages.send(message).await.map_err(|_| SessionEnded)
    }

    async fn report_bad(&self, error: &serde_json::Error) -> Result<(), SessionEnded> {
        let message = FeedMessage::BadObject(self.resource, error.to_string());
        self.messages.send(message).await.map_err(|_| SessionEnded)
    }

    /// Parses an object; reports one that can't be parsed.
    async fn parse(&self, text: &str) -> Result<Option<T>, SessionEnded> {
        match serde_json::from_str(text) {
            Ok(object) => Ok(Some(object)),
            Err(error) => {
                self.report_bad(&error).await?;
                Ok(None)
            }
        }
    }

    /// The current version of the resource.
    async fn current_version(&self) -> Result<String, RequestError> {
        Ok(self.get_list("limit=1").await?.metadata.resource_version)
    }

    /// Lists page by page. Returns the list's version.
    async fn list(&mut self, version: Option<&str>, identify: bool) -> Result<String, CycleError> {
        let mut next: Option<String> = None;
        let mut listed = String::new();
        loop {
            let rest = match (&next, version) {
                (Some(next), _) => {
                    format!("limit={PAGE_OBJECTS}&continue={}", escape_query(next))
                }
                (None, Some(version)) => format!("limit={PAGE_OBJECTS}&resourceVersion={version}"),
                (None, None) => format!("limit={PAGE_OBJECTS}"),
            };
            let list = self.get_list(&rest).await?;
            if listed.is_empty() {
                listed = list.metadata.resource_version;
                if !identify {
                    self.send(WatchEvent::ListBegin).await?;
                }
            }
            for item in list.items {
                let Some(mut object) = self.parse(item.get()).await? else { continue };
                object.complete(&mut self.owners).await;
                let event = if identify { WatchEvent::Identify } else { WatchEvent::Apply };
                self.send(event(object)).await?;
            }
            next = list.metadata.r#continue;
            if next.is_none() {
                break;
            }
        }
        if !identify {
            self.send(WatchEvent::ListEnd(listed.clone())).await?;
        }
        Ok(listed)
    }

    /// Watches from the position on, until the watch ends.
    async fn watch(&mut self, failures: &mut u32) -> Result<(), CycleError> {
        let from = self.position.clone().unwrap_or_default();
        let seconds =
            WATCH_S + self.jitter(from.len() as u32, Duration::from_secs(WATCH_S / 2)).as_secs();
        let rest = format!(
            "watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={}",
            escape_query(&from)
        );
        let mut response = self.get(&rest).await?;
        self.report(FeedStatus::Watching).await?;
        let (mut any_line, begin) = (false, clock::instant());
        let deadline = begin + Duration::from_secs(seconds) + GRACE;
        let connection_lost = Arc::clone(&self.connection_lost);
        let lost = connection_lost.notified();
        tokio::pin!(lost);
        loop {
            let silent_at = clock::instant() + SILENCE;
            let no_bookmarks = self.bookmarks == Bookmarks::None;
            let until = if no_bookmarks { deadline } else { deadline.min(silent_at) };
            let line = tokio::select! {
                line = response.next_line() => line?,
                () = tokio::time::sleep_until(until.into()) => {
                    connection_lost.notify_waiters();
                    if self.bookmarks == Bookmarks::Expected {
                        // The server may not send any.
                        self.bookmarks = Bookmarks::None;
                        break;
                    }
                    return Err(RequestError::Failed("the watch sent no bookmark in time".into()).into());
                }
                () = &mut lost => break,
            };
            let Some(line) = line else { break };
            let line = line.to_vec();
            // The first line may report an error (the version is too old), so only a processed
            // line resets the failures.
            self.apply_line(&line).await?;
            any_line = true;
            *failures = 0;
        }
        if !any_line && begin.elapsed() < SHORT_WATCH {
            // Don't reconnect in a tight loop to a server that ends each watch at once.
            let delay = self.retry_delay(&RequestError::Throttled(None), *failures);
            tokio::time::sleep(delay).await;
            *failures += 1;
        }
        Ok(())
    }

    /// Processes one line of a watch.
    async fn apply_line(&mut self, line: &[u8]) -> Result<(), CycleError> {
        let line: WatchLine<'_> = match serde_json::from_slice(line) {
            Ok(line) => line,
            Err(error) => return Ok(self.report_bad(&error).await?),
        };
        let text = line.object.get();
        match line.r#type {
            "ERROR" => {
                let status: Status = serde_json::from_str(text).unwrap_or_default();
                return Err(status.into_error(None).into());
            }
            "BOOKMARK" => {
                if let Ok(bookmark) = serde_json::from_str::<Owned>(text) {
                    self.bookmarks = Bookmarks::Seen;
                    let version = String::from(bookmark.metadata.resource_version);
                    self.position = Some(version.clone());
                    self.send(WatchEvent::Bookmark(version)).await?;
                }
                return Ok(());
            }
            _ => {}
        }
        let Some(mut object) = self.parse(text).await? else { return Ok(()) };
        object.complete(&mut self.owners).await;
        let version = object.meta().resource_version.to_string();
        let is_deleted = line.r#type == "DELETED";
        let event = if is_deleted { WatchEvent::Delete } else { WatchEvent::Apply };
        self.send(event(object)).await?;
        self.position = Some(version);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watch_line_is_parsed_in_place() {
        let line: WatchLine<'_> = serde_json::from_str(
            r#"{"type":"ADDED","object":{"kind":"Pod","metadata":{"uid":"u"}}}"#,
        )
        .unwrap();
        let pod: Pod = serde_json::from_str(line.object.get()).unwrap();
        assert_eq!((line.r#type, &*pod.metadata.uid), ("ADDED", "u"));
    }
}
