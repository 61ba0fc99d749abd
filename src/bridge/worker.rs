//! The bridge's thread.
//!
//! While traffic flows, it reads its rings at most once per `linger`: producers then find it awake
//! and don't have to wake it. Each pass over the rings sends its records as a batch, unless several
//! batches are in flight: then the batch grows until one of them is acknowledged, so that a slow
//! connection gets fewer and larger batches. When the rings are empty, the thread sleeps until the
//! bell rings, and then waits briefly for the events that follow the first one.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::batch::compress;
use super::batcher::{Batcher, Drained, ReadAgain};
use super::config::BridgeConfig;
use super::flight_recorder::FlightRecorder;
use super::lanes::{IMPORTANT, LANES, ORDINARY, epoch_of};
use super::link::{Link, LinkEvent};
use super::outbox::{Outbox, OutboxConfig, SpoolSync};
use super::parts::Bridge;
use super::queue::Acknowledged;
use super::report::Reporter;
use super::stats::BridgeStats;
use super::wait::Wait;
use crate::store::{Files, OsFiles};
use crate::timer::FineTimer;
use tapio_core::clock;
use tapio_core::shutdown::Shutdown;
use tapio_wire::proto::Ack;
use tapio_wire::{BatchEncoder, StreamEnd};

/// With fewer batches in flight, a partial batch is sent at once.
const EAGER_BATCHES: usize = 3;
/// The part of `linger` (one over this) that a woken bridge waits for more events.
const GATHER_DIVISOR: u32 = 4;
/// Interval at which a bridge that shuts down checks whether the writers of its rings are gone.
const SHUTDOWN_INTERVAL: Duration = Duration::from_millis(2);
/// Age at which a batch is closed for the spool: sources wait for it to accept their events.
const SPOOL_DELAY: Duration = Duration::from_millis(1);
/// Pause before a batch that the disk refused is tried again.
const DISK_RETRY: Duration = Duration::from_millis(100);
/// Interval at which the spool is trimmed and checked, and the server's progress as well.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// How long after the start events are recognised that come again after a kill.
const READ_AGAIN_TIME: Duration = Duration::from_secs(600);
/// With a spool, a shutdown doesn't wait for a server that hasn't answered for this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after `drain_timeout` events that still arrive are dropped and counted.
const ABANDON_GRACE: Duration = Duration::from_secs(1);

type Syncing = tokio::task::JoinHandle<(SpoolSync, [io::Result<()>; LANES])>;

/// State of the thread.
pub(super) struct Worker {
    config: BridgeConfig,
    shutdown: Shutdown,
    batcher: Batcher,
    outbox: Outbox,
    link: Link,
    reporter: Reporter,
    timer: FineTimer,
    stats: Arc<BridgeStats>,
    /// The sync of the spool that is under way, with `durability: power`.
    syncing: Option<Syncing>,
    started: Instant,
    shutdown_seen: Option<Instant>,
    /// When the server answered last.
    answered: Instant,
    /// When the spool was maintained last.
    maintained: Instant,
    /// When the disk refused a batch.
    refused: Option<Instant>,
    /// Whether the lost connection was logged: each outage is logged once.
    outage_logged: bool,
}

