//! All tables together, and what they answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Container, Pod, Table, Unit};

/// How much the directory may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Pods, those of other nodes that an address may belong to among them.
    pub pods: usize,
    /// Containers of this node.
    pub containers: usize,
    /// Addresses of pods and services.
    pub addresses: usize,
    /// Units of this node.
    pub units: usize,
    /// Addresses and ports that units serve.
    pub endpoints: usize,
    /// How long what is gone stays resolvable.
    pub kept_ns: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            pods: 32_768,
            containers: 8_192,
            addresses: 65_536,
            units: 4_096,
            endpoints: 4_096,
            kept_ns: 600_000_000_000,
        }
    }
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A pod's, by uid.
    Pod(Arc<str>),
    /// A service's, by namespace and name.
    Service(Arc<str>, Arc<str>),
}

/// How long after it was turned away last a pod's trouble may still come from there: the kubelet's longest back-off.
const TURNED_AWAY_NS: u64 = 300_000_000_000;

/// How often it is noted that it was turned away once more.
const NOTED_EVERY_NS: u64 = 1_000_000_000;

/// The unit that a pod's connections failed to reach last, and when.
type TurnedAway = (Arc<str>, u64);

/// Claims to an address: more than one while a pod's successor has it already.
type Claims = Arc<[Whose]>;

/// The directory. One for a process; collectors share it.
pub struct Directory {
    pods: Table<Arc<str>, Arc<Pod>>,
    containers: Table<Arc<str>, Arc<Container>>,
    addresses: Table<IpAddr, Claims>,
    /// Pods by the inode of their network namespace.
    networks: Table<u64, Arc<str>>,
    units: Table<Arc<str>, Arc<Unit>>,
    /// Units by an address and port at which they took connections.
    endpoints: Table<SocketAddr, Arc<str>>,
    turned_away: Table<Arc<str>, TurnedAway>,
    generation: AtomicU64,
    names_come: AtomicBool,
    ambiguous: AtomicU64,
}

impl Default for Directory {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}

