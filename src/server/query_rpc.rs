//! The gRPC service of queries.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::agent_query::AgentRequest;
use super::annotation_query::AnnotationRequest;
use super::api;
use super::follow::{Follower, parse_position, position_text};
use super::query::PageRequest;
use super::query_line::QueryError;
use super::shared::Shared;
use super::status::LatencyStats;
use super::storage::{Filter, InvalidParameter, MatchingBatch, StateFilter};
use super::tail_filter::{TailFilter, decode};
use tapio_core::clock;
use tapio_core::event::{IncidentView, LinkedStory, Severity, TraceId};
use tapio_wire::proto::query_server::{Query, QueryServer};
use tapio_wire::{incident_to_proto, linked_to_proto, proto};

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

/// The filter of a request for a tail.
///
/// # Errors
/// The invalid parameter.
fn tail_filter(request: proto::TailRequest) -> Result<TailFilter, QueryError> {
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
    Ok(TailFilter { events: !request.no_events, stories: request.stories, filter })
}

pub(super) struct Queries(Arc<Shared>);

type TailSender = mpsc::Sender<Result<proto::TailItem, Status>>;
type TailStream = Pin<Box<dyn Stream<Item = Result<proto::TailItem, Status>> + Send>>;

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
            rules: Vec::new(),
        }
    };
}

/// The page of a request for a list of stories or of incidents.
macro_rules! story_page {
    ($request:ident) => {{
        let state = state(&$request.state)?;
        let no_lifecycles = $request.no_lifecycles;
        let id_prefix = $request.id_prefix;
        let filter = Filter { id_prefix, state, no_lifecycles, ..list_filter!($request) };
        PageRequest { filter, limit: $request.limit, page_token: $request.page_token }
    }};
}

/// The id of a story in a request.
fn story_id(bytes: &[u8]) -> Result<TraceId, Status> {
    let id = bytes.try_into().map(TraceId);
    id.map_err(|_| {
        Status::invalid_argument(format!("story_id: {} bytes instead of 16", bytes.len()))
    })
}

#[tonic::async_trait]
impl Query for Queries {
    type TailStream = TailStream;

    async fn list_stories(
        &self,
        request: Request<proto::ListStoriesRequest>,
    ) -> Result<Response<proto::ListStoriesResponse>, Status> {
        let request = request.into_inner();
        let page = story_page!(request);
        let shared = Arc::clone(&self.0);
        let render = move |stories: &[LinkedStory]| {
            let (marks, now_ns) = (shared.annotations(), clock::wall_ns());
            let annotated = stories.iter().map(|linked| {
                let (annotations, silence) = marks.of(linked, now_ns);
                proto::Story { annotations, silence, ..linked_to_proto(linked) }
            });
            Ok(annotated.collect())
        };
        let answer = self.0.stories(page, render).await?;
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
        let mut filter = tail_filter(request)?;
        self.0.resolve_pattern(&mut filter.filter);
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

    async fn list_annotations(
        &self,
        request: Request<proto::ListAnnotationsRequest>,
    ) -> Result<Response<proto::ListAnnotationsResponse>, Status> {
        let request = request.into_inner();
        let proto::ListAnnotationsRequest { limit, page_token, story_id: id, .. } = request;
        let story = (!id.is_empty()).then(|| story_id(&id)).transpose()?;
        let (actions, since_ns, until_ns) = (request.actions, request.since, request.until);
        let request = AnnotationRequest { limit, page_token, story, actions, since_ns, until_ns };
        let (page, next_page_token) = self.0.list_annotations(request).await?;
        let entries = page.entries.iter().filter_map(|entry| entry.to_proto()).collect();
        Ok(Response::new(proto::ListAnnotationsResponse { entries, next_page_token }))
    }

    async fn list_incidents(
        &self,
        request: Request<proto::ListIncidentsRequest>,
    ) -> Result<Response<proto::ListIncidentsResponse>, Status> {
        let request = request.into_inner();
        let page = story_page!(request);
        let render =
            |incidents: &[IncidentView]| Ok(incidents.iter().map(incident_to_proto).collect());
        let answer = self.0.incidents(page, render).await?;
        Ok(Response::new(proto::ListIncidentsResponse {
            incidents: answer.items,
            next_page_token: answer.next_page_token,
            complete_since: answer.complete_since_ns,
            position: position_text(answer.position),
        }))
    }

    async fn get_story_graph(
        &self,
        request: Request<proto::GetStoryGraphRequest>,
    ) -> Result<Response<proto::StoryGraph>, Status> {
        let id = story_id(&request.into_inner().story_id)?;
        let graph = api::story_graph(&self.0, id).await?;
        Ok(Response::new(graph.ok_or_else(|| Status::not_found(format!("no story {id}")))?))
    }

    async fn list_rules(
        &self,
        _: Request<proto::ListRulesRequest>,
    ) -> Result<Response<proto::ListRulesResponse>, Status> {
        Ok(Response::new(proto::ListRulesResponse { rules: api::listed_rules(&self.0) }))
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
            stories_kept: status.stories_kept,
            queries_refused: status.ingest.queries_refused,
            disk_errors: status.ingest.disk_errors,
            disk_failing: status.ingest.disk_failing,
            agents: status.agents,
            agents_connected: status.agents_connected,
        }))
    }
}
