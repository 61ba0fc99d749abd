//! One sender's stream: reads batches, offers their events and answers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::Stream as _;
use tonic::{Status, Streaming};

use crate::runtime::acceptance::Ticket;
use crate::runtime::{Context, StatusReport};
use tapio_core::clock;
use tapio_core::event::Reason;
use tapio_core::ring::{FullRing, Sink};
use tapio_wire::proto::{Ack, Refusal};
use tapio_wire::{
    Batch, BatchHead, Caller, Item, Jump, SequenceCheck, SequenceTracker, StreamItems, WireError,
    expanded,
};

/// Most batches read from one stream before the next stream.
const BATCHES_PER_POLL: usize = 8;

/// Sender processes remembered for one stream, as at the server.
const MAX_PROCESSES: usize = 16;

/// A sender's stream.
pub(super) struct SenderStream {
    batches: Streaming<Bytes>,
    acks: mpsc::Sender<Result<Ack, Status>>,
    caller: Caller,
    /// The processes whose batches came: an agent sends each of its lanes as a process of its own,
    /// and after a restart what the last one has left.
    processes: Vec<Process>,
    /// The first batch of the next group.
    next: Option<Current>,
    /// Acks of batches whose events aren't accepted yet, oldest first.
    unaccepted: VecDeque<(Ticket, AckPermit, Ack)>,
    /// A read that can't continue yet.
    stalled: Option<(Reading, Stall)>,
}

/// A process that sends on a stream, and how far its items are answered.
struct Process {
    node: String,
    epoch: u64,
    items: StreamItems,
}

impl Process {
    fn is(&self, (node, epoch): &Sender) -> bool {
        self.node == *node && self.epoch == *epoch
    }
}

/// Batches of one process read from a stream, which one ack answers.
struct Reading {
    room: AckPermit,
    /// The process, known with the first batch.
    sender: Option<Sender>,
    batches: usize,
    refused: Vec<Refusal>,
    current: Option<Current>,
}

/// A batch that isn't processed completely.
struct Current {
    bytes: Bytes,
    /// The next item to offer; `None` until the batch is checked.
    next: Option<usize>,
}

/// Why a batch can't be processed now.
enum Stall {
    /// It is of another process than those before it.
    NextGroup,
    /// A ring has no room.
    Ring(FullRing),
    /// A batch of the same sender, on an earlier stream, isn't offered completely. Its items would
    /// count as received.
    Sender(Sender),
}

/// A sender's node and epoch.
pub(super) type Sender = (String, u64);

/// Room for an ack in a sender's stream.
type AckPermit = mpsc::OwnedPermit<Result<Ack, Status>>;

impl SenderStream {
    pub(super) fn new(
        batches: Streaming<Bytes>,
        acks: mpsc::Sender<Result<Ack, Status>>,
        caller: Caller,
    ) -> Self {
        Self {
            batches,
            acks,
            caller,
            processes: Vec::new(),
            next: None,
            unaccepted: VecDeque::new(),
            stalled: None,
        }
    }

    /// Whether acks wait for their events to be accepted, or a batch for room.
    pub(super) fn is_waiting(&self) -> bool {
        !self.unaccepted.is_empty() || self.is_stalled()
    }

    /// Whether a batch waits for room.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.is_some() || self.next.is_some()
    }

    /// Whether an ended stream needs nothing more: its acks are sent, or nobody reads them.
    pub(super) fn is_answered(&self) -> bool {
        self.unaccepted.is_empty() || self.acks.is_closed()
    }

    /// Refuses the stream.
    pub(super) fn refuse(&self, status: Status) {
        let _ = self.acks.try_send(Err(status));
    }

    /// Sends the acks whose events are accepted. Returns whether there were any.
    pub(super) fn acknowledge(&mut self, context: &mut Context) -> bool {
        let mut any = false;
        while let Some((ticket, _, _)) = self.unaccepted.front()
            && context.is_accepted(*ticket)
            && let Some((_, permit, ack)) = self.unaccepted.pop_front()
        {
            permit.send(Ok(ack));
            any = true;
        }
        any
    }
}

