//! The bridge's thread.
//!
//! While traffic flows, it reads its rings at most once per `linger`: producers then find it awake
//! and don't have to wake it. Each pass over the rings sends its records as a batch, unless several
//! batches are in flight: then the batch grows until one of them is acknowledged, so that a slow
//! connection gets fewer and larger batches. When the rings are empty, the thread sleeps until the
//! bell rings, and then waits briefly for the events that follow the first one.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::batcher::{Batcher, Drained};
use super::config::BridgeConfig;
use super::queue::{EventAccount, SendQueue};
use super::stats::BridgeStats;
use crate::timer::FineTimer;
use core_affinity::CoreId;
use tapio_core::backoff::Backoff;
use tapio_core::clock;
use tapio_core::ring::{Bell, RecordReader, StageLedger};
use tapio_core::shutdown::Shutdown;
use tapio_wire::proto::Ack;
use tapio_wire::{BatchEncoder, ConnectError, IngestClient, IngestClientConfig, SendError};

/// With fewer batches in flight, a partial batch is sent at once.
const EAGER_BATCHES: usize = 3;
/// Upper bound of the pause before the first attempt to reconnect.
const FIRST_RECONNECT: Duration = Duration::from_millis(50);
/// The part of `linger` (one over this) that a woken bridge waits for more events.
const GATHER_DIVISOR: u32 = 4;
/// Interval at which a bridge that shuts down checks whether the writers of its rings are gone.
const SHUTDOWN_INTERVAL: Duration = Duration::from_millis(2);
/// How long after `drain_timeout` events that still arrive are dropped and counted.
const ABANDON_GRACE: Duration = Duration::from_secs(1);

type Connecting = Pin<Box<dyn Future<Output = Result<IngestClient, ConnectError>> + Send>>;

enum Connection {
    /// The next attempt is due at this instant.
    Down(Instant),
    Connecting(Connecting),
    Up(Box<IngestClient>),
}

/// A bridge to be started.
pub struct Bridge {
    /// Configuration.
    pub config: BridgeConfig,
    /// The name of the node.
    pub node: String,
    /// Identifies this process: its start, nanoseconds since the Unix epoch.
    pub epoch: u64,
    /// One ring of each shard.
    pub readers: Vec<RecordReader>,
    /// The bell that shards ring after a write.
    pub bell: Arc<Bell>,
    /// The counters of stage `bridge`.
    pub ledger: Arc<StageLedger>,
    /// Once requested, the bridge ends when the writers of its rings are gone and everything is
    /// acknowledged, at the latest `drain_timeout` later.
    pub shutdown: Shutdown,
    /// The CPU core to run on.
    pub core: Option<CoreId>,
}

/// State of the thread.
pub(super) struct Worker {
    config: BridgeConfig,
    shutdown: Shutdown,
    batcher: Batcher,
    queue: SendQueue,
    account: EventAccount,
    connection: Connection,
    backoff: Backoff,
    timer: FineTimer,
    stats: Arc<BridgeStats>,
    /// When the first record of the batch being written was read.
    batch_opened: Option<Instant>,
    shutdown_seen: Option<Instant>,
    /// Whether the lost connection was logged: each outage is logged once.
    outage_logged: bool,
}

/// The events that end a wait, besides changes of the connection.
#[derive(Clone, Copy)]
struct Wait {
    timeout: Duration,
    /// Records in a ring; the bell is armed for them.
    for_rings: bool,
    /// An ack: batches or records wait for room.
    for_acks: bool,
}

impl Worker {
    pub(super) fn new(bridge: Bridge, stats: Arc<BridgeStats>) -> io::Result<Self> {
        let encoder = BatchEncoder::new(&bridge.node, bridge.epoch, bridge.config.batch_bytes);
        let config = bridge.config;
        let seed = clock::wall_ns() ^ bridge.epoch.rotate_left(32) ^ u64::from(std::process::id());
        Ok(Self {
            batcher: Batcher::new(
                bridge.readers,
                bridge.bell,
                encoder,
                config.batch_events,
                config.queue_bytes,
            ),
            shutdown: bridge.shutdown,
            queue: SendQueue::default(),
            account: EventAccount::new(bridge.ledger),
            connection: Connection::Down(clock::instant()),
            backoff: Backoff::new(FIRST_RECONNECT, config.reconnect_max).with_jitter(seed),
            timer: FineTimer::new()?,
            stats,
            batch_opened: None,
            shutdown_seen: None,
            outage_logged: false,
            config,
        })
    }

