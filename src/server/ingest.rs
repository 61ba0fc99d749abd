//! Ingest: deduplicates batches, stores them and acknowledges what is stored.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

use super::agents::{StoredBatch, status_refusal};
use super::config::ServerConfig;
use super::senders::StreamId;
use super::shared::{DiskWork, Shared};
use super::storage::Storage;
use super::sync::sync;
use crate::store::{Files, FramePosition};
use tapio_core::clock;
use tapio_core::event::TraceId;
use tapio_wire::proto::{self, Ack, AgentStatus, Refusal};
use tapio_wire::{
    AckStream, Batch, BatchHandler, BatchHead, Caller, IngestHandler, Item, Jump, SequenceCheck,
    StreamItems, expanded, kernel_time,
};

/// Pause before a batch that the disk refused is retried.
const DISK_RETRY: Duration = Duration::from_millis(500);
/// Why a batch is refused.
const OVERLAP: &str = "some of its items are stored already";
const FORGOTTEN: &str = "it is too old to know whether its items are stored";
/// Sender processes remembered for one stream. A sender has one process, and after a restart
/// perhaps batches of the last one.
const MAX_SENDERS: usize = 16;

/// Handler of the `Ingest` service. By itself it has no threads, sockets or clocks but that of
/// receipts: the server's threads and the simulation of delivery call it.
pub struct Ingest(Arc<Shared>);

impl Ingest {
    /// Opens the storage.
    ///
    /// # Errors
    /// With the configuration key, when it can't be used.
    pub fn open(config: &ServerConfig, files: Arc<dyn Files>) -> io::Result<Self> {
        Shared::open(config, files).map(|shared| Self(Arc::new(shared)))
    }

    /// The state that the server's parts share.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Handles the batches of a new stream.
    #[must_use]
    pub fn stream(&self, peer: Option<SocketAddr>) -> IngestStream {
        self.stream_of(Caller { address: peer, identity: None })
    }

    fn stream_of(&self, caller: Caller) -> IngestStream {
        self.0.open_stream();
        IngestStream {
            id: self.0.senders.next(),
            shared: Arc::clone(&self.0),
            caller,
            denied: None,
            senders: Vec::new(),
            refused: Vec::new(),
            groups: VecDeque::new(),
            due: VecDeque::new(),
            stored: FramePosition::default(),
            sync_failures: self.0.gate.failures(),
            delays_ns: Vec::new(),
        }
    }

    /// Syncs the log, which acks wait for.
    pub fn sync(&self) {
        sync(&self.0);
    }

    /// Calls `read` with the storage.
    pub fn with_storage<T>(&self, read: impl FnOnce(&Storage) -> T) -> T {
        read(&self.0.storage())
    }
}

impl IngestHandler for Ingest {
    fn open(&self, batches: Streaming<Bytes>, caller: Caller) -> Result<BoxStream<Ack>, Status> {
        let identity = caller.identity.as_ref().map(ToString::to_string);
        tracing::info!(peer = ?caller.address, identity, "server: agent connected");
        Ok(Box::pin(AckStream::new(batches, self.stream_of(caller))))
    }

    fn report_status(&self, status: AgentStatus, caller: &Caller) -> Result<(), Status> {
        let now_ns = clock::wall_ns();
        let refused = if caller.denial(&status.node).is_some() {
            let cause = format!("the status is of node {:?}, not of its sender", status.node);
            Some(Status::permission_denied(cause))
        } else {
            status_refusal(&status, now_ns).map(Status::invalid_argument)
        };
        if let Some(refused) = refused {
            self.0.stats().counts.statuses_refused += 1;
            return Err(refused);
        }
        self.0.agents().report(&status, now_ns);
        self.0.stats().counts.statuses += 1;
        Ok(())
    }
}

/// A sender process of a stream.
struct Sender {
    node: String,
    epoch: u64,
    items: StreamItems,
    /// Whether batches were handled since the last ack.
    is_unacked: bool,
}

