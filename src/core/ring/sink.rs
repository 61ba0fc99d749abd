//! A collector's entry into the pipeline: routes events, accounts for them and writes them into the
//! rings of the shards.

mod log_blocks;
mod truncated;

use std::sync::Arc;
use std::time::Duration;

use super::block::{Header, WriteError};
use super::ledger::{StageLedger, account};
use super::record::RecordWriter;
use super::route::Router;
use super::wake::Bell;
use crate::event::{Event, Reason, Severity};
use crate::log_line;
use crate::memory::MemoryPressure;
use crate::redact::Redactor;
use crate::shutdown::Shutdown;

/// Records written before the bells of the shards are rung without a call of `flush`.
const FLUSH_EVERY: u32 = 64;

/// Pause before a full ring is tried again.
const FULL_PAUSE: Duration = Duration::from_micros(100);

/// Pause before it is looked again whether there is memory.
const MEMORY_PAUSE: Duration = Duration::from_millis(5);

/// Policy for a full ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Drops the event and counts it: the source can't be paused (the kernel). The least severe
    /// events go first ([`reserve_blocks`]).
    Drop,
    /// Waits: the source can be read later (a file, a journal, a peer under backpressure).
    Wait,
}

/// The blocks of a ring that an event of this severity leaves free where events are dropped when
/// the ring is full: the last quarter is for warnings and above, the last eighth for errors only.
#[must_use]
pub fn reserve_blocks(severity: Severity, capacity_blocks: usize) -> usize {
    if severity >= Severity::ERROR {
        0
    } else if severity >= Severity::WARN {
        capacity_blocks / 8
    } else {
        capacity_blocks / 4
    }
}

/// A ring without room for an event, or an agent without memory for it ([`Sink::try_offer`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullRing(usize);

/// A collector's entry into the pipeline.
pub struct Sink {
    collector: u8,
    on_full: OnFull,
    router: Arc<dyn Router>,
    shards: Vec<(RecordWriter, Arc<Bell>)>,
    ledger: Arc<StageLedger>,
    /// Counts events lost in the kernel; without one they count as lost in the collector.
    kernel: Option<Arc<StageLedger>>,
    shutdown: Shutdown,
    memory: MemoryPressure,
    /// Removes secrets from events before anything else reads them; `None` where that is disabled.
    redactor: Option<Arc<Redactor>>,
    /// Records written since the last flush.
    unflushed: u32,
    /// Events offered, which is the position of the last one in the collector's order.
    offered: u64,
    /// The current generation, from 1.
    generation: u64,
    /// Whether an event of the current generation was offered.
    has_offered: bool,
    /// Events that were received and aren't accounted for yet.
    writing: u32,
    /// When it was reported last that an event was cut.
    truncation_reported_ns: u64,
    spare: Option<Box<Sink>>,
}

