//! The recovery log: relevant events are kept on disk for as long as a story may take, and restored
//! into the shards of the next run before any other event. Partial matches and open stories thus
//! continue under their traces.
//!
//! A thread behind a ring of each shard writes the log. Nothing waits for it: an event that finds
//! no room is counted, and is missing from a story that a restart interrupts. An append ends in the
//! page cache, as in the server's storage, which uses the same segmented log.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::store::{Durability, FramePosition, OsFiles, SegmentLog, SegmentLogConfig};
use tapio_core::clock;
use tapio_core::event::names;
use tapio_core::ring::{
    Bell, Header, MAX_COLLECTORS, RecordReader, Router as _, attach, ring, wait_until,
};
use tapio_dataflow::Shard;
use tapio_dataflow::rules::RuleSet;
use tapio_wire::{Appended, Batch, BatchEncoder, Item, WireError};

/// A batch is written when it has this size, or when it is `BATCH_DELAY` old.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_DELAY: Duration = Duration::from_millis(50);
/// Bounds the sleep of an idle writer. Every change that matters rings the bell before.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// Blocks read from one ring before the next one's turn.
const TURN_BLOCKS: usize = 4096;
/// Segments of the log.
const SEGMENTS: u64 = 8;
/// A story that ended this long before the last restored event was emitted completely and isn't
/// emitted again.
const EMITTED_BEFORE_NS: u64 = 10_000_000_000;
/// The collector number of restored events: no collector has it, and their order is that of their
/// times alone.
const RESTORED_COLLECTOR: u8 = MAX_COLLECTORS as u8 - 1;

tapio_core::counters! {
    /// Counters of the recovery log.
    pub struct RecoveryLogStats {
        recorded: Counter = "Relevant events written to the recovery log.",
        dropped: Counter = "Relevant events that could not be written to the recovery log.",
        restored: Counter = "Events from which the shards were restored at the start.",
        unavailable: Gauge = "Whether the recovery log can't be used, so that a restart interrupts open stories.",
    }
}

/// The state of the recovery log, for `/status`.
#[derive(Clone, Default)]
pub struct RecoveryLogState {
    /// Its counters.
    pub stats: Arc<RecoveryLogStats>,
    /// Why it isn't used, or wasn't read completely; empty without a fault.
    pub error: String,
}

impl RecoveryLogState {
    /// Reports a log that can't be opened: the agent runs without it.
    pub(super) fn unavailable(cause: &io::Error) -> Self {
        let state = Self {
            error: format!("{cause}; running without it, a restart will interrupt open stories"),
            ..Self::default()
        };
        tracing::error!("recovery log: {}", state.error);
        state.stats.unavailable.set(1);
        state
    }

    /// Reports a log that was read in part.
    pub(super) fn unreadable(&mut self, cause: &io::Error) {
        self.error = format!("{cause}; stories of earlier events may be interrupted");
        tracing::error!("recovery log: {}", self.error);
    }
}

/// The log of relevant events.
pub(super) struct RecoveryLog {
    log: SegmentLog<()>,
    stats: Arc<RecoveryLogStats>,
}

impl RecoveryLog {
    /// Opens or creates the log, of about `bytes`.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub(super) fn open(dir: PathBuf, bytes: u64) -> io::Result<Self> {
        let config = SegmentLogConfig {
            dir,
            segment_bytes: bytes / SEGMENTS,
            retention_bytes: bytes,
            retires_when_full: true,
            durability: Durability::Process,
            acknowledges_recovered: false,
        };
        let log = SegmentLog::open(config, Arc::new(OsFiles), ())?;
        Ok(Self { log, stats: Arc::default() })
    }

    pub(super) fn stats(&self) -> Arc<RecoveryLogStats> {
        Arc::clone(&self.stats)
    }

    /// Restores the shards from the recorded events that may still matter, in the order of arrival.
    /// Events that can't be decoded are skipped.
    ///
    /// # Errors
    /// When a segment can't be read. The shards are restored from the events before it then.
    pub(super) fn restore(&self, rules: &RuleSet, shards: &mut [Shard]) -> io::Result<()> {
        let now_ns = clock::wall_ns();
        let longest_ns = rules.longest_relevance_ns();
        let mut restorer = Restorer { rules, shards, latest_ns: 0, events: 0 };
        let mut undecodable = 0u64;
        let read = self.log.snapshot().oldest_first(FramePosition::default(), |frame| {
            if now_ns.saturating_sub(frame.receipt_ns) <= longest_ns {
                undecodable += u64::from(restorer.batch(frame.payload).is_err());
            }
            ControlFlow::Continue(())
        });
        if undecodable > 0 {
            tracing::warn!(
                batches = undecodable,
                "recovery log: skipped batches that can't be decoded"
            );
        }
        let Restorer { latest_ns, events, shards, .. } = restorer;
        for shard in shards {
            shard.finish_restore(latest_ns.saturating_sub(EMITTED_BEFORE_NS));
        }
        self.stats.restored.set(events);
        read
    }

    /// Starts the thread that records the events from `rings`. It ends when their writers are gone.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub(super) fn record(
        self,
        rings: Vec<RecordReader>,
        bell: Arc<Bell>,
        node: &str,
        epoch: u64,
    ) -> io::Result<JoinHandle<()>> {
        let encoder = BatchEncoder::new(node, epoch, BATCH_BYTES);
        let recorder = Recorder { target: self, rings, bell, encoder, is_failing: false };
        std::thread::Builder::new().name("recorder".into()).spawn(move || recorder.run())
    }
}

