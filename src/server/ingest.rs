//! Taking batches in: seen before? stored? then acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

use super::Shared;
use tapio_core::clock;
use tapio_wire::proto::{Ack, Refusal};
use tapio_wire::{AckStream, Batch, BatchHead, IngestHandler, Intake, Item, Verdict, kernel_time};

/// How long a batch waits that the disk didn't take.
const DISK_RETRY: Duration = Duration::from_millis(500);

/// The `Ingest` service's handler.
pub(super) struct Ingest(pub(super) Arc<Shared>);

impl IngestHandler for Ingest {
    fn open(
        &self,
        batches: Streaming<Bytes>,
        peer: Option<SocketAddr>,
    ) -> Result<BoxStream<Ack>, Status> {
        tracing::info!(?peer, "an agent has connected");
        let intake = ServerIntake {
            shared: Arc::clone(&self.0),
            peer,
            epochs: Vec::new(),
            refused: Vec::new(),
            delays_ns: Vec::new(),
        };
        Ok(Box::pin(AckStream::new(batches, intake)))
    }
}

/// A sender process heard on a stream.
struct Epoch {
    node: String,
    epoch: u64,
    /// The first item it sent here. A sender starts with its oldest unsettled item, so all before
    /// are settled.
    low: u64,
    unacked: bool,
}

/// One stream's batches.
struct ServerIntake {
    shared: Arc<Shared>,
    peer: Option<SocketAddr>,
    epochs: Vec<Epoch>,
    refused: Vec<(u64, Refusal)>,
    delays_ns: Vec<u64>,
}

impl Drop for ServerIntake {
    fn drop(&mut self) {
        tracing::info!(peer = ?self.peer, "an agent has gone");
    }
}

impl ServerIntake {
    fn refuse(&mut self, head: &BatchHead<'_>, cause: String) {
        let mut stats = self.shared.stats();
        if stats.counts.refused == 0 {
            tracing::warn!(peer = ?self.peer, node = head.node, cause, "a batch is refused; further ones are counted");
        }
        stats.counts.refused += 1;
        drop(stats);
        let refusal = Refusal { first_sequence: head.first_sequence, count: head.count, cause };
        self.refused.push((head.epoch, refusal));
    }

    fn epoch(&mut self, head: &BatchHead<'_>) -> &mut Epoch {
        let same = |e: &Epoch| e.epoch == head.epoch && e.node == head.node;
        let at = match self.epochs.iter().position(same) {
            Some(at) => at,
            None => {
                // A sender has one process, and after a restart perhaps what the last one left.
                if self.epochs.len() >= 16 {
                    self.epochs.remove(0);
                }
                self.epochs.push(Epoch {
                    node: head.node.to_owned(),
                    epoch: head.epoch,
                    low: head.first_sequence,
                    unacked: false,
                });
                self.epochs.len() - 1
            }
        };
        &mut self.epochs[at]
    }

    /// Stores a sound batch. `Err`: the disk doesn't take it.
    fn store(
        &mut self,
        bytes: &Bytes,
        batch: &Batch<'_>,
        stories: &[&[u8]],
        receipt_ns: u64,
    ) -> Result<(Verdict, Option<(Bytes, u32)>), std::io::Error> {
        let head = &batch.head;
        let end = head.first_sequence.saturating_add(u64::from(head.count));
        let low = self.epoch(head).low;
        let mut store = self.shared.store();
        let settled = store.settled(head.node, head.epoch);
        settled.settle(0, low);
        let verdict = settled.look(head.first_sequence, head.count);
        let mut kept = None;
        if verdict == Verdict::New {
            kept = store.append_once(batch, bytes, receipt_ns)?;
            for story in stories {
                store.index_story(head.node, head.epoch, story);
            }
        }
        // What overlaps is refused, which settles it too: it would be refused again.
        let settled = store.settled(head.node, head.epoch);
        settled.settle(head.first_sequence, end);
        Ok((verdict, kept.map(|(bytes, withheld)| (bytes.into(), withheld))))
    }
}

impl Intake for ServerIntake {
    fn take(&mut self, bytes: &Bytes) -> Option<Duration> {
        let receipt_ns = clock::wall_ns();
        let mut stories = Vec::new();
        let mut delays_ns = std::mem::take(&mut self.delays_ns);
        delays_ns.clear();
        let parsed = Batch::parse_with(bytes, |item| match item {
            Item::Event(event) => {
                if let Some(time) = kernel_time(event) {
                    delays_ns.push(receipt_ns.saturating_sub(time));
                }
            }
            Item::Story(story) => stories.push(story),
        });
        let wait = match parsed {
            Ok(batch) => match self.store(bytes, &batch, &stories, receipt_ns) {
                Ok((verdict, kept)) => {
                    let (stored, withheld) =
                        kept.as_ref().map_or((bytes, 0), |(stored, n)| (stored, *n));
                    self.count(stored, &batch, (verdict, withheld), &delays_ns);
                    None
                }
                Err(error) => {
                    self.shared.disk_failed(&error);
                    Some(DISK_RETRY)
                }
            },
            Err((head, error)) => {
                self.epoch(&head).unacked = true;
                self.refuse(&head, error.to_string());
                let end = head.first_sequence.saturating_add(u64::from(head.count));
                let mut store = self.shared.store();
                let settled = store.settled(head.node, head.epoch);
                settled.settle(head.first_sequence, end);
                None
            }
        };
        self.delays_ns = delays_ns;
        wait
    }

    fn next_ack(&mut self) -> Option<Ack> {
        let epoch = self.epochs.iter_mut().find(|e| e.unacked)?;
        epoch.unacked = false;
        let mut store = self.shared.store();
        let settled = store.settled(&epoch.node, epoch.epoch);
        let (meant, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.refused).into_iter().partition(|(of, _)| *of == epoch.epoch);
        self.refused = rest;
        Some(Ack {
            epoch: epoch.epoch,
            through: settled.through(epoch.low),
            refused: meant.into_iter().map(|(_, refusal)| refusal).collect(),
        })
    }
}

impl ServerIntake {
    /// Counts a batch that was dealt with; `stored` are its bytes without what was `withheld`.
    fn count(
        &mut self,
        stored: &Bytes,
        batch: &Batch<'_>,
        (verdict, withheld): (Verdict, u32),
        delays_ns: &[u64],
    ) {
        let head = &batch.head;
        self.epoch(head).unacked = true;
        match verdict {
            Verdict::New => {
                let mut stats = self.shared.stats();
                stats.counts.batches += 1;
                stats.counts.events += u64::from(batch.events - withheld);
                stats.counts.duplicates += u64::from(withheld);
                stats.counts.stories += u64::from(batch.stories);
                stats.counts.disk_failing = false;
                for &delay in delays_ns {
                    stats.latency.saturating_record(delay);
                }
                drop(stats);
                self.shared.tell(stored);
            }
            Verdict::Seen => self.shared.stats().counts.duplicates += u64::from(head.count),
            Verdict::Overlaps => self.refuse(head, "some of its items were sent before".into()),
        }
    }
}
