//! A sink that drops where its ring is full: the least severe events first, whatever comes and is
//! read in between, all of them counted.

use std::sync::Arc;

use proptest::prelude::*;
use tapio_core::event::{Event, EventId, Reason, Severity, Stage, names};
use tapio_core::ring::{
    BLOCK_BYTES, Bell, Ledger, OnFull, RecordReader, Route, Router, Sink, reserve_blocks, ring,
};
use tapio_core::shutdown::Shutdown;

struct OneShard;

impl Router for OneShard {
    fn route(&self, _: &Event<'_>) -> Route {
        Route { visits: 1 }
    }
}

const SEVERITIES: [Severity; 5] =
    [Severity::DEBUG, Severity::INFO, Severity::WARN, Severity::ERROR, Severity::FATAL];

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Events of this severity and message length.
    Offer { severity: usize, len: usize, times: usize },
    /// Reads about this many blocks.
    Drain(usize),
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..SEVERITIES.len(), 0..20_000usize, 1..60usize)
            .prop_map(|(severity, len, times)| Step::Offer { severity, len, times }),
        1 => (0..3_000usize).prop_map(Step::Drain),
    ]
}

/// A sink, the reader of its ring, and their accounts.
struct Overload {
    sink: Sink,
    reader: RecordReader,
    ledger: Ledger,
    capacity: usize,
    dropped: u64,
    offered: u64,
}

impl Overload {
    fn new(on_full: OnFull) -> Self {
        let mut ledger = Ledger::new(vec!["c".into()]);
        let (writer, reader) = ring(0);
        let capacity = writer.capacity_blocks();
        let shards = vec![(writer, Arc::new(Bell::new(Default::default())))];
        let stage = ledger.stage(Stage::Collect);
        let sink = Sink::new(0, on_full, Arc::new(OneShard), shards, stage, Shutdown::default());
        Self { sink, reader, ledger, capacity, dropped: 0, offered: 0 }
    }

    fn free(&self) -> usize {
        self.capacity - self.reader.waiting_blocks()
    }

    /// Offers an event and checks the decision. Returns whether it was taken.
    fn offer(&mut self, severity: Severity, len: usize) -> bool {
        let message = "m".repeat(len);
        let event = Event {
            severity,
            message: &message,
            ..Event::new(
                EventId([1; 16]),
                1,
                names::KERNEL_PROCESS_EXEC,
                names::KERNEL_PROCESS_EXEC,
            )
        };
        let room = 2 * (1 + event.archive_bound_bytes().div_ceil(BLOCK_BYTES));
        let reserve = reserve_blocks(severity, self.capacity);
        let before = self.free();
        self.offered += 1;
        match self.sink.offer(&event) {
            Ok(()) => {
                assert!(self.free() >= reserve, "{severity} took from the reserve above it");
                true
            }
            Err(reason) => {
                self.dropped += 1;
                assert_eq!((reason, self.free()), (Reason::RingFull, before));
                assert!(before < reserve + room, "{severity} was dropped with {before} free");
                false
            }
        }
    }
}

proptest! {
    #[test]
    fn least_severe_events_are_dropped_first(steps in prop::collection::vec(a_step(), 1..60)) {
        let mut overload = Overload::new(OnFull::Drop);
        for step in steps {
            match step {
                Step::Drain(blocks) => {
                    overload.reader.drain(blocks, |_| true);
                }
                Step::Offer { severity, len, times } => {
                    for _ in 0..times {
                        overload.offer(SEVERITIES[severity], len);
                    }
                }
            }
            let account = overload.ledger.snapshot().total;
            prop_assert_eq!(account.received, overload.offered);
            let dropped: u64 = account.dropped.iter().map(|(.., n)| n).sum();
            prop_assert_eq!(dropped, overload.dropped);
            prop_assert!(account.dropped.iter().all(|d| d.1 == Reason::RingFull));
        }
    }
}

#[test]
fn flood_of_the_least_severe_leaves_room_for_warnings_and_errors() {
    let mut overload = Overload::new(OnFull::Drop);
    for severity in [Severity::INFO, Severity::WARN, Severity::ERROR] {
        let mut taken = 0;
        while overload.offer(severity, 100) {
            taken += 1;
        }
        assert!(taken > 20, "{severity}: {taken}");
        assert!(!overload.offer(Severity::INFO, 100), "no info among what is reserved");
    }
    assert!(overload.free() < 10, "errors fill the whole ring");
}

#[test]
fn collector_that_waits_uses_the_whole_ring() {
    let mut overload = Overload::new(OnFull::Wait);
    let event = Event {
        severity: Severity::DEBUG,
        ..Event::new(EventId([1; 16]), 1, names::KERNEL_PROCESS_EXEC, names::KERNEL_PROCESS_EXEC)
    };
    let blocks = 1 + event.archive_bound_bytes().div_ceil(BLOCK_BYTES);
    while overload.free() >= 2 * blocks {
        overload.sink.offer(&event).unwrap();
    }
}
