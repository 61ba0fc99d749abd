//! The latest event ids of each node, to recognise events that a restarted agent sends again: it
//! reads again the events whose delivery wasn't recorded, under the same ids.

use std::collections::{HashMap, HashSet, VecDeque};

use tapio_core::event::EventId;
use tapio_wire::{Batch, BatchHead, Item, RawEvent};

/// Ids kept for an agent process: far more than are in flight at a time.
const MAX_IDS: usize = 16_384;
/// Nodes kept; beyond, the node that was silent for longest is evicted.
const MAX_NODES: usize = 1_024;
/// A source whose clients repeat unanswered requests as new events: it has far more events than the
/// others, and none under an old id.
const NEVER_RESENT: &str = "otlp";

#[derive(Default)]
struct Node {
    /// The process the ids are from.
    epoch: u64,
    ids: VecDeque<EventId>,
    /// Ids from earlier processes, until this one has sent as many.
    earlier: HashSet<EventId, ahash::RandomState>,
    last_used: u64,
}

/// The latest ids, by node.
#[derive(Default)]
pub(super) struct RecentIds {
    nodes: HashMap<String, Node, ahash::RandomState>,
    /// Counts uses, to order the nodes by them.
    uses: u64,
}

/// The id of an event that may be sent again.
fn resendable_id(batch: &Batch<'_>, event: RawEvent<'_>) -> Option<EventId> {
    let (id, source) = event.natural_id()?;
    (batch.names().get(source).copied() != Some(NEVER_RESENT)).then_some(id)
}

/// The ids of a batch's events that may be sent again.
pub(super) fn resendable_ids(batch: &Batch<'_>) -> Vec<EventId> {
    let ids = batch.items().filter_map(|item| match item {
        Item::Event(event) => resendable_id(batch, event),
        Item::Story(_) => None,
    });
    ids.collect()
}

impl RecentIds {
    fn node(&mut self, name: &str) -> &mut Node {
        self.uses += 1;
        if !self.nodes.contains_key(name) {
            if self.nodes.len() >= MAX_NODES
                && let Some(silent) =
                    self.nodes.iter().min_by_key(|(_, n)| n.last_used).map(|(name, _)| name.clone())
            {
                self.nodes.remove(&silent);
            }
            self.nodes.insert(name.to_owned(), Node::default());
        }
        let last_used = self.uses;
        let node = self.nodes.entry(name.to_owned()).or_default();
        node.last_used = last_used;
        node
    }

    /// Notes the process that sends a batch. When it is a later one than before, the ids so far are
    /// those of earlier processes.
    pub(super) fn begin_batch(&mut self, head: &BatchHead<'_>) {
        let node = self.node(head.node);
        if head.epoch > node.epoch {
            node.epoch = head.epoch;
            let ids = std::mem::take(&mut node.ids);
            node.earlier.extend(ids);
        }
    }

    /// Whether an earlier process of the batch's node sent some of its events. Few batches have
    /// any, so this is checked before each event is.
    pub(super) fn any_resent(&self, head: &BatchHead<'_>, ids: &[EventId]) -> bool {
        self.nodes.get(head.node).is_some_and(|node| {
            head.epoch == node.epoch && ids.iter().any(|id| node.earlier.contains(id))
        })
    }

    /// Whether an earlier process of the batch's node sent this event.
    pub(super) fn is_resent(&self, batch: &Batch<'_>, event: RawEvent<'_>) -> bool {
        resendable_id(batch, event).is_some_and(|id| {
            self.nodes.get(batch.head.node).is_some_and(|node| node.earlier.contains(&id))
        })
    }

    /// Adds the ids of a stored batch.
    pub(super) fn add(&mut self, head: &BatchHead<'_>, ids: &[EventId]) {
        let node = self.node(head.node);
        if head.epoch < node.epoch {
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
