//! Batches on one stream of the server, as a sender may send them: the acknowledged sequence number
//! never goes back, no item is stored twice, and a start finds what is stored again.

#![no_main]

#[path = "../../../support/sim_disk.rs"]
#[allow(dead_code, reason = "a part is used")]
mod sim_disk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use sim_disk::SimDisk;
use tapio::server::{Budget, Cursor, Filter, Ingest, ServerConfig, Storage};
use tapio_wire::{Batch, BatchHandler as _};

fn open(disk: &SimDisk) -> Ingest {
    disk.kill();
    let config = ServerConfig {
        data_dir: "/store".into(),
        segment_bytes: 64 * 1024,
        retention_bytes: 1 << 30,
        ..ServerConfig::default()
    };
    match Ingest::open(&config, Arc::new(disk.clone())) {
        Ok(ingest) => ingest,
        Err(error) => panic!("the store doesn't open: {error}"),
    }
}

/// The events of the stored batches: node, epoch, the first one and how many, ascending.
fn stored(storage: &Storage) -> Vec<(String, u64, u64, u32)> {
    let page = storage.select_events(Filter::default(), Cursor::NEWEST).read(&Budget::UNLIMITED);
    let parsed = page.items.iter().filter_map(|found| Batch::parse(&found.batch).ok());
    let item = |batch: Batch<'_>| {
        let head = batch.head;
        (head.node.to_owned(), head.epoch, head.first_sequence, batch.events)
    };
    let mut stored: Vec<_> = parsed.map(item).collect();
    stored.sort_unstable();
    stored
}

fuzz_target!(|bytes: &[u8]| {
    let disk = SimDisk::default();
    let ingest = open(&disk);
    let mut stream = ingest.stream(None);
    let mut through = BTreeMap::new();
    // Each message has its length in two bytes before it.
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (message, after) = after.split_at(after.len().min(u16::from_le_bytes(*length).into()));
        rest = after;
        let node = match Batch::parse(message) {
            Ok(batch) => batch.head.node.to_owned(),
            Err((head, _)) => head.node.to_owned(),
        };
        assert!(stream.handle(&message.to_vec().into()).is_none(), "the disk doesn't fail");
        stream.end_group();
        ingest.sync();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(Some(ack))) = stream.poll_ack(&mut context) {
            let before = through.insert((ack.epoch, node.clone()), ack.through).unwrap_or(0);
            assert!(ack.through >= before, "an answer is taken back");
        }
    }
    let before = ingest.with_storage(stored);
    let overlaps = before.windows(2).any(|pair| {
        let (a, b) = (&pair[0], &pair[1]);
        (&a.0, a.1) == (&b.0, b.1) && a.2.saturating_add(a.3.into()) > b.2
    });
    assert!(!overlaps, "an item is stored twice: {before:?}");
    drop(stream);
    drop(ingest);
    assert_eq!(open(&disk).with_storage(stored), before, "found again at the next start");
});
