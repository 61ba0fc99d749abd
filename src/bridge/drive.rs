//! The bridge's thread.
//!
//! While traffic flows it reads its rings at most once per `linger`: producers then find it awake
//! and ring for nothing. Each look sends what it found, unless some batches are still in flight:
//! then the batch grows until one of them is acknowledged, so that a slow line gets fewer and
//! larger batches. When a look finds nothing, the thread sleeps until the bell rings, and gives the
//! events behind the first one a moment to come.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::intake::{Drained, Intake};
use super::queue::{Account, SendQueue, Settlement};
use super::stats::{BridgeStats, add};
use super::{Bridge, BridgeConfig};
use crate::timer::FineTimer;
use tapio_core::clock;
use tapio_core::shutdown::Shutdown;
use tapio_wire::proto::Ack;
use tapio_wire::{BatchEncoder, Line, LineConfig, LineError, NotSent};

/// Batches in flight up to which a partial batch is sent at once.
const EAGER_BATCHES: usize = 3;
/// The part of `linger` for which a bridge that was woken lets more events come.
const GATHER_SHARE: u32 = 4;
/// How often a bridge that ends looks whether its rings' writers are gone.
const ENDING_NAP: Duration = Duration::from_millis(2);
/// After `drain_timeout`, how much longer it counts as lost what still arrives.
const ABANDON_GRACE: Duration = Duration::from_secs(1);

type Connecting = Pin<Box<dyn Future<Output = Result<Line, LineError>> + Send>>;

enum Link {
    /// Not before this instant.
    Down(Instant),
    Connecting(Connecting),
    Up(Box<Line>),
}

pub(super) struct Drive {
    config: BridgeConfig,
    shutdown: Shutdown,
    intake: Intake,
    queue: SendQueue,
    account: Account,
    link: Link,
    backoff: Backoff,
    timer: FineTimer,
    stats: Arc<BridgeStats>,
    /// When the first event of the batch being written was read.
    opened: Option<Instant>,
    stop_seen: Option<Instant>,
    /// Whether the last change of state was told.
    told_down: bool,
}

/// What to wait for besides the line.
#[derive(Clone, Copy)]
struct Wait {
    at_most: Duration,
    /// A ring with something in it ends the wait, and the bell is set for it.
    for_rings: bool,
    /// An ack ends the wait: something waits for room or for its turn.
    for_acks: bool,
}

impl Drive {
    pub(super) fn new(bridge: Bridge, stats: Arc<BridgeStats>) -> io::Result<Self> {
        let encoder = BatchEncoder::new(&bridge.node, bridge.epoch, bridge.config.batch_bytes);
        let config = bridge.config;
        let seed = clock::wall_ns() ^ bridge.epoch.rotate_left(32) ^ u64::from(std::process::id());
        Ok(Self {
            intake: Intake::new(
                bridge.readers,
                bridge.bell,
                encoder,
                config.batch_events,
                config.queue_bytes,
            ),
            shutdown: bridge.shutdown,
            queue: SendQueue::default(),
            account: Account::new(bridge.ledger),
            link: Link::Down(clock::instant()),
            backoff: Backoff::new(config.reconnect_max, seed),
            timer: FineTimer::new()?,
            stats,
            opened: None,
            stop_seen: None,
            told_down: false,
            config,
        })
    }