impl Sink {
    /// A sink for these shards.
    ///
    /// # Panics
    /// Without a shard.
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
            memory: MemoryPressure::default(),
            redactor: Some(Redactor::builtin()),
            unflushed: 0,
            offered: 0,
            generation: 1,
            has_offered: false,
            writing: 0,
            truncation_reported_ns: 0,
            spare: None,
        }
    }

    /// Accounts for events lost in the kernel at a stage of their own
    /// ([`Stage::Kernel`](crate::event::Stage::Kernel)).
    #[must_use]
    pub fn with_kernel_ledger(mut self, ledger: Arc<StageLedger>) -> Self {
        self.kernel = Some(ledger);
        self
    }

    /// Lets a sink that waits for room wait for memory, too.
    #[must_use]
    pub fn with_memory(mut self, memory: MemoryPressure) -> Self {
        self.memory = memory;
        self
    }

    /// Replaces the built-in redactor; `None`: events keep their secrets.
    #[must_use]
    pub fn with_redactor(mut self, redactor: Option<Arc<Redactor>>) -> Self {
        self.redactor = redactor;
        self
    }

    /// Whether the sink waits until there is memory again.
    fn is_paused(&self) -> bool {
        self.on_full == OnFull::Wait && self.memory.level().is_paused()
    }

    /// Adds a second sink of the same collector, with rings and counters of its own, for use while
    /// a hung thread owns this one.
    #[must_use]
    pub fn with_spare(mut self, mut spare: Self) -> Self {
        // Its events have their own positions in the collector's order: no run offers 2^48 of them.
        spare.offered = 1 << 48;
        self.spare = Some(Box::new(spare));
        self
    }

    /// Takes the second sink, if there is one.
    pub fn take_spare(&mut self) -> Option<Self> {
        self.spare.take().map(|spare| *spare)
    }

    /// Replaces the shutdown that ends a wait for room.
    pub fn set_shutdown(&mut self, shutdown: Shutdown) {
        self.shutdown = shutdown;
    }

    /// The collector's number in the ledger.
    #[must_use]
    pub fn collector(&self) -> u8 {
        self.collector
    }

    /// Whether shutdown was requested.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.shutdown.is_requested()
    }

    /// Sets the policy for a full ring.
    pub fn set_on_full(&mut self, on_full: OnFull) {
        self.on_full = on_full;
    }

    /// Receives an event and writes it into a ring. The event is accounted for in any case.
    ///
    /// # Errors
    /// The reason why the event was dropped; it is already counted.
    pub fn offer(&mut self, event: &Event<'_>) -> Result<(), Reason> {
        self.offered += 1;
        self.offer_at(event, self.offered)
    }

    /// Receives an event with its position (from 1) in an order: live, the collector's order; in
    /// replay, the total order.
    ///
    /// # Errors
    /// As [`Sink::offer`].
    pub fn offer_at(&mut self, event: &Event<'_>, order: u64) -> Result<(), Reason> {
        self.redacted(event, |sink, event, is_redacted| {
            loop {
                match sink.offer_once(event, order, is_redacted) {
                    Ok(outcome) => return outcome,
                    Err(FullRing(_)) => sink.pause(),
                }
            }
        })
    }

    /// Waits a little for room or memory.
    fn pause(&mut self) {
        self.flush();
        std::thread::sleep(if self.is_paused() { MEMORY_PAUSE } else { FULL_PAUSE });
    }

    /// Calls `offer` with the event completed by the facts of its line and without secrets, and
    /// with whether it had any. Every event of every collector passes here.
    fn redacted<R>(
        &mut self,
        event: &Event<'_>,
        offer: impl FnOnce(&mut Self, &Event<'_>, bool) -> R,
    ) -> R {
        self.writing = 1;
        log_line::interpret(event, |event| {
            let Some(redactor) = self.redactor.clone() else {
                return log_line::with_complaint(event, |event| offer(self, event, false));
            };
            redactor.event(event, |event, is_redacted| {
                log_line::with_complaint(event, |event| offer(self, event, is_redacted))
            })
        })
    }

    /// As [`Sink::offer`], but returns instead of waiting for room, for a collector whose thread
    /// has other work meanwhile. The caller offers the event again later.
    ///
    /// # Errors
    /// The ring that is full; the event isn't received yet then. Inner: as [`Sink::offer`].
    pub fn try_offer(&mut self, event: &Event<'_>) -> Result<Result<(), Reason>, FullRing> {
        let order = self.offered + 1;
        let outcome = self.redacted(event, |sink, event, is_redacted| {
            sink.offer_once(event, order, is_redacted)
        })?;
        self.offered += 1;
        Ok(outcome)
    }

    /// Whether it is worth while to offer an event again: a part of the ring is free, or offering
    /// doesn't wait any more.
    #[must_use]
    pub fn has_room(&self, full: &FullRing) -> bool {
        let is_free = |(writer, _): &(RecordWriter, _)| {
            writer.is_abandoned() || writer.free_blocks() >= writer.capacity_blocks() / 4
        };
        self.stopped() || (!self.is_paused() && self.shards.get(full.0).is_none_or(is_free))
    }

    /// Offers an event without waiting.
    fn offer_once(
        &mut self,
        event: &Event<'_>,
        order: u64,
        is_redacted: bool,
    ) -> Result<Result<(), Reason>, FullRing> {
        self.writing = 1;
        let outcome = self.write(event, order);
        self.writing = 0;
        let outcome = outcome?;
        match outcome {
            Ok(()) => {
                let account = account(self.collector, self.parity());
                self.ledger.add_redacted(account, is_redacted.into());
                self.accept(1);
            }
            Err(reason) => self.refuse(reason, 1),
        }
        Ok(outcome)
    }

    /// Counts events that were written.
    fn accept(&mut self, events: u32) {
        let account = account(self.collector, self.parity());
        self.has_offered = true;
        self.ledger.add_received(account, events.into());
        self.ledger.add_forwarded(account, events.into());
        self.unflushed += events;
        if self.unflushed >= FLUSH_EVERY {
            self.flush();
        }
    }

    /// The generation, from 1, that the next event is counted in.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether an event of the current generation was offered.
    #[must_use]
    pub fn has_offered(&self) -> bool {
        self.has_offered
    }

    /// Ends the current generation. The one before must be settled: the next one is counted in its
    /// place ([`Ledger::unsettled`](super::Ledger::unsettled)).
    pub fn end_generation(&mut self) {
        self.generation += 1;
        self.has_offered = false;
    }

    fn parity(&self) -> u8 {
        (self.generation & 1) as u8
    }

    /// Counts the events whose write a panic interrupted, if any. The manager calls it before it
    /// restarts the collector.
    pub fn after_panic(&mut self) {
        match std::mem::take(&mut self.writing) {
            0 => {}
            events => self.refuse(Reason::CollectorPanic, events.into()),
        }
    }

    fn write(&mut self, event: &Event<'_>, order: u64) -> Result<Result<(), Reason>, FullRing> {
        let route = self.router.route(event);
        let header = Header {
            order,
            generation: self.parity(),
            ..Header::event(self.collector, route.visits, event.time_ns)
        };
        let first = route.first().min(self.shards.len() - 1);
        let reserve_blocks = self.reserve_blocks(first, event.severity);
        if self.is_paused() && !self.shutdown.is_requested() {
            return Err(FullRing(first));
        }
        let mut written = self.shards[first].0.write_event_above(&header, event, reserve_blocks);
        if written == Err(WriteError::Oversize) {
            written = self.write_truncated(first, &header, event, reserve_blocks);
        }
        self.outcome(first, written)
    }

    /// The blocks of a shard's ring that an event of this severity leaves free.
    fn reserve_blocks(&self, shard: usize, severity: Severity) -> usize {
        match self.on_full {
            OnFull::Drop => reserve_blocks(severity, self.shards[shard].0.capacity_blocks()),
            OnFull::Wait => 0,
        }
    }

    /// The outcome for events that were written into the ring of a shard, or weren't.
    fn outcome(
        &self,
        shard: usize,
        written: Result<(), WriteError>,
    ) -> Result<Result<(), Reason>, FullRing> {
        match written {
            Ok(()) => Ok(Ok(())),
            Err(WriteError::Oversize) => Ok(Err(Reason::Oversize)),
            Err(WriteError::Full) if self.on_full == OnFull::Drop => Ok(Err(Reason::RingFull)),
            Err(WriteError::Full)
                if self.shutdown.is_requested() || self.shards[shard].0.is_abandoned() =>
            {
                Ok(Err(Reason::Shutdown))
            }
            Err(WriteError::Full) => Err(FullRing(shard)),
        }
    }

    /// Counts `n` received events as dropped that never reach a ring.
    pub fn refuse(&mut self, reason: Reason, n: u64) {
        let ledger = match (&self.kernel, reason.is_in_kernel()) {
            (Some(kernel), true) => kernel,
            _ => &self.ledger,
        };
        ledger.add_received(self.collector, n);
        ledger.add_dropped(self.collector, reason, n);
    }

    /// Promises every shard that no event before this position follows from this sink.
    pub fn watermark(&mut self, order: u64) {
        for i in 0..self.shards.len() {
            while self.shards[i].0.write_watermark(order).is_err() {
                if self.shutdown.is_requested() || self.shards[i].0.is_abandoned() {
                    break;
                }
                self.flush();
                std::thread::sleep(FULL_PAUSE);
            }
        }
        self.flush();
    }

    /// Wakes sleeping shards. To be called whenever no more input is ready.
    pub fn flush(&mut self) {
        self.unflushed = 0;
        self.shutdown.heartbeat();
        for (_, bell) in &self.shards {
            bell.ring();
        }
    }
}