impl Worker {
    pub(super) fn new(
        bridge: Bridge,
        stats: Arc<BridgeStats>,
        recorder: Arc<FlightRecorder>,
    ) -> io::Result<Self> {
        let Bridge { config, node, epoch, spool, .. } = bridge;
        let dialer = config.dialer()?;
        let files: Arc<dyn Files> = Arc::new(OsFiles);
        let outbox = OutboxConfig {
            node: &node,
            epoch,
            queue_bytes: config.queue_bytes,
            spool: spool.as_ref().map(|spool| &spool.config),
            quarantine: bridge.quarantine,
        };
        let recovered = spool.as_ref().map(|spool| &*spool.ledger);
        let mut outbox = Outbox::open(outbox, &files, bridge.ledger, recovered)?;
        outbox.recorder = recorder;
        if let Some(feed) = bridge.exports {
            outbox = outbox.with_exports(feed, config.endpoint.is_empty());
        }
        let read_again = ReadAgain {
            ids: outbox.latest_ids(),
            collectors: spool.as_ref().map_or(0, |spool| spool.reads_again),
        };
        let encoder = |lane| BatchEncoder::new(&node, epoch_of(epoch, lane), config.batch_bytes);
        let encoders = [encoder(IMPORTANT), encoder(ORDINARY)];
        let (readers, bell) = (bridge.readers, bridge.bell);
        let seed = clock::wall_ns() ^ epoch.rotate_left(32) ^ u64::from(std::process::id());
        let now = clock::instant();
        Ok(Self {
            batcher: Batcher::new(readers, bell, encoders, config.batch_events, read_again),
            shutdown: bridge.shutdown,
            outbox,
            link: Link::new(config.clone(), dialer, &node, seed),
            reporter: Reporter::new(bridge.reports),
            timer: FineTimer::new()?,
            stats,
            syncing: None,
            started: now,
            shutdown_seen: None,
            answered: now,
            maintained: now,
            refused: None,
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
            let drained = self.batcher.drain(&mut self.outbox);
            let now = clock::instant();
            self.close_batches(now, drained);
            self.retry_disk(now);
            self.start_sync();
            self.outbox.refill();
            self.send();
            self.publish();
            self.serve_exports(now);
            if now - self.maintained >= MAINTENANCE_INTERVAL {
                self.maintain(now);
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

    /// Closes the batches being written when they are due.
    fn close_batches(&mut self, now: Instant, drained: Drained) {
        if drained.more && self.shutdown_seen.is_none() {
            return;
        }
        let eager = self.link.is_up()
            && !self.outbox.has_unsent()
            && self.outbox.in_flight() < EAGER_BATCHES;
        let age = if eager || self.shutdown_seen.is_some() {
            Duration::ZERO
        } else if self.outbox.has_spool() {
            self.config.flush_interval.min(SPOOL_DELAY)
        } else {
            self.config.flush_interval
        };
        self.batcher.close(&mut self.outbox, now, age);
    }

    /// Tries batches again that the disk has refused.
    fn retry_disk(&mut self, now: Instant) {
        if !self.outbox.is_failing() {
            self.refused = None;
            return;
        }
        let since = *self.refused.get_or_insert(now);
        if now - since >= DISK_RETRY {
            self.refused = Some(now);
            self.outbox.append(clock::wall_ns());
        }
    }

    /// Starts to sync what was appended, on a thread of its own. One sync is under way at a time;
    /// it covers what was appended before it.
    fn start_sync(&mut self) {
        if self.syncing.is_none()
            && let Some(sync) = self.outbox.begin_sync()
        {
            self.syncing = Some(tokio::task::spawn_blocking(move || {
                let results = sync.run();
                (sync, results)
            }));
        }
    }

    /// Takes the result of a sync. Returns whether there was one.
    fn poll_sync(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(syncing) = &mut self.syncing else { return false };
        let Poll::Ready(done) = std::pin::Pin::new(syncing).poll(cx) else { return false };
        self.syncing = None;
        match done {
            Ok((sync, results)) => self.outbox.finish_sync(&sync, results),
            Err(error) => tracing::error!(%error, "spool: a sync panicked"),
        }
        true
    }

    /// Sends batches while the connection accepts them.
    fn send(&mut self) {
        if !self.link.is_up() {
            return;
        }
        let window = self.link.window_bytes();
        let is_compressed = self.config.is_compressed();
        let link = &self.link;
        while let Some(bytes) = self.outbox.send_next(window, |framed| match is_compressed {
            true => link.send(compress(framed)),
            false => link.send(framed.clone()),
        }) {
            self.stats.counters.batches_sent.add(1);
            self.stats.counters.sent_bytes.add(bytes as u64);
        }
    }

    fn publish(&self) {
        let counters = &self.stats.counters;
        counters.rounds.add(1);
        counters.queue_bytes.set(self.outbox.queue_bytes() as u64);
        counters.spool_bytes.set(self.outbox.spool_bytes());
        self.stats.set_disk_failing(self.outbox.is_failing());
        counters.circuit_state.set(self.link.state() as u64);
    }

    /// Shows exporters what there is, and takes their answers.
    fn serve_exports(&mut self, now: Instant) {
        self.outbox.publish(self.shutdown_seen.is_some(), false);
        if let Some(done) = self.outbox.take_answers() {
            self.answered = now;
            self.count_acked(&done);
        }
    }

    fn count_acked(&self, done: &Acknowledged) {
        self.stats.counters.batches_acked.add(done.batches);
        self.stats.counters.events_acked.add(done.events);
        self.stats.counters.stories_acked.add(done.stories);
    }

    fn maintain(&mut self, now: Instant) {
        self.maintained = now;
        if now - self.started >= READ_AGAIN_TIME {
            self.batcher.forget_read_again();
        }
        self.outbox.maintain();
        let oldest_ns = self.outbox.oldest_ns();
        let age_ns = oldest_ns.map_or(0, |oldest| clock::wall_ns().saturating_sub(oldest));
        self.stats.counters.spool_oldest_seconds.set(age_ns / 1_000_000_000);
        self.reporter.send(&self.link);
        if self.link.check_progress(now, self.outbox.in_flight() > 0) {
            let timeout = self.config.ack_timeout;
            self.on_lost(&format!("no acknowledgement within {timeout:?}"));
        }
    }

    /// Chooses the wait after a pass over the rings.
    fn next_wait(&self, drained: Drained) -> Wait {
        // An ack makes room for batches that are on disk only.
        let backlog =
            self.outbox.has_unsent() || self.outbox.has_backlog() || self.batcher.has_open();
        let has_room = self.outbox.has_room();
        let flowing = drained.records > 0 || self.batcher.has_open();
        let timeout = match (self.shutdown_seen.is_some(), flowing && has_room) {
            (true, _) => SHUTDOWN_INTERVAL,
            (false, true) => self.config.linger.min(self.config.flush_interval),
            (false, false) if self.outbox.is_failing() => DISK_RETRY,
            // The watchdog watches the rounds.
            (false, false) => self.config.flush_interval.min(MAINTENANCE_INTERVAL),
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
        let synced = self.poll_sync(cx);
        let acked = (self.poll_link(cx) && wait.for_acks) || synced;
        if self.timer.poll(cx).is_ready() || acked {
            return Poll::Ready(false);
        }
        if wait.for_rings {
            self.batcher.bell.prepare_sleep();
            if self.batcher.has_input() {
                return Poll::Ready(true);
            }
        }
        // After the bell is armed, which exporters ring.
        if self.outbox.exports_are_due() {
            return Poll::Ready(false);
        }
        Poll::Pending
    }

    /// Processes the acks that are ready, without waiting.
    async fn collect_acks(&mut self) {
        poll_fn(|cx| {
            self.poll_sync(cx);
            self.poll_link(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Processes acks and changes of the connection. Returns whether there were any.
    fn poll_link(&mut self, cx: &mut Context<'_>) -> bool {
        let mut changed = false;
        while let Poll::Ready(event) = self.link.poll(cx) {
            match event {
                LinkEvent::Connected => self.on_connected(),
                LinkEvent::Answered => self.stats.set_connected(true),
                LinkEvent::Ack(ack) => self.on_ack(&ack),
                LinkEvent::ConnectFailed(error) => {
                    self.stats.counters.failed_connects.add(1);
                    self.report_outage(&error);
                }
                LinkEvent::Lost(end) => self.on_stream_end(&end),
            }
            changed = true;
        }
        changed
    }

    fn on_connected(&mut self) {
        self.stats.counters.connects.add(1);
        self.stats.set_endpoint(self.link.address());
        self.reporter.connected();
        self.send();
    }

    fn on_stream_end(&mut self, end: &StreamEnd) {
        if end.is_refusal {
            self.outbox.object(&end.message);
        }
        self.on_lost(&end.message);
        self.handle_refused();
    }

    fn on_lost(&mut self, error: &str) {
        self.stats.set_connected(false);
        let resend = self.outbox.rewind();
        self.stats.counters.batches_resent.add(resend as u64);
        self.report_outage(error);
    }

    fn report_outage(&mut self, error: &str) {
        self.stats.set_last_error(error);
        if !std::mem::replace(&mut self.outage_logged, true) {
            tracing::warn!(
                endpoint = self.link.address(),
                error,
                "bridge: not connected to the server, reconnecting; keeping up to {} bytes of events",
                self.config.spool_bytes.max(self.config.queue_bytes as u64)
            );
        }
    }

    fn on_ack(&mut self, ack: &Ack) {
        // The response's headers may have come together with the ack.
        self.stats.set_connected(true);
        let done = self.outbox.acknowledge(ack);
        if done.batches > 0 || done.has_refused {
            self.answered = clock::instant();
            self.link.confirm();
            self.report_recovery();
        }
        self.count_acked(&done);
        if done.has_refused {
            self.handle_refused();
        }
        self.send();
    }

    fn report_recovery(&mut self) {
        if std::mem::take(&mut self.outage_logged) {
            tracing::info!(
                endpoint = self.link.address(),
                waiting_bytes = self.outbox.queue_bytes(),
                "bridge: the server stores events again"
            );
        }
    }

    /// Handles the batches that the server refuses.
    fn handle_refused(&mut self) {
        let handled = self.outbox.handle_refused();
        let counters = &self.stats.counters;
        counters.batches_split.add(handled.splits);
        counters.items_quarantined.add(handled.quarantined);
        if let Some(cause) = &handled.cause
            && counters.events_refused.get() == 0
        {
            tracing::warn!(
                events = handled.events,
                error = cause,
                "bridge: the server refused events; `tapio quarantine` prints them, further ones are only counted"
            );
        }
        counters.events_refused.add(handled.events);
        if handled.splits > 0 && self.link.is_up() {
            // On this stream the server has answered the items of the pieces.
            self.outbox.rewind();
            self.link.restart();
        }
    }

    /// Whether the thread ends. Events that are in no spool are dropped and counted when
    /// `drain_timeout` is over.
    fn is_done(&mut self, now: Instant) -> bool {
        let is_read = self.batcher.is_finished();
        if is_read && self.outbox.is_empty() {
            self.close();
            return true;
        }
        if !self.shutdown.is_requested() {
            return false;
        }
        let seen = *self.shutdown_seen.get_or_insert(now);
        let has_peer = self.link.is_up() || self.config.endpoint.is_empty();
        let is_answering = has_peer && now - self.answered.max(seen) < ANSWER_TIMEOUT;
        if is_read && self.outbox.is_spooled() && !is_answering {
            self.close();
            return true;
        }
        if now - seen < self.config.drain_timeout {
            return false;
        }
        self.batcher.close(&mut self.outbox, now, Duration::ZERO);
        let left = self.batcher.abandon(&self.outbox);
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
        let closed = self.outbox.close();
        self.outbox.publish(true, true);
        match closed {
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
