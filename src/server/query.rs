//! Queries, and their gRPC service.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::agent_query::AgentRequest;
use super::follow::{Follower, Render, parse_position, position_text};
use super::query_line::{QueryError, budget};
use super::shared::Shared;
use super::status::LatencyStats;
use super::storage::{
    Budget, Cursor, Filter, InvalidParameter, List, MatchingBatch, Page, StateFilter,
    StorySelection,
};
use crate::store::FramePosition;
use crate::telemetry::span;
use tapio_core::clock;
use tapio_core::event::{IncidentView, LinkedStory, Severity, TraceId};
use tapio_wire::proto::query_server::{Query, QueryServer};
use tapio_wire::{Batch, linked_to_proto, proto, story_from_proto};

/// Items listed where the request gives no limit.
const DEFAULT_LIMIT: usize = 100;
/// Items listed at most.
pub(super) const MAX_LIMIT: usize = 10_000;
/// Items queued for one tail.
const TAIL_ITEMS: usize = 16;
/// The least time between two items of a tail that have nothing but the position.
const TAIL_POSITIONS: Duration = Duration::from_secs(5);

/// The queries for a caller in this process.
pub(super) fn queries(shared: Arc<Shared>) -> Queries {
    Queries(shared)
}

pub(super) fn service(shared: Arc<Shared>) -> QueryServer<Queries> {
    QueryServer::new(queries(shared))
}

/// The page that a request asks for.
#[derive(Default)]
pub(super) struct PageRequest {
    pub(super) filter: Filter,
    /// 0 for the default.
    pub(super) limit: u32,
    pub(super) page_token: String,
}

/// A page as it is answered.
pub(super) struct Answer<T> {
    pub(super) items: T,
    pub(super) next_page_token: String,
    pub(super) complete_since_ns: u64,
    /// The position of the log when the page was requested.
    pub(super) position: FramePosition,
}

impl PageRequest {
    /// The limit within bounds.
    fn limit(&self) -> usize {
        match self.limit as usize {
            0 => DEFAULT_LIMIT,
            n => n.min(MAX_LIMIT),
        }
    }

    fn cursor(&self, list: List) -> Result<Cursor, QueryError> {
        self.filter.check()?;
        Ok(Cursor::from_token(&self.page_token, list, &self.filter)?)
    }
}

fn answer<I, T>(
    page: Page<I>,
    list: List,
    filter: &Filter,
    position: FramePosition,
    render: impl FnOnce(&[I]) -> io::Result<T>,
) -> io::Result<Answer<T>> {
    let token = page.next.map(|cursor| cursor.token(list, filter));
    Ok(Answer {
        items: render(&page.items)?,
        next_page_token: token.unwrap_or_default(),
        complete_since_ns: page.complete_since_ns,
        position,
    })
}

impl Shared {
    /// Finds the newest events. Like the search, `render` runs on a thread of its own.
    pub(super) async fn events<T: Send + 'static>(
        &self,
        request: PageRequest,
        render: impl FnOnce(&[MatchingBatch]) -> io::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, QueryError> {
        let cursor = request.cursor(List::Events)?;
        let of_stories = [
            ("id_prefix", !request.filter.id_prefix.is_empty()),
            ("state", request.filter.state.is_some()),
        ];
        if let Some((name, _)) = of_stories.into_iter().find(|(_, is_set)| *is_set) {
            return Err(InvalidParameter { name, cause: "is for stories only".into() }.into());
        }
        let query = async {
            let place = self.enter_line().await?;
            let (selection, end) = {
                let storage = self.storage();
                (storage.select_events(request.filter.clone(), cursor), storage.end())
            };
            let read = move || {
                let page = selection.read(&budget(request.limit()));
                answer(page, List::Events, &request.filter, end, render)
            };
            place.run(read).await
        };
        span("query.events", query).await
    }

