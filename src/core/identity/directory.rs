//! The entity directory.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::directory_stats::DirectoryStats;
use super::entities::{Container, Pod, Unit};
use super::table::Table;
use crate::counters::{Reading, Value};

/// Maximum sizes of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Pods, including those of other nodes, as owners of addresses.
    pub pods: usize,
    /// Containers of this node.
    pub containers: usize,
    /// Addresses of pods and services.
    pub addresses: usize,
    /// Units of this node.
    pub units: usize,
    /// Addresses and ports on which units accept connections.
    pub endpoints: usize,
    /// How long removed entries stay resolvable.
    pub retention_ns: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            pods: 32_768,
            containers: 8_192,
            addresses: 65_536,
            units: 4_096,
            endpoints: 4_096,
            retention_ns: 600_000_000_000,
        }
    }
}

/// Owner of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressOwner {
    /// A pod, by uid.
    Pod(Arc<str>),
    /// A service, by namespace and name.
    Service(Arc<str>, Arc<str>),
}

/// How long after its last failed connection a pod's fault may still be caused by it: the kubelet's
/// longest back-off.
const FAILED_CONNECTION_NS: u64 = 300_000_000_000;

/// Minimum time between two updates of the same failed connection.
const FAILURE_UPDATE_NS: u64 = 1_000_000_000;

/// The unit that a pod last failed to connect to, and when.
type FailedConnection = (Arc<str>, u64);

/// Claims to an address: more than one while the next pod has it already.
type Claims = Arc<[AddressOwner]>;

