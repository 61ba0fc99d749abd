//! Measures the part of a round that is the stage's own work.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Sums up the time of a stage's own work. Its set-up, such as the input of the stage, isn't
/// measured.
#[derive(Default)]
pub(crate) struct Meter {
    /// The time so far.
    pub(crate) spent: Duration,
}

impl Meter {
    /// Does the work and measures it.
    pub(crate) fn measure(&mut self, mut work: impl FnMut()) {
        let begin = Instant::now();
        measured(&mut work);
        self.spent += begin.elapsed();
    }
}

/// A function that isn't inlined: callgrind counts between its entry and its return only
/// (perf/instructions.sh).
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
    // Keeps the call above from becoming a jump, whose return callgrind might not see.
    black_box(());
}