    /// Finds the stories that were updated last.
    pub(super) async fn stories<T: Send + 'static>(
        &self,
        request: PageRequest,
        render: impl FnOnce(&[LinkedStory]) -> io::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, QueryError> {
        let query = self.select(request, List::Stories, StorySelection::read, render);
        span("query.stories", query).await
    }

    /// Finds the incidents that were updated last.
    pub(super) async fn incidents<T: Send + 'static>(
        &self,
        request: PageRequest,
        render: impl FnOnce(&[IncidentView]) -> io::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, QueryError> {
        let query = self.select(request, List::Incidents, StorySelection::read_incidents, render);
        span("query.incidents", query).await
    }

    /// Reads a page of what stories give, by `read`.
    async fn select<I: 'static, T: Send + 'static>(
        &self,
        request: PageRequest,
        list: List,
        read: fn(&StorySelection, &Budget) -> Page<I>,
        render: impl FnOnce(&[I]) -> io::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, QueryError> {
        let cursor = request.cursor(list)?;
        let place = self.enter_line().await?;
        let (selection, end) = {
            let storage = self.storage();
            (storage.select_stories(request.filter.clone(), cursor), storage.end())
        };
        let read = move || {
            let page = read(&selection, &budget(request.limit()));
            answer(page, list, &request.filter, end, render)
        };
        place.run(read).await
    }

    /// Follows the log after a position, by default from its end.
    pub(super) fn follow<T: Send + 'static>(
        self: &Arc<Self>,
        after: Option<FramePosition>,
        stories_only: bool,
        render: Render<T>,
    ) -> Follower<T> {
        let follower = Follower::new(Arc::clone(self), after, stories_only, render);
        self.stats().counts.tail_gaps += u64::from(follower.has_gap());
        follower
    }

    /// Finds the incident of which one story has this id.
    pub(super) async fn incident(&self, id: TraceId) -> Result<Option<IncidentView>, QueryError> {
        let filter = Filter { id_prefix: id.to_string(), ..Filter::default() };
        let request = PageRequest { filter, limit: 1, page_token: String::new() };
        Ok(self.incidents(request, |found| Ok(found.first().cloned())).await?.items)
    }

    /// Finds the story of which one part has this id.
    pub(super) async fn story(&self, id: TraceId) -> Result<Option<LinkedStory>, QueryError> {
        let filter = Filter { id_prefix: id.to_string(), ..Filter::default() };
        let request = PageRequest { filter, limit: 1, page_token: String::new() };
        Ok(self.stories(request, |stories| Ok(stories.first().cloned())).await?.items)
    }
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        let text = error.to_string();
        let code = match error {
            QueryError::Invalid(_) => tonic::Code::InvalidArgument,
            QueryError::Busy => tonic::Code::ResourceExhausted,
            QueryError::Failed(_) => tonic::Code::Internal,
        };
        Self::new(code, text)
    }
}

/// The severity of a request. One that is out of range stays so, and is refused.
fn severity(number: u32) -> Severity {
    Severity(u8::try_from(number).unwrap_or(u8::MAX))
}

/// The state of a request; empty for any.
fn state(name: &str) -> Result<Option<StateFilter>, QueryError> {
    let unknown = || InvalidParameter { name: "state", cause: format!("no state {name:?}") };
    match name {
        "" => Ok(None),
        name => Ok(Some(StateFilter::parse(name).ok_or_else(unknown)?)),
    }
}

pub(super) struct Queries(Arc<Shared>);

type TailSender = mpsc::Sender<Result<proto::TailItem, Status>>;
type TailStream = Pin<Box<dyn Stream<Item = Result<proto::TailItem, Status>> + Send>>;

/// Reduces a batch to the events at these positions, without stories.
fn keep_events(mut batch: proto::EventBatch, positions: &[usize]) -> proto::EventBatch {
    let mut position = 0;
    batch.events.retain(|_| {
        position += 1;
        positions.binary_search(&(position - 1)).is_ok()
    });
    batch.stories.clear();
    batch.count = batch.events.len() as u32;
    batch
}

