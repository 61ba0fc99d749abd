//! From reports, allocations and news to events, and to what the directory learns from them.

use std::net::IpAddr;
use std::sync::Arc;

use super::allocations::Allocation;
use super::attachments::Attachments;
use super::links::News;
use super::report::Report;
use crate::events::enrich::Subject;
use crate::events::event_builder::{EventBuilder, EventHeader};
use crate::runtime::Site;
use tapio_core::event::{ClockQuality, EventId, Name, Reason, Severity, names};
use tapio_core::identity::{Container, Directory};
use tapio_core::ring::Sink;

/// The source number of ids of what can't be read again.
const SOURCE: u16 = 0x2000;
/// A clock of another process may be this far ahead before it isn't believed.
const AHEAD_NS: u64 = 1_000_000_000;

/// Builds this collector's events.
pub(super) struct Teller {
    node: Arc<str>,
    origin: u64,
    directory: Arc<Directory>,
    draft: EventBuilder,
    latest: u64,
    pub(super) attachments: Attachments,
    /// Calls that undid what was undone already.
    pub(super) repeated: u64,
}

impl Teller {
    pub(super) fn new(site: &Site) -> Self {
        Self {
            node: Arc::clone(&site.node),
            origin: site.origin,
            directory: Arc::clone(&site.directory),
            draft: EventBuilder::default(),
            latest: 0,
            attachments: Attachments::default(),
            repeated: 0,
        }
    }

    /// Starts a draft: the node, and whose the event is.
    fn begin(&mut self, container_id: &str, pod_uid: &str) {
        let some = |text| Some(text).filter(|t: &&str| !t.is_empty());
        self.draft.clear();
        self.draft.text(names::HOST_NAME, &self.node);
        let known = Subject { container_id: some(container_id), pod_uid: some(pod_uid) };
        self.draft.enrich(known, &self.directory);
        self.draft.end_entities();
    }

    /// An id of this start of the agent: the time, moved on where two would be equal.
    fn id(&mut self, now_ns: u64) -> EventId {
        self.latest = now_ns.max(self.latest + 1);
        EventId::from_sequence(self.origin, SOURCE, self.latest)
    }

    fn offer(
        &mut self,
        (id, kind, severity): (EventId, Name, Severity),
        time_ns: u64,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let meta = EventHeader {
            id,
            time_ns,
            observed_ns: now_ns,
            kind,
            source: names::CNI,
            clock: ClockQuality::Micros,
            severity,
        };
        // The sink has counted an event it couldn't take.
        let _ = self.draft.offer(&meta, sink);
    }

    /// A call of the plugin. One that is none is refused; returns what is wrong with it.
    pub(super) fn report(
        &mut self,
        packet: &[u8],
        now_ns: u64,
        sink: &mut Sink,
    ) -> Result<(), String> {
        match parse(packet) {
            Ok((report, kind)) => {
                self.call(&report, kind, now_ns, sink);
                Ok(())
            }
            Err(cause) => {
                sink.refuse(Reason::BadInput, 1);
                Err(cause)
            }
        }
    }

    fn call(&mut self, report: &Report, kind: Name, now_ns: u64, sink: &mut Sink) {
        let worked = report.error.is_none();
        if worked && kind == names::CNI_DEL && self.attachments.has_ended(report) {
            self.repeated += 1;
            return;
        }
        self.learn(report, now_ns);
        match kind {
            names::CNI_ADD if worked => self.attached(report, now_ns),
            names::CNI_DEL if worked => self.detached(report, now_ns),
            _ => {}
        }
        self.begin(&report.container_id, &report.pod.uid);
        let draft = &mut self.draft;
        draft.text(names::TAPIO_CNI_NETWORK, &report.network);
        draft.text(names::TAPIO_CNI_PLUGIN, &report.plugin);
        draft.text(names::NETWORK_INTERFACE_NAME, &report.ifname);
        if report.duration_ns > 0 {
            draft.int(names::TAPIO_CNI_DURATION_NS, report.duration_ns);
        }
        if let Some(address) = report.addresses.first() {
            draft.text(names::NETWORK_LOCAL_ADDRESS, address);
        }
        let whose = Whose { report };
        let (kind, severity) = match &report.error {
            Some(error) => {
                draft.text(names::TAPIO_CNI_COMMAND, &report.command);
                draft.text(names::ERROR_TYPE, error.code);
                draft.message(format_args!("{}", error.message));
                (names::CNI_FAILED, Severity::ERROR)
            }
            None => {
                let network = &report.network;
                let what = match kind {
                    names::CNI_ADD => "joined",
                    names::CNI_DEL => "left",
                    _ => "is as it should be in",
                };
                draft.message(format_args!("{whose} {what} network {network}"));
                (kind, Severity::INFO)
            }
        };
        let natural = format!(
            "{}|{}|{}|{}|{}|{}",
            report.command,
            report.network,
            report.plugin,
            report.container_id,
            report.ifname,
            report.time_ns
        );
        let id = EventId::from_natural("cni", &natural);
        let told_ns = report.time_ns.saturating_add(report.duration_ns);
        let is_time = report.time_ns > 0 && told_ns <= now_ns.saturating_add(AHEAD_NS);
        let time_ns = if is_time { told_ns } else { now_ns };
        self.offer((id, kind, severity), time_ns, now_ns, sink);
    }

