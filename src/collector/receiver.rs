//! Collector `receiver`: applications on the node, other agents and `tapio load` deliver
//! `tapio.v1` batches to the agent. An ack says that the events are in the agent's rings.
//!
//! The collector's thread runs the gRPC server too: connections hand their streams over, and the
//! collector reads them itself, so that the sink needs no lock. While a ring is full, nothing is
//! read, and HTTP/2 flow control pushes the senders back.

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

use crate::runtime::listener::ListenerSlot;
use crate::runtime::poll_timer::PollTimer;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, StatusReport,
    factory,
};
use tapio_core::event::Reason;
use tapio_core::ring::Sink;
use tapio_wire::proto::{Ack, Refusal};
use tapio_wire::{
    Batch, IngestHandler, IngestServer, Item, SettledTable, Verdict, bind, grpc_server,
};

/// How soon its counters are published, and a stream without room for acks is looked at again.
const TICK: Duration = Duration::from_millis(80);
/// Streams that wait to be read first.
const NEW_STREAMS: usize = 64;
/// Streams read at a time; more are refused.
const MOST_STREAMS: usize = 1024;
/// Acks a sender may leave unread.
const ACKS: usize = 64;
/// Batches read from one stream before the next one's turn.
const BATCHES_A_TURN: usize = 8;

/// Configuration of collector `receiver`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverConfig {
    /// Whether to run it.
    pub enabled: bool,
    /// Where to listen.
    pub listen: SocketAddr,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self { enabled: false, listen: (Ipv4Addr::LOCALHOST, 7602).into() }
    }
}

/// Waits for a full ring. Senders keep what isn't acknowledged, so they can wait.
impl CollectorConfig for ReceiverConfig {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn factory(&self) -> CollectorFactory {
        let state = (self.listen, ListenerSlot::default());
        factory(state, |(listen, kept)| Receiver { listen, kept })
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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CollectorError::new("runtime", e))?;
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
    let (to, streams) = mpsc::channel(NEW_STREAMS);
    let server = grpc_server()
        .add_service(IngestServer::new(Handover(to)))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    let mut intake = Intake {
        new: streams,
        streams: Vec::new(),
        settled: SettledTable::default(),
        counts: Counts::default(),
        without_room: false,
    };
    let mut timer = PollTimer::new(&context.shutdown, TICK);
    tokio::pin!(server);
    loop {
        tokio::select! {
            ended = &mut server => {
                let cause = ended.err().map_or_else(|| "ended".to_owned(), |e| e.to_string());
                return Err(CollectorError::new("server", cause));
            }
            () = timer.next() => {
                intake.counts.tell(&context.report, intake.streams.len());
                if intake.without_room {
                    timer.wake_soon();
                }
            }
            () = std::future::poll_fn(|cx| intake.poll(&mut context.sink, cx)) => {
                timer.wake_soon();
                // Connections read their sockets while this thread isn't in the sink.
                tokio::task::yield_now().await;
            }
        }
        if context.shutdown.is_requested() {
            return Ok(Ended::Stopped);
        }
    }
}

/// Hands streams from their connections' tasks to the collector.
struct Handover(mpsc::Sender<Inbound>);

