//! Connections: between which instances they are, and how many are open.

use std::collections::{BTreeMap, HashMap};

use rkyv::{Archive, Deserialize, Serialize};

use super::evidence::Calls;
use super::fact::{ConnectionChange, ConnectionFact, Key, ListenerFact, Party};
use super::span_join::HOLD_NS;

const SECOND_NS: u64 = 1_000_000_000;
/// Callees of one caller that are learned from: a crawler or a proxy has thousands.
const MAX_CALLEES: usize = 128;
/// Open connections that are kept of a pair, on average.
const OPEN_OF_PAIR: usize = 8;
/// Steps after which a connection counts as closed where there is no room: an hour.
const MAX_OPEN_STEPS: u32 = 360;

/// An instance that opens connections, and the one that it opens them to.
pub(super) type PairKey = (Key, Key);

/// The operation whose runs are the attempts to connect to a callee.
pub(super) fn attempts(callee: Key) -> Key {
    callee.rotate_left(17) ^ 0x6174_7465_6d70_7473
}

/// The operation whose runs are the connections to a callee.
pub(super) fn connections(callee: Key) -> Key {
    callee.rotate_left(29) ^ 0x636f_6e6e_6563_7473
}

/// The connections of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub(super) struct Pair {
    /// The first and the last step with an attempt.
    first: u32,
    last: u32,
    /// Whether it had attempts in two steps, or a connection that stayed open: port scans and
    /// programs that run once leave no pairs.
    is_lasting: bool,
    open: u32,
}

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionBounds {
    pub(super) pairs: usize,
    /// Facts that wait.
    pub(super) held: usize,
    /// Listeners, and identities of instances.
    pub(super) names: usize,
}

/// The ends of connections, as they are kept over a restart.
#[derive(Default, Archive, Serialize, Deserialize)]
pub(super) struct SavedConnections {
    pub(super) claims: Vec<(Key, Key)>,
    pub(super) identities: Vec<(Key, [Key; 2])>,
    pub(super) listeners: Vec<(Key, (u64, Party))>,
    pub(super) pairs: Vec<(PairKey, Pair)>,
}

/// The connections of all instances.
pub(super) struct Connections {
    bounds: ConnectionBounds,
    /// Facts by the second in which they are due: which instances are at both ends may be reported
    /// after the connection.
    held: BTreeMap<u64, Vec<ConnectionFact>>,
    held_count: usize,
    /// Instances by pod and container.
    claims: HashMap<Key, Key, ahash::RandomState>,
    /// Instances by process: those that were reported lately, and before. A number is used again.
    processes: [HashMap<Key, Key, ahash::RandomState>; 2],
    /// Identities of owners: a pod's uid and its name, a unit.
    identities: HashMap<Key, [Key; 2], ahash::RandomState>,
    /// The process that listens at an endpoint, and since when that is known.
    listeners: HashMap<Key, (u64, Party), ahash::RandomState>,
    /// Open connections, with the step in which they were opened.
    open: HashMap<Key, (PairKey, u32), ahash::RandomState>,
    pairs: BTreeMap<PairKey, Pair>,
    /// The pairs that are learned from.
    edges: Calls,
    edge_count: usize,
    /// One of two to the power of this connections is learned from.
    sampling: u32,
    seen: u64,
    rated_ns: u64,
    pub(super) sampled_out: u64,
    pub(super) refused: u64,
}

/// Inserts an entry; a full table is emptied first, because what is in use is reported again.
fn insert<T>(into: &mut HashMap<Key, T, ahash::RandomState>, key: Key, value: T, capacity: usize) {
    if into.len() >= capacity && !into.contains_key(&key) {
        into.clear();
    }
    into.insert(key, value);
}

impl Connections {
    pub(super) fn new(bounds: ConnectionBounds) -> Self {
        Self {
            bounds,
            held: BTreeMap::new(),
            held_count: 0,
            claims: HashMap::default(),
            processes: [HashMap::default(), HashMap::default()],
            identities: HashMap::default(),
            listeners: HashMap::default(),
            open: HashMap::default(),
            pairs: BTreeMap::new(),
            edges: Calls::new(),
            edge_count: 0,
            sampling: 0,
            seen: 0,
            rated_ns: 0,
            sampled_out: 0,
            refused: 0,
        }
    }

    /// Sets the bounds. Tables that have more are emptied when they are added to.
    pub(super) fn limit(&mut self, bounds: ConnectionBounds) {
        self.bounds = bounds;
    }

    /// Which instance opens connections to which.
    pub(super) fn edges(&self) -> &Calls {
        &self.edges
    }

