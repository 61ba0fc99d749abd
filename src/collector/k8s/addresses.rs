//! Services and the pods behind them: the owner of each address in the cluster, from Services and
//! EndpointSlices.
//!
//! To save memory, an endpoint is an address and a shared reference to its pod's uid.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::interner::Interner;
use super::objects::{Endpoints, ObjectRef, Service, Text};
use tapio_core::identity::{Directory, Pod};

/// A pod, as far as slices describe it.
#[derive(Debug)]
struct Backend {
    pod: Arc<Pod>,
    /// Services that select it, with the number of their endpoints for it.
    services: Vec<(Arc<str>, u32)>,
}

/// An endpoint of a slice: address and the pod's uid.
type SliceEndpoint = (IpAddr, Arc<str>);

struct Slice {
    service: Arc<str>,
    endpoints: Box<[SliceEndpoint]>,
}

struct ServiceEntry {
    namespace: Arc<str>,
    name: Arc<str>,
    addresses: Box<[IpAddr]>,
}

/// Writes pods behind services into the entity directory.
pub(super) struct DirectoryWriter<'a> {
    pub(super) directory: &'a Directory,
    pub(super) now_ns: u64,
    /// Whether a pod is watched itself. Its own object is more complete than a slice and has
    /// precedence.
    pub(super) is_watched: &'a dyn Fn(&str) -> bool,
}

/// A service that began, or ceased, to select a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) namespace: Arc<str>,
    pub(super) service: Arc<str>,
    pub(super) pod_uid: Arc<str>,
    pub(super) ended: bool,
}

/// Services and slices by uid, and the pods behind them.
#[derive(Default)]
pub(super) struct ServiceAddresses {
    services: HashMap<Text, ServiceEntry>,
    slices: HashMap<Text, Slice>,
    backends: HashMap<Arc<str>, Backend>,
    interner: Interner,
}

fn parse_all<'a>(texts: impl IntoIterator<Item = &'a Text>) -> Vec<IpAddr> {
    // `None` and the empty text mean no address.
    texts.into_iter().filter_map(|t| t.parse().ok()).collect()
}

impl ServiceAddresses {
    pub(super) fn apply_service(&mut self, service: &Service, directory: &Directory, now_ns: u64) {
        let spec = &service.spec;
        let ingress = service.status.load_balancer.ingress.iter().map(|i| &i.ip);
        let mut addresses = parse_all([&spec.cluster_ip].into_iter().chain(&spec.cluster_ips));
        addresses.extend(parse_all(spec.external_ips.iter().chain(ingress)));
        addresses.sort_unstable();
        addresses.dedup();
        let meta = &service.metadata;
        let entry = ServiceEntry {
            namespace: (&*meta.namespace).into(),
            name: (&*meta.name).into(),
            addresses: addresses.into(),
        };
        directory.service_seen(&entry.namespace, &entry.name, &entry.addresses, now_ns);
        if let Some(before) = self.services.insert(meta.uid.clone(), entry) {
            let now = &self.services[&meta.uid].addresses;
            let lost: Vec<IpAddr> =
                before.addresses.iter().copied().filter(|a| !now.contains(a)).collect();
            if !lost.is_empty() {
                directory.service_gone(&before.namespace, &before.name, &lost, now_ns);
            }
        }
    }

    pub(super) fn remove_service(&mut self, uid: &str, directory: &Directory, now_ns: u64) {
        if let Some(gone) = self.services.remove(uid) {
            directory.service_gone(&gone.namespace, &gone.name, &gone.addresses, now_ns);
        }
    }

    /// Applies a slice. Returns the pods that its service now selects, and those that it no longer
    /// selects.
    pub(super) fn apply_slice(
        &mut self,
        slice: &Endpoints,
        writer: &DirectoryWriter<'_>,
    ) -> Vec<Selection> {
        let meta = &slice.metadata;
        // A slice has its service's name in a label; an Endpoints object has the same name.
        let service = meta.labels.get("kubernetes.io/service-name").unwrap_or(&meta.name);
        let service = self.interner.intern(service);
        let mut out = Vec::new();
        let mut added = Vec::new();
        for (address, target, node) in targets(slice) {
            let Ok(address) = address.parse::<IpAddr>() else { continue };
            if &*target.kind != "Pod" || target.uid.is_empty() {
                continue;
            }
            let endpoint = PodEndpoint { target, node, address, service: &service };
            let uid = self.add(&endpoint, writer, &mut out);
            added.push((address, uid));
        }
        let new = Slice { service, endpoints: added.into() };
        // Release the old slice after adding the new one: a pod in both stays in its service.
        if let Some(before) = self.slices.insert(meta.uid.clone(), new) {
            self.release(&before, writer, &mut out);
        }
        out
    }

    pub(super) fn remove_slice(
        &mut self,
        uid: &str,
        writer: &DirectoryWriter<'_>,
    ) -> Vec<Selection> {
        let mut out = Vec::new();
        if let Some(gone) = self.slices.remove(uid) {
            self.release(&gone, writer, &mut out);
        }
        out
    }

