//! The state of the node's links, addresses and default routes, and its changes. The kernel repeats
//! its notifications, so each is compared with the state. What exists at the start isn't emitted.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::netlink::{self, Message, Notifications};

/// Capacity of each table.
const MAX_ENTRIES: usize = 65_536;

/// A change of the node's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NetworkChange {
    /// A link went up or down.
    Link { name: String, kind: String, up: bool },
    /// An address was added or removed.
    Address { name: String, address: IpAddr, prefix: u8, added: bool },
    /// A default route was added or removed.
    Route { name: String, gateway: Option<IpAddr>, added: bool },
    /// The gateway of a default route doesn't answer.
    GatewaySilent { name: String, gateway: IpAddr },
}

struct Link {
    name: String,
    kind: String,
    up: bool,
}

/// A default route: link, gateway, whether IPv6.
type Route = (u32, Option<IpAddr>, bool);

/// The state of the node's network.
#[derive(Default)]
pub(super) struct State {
    links: HashMap<u32, Link>,
    addresses: HashMap<(u32, IpAddr), u8>,
    routes: HashSet<Route>,
    /// Gateways that don't answer.
    silent: HashSet<(u32, IpAddr)>,
}

/// Tracks the state by the kernel's notifications.
pub(super) struct Links {
    notifications: Notifications,
    state: State,
    /// Number of times the kernel dropped notifications.
    pub(super) overruns: u64,
}

impl Links {
    /// Subscribes and then reads the state, in this order, so that no change is missed.
    pub(super) fn open() -> io::Result<Self> {
        let notifications = Notifications::open()?;
        let mut state = State::default();
        netlink::dump(|message| {
            state.apply(message);
        })?;
        Ok(Self { notifications, state, overruns: 0 })
    }

    /// Reads the changes since the last call.
    pub(super) fn read(&mut self, changes: &mut Vec<NetworkChange>) -> io::Result<()> {
        let state = &mut self.state;
        if self.notifications.read(|message| changes.extend(state.apply(message)))? {
            self.overruns += 1;
            let mut now = State::default();
            netlink::dump(|message| {
                now.apply(message);
            })?;
            self.state.replace(now, changes);
        }
        Ok(())
    }

    /// Number of links.
    pub(super) fn len(&self) -> usize {
        self.state.links.len()
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifications.as_fd()
    }
}

