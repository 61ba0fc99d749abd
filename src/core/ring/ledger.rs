//! CONS-1: received = forwarded + Σ dropped(stage, reason) + held, per collector and in total.
//!
//! Every thread that moves events has its own [`StageLedger`]: events received, forwarded, dropped
//! and held, by collector. Each counter has one writer, so an addition is a load and a store. A
//! reader retries until no update is in progress. The content of a ring is what was forwarded into
//! it and not yet received by the next stage.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::wake::Target;
use crate::event::{REASON_COUNT, Reason, Stage};

/// Maximum number of collectors.
pub const MAX_COLLECTORS: usize = 24;

/// The events of a collector are counted in two generations that alternate, so that a collector can
/// find out when the events of one have all arrived while it offers those of the next.
const GENERATIONS: usize = 2;

/// Accounts of all collectors and generations: the size of a counter table.
pub const MAX_ACCOUNTS: usize = MAX_COLLECTORS * GENERATIONS;

/// The account of a collector's events of a generation.
#[must_use]
#[inline]
pub(super) fn account(collector: u8, generation: u8) -> u8 {
    let generation = usize::from(generation) % GENERATIONS;
    (usize::from(collector) % MAX_COLLECTORS + generation * MAX_COLLECTORS) as u8
}

/// Retries of a reader before it reports a residual. A stage completes an update within
/// microseconds, but its thread may lose its processor meanwhile, for long on an overloaded node.
/// So the reader retries without a pause, sleeps, and repeats that for a second.
const RETRIES_PER_ROUND: u32 = 16;
const ROUND_PAUSE: Duration = Duration::from_micros(200);
const ROUNDS: u32 = 5_000;

#[derive(Default)]
struct Row {
    received: AtomicU64,
    forwarded: AtomicU64,
    held: AtomicU64,
    /// At the bridge: events that were accepted, or dropped before they could be.
    settled: AtomicU64,
    truncated: AtomicU64,
    redacted: AtomicU64,
    dropped: [AtomicU64; REASON_COUNT],
}

/// Wakes a collector that waits until its events are accepted.
pub type AcceptanceTarget = Arc<dyn Target + Send + Sync>;

/// The targets by the collector's number.
type AcceptanceTargets = Arc<[OnceLock<AcceptanceTarget>; MAX_COLLECTORS]>;

/// Counters of one thread. Only that thread writes them.
pub struct StageLedger {
    stage: Stage,
    rows: [CachePadded<Row>; MAX_ACCOUNTS],
    targets: AcceptanceTargets,
}

