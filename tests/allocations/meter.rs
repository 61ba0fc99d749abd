//! Counts the allocations in the part of a round that is the stage's own work.

use crate::counting::allocations;

/// Sums up the allocations of a stage's own work. Its set-up, such as the input of the stage, isn't
/// counted.
#[derive(Default)]
pub(crate) struct Meter {
    /// The allocations so far.
    pub(crate) allocations: u64,
}

impl Meter {
    /// Does the work and counts its allocations.
    pub(crate) fn measure(&mut self, mut work: impl FnMut()) {
        let before = allocations();
        work();
        self.allocations += allocations() - before;
    }
}
