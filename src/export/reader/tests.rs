//! Exporters over a spool that is small, full and restarted: every event is passed, lost or held,
//! by count.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::bridge::{LANES, LaneCursor, Outbox, OutboxConfig, SpoolConfig};
use crate::store::{Durability, Files, OsFiles};
use tapio_core::event::{Event, EventId, Name, Stage, names};
use tapio_core::ring::{Bell, Header, Ledger, RecordReader, RecordWriter, ring};
use tapio_wire::{BatchEncoder, OtlpSelection, OtlpService};

const SEEDS: u64 = 60;
const STEPS: u64 = 250;
const EXPORTERS: usize = 2;
/// Small enough to be full at times.
const SMALL_BYTES: u64 = 256 * 1024;
/// Never full: after a kill nobody knows what was dropped before it.
const LARGE_BYTES: u64 = 64 * 1024 * 1024;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

struct Exporter {
    reader: Reader,
    /// Noted: where the next process begins.
    saved: ExportCursor,
    done: ExportCursor,
    passed: u64,
    lost: u64,
}

struct Process {
    outbox: Outbox,
    feed: Arc<SpoolFeed>,
    ledger: Ledger,
    encoders: [BatchEncoder; LANES],
}

struct World {
    seed: u64,
    rng: Rng,
    dir: tempfile::TempDir,
    process: Process,
    exporters: Vec<Exporter>,
    ring: (RecordWriter, RecordReader),
    bytes: u64,
    epoch: u64,
    events: u64,
}

fn reader(number: usize, cursor: ExportCursor) -> Reader {
    let selection = OtlpSelection::default();
    Reader::new(OtlpEncoder::new(OtlpService::default(), selection), number, cursor)
}

fn open(dir: &Path, bytes: u64, epoch: u64, cursors: Vec<Option<ExportCursor>>) -> Process {
    let mut ledger = Ledger::new(vec!["important".into(), "ordinary".into(), "spool".into()]);
    let (collect, stage) = (ledger.stage(Stage::Collect), ledger.stage(Stage::Bridge));
    let spool =
        SpoolConfig { dir: dir.to_owned(), bytes, durability: Durability::Process, recovered: 2 };
    let config = OutboxConfig {
        node: "n",
        epoch,
        queue_bytes: 16 * 1024,
        spool: Some(&spool),
        quarantine: None,
    };
    let files: Arc<dyn Files> = Arc::new(OsFiles);
    let feed = Arc::new(SpoolFeed::new(cursors, Arc::new(Bell::new(Default::default()))));
    let outbox = Outbox::open(config, &files, stage, Some(&collect)).unwrap();
    let outbox = outbox.with_exports(Arc::clone(&feed), true);
    let encoder = |lane| BatchEncoder::new("n", epoch + lane, 64 * 1024);
    Process { outbox, feed, ledger, encoders: [encoder(0), encoder(1)] }
}

impl World {
    fn new(seed: u64, bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = open(dir.path(), bytes, 1_000, vec![None; EXPORTERS]);
        let exporters = (0..EXPORTERS).map(|number| {
            let cursor = process.feed.cursor(number).unwrap();
            Exporter {
                reader: reader(number, cursor),
                saved: cursor,
                done: cursor,
                passed: 0,
                lost: 0,
            }
        });
        Self {
            seed,
            rng: Rng(seed),
            exporters: exporters.collect(),
            dir,
            process,
            ring: ring(4096),
            bytes,
            epoch: 1_000,
            events: 0,
        }
    }

    fn offer(&mut self) {
        let lane = self.rng.below(2) as usize;
        let process = &mut self.process;
        if !process.outbox.has_room() {
            return;
        }
        let events = 1 + self.rng.below(60);
        for n in self.events..self.events + events {
            let event = Event {
                message: "an event of some length, so that a batch has some",
                ..Event::new(
                    EventId::from_sequence(1, 1, n),
                    n,
                    names::KERNEL_PROCESS_EXEC,
                    Name(0),
                )
            };
            self.ring.0.write_event(&Header::event(lane as u8, 0, n), &event).unwrap();
            self.ring.1.drain(usize::MAX, |record| {
                process.encoders[lane].append(record);
                true
            });
        }
        let collect = process.ledger.stage(Stage::Collect);
        collect.add_received(lane as u8, events);
        collect.add_forwarded(lane as u8, events);
        self.events += events;
        if let Some(batch) = process.encoders[lane].finish() {
            process.outbox.push(lane, batch.clone(), 1);
        }
    }