#[derive(Default)]
pub(super) struct Counts {
    batches: u64,
    duplicates: u64,
    refused: u64,
    bad_events: u64,
    jumps: u64,
    denied: u64,
}

impl Counts {
    pub(super) fn report(&self, report: &StatusReport, streams: usize) {
        report.count("streams", streams as u64);
        report.count("batches", self.batches);
        report.count("duplicate_items", self.duplicates);
        report.count("batches_refused", self.refused);
        report.count("events_invalid", self.bad_events);
        report.count("jumps_refused", self.jumps);
        report.count("batches_denied", self.denied);
    }
}

/// One poll of a stream.
pub(super) struct StreamPoll<'t> {
    pub(super) sequences: &'t mut SequenceTracker,
    pub(super) counts: &'t mut Counts,
    pub(super) ack_blocked: &'t mut bool,
    pub(super) stalled_senders: &'t mut Vec<Sender>,
}

impl StreamPoll<'_> {
    /// Reads some batches of a stream and acknowledges them. Returns whether there was progress,
    /// and whether the stream has ended.
    pub(super) fn read(
        &mut self,
        sender: &mut SenderStream,
        context: &mut Context,
        cx: &mut TaskContext<'_>,
    ) -> (bool, bool) {
        let mut reading = match sender.stalled.take() {
            Some((reading, stall)) if self.lasts(&stall, &context.sink) => {
                sender.stalled = Some((reading, stall));
                return (false, false);
            }
            Some((reading, _)) => reading,
            None if sender.acks.is_closed() => return (false, true),
            None => {
                // A batch is read only if there is room for its ack.
                let Ok(room) = sender.acks.clone().try_reserve_owned() else {
                    // The sender doesn't read its acks; it is polled again with the next event or
                    // timer.
                    *self.ack_blocked = true;
                    return (false, false);
                };
                let current = sender.next.take();
                let batches = usize::from(current.is_some());
                Reading { room, sender: None, batches, refused: Vec::new(), current }
            }
        };
        let mut ended = false;
        while !context.sink.stopped() {
            if let Some(cause) = self.denial(&reading, &sender.caller) {
                // Of another node: what came before it on the stream isn't acknowledged either.
                reading.room.send(Err(Status::permission_denied(cause)));
                sender.unaccepted.clear();
                return (true, true);
            }
            let finished = self.finish_current(&mut reading, &mut sender.processes, context);
            if matches!(finished, Err(Stall::NextGroup)) {
                sender.next = reading.current.take();
                reading.batches -= 1;
                break;
            }
            if let Err(stall) = finished {
                // Wakes the shards, which make room.
                context.sink.flush();
                sender.stalled = Some((reading, stall));
                return (false, false);
            }
            if reading.batches >= BATCHES_PER_POLL {
                break;
            }
            match Pin::new(&mut sender.batches).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    reading.batches += 1;
                    self.counts.batches += 1;
                    reading.current = Some(Current { bytes, next: None });
                }
                Poll::Ready(_) => {
                    ended = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        (self.end_reading(reading, sender, context), ended)
    }

    /// Ends a read: what was read is acknowledged once it is accepted. Returns whether there was
    /// anything.
    fn end_reading(
        &mut self,
        reading: Reading,
        sender: &mut SenderStream,
        context: &mut Context,
    ) -> bool {
        // A batch that the shutdown interrupts isn't acknowledged: its sender keeps it.
        let has_read = reading.batches > 0 && reading.current.is_none();
        let process = reading.sender.as_ref().filter(|_| has_read);
        let process = process.and_then(|of| sender.processes.iter_mut().find(|p| p.is(of)));
        if let Some(Process { node, epoch, items }) = process {
            let taken = self.sequences.sender(node, *epoch);
            let through = items.answered_through(taken);
            let ack = Ack { epoch: *epoch, through, refused: reading.refused, credit_bytes: 0 };
            context.sink.flush();
            sender.unaccepted.push_back((context.ticket(), reading.room, ack));
        }
        has_read
    }

    /// Why the batch that was read last isn't its sender's to send.
    fn denial(&mut self, reading: &Reading, caller: &Caller) -> Option<String> {
        // A batch is parsed for it only where senders have identities.
        caller.identity.as_ref()?;
        let Some(Current { bytes, next: None }) = &reading.current else { return None };
        let node = match Batch::parse(bytes) {
            Ok(batch) => batch.head.node,
            Err((head, _)) => head.node,
        };
        let cause = caller.denial(node)?;
        if self.counts.denied == 0 {
            tracing::warn!(
                collector = "receiver",
                cause,
                "denied a batch; further ones are only counted"
            );
        }
        self.counts.denied += 1;
        Some(cause)
    }

    fn lasts(&self, stall: &Stall, sink: &Sink) -> bool {
        match stall {
            Stall::Ring(full) => !sink.has_room(full),
            Stall::Sender(sender) => self.stalled_senders.contains(sender),
            Stall::NextGroup => false,
        }
    }

    /// Processes the batch that was read last, as far as there is room.
    fn finish_current(
        &mut self,
        reading: &mut Reading,
        processes: &mut Vec<Process>,
        context: &mut Context,
    ) -> Result<(), Stall> {
        let Some(Current { bytes, next }) = &mut reading.current else { return Ok(()) };
        let (head, batch) = match Batch::parse(bytes) {
            Ok(batch) => (batch.head, Ok(batch)),
            Err((head, error)) => (head, Err(error)),
        };
        if let Some(events) = batch.as_ref().ok().and_then(|batch| expanded(batch).ok().flatten()) {
            reading.current = Some(Current { bytes: events, next: None });
            return self.finish_current(reading, processes, context);
        }
        let sender = (head.node.to_owned(), head.epoch);
        if *reading.sender.get_or_insert_with(|| sender.clone()) != sender {
            return Err(Stall::NextGroup);
        }
        let checked = match (batch, *next) {
            (batch, None) => {
                if self.stalled_senders.contains(&sender) {
                    return Err(Stall::Sender(sender));
                }
                self.check(batch, head, processes)
            }
            (batch, Some(_)) => batch.map(Some).map_err(|error| error.to_string()),
        };
        let outcome = checked.and_then(|batch| match batch {
            Some(batch) => self.offer(&batch, next.get_or_insert(0), &mut context.sink),
            None => Ok(Ok(())),
        });
        let was_stalled = self.stalled_senders.iter().position(|stalled| *stalled == sender);
        match outcome {
            Ok(Err(full)) => {
                if was_stalled.is_none() {
                    self.stalled_senders.push(sender);
                }
                return Err(Stall::Ring(full));
            }
            Ok(Ok(())) => {}
            Err(cause) => {
                reading.refused.push(self.refuse(&head, bytes.len(), cause, &mut context.sink));
            }
        }
        was_stalled.map(|at| self.stalled_senders.swap_remove(at));
        reading.current = None;
        Ok(())
    }

    /// Checks a batch's place in the sender's sequence, and takes it. `None`: its items are
    /// received already, or dropped by the sender.
    ///
    /// # Errors
    /// The cause of a refusal.
    fn check<'b>(
        &mut self,
        batch: Result<Batch<'b>, WireError>,
        head: BatchHead<'b>,
        processes: &mut Vec<Process>,
    ) -> Result<Option<Batch<'b>>, String> {
        let process = process_of(processes, &head);
        let end = head.first_sequence.saturating_add(u64::from(head.count));
        let taken = self.sequences.sender(head.node, head.epoch);
        let jump = Jump::check(head.epoch, end, || taken.end(), clock::wall_ns());
        self.counts.jumps += u64::from(jump.is_some());
        let checked = match batch {
            Err(error) => Err(error.to_string()),
            Ok(_) if jump.is_some() => Err(jump.map_or_else(String::new, |jump| jump.to_string())),
            Ok(Batch { dropped_from: Some(dropped_from), .. }) => {
                process.items.give_up(dropped_from, head.first_sequence);
                return Ok(None);
            }
            Ok(batch) if batch.log_blocks > 0 => {
                Err("its blocks of log records aren't valid".to_owned())
            }
            Ok(batch) => match taken.check(head.first_sequence, head.count) {
                SequenceCheck::New => Ok(batch),
                SequenceCheck::Duplicate => {
                    self.counts.duplicates += u64::from(head.count);
                    return Ok(None);
                }
                SequenceCheck::Overlap => Err("some of its items were sent before".to_owned()),
                SequenceCheck::Forgotten => {
                    Err("it is too old to know whether its items were sent before".to_owned())
                }
            },
        };
        match checked {
            Ok(batch) => {
                taken.insert(head.first_sequence, end);
                Ok(Some(batch))
            }
            Err(cause) => {
                process.items.give_up(head.first_sequence, end);
                Err(cause)
            }
        }
    }

    /// Writes a batch's events into the rings, from the next one on. A malformed event is counted
    /// and doesn't affect the others. The inner error is the ring without room for the next one.
    ///
    /// # Errors
    /// The cause of a refusal.
    fn offer(
        &mut self,
        batch: &Batch<'_>,
        next: &mut usize,
        sink: &mut Sink,
    ) -> Result<Result<(), FullRing>, String> {
        let mut decoder = batch.decoder();
        for item in batch.items().skip(*next) {
            // Stories of other agents are ignored; this agent evaluates the events itself.
            if let Item::Event(raw) = item {
                match decoder.event(raw) {
                    Ok(decoded) => match sink.try_offer(&decoded.as_received()) {
                        // The sink counts an event that it can't accept.
                        Ok(_) => {}
                        Err(full) => return Ok(Err(full)),
                    },
                    Err(error) => self.refuse_event(batch.head.node, &error, sink),
                }
            }
            *next += 1;
        }
        Ok(Ok(()))
    }

    fn refuse_event(&mut self, node: &str, error: &WireError, sink: &mut Sink) {
        if self.counts.bad_events == 0 {
            tracing::warn!(collector = "receiver", node, %error, "refused an invalid event; further ones are only counted");
        }
        self.counts.bad_events += 1;
        sink.refuse(Reason::BadInput, 1);
    }

    fn refuse(
        &mut self,
        head: &BatchHead<'_>,
        bytes: usize,
        cause: String,
        sink: &mut Sink,
    ) -> Refusal {
        if self.counts.refused == 0 {
            tracing::warn!(
                collector = "receiver",
                node = head.node,
                error = cause,
                "refused a batch; further ones are only counted"
            );
        }
        self.counts.refused += 1;
        sink.refuse(Reason::BadInput, refused_items(head.count, bytes));
        Refusal { first_sequence: head.first_sequence, count: head.count, cause }
    }
}

