//! The receiver's work on a batch: decodes its events and offers them to the sink.

use std::sync::{Arc, OnceLock};

use tapio_core::event::Stage;
use tapio_core::ring::{Bell, Ledger, OnFull, Sink, ring};
use tapio_core::shutdown::Shutdown;
use tapio_wire::{Batch, Item};

use crate::Round;
use crate::records::Batches;
use crate::rules::builtin_rules;

const RING_BLOCKS: usize = 64 * 1024;

/// Decodes a batch of typical events and writes them into a ring.
pub(crate) fn batch_to_ring() -> Round {
    let mut ledger = Ledger::new(vec!["receiver".into()]);
    let (writer, mut reader) = ring(RING_BLOCKS);
    let shards = vec![(writer, Arc::new(Bell::new(OnceLock::new())))];
    let stage = ledger.stage(Stage::Collect);
    let shutdown = Shutdown::default();
    let mut sink = Sink::new(0, OnFull::Wait, builtin_rules(), shards, stage, shutdown);
    let mut batches = Batches::new();
    Box::new(move |events, meter| {
        let message = batches.next(events);
        meter.measure(|| {
            let batch = Batch::parse(&message).map_err(|(_, error)| error).unwrap();
            let mut decoder = batch.decoder();
            for item in batch.items() {
                let Item::Event(raw) = item else { unreachable!("the batch has events only") };
                let event = decoder.event(raw).unwrap();
                assert!(sink.try_offer(&event.as_received()).is_ok());
            }
            sink.flush();
        });
        assert_eq!(reader.drain(usize::MAX, |_| true) as u64, events);
    })
}
