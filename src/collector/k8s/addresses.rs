//! Services, and the pods behind them: whose an address is, in the whole cluster, from Services and EndpointSlices.
//!
//! Kept small: an endpoint is an address and a shared pointer to its pod.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::objects::{Endpoints, ObjectRef, Service, Text};
use super::texts::Texts;
use tapio_core::identity::{Directory, Pod};

/// A pod as slices know it.
#[derive(Debug)]
struct Backend {
    pod: Arc<Pod>,
    /// Services that select it, with the number of endpoints that say so.
    services: Vec<(Arc<str>, u32)>,
}

/// One endpoint of a slice.
type Behind = (IpAddr, Arc<str>);

struct Slice {
    service: Arc<str>,
    behind: Box<[Behind]>,
}

struct Known {
    namespace: Arc<str>,
    name: Arc<str>,
    addresses: Box<[IpAddr]>,
}

/// Where what is found is written down.
pub(super) struct Place<'a> {
    pub(super) directory: &'a Directory,
    pub(super) now_ns: u64,
    /// Whether a pod is watched itself: its own object says more than a slice does.
    pub(super) is_watched: &'a dyn Fn(&str) -> bool,
}

/// A service began (or ceased) to select a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selects {
    pub(super) namespace: Arc<str>,
    pub(super) service: Arc<str>,
    pub(super) pod_uid: Arc<str>,
    pub(super) ended: bool,
}

/// Services and endpoints, by their objects' uid.
#[derive(Default)]
pub(super) struct Addresses {
    services: HashMap<Text, Known>,
    slices: HashMap<Text, Slice>,
    backends: HashMap<Arc<str>, Backend>,
    texts: Texts,
}

fn parsed<'a>(texts: impl IntoIterator<Item = &'a Text>) -> Vec<IpAddr> {
    // `None` and the empty text stand for no address.
    texts.into_iter().filter_map(|t| t.parse().ok()).collect()
}

impl Addresses {
    pub(super) fn service(&mut self, service: &Service, directory: &Directory, now_ns: u64) {
        let spec = &service.spec;
        let ingress = service.status.load_balancer.ingress.iter().map(|i| &i.ip);
        let mut addresses = parsed([&spec.cluster_ip].into_iter().chain(&spec.cluster_ips));
        addresses.extend(parsed(spec.external_ips.iter().chain(ingress)));
        addresses.sort_unstable();
        addresses.dedup();
        let meta = &service.metadata;
        let known = Known {
            namespace: (&*meta.namespace).into(),
            name: (&*meta.name).into(),
            addresses: addresses.into(),
        };
        directory.service_seen(&known.namespace, &known.name, &known.addresses, now_ns);
        if let Some(before) = self.services.insert(meta.uid.clone(), known) {
            let now = &self.services[&meta.uid].addresses;
            let lost: Vec<IpAddr> =
                before.addresses.iter().copied().filter(|a| !now.contains(a)).collect();
            if !lost.is_empty() {
                directory.service_gone(&before.namespace, &before.name, &lost, now_ns);
            }
        }
    }

    pub(super) fn service_gone(&mut self, uid: &str, directory: &Directory, now_ns: u64) {
        if let Some(gone) = self.services.remove(uid) {
            directory.service_gone(&gone.namespace, &gone.name, &gone.addresses, now_ns);
        }
    }

    /// Takes a slice in. Returns which pods its service now selects, and which it doesn't any more.
    pub(super) fn slice(&mut self, slice: &Endpoints, site: &Place<'_>) -> Vec<Selects> {
        let meta = &slice.metadata;
        // A slice names its service in a label; an Endpoints object is called like it.
        let service = meta.labels.get("kubernetes.io/service-name").unwrap_or(&meta.name);
        let service = self.texts.shared(service);
        let mut out = Vec::new();
        let mut behind = Vec::new();
        for (address, target, node) in endpoints(slice) {
            let Ok(address) = address.parse::<IpAddr>() else { continue };
            if &*target.kind != "Pod" || target.uid.is_empty() {
                continue;
            }
            let pod = Found { target, node, address, service: &service };
            let uid = self.add(&pod, site, &mut out);
            behind.push((address, uid));
        }
        let new = Slice { service, behind: behind.into() };
        // The old one after the new one: a pod that is in both is never out of its service.
        if let Some(before) = self.slices.insert(meta.uid.clone(), new) {
            self.release(&before, site, &mut out);
        }
        out
    }

