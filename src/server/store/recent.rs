//! The latest events of each node whose source may tell them again: an agent that was killed reads what it hadn't
//! noted as delivered once more when it is started again, under the same ids.

use std::collections::{HashMap, HashSet, VecDeque};

use tapio_core::event::EventId;
use tapio_wire::Batch;

/// Ids remembered of a node's process: far more than are under way at a time.
const MAX_IDS: usize = 16_384;
/// Nodes remembered; past it the one that was silent for longest is forgotten.
const MAX_NODES: usize = 1_024;
/// A source whose clients send again what they have no answer for, each time as something new: it has far more
/// events than the others, and none under an old id.
const NEVER_TOLD_AGAIN: &str = "otlp";

#[derive(Default)]
struct Node {
    /// The process the ids are of.
    epoch: u64,
    ids: VecDeque<EventId>,
    /// What former processes sent, until this one has sent as much.
    earlier: HashSet<EventId, ahash::RandomState>,
    turn: u64,
}

/// The latest ids, by node.
#[derive(Default)]
pub(super) struct Recent {
    nodes: HashMap<String, Node, ahash::RandomState>,
    turn: u64,
}

/// The id of an event that may be told again.
pub(super) fn id_of(batch: &Batch<'_>, event: tapio_wire::RawEvent<'_>) -> Option<EventId> {
    let (id, source) = event.natural_id()?;
    (batch.names().get(source).copied() != Some(NEVER_TOLD_AGAIN)).then_some(id)
}

impl Recent {
    fn of(&mut self, node: &str) -> &mut Node {
        self.turn += 1;
        if !self.nodes.contains_key(node) {
            if self.nodes.len() >= MAX_NODES
                && let Some(silent) =
                    self.nodes.iter().min_by_key(|(_, n)| n.turn).map(|(name, _)| name.clone())
            {
                self.nodes.remove(&silent);
            }
            self.nodes.insert(node.to_owned(), Node::default());
        }
        let turn = self.turn;
        let found = self.nodes.entry(node.to_owned()).or_default();
        found.turn = turn;
        found
    }

    /// Whether a former process of the batch's node sent some events of it; asked first, since hardly any did.
    pub(super) fn knows_some(&mut self, batch: &Batch<'_>, ids: &[EventId]) -> bool {
        let node = self.of(batch.head.node);
        if batch.head.epoch > node.epoch {
            node.epoch = batch.head.epoch;
            let ids = std::mem::take(&mut node.ids);
            node.earlier.extend(ids);
        }
        batch.head.epoch == node.epoch && ids.iter().any(|id| node.earlier.contains(id))
    }

    /// Whether a former process of the node sent this event.
    pub(super) fn is_known(&self, node: &str, id: EventId) -> bool {
        self.nodes.get(node).is_some_and(|n| n.earlier.contains(&id))
    }

    /// Remembers what a stored batch held.
    pub(super) fn note(&mut self, batch: &Batch<'_>, ids: &[EventId]) {
        let node = self.of(batch.head.node);
        if batch.head.epoch < node.epoch {
            return;
        }
        for id in ids {
            if node.ids.len() >= MAX_IDS {
                node.ids.pop_front();
                node.earlier.clear();
            }
            node.ids.push_back(*id);
        }
    }
}
