//! What survives a restart: events that rules had a use for are kept on disk for as long as a story may
//! take, and shown to the new shards before anything else, so that pending matches and open stories go on
//! under their traces.
//!
//! The recorder is a thread of its own behind a ring of each shard. Nothing waits for it: what finds no room
//! is counted and may be missing from a story that a restart falls into. The disk is the page cache's
//! business, as in the server's store, whose files these are.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::server::{ServerConfig, Store};
use tapio_core::clock;
use tapio_core::event::names;
use tapio_core::ring::{
    Bell, Header, MAX_COLLECTORS, RecordReader, Router as _, attach, ring, wait_until,
};
use tapio_dataflow::Shard;
use tapio_dataflow::rules::RuleSet;
use tapio_wire::{Appended, Batch, BatchEncoder, Item, WireError};

/// A batch is written when it has so many bytes, or when it is this old.
const BATCH_BYTES: usize = 256 * 1024;
const GATHER: Duration = Duration::from_millis(50);
/// A seat belt: everything that matters rings the bell.
const SLEEP: Duration = Duration::from_secs(1);
/// Blocks read from one ring before the next one has its turn.
const TURN_BLOCKS: usize = 4096;
/// A story that ended this long before the last event had been told to its end, and isn't told again.
const SURELY_TOLD_NS: u64 = 10_000_000_000;
/// The number of recalled events' collector: no real one has it, and their times alone order them.
const RECALLED: u8 = MAX_COLLECTORS as u8 - 1;

/// What the recorder and the recall have counted.
#[derive(Default)]
pub struct RecallStats {
    recorded: AtomicU64,
    left_out: AtomicU64,
    recalled: AtomicU64,
}

impl RecallStats {
    /// The counters by name.
    pub fn get(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Relaxed: counters for people.
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("recorded", load(&self.recorded)),
            ("left_out", load(&self.left_out)),
            ("recalled", load(&self.recalled)),
        ]
        .into_iter()
    }
}

/// The recorded events, and what is made of them.
pub(super) struct Recall {
    store: Store,
    stats: Arc<RecallStats>,
}

impl Recall {
    /// Opens or makes the files, about `bytes` of them.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub(super) fn open(dir: PathBuf, bytes: u64) -> io::Result<Self> {
        let config = ServerConfig {
            data_dir: dir,
            segment_bytes: bytes / 8,
            retention_bytes: bytes,
            stories_kept: 1,
            ..ServerConfig::default()
        };
        Ok(Self { store: Store::open(&config)?, stats: Arc::default() })
    }

    pub(super) fn stats(&self) -> Arc<RecallStats> {
        Arc::clone(&self.stats)
    }

    /// Shows the shards what was recorded and may still matter, in the order of arrival.
    ///
    /// # Errors
    /// When a file can't be read. Events that can't be are left out.
    pub(super) fn recollect(&self, rules: &RuleSet, shards: &mut [Shard]) -> io::Result<()> {
        let now_ns = clock::wall_ns();
        let longest_ns = rules.longest_story_ns();
        let mut shown = Shown { rules, shards, latest_ns: 0, events: 0 };
        let mut broken = 0u64;
        self.store.scan().oldest_first(|receipt_ns, batch| {
            if now_ns.saturating_sub(receipt_ns) <= longest_ns {
                broken += u64::from(shown.batch(batch).is_err());
            }
        })?;
        if broken > 0 {
            tracing::warn!(batches = broken, "recorded events can't be read and are left out");
        }
        let Shown { latest_ns, events, shards, .. } = shown;
        for shard in shards {
            shard.finish_restore(latest_ns.saturating_sub(SURELY_TOLD_NS));
        }
        self.stats.recalled.store(events, Ordering::Relaxed);
        Ok(())
    }

    /// Starts the thread that records what comes through `rings`. It ends when their writers are gone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn record(
        self,
        rings: Vec<RecordReader>,
        bell: Arc<Bell>,
        node: &str,
        epoch: u64,
    ) -> io::Result<JoinHandle<()>> {
        let encoder = BatchEncoder::new(node, epoch, BATCH_BYTES);
        let recorder = Recorder { recall: self, rings, bell, encoder, fails: false };
        std::thread::Builder::new().name("recorder".into()).spawn(move || recorder.run())
    }
}

/// Shards that are shown what was recorded.
struct Shown<'a> {
    rules: &'a RuleSet,
    shards: &'a mut [Shard],
    latest_ns: u64,
    events: u64,
}

impl Shown<'_> {
    fn batch(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let batch = Batch::parse(bytes).map_err(|(_, e)| e)?;
        let mut decoder = batch.decoder()?;
        let (mut writer, mut reader) = ring(0);
        for item in batch.items() {
            let Item::Event(raw) = item else { continue };
            let decoded = decoder.event(raw)?;
            let late = decoded.correlations.iter().any(|m| m.role == names::LATE);
            let event = decoded.as_received();
            let visits = self.rules.route(&event).visits;
            self.events += 1;
            self.latest_ns = self.latest_ns.max(event.time_ns);
            let header =
                Header { order: self.events, ..Header::event(RECALLED, visits, event.time_ns) };
            // It was in a ring of this size before.
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

/// What runs on the recorder's thread.
struct Recorder {
    recall: Recall,
    rings: Vec<RecordReader>,
    bell: Arc<Bell>,
    encoder: BatchEncoder,
    /// The disk doesn't take it; said once.
    fails: bool,
}

impl Recorder {
    fn run(mut self) {
        attach(&self.bell);
        loop {
            let finished = self.rings.iter().all(RecordReader::is_finished);
            let some = self.drain();
            self.write();
            if finished {
                return;
            }
            if some {
                // Many small frames would cost more than the events in them.
                std::thread::sleep(GATHER);
                continue;
            }
            // A writer that left before the bell was set rang it in vain.
            wait_until(&self.bell, SLEEP, || {
                self.rings.iter().all(RecordReader::is_finished)
                    || !self.rings.iter().all(RecordReader::is_empty)
            });
        }
    }

    fn drain(&mut self) -> bool {
        let mut some = false;
        let mut rings = std::mem::take(&mut self.rings);
        for ring in &mut rings {
            loop {
                let mut full = false;
                let n = ring.drain(TURN_BLOCKS, |record| {
                    full = self.encoder.append(record) == Appended::Full;
                    !full
                });
                some |= n > 0;
                if full {
                    self.write();
                } else if n == 0 {
                    break;
                }
            }
        }
        self.rings = rings;
        some
    }

    fn write(&mut self) {
        let Some(batch) = self.encoder.finish() else { return };
        let counters = &self.recall.stats;
        match self.recall.store.append(&batch.message(), clock::wall_ns()) {
            Ok(()) => {
                self.fails = false;
                counters.recorded.fetch_add(batch.events.into(), Ordering::Relaxed);
            }
            Err(error) => {
                counters.left_out.fetch_add(batch.events.into(), Ordering::Relaxed);
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::warn!(%error, "events can't be recorded: a restart would cut open stories");
                }
            }
        }
    }
}