/// The entity directory. Each process has one, shared by its collectors.
pub struct Directory {
    pods: Table<Arc<str>, Arc<Pod>>,
    containers: Table<Arc<str>, Arc<Container>>,
    addresses: Table<IpAddr, Claims>,
    /// Pods by the inode of their network namespace.
    networks: Table<u64, Arc<str>>,
    units: Table<Arc<str>, Arc<Unit>>,
    /// Units by the address and port on which they accepted connections.
    endpoints: Table<SocketAddr, Arc<str>>,
    failed_connections: Table<Arc<str>, FailedConnection>,
    generation: AtomicU64,
    has_pod_source: AtomicBool,
    ambiguous: Value,
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
            pods: Table::new(bounds.pods, bounds.retention_ns),
            containers: Table::new(bounds.containers, bounds.retention_ns),
            addresses: Table::new(bounds.addresses, bounds.retention_ns),
            networks: Table::new(bounds.containers, bounds.retention_ns),
            units: Table::new(bounds.units, bounds.retention_ns),
            endpoints: Table::new(bounds.endpoints, bounds.retention_ns),
            failed_connections: Table::new(bounds.containers, bounds.retention_ns),
            generation: AtomicU64::new(1),
            has_pod_source: AtomicBool::new(false),
            ambiguous: Value::default(),
        }
    }

    /// Grows with every change: the result of a lookup is valid while it stays the same.
    #[must_use]
    pub fn generation(&self) -> u64 {
        // Acquire, paired with the Release in `changed`: a reader that sees the number sees the
        // change.
        self.generation.load(Ordering::Acquire)
    }

    /// Whether any source has reported a pod or container. Without one, waiting for a name is
    /// useless.
    #[must_use]
    pub fn has_pod_source(&self) -> bool {
        // Relaxed: a reader that is too early checks again for its next event.
        self.has_pod_source.load(Ordering::Relaxed)
    }

    /// Starts a new generation if anything changed.
    fn changed(&self, any: bool) {
        if any {
            // Release, paired with the Acquire in `generation`.
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Adds or updates a pod. It becomes the owner of its addresses, and gives up those that it no
    /// longer has.
    pub fn pod_seen(&self, pod: impl Into<Arc<Pod>>, now_ns: u64) {
        self.has_pod_source.store(true, Ordering::Relaxed);
        let pod: Arc<Pod> = pod.into();
        let before = self.pods.get(&pod.uid);
        let mut any = self.pods.set(Arc::clone(&pod.uid), now_ns, Arc::clone(&pod));
        if let Some(before) = before {
            for address in before.addresses.iter().filter(|a| !pod.addresses.contains(a)) {
                self.release(*address, &AddressOwner::Pod(Arc::clone(&pod.uid)), now_ns);
            }
        }
        if !pod.host_network {
            for address in &pod.addresses {
                any |= self.claim(*address, AddressOwner::Pod(Arc::clone(&pod.uid)), now_ns);
            }
        }
        self.changed(any);
    }

    /// Removes a deleted pod. It stays resolvable for a while.
    pub fn pod_gone(&self, uid: &str, now_ns: u64) {
        if let Some(pod) = self.pods.get(uid) {
            for address in &pod.addresses {
                self.release(*address, &AddressOwner::Pod(Arc::clone(&pod.uid)), now_ns);
            }
        }
        self.pods.remove(uid, now_ns);
        self.failed_connections.remove(uid, now_ns);
        self.changed(true);
    }

    /// Adds a pod of which the source knows only the names. Facts from the API server stay.
    pub fn pod_named(&self, uid: &str, namespace: &str, name: &str, now_ns: u64) {
        let any = self.pods.update(uid.into(), now_ns, |current| match current {
            Some(current) => Arc::clone(current),
            None => Arc::new(Pod {
                uid: uid.into(),
                name: name.into(),
                namespace: namespace.into(),
                ..Pod::default()
            }),
        });
        self.changed(any);
    }

    /// Removes a pod on the report of a source that knows only its names. A pod that the API server
    /// has reported stays until the API server reports its removal.
    pub fn pod_left(&self, uid: &str, now_ns: u64) {
        if self.pods.get(uid).is_some_and(|pod| pod.node.is_empty()) {
            self.pod_gone(uid, now_ns);
        }
    }

    /// Adds an address of a pod, on the report of the component that assigned it.
    pub fn pod_address_seen(&self, uid: &str, address: IpAddr, now_ns: u64) {
        let any = self.claim(address, AddressOwner::Pod(uid.into()), now_ns);
        self.changed(any);
    }

    /// Removes an address of a pod.
    pub fn pod_address_gone(&self, uid: &str, address: IpAddr, now_ns: u64) {
        self.release(address, &AddressOwner::Pod(uid.into()), now_ns);
        self.changed(true);
    }

    /// Adds a service with its addresses.
    pub fn service_seen(&self, namespace: &str, name: &str, addresses: &[IpAddr], now_ns: u64) {
        let owner = AddressOwner::Service(namespace.into(), name.into());
        for address in addresses {
            self.claim(*address, owner.clone(), now_ns);
        }
        self.changed(!addresses.is_empty());
    }

    /// Removes addresses of a service.
    pub fn service_gone(&self, namespace: &str, name: &str, addresses: &[IpAddr], now_ns: u64) {
        let owner = AddressOwner::Service(namespace.into(), name.into());
        for address in addresses {
            self.release(*address, &owner, now_ns);
        }
        self.changed(true);
    }

    fn claim(&self, address: IpAddr, owner: AddressOwner, now_ns: u64) -> bool {
        // A released address keeps its last owner for late events, until the next one claims it.
        let is_live = self.addresses.is_live(&address);
        self.addresses.update(address, now_ns, |claims| match claims {
            Some(claims) if is_live && claims.contains(&owner) => Arc::clone(claims),
            Some(claims) if is_live => claims.iter().cloned().chain([owner]).collect(),
            _ => Arc::new([owner]),
        })
    }

    fn release(&self, address: IpAddr, owner: &AddressOwner, now_ns: u64) {
        let Some(claims) = self.addresses.get(&address) else {
            return;
        };
        if claims.iter().all(|c| c == owner) {
            self.addresses.remove(&address, now_ns);
        } else if claims.contains(owner) {
            let remaining: Claims = claims.iter().filter(|c| *c != owner).cloned().collect();
            self.addresses.set(address, now_ns, remaining);
        }
    }

    /// Adds or updates a container. Empty fields are filled from what other sources have reported.
    pub fn container_seen(&self, mut container: Container, now_ns: u64) {
        self.has_pod_source.store(true, Ordering::Relaxed);
        let id = Arc::clone(&container.id);
        let any = self.containers.update(id, now_ns, |before| {
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

    /// Removes a container. It stays resolvable for a while.
    pub fn container_gone(&self, id: &str, now_ns: u64) {
        self.containers.remove(id, now_ns);
    }

    /// Adds the network namespace of a pod; `inode` is that of its `nsfs` file.
    pub fn network_seen(&self, inode: u64, pod_uid: &str, now_ns: u64) {
        let any = self.networks.set(inode, now_ns, pod_uid.into());
        self.changed(any);
    }

    /// Removes a network namespace. The kernel reuses inodes.
    pub fn network_gone(&self, inode: u64, now_ns: u64) {
        self.networks.remove(&inode, now_ns);
    }

    /// Adds or updates a unit.
    pub fn unit_seen(&self, unit: Unit, now_ns: u64) {
        let any = self.units.set(Arc::clone(&unit.name), now_ns, Arc::new(unit));
        self.changed(any);
    }

    /// Removes an unloaded unit.
    pub fn unit_gone(&self, name: &str, now_ns: u64) {
        self.units.remove(name, now_ns);
    }

    /// Notes that a unit accepted a connection at an endpoint. It stays the unit of the endpoint
    /// until another one accepts there: later refusals are because this unit is down.
    pub fn unit_serves(&self, endpoint: SocketAddr, unit: &str, now_ns: u64) {
        // Nearly always the unit is the same, and a read needs no lock.
        if self.endpoints.get(&endpoint).is_none_or(|current| *current != *unit) {
            self.endpoints.set(endpoint, now_ns, unit.into());
        }
    }

    /// The unit of an endpoint.
    #[must_use]
    pub fn unit_at(&self, endpoint: SocketAddr) -> Option<Arc<str>> {
        self.endpoints.get(&endpoint)
    }

    /// Notes that a pod's connection to a unit failed; by the wall clock.
    pub fn pod_connection_failed(&self, uid: &str, unit: Arc<str>, wall_ns: u64) {
        // In a storm of failures not each one is written.
        let is_recent = |(last, at_ns): FailedConnection| {
            last == unit && wall_ns.saturating_sub(at_ns) < FAILURE_UPDATE_NS
        };
        if !self.failed_connections.get(uid).is_some_and(is_recent) {
            self.failed_connections.set(uid.into(), wall_ns, (unit, wall_ns));
        }
    }

    /// The unit that a pod recently failed to connect to; by the wall clock.
    #[must_use]
    pub fn unreachable_unit(&self, uid: &str, wall_ns: u64) -> Option<Arc<str>> {
        let (unit, at_ns) = self.failed_connections.get(uid)?;
        (wall_ns.saturating_sub(at_ns) <= FAILED_CONNECTION_NS).then_some(unit)
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

    /// The uid of the pod with this network namespace.
    #[must_use]
    pub fn pod_of_network(&self, inode: u64) -> Option<Arc<str>> {
        self.networks.get(&inode)
    }

    /// The owner of an address; `None` if several claim it, which is counted.
    #[must_use]
    pub fn address_owner(&self, address: IpAddr) -> Option<AddressOwner> {
        match &*self.addresses.get(&address)? {
            [owner] => Some(owner.clone()),
            _ => {
                // Relaxed: read for display.
                self.ambiguous.add(1);
                None
            }
        }
    }

    /// All live pods, unordered.
    #[must_use]
    pub fn live_pods(&self) -> Vec<Arc<Pod>> {
        self.pods.live_entries().into_iter().map(|(_, pod)| pod).collect()
    }

    /// Reads the counters: the gauges are the sizes of the tables.
    pub fn readings(&self) -> impl Iterator<Item = Reading> + use<> {
        let stats = DirectoryStats::default();
        stats.pods.set(self.pods.len() as u64);
        stats.containers.set(self.containers.len() as u64);
        stats.addresses.set(self.addresses.len() as u64);
        stats.networks.set(self.networks.len() as u64);
        stats.units.set(self.units.len() as u64);
        stats.endpoints.set(self.endpoints.len() as u64);
        let losses = [
            self.pods.losses(),
            self.containers.losses(),
            self.addresses.losses(),
            self.networks.losses(),
            self.units.losses(),
            self.endpoints.losses(),
            self.failed_connections.losses(),
        ];
        stats.refused.set(losses.iter().map(|table| table.refused).sum());
        stats.evicted.set(losses.iter().map(|table| table.evicted).sum());
        stats.ambiguous.set(self.ambiguous.get());
        stats.readings()
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
    fn address_moves_to_the_next_pod() {
        let directory = Directory::default();
        directory.pod_seen(pod("a", &[A]), 1);
        assert_eq!(directory.address_owner(A), Some(AddressOwner::Pod("a".into())));
        directory.pod_gone("a", 2);
        assert_eq!(
            directory.address_owner(A),
            Some(AddressOwner::Pod("a".into())),
            "resolvable for late events"
        );
        assert_eq!(directory.pod("a").unwrap().name.as_ref(), "web");
        directory.pod_seen(pod("b", &[A]), 3);
        assert_eq!(directory.address_owner(A), Some(AddressOwner::Pod("b".into())));
    }

    #[test]
    fn ambiguous_address_has_no_owner() {
        let directory = Directory::default();
        directory.pod_seen(pod("a", &[A]), 1);
        directory.pod_seen(pod("b", &[A]), 2);
        assert_eq!(directory.address_owner(A), None);
        assert_eq!(directory.ambiguous.get(), 1);
        directory.pod_seen(pod("a", &[]), 3);
        assert_eq!(directory.address_owner(A), Some(AddressOwner::Pod("b".into())));
    }

    #[test]
    fn units_are_found_by_endpoint_and_by_failed_connection() {
        const SECOND: u64 = 1_000_000_000;
        let directory = Directory::default();
        let (http, other) = (SocketAddr::new(A, 80), SocketAddr::new(A, 81));
        directory.unit_serves(http, "nginx.service", 1);
        directory.unit_serves(http, "nginx.service", 2);
        assert_eq!(directory.unit_at(http).as_deref(), Some("nginx.service"));
        assert_eq!(directory.unit_at(other), None);
        directory.pod_connection_failed("a", "nginx.service".into(), 10 * SECOND);
        let unreachable =
            |uid, at| directory.unreachable_unit(uid, at).as_deref().map(str::to_owned);
        assert_eq!(unreachable("a", 12 * SECOND).as_deref(), Some("nginx.service"));
        assert_eq!(unreachable("b", 12 * SECOND), None);
        assert_eq!(unreachable("a", 400 * SECOND), None, "long ago");
        directory.unit_serves(http, "caddy.service", 3);
        assert_eq!(directory.unit_at(http).as_deref(), Some("caddy.service"), "the endpoint moved");
    }

    #[test]
    fn pod_in_host_network_owns_no_address() {
        let directory = Directory::default();
        directory.pod_seen(Pod { host_network: true, ..pod("a", &[A]) }, 1);
        assert_eq!(directory.address_owner(A), None);
    }

    #[test]
    fn source_of_names_does_not_override_the_api_server() {
        let directory = Directory::default();
        directory.pod_named("a", "shop", "web-0", 1);
        directory.pod_address_seen("a", A, 1);
        assert_eq!(directory.address_owner(A), Some(AddressOwner::Pod("a".into())));
        directory.pod_address_gone("a", A, 2);
        directory.pod_left("a", 2);
        assert!(directory.live_pods().is_empty());
        assert_eq!(
            directory.pod("a").unwrap().namespace.as_ref(),
            "shop",
            "resolvable for late events"
        );
        directory.pod_seen(Pod { node: "n".into(), ..pod("b", &[]) }, 3);
        directory.pod_named("b", "other", "name", 4);
        directory.pod_left("b", 5);
        assert_eq!(directory.pod("b").unwrap().name.as_ref(), "web");
        assert_eq!(directory.live_pods().len(), 1);
        directory.pod_address_seen("b", A, 6);
        directory.pod_address_gone("b", A, 7);
        assert_eq!(
            directory.address_owner(A),
            Some(AddressOwner::Pod("b".into())),
            "resolvable for late events"
        );
    }

    #[test]
    fn container_is_merged_from_two_sources() {
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
