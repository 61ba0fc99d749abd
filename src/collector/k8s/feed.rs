//! One resource as the API server has it: listed, then watched; again after every end, gap and refusal.
//!
//! ```text
//!            a position is kept                        410 Gone
//!  start ──┬──────────────────────────▶ watch ───────────────────▶ list, all differences told
//!          └─▶ list (a first start) ──▶ watch ── it ends ──▶ watch, from the last version seen
//! ```
//!
//! A feed never gives up: what is refused is said and tried again, seldom where a permission is missing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::client::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};

use super::objects::{List, Meta, Owned, Pod};
use super::owners::Owners;
use super::wire::{Answer, PAGE, Status, Trouble, query};
use super::{Message, Resource};
use tapio_core::clock;
use tapio_core::event::stable_hash;

const JSON: &str = "application/json";
/// How long the server is asked to keep a watch open, at the least; half of it is added by chance, so that a cluster's agents
/// don't come all at once.
const WATCH_S: u64 = 240;
/// How long a watch may outlive what was asked for before its connection counts as dead.
const GRACE: Duration = Duration::from_secs(15);
/// A server that says where a watch stands does so every 60 to 75 seconds (its `defaultBookmarkFrequency` and a quarter of
/// it by chance): after a longer silence nobody is there any more, however open the connection is.
const SILENCE: Duration = Duration::from_secs(100);
/// A watch that ended sooner than this, with nothing said, didn't work.
const AT_ONCE: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A missing permission may be given later.
const FORBIDDEN_WAIT: Duration = Duration::from_secs(30);

/// What a feed says of its resource.
#[derive(Debug)]
pub(super) enum Said<T> {
    /// A list begins; it is of this version.
    Begins(String),
    /// It is like this. In a list: now; in a watch: after what was said before.
    Is(T),
    /// Who an object is; its changes come later, in their order.
    Named(T),
    /// It was deleted.
    Gone(T),
    /// The list is whole: what it didn't hold isn't there.
    Listed(String),
    /// Nothing happened up to this version.
    At(String),
}

/// How a feed is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Watching,
    /// It was watched, and is to be listed again.
    Expired,
    Trouble(Trouble),
}

/// An object that can be watched.
pub(super) trait Watched: DeserializeOwned + Send + 'static {
    fn meta(&self) -> &Meta;
    /// Looks up what the object itself doesn't say.
    fn complete(&mut self, _: &mut Owners) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

impl Watched for Pod {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    async fn complete(&mut self, owners: &mut Owners) {
        self.workload = owners.of(self).await;
    }
}

macro_rules! watched {
    ($($object:ident),*) => {$(
        impl Watched for super::objects::$object {
            fn meta(&self) -> &Meta {
                &self.metadata
            }
        }
    )*};
}
watched!(Node, Deployment, Event, Service, Endpoints);

/// How a feed begins where no position is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With what is there.
    List,
    /// With what happens from now on.
    Now,
}

/// Whether the server says now and then where a watch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bookmarks {
    /// It may: of most resources it does.
    Expected,
    /// It does.
    Seen,
    /// It doesn't: its silence says nothing.
    None,
}

/// A resource's feed.
pub(super) struct Feed<T> {
    pub(super) client: Client,
    pub(super) resource: Resource,
    /// Paths under which servers of different ages have it, the newest first.
    pub(super) paths: Vec<String>,
    pub(super) field_selector: Option<String>,
    pub(super) start: Start,
    /// Where to go on.
    pub(super) at: Option<String>,
    /// Whether objects are to be named before their changes are told.
    pub(super) names_first: bool,
    pub(super) to: mpsc::Sender<Message>,
    pub(super) wrap: fn(Said<T>) -> Message,
    pub(super) owners: Owners,
    /// Makes waits differ between nodes.
    pub(super) node: String,
    pub(super) bookmarks: Bookmarks,
    /// Rung by the feed whose connection died, for those who can't tell: theirs may have, too.
    pub(super) doubt: Arc<Notify>,
}

/// The session is over: nobody reads any more.
struct Over;

/// Why a turn ended.
enum End {
    Over,
    Trouble(Trouble),
}