/// Handles the batches of one stream.
pub struct IngestStream {
    shared: Arc<Shared>,
    caller: Caller,
    id: StreamId,
    /// Why the stream ends.
    denied: Option<Status>,
    senders: Vec<Sender>,
    /// Refusals that aren't acknowledged yet, with the sender's epoch.
    refused: Vec<(u64, Refusal)>,
    /// Ended groups whose acks wait for the disk, oldest first.
    groups: VecDeque<Group>,
    /// Acks that may be sent.
    due: VecDeque<Ack>,
    /// The position behind the last batch of this stream that was stored.
    stored: FramePosition,
    /// Syncs that had failed when the stream was opened.
    sync_failures: u64,
    /// Reused for each batch.
    delays_ns: Vec<u64>,
}

/// Batches that are acknowledged together.
struct Group {
    /// They are on the disk once the log is synced through this position.
    stored: FramePosition,
    acks: Vec<Ack>,
}

impl Drop for IngestStream {
    fn drop(&mut self) {
        for sender in std::mem::take(&mut self.senders) {
            self.close_sender(&sender);
        }
        self.shared.close_stream();
        tracing::info!(peer = ?self.caller.address, "server: agent disconnected");
    }
}

fn end_sequence(head: &BatchHead<'_>) -> u64 {
    head.first_sequence.saturating_add(u64::from(head.count))
}

impl IngestStream {
    fn refuse(&mut self, head: &BatchHead<'_>, cause: String) {
        let mut stats = self.shared.stats();
        if stats.counts.batches_refused == 0 {
            tracing::warn!(
                peer = ?self.caller.address, node = head.node, cause,
                "server: refused a batch; further ones are only counted"
            );
        }
        stats.counts.batches_refused += 1;
        drop(stats);
        let refusal = Refusal { first_sequence: head.first_sequence, count: head.count, cause };
        self.refused.push((head.epoch, refusal));
        self.shared.agents().refuse_batch(head.node);
        self.sender(head).items.give_up(head.first_sequence, end_sequence(head));
    }

    fn sender(&mut self, head: &BatchHead<'_>) -> &mut Sender {
        let is_same = |s: &Sender| s.epoch == head.epoch && s.node == head.node;
        let index = match self.senders.iter().position(is_same) {
            Some(index) => index,
            None => {
                // One whose batches aren't acknowledged yet is remembered in any case: there are at
                // most as many as a group has batches.
                if self.senders.len() >= MAX_SENDERS
                    && let Some(acked) = self.senders.iter().position(|s| !s.is_unacked)
                {
                    let silent = self.senders.remove(acked);
                    self.close_sender(&silent);
                }
                self.shared.senders.open(head.node, head.epoch, self.id);
                self.shared.agents().open_stream(head.node, clock::wall_ns());
                self.senders.push(Sender {
                    node: head.node.to_owned(),
                    epoch: head.epoch,
                    items: StreamItems::starting_at(head.first_sequence),
                    is_unacked: false,
                });
                self.senders.len() - 1
            }
        };
        &mut self.senders[index]
    }

    fn close_sender(&self, sender: &Sender) {
        self.shared.senders.close(&sender.node, sender.epoch, self.id);
        self.shared.agents().close_stream(&sender.node, clock::wall_ns());
    }

    /// Whether a batch is of another node than its sender. The stream then ends.
    fn is_denied(&mut self, head: &BatchHead<'_>) -> bool {
        let Some(cause) = self.caller.denial(head.node) else { return false };
        let mut stats = self.shared.stats();
        stats.counts.batches_denied += 1;
        if stats.counts.batches_denied == 1 {
            tracing::warn!(
                peer = ?self.caller.address, cause,
                "server: denied a batch; further ones are only counted"
            );
        }
        drop(stats);
        self.denied = Some(Status::permission_denied(cause));
        true
    }