fn decode(bytes: &[u8]) -> Result<proto::EventBatch, Status> {
    <proto::EventBatch as prost::Message>::decode(bytes)
        .map_err(|e| Status::data_loss(format!("a stored batch can't be decoded: {e}")))
}

/// Selects the items of a tail.
pub(super) struct TailFilter {
    pub(super) events: bool,
    pub(super) stories: bool,
    pub(super) filter: Filter,
}

impl TailFilter {
    /// The filter of a request.
    ///
    /// # Errors
    /// The invalid parameter.
    fn new(request: proto::TailRequest) -> Result<Self, QueryError> {
        let filter = Filter {
            severity: severity(request.severity),
            pattern: request.pattern,
            trace_id: request.trace_id,
            node: request.node,
            kind: request.kind,
            entities: request.entities,
            text: request.text,
            state: state(&request.state)?,
            ..Filter::default()
        };
        filter.check()?;
        Ok(Self { events: !request.no_events, stories: request.stories, filter })
    }

    /// The matching part of a batch; `None` if nothing matches.
    pub(super) fn apply(&self, bytes: &[u8]) -> Option<proto::EventBatch> {
        let positions = if self.events {
            self.filter.positions(&Batch::parse(bytes).ok()?)
        } else {
            Vec::new()
        };
        let mut batch = decode(bytes).ok()?;
        let mut stories =
            if self.stories { std::mem::take(&mut batch.stories) } else { Vec::new() };
        let mut filter = self.filter.clone();
        if self.events {
            // With `--kind`, a tail has these events, and all stories.
            filter.kind.clear();
        }
        if filter != Filter::default() {
            stories.retain(|story| {
                let story = story_from_proto(story.clone());
                story.is_some_and(|story| filter.story_matches(&story, &batch.node))
            });
        }
        let mut batch = keep_events(batch, &positions);
        batch.count += stories.len() as u32;
        batch.stories = stories;
        (batch.count > 0).then_some(batch)
    }
}

/// Sends what is stored after a position to one client.
async fn tail(mut follower: Follower<proto::EventBatch>, to: &TailSender) -> Result<(), Closed> {
    let item = |batch, position, gap| proto::TailItem {
        batch: Some(batch),
        position: position_text(position),
        gap,
    };
    let send = async |item| to.send(item).await.map_err(|_| Closed);
    // The first item has the position from which another tail goes on.
    send(Ok(item(proto::EventBatch::default(), follower.at(), follower.has_gap()))).await?;
    let mut sent = clock::instant();
    loop {
        let followed = match follower.next().await {
            Ok(Some(followed)) => followed,
            Ok(None) => return Ok(()),
            Err(error) => return send(Err(error.into())).await,
        };
        let is_quiet = followed.items.is_empty();
        for (batch, position) in followed.items {
            send(Ok(item(batch, position, false))).await?;
        }
        let now = clock::instant();
        if is_quiet && now.saturating_duration_since(sent) < TAIL_POSITIONS {
            continue;
        }
        if is_quiet {
            send(Ok(item(proto::EventBatch::default(), followed.at, false))).await?;
        }
        sent = now;
    }
}

/// The client is gone.
struct Closed;

/// The filter of a request for a list. The requests have the same fields, but no common type.
macro_rules! list_filter {
    ($request:ident) => {
        Filter {
            since_ns: $request.since,
            until_ns: $request.until,
            severity: severity($request.severity),
            pattern: $request.pattern,
            trace_id: $request.trace_id,
            node: $request.node,
            kind: $request.kind,
            entities: $request.entities,
            state: None,
            text: $request.text,
            id_prefix: String::new(),
            no_lifecycles: false,
        }
    };
}

#[tonic::async_trait]
impl Query for Queries {
    type TailStream = TailStream;