impl IngestHandler for Handover {
    fn open(
        &self,
        batches: Streaming<Bytes>,
        _: Option<SocketAddr>,
    ) -> Result<BoxStream<Ack>, Status> {
        let (acks, stream) = mpsc::channel(ACKS);
        let inbound = Inbound { batches, acks, first: None };
        self.0
            .try_send(inbound)
            .map_err(|_| Status::unavailable("too many streams are being opened"))?;
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

/// A sender's stream.
struct Inbound {
    batches: Streaming<Bytes>,
    acks: mpsc::Sender<Result<Ack, Status>>,
    /// Who sends, and the first item sent here; a sender begins with its oldest unsettled item.
    first: Option<(String, u64, u64)>,
}

#[derive(Default)]
struct Counts {
    batches: u64,
    duplicates: u64,
    refused: u64,
    bad_events: u64,
}

impl Counts {
    fn tell(&self, report: &StatusReport, streams: usize) {
        report.count("streams", streams as u64);
        report.count("batches", self.batches);
        report.count("duplicate_items", self.duplicates);
        report.count("refused_batches", self.refused);
        report.count("bad_events", self.bad_events);
    }
}

struct Intake {
    new: mpsc::Receiver<Inbound>,
    streams: Vec<Inbound>,
    settled: SettledTable,
    counts: Counts,
    /// Whether a sender doesn't read its acks: nobody says when there is room for them.
    without_room: bool,
}

impl Intake {
    /// Reads what every stream has at hand. Ready when there was anything.
    fn poll(&mut self, sink: &mut Sink, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut moved = false;
        while let Poll::Ready(Some(inbound)) = self.new.poll_recv(cx) {
            moved = true;
            if self.streams.len() < MOST_STREAMS {
                self.streams.push(inbound);
            } else {
                let status = Status::resource_exhausted("too many streams");
                let _ = inbound.acks.try_send(Err(status));
            }
        }
        self.without_room = false;
        let mut at = 0;
        while at < self.streams.len() {
            let inbound = &mut self.streams[at];
            let mut taken = Taken {
                settled: &mut self.settled,
                counts: &mut self.counts,
                without_room: &mut self.without_room,
                refused: Vec::new(),
            };
            let (read, ended) = taken.turn(inbound, sink, cx);
            moved |= read > 0 || ended;
            if ended {
                self.streams.swap_remove(at);
            } else {
                at += 1;
            }
        }
        if moved {
            sink.flush();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// One stream's turn.
struct Taken<'t> {
    settled: &'t mut SettledTable,
    counts: &'t mut Counts,
    without_room: &'t mut bool,
    refused: Vec<Refusal>,
}

impl Taken<'_> {
    /// Reads some batches of a stream and acknowledges them. Returns how many, and whether the
    /// stream has ended.
    fn turn(
        &mut self,
        inbound: &mut Inbound,
        sink: &mut Sink,
        cx: &mut TaskContext<'_>,
    ) -> (usize, bool) {
        // Without room for its ack a batch stays where it is.
        if inbound.acks.is_closed() {
            return (0, true);
        }
        let Ok(room) = inbound.acks.clone().try_reserve_owned() else {
            // The sender doesn't read its acks; it is looked at again with the next event or turn.
            *self.without_room = true;
            return (0, false);
        };
        let (mut read, mut ended) = (0, false);
        while read < BATCHES_A_TURN && !sink.stopped() {
            match Pin::new(&mut inbound.batches).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.batch(&bytes, &mut inbound.first, sink);
                    read += 1;
                }
                Poll::Ready(_) => {
                    ended = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        if let (1.., Some((node, epoch, low))) = (read, &inbound.first) {
            room.send(Ok(Ack {
                epoch: *epoch,
                through: self.settled.of(node, *epoch).through(*low),
                refused: std::mem::take(&mut self.refused),
            }));
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
        let settled = self.settled.of(head.node, head.epoch);
        if same {
            settled.settle(0, *low);
        }
        let verdict = settled.look(head.first_sequence, head.count);
        let cause = match batch {
            Err(error) => error.to_string(),
            Ok(_) if !same => "a stream has one sender process".to_owned(),
            Ok(_) if verdict == Verdict::Overlaps => {
                "some of its items were sent before".to_owned()
            }
            Ok(_) if verdict == Verdict::Seen => {
                self.counts.duplicates += u64::from(head.count);
                return;
            }
            Ok(batch) => {
                settled.settle(head.first_sequence, end);
                return match self.offer(&batch, sink) {
                    Ok(()) => {}
                    Err(error) => self.refuse(&head, error.to_string(), sink),
                };
            }
        };
        settled.settle(head.first_sequence, end);
        self.refuse(&head, cause, sink);
    }

    /// Puts a batch's events into the rings. A broken event is counted and costs no other.
    fn offer(&mut self, batch: &Batch<'_>, sink: &mut Sink) -> Result<(), tapio_wire::WireError> {
        let mut decoder = batch.decoder()?;
        for item in batch.items() {
            // A story is another agent's conclusion; this one draws its own.
            let Item::Event(raw) = item else { continue };
            match decoder.event(raw) {
                // The sink has counted what it couldn't take.
                Ok(decoded) => drop(sink.offer(&decoded.as_received())),
                Err(error) => {
                    if self.counts.bad_events == 0 {
                        tracing::warn!(node = batch.head.node, %error, "a bad event was received; further ones are counted");
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
            tracing::warn!(node = head.node, cause, "a batch is refused; further ones are counted");
        }
        self.counts.refused += 1;
        // What a broken batch holds is unknown: it counts as one bad input.
        sink.refuse(Reason::BadInput, 1);
        self.refused.push(Refusal {
            first_sequence: head.first_sequence,
            count: head.count,
            cause,
        });
    }
}
