//! Values that different threads write or poll are on different cache lines.

use std::mem::{align_of, align_of_val, size_of};
use std::sync::Arc;

use tapio_core::event::{Reason, Stage};
use tapio_core::ring::{Bell, Ledger, StageLedger};
use tapio_core::shutdown::RunHandle;

/// Processors fetch pairs of lines of 64 bytes.
const PAIR: usize = 128;

tapio_core::counters! {
    /// The smallest counters.
    struct One {
        events: Counter = "Events.",
    }
}

#[test]
fn shared_types_fill_whole_lines() {
    assert_eq!((align_of::<Bell>() % PAIR, size_of::<Bell>() % PAIR), (0, 0));
    assert_eq!((align_of::<RunHandle>() % PAIR, size_of::<RunHandle>() % PAIR), (0, 0));
    assert_eq!((align_of::<One>() % PAIR, size_of::<One>() % PAIR), (0, 0));
    assert_eq!((align_of::<StageLedger>() % PAIR, size_of::<StageLedger>() % PAIR), (0, 0));
    // Both indices of a ring, each on lines of its own, and then the rest.
    assert!(size_of::<rtrb::RingBuffer<[u8; 64]>>() >= 3 * PAIR);
}

#[test]
fn counters_of_neighbours_share_no_line() {
    // The counts of an `Arc` are in front of the value, and allocated one after the other.
    let all: Vec<Arc<One>> = (0..16).map(|_| Arc::default()).collect();
    let mut lines: Vec<usize> = all.iter().map(|one| Arc::as_ptr(one) as usize / PAIR).collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), all.len());
    all.iter().for_each(|one| one.events.add(1));
    assert_eq!(all[3].readings().next().map(|reading| reading.value), Some(1));
}

#[test]
fn stages_share_no_line() {
    let mut ledger = Ledger::new(vec!["a".into()]);
    let stages = [Stage::Collect, Stage::Correlate, Stage::Bridge].map(|s| ledger.stage(s));
    for stage in &stages {
        assert_eq!(align_of_val(&**stage) % PAIR, 0);
        assert_eq!(Arc::as_ptr(stage) as usize % PAIR, 0);
        stage.add_dropped(0, Reason::BadInput, 0);
    }
}
