//! From reports, allocations and network changes to events, and updates of the entity directory.

use std::net::IpAddr;
use std::sync::Arc;

use super::allocations::Allocation;
use super::attachments::Attachments;
use super::links::NetworkChange;
use crate::cni_report::Report;
use crate::events::enrich::Subject;
use crate::events::event_builder::{EventBuilder, EventHeader};
use crate::runtime::Site;
use tapio_core::event::{ClockQuality, EventId, Name, Reason, Severity, names};
use tapio_core::identity::{Container, Directory};
use tapio_core::ring::Sink;

/// Source number of event ids of the node's network, which can't be read again.
const SOURCE: u16 = 0x2000;
/// How far a report's time may be ahead of the observation; one further ahead is replaced by it.
const MAX_AHEAD_NS: u64 = 1_000_000_000;

/// Builds and emits the collector's events, and updates the directory.
pub(super) struct EventWriter {
    node: Arc<str>,
    origin: u64,
    directory: Arc<Directory>,
    event: EventBuilder,
    /// The latest id from a sequence.
    latest: u64,
    pub(super) attachments: Attachments,
    /// Repeated DEL calls.
    pub(super) repeated: u64,
}

impl EventWriter {
    pub(super) fn new(site: &Site) -> Self {
        Self {
            node: Arc::clone(&site.node),
            origin: site.origin,
            directory: Arc::clone(&site.directory),
            event: EventBuilder::default(),
            latest: 0,
            attachments: Attachments::default(),
            repeated: 0,
        }
    }

    /// Starts an event with the node, the container and the pod.
    fn begin(&mut self, container_id: &str, pod_uid: &str) {
        let non_empty = |text| Some(text).filter(|t: &&str| !t.is_empty());
        self.event.clear();
        self.event.text(names::HOST_NAME, &self.node);
        let subject =
            Subject { container_id: non_empty(container_id), pod_uid: non_empty(pod_uid) };
        self.event.enrich(subject, &self.directory);
        self.event.end_entities();
    }