    pub(super) fn slice_gone(&mut self, uid: &str, site: &Place<'_>) -> Vec<Selects> {
        let mut out = Vec::new();
        if let Some(gone) = self.slices.remove(uid) {
            self.release(&gone, site, &mut out);
        }
        out
    }

    /// Objects that aren't in a list of all: uids of services or slices.
    pub(super) fn missing_services(&self, seen: &std::collections::HashSet<Text>) -> Vec<Text> {
        self.services.keys().filter(|uid| !seen.contains(*uid)).cloned().collect()
    }

    pub(super) fn missing_slices(&self, seen: &std::collections::HashSet<Text>) -> Vec<Text> {
        self.slices.keys().filter(|uid| !seen.contains(*uid)).cloned().collect()
    }

    /// The services that select a pod.
    pub(super) fn services_of(&self, uid: &str) -> Vec<Arc<str>> {
        let services = self.backends.get(uid).map(|b| &b.services);
        services.into_iter().flatten().map(|(service, _)| Arc::clone(service)).collect()
    }

    /// Services, slices, pods behind them.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.services.len(), self.slices.len(), self.backends.len()]
    }

    fn add(&mut self, found: &Found<'_>, site: &Place<'_>, out: &mut Vec<Selects>) -> Arc<str> {
        let target = found.target;
        if !self.backends.contains_key(&*target.uid) {
            let uid: Arc<str> = (&*target.uid).into();
            let pod = Arc::new(Pod {
                uid: Arc::clone(&uid),
                name: (&*target.name).into(),
                namespace: self.texts.shared(&target.namespace),
                node: self.texts.shared(found.node),
                ..Pod::default()
            });
            self.backends.insert(uid, Backend { pod, services: Vec::with_capacity(1) });
        }
        let Some(backend) = self.backends.get_mut(&*target.uid) else {
            return (&*target.uid).into();
        };
        let uid = Arc::clone(&backend.pod.uid);
        let mut changed = !backend.pod.addresses.contains(&found.address);
        match backend.services.iter_mut().find(|(s, _)| s == found.service) {
            Some((_, endpoints)) => *endpoints += 1,
            None => {
                backend.services.push((Arc::clone(found.service), 1));
                out.push(selects(backend, found.service, false));
                changed = true;
            }
        }
        if changed {
            refresh(backend, Some(found.address), site);
        }
        uid
    }

    fn release(&mut self, slice: &Slice, site: &Place<'_>, out: &mut Vec<Selects>) {
        for (_, uid) in &slice.behind {
            let Some(backend) = self.backends.get_mut(uid) else { continue };
            let at = backend.services.iter().position(|(s, _)| *s == slice.service);
            let Some(at) = at else { continue };
            backend.services[at].1 -= 1;
            if backend.services[at].1 > 0 {
                continue;
            }
            backend.services.remove(at);
            out.push(selects(backend, &slice.service, true));
            if !backend.services.is_empty() {
                refresh(backend, None, site);
                continue;
            }
            if !(site.is_watched)(uid) {
                site.directory.pod_gone(uid, site.now_ns);
            }
            self.backends.remove(uid);
        }
    }
}

fn selects(backend: &Backend, service: &Arc<str>, ended: bool) -> Selects {
    Selects {
        namespace: Arc::clone(&backend.pod.namespace),
        service: Arc::clone(service),
        pod_uid: Arc::clone(&backend.pod.uid),
        ended,
    }
}

/// Says what is known of a pod, unless it is watched itself and better known.
fn refresh(backend: &mut Backend, address: Option<IpAddr>, site: &Place<'_>) {
    let pod = Arc::make_mut(&mut backend.pod);
    if let Some(address) = address.filter(|a| !pod.addresses.contains(a)) {
        // There are many pods, and most have one address.
        pod.addresses.reserve_exact(1);
        pod.addresses.push(address);
    }
    pod.services = backend.services.iter().map(|(service, _)| Arc::clone(service)).collect();
    if !(site.is_watched)(&pod.uid) {
        site.directory.pod_seen(Arc::clone(&backend.pod), site.now_ns);
    }
}

