//! Deviations of operations, the graph of calls between their instances, and suspects.

use std::collections::{BTreeMap, BTreeSet};

use rkyv::{Archive, Deserialize, Serialize};

use super::deviation::Deviation;
use super::fact::Key;

/// A callee that deviates by this part of its caller's deviation explains the caller's.
pub(super) const CALLEE_EXPLAINS: f64 = 0.55;

/// A deviation of an operation of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub(super) struct Evidence {
    pub(super) instance: Key,
    pub(super) operation: Key,
    pub(super) deviation: Deviation,
    /// How much it speaks for a fault, [`Deviation::strength`].
    pub(super) strength: f64,
    /// Of a call that is missing: whether the caller no longer connects to the callee, as it did
    /// for each call. It doesn't get that far: for lack of an address, or by its own fault.
    pub(super) is_untried: bool,
}

/// Which instance calls which.
pub(super) type Calls = BTreeMap<Key, BTreeSet<Key>>;

/// The instances that an operation of an instance calls, itself or by other operations of its
/// instance.
pub(super) type FailingCalls = BTreeMap<(Key, Key), BTreeSet<Key>>;

/// The graph of calls: those of spans, and those that connections show. A program without spans
/// has connections alone, and what all instances connect to, as a name server, has no spans.
#[derive(Clone, Copy)]
pub(super) struct CallGraph<'a> {
    pub(super) calls: &'a Calls,
    pub(super) connections: &'a Calls,
    /// The instances that failing operations call.
    pub(super) failing: &'a FailingCalls,
}

impl CallGraph<'_> {
    /// All that an instance calls or connects to.
    pub(super) fn callees(&self, of: Key) -> impl Iterator<Item = Key> {
        let all = [self.calls, self.connections].map(|calls| calls.get(&of).into_iter().flatten());
        all.into_iter().flatten().copied()
    }
}

/// An instance that may be the cause.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Suspect {
    pub(super) instance: Key,
    pub(super) score: f64,
    /// By its own evidence alone.
    pub(super) own_score: f64,
    /// The caller whose deviation it explains.
    pub(super) explains: Option<Key>,
    /// Its evidence, the strongest first.
    pub(super) evidence: Vec<Evidence>,
}
