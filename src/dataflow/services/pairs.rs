//! The connections of a pair of instances are learned as two operations of the caller. The
//! runs of the one are its attempts to connect, those of the other its connections, of which each
//! counts once in every step in which it is open.

use super::connections::{PairKey, attempts, connections};
use super::deviation::{Fault, Feature};
use super::fact::{ConnectionChange, ConnectionFact, Key};
use super::learner::Services;
use super::step::{RECENT_STEPS, step};

impl Services {
    /// Learns from the connections that are due.
    pub(super) fn add_connections(&mut self, now_ns: u64) {
        for fact in self.connections.take_due(now_ns) {
            let at = step(fact.time_ns);
            let is_late = at + RECENT_STEPS as u32 <= self.next_step;
            if !is_late && let Some(pair) = self.connections.pair(&fact, at) {
                self.add_connection(pair, &fact, at);
            }
        }
    }

    fn add_connection(&mut self, pair: PairKey, fact: &ConnectionFact, at: u32) {
        let (caller, callee) = pair;
        let fault = |fault| Some(Feature::Connection(fault, callee));
        let (is_run, feature) = match fact.change {
            ConnectionChange::Opened => (true, None),
            ConnectionChange::Refused => (true, fault(Fault::Refused)),
            ConnectionChange::TimedOut => (true, fault(Fault::TimedOut)),
            ConnectionChange::Abandoned => (true, fault(Fault::Abandoned)),
            ConnectionChange::AttemptRepeated | ConnectionChange::Retransmitted => {
                (false, fault(Fault::Retransmitted))
            }
            ConnectionChange::Lost => (false, fault(Fault::TimedOut)),
            ConnectionChange::Reset => (false, fault(Fault::Reset)),
            ConnectionChange::Closed => return,
        };
        let is_attempt = fact.change.is_attempt();
        if is_attempt {
            self.names.endpoints.insert(pair, fact.endpoint);
        }
        let key = if is_attempt { attempts(callee) } else { connections(callee) };
        let (mut room, example) = (self.room, (at, (fact.time_ns, fact.event)));
        if let Some(operation) = self.operation(caller, key) {
            operation.add_runs(at, u16::from(is_run));
            if let Some(feature) = feature {
                operation.add_fault(feature, example, &mut room);
            } else if fact.duration_ns > 0 {
                let feature = Feature::ConnectTime(callee);
                operation.add_duration(feature, fact.duration_ns, example, &mut room);
            }
        }
        self.room = room;
        if fact.change == ConnectionChange::Opened
            && let Some(operation) = self.operation(caller, connections(callee))
        {
            operation.add_runs(at, 1);
        }
    }

    /// Whether a caller connected to a callee often until lately, and no longer tries to.
    pub(super) fn no_longer_connects(&self, caller: Key, callee: Key, at: u32) -> bool {
        let operation = self.operations.get(&(caller, attempts(callee)));
        operation.is_some_and(|operation| operation.has_stopped(at))
    }

    /// Counts the connections that are open as a step begins.
    pub(super) fn count_open(&mut self, at: u32) {
        for ((caller, callee), count) in self.connections.open(at) {
            if let Some(operation) = self.operation(caller, connections(callee)) {
                operation.add_runs(at, count);
            }
        }
    }

    /// Forgets pairs without operations, and names that no pair has.
    pub(super) fn forget_connections(&mut self, now: u32, idle: u32) {
        let operations = &self.operations;
        self.connections.forget(now, idle, |(caller, callee)| {
            operations.contains_key(&(*caller, attempts(*callee)))
        });
        let connections = &self.connections;
        self.names.endpoints.retain(|pair, _| connections.has_pair(pair));
    }
}
