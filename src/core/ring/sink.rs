//! Where a collector puts its events: routed, accounted, written into the right shard's ring.

use std::sync::Arc;
use std::time::Duration;

use super::{Bell, Header, RecordWriter, StageLedger, WriteError};
use crate::event::{Event, Reason};
use crate::shutdown::Shutdown;

/// Records written before the consumers' bells are rung without being asked to.
const RING_EVERY: u32 = 64;

/// How long a collector that may wait sleeps before it tries a full ring again.
const FULL_NAP: Duration = Duration::from_micros(100);

/// What a collector does when a ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Drop the event and count it: the source can't be held back (the kernel).
    Drop,
    /// Wait: the source can be read later (a file, a journal, a peer that is pushed back).
    Wait,
}

/// Where an event goes first and which shards want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Shards to visit, by bit; never zero.
    pub visits: u64,
}

impl Route {
    /// The first shard: visits go upwards, so that shards can't wait on each other in a circle.
    #[must_use]
    pub fn first(self) -> usize {
        self.visits.trailing_zeros() as usize
    }
}

/// Decides which shards an event visits.
pub trait Router: Send + Sync {
    /// The shards that want the event.
    fn route(&self, event: &Event<'_>) -> Route;
}

/// A collector's way into the pipeline.
pub struct Sink {
    collector: u8,
    on_full: OnFull,
    router: Arc<dyn Router>,
    shards: Vec<(RecordWriter, Arc<Bell>)>,
    ledger: Arc<StageLedger>,
    /// What never left the kernel; without one it counts as lost in the collector.
    kernel: Option<Arc<StageLedger>>,
    shutdown: Shutdown,
    unrung: u32,
    /// Events offered: each one's place in the collector's order.
    offered: u64,
    /// Whether an event was taken in and isn't accounted for yet.
    in_hand: bool,
    spare: Option<Box<Sink>>,
}

impl Sink {
    /// A sink into these shards.
    ///
    /// # Panics
    /// Without a shard: an event would have nowhere to go.
    #[must_use]
    pub fn new(
        collector: u8,
        on_full: OnFull,
        router: Arc<dyn Router>,
        shards: Vec<(RecordWriter, Arc<Bell>)>,
        ledger: Arc<StageLedger>,
        shutdown: Shutdown,
    ) -> Self {
        assert!(!shards.is_empty(), "a sink needs a shard");
        Self {
            collector,
            on_full,
            router,
            shards,
            ledger,
            kernel: None,
            shutdown,
            unrung: 0,
            offered: 0,
            in_hand: false,
            spare: None,
        }
    }

    /// Accounts for what was lost in the kernel at a stage of its own
    /// ([`Stage::Kernel`](crate::event::Stage::Kernel)).
    #[must_use]
    pub fn with_kernel_ledger(mut self, ledger: Arc<StageLedger>) -> Self {
        self.kernel = Some(ledger);
        self
    }

    /// Adds a second way for the same collector, with rings and counters of its own, for when this one is in the hands
    /// of a thread that hangs.
    #[must_use]
    pub fn with_spare(mut self, mut spare: Self) -> Self {
        // Its events have places of their own in the collector's order: no run offers 2^48 of them.
        spare.offered = 1 << 48;
        self.spare = Some(Box::new(spare));
        self
    }

    /// The second way, where there is one.
    pub fn take_spare(&mut self) -> Option<Self> {
        self.spare.take().map(|spare| *spare)
    }

    /// Ends waiting for room when this says so, in the place of what it was made with.
    pub fn set_shutdown(&mut self, shutdown: Shutdown) {
        self.shutdown = shutdown;
    }

    /// The collector's number in the ledger.
    #[must_use]
    pub fn collector(&self) -> u8 {
        self.collector
    }

    /// Whether the collector should end.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.shutdown.is_requested()
    }

    /// Says what to do when a ring is full.
    pub fn set_on_full(&mut self, on_full: OnFull) {
        self.on_full = on_full;
    }

    /// Takes an event in. It is accounted for whatever happens.
    ///
    /// # Errors
    /// The reason for which the event was dropped; it is counted already.
    pub fn offer(&mut self, event: &Event<'_>) -> Result<(), Reason> {
        self.offered += 1;
        self.offer_at(event, self.offered)
    }

    /// Takes in an event that has a place in an order (from 1): live, the collector's own; in replay,
    /// the total one.
    ///
    /// # Errors
    /// As [`Sink::offer`].
    pub fn offer_at(&mut self, event: &Event<'_>, order: u64) -> Result<(), Reason> {
        self.in_hand = true;
        let outcome = self.put(event, order);
        self.in_hand = false;
        match outcome {
            Ok(()) => {
                self.ledger.take(self.collector, 1);
                self.ledger.pass(self.collector, 1);
                self.unrung += 1;
                if self.unrung >= RING_EVERY {
                    self.flush();
                }
            }
            Err(reason) => self.refuse(reason, 1),
        }
        outcome
    }

    /// Counts the event that a panic interrupted on its way into a ring, if there was one. The
    /// manager calls it before it starts the collector again.
    pub fn after_panic(&mut self) {
        if std::mem::take(&mut self.in_hand) {
            self.refuse(Reason::CollectorPanic, 1);
        }
    }

    fn put(&mut self, event: &Event<'_>, order: u64) -> Result<(), Reason> {
        let route = self.router.route(event);
        let header = Header { order, ..Header::event(self.collector, route.visits, event.time_ns) };
        let first = route.first().min(self.shards.len() - 1);
        loop {
            match self.shards[first].0.write_event(&header, event) {
                Ok(()) => return Ok(()),
                Err(WriteError::Oversize) => return Err(Reason::Oversize),
                Err(WriteError::Full) if self.on_full == OnFull::Drop => {
                    return Err(Reason::RingFull);
                }
                Err(WriteError::Full)
                    if self.shutdown.is_requested() || self.shards[first].0.is_abandoned() =>
                {
                    return Err(Reason::Shutdown);
                }
                Err(WriteError::Full) => {
                    self.flush();
                    std::thread::sleep(FULL_NAP);
                }
            }
        }
    }

    /// Counts `n` events that were received but never became one.
    pub fn refuse(&mut self, reason: Reason, n: u64) {
        let ledger = match (&self.kernel, reason.is_in_kernel()) {
            (Some(kernel), true) => kernel,
            _ => &self.ledger,
        };
        ledger.take(self.collector, n);
        ledger.lose(self.collector, reason, n);
    }

    /// Promises every shard that nothing before this place in the order follows from here.
    pub fn watermark(&mut self, order: u64) {
        for i in 0..self.shards.len() {
            while self.shards[i].0.write_watermark(order).is_err() {
                if self.shutdown.is_requested() || self.shards[i].0.is_abandoned() {
                    break;
                }
                self.flush();
                std::thread::sleep(FULL_NAP);
            }
        }
        self.flush();
    }

    /// Wakes the shards that sleep. Call it whenever no more input is at hand.
    pub fn flush(&mut self) {
        self.unrung = 0;
        self.shutdown.heartbeat();
        for (_, bell) in &self.shards {
            bell.ring();
        }
    }
}

impl Drop for Sink {
    /// Leaves the rings, and tells their readers so: one that sleeps would never look again.
    fn drop(&mut self) {
        for (writer, bell) in self.shards.drain(..) {
            drop(writer);
            bell.ring();
        }
    }
}
