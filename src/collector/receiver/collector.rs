//! The configuration, the run loop and the open streams.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

use super::stream::{Counts, Sender, SenderStream, StreamPoll};
use crate::runtime::listener::ListenerSlot;
use crate::runtime::poll_timer::PollTimer;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, report_access,
    tokio_runtime,
};
use tapio_wire::proto::Ack;
use tapio_wire::{
    Access, AccessConfig, Caller, DoorListener, IngestHandler, IngestServer, ListenAddress,
    Listening, Right, SequenceTracker, TlsServerConfig, bind, grpc_server,
};

/// Delay until counters are published, and until a stream without room for acks is polled again.
const REPORT_DELAY: Duration = Duration::from_millis(80);
/// Interval at which waiting acks look whether their events are accepted, besides whenever some
/// are: a shard may have dropped them.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(5);
/// Interval at which stalled batches look whether there is room.
const STALL_INTERVAL: Duration = Duration::from_millis(1);
/// Opened streams that wait for the collector.
const NEW_STREAMS: usize = 64;
/// Most open streams; more are refused.
const MAX_STREAMS: usize = 1024;
/// Most acks that a sender may leave unread.
const MAX_UNREAD_ACKS: usize = 64;

/// Configuration of collector `receiver`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverConfig {
    /// Whether to run it.
    pub enabled: bool,
    /// The address to listen on.
    pub listen: ListenAddress,
    /// TLS.
    pub tls: Option<TlsServerConfig>,
    /// The file of tokens: lines `write NODE TOKEN`.
    pub token_file: Option<PathBuf>,
    /// Users that may connect to a unix socket, besides root and the own one.
    pub allow_uids: Vec<u32>,
    /// Whether an address beyond loopback may do without TLS and authentication.
    pub insecure: bool,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: (Ipv4Addr::LOCALHOST, 7602).into(),
            tls: None,
            token_file: None,
            allow_uids: Vec::new(),
            insecure: false,
        }
    }
}

impl ReceiverConfig {
    /// Access to the listener.
    #[must_use]
    pub fn access(&self) -> AccessConfig {
        AccessConfig {
            tls: self.tls.clone(),
            token_file: self.token_file.clone(),
            allow_uids: self.allow_uids.clone(),
            insecure: self.insecure,
            ..AccessConfig::default()
        }
    }
}

// A full ring: the receiver waits; senders keep items until they are acknowledged.
impl CollectorConfig for ReceiverConfig {
    fn enabled(&self) -> bool {
        self.enabled
    }

    // Its senders send again what a kill has left unanswered.
    fn reads_again(&self) -> bool {
        true
    }

    fn has_given_times(&self) -> bool {
        true
    }

    fn busy_threads(&self) -> &'static [&'static str] {
        &["c:receiver"]
    }

    fn check(&self) -> Result<(), String> {
        self.access().check(&[("listen", &self.listen)])
    }

    fn factory(&self) -> CollectorFactory {
        let (config, kept) = (self.clone(), ListenerSlot::default());
        Box::new(move || Box::new(Receiver { config: config.clone(), kept: kept.clone() }))
    }
}

struct Receiver {
    config: ReceiverConfig,
    kept: ListenerSlot<Listening>,
}

impl Collector for Receiver {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let failed = |e: std::io::Error| CollectorError::Failed(e.to_string());
        let access = Access::grpc("receiver", &self.config.access(), |_, _| Some(Right::Write));
        let access = access.map_err(|e| CollectorError::Failed(e.to_string()))?;
        let open = || bind("listen", &self.config.listen);
        let kept = self.kept.get_or_open(|_| true, open).map_err(failed)?;
        let listener = kept.try_clone().map_err(failed)?;
        let runtime = tokio_runtime()?;
        let ended = runtime.block_on(receive(listener, access, context));
        // Connections are tasks of this runtime and end with it.
        runtime.shutdown_background();
        ended
    }
}

async fn receive(
    listener: Listening,
    access: Arc<Access>,
    context: &mut Context,
) -> Result<Ended, CollectorError> {
    let failed = |e: std::io::Error| CollectorError::new("listen", e);
    let address = listener.address().map_err(failed)?;
    context.report.note("listen", address.to_string());
    let listener = DoorListener::new(listener, Arc::clone(&access)).map_err(failed)?;
    let (opened, streams) = mpsc::channel(NEW_STREAMS);
    let server = grpc_server(Arc::clone(&access))
        .add_service(IngestServer::new(StreamOpener(opened)))
        .serve_with_incoming(listener);
    let mut streams = Streams {
        opened: streams,
        open: Vec::new(),
        sequences: SequenceTracker::default(),
        counts: Counts::default(),
        ack_blocked: false,
        stalled_senders: Vec::new(),
    };
    let mut timer = PollTimer::new(&context.shutdown, REPORT_DELAY);
    let accepted = context.accepted();
    tokio::pin!(server);
    loop {
        tokio::select! {
            ended = &mut server => {
                let cause = ended.err().map_or_else(|| "ended".to_owned(), |e| e.to_string());
                return Err(CollectorError::new("server", cause));
            }
            () = timer.next() => {
                streams.counts.report(&context.report, streams.open.len());
                report_access(&context.report, [&*access]);
                if streams.ack_blocked {
                    timer.wake_soon();
                }
            }
            () = accepted.next(), if streams.is_waiting() => {}
            () = tokio::time::sleep(streams.interval()), if streams.is_waiting() => {}
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
    fn open(&self, batches: Streaming<Bytes>, caller: Caller) -> Result<BoxStream<Ack>, Status> {
        let (acks, stream) = mpsc::channel(MAX_UNREAD_ACKS);
        let sender = SenderStream::new(batches, acks, caller);
        self.0
            .try_send(sender)
            .map_err(|_| Status::unavailable("receiver: too many streams are being opened"))?;
        Ok(Box::pin(ReceiverStream::new(stream)))
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
    /// The senders of batches that are offered in part.
    stalled_senders: Vec<Sender>,
}

impl Streams {
    /// Whether acks wait for their events to be accepted, or batches for room.
    fn is_waiting(&self) -> bool {
        self.open.iter().any(SenderStream::is_waiting)
    }

    /// How long to wait at most, unless acks' events are accepted before.
    fn interval(&self) -> Duration {
        match self.open.iter().any(SenderStream::is_stalled) {
            true => STALL_INTERVAL,
            false => ACCEPT_INTERVAL,
        }
    }

    /// Reads the available batches of every stream. Ready if there were any.
    fn poll(&mut self, context: &mut Context, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut progress = false;
        while let Poll::Ready(Some(sender)) = self.opened.poll_recv(cx) {
            progress = true;
            if self.open.len() < MAX_STREAMS {
                self.open.push(sender);
            } else {
                sender.refuse(Status::resource_exhausted("receiver: too many streams"));
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
                stalled_senders: &mut self.stalled_senders,
            };
            let (has_read, ended) = poll.read(sender, context, cx);
            progress |= sender.acknowledge(context) || has_read;
            // A sender that has sent everything still waits for its acks.
            if ended && sender.is_answered() {
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