impl From<Over> for End {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// A line of a watch; the object stays text until its type is known.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

impl<T: Watched> Feed<T> {
    /// Runs until nobody reads any more.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let trouble = match self.turn(&mut failures).await {
                Ok(()) => continue,
                Err(End::Over) => return,
                Err(End::Trouble(trouble)) => trouble,
            };
            let wait = self.wait(&trouble, failures);
            failures += 1;
            let said = match trouble {
                Trouble::Gone => {
                    self.at = None;
                    self.start = Start::List;
                    Condition::Expired
                }
                Trouble::Missing if self.paths.len() > 1 => {
                    self.paths.remove(0);
                    continue;
                }
                other => Condition::Trouble(other),
            };
            if self.to.send(Message::Feed(self.resource, said)).await.is_err() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait after the n-th failure in a row: twice as long each time, less up to half of it.
    fn wait(&self, trouble: &Trouble, failures: u32) -> Duration {
        let base = match trouble {
            Trouble::Gone if failures == 0 => return Duration::ZERO,
            Trouble::Throttled(Some(asked)) => {
                return *asked + self.by_chance(failures, FIRST_WAIT);
            }
            Trouble::Forbidden(_) | Trouble::Missing => FORBIDDEN_WAIT,
            _ => FIRST_WAIT.saturating_mul(1 << failures.min(7)).min(LONGEST_WAIT),
        };
        base - self.by_chance(failures, base / 2)
    }

    /// A part of `of` that differs from node to node and from time to time.
    fn by_chance(&self, salt: u32, of: Duration) -> Duration {
        let parts = [self.node.as_bytes(), self.paths[0].as_bytes(), &salt.to_le_bytes()];
        of.mul_f64(f64::from(stable_hash(&parts)[0]) / 256.0)
    }

    /// Lists where that is needed, and watches until the watch ends.
    async fn turn(&mut self, failures: &mut u32) -> Result<(), End> {
        if self.at.is_some() && self.names_first {
            self.list(self.at_hand(), true).await?;
        } else if self.at.is_none() && self.start == Start::Now {
            let at = self.version_now().await?;
            self.say(Said::At(at.clone())).await?;
            self.at = Some(at);
        } else if self.at.is_none() {
            // After a gap what is at hand may be older than what was watched.
            let first = *failures == 0 && self.names_first;
            let at = self.list(self.at_hand().filter(|_| first), false).await?;
            self.at = Some(at);
        }
        self.names_first = false;
        self.watch(failures).await
    }

