//! Collector `receiver`: accepts `tapio.v1` batches from applications on the node, other agents and
//! `tapio load`. An acknowledgement confirms that the events are accepted: they survive a kill of
//! the agent.
//!
//! The gRPC server runs on the collector's thread: connections pass their streams to the collector,
//! which reads them itself, so the sink needs no lock. While a ring is full, nothing is read, and
//! HTTP/2 flow control slows the senders down.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Status, Streaming};

use crate::runtime::acceptance::Ticket;
use crate::runtime::listener::ListenerSlot;
use crate::runtime::poll_timer::PollTimer;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, StatusReport,
    tokio_runtime,
};
use tapio_core::event::Reason;
use tapio_core::ring::Sink;
use tapio_wire::proto::{Ack, Refusal};
use tapio_wire::{
    Batch, IngestHandler, IngestServer, Item, SequenceCheck, SequenceTracker, bind, grpc_server,
};

/// Delay until counters are published, and until a stream without room for acks is polled again.
const REPORT_DELAY: Duration = Duration::from_millis(80);
/// Interval at which waiting acks look whether their events are accepted.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(1);
/// Opened streams that wait for the collector.
const NEW_STREAMS: usize = 64;
/// Most open streams; more are refused.
const MAX_STREAMS: usize = 1024;
/// Most acks that a sender may leave unread.
const MAX_UNREAD_ACKS: usize = 64;
/// Most batches read from one stream before the next stream.
const BATCHES_PER_POLL: usize = 8;

/// Configuration of collector `receiver`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverConfig {
    /// Whether to run it.
    pub enabled: bool,
    /// The address to listen on.
    pub listen: SocketAddr,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self { enabled: false, listen: (Ipv4Addr::LOCALHOST, 7602).into() }
    }
}

// A full ring: the receiver waits; senders keep items until they are acknowledged.
impl CollectorConfig for ReceiverConfig {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn factory(&self) -> CollectorFactory {
        let (listen, kept) = (self.listen, ListenerSlot::default());
        Box::new(move || Box::new(Receiver { listen, kept: kept.clone() }))
    }
}

struct Receiver {
    listen: SocketAddr,
    kept: ListenerSlot<std::net::TcpListener>,
}

impl Collector for Receiver {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let failed = |e: std::io::Error| CollectorError::Failed(e.to_string());
        let kept =
            self.kept.get_or_open(|_| true, || bind("listen", self.listen)).map_err(failed)?;
        let listener = kept.try_clone().map_err(failed)?;
        let runtime = tokio_runtime()?;
        let ended = runtime.block_on(receive(listener, context));
        // Connections are tasks of this runtime and end with it.
        runtime.shutdown_background();
        ended
    }
}

async fn receive(
    listener: std::net::TcpListener,
    context: &mut Context,
) -> Result<Ended, CollectorError> {
    let failed = |e: std::io::Error| CollectorError::new("listen", e);
    let address = listener.local_addr().map_err(failed)?;
    context.report.note("listen", address.to_string());
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let (opened, streams) = mpsc::channel(NEW_STREAMS);
    let server = grpc_server()
        .add_service(IngestServer::new(StreamOpener(opened)))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    let mut streams = Streams {
        opened: streams,
        open: Vec::new(),
        sequences: SequenceTracker::default(),
        counts: Counts::default(),
        ack_blocked: false,
    };
    let mut timer = PollTimer::new(&context.shutdown, REPORT_DELAY);
    tokio::pin!(server);
    loop {
        tokio::select! {
            ended = &mut server => {
                let cause = ended.err().map_or_else(|| "ended".to_owned(), |e| e.to_string());
                return Err(CollectorError::new("server", cause));
            }
            () = timer.next() => {
                streams.counts.report(&context.report, streams.open.len());
                if streams.ack_blocked {
                    timer.wake_soon();
                }
            }
            () = tokio::time::sleep(ACCEPT_INTERVAL), if streams.has_unaccepted() => {}
            () = std::future::poll_fn(|cx| streams.poll(context, cx)) => {
                timer.wake_soon();
                // Connections read their sockets only while this thread isn't in the sink.
                tokio::task::yield_now().await;
            }
        }
        if context.shutdown.is_requested() {
            return Ok(Ended::Stopped);
        }
    }
}

