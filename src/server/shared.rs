//! State that ingest and queries share.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};

use super::agents::{self, AgentTable};
use super::annotations::{Annotations, Entry};
use super::config::ServerConfig;
use super::health::Health;
use super::query_line::{self, Place, QueryError, QueryLine};
use super::rule_text::RuleTexts;
use super::senders::OpenSenders;
use super::status::{AccessStats, LatencyStats, ServerCounts, ServerStatus};
use super::storage::{Filter, Storage};
use super::sync_gate::SyncGate;
use crate::notify::{ReceiverStats, StoryBatch};
use crate::store::{Files, FramePosition};
use tapio_core::clock;
use tapio_wire::Access;

/// Bytes in flight of all streams, and the least of one.
const CREDIT_BYTES: u64 = 64 * 1024 * 1024;
const MIN_CREDIT_BYTES: u64 = 256 * 1024;
/// Batches that a tail may be behind before it misses some.
const TAIL_BATCHES: usize = 256;
/// Annotations that a stream may be behind before it misses some.
const NEW_ANNOTATIONS: usize = 256;
/// Streams over HTTP that are open at once.
const WEB_STREAMS: usize = 64;
/// The histogram's range: delays up to a minute, with three significant digits.
const MAX_DELAY_NS: u64 = 60_000_000_000;
const DELAY_DIGITS: u8 = 3;

/// The page's part of the configuration.
pub(super) struct PageSettings {
    /// The folder of its files, instead of those in the program.
    pub(super) dir: Option<PathBuf>,
    pub(super) trace_url: String,
}

impl PageSettings {
    fn of(config: &ServerConfig) -> Self {
        Self { dir: config.web_dir.clone(), trace_url: config.trace_url.clone() }
    }
}

/// Work of the disk that can fail by itself.
#[derive(Clone, Copy)]
pub(super) enum DiskWork {
    Append,
    Sync,
}

pub(super) struct Stats {
    pub(super) counts: ServerCounts,
    /// Whether each [`DiskWork`] failed the last time.
    failing: [bool; 2],
    pub(super) latency: Histogram<u64>,
}

/// A batch that was stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    /// The position behind it.
    pub(super) end: FramePosition,
    pub(super) has_stories: bool,
}

/// Storage, counters and tails. The server's parts run on one thread, except for queries that read
/// segments, so the locks are nearly always free.
pub(super) struct Shared {
    storage: Mutex<Storage>,
    annotations: Mutex<Annotations>,
    /// Annotations as they are made, for streams over HTTP.
    pub(super) annotated: broadcast::Sender<Arc<Entry>>,
    agents: Mutex<AgentTable>,
    /// The data folder, for the file of agents.
    data_dir: (PathBuf, Arc<dyn Files>),
    stats: Mutex<Stats>,
    pub(super) tail: broadcast::Sender<Stored>,
    /// Batches with stories, for receivers of notifications.
    pub(super) stories: broadcast::Sender<StoryBatch>,
    /// The position behind the last batch that was published.
    published: Mutex<FramePosition>,
    /// The receivers of notifications.
    receivers: Mutex<Vec<Arc<ReceiverStats>>>,
    pub(super) health: watch::Sender<Health>,
    /// Where acks wait for the disk.
    pub(super) gate: SyncGate,
    /// Open streams of batches.
    streams: AtomicU64,
    /// Places of streams over HTTP.
    web_streams: Arc<Semaphore>,
    /// Where queries wait for their turn.
    queries: QueryLine,
    /// The least time between two syncs.
    sync_interval_ns: AtomicU64,
    /// The sender processes that have a stream open.
    pub(super) senders: OpenSenders,
    /// The page's part of the configuration.
    pub(super) page: PageSettings,
    /// The rules that come with the server.
    pub(super) rules: RuleTexts,
    /// Access to the listeners, where there are any.
    access: OnceLock<[Arc<Access>; 2]>,
}

impl Shared {
    /// Opens the storage.
    pub(super) fn open(config: &ServerConfig, files: Arc<dyn Files>) -> io::Result<Self> {
        let latency = Histogram::new_with_bounds(1, MAX_DELAY_NS, DELAY_DIGITS)
            .map_err(|e| io::Error::other(e.to_string()))?;
        let storage = Storage::open(config, Arc::clone(&files))?;
        Ok(Self {
            published: Mutex::new(storage.end()),
            storage: Mutex::new(storage),
            annotations: Mutex::new(Annotations::open(&config.data_dir, &*files)?),
            annotated: broadcast::channel(NEW_ANNOTATIONS).0,
            agents: Mutex::new(agents::read(&config.data_dir, &*files, clock::wall_ns())),
            data_dir: (config.data_dir.clone(), files),
            stats: Mutex::new(Stats {
                counts: ServerCounts::default(),
                failing: [false; 2],
                latency,
            }),
            tail: broadcast::channel(TAIL_BATCHES).0,
            stories: broadcast::channel(TAIL_BATCHES).0,
            receivers: Mutex::default(),
            health: watch::channel(Health::Serving).0,
            gate: SyncGate::new(config.durability),
            streams: AtomicU64::new(0),
            web_streams: Arc::new(Semaphore::new(WEB_STREAMS)),
            queries: QueryLine::new(query_line::running()),
            sync_interval_ns: AtomicU64::new(config.sync_interval.as_nanos() as u64),
            senders: OpenSenders::default(),
            page: PageSettings::of(config),
            rules: RuleTexts::default(),
            access: OnceLock::new(),
        })
    }

    /// Notes who may use the listeners, whose refusals are part of the status.
    pub(super) fn set_access(&self, access: [Arc<Access>; 2]) {
        // A server listens once.
        let _ = self.access.set(access);
    }