    pub(super) async fn run(mut self) {
        poll_fn(|cx| {
            // The root task's waker never changes, so once is enough.
            let _ = self.intake.bell.target().set(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
        loop {
            let drained = self.intake.drain(&mut self.queue, &mut self.account);
            let now = clock::instant();
            self.close_batch(now, drained);
            self.send();
            // Relaxed, read by `BridgeStats::status`: a number of its own.
            self.stats.queue_bytes.store(self.queue.bytes() as u64, Ordering::Relaxed);
            if self.is_done(now) {
                break;
            }
            if drained.more {
                // Let the connection's task write.
                tokio::task::yield_now().await;
                self.collect_acks().await;
                continue;
            }
            let wait = self.wait_for(drained);
            self.wait(wait).await;
        }
    }

    /// Closes the batch being written when it is time to.
    fn close_batch(&mut self, now: Instant, drained: Drained) {
        if self.intake.encoder.is_empty() {
            self.opened = None;
            return;
        }
        let opened = *self.opened.get_or_insert(now);
        if drained.more {
            return;
        }
        let eager = matches!(self.link, Link::Up(_))
            && self.queue.unsent().is_none()
            && self.queue.in_flight() < EAGER_BATCHES;
        if eager || now - opened >= self.config.flush_interval || self.stop_seen.is_some() {
            self.intake.close(&mut self.queue);
            self.opened = None;
        }
    }

    /// Hands batches to the line while it takes them.
    fn send(&mut self) {
        let Link::Up(line) = &self.link else {
            return;
        };
        while let Some(batch) = self.queue.unsent() {
            match line.send(batch) {
                Ok(()) => {
                    add(&self.stats.batches_sent, 1);
                    add(&self.stats.bytes_sent, batch.len_bytes() as u64);
                    self.queue.mark_sent();
                }
                // Acks will come and call this again; a broken line shows there too.
                Err(NotSent::Full | NotSent::Broken) => break,
            }
        }
    }

    fn wait_for(&self, drained: Drained) -> Wait {
        let backlog = self.queue.unsent().is_some() || !self.intake.encoder.is_empty();
        let has_room = self.intake.has_room(&self.queue);
        let flowing = drained.records > 0 || !self.intake.encoder.is_empty();
        let at_most = match (self.stop_seen.is_some(), flowing && has_room) {
            (true, _) => ENDING_NAP,
            (false, true) => self.config.linger.min(self.config.flush_interval),
            (false, false) => self.config.flush_interval,
        };
        Wait { at_most, for_rings: has_room && !flowing, for_acks: backlog || !has_room }
    }

    async fn wait(&mut self, wait: Wait) {
        let woken = self.wait_once(wait).await;
        self.intake.bell.rouse();
        if woken && self.stop_seen.is_none() {
            // The first of several, most likely: let them come, and send them together.
            self.wait_once(Wait {
                at_most: self.config.linger / GATHER_SHARE,
                for_rings: false,
                for_acks: false,
            })
            .await;
        }
    }

    /// Waits; returns whether something in a ring ended it.
    async fn wait_once(&mut self, wait: Wait) -> bool {
        if let Err(error) = self.timer.set(wait.at_most) {
            tracing::error!(%error, "the bridge's timer failed");
        }
        poll_fn(|cx| self.poll_wait(wait, cx)).await
    }

    fn poll_wait(&mut self, wait: Wait, cx: &mut Context<'_>) -> Poll<bool> {
        let acked = self.poll_link(cx) && wait.for_acks;
        if self.timer.poll(cx).is_ready() || acked {
            return Poll::Ready(false);
        }
        if wait.for_rings {
            self.intake.bell.doze();
            if self.intake.has_input() {
                return Poll::Ready(true);
            }
        }
        Poll::Pending
    }

    /// Takes in what acks are there, without waiting.
    async fn collect_acks(&mut self) {
        poll_fn(|cx| {
            self.poll_link(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Moves the link on as far as it goes. Returns whether anything happened.
    fn poll_link(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        loop {
            match &mut self.link {
                Link::Up(line) => match line.poll_ack(cx) {
                    Poll::Ready(Ok(ack)) => self.on_ack(&ack),
                    Poll::Ready(Err(error)) => self.on_lost(&error),
                    Poll::Pending => return moved,
                },
                Link::Connecting(attempt) => match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(line)) => self.on_line(line),
                    Poll::Ready(Err(error)) => self.on_failed(&error),
                    Poll::Pending => return moved,
                },
                Link::Down(until) => {
                    let until = *until;
                    self.link = Link::Connecting(self.attempt(until));
                }
            }
            moved = true;
        }
    }

    /// An attempt to connect, after a pause.
    fn attempt(&self, not_before: Instant) -> Connecting {
        let config = LineConfig {
            endpoint: self.config.endpoint.clone(),
            connect_timeout: self.config.connect_timeout,
            keepalive: self.config.keepalive,
        };
        Box::pin(async move {
            tokio::time::sleep_until(not_before.into()).await;
            let timeout = config.connect_timeout;
            match tokio::time::timeout(timeout, Line::connect(&config)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(LineError::Connect(
                    config.endpoint,
                    format!("no answer within {timeout:?}"),
                )),
            }
        })
    }

    fn on_line(&mut self, line: Line) {
        add(&self.stats.connects, 1);
        // Relaxed, read by `BridgeStats::is_connected`: a fact of its own.
        self.stats.connected.store(true, Ordering::Relaxed);
        let waiting_bytes = self.queue.bytes();
        tracing::info!(endpoint = %self.config.endpoint, waiting_bytes, "connected to the server");
        self.told_down = false;
        self.link = Link::Up(Box::new(line));
        self.send();
    }

    fn on_failed(&mut self, error: &LineError) {
        add(&self.stats.failed_connects, 1);
        self.down(&error.to_string());
    }

    fn on_lost(&mut self, error: &str) {
        // Relaxed, as in `on_line`.
        self.stats.connected.store(false, Ordering::Relaxed);
        let resend = self.queue.rewind();
        add(&self.stats.batches_resent, resend as u64);
        self.down(error);
    }

    fn down(&mut self, error: &str) {
        self.stats.fail(error);
        let pause = self.backoff.next_pause();
        if !std::mem::replace(&mut self.told_down, true) {
            tracing::warn!(
                endpoint = %self.config.endpoint, error,
                "no connection to the server: events are kept, up to {} bytes; trying again",
                self.config.queue_bytes
            );
        }
        self.link = Link::Down(clock::instant() + pause);
    }

    fn on_ack(&mut self, ack: &Ack) {
        if ack.epoch != self.intake.encoder.epoch() {
            return;
        }
        // Only a server that stores something has recovered.
        self.backoff.reset();
        let done: Settlement = self.queue.acknowledge(ack, &mut self.account);
        add(&self.stats.batches_acked, done.batches);
        add(&self.stats.events_acked, done.events);
        add(&self.stats.stories_acked, done.stories);
        for (events, cause) in done.refused {
            let refused = &self.stats.events_refused;
            if refused.load(Ordering::Relaxed) == 0 {
                tracing::warn!(
                    events,
                    cause,
                    "the server refused a batch; further ones are counted"
                );
            }
            add(refused, u64::from(events));
        }
        self.send();
    }

    /// Whether the thread ends here. Counts as lost what can't be waited for any longer.
    fn is_done(&mut self, now: Instant) -> bool {
        let settled = self.intake.encoder.is_empty() && self.queue.is_empty();
        if settled && self.intake.is_finished() {
            return true;
        }
        if !self.shutdown.is_requested() {
            return false;
        }
        let since = now - *self.stop_seen.get_or_insert(now);
        if since < self.config.drain_timeout {
            return false;
        }
        self.intake.close(&mut self.queue);
        let lost = self.queue.abandon(&mut self.account) + self.intake.abandon(&mut self.account);
        if lost > 0 {
            tracing::warn!(events = lost, "lost at the end: the server didn't take them in time");
        }
        self.intake.is_finished() || since >= self.config.drain_timeout + ABANDON_GRACE
    }
}