/// Adds without a locked instruction: correct because each counter has one writer.
fn add(counter: &AtomicU64, n: u64) {
    // Relaxed, paired with the Relaxed loads of `Ledger::snapshot`, which tolerates any mixture.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// Subtracts, as [`add`] adds.
fn subtract(counter: &AtomicU64, n: u64) {
    let value = counter.load(Ordering::Relaxed);
    debug_assert!(value >= n, "{n} events leave a queue that holds {value}");
    counter.store(value.wrapping_sub(n), Ordering::Relaxed);
}

impl StageLedger {
    fn row(&self, account: u8) -> &Row {
        &self.rows[usize::from(account) % MAX_ACCOUNTS]
    }

    /// The counters of each generation of a collector.
    fn rows_of(&self, collector: usize) -> impl Iterator<Item = &Row> {
        self.rows.iter().skip(collector).step_by(MAX_COLLECTORS).map(|row| &**row)
    }

    /// Counts events received from the stage before.
    pub fn add_received(&self, account: u8, n: u64) {
        add(&self.row(account).received, n);
    }

    /// Counts events forwarded to the next stage; at the bridge, events stored by the server.
    pub fn add_forwarded(&self, account: u8, n: u64) {
        add(&self.row(account).forwarded, n);
    }

    /// Counts events whose texts were cut to fit into a record.
    pub fn add_truncated(&self, account: u8, n: u64) {
        add(&self.row(account).truncated, n);
    }

    /// Counts events of which secrets were removed.
    pub fn add_redacted(&self, account: u8, n: u64) {
        add(&self.row(account).redacted, n);
    }

    /// Counts dropped events.
    pub fn add_dropped(&self, account: u8, reason: Reason, n: u64) {
        add(&self.row(account).dropped[reason as usize], n);
    }

    /// Counts events that enter the stage's own queue.
    pub fn add_held(&self, account: u8, n: u64) {
        add(&self.row(account).held, n);
    }

    /// Counts events that leave the stage's own queue.
    pub fn remove_held(&self, account: u8, n: u64) {
        subtract(&self.row(account).held, n);
    }

    /// Counts events that are accepted, or that were dropped before they could be, and wakes their
    /// collector if it waits for that.
    pub fn add_settled(&self, account: u8, n: u64) {
        add(&self.row(account).settled, n);
        let target = &self.targets[usize::from(account) % MAX_COLLECTORS];
        if let Some(target) = target.get() {
            target.wake();
        }
    }

    /// Events received so far.
    #[must_use]
    pub fn received(&self, collector: u8) -> u64 {
        self.rows_of(collector.into()).map(|row| row.received.load(Ordering::Relaxed)).sum()
    }

    /// Events forwarded so far.
    #[must_use]
    pub fn forwarded(&self, collector: u8) -> u64 {
        self.rows_of(collector.into()).map(|row| row.forwarded.load(Ordering::Relaxed)).sum()
    }
}

/// Counters of all stages.
#[derive(Default)]
pub struct Ledger {
    names: Vec<String>,
    stages: Vec<Arc<StageLedger>>,
    targets: AcceptanceTargets,
}

/// The account of one collector, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectorAccount {
    /// The collector's name; `total` for the sum.
    pub name: String,
    /// Events received, including those lost in the kernel.
    pub received: u64,
    /// Events stored by the server.
    pub forwarded: u64,
    /// Events dropped, by stage and reason, without zeros.
    pub dropped: Vec<(Stage, Reason, u64)>,
    /// Events in rings and queues.
    pub held: u64,
    /// Events whose texts were cut to fit into a record; a part of those received.
    pub truncated: u64,
    /// Events of which secrets were removed.
    pub redacted: u64,
    /// received − forwarded − dropped − held. Other than zero it is a defect of tapio.
    pub residual: i64,
}