/// Whether changes of an address are emitted: loopback and link-local addresses exist everywhere.
fn is_reported(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

impl State {
    fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(String::new, |l| l.name.clone())
    }

    /// Applies a message. Returns the change, if it is one.
    pub(super) fn apply(&mut self, message: Message<'_>) -> Option<NetworkChange> {
        match message {
            Message::Link { index, name, kind, up, gone } => {
                self.apply_link(index, name, kind, up, gone)
            }
            Message::Address { index, address, prefix, gone } => {
                self.apply_address(index, address, prefix, gone)
            }
            Message::DefaultRoute { index, gateway, v6, gone } => {
                self.apply_route((index, gateway, v6), gone)
            }
            Message::NeighborFailed { index, address } => {
                let is_gateway = self.routes.iter().any(|r| r.0 == index && r.1 == Some(address));
                (is_gateway && self.silent.insert((index, address))).then(|| {
                    NetworkChange::GatewaySilent { name: self.name(index), gateway: address }
                })
            }
            Message::NeighborValid { index, address } => {
                self.silent.remove(&(index, address));
                None
            }
        }
    }

    fn apply_link(
        &mut self,
        index: u32,
        name: &str,
        kind: &str,
        up: bool,
        gone: bool,
    ) -> Option<NetworkChange> {
        let full = self.links.len() >= MAX_ENTRIES;
        let was_up = match self.links.get_mut(&index) {
            Some(link) => {
                name.clone_into(&mut link.name);
                std::mem::replace(&mut link.up, up)
            }
            None if gone || full => return None,
            None => {
                let link = Link { name: name.to_owned(), kind: kind.to_owned(), up };
                self.links.insert(index, link);
                false
            }
        };
        let link = self.links.get(&index)?;
        let change = NetworkChange::Link { name: link.name.clone(), kind: link.kind.clone(), up };
        if gone {
            self.remove_link(index);
        }
        (was_up != up).then_some(change)
    }

    /// Removes a link with its addresses and routes, for which no changes are returned.
    fn remove_link(&mut self, index: u32) {
        self.links.remove(&index);
        self.addresses.retain(|(i, _), _| *i != index);
        self.routes.retain(|r| r.0 != index);
        self.silent.retain(|(i, _)| *i != index);
    }

    fn apply_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
        gone: bool,
    ) -> Option<NetworkChange> {
        // The pod end of a pair is in another namespace; addresses of its host end belong to the
        // plugin.
        let is_veth = self.links.get(&index).is_some_and(|l| l.kind == "veth");
        if is_veth || !is_reported(address) {
            return None;
        }
        let key = (index, address);
        let changed = if gone {
            self.addresses.remove(&key).is_some()
        } else {
            self.addresses.len() < MAX_ENTRIES && self.addresses.insert(key, prefix).is_none()
        };
        changed.then(|| NetworkChange::Address {
            name: self.name(index),
            address,
            prefix,
            added: !gone,
        })
    }

    fn apply_route(&mut self, route: Route, gone: bool) -> Option<NetworkChange> {
        let changed = if gone {
            self.routes.remove(&route)
        } else {
            self.routes.len() < MAX_ENTRIES && self.routes.insert(route)
        };
        changed.then(|| NetworkChange::Route {
            name: self.name(route.0),
            gateway: route.1,
            added: !gone,
        })
    }

    /// Replaces the state by another one, and appends the changes between them.
    fn replace(&mut self, now: Self, changes: &mut Vec<NetworkChange>) {
        let gone: Vec<u32> =
            self.links.keys().filter(|i| !now.links.contains_key(i)).copied().collect();
        for index in gone {
            let link = self.links.get(&index).map(|l| (l.name.clone(), l.kind.clone()));
            let (name, kind) = link.unwrap_or_default();
            changes.extend(self.apply_link(index, &name, &kind, false, true));
        }
        for (index, link) in &now.links {
            changes.extend(self.apply_link(*index, &link.name, &link.kind, link.up, false));
        }
        let old: Vec<_> = self.addresses.iter().map(|(k, p)| (*k, *p)).collect();
        for ((index, address), prefix) in old {
            if !now.addresses.contains_key(&(index, address)) {
                changes.extend(self.apply_address(index, address, prefix, true));
            }
        }
        for ((index, address), prefix) in now.addresses {
            changes.extend(self.apply_address(index, address, prefix, false));
        }
        for route in self.routes.clone() {
            if !now.routes.contains(&route) {
                changes.extend(self.apply_route(route, true));
            }
        }
        for route in now.routes {
            changes.extend(self.apply_route(route, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn link(index: u32, up: bool, gone: bool) -> Message<'static> {
        Message::Link { index, name: "ens5", kind: "device", up, gone }
    }

    fn changed(up: bool) -> Option<NetworkChange> {
        Some(NetworkChange::Link { name: "ens5".into(), kind: "device".into(), up })
    }

    #[test]
    fn repeated_message_is_no_change() {
        let mut state = State::default();
        assert_eq!(state.apply(link(2, true, false)), changed(true));
        assert_eq!(state.apply(link(2, true, false)), None);
        assert_eq!(state.apply(link(2, false, false)), changed(false));
        assert_eq!(state.apply(link(2, false, false)), None);
        assert_eq!(state.apply(link(2, false, true)), None, "down before it went");
        assert_eq!(state.apply(link(2, false, true)), None, "unknown");
        assert_eq!(state.apply(link(3, true, false)), changed(true));
        assert_eq!(state.apply(link(3, false, true)), changed(false));
    }

    #[test]
    fn silent_gateway_is_reported_once_and_other_neighbors_never() {
        let mut state = State::default();
        state.apply(link(2, true, false));
        let route =
            Message::DefaultRoute { index: 2, gateway: Some(GATEWAY), v6: false, gone: false };
        assert!(matches!(state.apply(route), Some(NetworkChange::Route { added: true, .. })));
        assert_eq!(state.apply(route), None);
        let failed = |address| Message::NeighborFailed { index: 2, address };
        assert_eq!(state.apply(failed(IpAddr::from([10, 0, 0, 9]))), None);
        let silent = NetworkChange::GatewaySilent { name: "ens5".into(), gateway: GATEWAY };
        assert_eq!(state.apply(failed(GATEWAY)), Some(silent.clone()));
        assert_eq!(state.apply(failed(GATEWAY)), None);
        state.apply(Message::NeighborValid { index: 2, address: GATEWAY });
        assert_eq!(state.apply(failed(GATEWAY)), Some(silent));
    }

    #[test]
    fn overrun_reports_the_difference_of_states() {
        let address = |gone| Message::Address {
            index: 2,
            address: IpAddr::from([192, 0, 2, 7]),
            prefix: 24,
            gone,
        };
        let mut state = State::default();
        for message in [link(2, true, false), link(9, true, false), address(false)] {
            state.apply(message);
        }
        let mut now = State::default();
        now.apply(link(2, false, false));
        let mut changes = Vec::new();
        state.replace(now, &mut changes);
        assert_eq!(changes.len(), 3, "{changes:?}");
        assert_eq!(Some(changes[0].clone()), changed(false));
        assert!(matches!(changes[2], NetworkChange::Address { added: false, .. }));
        let mut again = Vec::new();
        let mut same = State::default();
        same.apply(link(2, false, false));
        state.replace(same, &mut again);
        assert_eq!(again, []);
    }
}