    /// Counts a stream of batches.
    pub(super) fn open_stream(&self) {
        // Relaxed, as below: a number that nothing else depends on.
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a stream that has ended.
    pub(super) fn close_stream(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes that each stream may have in flight: all of them share what the server takes.
    pub(super) fn credit_bytes(&self) -> u64 {
        let streams = self.streams.load(Ordering::Relaxed).max(1);
        (CREDIT_BYTES / streams).max(MIN_CREDIT_BYTES)
    }

    pub(super) fn storage(&self) -> MutexGuard<'_, Storage> {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the rules whose stories have the filter's pattern: those that come with the server, and
    /// those of stories.
    pub(super) fn resolve_pattern(&self, filter: &mut Filter) {
        if filter.pattern.is_empty() {
            return;
        }
        let known = self.rules.get().values().map(|rule| (&rule.name, &rule.pattern));
        let used = self.storage().rules_of_stories();
        let used = used.iter().map(|(name, rule)| (name, &rule.pattern));
        let named = known.chain(used).filter(|(_, pattern)| **pattern == filter.pattern);
        let rules: BTreeSet<String> = named.map(|(name, _)| name.clone()).collect();
        filter.rules = rules.into_iter().collect();
    }

    pub(super) fn annotations(&self) -> MutexGuard<'_, Annotations> {
        self.annotations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn agents(&self) -> MutexGuard<'_, AgentTable> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets agents that are silent for longer than the retention, and notes the others on disk.
    pub(super) fn keep_agents(&self) {
        let now_ns = clock::wall_ns();
        let retention_ns = self.storage().retention_age_ns();
        let changed = {
            let mut agents = self.agents();
            agents.expire(retention_ns, now_ns);
            agents.take_changed(now_ns)
        };
        let (dir, files) = &self.data_dir;
        if let Some(list) = changed
            && let Err(error) = agents::write(dir, &**files, list)
        {
            tracing::debug!(%error, "server: can't note the agents; tried again in a minute");
            self.agents().set_changed();
        }
    }

    /// Applies the values of a new configuration that take effect at once.
    pub(super) fn set_limits(&self, config: &ServerConfig) {
        // Relaxed: no other data depends on it.
        self.sync_interval_ns.store(config.sync_interval.as_nanos() as u64, Ordering::Relaxed);
        self.storage().set_limits(config);
    }

    /// The least time between the begins of two syncs.
    pub(super) fn sync_interval(&self) -> Duration {
        Duration::from_nanos(self.sync_interval_ns.load(Ordering::Relaxed))
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a query may run. Counts it if it is refused.
    pub(super) async fn enter_line(&self) -> Result<Place, QueryError> {
        let entered = self.queries.enter().await;
        self.stats().counts.queries_refused += u64::from(entered.is_err());
        entered
    }

    /// The place of a stream over HTTP; `None`: too many are open.
    pub(super) fn enter_stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.web_streams).try_acquire_owned().ok()
    }

    /// Sends a stored batch to all tails, and one with stories to receivers of notifications.
    pub(super) fn publish(&self, batch: &Bytes, end: FramePosition, has_stories: bool) {
        if self.tail.receiver_count() > 0 {
            // Fails only when the last tail has just ended.
            let _ = self.tail.send(Stored { bytes: batch.clone(), end, has_stories });
        }
        if has_stories && self.stories.receiver_count() > 0 {
            // As above.
            let _ = self.stories.send(StoryBatch { bytes: batch.clone(), end });
        }
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    /// The position behind the last batch that was published.
    pub(super) fn published(&self) -> FramePosition {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The receivers of notifications.
    pub(super) fn receivers(&self) -> MutexGuard<'_, Vec<Arc<ReceiverStats>>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, of which a stop is the last one.
    pub(super) fn set_health(&self, new: Health) {
        self.health.send_if_modified(|health| {
            let is_changed = *health != Health::Stopping && *health != new;
            if is_changed {
                *health = new;
            }
            is_changed
        });
    }

    /// Counts an error of the disk. Logs only the first one in a row.
    pub(super) fn report_disk_error(&self, work: DiskWork, error: &io::Error) {
        let mut stats = self.stats();
        stats.counts.disk_errors += 1;
        stats.counts.disk_failing = true;
        self.set_health(Health::DiskFailing);
        if !std::mem::replace(&mut stats.failing[work as usize], true) {
            tracing::error!(%error, "server: can't store a batch; agents keep their batches and retry");
        }
    }

    /// The disk has done what it failed to do before, if it did.
    pub(super) fn report_disk_ok(&self, work: DiskWork) {
        let mut stats = self.stats();
        if std::mem::take(&mut stats.failing[work as usize]) && stats.failing == [false; 2] {
            stats.counts.disk_failing = false;
            self.set_health(Health::Serving);
            tracing::info!("server: batches are stored again");
        }
    }

    pub(super) fn status(&self) -> ServerStatus {
        let (store, stories_kept) = {
            let storage = self.storage();
            (storage.stats(), storage.stories_kept() as u64)
        };
        let (agents, agents_connected) = self.agents().counts(clock::wall_ns());
        let stats = self.stats();
        let quantile = |q| stats.latency.value_at_quantile(q);
        ServerStatus {
            ingest: stats.counts,
            latency: LatencyStats {
                count: stats.latency.len(),
                p50_ns: quantile(0.5),
                p90_ns: quantile(0.9),
                p99_ns: quantile(0.99),
                p999_ns: quantile(0.999),
                max_ns: stats.latency.max(),
            },
            store,
            stories_kept,
            notify: self.receivers().iter().map(|receiver| receiver.status()).collect(),
            agents,
            agents_connected,
            access: AccessStats::of(self.access.get().into_iter().flatten()),
        }
    }
}