    /// The uids of services that a complete list doesn't contain.
    pub(super) fn missing_services(&self, seen: &HashSet<Text>) -> Vec<Text> {
        self.services.keys().filter(|uid| !seen.contains(*uid)).cloned().collect()
    }

    /// The uids of slices that a complete list doesn't contain.
    pub(super) fn missing_slices(&self, seen: &HashSet<Text>) -> Vec<Text> {
        self.slices.keys().filter(|uid| !seen.contains(*uid)).cloned().collect()
    }

    /// The services that select a pod.
    pub(super) fn services_of(&self, uid: &str) -> Vec<Arc<str>> {
        let services = self.backends.get(uid).map(|b| &b.services);
        services.into_iter().flatten().map(|(service, _)| Arc::clone(service)).collect()
    }

    /// The numbers of services, slices and pods behind them.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.services.len(), self.slices.len(), self.backends.len()]
    }

    /// Adds an endpoint to its pod. Returns the pod's uid.
    fn add(
        &mut self,
        endpoint: &PodEndpoint<'_>,
        writer: &DirectoryWriter<'_>,
        out: &mut Vec<Selection>,
    ) -> Arc<str> {
        let target = endpoint.target;
        if !self.backends.contains_key(&*target.uid) {
            let uid: Arc<str> = (&*target.uid).into();
            let pod = Arc::new(Pod {
                uid: Arc::clone(&uid),
                name: (&*target.name).into(),
                namespace: self.interner.intern(&target.namespace),
                node: self.interner.intern(endpoint.node),
                ..Pod::default()
            });
            self.backends.insert(uid, Backend { pod, services: Vec::with_capacity(1) });
        }
        let Some(backend) = self.backends.get_mut(&*target.uid) else {
            return (&*target.uid).into();
        };
        let uid = Arc::clone(&backend.pod.uid);
        let mut changed = !backend.pod.addresses.contains(&endpoint.address);
        match backend.services.iter_mut().find(|(s, _)| s == endpoint.service) {
            Some((_, endpoints)) => *endpoints += 1,
            None => {
                backend.services.push((Arc::clone(endpoint.service), 1));
                out.push(selection(backend, endpoint.service, false));
                changed = true;
            }
        }
        if changed {
            refresh(backend, Some(endpoint.address), writer);
        }
        uid
    }

    /// Removes a slice's endpoints from their pods.
    fn release(&mut self, slice: &Slice, writer: &DirectoryWriter<'_>, out: &mut Vec<Selection>) {
        for (_, uid) in &slice.endpoints {
            let Some(backend) = self.backends.get_mut(uid) else { continue };
            let at = backend.services.iter().position(|(s, _)| *s == slice.service);
            let Some(at) = at else { continue };
            backend.services[at].1 -= 1;
            if backend.services[at].1 > 0 {
                continue;
            }
            backend.services.remove(at);
            out.push(selection(backend, &slice.service, true));
            if !backend.services.is_empty() {
                refresh(backend, None, writer);
                continue;
            }
            if !(writer.is_watched)(uid) {
                writer.directory.pod_gone(uid, writer.now_ns);
            }
            self.backends.remove(uid);
        }
    }
}

fn selection(backend: &Backend, service: &Arc<str>, ended: bool) -> Selection {
    Selection {
        namespace: Arc::clone(&backend.pod.namespace),
        service: Arc::clone(service),
        pod_uid: Arc::clone(&backend.pod.uid),
        ended,
    }
}

/// Writes a pod into the directory, unless it is watched itself.
fn refresh(backend: &mut Backend, address: Option<IpAddr>, writer: &DirectoryWriter<'_>) {
    let pod = Arc::make_mut(&mut backend.pod);
    if let Some(address) = address.filter(|a| !pod.addresses.contains(a)) {
        // Exact, since there are many pods and most have one address.
        pod.addresses.reserve_exact(1);
        pod.addresses.push(address);
    }
    pod.services = backend.services.iter().map(|(service, _)| Arc::clone(service)).collect();
    if !(writer.is_watched)(&pod.uid) {
        writer.directory.pod_seen(Arc::clone(&backend.pod), writer.now_ns);
    }
}

/// An endpoint with a pod behind it.
struct PodEndpoint<'a> {
    target: &'a ObjectRef,
    node: &'a str,
    address: IpAddr,
    service: &'a Arc<str>,
}