/// Restores shards from recorded batches.
struct Restorer<'a> {
    rules: &'a RuleSet,
    shards: &'a mut [Shard],
    latest_ns: u64,
    events: u64,
}

impl Restorer<'_> {
    fn batch(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let batch = Batch::parse(bytes).map_err(|(_, e)| e)?;
        let mut decoder = batch.decoder();
        let (mut writer, mut reader) = ring(0);
        for item in batch.items() {
            let Item::Event(raw) = item else { continue };
            let decoded = decoder.event(raw)?;
            let late = decoded.correlations.iter().any(|m| m.role == names::LATE);
            let event = decoded.as_received();
            let visits = self.rules.route(&event).visits;
            self.events += 1;
            self.latest_ns = self.latest_ns.max(event.time_ns);
            let header = Header {
                order: self.events,
                ..Header::event(RESTORED_COLLECTOR, visits, event.time_ns)
            };
            // The event was in a ring of this size before, so this doesn't fail.
            if writer.write_event(&header, &event).is_err() {
                continue;
            }
            reader.drain(usize::MAX, |record| {
                for (number, shard) in self.shards.iter_mut().enumerate() {
                    if visits & (1 << number) != 0 {
                        shard.restore(record, event.observed_ns, late);
                    }
                }
                true
            });
        }
        Ok(())
    }
}

/// The thread that writes the log.
struct Recorder {
    target: RecoveryLog,
    rings: Vec<RecordReader>,
    bell: Arc<Bell>,
    encoder: BatchEncoder,
    /// Whether the last write failed: only the first failure in a row is logged.
    is_failing: bool,
}

impl Recorder {
    fn run(mut self) {
        attach(&self.bell);
        loop {
            let finished = self.rings.iter().all(RecordReader::is_finished);
            let any = self.drain();
            self.write();
            if finished {
                return;
            }
            if any {
                // Many small frames would cost more than the events in them.
                std::thread::sleep(BATCH_DELAY);
                continue;
            }
            // A writer may have left before the bell had a thread to wake.
            wait_until(&self.bell, MAX_SLEEP, || {
                self.rings.iter().all(RecordReader::is_finished)
                    || !self.rings.iter().all(RecordReader::is_empty)
            });
        }
    }

    /// Encodes the contents of the rings. Returns whether there were any.
    fn drain(&mut self) -> bool {
        let mut any = false;
        let mut rings = std::mem::take(&mut self.rings);
        for ring in &mut rings {
            loop {
                let mut full = false;
                let n = ring.drain(TURN_BLOCKS, |record| {
                    full = self.encoder.append(record) == Appended::Full;
                    !full
                });
                any |= n > 0;
                if full {
                    self.write();
                } else if n == 0 {
                    break;
                }
            }
        }
        self.rings = rings;
        any
    }

    /// Writes the encoded batch, if there is one.
    fn write(&mut self) {
        let Some(batch) = self.encoder.finish() else { return };
        let stats = &self.target.stats;
        match self.target.log.append(&batch.message(), clock::wall_ns()) {
            Ok(_) => {
                self.is_failing = false;
                stats.recorded.add(batch.events.into());
            }
            Err(error) => {
                stats.dropped.add(batch.events.into());
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, "recovery log: can't write; a restart would interrupt open stories");
                }
            }
        }
    }
}
