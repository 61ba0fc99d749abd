//! CONS-1: received = forwarded + Σ dropped(stage, reason) + held, per collector and in total.
//!
//! Every thread that moves events has a [`StageLedger`] of its own: what it took in, what it passed
//! on, what it dropped and what it holds, by the collector the event came from. Each counter has
//! one writer, so adding is a load and a store; a reader gets the identity by looking until the
//! counters stand still for an instant. What lies in a ring is what was passed into it and not yet
//! taken out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::event::{REASON_COUNT, Reason, Stage};

/// Collectors an agent can have: the size of a counter table.
pub const MAX_COLLECTORS: usize = 24;

/// For how long a reader looks again before it calls a difference a violation. A stage is done with an event within
/// microseconds, but its thread may lose its processor meanwhile, on a machine with too much to do for long.
/// So it looks so many times without a pause, pauses, and does that for a second.
const LOOKS: u32 = 16;
const LOOK_NAP: Duration = Duration::from_micros(200);
const NAPS: u32 = 5_000;

#[derive(Default)]
struct Row {
    taken: AtomicU64,
    passed: AtomicU64,
    held: AtomicU64,
    dropped: [AtomicU64; REASON_COUNT],
}

/// The counters of one thread. Only that thread writes them.
pub struct StageLedger {
    stage: Stage,
    rows: [CachePadded<Row>; MAX_COLLECTORS],
}

/// Adds without a locked instruction: sound as an addition because each counter has one writer.
fn add(counter: &AtomicU64, n: u64) {
    // Relaxed, paired with the Relaxed loads of `Ledger::snapshot`, which tolerates any mixture.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

impl StageLedger {
    fn row(&self, collector: u8) -> &Row {
        &self.rows[usize::from(collector) % MAX_COLLECTORS]
    }

    /// Events that came in.
    pub fn take(&self, collector: u8, n: u64) {
        add(&self.row(collector).taken, n);
    }

    /// Events that went on to the next stage; at the bridge, those the server has stored.
    pub fn pass(&self, collector: u8, n: u64) {
        add(&self.row(collector).passed, n);
    }

    /// Events that ended here.
    pub fn lose(&self, collector: u8, reason: Reason, n: u64) {
        add(&self.row(collector).dropped[reason as usize], n);
    }

    /// Events the stage keeps in a queue of its own right now.
    pub fn hold(&self, collector: u8, n: u64) {
        self.row(collector).held.store(n, Ordering::Relaxed);
    }

    /// Events that came in so far.
    #[must_use]
    pub fn taken(&self, collector: u8) -> u64 {
        self.row(collector).taken.load(Ordering::Relaxed)
    }

    /// Events that went on so far.
    #[must_use]
    pub fn passed(&self, collector: u8) -> u64 {
        self.row(collector).passed.load(Ordering::Relaxed)
    }
}

/// All stages' counters.
#[derive(Default)]
pub struct Ledger {
    names: Vec<String>,
    stages: Vec<Arc<StageLedger>>,
}

/// What CONS-1 says of one collector, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectorAccount {
    /// The collector; `total` for the sum.
    pub name: String,
    /// Events it took in, those lost in the kernel included.
    pub received: u64,
    /// Events the server has stored.
    pub forwarded: u64,
    /// Events lost, by stage and reason; only those that are not zero.
    pub dropped: Vec<(Stage, Reason, u64)>,
    /// Events in rings and queues.
    pub held: u64,
    /// received − forwarded − dropped − held. Anything but zero is a defect of tapio.
    pub residual: i64,
}

/// CONS-1 at one instant.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// A row for each collector.
    pub collectors: Vec<CollectorAccount>,
    /// Their sum.
    pub total: CollectorAccount,
}

impl Snapshot {
    /// Whether the identity holds for every collector.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.collectors.iter().all(|c| c.residual == 0)
    }
}