    /// An id within this start of the agent: the time, incremented to keep ids distinct.
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
        // The sink counts an event that it rejects.
        let _ = self.event.offer(&meta, sink);
    }

    /// Processes a report of the plugin.
    ///
    /// # Errors
    /// If the packet isn't a report; it is counted as bad input.
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
        let is_success = report.error.is_none();
        if is_success && kind == names::CNI_DEL && self.attachments.has_ended(report) {
            self.repeated += 1;
            return;
        }
        self.update_directory(report, now_ns);
        match kind {
            names::CNI_ADD if is_success => self.attached(report, now_ns),
            names::CNI_DEL if is_success => self.detached(report, now_ns),
            _ => {}
        }
        self.begin(&report.container_id, &report.pod.uid);
        let event = &mut self.event;
        event.text(names::TAPIO_CNI_NETWORK, &report.network);
        event.text(names::TAPIO_CNI_PLUGIN, &report.plugin);
        event.text(names::NETWORK_INTERFACE_NAME, &report.ifname);
        if report.duration_ns > 0 {
            event.int(names::TAPIO_CNI_DURATION_NS, report.duration_ns);
        }
        if let Some(address) = report.addresses.first() {
            event.text(names::NETWORK_LOCAL_ADDRESS, address);
        }
        let owner = Owner { report };
        let (kind, severity) = match &report.error {
            Some(error) => {
                event.text(names::TAPIO_CNI_COMMAND, &report.command);
                event.text(names::ERROR_TYPE, error.code);
                event.message(format_args!("{}", error.message));
                (names::CNI_FAILED, Severity::ERROR)
            }
            None => {
                let network = &report.network;
                let verb = match kind {
                    names::CNI_ADD => "joined",
                    names::CNI_DEL => "left",
                    _ => "passed CHECK on",
                };
                event.message(format_args!("{owner} {verb} network {network}"));
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
        let ended_ns = report.time_ns.saturating_add(report.duration_ns);
        let is_plausible = report.time_ns > 0 && ended_ns <= now_ns.saturating_add(MAX_AHEAD_NS);
        let time_ns = if is_plausible { ended_ns } else { now_ns };
        self.offer((id, kind, severity), time_ns, now_ns, sink);
    }

    /// Adds the container and its pod to the directory, before the runtime reports them.
    fn update_directory(&mut self, report: &Report, now_ns: u64) {
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

    /// Adds the pod's namespace and addresses to the directory.
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

    /// Removes the pod's namespace and addresses from the directory.
    fn detached(&mut self, report: &Report, now_ns: u64) {
        let attachment = self.attachments.end(report);
        if attachment.netns_inode != 0 {
            self.directory.network_gone(attachment.netns_inode, now_ns);
        }
        let uid = &report.pod.uid;
        if !uid.is_empty() {
            for address in attachment.addresses {
                self.directory.pod_address_gone(uid, address, now_ns);
            }
            self.directory.pod_left(uid, now_ns);
        }
    }

    /// Whether the directory has an allocation's container.
    pub(super) fn is_resolved(&self, allocation: &Allocation) -> bool {
        self.directory.container(&allocation.container_id).is_some()
    }

    /// The pod of an allocation's container, if the container is known and has one.
    fn pod_of(&self, allocation: &Allocation) -> Option<Arc<str>> {
        let container = self.directory.container(&allocation.container_id)?;
        Some(Arc::clone(&container.pod_uid)).filter(|uid| !uid.is_empty())
    }

    /// Adds an allocated address to the directory. Emits an event if it is new.
    pub(super) fn allocated(
        &mut self,
        allocation: &Allocation,
        is_new: bool,
        now_ns: u64,
        sink: &mut Sink,
    ) {
        let pod = self.pod_of(allocation);
        if let Some(uid) = &pod {
            self.directory.pod_address_seen(uid, allocation.address, now_ns);
        }
        if !is_new {
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

    /// Emits a released address, and removes it from the directory.
    pub(super) fn released(&mut self, allocation: &Allocation, released_ns: u64, sink: &mut Sink) {
        let pod = self.pod_of(allocation);
        self.allocation(allocation, pod.as_deref(), "released by");
        // Emitted again after a kill, it has the same id.
        let natural = format!(
            "back|{}|{}|{}|{}",
            allocation.network, allocation.address, allocation.container_id, allocation.since_ns
        );
        let id = EventId::from_natural("cni", &natural);
        self.offer((id, names::CNI_IP_RELEASED, Severity::INFO), released_ns, released_ns, sink);
        if let Some(uid) = pod {
            self.directory.pod_address_gone(&uid, allocation.address, released_ns);
        }
    }

    /// Builds the event of an allocation.
    fn allocation(&mut self, allocation: &Allocation, pod: Option<&str>, verb: &str) {
        self.begin(&allocation.container_id, pod.unwrap_or_default());
        let is_resolved = self.is_resolved(allocation);
        let Allocation { network, address, ifname, container_id, .. } = allocation;
        let event = &mut self.event;
        if !is_resolved {
            event.word(names::TAPIO_IDENTITY, "unresolved");
        }
        event.text(names::NETWORK_LOCAL_ADDRESS, address);
        event.text(names::TAPIO_CNI_NETWORK, network);
        event.text(names::NETWORK_INTERFACE_NAME, ifname);
        match pod.and_then(|uid| self.directory.pod(uid)) {
            Some(p) => event.message(format_args!("{address} {verb} {}/{}", p.namespace, p.name)),
            None => event.message(format_args!("{address} {verb} container {container_id}")),
        }
    }

    /// Emits a change of the node's network.
    pub(super) fn network_change(&mut self, change: &NetworkChange, now_ns: u64, sink: &mut Sink) {
        let (name, owner) = match change {
            NetworkChange::Link { name, up, .. } => {
                let owner = self.attachments.of_link(name);
                let owner = owner.map(|(c, p)| (c.to_owned(), p.to_owned()));
                if !up {
                    self.attachments.forget_link(name);
                }
                (name, owner)
            }
            NetworkChange::Address { name, .. }
            | NetworkChange::Route { name, .. }
            | NetworkChange::GatewaySilent { name, .. } => (name, None),
        };
        let (container, pod) = owner.unwrap_or_default();
        self.begin(&container, &pod);
        self.event.text(names::NETWORK_INTERFACE_NAME, name);
        let (kind, severity) = describe(&mut self.event, change);
        let id = self.id(now_ns);
        self.offer((id, kind, severity), now_ns, now_ns, sink);
    }
}

/// Adds the attributes and the message of a change. Returns its kind and severity.
fn describe(event: &mut EventBuilder, change: &NetworkChange) -> (Name, Severity) {
    match change {
        NetworkChange::Link { name, kind, up } => {
            event.text(names::TAPIO_LINK_KIND, kind);
            event.message(format_args!("{name}: link is {}", if *up { "up" } else { "down" }));
            // Pairs, bridges and tunnels are created and removed with pods.
            let is_permanent = matches!(kind.as_str(), "device" | "bond" | "team" | "vlan");
            match (up, is_permanent) {
                (true, _) => (names::NETWORK_LINK_UP, Severity::INFO),
                (false, false) => (names::NETWORK_LINK_DOWN, Severity::INFO),
                (false, true) => (names::NETWORK_LINK_DOWN, Severity::WARN),
            }
        }
        NetworkChange::Address { name, address, prefix, added } => {
            event.text(names::NETWORK_LOCAL_ADDRESS, address);
            event.int(names::TAPIO_NETWORK_PREFIX_LENGTH, *prefix);
            let (verb, kind) = match added {
                true => ("has", names::NETWORK_ADDRESS_ADDED),
                false => ("no longer has", names::NETWORK_ADDRESS_REMOVED),
            };
            event.message(format_args!("{name} {verb} {address}/{prefix}"));
            (kind, Severity::INFO)
        }
        NetworkChange::Route { name, gateway, added } => {
            let (now, suffix, kind, severity) = match added {
                true => (" now", "", names::NETWORK_ROUTE_ADDED, Severity::INFO),
                false => ("", " removed", names::NETWORK_ROUTE_REMOVED, Severity::WARN),
            };
            match gateway {
                Some(gateway) => {
                    event.text(names::NETWORK_PEER_ADDRESS, gateway);
                    event.message(format_args!(
                        "default route{now} via {gateway} dev {name}{suffix}"
                    ));
                }
                None => event.message(format_args!("default route{now} dev {name}{suffix}")),
            }
            (kind, severity)
        }
        NetworkChange::GatewaySilent { name, gateway } => {
            event.text(names::NETWORK_PEER_ADDRESS, gateway);
            event.message(format_args!("gateway {gateway} doesn't answer on {name}"));
            (names::NETWORK_NEIGHBOR_FAILED, Severity::WARN)
        }
    }
}

/// Parses a report. Returns it with the kind of event of a successful call.
pub(super) fn parse(packet: &[u8]) -> Result<(Report, Name), String> {
    let report: Report = serde_json::from_slice(packet).map_err(|e| e.to_string())?;
    let kind = match report.command.as_str() {
        "ADD" => names::CNI_ADD,
        "DEL" => names::CNI_DEL,
        "CHECK" => names::CNI_CHECK,
        other => return Err(format!("unknown command {other:?}")),
    };
    Ok((report, kind))
}

/// The name of a report's pod, or of its container, in messages.
struct Owner<'a> {
    report: &'a Report,
}

impl std::fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pod = &self.report.pod;
        if pod.name.is_empty() {
            return write!(f, "container {}", self.report.container_id);
        }
        write!(f, "{}/{}", pod.namespace, pod.name)
    }
}