    /// Adds a connection, to be processed once it is due.
    pub(super) fn hold(&mut self, fact: ConnectionFact) {
        self.seen += 1;
        let mixed = fact.socket.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The end of one that is learned from counts at any rate.
        let ends = matches!(fact.change, ConnectionChange::Closed | ConnectionChange::Lost);
        if !ends && mixed.leading_zeros() < self.sampling {
            self.sampled_out += 1;
        } else if self.held_count >= self.bounds.held {
            self.refused += 1;
        } else {
            let due = fact.time_ns.saturating_add(HOLD_NS) / SECOND_NS;
            self.held.entry(due).or_default().push(fact);
            self.held_count += 1;
        }
    }

    /// Takes the connections that are due, and adapts the part that is learned from to their rate.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Vec<ConnectionFact> {
        let elapsed_ns = now_ns.saturating_sub(self.rated_ns);
        if elapsed_ns >= SECOND_NS {
            let waiting = self.seen as f64 * (HOLD_NS + SECOND_NS) as f64 / elapsed_ns as f64;
            let times = 2.0 * waiting / self.bounds.held.max(1) as f64;
            self.sampling = times.max(1.0).log2().ceil() as u32;
            (self.rated_ns, self.seen) = (now_ns, 0);
        }
        let (now, mut due) = (now_ns / SECOND_NS, Vec::new());
        while let Some(entry) = self.held.first_entry().filter(|entry| *entry.key() < now) {
            due.append(&mut entry.remove());
        }
        self.held_count -= due.len();
        due
    }

    /// Notes what identifies an owner.
    pub(super) fn identify(&mut self, owner: Key, identities: [Key; 2]) {
        if identities != [0; 2] {
            insert(&mut self.identities, owner, identities, self.bounds.names);
        }
    }

    /// Notes what identifies an instance. Of several instances with one identity, the order of
    /// arrival doesn't decide.
    pub(super) fn claim(&mut self, identity: Key, instance: Key, is_process: bool) {
        let claims = if is_process { &mut self.processes[0] } else { &mut self.claims };
        let least = claims.get(&identity).map_or(instance, |known| instance.min(*known));
        insert(claims, identity, least, self.bounds.names);
    }

    /// Notes who listens.
    pub(super) fn listen(&mut self, fact: &ListenerFact) {
        let known = self.listeners.get(&fact.endpoint);
        if known.is_none_or(|(since_ns, _)| *since_ns <= fact.time_ns) {
            let listener = (fact.time_ns, fact.party);
            insert(&mut self.listeners, fact.endpoint, listener, self.bounds.names);
        }
    }

    /// The instance that a process belongs to.
    fn instance(&mut self, party: Party) -> Key {
        let identities = self.identities.get(&party.owner).copied();
        let [lately, before] = &self.processes;
        let of_process = || lately.get(&party.part).or_else(|| before.get(&party.part));
        if let Some(instance) = self.claims.get(&party.part).or_else(of_process).copied() {
            // Others of the program, or of the pod, belong to it, too, if they are no other's: a
            // server's workers, or a container without spans.
            match identities {
                _ if party.program != 0 => self.claim(party.program, instance, false),
                Some([identity, _]) => self.claim(identity, instance, false),
                None => {}
            }
            return instance;
        }
        let mut known = [party.program].into_iter().chain(identities.into_iter().flatten());
        known.find_map(|at| self.claims.get(&at).copied()).unwrap_or(party.owner)
    }

    /// The instances at both ends of an attempt.
    fn ends(&mut self, fact: &ConnectionFact) -> PairKey {
        let named = Party { owner: fact.callee, ..Party::default() };
        // A pod or unit that the collector has found there may have replaced the listener's.
        let is_found = self.identities.contains_key(&fact.callee);
        let listener = self.listeners.get(&fact.endpoint).map(|(_, party)| *party);
        let listener = listener.filter(|party| !is_found || party.owner == fact.callee);
        (self.instance(fact.caller), self.instance(listener.unwrap_or(named)))
    }

    /// The pair of a connection that is due in a step, if it is learned from; keeps account of what
    /// is open.
    pub(super) fn pair(&mut self, fact: &ConnectionFact, at: u32) -> Option<PairKey> {
        if !fact.change.is_attempt() {
            let known = self.open.get(&fact.socket).map(|(pair, _)| *pair);
            if matches!(fact.change, ConnectionChange::Closed | ConnectionChange::Lost) {
                self.close(fact.socket);
            }
            return known;
        }
        let pair = self.ends(fact);
        if pair.0 == pair.1 || !self.has_room(&pair) {
            return None;
        }
        let known = self.pairs.entry(pair).or_insert(Pair { first: at, ..Pair::default() });
        known.last = known.last.max(at);
        let is_late = at > known.first;
        if fact.change == ConnectionChange::Opened {
            self.opened(fact.socket, pair, at);
        }
        (is_late && self.is_learned_from(pair)).then_some(pair)
    }

    /// Whether there is room for a pair. Pairs that were seen once make room.
    fn has_room(&mut self, key: &PairKey) -> bool {
        let is_full = self.pairs.len() >= 2 * self.bounds.pairs;
        if is_full && !self.pairs.contains_key(key) {
            self.pairs.retain(|_, pair| pair.is_lasting);
        }
        let has_room = self.pairs.len() < 2 * self.bounds.pairs || self.pairs.contains_key(key);
        self.refused += u64::from(!has_room);
        has_room
    }

    /// Whether a pair is learned from, which was seen in an earlier step.
    fn is_learned_from(&mut self, key: PairKey) -> bool {
        let Some(pair) = self.pairs.get_mut(&key) else { return false };
        if pair.is_lasting {
            return true;
        }
        let callees = self.edges.entry(key.0).or_default();
        pair.is_lasting = callees.len() < MAX_CALLEES && self.edge_count < self.bounds.pairs;
        if pair.is_lasting {
            callees.insert(key.1);
            self.edge_count += 1;
        } else {
            self.refused += 1;
        }
        pair.is_lasting
    }

    fn opened(&mut self, socket: Key, pair: PairKey, at: u32) {
        self.close(socket);
        let capacity = OPEN_OF_PAIR * self.bounds.pairs;
        if self.open.len() >= capacity {
            self.open.retain(|_, (_, opened)| at.saturating_sub(*opened) <= MAX_OPEN_STEPS);
            self.pairs.values_mut().for_each(|pair| pair.open = 0);
            for (pair, _) in self.open.values() {
                self.pairs.get_mut(pair).into_iter().for_each(|pair| pair.open += 1);
            }
        }
        if self.open.len() < capacity {
            self.open.insert(socket, (pair, at));
            self.pairs.get_mut(&pair).into_iter().for_each(|pair| pair.open += 1);
        } else {
            self.refused += 1;
        }
    }

    fn close(&mut self, socket: Key) {
        if let Some((pair, _)) = self.open.remove(&socket)
            && let Some(pair) = self.pairs.get_mut(&pair)
        {
            pair.open = pair.open.saturating_sub(1);
        }
    }

    /// The pairs that have open connections as a step begins, and how many these are.
    pub(super) fn open(&mut self, at: u32) -> Vec<(PairKey, u16)> {
        let open = self.pairs.iter().filter(|(_, pair)| pair.open > 0 && pair.first < at);
        let counts = open.map(|(key, pair)| (*key, u16::try_from(pair.open).unwrap_or(u16::MAX)));
        let mut counts: Vec<(PairKey, u16)> = counts.collect();
        counts.retain(|(key, _)| self.is_learned_from(*key));
        counts
    }

    /// Forgets pairs that `is_known` doesn't contain any more, and others that had no attempt for
    /// `idle` steps.
    pub(super) fn forget(&mut self, now: u32, idle: u32, is_known: impl Fn(&PairKey) -> bool) {
        self.pairs.retain(|key, pair| {
            let is_recent = now.saturating_sub(pair.last) <= idle;
            is_recent || pair.open > 0 || (pair.is_lasting && is_known(key))
        });
        self.note_edges();
    }

    fn note_edges(&mut self) {
        self.edges.clear();
        let lasting = self.pairs.iter().filter(|(_, pair)| pair.is_lasting);
        for ((caller, callee), _) in lasting {
            self.edges.entry(*caller).or_default().insert(*callee);
        }
        self.edge_count = self.edges.values().map(std::collections::BTreeSet::len).sum();
    }

    /// Forgets processes that weren't reported since the last call, if others were.
    pub(super) fn forget_processes(&mut self) {
        if !self.processes[0].is_empty() {
            self.processes[1] = std::mem::take(&mut self.processes[0]);
        }
    }

    /// The number of pairs.
    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether it is known between which instances a pair's connections are.
    pub(super) fn has_pair(&self, key: &PairKey) -> bool {
        self.pairs.contains_key(key)
    }

    /// The part that is kept over a restart. Processes are reported again within seconds, and what
    /// is open isn't known then.
    pub(super) fn save(&self) -> SavedConnections {
        fn in_order<T: Clone>(all: &HashMap<Key, T, ahash::RandomState>) -> Vec<(Key, T)> {
            let mut all: Vec<_> = all.iter().map(|(key, value)| (*key, value.clone())).collect();
            all.sort_by_key(|(key, _)| *key);
            all
        }
        let closed = |(key, pair): (&PairKey, &Pair)| (*key, Pair { open: 0, ..*pair });
        SavedConnections {
            claims: in_order(&self.claims),
            identities: in_order(&self.identities),
            listeners: in_order(&self.listeners),
            pairs: self.pairs.iter().map(closed).collect(),
        }
    }

    /// Restores what was kept.
    pub(super) fn restore(&mut self, saved: SavedConnections) {
        self.claims = saved.claims.into_iter().collect();
        self.identities = saved.identities.into_iter().collect();
        self.listeners = saved.listeners.into_iter().collect();
        self.pairs = saved.pairs.into_iter().collect();
        self.note_edges();
    }
}
