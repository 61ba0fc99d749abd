//! Random appends, syncs, kills, losses of power and failures, against a ledger of what must be
//! there. `TAPIO_SEED=N` runs one seed.

use std::collections::BTreeSet;

use super::support::seeds::run_each;
use super::support::sim_disk::{Rng, SimDisk};
use super::{Numbers, config, open, payload, stored};
use tapio::store::{FramePosition, SegmentLog, SegmentLogConfig};

/// The frames that the log owes.
#[derive(Default)]
struct Obligations {
    /// Appended and neither unwritten nor retired, oldest first.
    appended: Vec<(FramePosition, u64)>,
    /// Retired: they aren't owed, but may come back with a loss of power.
    retired: BTreeSet<u64>,
    /// Those before this position were synced.
    synced: FramePosition,
    next: u64,
}

struct Simulation {
    seed: u64,
    rng: Rng,
    disk: SimDisk,
    config: SegmentLogConfig,
    owed: Obligations,
}

impl Simulation {
    fn run(mut self) {
        let mut log = self.open();
        for _ in 0..200 {
            match self.rng.below(20) {
                0..12 => self.append(&mut log),
                12..15 => self.sync(&mut log),
                15 => log.seal(),
                16 => {
                    let capacity = 3_000 + self.rng.below(20_000);
                    self.disk.set_capacity(self.rng.one_in(2).then_some(capacity));
                }
                17 => self.disk.fail_syncs(self.rng.below(2) as u32),
                18 => {
                    drop(log);
                    self.disk.kill();
                    self.disk.fail_syncs(0);
                    log = self.open();
                }
                _ => log = self.lose_power(log),
            }
            // Checking reads the whole log, which costs far more than a step.
            if self.rng.one_in(5) {
                self.check(&log);
            }
        }
        self.check(&log);
    }

    /// Frames that were synced and not retired since are stored afterwards. Of the rest, any part
    /// may be.
    fn lose_power(&mut self, log: SegmentLog<Numbers>) -> SegmentLog<Numbers> {
        let (seed, synced) = (self.seed, self.owed.synced);
        let oldest = oldest_segment(&log);
        drop(log);
        self.disk.crash(&mut self.rng);
        self.disk.fail_syncs(0);
        let log = self.open();
        let found = stored(&log);
        // Retired segments that came back may have pushed others out.
        let oldest = oldest.max(oldest_segment(&log));
        self.owed.appended.retain(|(position, number)| {
            let is_owed = *position < synced && position.segment >= oldest;
            let is_found = found.binary_search(number).is_ok();
            assert!(is_found || !is_owed, "seed {seed}: frame {number} at {position:?} is lost, synced {synced:?}, oldest {oldest}: {:?}", log.stats());
            if position.segment < oldest {
                self.owed.retired.insert(*number);
            }
            is_found && position.segment >= oldest
        });
        self.owed.next = found.last().map_or(self.owed.next, |last| self.owed.next.min(last + 1));
        log
    }

    fn open(&mut self) -> SegmentLog<Numbers> {
        let log = open(&self.disk, self.config.clone());
        // Numbers behind the last segment are used again.
        let next = log.snapshot().segments().next_back().unwrap_or_default() + 1;
        self.owed.synced = self.owed.synced.min(FramePosition { segment: next, offset: 0 });
        log
    }

    fn append(&mut self, log: &mut SegmentLog<Numbers>) {
        let number = self.owed.next;
        let payload = payload(number, self.rng.below(400) as usize);
        if let Ok(position) = log.append(&payload, number) {
            self.owed.next += 1;
            self.owed.appended.push((position, number));
        }
    }

    fn sync(&mut self, log: &mut SegmentLog<Numbers>) {
        let Some(pending) = log.begin_sync() else { return };
        match log.finish_sync(&pending, pending.run()) {
            Ok(()) => self.owed.synced = pending.through(),
            Err((from, _)) => {
                let unwritten = |(position, _): &(FramePosition, u64)| *position >= from;
                // Appended again under its number, as by an agent that got no answer.
                if let Some((_, number)) = self.owed.appended.iter().find(|f| unwritten(f)) {
                    self.owed.next = *number;
                }
                self.owed.appended.retain(|frame| !unwritten(frame));
            }
        }
    }

    /// Everything owed is stored, once and in order, and nothing else.
    fn check(&mut self, log: &SegmentLog<Numbers>) {
        let (seed, oldest, mut found) = (self.seed, oldest_segment(log), stored(log));
        assert_eq!(log.index().all(), found, "seed {seed}: index and frames differ");
        assert!(found.is_sorted_by(|a, b| a < b), "seed {seed}: {found:?}");
        let Obligations { appended, retired, .. } = &mut self.owed;
        for (_, number) in appended.extract_if(.., |(position, _)| position.segment < oldest) {
            retired.insert(number);
        }
        let owed: Vec<u64> = appended.iter().map(|(_, number)| *number).collect();
        found.retain(|number| !retired.contains(number) || owed.binary_search(number).is_ok());
        assert_eq!(found, owed, "seed {seed}");
    }
}

fn oldest_segment(log: &SegmentLog<Numbers>) -> u64 {
    log.snapshot().segments().next().unwrap_or(u64::MAX)
}

fn run(seed: u64) {
    let config = SegmentLogConfig { retention_bytes: 20_000, ..config() };
    let (rng, disk) = (Rng(seed), SimDisk::default());
    Simulation { seed, rng, disk, config, owed: Obligations::default() }.run();
}

#[test]
fn nothing_owed_is_lost_over_kills_power_losses_and_failures() {
    run_each(2_000, run);
}