/// An endpoint while it is taken in.
struct Found<'a> {
    target: &'a ObjectRef,
    node: &'a str,
    address: IpAddr,
    service: &'a Arc<str>,
}

/// Every address with its target and node, whichever form the object has.
fn endpoints(slice: &Endpoints) -> impl Iterator<Item = (&str, &ObjectRef, &str)> {
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
    fn a_slice_says_whose_addresses_are() {
        let directory = Directory::default();
        let site = Place { directory: &directory, now_ns: 1, is_watched: &|uid| uid == "p2" };
        let mut addresses = Addresses::default();
        let selected = addresses.slice(&slice(SLICE), &site);
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
        assert_eq!(directory.pod("p2"), None, "its own watch tells of it");
        assert_eq!(addresses.services_of("p2"), ["web".into()]);
        assert_eq!(addresses.slice(&slice(SLICE), &site), [], "nothing new");
        // The first pod goes, and then the slice.
        let less = SLICE.replace(r#""uid":"p1""#, r#""uid":"""#);
        let selected = addresses.slice(&slice(&less), &site);
        assert_eq!(
            selected.iter().map(|s| (&*s.pod_uid, s.ended)).collect::<Vec<_>>(),
            [("p1", true)]
        );
        assert!(directory.live_pods().is_empty());
        assert_eq!(addresses.slice_gone("s1", &site).len(), 1);
        assert_eq!(addresses.sizes(), [0, 0, 0]);
    }

    #[test]
    fn a_pod_in_two_slices_leaves_with_the_second() {
        let directory = Directory::default();
        let site = Place { directory: &directory, now_ns: 1, is_watched: &|_| false };
        let mut addresses = Addresses::default();
        addresses.slice(&slice(SLICE), &site);
        let other = SLICE.replace("\"s1\"", "\"s2\"").replace(":\"web\"}", ":\"web-internal\"}");
        assert_eq!(addresses.slice(&slice(&other), &site).len(), 2);
        assert_eq!(directory.pod("p1").unwrap().services.len(), 2);
        assert_eq!(addresses.slice_gone("s1", &site).len(), 2);
        assert_eq!(directory.pod("p1").unwrap().services, ["web-internal".into()]);
        assert_eq!(directory.live_pods().len(), 2);
    }

    #[test]
    fn an_endpoints_object_is_a_slice_of_its_own_name() {
        let directory = Directory::default();
        let site = Place { directory: &directory, now_ns: 1, is_watched: &|_| false };
        let text = r#"{"metadata":{"uid":"e1","name":"web","namespace":"shop"},"subsets":[{
            "addresses":[{"ip":"10.0.0.1","nodeName":"n2","targetRef":{"kind":"Pod","uid":"p1","name":"web-0","namespace":"shop"}}],
            "notReadyAddresses":[{"ip":"10.0.0.2","targetRef":{"kind":"Pod","uid":"p2","name":"web-1","namespace":"shop"}}]}]}"#;
        let selected = Addresses::default().slice(&slice(text), &site);
        assert_eq!(selected.iter().map(|s| &*s.service).collect::<Vec<_>>(), ["web", "web"]);
        assert_eq!(
            directory.address_owner(address("10.0.0.2")),
            Some(AddressOwner::Pod("p2".into()))
        );
    }

    #[test]
    fn a_service_changes_its_addresses() {
        let directory = Directory::default();
        let mut addresses = Addresses::default();
        let service = |ips: &str| -> Service {
            let text = format!(
                r#"{{"metadata":{{"uid":"v1","name":"web","namespace":"shop"}},"spec":{{{ips}}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        addresses.service(
            &service(
                r#""clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7"],"externalIPs":["192.0.2.1"]"#,
            ),
            &directory,
            1,
        );
        let web = Some(AddressOwner::Service("shop".into(), "web".into()));
        assert_eq!(directory.address_owner(address("10.96.0.7")), web);
        assert_eq!(directory.address_owner(address("192.0.2.1")), web);
        addresses.service(&service(r#""clusterIP":"None""#), &directory, 2);
        addresses.service_gone("v1", &directory, 3);
        assert_eq!(addresses.sizes()[0], 0);
    }
}