/// The accounts at one instant.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// One account for each collector.
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
    /// A ledger for these collectors; a collector's number is its index.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self { names, ..Self::default() }
    }

    /// Sets what the bridge wakes when it has accepted events of a collector. Later calls for the
    /// same collector have no effect.
    pub fn set_acceptance_target(&self, collector: u8, target: AcceptanceTarget) {
        let _ = self.targets[usize::from(collector) % MAX_COLLECTORS].set(target);
    }

    /// The names of the collectors.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Adds the counters of another thread.
    pub fn stage(&mut self, stage: Stage) -> Arc<StageLedger> {
        let ledger = Arc::new(StageLedger {
            stage,
            rows: std::array::from_fn(|_| CachePadded::default()),
            targets: Arc::clone(&self.targets),
        });
        self.stages.push(Arc::clone(&ledger));
        ledger
    }

    /// Events of a generation that a collector has forwarded and that are neither accepted nor
    /// dropped yet. Once a generation has ended, 0 is final.
    #[must_use]
    pub fn unsettled(&self, collector: u8, generation: u64) -> u64 {
        let account = account(collector, (generation % GENERATIONS as u64) as u8);
        let (mut entered, mut left) = (0u64, 0u64);
        for stage in &self.stages {
            let row = stage.row(account);
            match stage.stage {
                Stage::Kernel => {}
                Stage::Collect => entered += row.forwarded.load(Ordering::Relaxed),
                Stage::Correlate => {
                    left += row.dropped.iter().map(|n| n.load(Ordering::Relaxed)).sum::<u64>();
                }
                Stage::Bridge => left += row.settled.load(Ordering::Relaxed),
            }
        }
        entered.saturating_sub(left)
    }

    /// Reads the accounts. Retries for each collector until no update is in progress.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let consistent = |collector| {
            let mut account = self.account(collector);
            for retries in 1..=RETRIES_PER_ROUND * ROUNDS {
                if account.residual == 0 {
                    break;
                }
                if retries % RETRIES_PER_ROUND == 0 {
                    std::thread::sleep(ROUND_PAUSE);
                }
                account = self.account(collector);
            }
            account
        };
        let collectors: Vec<_> = (0..self.names.len()).map(consistent).collect();
        let mut total = CollectorAccount { name: "total".into(), ..Default::default() };
        for account in &collectors {
            total.received += account.received;
            total.forwarded += account.forwarded;
            total.held += account.held;
            total.truncated += account.truncated;
            total.redacted += account.redacted;
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
        // Events into and out of the rings between the stages.
        let (mut into_rings, mut out_of_rings, mut residual) = (0u64, 0u64, 0i64);
        for ledger in &self.stages {
            let sum = |counter: fn(&Row) -> &AtomicU64| {
                let counters = ledger.rows_of(collector).map(counter);
                counters.map(|counter| counter.load(Ordering::Relaxed)).sum::<u64>()
            };
            let (received, forwarded) = (sum(|row| &row.received), sum(|row| &row.forwarded));
            let held = sum(|row| &row.held);
            account.truncated += sum(|row| &row.truncated);
            account.redacted += sum(|row| &row.redacted);
            let mut dropped = 0;
            for reason in Reason::ALL {
                let dropped_by =
                    ledger.rows_of(collector).map(|row| &row.dropped[*reason as usize]);
                let n: u64 = dropped_by.map(|counter| counter.load(Ordering::Relaxed)).sum();
                if n > 0 {
                    dropped += n;
                    match account.dropped.iter_mut().find(|d| (d.0, d.1) == (ledger.stage, *reason))
                    {
                        Some(sum) => sum.2 += n,
                        None => account.dropped.push((ledger.stage, *reason, n)),
                    }
                }
            }
            residual += received as i64 - forwarded as i64 - dropped as i64 - held as i64;
            account.held += held;
            match ledger.stage {
                Stage::Kernel | Stage::Collect => {
                    account.received += received;
                    into_rings += forwarded;
                }
                Stage::Correlate => {
                    out_of_rings += received;
                    into_rings += forwarded;
                }
                Stage::Bridge => {
                    out_of_rings += received;
                    account.forwarded += forwarded;
                }
            }
        }
        // Stages are read one after the other, so a consumer may seem ahead of its producer.
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
    fn identity_is_summed_over_stages_and_rings() {
        let mut ledger = Ledger::new(vec!["a".into(), "b".into()]);
        let collect = ledger.stage(Stage::Collect);
        let shard = ledger.stage(Stage::Correlate);
        let bridge = ledger.stage(Stage::Bridge);
        collect.add_received(1, 10);
        collect.add_dropped(1, Reason::BadInput, 1);
        collect.add_forwarded(1, 9);
        shard.add_received(1, 7);
        shard.add_forwarded(1, 7);
        bridge.add_received(1, 6);
        bridge.add_held(1, 6);
        bridge.add_forwarded(1, 4);
        bridge.remove_held(1, 4);
        let snapshot = ledger.snapshot();
        assert!(snapshot.holds());
        let b = &snapshot.collectors[1];
        assert_eq!((b.received, b.forwarded, b.held), (10, 4, 2 + 2 + 1));
        assert_eq!(b.dropped, [(Stage::Collect, Reason::BadInput, 1)]);
        assert_eq!(snapshot.total.received, 10);
    }

    #[test]
    fn lost_event_is_a_residual() {
        let mut ledger = Ledger::new(vec!["a".into()]);
        let collect = ledger.stage(Stage::Collect);
        collect.add_received(0, 2);
        collect.add_forwarded(0, 1);
        let snapshot = ledger.snapshot();
        assert!(!snapshot.holds());
        assert_eq!(snapshot.total.residual, 1);
    }
}