    /// Whether a batch revises a story of a process that is connected by another stream. Senders
    /// that have authenticated themselves are who they say; a unix socket's are of this user. The
    /// stream then ends: an agent whose last connection isn't closed yet tries again.
    fn is_of_another_process(&mut self, batch: &Batch<'_>) -> bool {
        let is_known = self.caller.identity.is_some() || self.caller.address.is_none();
        if is_known || batch.stories == 0 {
            return false;
        }
        let BatchHead { node, .. } = batch.head;
        let is_elsewhere = batch.items().any(|item| {
            let Item::Story(bytes) = item else { return false };
            let id = proto::Story::decode(bytes).ok().and_then(|story| story.id.try_into().ok());
            let epoch = id.and_then(|id| self.shared.storage().story_epoch(TraceId(id), node));
            epoch.is_some_and(|epoch| self.shared.senders.is_elsewhere(node, epoch, self.id))
        });
        if is_elsewhere {
            self.shared.stats().counts.batches_denied += 1;
            let cause = format!(
                "a story of node {node:?} was revised on a connection that isn't its sender's"
            );
            tracing::warn!(peer = ?self.caller.address, cause, "server: denied a batch");
            self.denied = Some(Status::unavailable(cause));
        }
        is_elsewhere
    }

    /// Why a batch can't be of a real sender: its sequence or epoch is too far ahead.
    fn jump(&self, head: &BatchHead<'_>, receipt_ns: u64) -> Option<Jump> {
        let known = || self.shared.storage().sequences(head.node, head.epoch).end();
        Jump::check(head.epoch, end_sequence(head), known, receipt_ns)
    }

    /// Stores a valid batch unless it is stored already.
    ///
    /// # Errors
    /// When the disk refuses it.
    fn store(
        &mut self,
        bytes: &Bytes,
        batch: &Batch<'_>,
        receipt_ns: u64,
    ) -> Result<SequenceCheck, io::Error> {
        let head = &batch.head;
        let mut storage = self.shared.storage();
        if head.count == 0 {
            return Ok(SequenceCheck::Duplicate);
        }
        storage.sync_recovered()?;
        let check = storage.sequences(head.node, head.epoch).check(head.first_sequence, head.count);
        if check == SequenceCheck::New {
            storage.append(bytes, receipt_ns)?;
        }
        // A duplicate may be of a batch whose first copy isn't on the disk yet.
        self.stored = storage.end();
        Ok(check)
    }

    /// Counts a batch that was stored, and publishes it.
    fn finish_stored(&self, bytes: &Bytes, batch: &Batch<'_>, receipt_ns: u64, delays_ns: &[u64]) {
        let mut stats = self.shared.stats();
        stats.counts.batches += 1;
        stats.counts.events += u64::from(batch.events);
        stats.counts.stories += u64::from(batch.stories);
        for &delay in delays_ns {
            stats.latency.saturating_record(delay);
        }
        drop(stats);
        let BatchHead { node, epoch, .. } = batch.head;
        let (events, stories) = (batch.events, batch.stories);
        let stored = StoredBatch { epoch, events, stories, receipt_ns, delays_ns };
        self.shared.agents().store(node, &stored);
        self.shared.report_disk_ok(DiskWork::Append);
        self.shared.publish(bytes, self.stored, batch.stories > 0);
    }

