//! The bytes of messages that a listener has received in part, or has handed on and not processed.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// A sender of bytes that count together: a host, or on this machine a connection, because local
/// processes have one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Peer {
    Host(IpAddr),
    Local(Option<SocketAddr>),
}

impl From<Option<SocketAddr>> for Peer {
    fn from(address: Option<SocketAddr>) -> Self {
        match address {
            Some(address) if !address.ip().is_loopback() => Self::Host(address.ip()),
            address => Self::Local(address),
        }
    }
}

/// Room for the messages of a listener. When it is used up, the peer that has most of it loses its
/// oldest unfinished message: an attacker's, sooner than that of an honest sender.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    bytes: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    used_bytes: usize,
    next_id: u64,
    /// The oldest first.
    bodies: BTreeMap<u64, Usage>,
    /// Those that wait for room.
    waiting: Vec<Waker>,
    evicted: u64,
}

/// The bytes of one body.
#[derive(Debug)]
struct Usage {
    peer: Peer,
    /// Of messages that are complete and not processed.
    complete_bytes: usize,
    /// Of the message that isn't complete.
    unfinished_bytes: usize,
    /// When that began, as a number that grows.
    began: u64,
    is_evicted: bool,
    waker: Option<Waker>,
}

impl Usage {
    fn bytes(&self) -> usize {
        self.complete_bytes + self.unfinished_bytes
    }
}

/// Room for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It may read on.
    Free,
    /// It has to wait for room.
    Wait,
    /// It has lost its message.
    Evicted,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a body.
    pub(super) fn open(&self, peer: Peer) -> BodyUsage {
        let mut state = self.state();
        state.next_id += 1;
        let id = state.next_id;
        let usage = Usage {
            peer,
            complete_bytes: 0,
            unfinished_bytes: 0,
            began: id,
            is_evicted: false,
            waker: None,
        };
        state.bodies.insert(id, usage);
        BodyUsage { budget: self.clone(), id }
    }

    /// Messages that were given up to make room.
    #[cfg(test)]
    fn evicted(&self) -> u64 {
        self.state().evicted
    }
}

impl State {
    /// Takes the message of the peer that has most of the bytes. Returns whether there was one.
    fn evict(&mut self) -> bool {
        let mut of_peer: HashMap<Peer, usize> = HashMap::new();
        for usage in self.bodies.values() {
            *of_peer.entry(usage.peer).or_default() += usage.bytes();
        }
        let unfinished = self.bodies.values_mut().filter(|usage| usage.unfinished_bytes > 0);
        let heaviest = unfinished.max_by_key(|usage| {
            (of_peer.get(&usage.peer).copied(), usage.peer, std::cmp::Reverse(usage.began))
        });
        let Some(usage) = heaviest else { return false };
        self.used_bytes -= usage.bytes();
        (usage.complete_bytes, usage.unfinished_bytes) = (0, 0);
        usage.is_evicted = true;
        self.evicted += 1;
        if let Some(waker) = usage.waker.take() {
            waker.wake();
        }
        true
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

/// The usage of one body; what it uses is free when it is dropped.
#[derive(Debug)]
pub(super) struct BodyUsage {
    budget: Budget,
    id: u64,
}

impl BodyUsage {
    /// Notes that its complete messages are processed. Says whether it may read on.
    pub(super) fn read_on(&self, waker: &Waker) -> Room {
        let mut state = self.budget.state();
        let Some(usage) = state.bodies.get_mut(&self.id) else { return Room::Free };
        if usage.is_evicted {
            return Room::Evicted;
        }
        usage.waker = Some(waker.clone());
        let freed = std::mem::take(&mut usage.complete_bytes);
        state.used_bytes -= freed;
        if freed > 0 {
            state.wake();
        }
        while state.used_bytes >= self.budget.bytes {
            if !state.evict() {
                state.waiting.push(waker.clone());
                return Room::Wait;
            }
        }
        let is_evicted = state.bodies.get(&self.id).is_some_and(|usage| usage.is_evicted);
        if is_evicted { Room::Evicted } else { Room::Free }
    }

    /// Notes what it has: bytes of complete messages that came since, and bytes of the one that
    /// isn't complete.
    pub(super) fn received(&self, complete_bytes: usize, unfinished_bytes: usize) {
        let mut state = self.budget.state();
        let state = &mut *state;
        let Some(usage) = state.bodies.get_mut(&self.id).filter(|usage| !usage.is_evicted) else {
            return;
        };
        if complete_bytes > 0 {
            state.next_id += 1;
            usage.began = state.next_id;
        }
        let before = usage.bytes();
        usage.complete_bytes += complete_bytes;
        usage.unfinished_bytes = unfinished_bytes;
        state.used_bytes = state.used_bytes - before + usage.bytes();
    }
}

impl Drop for BodyUsage {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        if let Some(usage) = state.bodies.remove(&self.id) {
            state.used_bytes -= usage.bytes();
            state.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> Peer {
        Peer::Host([10, 0, 0, n].into())
    }

    fn room(body: &BodyUsage) -> Room {
        body.read_on(Waker::noop())
    }

    #[test]
    fn heaviest_peer_loses_its_oldest_unfinished_message() {
        let budget = Budget::new(100);
        let honest = budget.open(peer(1));
        honest.received(0, 20);
        let attackers: Vec<_> = (0..3).map(|_| budget.open(peer(2))).collect();
        attackers.iter().for_each(|body| body.received(0, 30));
        assert_eq!(room(&honest), Room::Free);
        let rooms: Vec<_> = attackers.iter().map(room).collect();
        assert_eq!(rooms, [Room::Evicted, Room::Free, Room::Free]);
        assert_eq!(budget.evicted(), 1);
        drop((honest, attackers));
        assert_eq!(budget.state().used_bytes, 0);
    }

    #[test]
    fn complete_messages_keep_others_waiting_until_they_are_processed() {
        let budget = Budget::new(100);
        let (first, second) = (budget.open(peer(1)), budget.open(peer(2)));
        first.received(100, 0);
        assert_eq!(room(&second), Room::Wait);
        assert_eq!(room(&first), Room::Free, "it reads on: they are processed");
        assert_eq!(room(&second), Room::Free);
        assert_eq!((budget.evicted(), budget.state().used_bytes), (0, 0));
    }

    #[test]
    fn local_connections_are_peers_of_their_own() {
        let local = |port| Peer::from(Some(SocketAddr::from(([127, 0, 0, 1], port))));
        assert_ne!(local(1), local(2));
        let remote = |port| Peer::from(Some(SocketAddr::from(([10, 0, 0, 1], port))));
        assert_eq!(remote(1), remote(2));
    }
}