    async fn list_stories(
        &self,
        request: Request<proto::ListStoriesRequest>,
    ) -> Result<Response<proto::ListStoriesResponse>, Status> {
        let request = request.into_inner();
        let state = state(&request.state)?;
        let no_lifecycles = request.no_lifecycles;
        let id_prefix = request.id_prefix;
        let filter = Filter { id_prefix, state, no_lifecycles, ..list_filter!(request) };
        let (limit, page_token) = (request.limit, request.page_token);
        let shared = Arc::clone(&self.0);
        let render = move |stories: &[LinkedStory]| {
            let (marks, now_ns) = (shared.annotations(), clock::wall_ns());
            let annotated = stories.iter().map(|linked| {
                let (annotations, silence) = marks.of(linked, now_ns);
                proto::Story { annotations, silence, ..linked_to_proto(linked) }
            });
            Ok(annotated.collect())
        };
        let answer = self.0.stories(PageRequest { filter, limit, page_token }, render).await?;
        Ok(Response::new(proto::ListStoriesResponse {
            stories: answer.items,
            next_page_token: answer.next_page_token,
            complete_since: answer.complete_since_ns,
            position: position_text(answer.position),
        }))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let request = request.into_inner();
        let filter = list_filter!(request);
        let (limit, page_token) = (request.limit, request.page_token);
        let render = |found: &[MatchingBatch]| {
            let batches = found.iter().rev().map(|found| decode(&found.batch));
            batches.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)
        };
        let answer = self.0.events(PageRequest { filter, limit, page_token }, render).await?;
        Ok(Response::new(proto::ListEventsResponse {
            batches: answer.items,
            next_page_token: answer.next_page_token,
            complete_since: answer.complete_since_ns,
            position: position_text(answer.position),
        }))
    }

    async fn tail(
        &self,
        request: Request<proto::TailRequest>,
    ) -> Result<Response<TailStream>, Status> {
        let request = request.into_inner();
        let after = match &*request.after {
            "" => None,
            text => Some(parse_position(text).ok_or_else(|| {
                let cause = "isn't a position that a server has returned".to_owned();
                QueryError::from(InvalidParameter { name: "after", cause })
            })?),
        };
        let filter = TailFilter::new(request)?;
        let (to, stream) = mpsc::channel(TAIL_ITEMS);
        // Before the response: what is stored once the client has it is in the stream.
        let stories_only = !filter.events;
        let render = Arc::new(move |bytes: &[u8]| filter.apply(bytes));
        let follower = self.0.follow(after, stories_only, render);
        tokio::spawn(async move {
            tokio::select! {
                () = to.closed() => {}
                // The client is gone, or has the error.
                _ = tail(follower, &to) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_silences(
        &self,
        _: Request<proto::ListSilencesRequest>,
    ) -> Result<Response<proto::ListSilencesResponse>, Status> {
        Ok(Response::new(proto::ListSilencesResponse { silences: self.0.silences() }))
    }

    async fn list_agents(
        &self,
        request: Request<proto::ListAgentsRequest>,
    ) -> Result<Response<proto::ListAgentsResponse>, Status> {
        let proto::ListAgentsRequest { limit, node, page_token } = request.into_inner();
        let request = AgentRequest { limit, node, page_token };
        Ok(Response::new(self.0.list_agents(&request).map_err(QueryError::from)?))
    }

    async fn get_stats(
        &self,
        _: Request<proto::GetStatsRequest>,
    ) -> Result<Response<proto::Stats>, Status> {
        let status = self.0.status();
        let LatencyStats { count, p50_ns, p90_ns, p99_ns, p999_ns, max_ns } = status.latency;
        Ok(Response::new(proto::Stats {
            batches: status.ingest.batches,
            events: status.ingest.events,
            stories: status.ingest.stories,
            duplicates: status.ingest.duplicates,
            batches_refused: status.ingest.batches_refused,
            stored_bytes: status.store.stored_bytes,
            latency: Some(proto::Latency { count, p50_ns, p90_ns, p99_ns, p999_ns, max_ns }),
        }))
    }
}