impl Ledger {
    /// A ledger for these collectors; a collector's number is its place.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self { names, stages: Vec::new() }
    }

    /// The collectors' names.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The counters of a new thread.
    pub fn stage(&mut self, stage: Stage) -> Arc<StageLedger> {
        let ledger = Arc::new(StageLedger { stage, rows: Default::default() });
        self.stages.push(Arc::clone(&ledger));
        ledger
    }

    /// Events of a collector in rings and queues; `None` while the counters don't stand still.
    #[must_use]
    pub fn held(&self, collector: u8) -> Option<u64> {
        if usize::from(collector) >= self.names.len() {
            return None;
        }
        let account = self.account(collector.into());
        (account.residual == 0).then_some(account.held)
    }

    /// The accounts now. Looks at each collector's again until no stage is caught in the middle of an update.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let settled = |collector| {
            let mut account = self.account(collector);
            for looks in 1..=LOOKS * NAPS {
                if account.residual == 0 {
                    break;
                }
                if looks % LOOKS == 0 {
                    std::thread::sleep(LOOK_NAP);
                }
                account = self.account(collector);
            }
            account
        };
        let collectors: Vec<_> = (0..self.names.len()).map(settled).collect();
        let mut total = CollectorAccount { name: "total".into(), ..Default::default() };
        for account in &collectors {
            total.received += account.received;
            total.forwarded += account.forwarded;
            total.held += account.held;
            total.residual += account.residual;
            for &(stage, reason, n) in &account.dropped {
                match total.dropped.iter_mut().find(|d| (d.0, d.1) == (stage, reason)) {
                    Some(sum) => sum.2 += n,
                    None => total.dropped.push((stage, reason, n)),
                }
            }
        }
        Snapshot { collectors, total }
    }

    fn account(&self, collector: usize) -> CollectorAccount {
        let mut account =
            CollectorAccount { name: self.names[collector].clone(), ..Default::default() };
        // Into and out of the rings between the stages.
        let (mut into_rings, mut out_of_rings, mut residual) = (0u64, 0u64, 0i64);
        for ledger in &self.stages {
            let row = &ledger.rows[collector];
            let load = |a: &AtomicU64| a.load(Ordering::Relaxed);
            let (taken, passed, held) = (load(&row.taken), load(&row.passed), load(&row.held));
            let mut dropped = 0;
            for (reason, counter) in Reason::ALL.iter().zip(&row.dropped) {
                let n = load(counter);
                if n > 0 {
                    dropped += n;
                    match account.dropped.iter_mut().find(|d| (d.0, d.1) == (ledger.stage, *reason))
                    {
                        Some(sum) => sum.2 += n,
                        None => account.dropped.push((ledger.stage, *reason, n)),
                    }
                }
            }
            residual += taken as i64 - passed as i64 - dropped as i64 - held as i64;
            account.held += held;
            match ledger.stage {
                Stage::Kernel | Stage::Collect => {
                    account.received += taken;
                    into_rings += passed;
                }
                Stage::Correlate => {
                    out_of_rings += taken;
                    into_rings += passed;
                }
                Stage::Bridge => {
                    out_of_rings += taken;
                    account.forwarded += passed;
                }
            }
        }
        // Read stage by stage, so a fast consumer may seem ahead of its producer for an instant.
        let in_rings = into_rings as i64 - out_of_rings as i64;
        account.held += in_rings.max(0) as u64;
        account.residual = residual + in_rings.min(0);
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_summed_over_stages_and_rings() {
        let mut ledger = Ledger::new(vec!["a".into(), "b".into()]);
        let collect = ledger.stage(Stage::Collect);
        let shard = ledger.stage(Stage::Correlate);
        let bridge = ledger.stage(Stage::Bridge);
        collect.take(1, 10);
        collect.lose(1, Reason::BadInput, 1);
        collect.pass(1, 9);
        shard.take(1, 7);
        shard.pass(1, 7);
        bridge.take(1, 6);
        bridge.hold(1, 2);
        bridge.pass(1, 4);
        let snapshot = ledger.snapshot();
        assert!(snapshot.holds());
        let b = &snapshot.collectors[1];
        assert_eq!((b.received, b.forwarded, b.held), (10, 4, 2 + 2 + 1));
        assert_eq!(b.dropped, [(Stage::Collect, Reason::BadInput, 1)]);
        assert_eq!(snapshot.total.received, 10);
    }

    #[test]
    fn a_lost_event_shows() {
        let mut ledger = Ledger::new(vec!["a".into()]);
        let collect = ledger.stage(Stage::Collect);
        collect.take(0, 2);
        collect.pass(0, 1);
        let snapshot = ledger.snapshot();
        assert!(!snapshot.holds());
        assert_eq!(snapshot.total.residual, 1);
    }
}
