//! Stages that write batches to a disk.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tapio::server::{Ingest, ServerConfig};
use tapio::store::{Durability, OsFiles, SegmentLog, SegmentLogConfig};
use tapio_wire::BatchHandler as _;
use tempfile::tempdir;

use crate::Round;
use crate::records::Batches;

/// A usual batch of the bridge.
const BATCH_EVENTS: u64 = 100;
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
const RETENTION_BYTES: u64 = 4 * SEGMENT_BYTES;
const TIME_NS: u64 = 1_700_000_000_000_000_000;

/// Appends batches to a log, as the spool does.
pub(crate) fn append() -> Round {
    let dir = tempdir().unwrap();
    let config = SegmentLogConfig {
        dir: dir.path().join("spool"),
        segment_bytes: SEGMENT_BYTES,
        retention_bytes: RETENTION_BYTES,
        retires_when_full: false,
        durability: Durability::Process,
        acknowledges_recovered: false,
    };
    let mut log = SegmentLog::open(config, Arc::new(OsFiles), ()).unwrap();
    let batch = Batches::new().next(BATCH_EVENTS);
    Box::new(move |events, meter| {
        assert!(dir.path().exists());
        meter.measure(|| {
            for _ in 0..events / BATCH_EVENTS {
                log.append(&batch, TIME_NS).unwrap();
            }
        });
    })
}

/// Receives batches as the server does: checks, sequence numbers, storage, the acknowledgement.
pub(crate) fn ingest() -> Round {
    let dir = tempdir().unwrap();
    let config = ServerConfig {
        data_dir: dir.path().join("server"),
        segment_bytes: SEGMENT_BYTES,
        retention_bytes: RETENTION_BYTES,
        durability: Durability::Process,
        ..ServerConfig::default()
    };
    let ingest = Ingest::open(&config, Arc::new(OsFiles)).unwrap();
    let mut stream = ingest.stream(None);
    let mut batches = Batches::new();
    Box::new(move |events, meter| {
        assert!(dir.path().exists());
        let due: Vec<_> = (0..events / BATCH_EVENTS).map(|_| batches.next(BATCH_EVENTS)).collect();
        meter.measure(|| {
            for batch in &due {
                assert_eq!(stream.handle(batch), None);
                stream.end_group();
                let ack = stream.poll_ack(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(ack, Poll::Ready(Ok(Some(_)))));
            }
        });
    })
}