impl Drop for Sink {
    /// Closes the rings and wakes their readers, so that they notice it.
    fn drop(&mut self) {
        for (writer, bell) in self.shards.drain(..) {
            drop(writer);
            bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::super::ledger::Ledger;
    use super::super::record::ring;
    use super::super::route::Route;
    use super::*;
    use crate::event::{EventId, Stage, names};

    struct OneShard;

    impl Router for OneShard {
        fn route(&self, _: &Event<'_>) -> Route {
            Route { visits: 1 }
        }
    }

    #[test]
    fn event_without_room_is_not_received_until_it_is_offered_again() {
        let mut ledger = Ledger::new(vec!["test".into()]);
        let (writer, mut reader) = ring(0);
        let bell = Arc::new(Bell::new(OnceLock::new()));
        let (stage, shutdown) = (ledger.stage(Stage::Collect), Shutdown::default());
        let shards = vec![(writer, bell)];
        let mut sink =
            Sink::new(0, OnFull::Wait, Arc::new(OneShard), shards, stage, shutdown.clone());
        let event = Event::new(EventId([1; 16]), 1, names::OTLP_LOG, names::OTLP);
        let mut offered = 0;
        let full = loop {
            match sink.try_offer(&event) {
                Ok(outcome) => assert_eq!(outcome, Ok(())),
                Err(full) => break full,
            }
            offered += 1;
        };
        assert!(!sink.has_room(&full));
        assert!(sink.try_offer(&event).is_err());
        assert_eq!(ledger.snapshot().total.received, offered, "nothing is counted");
        let mut orders = Vec::new();
        reader.drain(usize::MAX, |record| {
            orders.push(record.header().order);
            true
        });
        assert!(sink.has_room(&full));
        assert_eq!(sink.try_offer(&event), Ok(Ok(())));
        reader.drain(usize::MAX, |record| {
            orders.push(record.header().order);
            true
        });
        assert_eq!(orders, (1..=offered + 1).collect::<Vec<_>>(), "no position is skipped");
        // A shutdown ends the waiting.
        while sink.try_offer(&event) == Ok(Ok(())) {}
        shutdown.request();
        assert!(sink.has_room(&full));
        assert_eq!(sink.try_offer(&event), Ok(Err(Reason::Shutdown)));
    }
}