    /// A pass of the bridge's thread.
    fn pass(&mut self) {
        let outbox = &mut self.process.outbox;
        outbox.refill();
        outbox.publish(false, false);
        outbox.take_answers();
        if self.rng.below(3) == 0 {
            outbox.maintain();
        }
    }

    /// Lets an exporter read and deliver a chunk.
    fn export(&mut self, number: usize) -> bool {
        self.process.feed.ask();
        self.process.outbox.publish(false, false);
        let view = self.process.feed.views().borrow().clone();
        let exporter = &mut self.exporters[number];
        let Some(chunk) = exporter.reader.next(&view, &self.process.feed) else { return false };
        exporter.passed += chunk.events.passed;
        exporter.lost += chunk.events.lost;
        exporter.done = chunk.after;
        self.process.feed.done(number, exporter.done);
        if self.rng.below(2) == 0 {
            exporter.saved = exporter.done;
        }
        true
    }

    /// Ends the process and starts the next. `is_kill`: what wasn't noted comes again.
    fn restart(&mut self, is_kill: bool) {
        if !is_kill {
            self.process.outbox.take_answers();
            self.process.outbox.close().unwrap();
            for exporter in &mut self.exporters {
                let lost = |lane| exporter.reader.lost_ahead(lane, &self.process.feed);
                exporter.lost += lost(0) + lost(1);
                exporter.saved = exporter.done;
            }
        }
        self.epoch += 10;
        let cursors: Vec<_> = self.exporters.iter().map(|e| Some(e.saved)).collect();
        // The lock is the open file's.
        let World { process, dir, bytes, epoch, .. } = self;
        let files =
            std::mem::replace(process, open(&dir.path().join("away"), *bytes, 1, Vec::new()));
        drop(files);
        *process = open(dir.path(), *bytes, *epoch, cursors);
        for (number, exporter) in self.exporters.iter_mut().enumerate() {
            exporter.done = process.feed.cursor(number).unwrap();
            exporter.reader = reader(number, exporter.done);
        }
    }

    /// Events that an exporter hasn't passed.
    fn held(&self, number: usize) -> u64 {
        let exporter = &self.exporters[number];
        let of_lane = |lane: usize| {
            let LaneCursor { position, events } = exporter.done[lane];
            self.process.feed.events(lane, position.segment..u64::MAX).saturating_sub(events)
        };
        of_lane(0) + of_lane(1)
    }

    fn check(&mut self, kills: u64) {
        self.process.feed.ask();
        self.process.outbox.publish(false, false);
        for number in 0..EXPORTERS {
            while self.export(number) {}
            let Exporter { passed, lost, .. } = self.exporters[number];
            let all = passed + lost + self.held(number);
            let (seed, events) = (self.seed, self.events);
            if kills == 0 {
                assert_eq!(all, events, "seed {seed}: {passed} passed, {lost} lost");
            } else {
                assert!(all >= events, "seed {seed}: {passed} passed, {lost} lost of {events}");
            }
            assert_eq!(self.held(number), 0, "seed {seed}");
        }
        // Batches on disk only come into memory as those before them are answered.
        for _ in 0..1_000 {
            self.process.outbox.refill();
            self.exporters.iter().enumerate().for_each(|(n, e)| self.process.feed.done(n, e.done));
            self.process.outbox.take_answers();
            if self.process.outbox.is_empty() {
                break;
            }
        }
        let snapshot = self.process.ledger.snapshot();
        assert!(snapshot.holds() && snapshot.total.held == 0, "seed {}: {snapshot:?}", self.seed);
    }
}

#[test]
fn every_event_is_passed_lost_or_held() {
    for seed in 0..SEEDS {
        let (mut kills, has_kills) = (0, seed % 2 == 1);
        let mut world = World::new(seed, if has_kills { LARGE_BYTES } else { SMALL_BYTES });
        // An exporter that is away for long loses events of a full spool.
        let slow = world.rng.below(40) + 1;
        for step in 0..STEPS {
            match world.rng.below(20) {
                0..11 => world.offer(),
                11..14 => drop(world.export(0)),
                14..17 if step % slow == 0 => drop(world.export(1)),
                17 if world.rng.below(4) == 0 => {
                    kills += u64::from(has_kills);
                    world.restart(has_kills);
                }
                _ => world.pass(),
            }
        }
        world.check(kills);
    }
}