    /// Runs until everything is delivered, or until `drain_timeout` after a shutdown.
    pub(super) async fn run(mut self) {
        poll_fn(|cx| {
            // Set once: the waker of the root task never changes.
            let _ = self.batcher.bell.target().set(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
        loop {
            let drained = self.batcher.drain(&mut self.queue, &self.account);
            let now = clock::instant();
            self.close_batch(now, drained);
            self.send();
            self.stats.counters.queue_bytes.set(self.queue.bytes() as u64);
            if self.is_done(now) {
                break;
            }
            if drained.more {
                // Lets the connection's task write.
                tokio::task::yield_now().await;
                self.collect_acks().await;
                continue;
            }
            let wait = self.next_wait(drained);
            self.wait(wait).await;
        }
    }

    /// Closes the batch being written when it is due.
    fn close_batch(&mut self, now: Instant, drained: Drained) {
        if self.batcher.encoder.is_empty() {
            self.batch_opened = None;
            return;
        }
        let opened = *self.batch_opened.get_or_insert(now);
        if drained.more {
            return;
        }
        let eager = matches!(self.connection, Connection::Up(_))
            && self.queue.unsent().is_none()
            && self.queue.in_flight() < EAGER_BATCHES;
        if eager || now - opened >= self.config.flush_interval || self.shutdown_seen.is_some() {
            self.batcher.close(&mut self.queue);
            self.batch_opened = None;
        }
    }

    /// Sends batches while the connection accepts them.
    fn send(&mut self) {
        let Connection::Up(client) = &self.connection else {
            return;
        };
        while let Some(batch) = self.queue.unsent() {
            match client.send(batch) {
                Ok(()) => {
                    self.stats.counters.batches_sent.add(1);
                    self.stats.counters.sent_bytes.add(batch.len_bytes() as u64);
                    self.queue.mark_sent();
                }
                // Called again with the next ack; a closed stream is noticed there too.
                Err(SendError::Full | SendError::Closed) => break,
            }
        }
    }

    /// Chooses the wait after a pass over the rings.
    fn next_wait(&self, drained: Drained) -> Wait {
        let backlog = self.queue.unsent().is_some() || !self.batcher.encoder.is_empty();
        let has_room = self.batcher.has_room(&self.queue);
        let flowing = drained.records > 0 || !self.batcher.encoder.is_empty();
        let timeout = match (self.shutdown_seen.is_some(), flowing && has_room) {
            (true, _) => SHUTDOWN_INTERVAL,
            (false, true) => self.config.linger.min(self.config.flush_interval),
            (false, false) => self.config.flush_interval,
        };
        Wait { timeout, for_rings: has_room && !flowing, for_acks: backlog || !has_room }
    }

    /// Waits, and after a wake-up a little longer for more events.
    async fn wait(&mut self, wait: Wait) {
        let woken = self.wait_once(wait).await;
        self.batcher.bell.cancel_sleep();
        if woken && self.shutdown_seen.is_none() {
            // Most likely more events follow the first one: wait, to send them together.
            self.wait_once(Wait {
                timeout: self.config.linger / GATHER_DIVISOR,
                for_rings: false,
                for_acks: false,
            })
            .await;
        }
    }

    /// Waits once. Returns whether records in a ring ended the wait.
    async fn wait_once(&mut self, wait: Wait) -> bool {
        if let Err(error) = self.timer.set(wait.timeout) {
            tracing::error!(%error, "bridge: can't set the timer");
        }
        poll_fn(|cx| self.poll_wait(wait, cx)).await
    }

    fn poll_wait(&mut self, wait: Wait, cx: &mut Context<'_>) -> Poll<bool> {
        let acked = self.poll_connection(cx) && wait.for_acks;
        if self.timer.poll(cx).is_ready() || acked {
            return Poll::Ready(false);
        }
        if wait.for_rings {
            self.batcher.bell.prepare_sleep();
            if self.batcher.has_input() {
                return Poll::Ready(true);
            }
        }
        Poll::Pending
    }

    /// Processes the acks that are ready, without waiting.
    async fn collect_acks(&mut self) {
        poll_fn(|cx| {
            self.poll_connection(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Processes acks and changes of the connection. Returns whether there were any.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> bool {
        let mut changed = false;
        loop {
            match &mut self.connection {
                Connection::Up(client) => match client.poll_ack(cx) {
                    Poll::Ready(Ok(ack)) => self.on_ack(&ack),
                    Poll::Ready(Err(error)) => self.on_disconnected(&error),
                    Poll::Pending => return changed,
                },
                Connection::Connecting(attempt) => match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(client)) => self.on_connected(client),
                    Poll::Ready(Err(error)) => self.on_connect_failed(&error),
                    Poll::Pending => return changed,
                },
                Connection::Down(due) => {
                    let due = *due;
                    self.connection = Connection::Connecting(self.connect(due));
                }
            }
            changed = true;
        }
    }

    /// Connects at `not_before`.
    fn connect(&self, not_before: Instant) -> Connecting {
        let config = IngestClientConfig {
            endpoint: self.config.endpoint.clone(),
            connect_timeout: self.config.connect_timeout,
            keepalive: self.config.keepalive,
        };
        Box::pin(async move {
            tokio::time::sleep_until(not_before.into()).await;
            let timeout = config.connect_timeout;
            match tokio::time::timeout(timeout, IngestClient::connect(&config)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ConnectError::Connect(
                    config.endpoint,
                    format!("no answer within {timeout:?}"),
                )),
            }
        })
    }

    fn on_connected(&mut self, client: IngestClient) {
        self.stats.counters.connects.add(1);
        self.stats.set_connected(true);
        let waiting_bytes = self.queue.bytes();
        tracing::info!(
            endpoint = %self.config.endpoint, waiting_bytes,
            "bridge: connected to the server"
        );
        self.outage_logged = false;
        self.connection = Connection::Up(Box::new(client));
        self.send();
    }

    fn on_connect_failed(&mut self, error: &ConnectError) {
        self.stats.counters.failed_connects.add(1);
        self.schedule_reconnect(&error.to_string());
    }

    fn on_disconnected(&mut self, error: &str) {
        self.stats.set_connected(false);
        let resend = self.queue.rewind();
        self.stats.counters.batches_resent.add(resend as u64);
        self.schedule_reconnect(error);
    }

    fn schedule_reconnect(&mut self, error: &str) {
        self.stats.set_last_error(error);
        let pause = self.backoff.next_pause();
        if !std::mem::replace(&mut self.outage_logged, true) {
            tracing::warn!(
                endpoint = %self.config.endpoint, error,
                "bridge: not connected to the server, reconnecting; buffering up to {} bytes of events",
                self.config.queue_bytes
            );
        }
        self.connection = Connection::Down(clock::instant() + pause);
    }

    fn on_ack(&mut self, ack: &Ack) {
        if ack.epoch != self.batcher.encoder.epoch() {
            return;
        }
        // A server has recovered only once it stores batches.
        self.backoff.reset();
        let done = self.queue.acknowledge(ack, &self.account);
        self.stats.counters.batches_acked.add(done.batches);
        self.stats.counters.events_acked.add(done.events);
        self.stats.counters.stories_acked.add(done.stories);
        for (events, cause) in done.refused {
            let refused = &self.stats.counters.events_refused;
            if refused.get() == 0 {
                tracing::warn!(
                    events,
                    error = cause,
                    "bridge: the server refused a batch; further ones are only counted"
                );
            }
            refused.add(u64::from(events));
        }
        self.send();
    }

    /// Whether the thread ends. Drops and counts the rest when `drain_timeout` is over.
    fn is_done(&mut self, now: Instant) -> bool {
        let is_drained = self.batcher.encoder.is_empty() && self.queue.is_empty();
        if is_drained && self.batcher.is_finished() {
            return true;
        }
        if !self.shutdown.is_requested() {
            return false;
        }
        let since = now - *self.shutdown_seen.get_or_insert(now);
        if since < self.config.drain_timeout {
            return false;
        }
        self.batcher.close(&mut self.queue);
        let dropped = self.queue.abandon(&self.account) + self.batcher.abandon(&self.account);
        if dropped > 0 {
            tracing::warn!(
                events = dropped,
                "bridge: dropped events at shutdown: no ack within drain_timeout"
            );
        }
        self.batcher.is_finished() || since >= self.config.drain_timeout + ABANDON_GRACE
    }
}
