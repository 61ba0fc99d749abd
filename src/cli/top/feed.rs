//! Reports what the server has as messages, over lost connections.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tonic::Status;

use super::message::{Message, Request};
use super::recent::Recent;
use super::rows::{Losses, agent};
use super::source::Source;
use crate::cli::connection::ServerArgs;
use crate::cli::live::status_text;
use crate::cli::output::Style;
use tapio_core::backoff::Backoff;
use tapio_core::clock;
use tapio_wire::{proto, story_from_proto};

/// Shortest time between two lists of the stories that changed.
const REFRESH: Duration = Duration::from_millis(500);
/// Interval at which the agents are listed, which no stream reports.
const AGENTS: Duration = Duration::from_secs(5);
/// Lists of the agents between two lists of the stories that changed last: annotations and silences
/// aren't in the stream.
const ANNOTATIONS: u32 = 6;
/// Pauses before the next attempt to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The connection to the server.
pub(super) struct Feed {
    at: ServerArgs,
    style: Style,
    source: Source,
    recent: Recent,
    losses: Losses,
    /// Position of the log at which the stories were listed.
    position: String,
    backoff: Backoff,
    messages: Sender<Message>,
    requests: Receiver<Request>,
}

/// Nobody receives the messages any more.
struct Closed;

impl Feed {
    /// Connects and lists everything once.
    ///
    /// # Errors
    /// When the server can't be reached, or refuses the requests.
    pub(super) async fn start(
        at: ServerArgs,
        style: Style,
        messages: Sender<Message>,
        requests: Receiver<Request>,
    ) -> Result<Self, Status> {
        let source = Source::connect(&at, &style).await?;
        let (recent, losses, position) = (Recent::default(), Losses::default(), String::new());
        let backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        let mut new =
            Self { at, style, source, recent, losses, position, backoff, messages, requests };
        new.list_all().await?.map_err(|Closed| Status::cancelled("closed"))?;
        Ok(new)
    }

    /// Follows the server until nobody receives the messages any more.
    pub(super) async fn run(mut self) {
        while let Err(lost) = self.follow().await {
            let since_ns = clock::wall_ns();
            let mut cause = status_text(&lost);
            loop {
                let away = Message::Away { since_ns, cause: cause.clone() };
                if self.messages.send(away).await.is_err() {
                    return;
                }
                self.pause(&cause).await;
                match self.connect().await {
                    Ok(Ok(())) => break,
                    Ok(Err(Closed)) => return,
                    Err(status) => cause = status_text(&status),
                }
            }
        }
    }

    /// Waits before the next attempt. Requests meanwhile are answered with the cause.
    async fn pause(&mut self, cause: &str) {
        let next = now() + self.backoff.next_pause();
        loop {
            tokio::select! {
                () = sleep_until(next) => return,
                Some(request) = self.requests.recv() => {
                    let answer = Err(format!("the server is away: {cause}"));
                    let _ = self.messages.send(Message::Answer(request, answer)).await;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Result<(), Closed>, Status> {
        self.source = Source::connect(&self.at, &self.style).await?;
        self.recent = Recent::default();
        if let Err(closed) = self.list_all().await? {
            return Ok(Err(closed));
        }
        Ok(self.send(Message::Back).await)
    }

    async fn send(&self, message: Message) -> Result<(), Closed> {
        self.messages.send(message).await.map_err(|_| Closed)
    }

    async fn list_all(&mut self) -> Result<Result<(), Closed>, Status> {
        self.position = self.list_stories(None).await?;
        self.list_agents().await
    }

    /// Lists the stories that changed, or all that are kept; returns the position of the log.
    async fn list_stories(&mut self, changed: Option<HashSet<String>>) -> Result<String, Status> {
        let listed = self.source.stories(changed).await?;
        self.recent.merge(listed.entries);
        // `follow` ends at the next message if nobody receives this one.
        let _ = self.send(Message::Stories(self.recent.rows())).await;
        Ok(listed.position)
    }

    async fn list_agents(&mut self) -> Result<Result<(), Closed>, Status> {
        let listed = self.source.agents().await?;
        let losses = self.losses.rows(&listed);
        let now_ns = clock::wall_ns();
        let agents = listed.iter().map(|one| agent(one, now_ns)).collect();
        Ok(self.send(Message::Agents { agents, losses }).await)
    }

    /// Follows the server until the connection is lost, an error, or nobody receives the messages.
    async fn follow(&mut self) -> Result<(), Status> {
        let mut stream = self.source.tail(self.position.clone()).await?;
        let mut changed = HashSet::new();
        let mut refresh_at = now();
        let mut agents = interval(AGENTS);
        agents.set_missed_tick_behavior(MissedTickBehavior::Delay);
        agents.reset();
        let mut rounds = 0;
        loop {
            tokio::select! {
                item = stream.message() => {
                    let ended = || Status::unavailable("it ended the stream");
                    let item = item?.ok_or_else(ended)?;
                    note_changes(&item, &mut changed);
                    if item.gap {
                        self.list_stories(None).await?;
                    }
                }
                () = sleep_until(refresh_at), if !changed.is_empty() => {
                    self.list_stories(Some(std::mem::take(&mut changed))).await?;
                    refresh_at = now() + REFRESH;
                }
                _ = agents.tick() => {
                    if let Err(Closed) = self.list_agents().await? {
                        return Ok(());
                    }
                    rounds += 1;
                    if rounds % ANNOTATIONS == 0 {
                        self.list_stories(Some(std::mem::take(&mut changed))).await?;
                    }
                    // The connection has lasted.
                    self.backoff.reset();
                }
                request = self.requests.recv() => {
                    let Some(request) = request else { return Ok(()) };
                    if let Err(Closed) = self.answer(request).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn answer(&mut self, request: Request) -> Result<Result<(), Closed>, Status> {
        let answer = match self.source.answer(&request).await {
            Ok(content) => Ok(content),
            Err(status) if is_lost(&status) => {
                // It is requested again when the server is back.
                let cause = status_text(&status);
                let _ = self.send(Message::Answer(request, Err(cause))).await;
                return Err(status);
            }
            Err(status) => Err(status.message().to_owned()),
        };
        Ok(self.send(Message::Answer(request, answer)).await)
    }
}

fn now() -> Instant {
    Instant::from_std(clock::instant())
}

/// Whether a status is that of the connection, and not the server's answer.
fn is_lost(status: &Status) -> bool {
    use tonic::Code;
    // Cancelled: no answer in time.
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
}

/// Adds the ids of the stories in an item of the stream, without lifecycles.
fn note_changes(item: &proto::TailItem, changed: &mut HashSet<String>) {
    let stories = item.batch.iter().flat_map(|batch| batch.stories.iter().cloned());
    let stories = stories.filter_map(story_from_proto).filter(|story| !story.is_lifecycle());
    changed.extend(stories.map(|story| story.id.to_string()));
}
