//! Connections between threads: record rings, the wake protocol around them, and the counters of
//! CONS-1.
//!
//! | file | purpose |
//! | --- | --- |
//! | `block.rs` | 64-byte blocks, the header of a record |
//! | `elastic.rs` | a ring of blocks that grows while it is full |
//! | `rtrb_model.rs` | its parts for loom |
//! | `membership.rs` | [`Membership`] of an event in a story |
//! | `record.rs` | [`RecordWriter`] and [`RecordReader`]: archives in place |
//! | `wake.rs` | [`Bell`]: wakes a consumer, only if it sleeps |
//! | `park.rs` | [`wait_until`]: a thread waits for its bell |
//! | `route.rs` | [`Router`]: the shards of an event |
//! | `sink.rs` | [`Sink`]: a collector's entry into the pipeline |
//! | `sink/log_blocks.rs` | the entry of log records that pass as they came |
//! | `sink/truncated.rs` | events that are too large for a record |
//! | `ledger.rs` | [`Ledger`]: received = forwarded + dropped + held |
//!
//! A ring has one producer and one consumer. A record is a header block, one block per membership,
//! and the blocks of an rkyv archive, all contiguous. Where the ring's end leaves too little room,
//! a skip marker sends the reader to the ring's start.

mod block;
mod elastic;
mod ledger;
mod membership;
mod park;
mod record;
mod route;
#[cfg(loom)]
mod rtrb_model;
mod sink;
mod wake;

pub use block::{BLOCK_BYTES, Header, MAX_RECORD_BLOCKS, RecordType, WriteError};
pub use ledger::{
    AcceptanceTarget, CollectorAccount, Ledger, MAX_ACCOUNTS, MAX_COLLECTORS, Snapshot, StageLedger,
};
pub use membership::{Membership, correlations_json};
pub use park::{attach, wait_until};
pub use record::{MAX_FORWARDED_BLOCKS, OwnedRecord, Record, RecordReader, RecordWriter, ring};
pub use route::{AttributeUse, LogFilter, LogOutline, LogPass, Route, Router};
pub use sink::{FullRing, OnFull, Sink, reserve_blocks};
pub use wake::{Bell, Doorbell, Target};
