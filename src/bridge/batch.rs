//! A batch on its way to the server.

use bytes::Bytes;

use crate::store::FramePosition;
use tapio_core::ring::{MAX_ACCOUNTS, MAX_COLLECTORS};
use tapio_wire::{Batch, EncodedBatch, GRPC_PREFIX_BYTES, grpc_framed, grpc_framed_zstd};

/// Level of zstd: the fastest one that still finds most of what events have in common.
const ZSTD_LEVEL: i32 = 1;

/// Events of each account ([`tapio_core::ring::Header::account`]).
pub(super) type Accounts = [u32; MAX_ACCOUNTS];

/// A batch in memory.
#[derive(Clone)]
pub(super) struct QueuedBatch {
    /// The `EventBatch` after its gRPC prefix.
    pub(super) framed: Bytes,
    /// Identifies the process that encoded it.
    pub(super) epoch: u64,
    pub(super) first_sequence: u64,
    pub(super) items: u32,
    pub(super) events: u32,
    pub(super) stories: u32,
    pub(super) accounts: Accounts,
    /// Its place in the spool; `None` without one.
    pub(super) position: Option<FramePosition>,
    /// Whether the server has answered it, while one before isn't answered yet.
    pub(super) is_answered: bool,
    /// Why the server refuses it.
    pub(super) refusal: Option<String>,
    /// How often the server has ended the stream because of it.
    pub(super) objections: u32,
}

impl QueuedBatch {
    /// A batch that this process has encoded.
    pub(super) fn encoded(
        batch: &EncodedBatch,
        epoch: u64,
        position: Option<FramePosition>,
    ) -> Self {
        Self {
            framed: batch.framed(),
            epoch,
            first_sequence: batch.first_sequence,
            items: batch.items,
            events: batch.events,
            stories: batch.stories,
            accounts: batch.accounts,
            position,
            is_answered: false,
            refusal: None,
            objections: 0,
        }
    }

    /// A batch from the spool; `None` for bytes that are no batch. Events of earlier processes are
    /// counted as those of collector `recovered`.
    pub(super) fn spooled(
        bytes: &[u8],
        position: FramePosition,
        own_epoch: u64,
        recovered: u8,
    ) -> Option<Self> {
        let batch = Batch::parse(bytes).ok()?;
        Some(Self {
            framed: grpc_framed(bytes),
            epoch: batch.head.epoch,
            first_sequence: batch.head.first_sequence,
            items: batch.head.count,
            events: batch.events,
            stories: batch.stories,
            accounts: accounts_of(&batch, own_epoch, recovered),
            position: Some(position),
            is_answered: false,
            refusal: None,
            objections: 0,
        })
    }

    /// An empty batch before this one: the items from `dropped_from` up to this one won't come.
    pub(super) fn gap_before(&self, dropped_from: u64, node: &str) -> Self {
        let message = tapio_wire::proto::EventBatch {
            first_sequence: self.first_sequence,
            node: node.to_owned(),
            epoch: self.epoch,
            dropped_from: Some(dropped_from),
            ..Default::default()
        };
        let bytes = prost::Message::encode_to_vec(&message);
        Self {
            framed: grpc_framed(&bytes),
            items: 0,
            events: 0,
            stories: 0,
            accounts: [0; MAX_ACCOUNTS],
            refusal: None,
            ..*self
        }
    }

    /// The `EventBatch`.
    pub(super) fn message(&self) -> &[u8] {
        &self.framed[GRPC_PREFIX_BYTES..]
    }

    /// The segment of the spool that it is in.
    pub(super) fn segment(&self) -> Option<u64> {
        self.position.map(|position| position.segment)
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.framed.len()
    }

    /// One past the sequence number of the last item.
    pub(super) fn end_sequence(&self) -> u64 {
        self.first_sequence.saturating_add(u64::from(self.items))
    }
}

/// Adds events.
pub(super) fn add(sum: &mut Accounts, more: &Accounts) {
    sum.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
}

/// The same events without their generations, as a batch that comes back from the spool has them.
pub(super) fn without_generations(accounts: &Accounts) -> Accounts {
    let mut sums = [0; MAX_ACCOUNTS];
    for (account, events) in accounts.iter().enumerate() {
        sums[account % MAX_COLLECTORS] += events;
    }
    sums
}

/// Events of each collector in a batch of the spool.
pub(super) fn accounts_of(batch: &Batch<'_>, own_epoch: u64, recovered: u8) -> Accounts {
    let mut accounts = [0; MAX_ACCOUNTS];
    if batch.head.epoch == own_epoch {
        let counts = batch.collector_events().take(MAX_COLLECTORS);
        accounts.iter_mut().zip(counts).for_each(|(account, n)| *account = n);
    } else {
        accounts[usize::from(recovered) % MAX_COLLECTORS] = batch.events;
    }
    accounts
}

/// A batch with its frame for gRPC, compressed.
pub(super) fn compress(framed: &Bytes) -> Bytes {
    let message = &framed[GRPC_PREFIX_BYTES..];
    match zstd::bulk::compress(message, ZSTD_LEVEL) {
        Ok(compressed) => grpc_framed_zstd(&compressed),
        // Out of memory; a frame says whether it is compressed.
        Err(_) => framed.clone(),
    }
}
