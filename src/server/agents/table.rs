//! The table of agents, by node.

use std::collections::BTreeMap;
use std::ops::Bound;

use prost::Message as _;

use super::entry::{Entry, StoredBatch};
use tapio_wire::proto::{self, AgentStatus};

/// Most agents; beyond, the one that was heard of longest ago is evicted.
pub(crate) const MAX_AGENTS: usize = 10_000;
/// Bytes of all statuses; beyond, likewise.
const MAX_STATUS_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of a page, about.
const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// Without `retention_age`, an agent that nothing was heard of for this long is forgotten.
const DEFAULT_RETENTION_NS: u64 = 30 * 24 * 3600 * 1_000_000_000;

/// The agents.
#[derive(Debug, Default)]
pub(crate) struct AgentTable {
    entries: BTreeMap<String, Entry>,
    status_bytes: usize,
    has_changed: bool,
}

/// A page of agents, in the order of their nodes.
#[derive(Debug, Default)]
pub(crate) struct AgentPage {
    pub(crate) agents: Vec<proto::Agent>,
    /// The node behind which the next page begins; `None`: this is the last one.
    pub(crate) next: Option<String>,
}

impl AgentTable {
    /// The agents that an earlier process has noted.
    pub(super) fn restored(agents: &[proto::Agent], now_ns: u64) -> Self {
        let mut table = Self::default();
        for agent in agents.iter().take(MAX_AGENTS) {
            let entry = Entry::from_proto(agent, now_ns);
            table.status_bytes += entry.status_bytes();
            table.entries.insert(agent.node.clone(), entry);
        }
        table
    }

    /// The entry of a node, which may be new.
    fn entry(&mut self, node: &str, now_ns: u64) -> &mut Entry {
        self.has_changed = true;
        if !self.entries.contains_key(node) {
            if self.entries.len() >= MAX_AGENTS {
                self.evict(node, now_ns);
            }
            self.entries.insert(node.to_owned(), Entry::seen_at(now_ns));
        }
        self.entries.entry(node.to_owned()).or_default()
    }

    /// Removes the agent that was heard of longest ago, but for `kept`: one that isn't connected if
    /// there is one, then one without a stream, since a report costs its sender nothing.
    fn evict(&mut self, kept: &str, now_ns: u64) {
        let others = self.entries.iter().filter(|(node, _)| *node != kept);
        let rank = |entry: &Entry| (entry.streams() > 0, entry.is_connected(now_ns));
        let oldest = others.min_by_key(|(_, entry)| (rank(entry), entry.last_ns()));
        if let Some(node) = oldest.map(|(node, _)| node.clone()) {
            self.remove(&node);
        }
    }

    fn remove(&mut self, node: &str) {
        if let Some(entry) = self.entries.remove(node) {
            self.status_bytes -= entry.status_bytes();
        }
    }

    /// Notes that a process of the node sends on a stream. A batch without a node is of none.
    pub(crate) fn open_stream(&mut self, node: &str, now_ns: u64) {
        if !node.is_empty() {
            self.entry(node, now_ns).open_stream();
        }
    }

    /// Notes that it doesn't any more.
    pub(crate) fn close_stream(&mut self, node: &str, now_ns: u64) {
        if let Some(entry) = self.entries.get_mut(node) {
            entry.close_stream(now_ns);
        }
    }

    /// Counts a batch that was stored.
    pub(crate) fn store(&mut self, node: &str, batch: &StoredBatch<'_>) {
        self.has_changed = true;
        match self.entries.get_mut(node) {
            Some(entry) => entry.store(batch),
            None if node.is_empty() => {}
            None => self.entry(node, batch.receipt_ns).store(batch),
        }
    }

    /// Counts a refused batch, of a node that has sent others.
    pub(crate) fn refuse_batch(&mut self, node: &str) {
        if let Some(entry) = self.entries.get_mut(node) {
            entry.refuse_batch();
        }
    }

    /// Counts items that a process has dropped.
    pub(crate) fn drop_items(&mut self, node: &str, epoch: u64, from: u64, to: u64) {
        if let Some(entry) = self.entries.get_mut(node) {
            entry.drop_items(epoch, from, to);
        }
    }

    /// Keeps a status, which was checked, instead of the one before.
    pub(crate) fn report(&mut self, status: &AgentStatus, now_ns: u64) {
        let entry = self.entry(&status.node, now_ns);
        let before = entry.status_bytes();
        entry.report(status, now_ns);
        let after = entry.status_bytes();
        self.status_bytes = self.status_bytes - before + after;
        while self.status_bytes > MAX_STATUS_BYTES && self.entries.len() > 1 {
            self.evict(&status.node, now_ns);
        }
    }

