//! One node's agent, as the server sees it.

use hdrhistogram::Histogram;
use prost::Message as _;

use tapio_wire::proto::{self, AgentStatus, Latency};

/// An agent that reports its status is connected for this long after the last one: three reports.
const STATUS_VALID_NS: u64 = 30_000_000_000;
/// Start times of one process: each of its lanes has an epoch of its own, one above the other.
const LANE_EPOCHS: u64 = 1;
/// Processes of which the end of what they have dropped is remembered.
const MAX_DROP_ENDS: usize = 8;
/// The histogram's range: delays up to a minute, with one significant digit (2 KiB).
const MAX_DELAY_NS: u64 = 60_000_000_000;
const DELAY_DIGITS: u8 = 1;

/// An agent.
#[derive(Debug, Default)]
pub(super) struct Entry {
    epoch: u64,
    first_seen_ns: u64,
    last_batch_ns: u64,
    last_status_ns: u64,
    batches: u64,
    events: u64,
    stories: u64,
    batches_refused: u64,
    items_dropped: u64,
    processes: u64,
    /// Sender processes of the node that have a stream open.
    streams: u32,
    /// When the last of them ended.
    disconnected_ns: u64,
    /// Delays since the server's start.
    delays: Option<Box<Histogram<u32>>>,
    /// Up to which sequence number each process, by its epoch, has dropped items.
    drop_ends: Vec<(u64, u64)>,
    /// The last [`AgentStatus`], encoded: that bounds its size in memory.
    status: Vec<u8>,
}

/// A batch that was stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredBatch<'a> {
    pub(crate) epoch: u64,
    pub(crate) events: u32,
    pub(crate) stories: u32,
    pub(crate) receipt_ns: u64,
    /// Delays of its events that have the kernel's clock.
    pub(crate) delays_ns: &'a [u64],
}

impl Entry {
    pub(super) fn seen_at(now_ns: u64) -> Self {
        Self { first_seen_ns: now_ns, ..Self::default() }
    }

    /// When the server has heard of it last.
    pub(super) fn last_ns(&self) -> u64 {
        self.first_seen_ns.max(self.last_batch_ns).max(self.last_status_ns)
    }

    pub(super) fn is_connected(&self, now_ns: u64) -> bool {
        let reports = self.last_status_ns > self.disconnected_ns
            && now_ns.saturating_sub(self.last_status_ns) < STATUS_VALID_NS;
        self.streams > 0 || reports
    }

    pub(super) fn streams(&self) -> u32 {
        self.streams
    }

    pub(super) fn status_bytes(&self) -> usize {
        self.status.len()
    }

    /// Notes a batch's process. An older one than the latest has left its batches in the spool.
    fn note_batch_epoch(&mut self, epoch: u64) {
        if epoch.abs_diff(self.epoch) <= LANE_EPOCHS {
            self.epoch = self.epoch.min(epoch);
        } else if epoch > self.epoch {
            self.epoch = epoch;
            self.processes += 1;
        }
    }

    pub(super) fn open_stream(&mut self) {
        self.streams += 1;
    }

    pub(super) fn close_stream(&mut self, now_ns: u64) {
        self.streams = self.streams.saturating_sub(1);
        if self.streams == 0 {
            self.disconnected_ns = now_ns;
        }
    }

    pub(super) fn store(&mut self, batch: &StoredBatch<'_>) {
        self.note_batch_epoch(batch.epoch);
        self.last_batch_ns = batch.receipt_ns;
        self.batches += 1;
        self.events += u64::from(batch.events);
        self.stories += u64::from(batch.stories);
        if batch.delays_ns.is_empty() {
            return;
        }
        if self.delays.is_none() {
            let delays = Histogram::new_with_bounds(1, MAX_DELAY_NS, DELAY_DIGITS);
            self.delays = delays.ok().map(Box::new);
        }
        if let Some(delays) = &mut self.delays {
            batch.delays_ns.iter().for_each(|delay| delays.saturating_record(*delay));
        }
    }

    pub(super) fn refuse_batch(&mut self) {
        self.batches_refused += 1;
    }

    /// Notes that a process has dropped items; after a reconnect it may report the same ones again.
    pub(super) fn drop_items(&mut self, epoch: u64, from: u64, to: u64) {
        let known = self.drop_ends.iter_mut().find(|(of, _)| *of == epoch);
        let counted = known.as_ref().map_or(0, |(_, end)| *end);
        self.items_dropped =
            self.items_dropped.saturating_add(to.saturating_sub(from.max(counted)));
        match known {
            Some((_, end)) => *end = to.max(*end),
            None => {
                if self.drop_ends.len() >= MAX_DROP_ENDS {
                    self.drop_ends.remove(0);
                }
                self.drop_ends.push((epoch, to));
            }
        }
    }

