//! gRPC queries.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::shared::Shared;
use super::status::LatencyStats;
use super::storage::{EventFilter, MatchingBatch, StoryFilter};
use tapio_core::event::LinkedStory;
use tapio_wire::proto::query_server::{Query, QueryServer};
use tapio_wire::{Batch, linked_to_proto, proto};

/// Items listed where the request gives no limit.
const DEFAULT_LIMIT: usize = 100;
/// Items listed at most.
const MAX_LIMIT: usize = 10_000;
/// Items queued for one tail.
const TAIL_ITEMS: usize = 16;

pub(super) fn service(shared: Arc<Shared>) -> QueryServer<Queries> {
    QueryServer::new(Queries(shared))
}

/// The limit of a request, within bounds.
pub(super) fn limit(requested: u32) -> usize {
    match requested as usize {
        0 => DEFAULT_LIMIT,
        n => n.min(MAX_LIMIT),
    }
}

impl Shared {
    /// Finds the newest events.
    pub(super) async fn events(
        &self,
        filter: EventFilter,
        limit: usize,
    ) -> Result<Vec<MatchingBatch>, String> {
        let selection = self.storage().select_events(filter);
        read(move || selection.read(limit)).await
    }

    /// Finds the stories that were updated last.
    pub(super) async fn stories(
        &self,
        filter: &StoryFilter,
        limit: usize,
    ) -> Result<Vec<LinkedStory>, String> {
        let selection = self.storage().select_stories(limit, filter);
        read(move || selection.read()).await
    }

    /// Finds a story.
    pub(super) async fn story(&self, id: [u8; 16]) -> Result<Option<LinkedStory>, String> {
        let selection = self.storage().select_story(id);
        Ok(read(move || selection.read()).await?.pop())
    }
}

/// Reads the disk on a thread of its own, so that ingest continues meanwhile.
async fn read<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let read = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())?;
    read.map_err(|e| e.to_string())
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
struct TailFilter {
    /// `None`: no events.
    events: Option<EventFilter>,
    stories: bool,
}

impl TailFilter {
    /// The matching part of a batch; `None` if nothing matches.
    fn apply(&self, bytes: &[u8]) -> Option<proto::EventBatch> {
        let positions = match &self.events {
            Some(filter) => filter.positions(&Batch::parse(bytes).ok()?),
            None => Vec::new(),
        };
        let mut batch = decode(bytes).ok()?;
        let stories = if self.stories { std::mem::take(&mut batch.stories) } else { Vec::new() };
        let mut batch = keep_events(batch, &positions);
        batch.count += stories.len() as u32;
        batch.stories = stories;
        (batch.count > 0).then_some(batch)
    }
}

/// Sends what is stored from now on to one client.
async fn tail(
    shared: Arc<Shared>,
    mut batches: Receiver<Bytes>,
    filter: &TailFilter,
    to: &TailSender,
) {
    loop {
        let matching = match batches.recv().await {
            Ok(bytes) => filter.apply(&bytes),
            Err(RecvError::Lagged(n)) => {
                shared.stats().counts.tail_batches_missed += n;
                None
            }
            Err(RecvError::Closed) => return,
        };
        if let Some(batch) = matching {
            let item = proto::TailItem { batch: Some(batch) };
            if to.send(Ok(item)).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Query for Queries {
    type TailStream = TailStream;

    async fn list_stories(
        &self,
        request: Request<proto::ListStoriesRequest>,
    ) -> Result<Response<proto::ListStoriesResponse>, Status> {
        let proto::ListStoriesRequest { limit: requested, pattern, node, id_prefix } =
            request.into_inner();
        let filter = StoryFilter { pattern, node, id_prefix };
        let stories = self.0.stories(&filter, limit(requested)).await.map_err(Status::internal)?;
        Ok(Response::new(proto::ListStoriesResponse {
            stories: stories.iter().map(linked_to_proto).collect(),
        }))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let proto::ListEventsRequest { limit: requested, kind, trace_id, node, entity } =
            request.into_inner();
        if !matches!(trace_id.len(), 0 | 16) {
            return Err(Status::invalid_argument(format!(
                "trace_id has {} bytes instead of 16",
                trace_id.len()
            )));
        }
        let filter = EventFilter { kind, trace_id, node, entity };
        let found = self.0.events(filter, limit(requested)).await.map_err(Status::internal)?;
        let batches = found
            .iter()
            .rev()
            .map(|found| decode(&found.batch).map(|batch| keep_events(batch, &found.positions)));
        Ok(Response::new(proto::ListEventsResponse { batches: batches.collect::<Result<_, _>>()? }))
    }

    async fn tail(
        &self,
        request: Request<proto::TailRequest>,
    ) -> Result<Response<TailStream>, Status> {
        let request = request.into_inner();
        let events = EventFilter { kind: request.kind, ..EventFilter::default() };
        let filter =
            TailFilter { events: (!request.no_events).then_some(events), stories: request.stories };
        let shared = Arc::clone(&self.0);
        let (to, stream) = mpsc::channel(TAIL_ITEMS);
        // Before the response: what is stored once the client has it is in the stream.
        let batches = shared.tail.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = to.closed() => {}
                () = tail(shared, batches, &filter, &to) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
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