/// The process of a batch among those of its stream.
fn process_of<'p>(processes: &'p mut Vec<Process>, head: &BatchHead<'_>) -> &'p mut Process {
    let sender = (head.node.to_owned(), head.epoch);
    let is_sender = |p: &Process| p.is(&sender);
    let at = processes.iter().position(is_sender).unwrap_or_else(|| {
        if processes.len() >= MAX_PROCESSES {
            processes.remove(0);
        }
        processes.push(Process {
            node: sender.0.clone(),
            epoch: sender.1,
            items: StreamItems::starting_at(head.first_sequence),
        });
        processes.len() - 1
    });
    &mut processes[at]
}

/// The number of items that a refused batch counts as: its head's count, but no more than its bytes
/// can hold, and at least one. The sender may have miscounted, or the head be garbage.
fn refused_items(count: u32, bytes: usize) -> u64 {
    /// The smallest item: a tag and a length.
    const ITEM_BYTES: u64 = 2;
    u64::from(count).min(bytes as u64 / ITEM_BYTES).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_batch_counts_as_its_items_within_its_bytes() {
        assert_eq!(refused_items(1_000, 64_000), 1_000);
        assert_eq!(refused_items(u32::MAX, 100), 50);
        assert_eq!(refused_items(0, 40), 1, "garbage");
        assert_eq!(refused_items(5, 0), 1, "an empty message");
    }
}