/// Passes streams from the connections' tasks to the collector.
struct StreamOpener(mpsc::Sender<SenderStream>);

impl IngestHandler for StreamOpener {
    fn open(
        &self,
        batches: Streaming<Bytes>,
        _: Option<SocketAddr>,
    ) -> Result<BoxStream<Ack>, Status> {
        let (acks, stream) = mpsc::channel(MAX_UNREAD_ACKS);
        let sender = SenderStream { batches, acks, first: None, unaccepted: VecDeque::new() };
        self.0
            .try_send(sender)
            .map_err(|_| Status::unavailable("receiver: too many streams are being opened"))?;
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

/// A sender's stream.
struct SenderStream {
    batches: Streaming<Bytes>,
    acks: mpsc::Sender<Result<Ack, Status>>,
    /// Node, epoch and first sequence number of the sender. A sender begins with its oldest item
    /// that isn't acknowledged.
    first: Option<(String, u64, u64)>,
    /// Acks of batches whose events aren't accepted yet, oldest first.
    unaccepted: VecDeque<(Ticket, AckPermit, Ack)>,
}

/// Room for an ack in a sender's stream.
type AckPermit = mpsc::OwnedPermit<Result<Ack, Status>>;

impl SenderStream {
    /// Sends the acks whose events are accepted. Returns whether there were any.
    fn acknowledge(&mut self, context: &mut Context) -> bool {
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
struct Counts {
    batches: u64,
    duplicates: u64,
    refused: u64,
    bad_events: u64,
}

impl Counts {
    fn report(&self, report: &StatusReport, streams: usize) {
        report.count("streams", streams as u64);
        report.count("batches", self.batches);
        report.count("duplicate_items", self.duplicates);
        report.count("batches_refused", self.refused);
        report.count("events_invalid", self.bad_events);
    }
}

/// The open streams and their common state.
struct Streams {
    opened: mpsc::Receiver<SenderStream>,
    open: Vec<SenderStream>,
    sequences: SequenceTracker,
    counts: Counts,
    /// Whether a sender doesn't read its acks; nothing signals when there is room for them again.
    ack_blocked: bool,
}

impl Streams {
    /// Whether acks wait for their events to be accepted.
    fn has_unaccepted(&self) -> bool {
        self.open.iter().any(|sender| !sender.unaccepted.is_empty())
    }

    /// Reads the available batches of every stream. Ready if there were any.
    fn poll(&mut self, context: &mut Context, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut progress = false;
        while let Poll::Ready(Some(sender)) = self.opened.poll_recv(cx) {
            progress = true;
            if self.open.len() < MAX_STREAMS {
                self.open.push(sender);
            } else {
                let status = Status::resource_exhausted("receiver: too many streams");
                let _ = sender.acks.try_send(Err(status));
            }
        }
        self.ack_blocked = false;
        let mut at = 0;
        while at < self.open.len() {
            let sender = &mut self.open[at];
            let mut poll = StreamPoll {
                sequences: &mut self.sequences,
                counts: &mut self.counts,
                ack_blocked: &mut self.ack_blocked,
                refused: Vec::new(),
            };
            let (read, ended) = poll.read(sender, context, cx);
            progress |= sender.acknowledge(context) || read > 0;
            // A sender that has sent everything still waits for its acks.
            if ended && (sender.unaccepted.is_empty() || sender.acks.is_closed()) {
                progress = true;
                self.open.swap_remove(at);
            } else {
                at += 1;
            }
        }
        if progress {
            context.sink.flush();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// One poll of a stream.
struct StreamPoll<'t> {
    sequences: &'t mut SequenceTracker,
    counts: &'t mut Counts,
    ack_blocked: &'t mut bool,
    refused: Vec<Refusal>,
}

impl StreamPoll<'_> {
    /// Reads some batches of a stream and acknowledges them. Returns the number of batches, and
    /// whether the stream has ended.
    fn read(
        &mut self,
        sender: &mut SenderStream,
        context: &mut Context,
        cx: &mut TaskContext<'_>,
    ) -> (usize, bool) {
        // A batch is read only if there is room for its ack.
        if sender.acks.is_closed() {
            return (0, true);
        }
        let Ok(room) = sender.acks.clone().try_reserve_owned() else {
            // The sender doesn't read its acks; it is polled again with the next event or timer.
            *self.ack_blocked = true;
            return (0, false);
        };
        let (mut read, mut ended) = (0, false);
        while read < BATCHES_PER_POLL && !context.sink.stopped() {
            match Pin::new(&mut sender.batches).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.batch(&bytes, &mut sender.first, &mut context.sink);
                    read += 1;
                }
                Poll::Ready(_) => {
                    ended = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        if let (1.., Some((node, epoch, low))) = (read, &sender.first) {
            let ack = Ack {
                epoch: *epoch,
                through: self.sequences.sender(node, *epoch).contiguous_end(*low),
                refused: std::mem::take(&mut self.refused),
            };
            context.sink.flush();
            sender.unaccepted.push_back((context.ticket(), room, ack));
        }
        (read, ended)
    }

    fn batch(&mut self, bytes: &[u8], first: &mut Option<(String, u64, u64)>, sink: &mut Sink) {
        self.counts.batches += 1;
        let parsed = Batch::parse(bytes);
        let (head, batch) = match parsed {
            Ok(batch) => (batch.head, Ok(batch)),
            Err((head, error)) => (head, Err(error)),
        };
        let (node, epoch, low) =
            first.get_or_insert_with(|| (head.node.to_owned(), head.epoch, head.first_sequence));
        let end = head.first_sequence.saturating_add(u64::from(head.count));
        let same = node == head.node && *epoch == head.epoch;
        let tracker = self.sequences.sender(head.node, head.epoch);
        if same {
            tracker.insert(0, *low);
        }
        let verdict = tracker.check(head.first_sequence, head.count);
        let cause = match batch {
            Err(error) => error.to_string(),
            Ok(Batch { dropped_from: Some(dropped_from), .. }) => {
                tracker.insert(dropped_from, head.first_sequence);
                return;
            }
            Ok(_) if !same => "stream has items of another sender process".to_owned(),
            Ok(_) if verdict == SequenceCheck::Overlap => {
                "some of its items were sent before".to_owned()
            }
            Ok(_) if verdict == SequenceCheck::Duplicate => {
                self.counts.duplicates += u64::from(head.count);
                return;
            }
            Ok(batch) => {
                tracker.insert(head.first_sequence, end);
                return match self.offer(&batch, sink) {
                    Ok(()) => {}
                    Err(error) => self.refuse(&head, error.to_string(), sink),
                };
            }
        };
        tracker.insert(head.first_sequence, end);
        self.refuse(&head, cause, sink);
    }

    /// Writes a batch's events into the rings. A malformed event is counted and doesn't affect the
    /// others.
    fn offer(&mut self, batch: &Batch<'_>, sink: &mut Sink) -> Result<(), tapio_wire::WireError> {
        let mut decoder = batch.decoder()?;
        for item in batch.items() {
            // Stories of other agents are ignored; this agent evaluates the events itself.
            let Item::Event(raw) = item else { continue };
            match decoder.event(raw) {
                // The sink counts an event that it can't accept.
                Ok(decoded) => drop(sink.offer(&decoded.as_received())),
                Err(error) => {
                    if self.counts.bad_events == 0 {
                        tracing::warn!(collector = "receiver", node = batch.head.node, %error, "refused an invalid event; further ones are only counted");
                    }
                    self.counts.bad_events += 1;
                    sink.refuse(Reason::BadInput, 1);
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, head: &tapio_wire::BatchHead<'_>, cause: String, sink: &mut Sink) {
        if self.counts.refused == 0 {
            tracing::warn!(
                collector = "receiver",
                node = head.node,
                error = cause,
                "refused a batch; further ones are only counted"
            );
        }
        self.counts.refused += 1;
        // The content of a malformed batch is unknown: it counts as one bad input.
        sink.refuse(Reason::BadInput, 1);
        self.refused.push(Refusal {
            first_sequence: head.first_sequence,
            count: head.count,
            cause,
        });
    }
}
