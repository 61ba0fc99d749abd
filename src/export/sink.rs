//! A sink: reads the spool, sends several chunks at once, and notes how far it is in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::cursor::CursorFile;
use super::delivery::Delivery;
use super::reader::{ChunkEvents, Reader};
use super::stats::SinkStats;
use crate::bridge::{ExportCursor, IMPORTANT, ORDINARY, SpoolFeed, SpoolView};
use tapio_core::clock;
use tapio_wire::OtlpClient;

/// Chunks that are sent at once.
const MAX_IN_FLIGHT: usize = 4;
/// How long events wait for others, to be sent together.
const LINGER: Duration = Duration::from_millis(100);
/// The same where many come: the last chunk had so many events.
const BUSY_LINGER: Duration = Duration::from_millis(10);
const BUSY_EVENTS: u64 = 100;
/// How long the bridge may take for a view.
const VIEW_TIMEOUT: Duration = Duration::from_millis(10);
/// Least time between two writes of the cursor.
const SAVE_INTERVAL: Duration = Duration::from_millis(100);
/// A shutdown doesn't wait for a receiver that hasn't answered for this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A chunk on its way.
struct InFlight {
    delivery: JoinHandle<()>,
    events: ChunkEvents,
    after: ExportCursor,
}

/// A sink.
pub(super) struct Sink {
    feed: Arc<SpoolFeed>,
    /// Its number in the feed.
    number: usize,
    client: OtlpClient,
    reader: Reader,
    file: CursorFile,
    stats: Arc<SinkStats>,
    views: watch::Receiver<SpoolView>,
    in_flight: VecDeque<InFlight>,
    done: ExportCursor,
    /// Events of the last chunk.
    chunk_events: u64,
    is_back: Arc<Notify>,
    /// Events of chunks that were lost.
    lost: u64,
    saved: Instant,
    seed: u64,
    is_save_failure_logged: bool,
}

impl Sink {
    /// A sink that goes on after `done`. `seed`: any number that differs between agents.
    pub(super) fn new(
        (feed, number): (Arc<SpoolFeed>, usize),
        client: OtlpClient,
        reader: Reader,
        (file, done): (CursorFile, ExportCursor),
        stats: Arc<SinkStats>,
        seed: u64,
    ) -> Self {
        let views = feed.views();
        Self {
            feed,
            number,
            client,
            reader,
            file,
            stats,
            views,
            in_flight: VecDeque::new(),
            done,
            chunk_events: 0,
            is_back: Arc::default(),
            lost: 0,
            saved: clock::instant(),
            seed,
            is_save_failure_logged: false,
        }
    }

    /// Runs until everything is delivered after the end of the bridge, or until `drain_timeout`
    /// after it, or until the receiver doesn't answer any more.
    pub(super) async fn run(mut self, drain_timeout: Duration) {
        let mut closed: Option<Instant> = None;
        let mut progress = clock::instant();
        loop {
            let view = self.views.borrow_and_update().clone();
            self.fill(&view);
            self.publish_held();
            let now = clock::instant();
            if view.is_closed {
                let since = *closed.get_or_insert(now);
                if now - since.max(progress) >= ANSWER_TIMEOUT || now - since >= drain_timeout {
                    break;
                }
            }
            if self.in_flight.is_empty() {
                if view.is_closed {
                    break;
                }
                self.save(now, Duration::ZERO);
                if !self.wait_for_more(&view).await {
                    break;
                }
            } else {
                if self.wait_for_answer().await {
                    progress = clock::instant();
                }
                self.feed.ask();
            }
        }
        for chunk in self.in_flight.drain(..) {
            chunk.delivery.abort();
        }
        self.save(clock::instant(), Duration::ZERO);
    }

    /// Begins to send as many chunks as there are, and may be in flight.
    fn fill(&mut self, view: &SpoolView) {
        self.reader.set_min_severity(self.stats.min_severity());
        while self.in_flight.len() < MAX_IN_FLIGHT
            && let Some(chunk) = self.reader.next(view, &self.feed)
        {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (stats, is_back) = (Arc::clone(&self.stats), Arc::clone(&self.is_back));
            let delivery = Delivery::new(self.client.clone(), stats, self.seed, is_back);
            self.chunk_events = chunk.events.passed;
            self.in_flight.push_back(InFlight {
                delivery: tokio::spawn(delivery.run(chunk.requests)),
                events: chunk.events,
                after: chunk.after,
            });
        }
    }

    /// Waits for a view with more. Returns whether there will be one.
    async fn wait_for_more(&mut self, view: &SpoolView) -> bool {
        self.feed.ask();
        if self.views.changed().await.is_err() {
            return false;
        }
        if !view.is_draining {
            let is_busy = self.chunk_events >= BUSY_EVENTS;
            tokio::time::sleep(if is_busy { BUSY_LINGER } else { LINGER }).await;
            self.feed.ask();
            // What has come meanwhile; without anything new there is no view.
            let _ = tokio::time::timeout(VIEW_TIMEOUT, self.views.changed()).await;
        }
        true
    }

    /// Waits until the first chunk is delivered, or for a while. Returns whether it is.
    async fn wait_for_answer(&mut self) -> bool {
        let Some(first) = self.in_flight.front_mut() else { return false };
        let Ok(delivered) = tokio::time::timeout(LINGER, &mut first.delivery).await else {
            return false;
        };
        if let Err(error) = delivered {
            tracing::error!(sink = self.stats.name, %error, "export: a delivery panicked");
        }
        while self.in_flight.front().is_some_and(|first| first.delivery.is_finished())
            && let Some(first) = self.in_flight.pop_front()
        {
            self.commit(&first);
        }
        self.save(clock::instant(), SAVE_INTERVAL);
        true
    }

    fn commit(&mut self, chunk: &InFlight) {
        let counters = &self.stats.counters;
        counters.events.add(chunk.events.passed);
        counters.events_filtered.add(chunk.events.filtered);
        counters.events_invalid.add(chunk.events.invalid);
        self.lost += chunk.events.lost;
        self.done = chunk.after;
        self.feed.done(self.number, self.done);
    }

    /// Publishes what the sink hasn't passed, and what it has lost: also of segments that it will
    /// find removed.
    fn publish_held(&self) {
        let (mut held, mut lost) = (0, self.lost);
        for lane in [IMPORTANT, ORDINARY] {
            let done = &self.done[lane];
            let left = self.feed.events(lane, done.position.segment..u64::MAX);
            let removed = self.reader.lost_ahead(lane, &self.feed);
            held += left.saturating_sub(done.events).saturating_sub(removed);
            lost += removed;
        }
        self.stats.counters.events_held.set(held);
        self.stats.counters.events_lost.set(lost);
    }

    /// Writes how far the sink is, at most once in `interval`.
    fn save(&mut self, now: Instant, interval: Duration) {
        if now.saturating_duration_since(self.saved) < interval {
            return;
        }
        self.saved = now;
        match self.file.write(&self.done) {
            Ok(()) => self.is_save_failure_logged = false,
            Err(error) if !std::mem::replace(&mut self.is_save_failure_logged, true) => {
                tracing::error!(
                    sink = self.stats.name, %error,
                    "export: can't note how far a sink is; after a restart it gets events again"
                );
            }
            Err(_) => {}
        }
    }
}
