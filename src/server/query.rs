//! gRPC queries.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::store::{Filter, Found, StoryFilter};
use super::{LatencyStats, Shared};
use tapio_wire::proto::query_server::{Query, QueryServer};
use tapio_wire::{Batch, linked_to_proto, proto};

/// What is listed where the request doesn't say.
pub(super) const USUAL_LIMIT: usize = 100;
/// Items on their way to one who tails.
const TAIL_ITEMS: usize = 16;
/// What is listed at most.
pub(super) const MOST_LIMIT: usize = 10_000;

pub(super) fn service(shared: Arc<Shared>) -> QueryServer<Queries> {
    QueryServer::new(Queries(shared))
}

/// A request's limit, within bounds.
pub(super) fn limit(asked: u32) -> usize {
    match asked as usize {
        0 => USUAL_LIMIT,
        n => n.min(MOST_LIMIT),
    }
}

impl Shared {
    /// The latest events, read beside the server's thread.
    pub(super) async fn latest(&self, filter: Filter, limit: usize) -> Result<Vec<Found>, String> {
        let scan = self.store().scan();
        tokio::task::spawn_blocking(move || scan.latest(&filter, limit))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())
    }
}

pub(super) struct Queries(Arc<Shared>);

type Listener = mpsc::Sender<Result<proto::TailItem, Status>>;
type Tailing = Pin<Box<dyn Stream<Item = Result<proto::TailItem, Status>> + Send>>;

/// Keeps the events of a batch that are wanted, and no stories.
fn keep(mut batch: proto::EventBatch, places: &[usize]) -> proto::EventBatch {
    let mut place = 0;
    batch.events.retain(|_| {
        place += 1;
        places.binary_search(&(place - 1)).is_ok()
    });
    batch.stories.clear();
    batch.count = batch.events.len() as u32;
    batch
}

fn decode(bytes: &[u8]) -> Result<proto::EventBatch, Status> {
    <proto::EventBatch as prost::Message>::decode(bytes)
        .map_err(|e| Status::data_loss(format!("a stored batch can't be decoded: {e}")))
}

/// What a listener wants to see.
struct Wish {
    /// Which events; `None` for none.
    events: Option<Filter>,
    stories: bool,
}

/// The wanted part of a batch for a tail; `None` for nothing.
fn wanted(bytes: &[u8], wish: &Wish) -> Option<proto::EventBatch> {
    let places = match &wish.events {
        Some(filter) => filter.places(&Batch::parse(bytes).ok()?),
        None => Vec::new(),
    };
    let mut batch = decode(bytes).ok()?;
    let told = if wish.stories { std::mem::take(&mut batch.stories) } else { Vec::new() };
    let mut batch = keep(batch, &places);
    batch.count += told.len() as u32;
    batch.stories = told;
    (batch.count > 0).then_some(batch)
}

/// Shows what is stored from now on to one listener.
async fn tail(shared: Arc<Shared>, wish: &Wish, to: &Listener) {
    let mut batches = shared.tail.subscribe();
    loop {
        let item = match batches.recv().await {
            Ok(bytes) => wanted(&bytes, wish),
            Err(RecvError::Lagged(n)) => {
                shared.stats().counts.tail_missed += n;
                None
            }
            Err(RecvError::Closed) => return,
        };
        if let Some(batch) = item {
            let item = proto::TailItem { batch: Some(batch) };
            if to.send(Ok(item)).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Query for Queries {
    type TailStream = Tailing;

    async fn list_stories(
        &self,
        request: Request<proto::ListStoriesRequest>,
    ) -> Result<Response<proto::ListStoriesResponse>, Status> {
        let asked = request.into_inner();
        let filter =
            StoryFilter { pattern: asked.pattern, node: asked.node, id_prefix: asked.id_prefix };
        let stories = self.0.store().stories(limit(asked.limit), &filter);
        Ok(Response::new(proto::ListStoriesResponse {
            stories: stories.iter().map(linked_to_proto).collect(),
        }))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let asked = request.into_inner();
        if !matches!(asked.trace_id.len(), 0 | 16) {
            return Err(Status::invalid_argument(format!(
                "trace_id has {} bytes instead of 16",
                asked.trace_id.len()
            )));
        }
        let filter = Filter { kind: asked.kind, trace_id: asked.trace_id, node: asked.node };
        let found = self.0.latest(filter, limit(asked.limit)).await.map_err(Status::internal)?;
        let batches = found
            .iter()
            .rev()
            .map(|found| decode(&found.batch).map(|batch| keep(batch, &found.places)));
        Ok(Response::new(proto::ListEventsResponse { batches: batches.collect::<Result<_, _>>()? }))
    }

    async fn tail(
        &self,
        request: Request<proto::TailRequest>,
    ) -> Result<Response<Tailing>, Status> {
        let asked = request.into_inner();
        let filter = Filter { kind: asked.kind, ..Filter::default() };
        let wish = Wish { events: (!asked.no_events).then_some(filter), stories: asked.stories };
        let shared = Arc::clone(&self.0);
        let (to, stream) = mpsc::channel(TAIL_ITEMS);
        tokio::spawn(async move {
            tokio::select! {
                () = to.closed() => {}
                () = tail(shared, &wish, &to) => {}
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
            refused: status.ingest.refused,
            stored_bytes: status.store.stored_bytes,
            latency: Some(proto::Latency { count, p50_ns, p90_ns, p99_ns, p999_ns, max_ns }),
        }))
    }
}