    /// Handles a valid batch.
    ///
    /// # Errors
    /// When the disk refuses it.
    fn handle_valid(
        &mut self,
        bytes: &Bytes,
        batch: &Batch<'_>,
        receipt_ns: u64,
        delays_ns: &[u64],
    ) -> Result<(), io::Error> {
        let head = &batch.head;
        if let Some(jump) = self.jump(head, receipt_ns) {
            self.shared.stats().counts.jumps_refused += 1;
            self.refuse(head, jump.to_string());
        } else if self.is_of_another_process(batch) {
            return Ok(());
        } else if let Some(dropped_from) = batch.dropped_from {
            self.sender(head).items.give_up(dropped_from, head.first_sequence);
            let (epoch, end) = (head.epoch, head.first_sequence);
            self.shared.agents().drop_items(head.node, epoch, dropped_from, end);
        } else {
            // Before the batch is stored: a stream's first item is that of its first batch.
            self.sender(head);
            match self.store(bytes, batch, receipt_ns)? {
                SequenceCheck::New => {
                    self.finish_stored(bytes, batch, receipt_ns, delays_ns);
                }
                SequenceCheck::Duplicate => {
                    self.shared.stats().counts.duplicates += u64::from(head.count);
                }
                SequenceCheck::Overlap => self.refuse(head, OVERLAP.into()),
                SequenceCheck::Forgotten => self.refuse(head, FORGOTTEN.into()),
            }
        }
        self.sender(head).is_unacked = true;
        Ok(())
    }
}

impl BatchHandler for IngestStream {
    fn handle(&mut self, bytes: &Bytes) -> Option<Duration> {
        if self.denied.is_some() {
            return None;
        }
        let receipt_ns = clock::wall_ns();
        let mut delays_ns = std::mem::take(&mut self.delays_ns);
        delays_ns.clear();
        let parsed = Batch::parse_with(bytes, |item| {
            if let Item::Event(event) = item
                && let Some(time_ns) = kernel_time(event)
            {
                delays_ns.push(receipt_ns.saturating_sub(time_ns));
            }
        });
        let head = match &parsed {
            Ok(batch) => &batch.head,
            Err((head, _)) => head,
        };
        if self.is_denied(head) {
            return None;
        }
        if let Ok(batch) = &parsed
            && batch.log_blocks > 0
        {
            // Events are stored: each can be found by what it has.
            match expanded(batch) {
                Ok(Some(events)) => return self.handle(&events),
                Ok(None) => {}
                Err(error) => {
                    self.refuse(&batch.head, error.to_string());
                    self.sender(&batch.head).is_unacked = true;
                    return None;
                }
            }
        }
        let retry = match parsed {
            Ok(batch) => match self.handle_valid(bytes, &batch, receipt_ns, &delays_ns) {
                Ok(()) => None,
                Err(error) => {
                    self.shared.report_disk_error(DiskWork::Append, &error);
                    Some(DISK_RETRY)
                }
            },
            Err((head, error)) => {
                self.refuse(&head, error.to_string());
                self.sender(&head).is_unacked = true;
                None
            }
        };
        self.delays_ns = delays_ns;
        retry
    }

    fn end_group(&mut self) {
        let credit_bytes = self.shared.credit_bytes();
        let mut storage = self.shared.storage();
        let unacked = self.senders.iter_mut().filter(|sender| sender.is_unacked);
        let acks = unacked.map(|sender| {
            sender.is_unacked = false;
            let is_own = |(epoch, _): &mut (u64, Refusal)| *epoch == sender.epoch;
            let refused = self.refused.extract_if(.., is_own).map(|(_, refusal)| refusal).collect();
            let stored = storage.sequences(&sender.node, sender.epoch);
            let through = sender.items.answered_through(stored);
            Ack { epoch: sender.epoch, through, refused, credit_bytes }
        });
        let acks = acks.collect();
        drop(storage);
        self.groups.push_back(Group { stored: self.stored, acks });
    }

    fn poll_ack(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Ack>, Status>> {
        while self.due.is_empty()
            && let Some(group) = self.groups.front_mut()
        {
            let gate = &self.shared.gate;
            std::task::ready!(gate.poll_synced(group.stored, self.sync_failures, cx))?;
            self.due.extend(group.acks.drain(..));
            self.groups.pop_front();
        }
        match (self.due.pop_front(), &self.denied) {
            (None, Some(status)) => Poll::Ready(Err(status.clone())),
            (ack, _) => Poll::Ready(Ok(ack)),
        }
    }
}