    pub(super) fn report(&mut self, status: &AgentStatus, now_ns: u64) {
        if status.epoch.abs_diff(self.epoch) > LANE_EPOCHS {
            self.processes += 1;
        }
        self.epoch = status.epoch;
        self.last_status_ns = now_ns;
        self.status.clear();
        // A vector takes what it is given.
        let _ = status.encode(&mut self.status);
        self.status.shrink_to_fit();
    }

    /// The agent as it is listed.
    pub(super) fn to_proto(&self, node: &str, now_ns: u64) -> proto::Agent {
        let latency = self.delays.as_ref().map(|delays| {
            let quantile = |q| delays.value_at_quantile(q);
            Latency {
                count: delays.len(),
                p50_ns: quantile(0.5),
                p90_ns: quantile(0.9),
                p99_ns: quantile(0.99),
                p999_ns: quantile(0.999),
                max_ns: delays.max(),
            }
        });
        let status = Some(&self.status).filter(|status| !status.is_empty());
        proto::Agent {
            node: node.to_owned(),
            epoch: self.epoch,
            connected: self.is_connected(now_ns),
            first_seen_unix_nano: self.first_seen_ns,
            last_batch_unix_nano: self.last_batch_ns,
            last_status_unix_nano: self.last_status_ns,
            batches: self.batches,
            events: self.events,
            stories: self.stories,
            batches_refused: self.batches_refused,
            items_dropped: self.items_dropped,
            processes: self.processes,
            latency,
            status: status.and_then(|status| AgentStatus::decode(&status[..]).ok()),
        }
    }

    /// An agent that an earlier process of the server has noted. It isn't connected.
    pub(super) fn from_proto(agent: &proto::Agent, now_ns: u64) -> Self {
        Self {
            epoch: agent.epoch,
            first_seen_ns: agent.first_seen_unix_nano,
            last_batch_ns: agent.last_batch_unix_nano,
            last_status_ns: agent.last_status_unix_nano,
            batches: agent.batches,
            events: agent.events,
            stories: agent.stories,
            batches_refused: agent.batches_refused,
            items_dropped: agent.items_dropped,
            processes: agent.processes,
            disconnected_ns: now_ns,
            status: agent.status.as_ref().map_or_else(Vec::new, AgentStatus::encode_to_vec),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: u64, delays_ns: &[u64]) -> StoredBatch<'_> {
        StoredBatch { epoch, events: 3, stories: 1, receipt_ns: 100, delays_ns }
    }

    #[test]
    fn lanes_are_one_process_and_a_restart_is_another() {
        let mut entry = Entry::seen_at(50);
        for epoch in [1_001, 1_000, 1_001] {
            entry.store(&batch(epoch, &[5_000]));
        }
        let agent = entry.to_proto("n", 200);
        assert_eq!((agent.epoch, agent.processes, agent.batches), (1_000, 1, 3));
        assert_eq!((agent.events, agent.stories, agent.latency.unwrap().count), (9, 3, 3));
        entry.report(&AgentStatus { epoch: 9_000, ..AgentStatus::default() }, 300);
        entry.store(&batch(1_000, &[]));
        let agent = entry.to_proto("n", 400);
        assert_eq!((agent.epoch, agent.processes), (9_000, 2), "its predecessor's spool");
    }

    #[test]
    fn items_dropped_are_counted_once() {
        let mut entry = Entry::default();
        for (from, to) in [(10, 15), (10, 15), (12, 20)] {
            entry.drop_items(7, from, to);
        }
        entry.drop_items(8, 0, 3);
        assert_eq!(entry.items_dropped, 13);
    }

    #[test]
    fn agent_is_connected_while_it_streams_or_reports() {
        let second = 1_000_000_000;
        let mut entry = Entry::default();
        assert!(!entry.is_connected(0));
        entry.report(&AgentStatus::default(), second);
        assert!(entry.is_connected(30 * second), "without a batch yet");
        assert!(!entry.is_connected(31 * second));
        entry.open_stream();
        assert!(entry.is_connected(1_000 * second));
        entry.close_stream(1_000 * second);
        assert!(!entry.is_connected(1_000 * second));
        entry.report(&AgentStatus::default(), 1_001 * second);
        assert!(entry.is_connected(1_002 * second));
    }
}