    /// Whose container it is: known before the runtime tells of it.
    fn learn(&mut self, report: &Report, now_ns: u64) {
        let pod = &report.pod;
        if pod.uid.is_empty() {
            return;
        }
        self.directory.pod_named(&pod.uid, &pod.namespace, &pod.name, now_ns);
        let sandbox = Container {
            id: report.container_id.as_str().into(),
            pod_uid: pod.uid.as_str().into(),
            pod_name: pod.name.as_str().into(),
            pod_namespace: pod.namespace.as_str().into(),
            ..Container::default()
        };
        if !sandbox.id.is_empty() {
            self.directory.container_seen(sandbox, now_ns);
        }
    }

    fn attached(&mut self, report: &Report, now_ns: u64) {
        self.attachments.begin(report);
        let uid = &report.pod.uid;
        if uid.is_empty() {
            return;
        }
        if report.netns_inode != 0 {
            self.directory.network_seen(report.netns_inode, uid, now_ns);
        }
        for address in report.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
            self.directory.pod_address_seen(uid, address, now_ns);
        }
    }

    fn detached(&mut self, report: &Report, now_ns: u64) {
        let was = self.attachments.end(report);
        if was.netns_inode != 0 {
            self.directory.network_gone(was.netns_inode, now_ns);
        }
        let uid = &report.pod.uid;
        if !uid.is_empty() {
            for address in was.addresses {
                self.directory.pod_address_gone(uid, address, now_ns);
            }
            self.directory.pod_left(uid, now_ns);
        }
    }

    /// Whether somebody has told of an allocation's container by now.
    pub(super) fn knows(&self, allocation: &Allocation) -> bool {
        self.directory.container(&allocation.container_id).is_some()
    }

    /// The pod of an allocation's container, where it is known and has one.
    fn pod_of(&self, allocation: &Allocation) -> Option<Arc<str>> {
        let container = self.directory.container(&allocation.container_id)?;
        Some(Arc::clone(&container.pod_uid)).filter(|uid| !uid.is_empty())
    }

    /// An address was given. `tell`: it is news.
    pub(super) fn given(
        &mut self,
        allocation: &Allocation,
        tell: bool,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let pod = self.pod_of(allocation);
        if let Some(uid) = &pod {
            self.directory.pod_address_seen(uid, allocation.address, now_ns);
        }
        if !tell {
            return;
        }
        self.allocation(allocation, pod.as_deref(), "allocated to");
        let natural = format!(
            "{}|{}|{}|{}",
            allocation.network, allocation.address, allocation.container_id, allocation.since_ns
        );
        let id = EventId::from_natural("cni", &natural);
        let time_ns = match allocation.since_ns {
            0 => now_ns,
            since => since.min(now_ns),
        };
        self.offer((id, names::CNI_IP_ALLOCATED, Severity::INFO), time_ns, now_ns, sink);
    }

    /// An address was taken back.
    pub(super) fn taken_back(&mut self, allocation: &Allocation, at_ns: u64, sink: &mut Sink) {
        let pod = self.pod_of(allocation);
        self.allocation(allocation, pod.as_deref(), "released by");
        // Told again after a kill it is the same event.
        let natural = format!(
            "back|{}|{}|{}|{}",
            allocation.network, allocation.address, allocation.container_id, allocation.since_ns
        );
        let id = EventId::from_natural("cni", &natural);
        self.offer((id, names::CNI_IP_RELEASED, Severity::INFO), at_ns, at_ns, sink);
        if let Some(uid) = pod {
            self.directory.pod_address_gone(&uid, allocation.address, at_ns);
        }
    }

    fn allocation(&mut self, allocation: &Allocation, pod: Option<&str>, verb: &str) {
        self.begin(&allocation.container_id, pod.unwrap_or_default());
        let unresolved = !self.knows(allocation);
        let Allocation { network, address, ifname, container_id, .. } = allocation;
        let draft = &mut self.draft;
        if unresolved {
            draft.word(names::TAPIO_IDENTITY, "unresolved");
        }
        draft.text(names::NETWORK_LOCAL_ADDRESS, address);
        draft.text(names::TAPIO_CNI_NETWORK, network);
        draft.text(names::NETWORK_INTERFACE_NAME, ifname);
        match pod.and_then(|uid| self.directory.pod(uid)) {
            Some(p) => draft.message(format_args!("{address} {verb} {}/{}", p.namespace, p.name)),
            None => draft.message(format_args!("{address} {verb} container {container_id}")),
        }
    }

    /// Something about the node's own network changed.
    pub(super) fn news(&mut self, news: &News, now_ns: u64, sink: &mut Sink) {
        let (name, pod) = match news {
            News::Link { name, up, .. } => {
                let whose = self.attachments.of_link(name);
                let whose = whose.map(|(c, p)| (c.to_owned(), p.to_owned()));
                if !up {
                    self.attachments.forget_link(name);
                }
                (name, whose)
            }
            News::Address { name, .. }
            | News::Route { name, .. }
            | News::GatewaySilent { name, .. } => (name, None),
        };
        let (container, pod) = pod.unwrap_or_default();
        self.begin(&container, &pod);
        let draft = &mut self.draft;
        draft.text(names::NETWORK_INTERFACE_NAME, name);
        let (kind, severity) = match news {
            News::Link { kind, up, .. } => {
                draft.text(names::TAPIO_LINK_KIND, kind);
                draft.message(format_args!("{name}: link is {}", if *up { "up" } else { "down" }));
                let expected = matches!(kind.as_str(), "device" | "bond" | "team" | "vlan");
                match (up, expected) {
                    (true, _) => (names::NETWORK_LINK_UP, Severity::INFO),
                    // Pairs, bridges and tunnels come and go with pods.
                    (false, false) => (names::NETWORK_LINK_DOWN, Severity::INFO),
                    (false, true) => (names::NETWORK_LINK_DOWN, Severity::WARN),
                }
            }
            News::Address { address, prefix, added, .. } => {
                draft.text(names::NETWORK_LOCAL_ADDRESS, address);
                draft.int(names::TAPIO_NETWORK_PREFIX_LENGTH, *prefix);
                let (verb, kind) = match added {
                    true => ("has", names::NETWORK_ADDRESS_ADDED),
                    false => ("no longer has", names::NETWORK_ADDRESS_REMOVED),
                };
                draft.message(format_args!("{name} {verb} {address}/{prefix}"));
                (kind, Severity::INFO)
            }
            News::Route { gateway, added, .. } => {
                let (what, kind, severity) = match added {
                    true => ("now", names::NETWORK_ROUTE_ADDED, Severity::INFO),
                    false => ("no longer", names::NETWORK_ROUTE_REMOVED, Severity::WARN),
                };
                match gateway {
                    Some(gateway) => {
                        draft.text(names::NETWORK_PEER_ADDRESS, gateway);
                        draft.message(format_args!(
                            "the default route goes {what} through {gateway} on {name}"
                        ));
                    }
                    None => {
                        draft.message(format_args!("the default route goes {what} through {name}"))
                    }
                }
                (kind, severity)
            }
            News::GatewaySilent { gateway, .. } => {
                draft.text(names::NETWORK_PEER_ADDRESS, gateway);
                draft.message(format_args!("gateway {gateway} doesn't answer on {name}"));
                (names::NETWORK_NEIGHBOR_FAILED, Severity::WARN)
            }
        };
        let id = self.id(now_ns);
        self.offer((id, kind, severity), now_ns, now_ns, sink);
    }
}

/// Reads a report, and the kind of event where it went well.
pub(super) fn parse(packet: &[u8]) -> Result<(Report, Name), String> {
    let report: Report = serde_json::from_slice(packet).map_err(|e| e.to_string())?;
    let kind = match report.command.as_str() {
        "ADD" => names::CNI_ADD,
        "DEL" => names::CNI_DEL,
        "CHECK" => names::CNI_CHECK,
        other => return Err(format!("{other:?} is no command that is reported")),
    };
    Ok((report, kind))
}

/// The pod of a report as a person names it, else its container.
struct Whose<'a> {
    report: &'a Report,
}

impl std::fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pod = &self.report.pod;
        if pod.name.is_empty() {
            return write!(f, "container {}", self.report.container_id);
        }
        write!(f, "{}/{}", pod.namespace, pod.name)
    }
}
