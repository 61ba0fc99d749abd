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

use super::account::EventAccount;
use super::batcher::{Batcher, Drained};
use super::config::BridgeConfig;
use super::outbox::Outbox;
use super::spool::{Spool, SpoolConfig};
use super::stats::BridgeStats;
use crate::store::OsFiles;
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
/// Age at which a batch is closed for the spool: sources wait for it to accept their events.
const SPOOL_DELAY: Duration = Duration::from_millis(5);
/// Pause before a batch that the disk refused is tried again.
const DISK_RETRY: Duration = Duration::from_millis(100);
/// Interval at which the spool is trimmed and checked.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// With a spool, a shutdown doesn't wait for a server that hasn't answered for this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after `drain_timeout` events that still arrive are dropped and counted.
const ABANDON_GRACE: Duration = Duration::from_secs(1);

/// Names the remedies of a spool that can't be opened.
fn unusable_spool(cause: io::Error) -> io::Error {
    let text = format!(
        "spool: {cause} (repair it, set another state_dir, or set bridge.spool_bytes: 0 to keep \
         events in memory only)"
    );
    io::Error::new(cause.kind(), text)
}

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
    /// Where batches wait on disk; `None`: in memory only.
    pub spool: Option<BridgeSpool>,
    /// The CPU core to run on.
    pub core: Option<CoreId>,
}

/// The bridge's spool.
pub struct BridgeSpool {
    /// Its configuration.
    pub config: SpoolConfig,
    /// Counts the events that earlier processes left in it as received.
    pub ledger: Arc<StageLedger>,
}