    /// The version to list right after a start: what the server has at hand is good enough and costs it least. It
    /// isn't given in pages, so only where a selector keeps it small.
    fn at_hand(&self) -> Option<&'static str> {
        self.field_selector.as_ref().map(|_| "0")
    }

    fn url(&self, rest: &str) -> String {
        let mut url = format!("{}?{rest}", self.paths[0]);
        if let Some(selector) = &self.field_selector {
            url = format!("{url}&fieldSelector={}", query(selector));
        }
        url
    }

    async fn say(&self, said: Said<T>) -> Result<(), Over> {
        self.to.send((self.wrap)(said)).await.map_err(|_| Over)
    }

    async fn parsed(&self, text: &str) -> Result<Option<T>, Over> {
        match serde_json::from_str(text) {
            Ok(object) => Ok(Some(object)),
            Err(error) => {
                let bad = Message::Bad(self.resource, error.to_string());
                self.to.send(bad).await.map_err(|_| Over)?;
                Ok(None)
            }
        }
    }

    /// The version of the resource as it is now.
    async fn version_now(&self) -> Result<String, Trouble> {
        let body = Answer::get(&self.client, &self.url("limit=1"), JSON).await?.whole().await?;
        let list: List =
            serde_json::from_slice(&body).map_err(|e| Trouble::Failed(e.to_string()))?;
        Ok(list.metadata.resource_version)
    }

    /// Lists, page by page. Returns the list's version.
    async fn list(&mut self, version: Option<&str>, names: bool) -> Result<String, End> {
        let mut next: Option<String> = None;
        let mut at = String::new();
        loop {
            let rest = match (&next, version) {
                (Some(next), _) => format!("limit={PAGE}&continue={}", query(next)),
                (None, Some(version)) => format!("limit={PAGE}&resourceVersion={version}"),
                (None, None) => format!("limit={PAGE}"),
            };
            let body = Answer::get(&self.client, &self.url(&rest), JSON).await?.whole().await?;
            let list: List =
                serde_json::from_slice(&body).map_err(|e| Trouble::Failed(e.to_string()))?;
            drop(body);
            if at.is_empty() {
                at = list.metadata.resource_version;
                if !names {
                    self.say(Said::Begins(at.clone())).await?;
                }
            }
            for item in list.items {
                let Some(mut object) = self.parsed(item.get()).await? else { continue };
                object.complete(&mut self.owners).await;
                self.say(if names { Said::Named(object) } else { Said::Is(object) }).await?;
            }
            next = list.metadata.r#continue;
            if next.is_none() {
                break;
            }
        }
        if !names {
            self.say(Said::Listed(at.clone())).await?;
        }
        Ok(at)
    }

    /// Watches from the position on, until the watch ends.
    async fn watch(&mut self, failures: &mut u32) -> Result<(), End> {
        let at = self.at.clone().unwrap_or_default();
        let seconds =
            WATCH_S + self.by_chance(at.len() as u32, Duration::from_secs(WATCH_S / 2)).as_secs();
        let rest = format!(
            "watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={}",
            query(&at)
        );
        let mut answer = Answer::get(&self.client, &self.url(&rest), JSON).await?;
        self.condition(Condition::Watching).await?;
        let (mut anything, begin) = (false, clock::instant());
        let ends = begin + Duration::from_secs(seconds) + GRACE;
        let doubt = Arc::clone(&self.doubt);
        let doubted = doubt.notified();
        tokio::pin!(doubted);
        loop {
            let silent = clock::instant() + SILENCE;
            let until = if self.bookmarks == Bookmarks::None { ends } else { ends.min(silent) };
            let line = tokio::select! {
                line = answer.line() => line?,
                () = tokio::time::sleep_until(until.into()) => {
                    doubt.notify_waiters();
                    if self.bookmarks == Bookmarks::Expected {
                        // Perhaps there are none.
                        self.bookmarks = Bookmarks::None;
                        break;
                    }
                    return Err(Trouble::Failed("the watch has fallen silent".into()).into());
                }
                () = &mut doubted => break,
            };
            let Some(line) = line else { break };
            // A server may say in the first line that the version is too old.
            let line = line.to_vec();
            self.line(&line).await?;
            anything = true;
            *failures = 0;
        }
        if !anything && begin.elapsed() < AT_ONCE {
            // A server that ends each watch at once is no reason to hurry.
            tokio::time::sleep(self.wait(&Trouble::Throttled(None), *failures)).await;
            *failures += 1;
        }
        Ok(())
    }

    async fn condition(&self, condition: Condition) -> Result<(), Over> {
        self.to.send(Message::Feed(self.resource, condition)).await.map_err(|_| Over)
    }

    /// Takes one line of a watch in.
    async fn line(&mut self, line: &[u8]) -> Result<(), End> {
        let parsed: Result<Line<'_>, _> = serde_json::from_slice(line);
        let line = match parsed {
            Ok(line) => line,
            Err(error) => {
                let bad = Message::Bad(self.resource, error.to_string());
                return self.to.send(bad).await.map_err(|_| End::Over);
            }
        };
        let text = line.object.get();
        match line.r#type {
            "ERROR" => {
                let status: Status = serde_json::from_str(text).unwrap_or_default();
                return Err(status.trouble(None).into());
            }
            "BOOKMARK" => {
                if let Ok(mark) = serde_json::from_str::<Owned>(text) {
                    self.bookmarks = Bookmarks::Seen;
                    let at = String::from(mark.metadata.resource_version);
                    self.at = Some(at.clone());
                    self.say(Said::At(at)).await?;
                }
                return Ok(());
            }
            _ => {}
        }
        let Some(mut object) = self.parsed(text).await? else { return Ok(()) };
        object.complete(&mut self.owners).await;
        let at = object.meta().resource_version.to_string();
        let said = if line.r#type == "DELETED" { Said::Gone(object) } else { Said::Is(object) };
        self.say(said).await?;
        self.at = Some(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_watch_is_parsed_in_place() {
        let line: Line<'_> = serde_json::from_str(
            r#"{"type":"ADDED","object":{"kind":"Pod","metadata":{"uid":"u"}}}"#,
        )
        .unwrap();
        let pod: Pod = serde_json::from_str(line.object.get()).unwrap();
        assert_eq!((line.r#type, &*pod.metadata.uid), ("ADDED", "u"));
    }
}