    /// Forgets agents that nothing was heard of for `retention_ns`; 0 for the default.
    pub(crate) fn expire(&mut self, retention_ns: u64, now_ns: u64) {
        let retention_ns = if retention_ns == 0 { DEFAULT_RETENTION_NS } else { retention_ns };
        let is_expired = |entry: &Entry| {
            !entry.is_connected(now_ns) && now_ns.saturating_sub(entry.last_ns()) > retention_ns
        };
        let expired = self.entries.iter().filter(|(_, entry)| is_expired(entry));
        let expired: Vec<String> = expired.map(|(node, _)| node.clone()).collect();
        self.has_changed |= !expired.is_empty();
        expired.iter().for_each(|node| self.remove(node));
    }

    /// The agent of a node.
    pub(crate) fn get(&self, node: &str, now_ns: u64) -> Option<proto::Agent> {
        self.entries.get(node).map(|entry| entry.to_proto(node, now_ns))
    }

    /// Lists at most `limit` agents behind a node.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize, now_ns: u64) -> AgentPage {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut page, mut bytes) = (AgentPage::default(), 0);
        for (node, entry) in self.entries.range::<str, _>((start, Bound::Unbounded)) {
            if page.agents.len() >= limit || bytes >= MAX_PAGE_BYTES {
                page.next = page.agents.last().map(|agent| agent.node.clone());
                break;
            }
            let agent = entry.to_proto(node, now_ns);
            bytes += agent.encoded_len();
            page.agents.push(agent);
        }
        page
    }

    /// The number of agents, and of those that are connected.
    pub(crate) fn counts(&self, now_ns: u64) -> (u64, u64) {
        let connected = self.entries.values().filter(|entry| entry.is_connected(now_ns));
        (self.entries.len() as u64, connected.count() as u64)
    }

    /// All agents, if something has changed since the last call.
    pub(crate) fn take_changed(&mut self, now_ns: u64) -> Option<Vec<proto::Agent>> {
        let all = || self.entries.iter().map(|(node, entry)| entry.to_proto(node, now_ns));
        let changed = self.has_changed.then(|| all().collect());
        self.has_changed = false;
        changed
    }

    /// Has [`AgentTable::take_changed`] list them again.
    pub(crate) fn set_changed(&mut self) {
        self.has_changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node: &str, bytes: usize) -> AgentStatus {
        let problems = vec!["p".repeat(bytes)];
        AgentStatus { node: node.into(), problems, ..AgentStatus::default() }
    }

    fn nodes(page: &AgentPage) -> Vec<&str> {
        page.agents.iter().map(|agent| agent.node.as_str()).collect()
    }

    #[test]
    fn pages_are_in_the_order_of_nodes() {
        let mut table = AgentTable::default();
        for node in ["c", "a", "b"] {
            table.report(&status(node, 1), 10);
        }
        let first = table.page(None, 2, 10);
        assert_eq!((nodes(&first), first.next.as_deref()), (vec!["a", "b"], Some("b")));
        let second = table.page(first.next.as_deref(), 2, 10);
        assert_eq!((nodes(&second), second.next.as_deref()), (vec!["c"], None));
        assert_eq!(table.get("b", 10).unwrap().status.unwrap().node, "b");
        assert!(table.get("d", 10).is_none());
    }

    #[test]
    fn page_of_large_statuses_ends_early() {
        let mut table = AgentTable::default();
        for n in 0..100 {
            table.report(&status(&format!("n{n:03}"), 30_000), 10);
        }
        let page = table.page(None, 100, 10);
        assert!(page.agents.len() < 50 && page.next.is_some(), "{}", page.agents.len());
    }

    #[test]
    fn oldest_agent_that_is_not_connected_is_evicted_first() {
        let second = 1_000_000_000;
        let mut table = AgentTable::default();
        table.open_stream("connected", 1);
        for n in 0..MAX_AGENTS as u64 {
            table.report(&status(&format!("n{n}"), 1), 100 * second + n);
        }
        assert_eq!(table.entries.len(), MAX_AGENTS);
        assert!(table.get("connected", 0).is_some());
        assert!(table.get("n0", 0).is_none());
    }

    #[test]
    fn statuses_stay_within_their_bytes() {
        let mut table = AgentTable::default();
        for n in 0..MAX_STATUS_BYTES as u64 / 100_000 + 10 {
            table.report(&status(&format!("n{n}"), 100_000), n);
        }
        assert!(table.status_bytes <= MAX_STATUS_BYTES);
        let sum: usize = table.entries.values().map(Entry::status_bytes).sum();
        assert_eq!(sum, table.status_bytes);
        assert!(table.get("n0", 0).is_none());
    }

    #[test]
    fn silent_agent_is_forgotten_after_retention() {
        let second = 1_000_000_000;
        let mut table = AgentTable::default();
        table.report(&status("silent", 1), second);
        table.open_stream("idle", second);
        table.expire(60 * second, 61 * second);
        assert!(table.get("silent", 0).is_some());
        table.expire(60 * second, 62 * second);
        assert!(table.get("silent", 0).is_none());
        assert!(table.get("idle", 0).is_some(), "it is connected");
        assert_eq!(table.status_bytes, 0);
    }
}