/// State of the thread.
pub(super) struct Worker {
    config: BridgeConfig,
    shutdown: Shutdown,
    batcher: Batcher,
    outbox: Outbox,
    connection: Connection,
    backoff: Backoff,
    timer: FineTimer,
    stats: Arc<BridgeStats>,
    /// When the first record of the batch being written was read.
    batch_opened: Option<Instant>,
    shutdown_seen: Option<Instant>,
    /// When the server answered last.
    answered: Instant,
    /// When the spool was maintained last.
    maintained: Instant,
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
        let account = EventAccount::new(bridge.ledger, bridge.spool.is_some());
        let spool = match bridge.spool {
            None => None,
            Some(BridgeSpool { config, ledger }) => {
                let (spool, waiting) = Spool::open(&config, Arc::new(OsFiles), bridge.epoch)
                    .map_err(unusable_spool)?;
                let events = waiting.iter().map(|n| u64::from(*n)).sum();
                ledger.add_received(config.recovered, events);
                ledger.add_forwarded(config.recovered, events);
                account.receive(&waiting);
                Some(spool)
            }
        };
        Ok(Self {
            batcher: Batcher::new(bridge.readers, bridge.bell, encoder, config.batch_events),
            shutdown: bridge.shutdown,
            outbox: Outbox::new(account, config.queue_bytes, &bridge.node, bridge.epoch, spool),
            answered: clock::instant(),
            maintained: clock::instant(),
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
            if self.outbox.is_failing() {
                self.outbox.append();
            }
            let drained = self.batcher.drain(&mut self.outbox);
            let now = clock::instant();
            self.close_batch(now, drained);
            self.outbox.refill();
            self.send();
            self.stats.counters.queue_bytes.set(self.outbox.queue.bytes() as u64);
            self.stats.counters.spool_bytes.set(self.outbox.spool_bytes());
            if now - self.maintained >= MAINTENANCE_INTERVAL {
                self.maintained = now;
                self.outbox.maintain();
            }
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
            && self.outbox.queue.unsent().is_none()
            && self.outbox.queue.in_flight() < EAGER_BATCHES;
        let age = now - opened;
        let is_due =
            age >= self.config.flush_interval || (self.outbox.has_spool() && age >= SPOOL_DELAY);
        if eager || is_due || self.shutdown_seen.is_some() {
            self.batcher.close(&mut self.outbox);
            self.batch_opened = None;
        }
    }

    /// Sends batches while the connection accepts them.
    fn send(&mut self) {
        let Connection::Up(client) = &self.connection else {
            return;
        };
        let queue = &mut self.outbox.queue;
        while let Some(batch) = queue.unsent() {
            match client.send_framed(batch.framed.clone()) {
                Ok(()) => {
                    self.stats.counters.batches_sent.add(1);
                    self.stats.counters.sent_bytes.add(batch.len_bytes() as u64);
                    queue.mark_sent();
                }
                // Called again with the next ack; a closed stream is noticed there too.
                Err(SendError::Full | SendError::Closed) => break,
            }
        }
    }

    /// Chooses the wait after a pass over the rings.
    fn next_wait(&self, drained: Drained) -> Wait {
        let backlog = self.outbox.queue.unsent().is_some() || !self.batcher.encoder.is_empty();
        let has_room = self.outbox.has_room();
        let flowing = drained.records > 0 || !self.batcher.encoder.is_empty();
        let timeout = match (self.shutdown_seen.is_some(), flowing && has_room) {
            (true, _) => SHUTDOWN_INTERVAL,
            (false, true) => self.config.linger.min(self.config.flush_interval),
            (false, false) if self.outbox.is_failing() => DISK_RETRY,
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
        let waiting_bytes = self.outbox.queue.bytes();
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
        let resend = self.outbox.queue.rewind();
        self.stats.counters.batches_resent.add(resend as u64);
        self.schedule_reconnect(error);
    }

    fn schedule_reconnect(&mut self, error: &str) {
        self.stats.set_last_error(error);
        let pause = self.backoff.next_pause();
        if !std::mem::replace(&mut self.outage_logged, true) {
            tracing::warn!(
                endpoint = %self.config.endpoint, error,
                "bridge: not connected to the server, reconnecting; keeping up to {} bytes of events",
                self.config.spool_bytes.max(self.config.queue_bytes as u64)
            );
        }
        self.connection = Connection::Down(clock::instant() + pause);
    }

    fn on_ack(&mut self, ack: &Ack) {
        // A server has recovered only once it stores batches.
        self.backoff.reset();
        self.answered = clock::instant();
        let Outbox { queue, account, .. } = &mut self.outbox;
        let done = queue.acknowledge(ack, account);
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

    /// Whether the thread ends. Events that are in no spool are dropped and counted when
    /// `drain_timeout` is over.
    fn is_done(&mut self, now: Instant) -> bool {
        let is_read = self.batcher.is_finished() && self.batcher.encoder.is_empty();
        if is_read && self.outbox.is_empty() {
            self.close();
            return true;
        }
        if !self.shutdown.is_requested() {
            return false;
        }
        let seen = *self.shutdown_seen.get_or_insert(now);
        let is_answering = matches!(self.connection, Connection::Up(_))
            && now - self.answered.max(seen) < ANSWER_TIMEOUT;
        let is_spooled = self.outbox.has_spool() && !self.outbox.is_failing();
        if is_read && is_spooled && !is_answering {
            self.close();
            return true;
        }
        if now - seen < self.config.drain_timeout {
            return false;
        }
        self.batcher.close(&mut self.outbox);
        let left = self.batcher.abandon(&self.outbox.account);
        if left > 0 {
            tracing::warn!(events = left, "bridge: dropped events at shutdown: no room for them");
        }
        let is_over = now - seen >= self.config.drain_timeout + ABANDON_GRACE;
        if self.batcher.is_finished() || is_over {
            self.close();
            return true;
        }
        false
    }

    fn close(&mut self) {
        match self.outbox.close() {
            Ok(0) => {}
            Ok(events) => tracing::warn!(
                events,
                "bridge: dropped events at shutdown: no ack within drain_timeout"
            ),
            Err(error) => tracing::error!(
                %error,
                "spool: can't note what the server has; the next start sends it again"
            ),
        }
    }
}