/// Every address with its target and node, in both forms of the object.
fn targets(slice: &Endpoints) -> impl Iterator<Item = (&str, &ObjectRef, &str)> {
    let new = slice.endpoints.iter().flat_map(|e| {
        let target = e.target_ref.as_ref();
        target
            .into_iter()
            .flat_map(move |t| e.addresses.iter().map(move |a| (&**a, t, &*e.node_name)))
    });
    let old = slice.subsets.iter().flat_map(|s| s.addresses.iter().chain(&s.not_ready_addresses));
    new.chain(old.filter_map(|a| Some((&*a.ip, a.target_ref.as_ref()?, &*a.node_name))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::identity::AddressOwner;

    const SLICE: &str = r#"{"metadata":{"uid":"s1","name":"web-x1","namespace":"shop","labels":{"kubernetes.io/service-name":"web"}},
        "endpoints":[{"addresses":["10.0.0.1"],"nodeName":"n2","targetRef":{"kind":"Pod","uid":"p1","name":"web-0","namespace":"shop"}},
                     {"addresses":["10.0.0.2"],"nodeName":"n1","targetRef":{"kind":"Pod","uid":"p2","name":"web-1","namespace":"shop"}},
                     {"addresses":["203.0.113.9"]}]}"#;

    fn slice(text: &str) -> Endpoints {
        serde_json::from_str(text).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn slice_maps_addresses_to_pods() {
        let directory = Directory::default();
        let writer =
            DirectoryWriter { directory: &directory, now_ns: 1, is_watched: &|uid| uid == "p2" };
        let mut addresses = ServiceAddresses::default();
        let selected = addresses.apply_slice(&slice(SLICE), &writer);
        assert_eq!(
            selected.iter().map(|s| (&*s.pod_uid, s.ended)).collect::<Vec<_>>(),
            [("p1", false), ("p2", false)]
        );
        assert_eq!(
            directory.address_owner(address("10.0.0.1")),
            Some(AddressOwner::Pod("p1".into()))
        );
        let pod = directory.pod("p1").unwrap();
        assert_eq!((&*pod.name, &*pod.node, &*pod.services[0]), ("web-0", "n2", "web"));
        assert_eq!(directory.pod("p2"), None, "its own watch has precedence");
        assert_eq!(addresses.services_of("p2"), ["web".into()]);
        assert_eq!(addresses.apply_slice(&slice(SLICE), &writer), [], "nothing new");
        // Remove the first pod, then the slice.
        let less = SLICE.replace(r#""uid":"p1""#, r#""uid":"""#);
        let selected = addresses.apply_slice(&slice(&less), &writer);
        assert_eq!(
            selected.iter().map(|s| (&*s.pod_uid, s.ended)).collect::<Vec<_>>(),
            [("p1", true)]
        );
        assert!(directory.live_pods().is_empty());
        assert_eq!(addresses.remove_slice("s1", &writer).len(), 1);
        assert_eq!(addresses.sizes(), [0, 0, 0]);
    }

    #[test]
    fn pod_in_two_slices_stays_until_both_are_removed() {
        let directory = Directory::default();
        let writer = DirectoryWriter { directory: &directory, now_ns: 1, is_watched: &|_| false };
        let mut addresses = ServiceAddresses::default();
        addresses.apply_slice(&slice(SLICE), &writer);
        let other = SLICE.replace("\"s1\"", "\"s2\"").replace(":\"web\"}", ":\"web-internal\"}");
        assert_eq!(addresses.apply_slice(&slice(&other), &writer).len(), 2);
        assert_eq!(directory.pod("p1").unwrap().services.len(), 2);
        assert_eq!(addresses.remove_slice("s1", &writer).len(), 2);
        assert_eq!(directory.pod("p1").unwrap().services, ["web-internal".into()]);
        assert_eq!(directory.live_pods().len(), 2);
    }

    #[test]
    fn endpoints_object_is_a_slice_of_the_service_of_its_name() {
        let directory = Directory::default();
        let writer = DirectoryWriter { directory: &directory, now_ns: 1, is_watched: &|_| false };
        let text = r#"{"metadata":{"uid":"e1","name":"web","namespace":"shop"},"subsets":[{
            "addresses":[{"ip":"10.0.0.1","nodeName":"n2","targetRef":{"kind":"Pod","uid":"p1","name":"web-0","namespace":"shop"}}],
            "notReadyAddresses":[{"ip":"10.0.0.2","targetRef":{"kind":"Pod","uid":"p2","name":"web-1","namespace":"shop"}}]}]}"#;
        let selected = ServiceAddresses::default().apply_slice(&slice(text), &writer);
        assert_eq!(selected.iter().map(|s| &*s.service).collect::<Vec<_>>(), ["web", "web"]);
        assert_eq!(
            directory.address_owner(address("10.0.0.2")),
            Some(AddressOwner::Pod("p2".into()))
        );
    }

    #[test]
    fn service_addresses_change_and_are_removed() {
        let directory = Directory::default();
        let mut addresses = ServiceAddresses::default();
        let service = |ips: &str| -> Service {
            let text = format!(
                r#"{{"metadata":{{"uid":"v1","name":"web","namespace":"shop"}},"spec":{{{ips}}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        addresses.apply_service(
            &service(
                r#""clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7"],"externalIPs":["192.0.2.1"]"#,
            ),
            &directory,
            1,
        );
        let web = Some(AddressOwner::Service("shop".into(), "web".into()));
        assert_eq!(directory.address_owner(address("10.96.0.7")), web);
        assert_eq!(directory.address_owner(address("192.0.2.1")), web);
        addresses.apply_service(&service(r#""clusterIP":"None""#), &directory, 2);
        addresses.remove_service("v1", &directory, 3);
        assert_eq!(addresses.sizes()[0], 0);
    }
}