impl Directory {
    /// An empty directory.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            pods: Table::new(bounds.pods, bounds.kept_ns),
            containers: Table::new(bounds.containers, bounds.kept_ns),
            addresses: Table::new(bounds.addresses, bounds.kept_ns),
            networks: Table::new(bounds.containers, bounds.kept_ns),
            units: Table::new(bounds.units, bounds.kept_ns),
            endpoints: Table::new(bounds.endpoints, bounds.kept_ns),
            turned_away: Table::new(bounds.containers, bounds.kept_ns),
            generation: AtomicU64::new(1),
            names_come: AtomicBool::new(false),
            ambiguous: AtomicU64::new(0),
        }
    }

    /// Grows with every change: an answer that was taken at this generation is still right.
    #[must_use]
    pub fn generation(&self) -> u64 {
        // Acquire, paired with the Release in `changed`: who sees the number sees the change.
        self.generation.load(Ordering::Acquire)
    }

    /// Whether anybody here tells of pods or containers: else waiting for a name is of no use.
    #[must_use]
    pub fn names_come(&self) -> bool {
        // Relaxed: whoever looks a moment too early looks again at the next event.
        self.names_come.load(Ordering::Relaxed)
    }

    fn changed(&self, any: bool) {
        if any {
            // Release, paired with the Acquire in `generation`.
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// A pod was seen, with what is known of it now. Its addresses are its own from here on, and those
    /// it no longer has are nobody's.
    pub fn pod_seen(&self, pod: impl Into<Arc<Pod>>, now_ns: u64) {
        self.names_come.store(true, Ordering::Relaxed);
        let pod: Arc<Pod> = pod.into();
        let before = self.pods.get(&pod.uid);
        let mut any = self.pods.set(Arc::clone(&pod.uid), now_ns, Arc::clone(&pod));
        if let Some(before) = before {
            for address in before.addresses.iter().filter(|a| !pod.addresses.contains(a)) {
                self.release(*address, &Whose::Pod(Arc::clone(&pod.uid)), now_ns);
            }
        }
        if !pod.host_network {
            for address in &pod.addresses {
                any |= self.claim(*address, Whose::Pod(Arc::clone(&pod.uid)), now_ns);
            }
        }
        self.changed(any);
    }

    /// A pod was deleted. It stays resolvable for a while.
    pub fn pod_gone(&self, uid: &str, now_ns: u64) {
        if let Some(pod) = self.pods.get(uid) {
            for address in &pod.addresses {
                self.release(*address, &Whose::Pod(Arc::clone(&pod.uid)), now_ns);
            }
        }
        self.pods.gone(uid, now_ns);
        self.turned_away.gone(uid, now_ns);
        self.changed(true);
    }

    /// A source that knows nothing more of a pod than its names saw it. What the API server says stays.
    pub fn pod_named(&self, uid: &str, namespace: &str, name: &str, now_ns: u64) {
        let any = self.pods.change(uid.into(), now_ns, |known| match known {
            Some(known) => Arc::clone(known),
            None => Arc::new(Pod {
                uid: uid.into(),
                name: name.into(),
                namespace: namespace.into(),
                ..Pod::default()
            }),
        });
        self.changed(any);
    }

    /// A pod left this node, says a source that knows its names only. One that the API server told of stays
    /// until that says the same.
    pub fn pod_left(&self, uid: &str, now_ns: u64) {
        if self.pods.get(uid).is_some_and(|pod| pod.node.is_empty()) {
            self.pod_gone(uid, now_ns);
        }
    }

    /// A pod was given an address, says who gave it.
    pub fn pod_address_seen(&self, uid: &str, address: IpAddr, now_ns: u64) {
        let any = self.claim(address, Whose::Pod(uid.into()), now_ns);
        self.changed(any);
    }

    /// A pod's address was taken back.
    pub fn pod_address_gone(&self, uid: &str, address: IpAddr, now_ns: u64) {
        self.release(address, &Whose::Pod(uid.into()), now_ns);
        self.changed(true);
    }

    /// A service has these addresses, and no others.
    pub fn service_seen(&self, namespace: &str, name: &str, addresses: &[IpAddr], now_ns: u64) {
        let whose = Whose::Service(namespace.into(), name.into());
        for address in addresses {
            self.claim(*address, whose.clone(), now_ns);
        }
        self.changed(!addresses.is_empty());
    }

    /// A service no longer has these addresses.
    pub fn service_gone(&self, namespace: &str, name: &str, addresses: &[IpAddr], now_ns: u64) {
        let whose = Whose::Service(namespace.into(), name.into());
        for address in addresses {
            self.release(*address, &whose, now_ns);
        }
        self.changed(true);
    }

    fn claim(&self, address: IpAddr, whose: Whose, now_ns: u64) -> bool {
        // Of an address that is nobody's any more the old owner is kept for late events, until the
        // next one comes.
        let lives = self.addresses.lives(&address);
        self.addresses.change(address, now_ns, |claims| match claims {
            Some(claims) if lives && claims.contains(&whose) => Arc::clone(claims),
            Some(claims) if lives => claims.iter().cloned().chain([whose]).collect(),
            _ => Arc::new([whose]),
        })
    }

    fn release(&self, address: IpAddr, whose: &Whose, now_ns: u64) {
        let Some(claims) = self.addresses.get(&address) else {
            return;
        };
        if claims.iter().all(|c| c == whose) {
            self.addresses.gone(&address, now_ns);
        } else if claims.contains(whose) {
            let left: Claims = claims.iter().filter(|c| *c != whose).cloned().collect();
            self.addresses.set(address, now_ns, left);
        }
    }

    /// A container was seen. What another source said of it stays where this one says nothing.
    pub fn container_seen(&self, mut container: Container, now_ns: u64) {
        self.names_come.store(true, Ordering::Relaxed);
        let id = Arc::clone(&container.id);
        let any = self.containers.change(id, now_ns, |before| {
            if let Some(before) = before {
                container.complete(before);
            }
            match before {
                Some(before) if **before == container => Arc::clone(before),
                _ => Arc::new(container),
            }
        });
        self.changed(any);
    }

    /// A container was removed. It stays resolvable for a while.
    pub fn container_gone(&self, id: &str, now_ns: u64) {
        self.containers.gone(id, now_ns);
    }

    /// A pod's network namespace was made; `inode` is that of its `nsfs` file.
    pub fn network_seen(&self, inode: u64, pod_uid: &str, now_ns: u64) {
        let any = self.networks.set(inode, now_ns, pod_uid.into());
        self.changed(any);
    }

    /// A network namespace is gone. Inodes are used again.
    pub fn network_gone(&self, inode: u64, now_ns: u64) {
        self.networks.gone(&inode, now_ns);
    }

    /// A unit has a (new) run.
    pub fn unit_seen(&self, unit: Unit, now_ns: u64) {
        let any = self.units.set(Arc::clone(&unit.name), now_ns, Arc::new(unit));
        self.changed(any);
    }

    /// A unit was unloaded.
    pub fn unit_gone(&self, name: &str, now_ns: u64) {
        self.units.gone(name, now_ns);
    }

    /// A unit took a connection here. It is known as the one to be reached here until another unit takes one: whoever is
    /// refused here later was refused because that unit is away.
    pub fn unit_serves(&self, endpoint: SocketAddr, unit: &str, now_ns: u64) {
        // Nearly always it is known already, and a reader needs no lock.
        if self.endpoints.get(&endpoint).is_none_or(|known| *known != *unit) {
            self.endpoints.set(endpoint, now_ns, unit.into());
        }
    }

    /// The unit that is to be reached here.
    #[must_use]
    pub fn unit_at(&self, endpoint: SocketAddr) -> Option<Arc<str>> {
        self.endpoints.get(&endpoint)
    }

    /// A pod's connection to a unit failed; by the wall clock.
    pub fn pod_turned_away(&self, uid: &str, unit: Arc<str>, wall_ns: u64) {
        // A storm of refusals isn't written down one by one.
        let is_known =
            |(by, at_ns): TurnedAway| by == unit && wall_ns.saturating_sub(at_ns) < NOTED_EVERY_NS;
        if !self.turned_away.get(uid).is_some_and(is_known) {
            self.turned_away.set(uid.into(), wall_ns, (unit, wall_ns));
        }
    }

    /// The unit that a pod couldn't reach lately; by the wall clock.
    #[must_use]
    pub fn turned_away_by(&self, uid: &str, wall_ns: u64) -> Option<Arc<str>> {
        let (unit, at_ns) = self.turned_away.get(uid)?;
        (wall_ns.saturating_sub(at_ns) <= TURNED_AWAY_NS).then_some(unit)
    }

    /// The pod with this uid.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.pods.get(uid)
    }

    /// The container with this id.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<Arc<Container>> {
        self.containers.get(id)
    }

    /// The unit with this name.
    #[must_use]
    pub fn unit(&self, name: &str) -> Option<Arc<Unit>> {
        self.units.get(name)
    }

    /// The uid of the pod whose network namespace this is.
    #[must_use]
    pub fn pod_of_network(&self, inode: u64) -> Option<Arc<str>> {
        self.networks.get(&inode)
    }

    /// Whose an address is: nobody's where two claim it, which is counted.
    #[must_use]
    pub fn whose(&self, address: IpAddr) -> Option<Whose> {
        match &*self.addresses.get(&address)? {
            [one] => Some(one.clone()),
            _ => {
                // Relaxed: read for display.
                self.ambiguous.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// The living pods, in no order.
    #[must_use]
    pub fn living_pods(&self) -> Vec<Arc<Pod>> {
        self.pods.living().into_iter().map(|(_, pod)| pod).collect()
    }

    /// Named numbers for `/status` and `/metrics`: sizes, evictions, refusals, ambiguous answers.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let refused = self.pods.refused()
            + self.containers.refused()
            + self.addresses.refused()
            + self.networks.refused()
            + self.units.refused()
            + self.endpoints.refused()
            + self.turned_away.refused();
        let evicted = self.pods.evicted()
            + self.containers.evicted()
            + self.addresses.evicted()
            + self.networks.evicted()
            + self.units.evicted()
            + self.endpoints.evicted()
            + self.turned_away.evicted();
        vec![
            ("pods", self.pods.len() as u64),
            ("containers", self.containers.len() as u64),
            ("addresses", self.addresses.len() as u64),
            ("networks", self.networks.len() as u64),
            ("units", self.units.len() as u64),
            ("endpoints", self.endpoints.len() as u64),
            ("refused", refused),
            ("evicted", evicted),
            ("ambiguous", self.ambiguous.load(Ordering::Relaxed)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn pod(uid: &str, addresses: &[IpAddr]) -> Pod {
        Pod { uid: uid.into(), name: "web".into(), addresses: addresses.into(), ..Pod::default() }
    }

    #[test]
    fn an_address_goes_from_one_pod_to_the_next() {
        let directory = Directory::default();
        directory.pod_seen(pod("a", &[A]), 1);
        assert_eq!(directory.whose(A), Some(Whose::Pod("a".into())));
        directory.pod_gone("a", 2);
        assert_eq!(directory.whose(A), Some(Whose::Pod("a".into())), "late events find it");
        assert_eq!(directory.pod("a").unwrap().name.as_ref(), "web");
        directory.pod_seen(pod("b", &[A]), 3);
        assert_eq!(directory.whose(A), Some(Whose::Pod("b".into())));
    }

    #[test]
    fn what_could_be_two_is_none() {
        let directory = Directory::default();
        directory.pod_seen(pod("a", &[A]), 1);
        directory.pod_seen(pod("b", &[A]), 2);
        assert_eq!(directory.whose(A), None);
        assert!(directory.counters().contains(&("ambiguous", 1)));
        directory.pod_seen(pod("a", &[]), 3);
        assert_eq!(directory.whose(A), Some(Whose::Pod("b".into())));
    }

    #[test]
    fn a_unit_is_known_by_where_it_took_connections_and_a_pod_by_who_turned_it_away() {
        const SECOND: u64 = 1_000_000_000;
        let directory = Directory::default();
        let (http, other) = (SocketAddr::new(A, 80), SocketAddr::new(A, 81));
        directory.unit_serves(http, "nginx.service", 1);
        directory.unit_serves(http, "nginx.service", 2);
        assert_eq!(directory.unit_at(http).as_deref(), Some("nginx.service"));
        assert_eq!(directory.unit_at(other), None);
        directory.pod_turned_away("a", "nginx.service".into(), 10 * SECOND);
        let by = |uid, at| directory.turned_away_by(uid, at).as_deref().map(str::to_owned);
        assert_eq!(by("a", 12 * SECOND).as_deref(), Some("nginx.service"));
        assert_eq!(by("b", 12 * SECOND), None);
        assert_eq!(by("a", 400 * SECOND), None, "that was long ago");
        directory.unit_serves(http, "caddy.service", 3);
        assert_eq!(directory.unit_at(http).as_deref(), Some("caddy.service"), "it moved there");
    }

    #[test]
    fn a_pod_in_its_nodes_network_owns_no_address() {
        let directory = Directory::default();
        directory.pod_seen(Pod { host_network: true, ..pod("a", &[A]) }, 1);
        assert_eq!(directory.whose(A), None);
    }

    #[test]
    fn a_source_of_names_alone_neither_overwrites_nor_ends_what_the_api_says() {
        let directory = Directory::default();
        directory.pod_named("a", "shop", "web-0", 1);
        directory.pod_address_seen("a", A, 1);
        assert_eq!(directory.whose(A), Some(Whose::Pod("a".into())));
        directory.pod_address_gone("a", A, 2);
        directory.pod_left("a", 2);
        assert!(directory.living_pods().is_empty());
        assert_eq!(directory.pod("a").unwrap().namespace.as_ref(), "shop", "late events find it");
        directory.pod_seen(Pod { node: "n".into(), ..pod("b", &[]) }, 3);
        directory.pod_named("b", "other", "name", 4);
        directory.pod_left("b", 5);
        assert_eq!(directory.pod("b").unwrap().name.as_ref(), "web");
        assert_eq!(directory.living_pods().len(), 1);
        directory.pod_address_seen("b", A, 6);
        directory.pod_address_gone("b", A, 7);
        assert_eq!(directory.whose(A), Some(Whose::Pod("b".into())), "kept for late events");
    }

    #[test]
    fn two_sources_complete_a_container() {
        let directory = Directory::default();
        let container = |name: &str, image: &str| Container {
            id: "c".into(),
            name: name.into(),
            image: image.into(),
            ..Container::default()
        };
        directory.container_seen(container("", "nginx"), 1);
        let before = directory.generation();
        directory.container_seen(container("web", ""), 2);
        assert!(directory.generation() > before);
        let after = directory.generation();
        directory.container_seen(container("", "nginx"), 3);
        assert_eq!(directory.generation(), after, "nothing new");
        let c = directory.container("c").unwrap();
        assert_eq!((c.name.as_ref(), c.image.as_ref()), ("web", "nginx"));
    }
}
