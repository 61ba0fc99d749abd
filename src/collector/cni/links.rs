//! The node's links, addresses and default routes: what of the kernel's notifications is news. The kernel repeats itself
//! a lot, so everything is compared with what is known, and what was there at the start is told by nobody.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::netlink::{self, Notifications, Said};

/// The most links, and of each other thing, that are remembered.
const MAX_KNOWN: usize = 65_536;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// A link can carry packets, or no longer.
    Link { name: String, kind: String, up: bool },
    /// The node has an address, or no longer.
    Address { name: String, address: IpAddr, prefix: u8, added: bool },
    /// A default route came or went.
    Route { name: String, gateway: Option<IpAddr>, added: bool },
    /// The gateway of a default route doesn't answer.
    GatewaySilent { name: String, gateway: IpAddr },
}

struct Link {
    name: String,
    kind: String,
    up: bool,
}

/// A default route: through this link, this gateway, of IPv6 or not.
type Route = (u32, Option<IpAddr>, bool);

/// What is known of the node's network.
#[derive(Default)]
pub(super) struct State {
    links: HashMap<u32, Link>,
    addresses: HashMap<(u32, IpAddr), u8>,
    routes: HashSet<Route>,
    silent: HashSet<(u32, IpAddr)>,
}

/// The kernel's notifications and what is known.
pub(super) struct Links {
    notifications: Notifications,
    state: State,
    /// How often the kernel had to leave something out.
    pub(super) overruns: u64,
}

impl Links {
    /// Subscribes first and looks then, so that nothing falls between the two.
    pub(super) fn open() -> io::Result<Self> {
        let notifications = Notifications::open()?;
        let mut state = State::default();
        netlink::dump(|said| {
            state.take(said);
        })?;
        Ok(Self { notifications, state, overruns: 0 })
    }

    /// Reads what has come.
    pub(super) fn read(&mut self, news: &mut Vec<News>) -> io::Result<()> {
        let state = &mut self.state;
        if self.notifications.read(|said| news.extend(state.take(said)))? {
            self.overruns += 1;
            let mut now = State::default();
            netlink::dump(|said| {
                now.take(said);
            })?;
            self.state.become_like(now, news);
        }
        Ok(())
    }

    /// Links there are.
    pub(super) fn len(&self) -> usize {
        self.state.links.len()
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifications.as_fd()
    }
}

/// Whether an address says something about the node: link-local ones are everywhere.
fn is_of_interest(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

impl State {
    fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(String::new, |l| l.name.clone())
    }

    /// Takes a message in; gives what is new in it.
    pub(super) fn take(&mut self, said: Said<'_>) -> Option<News> {
        match said {
            Said::Link { index, name, kind, up, gone } => self.link(index, name, kind, up, gone),
            Said::Address { index, address, prefix, gone } => {
                self.address(index, address, prefix, gone)
            }
            Said::DefaultRoute { index, gateway, v6, gone } => {
                self.route((index, gateway, v6), gone)
            }
            Said::Unanswered { index, address } => {
                let is_gateway = self.routes.iter().any(|r| r.0 == index && r.1 == Some(address));
                (is_gateway && self.silent.insert((index, address)))
                    .then(|| News::GatewaySilent { name: self.name(index), gateway: address })
            }
            Said::Answered { index, address } => {
                self.silent.remove(&(index, address));
                None
            }
        }
    }

    fn link(&mut self, index: u32, name: &str, kind: &str, up: bool, gone: bool) -> Option<News> {
        let full = self.links.len() >= MAX_KNOWN;
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
        let news = News::Link { name: link.name.clone(), kind: link.kind.clone(), up };
        if gone {
            self.forget(index);
        }
        (was_up != up).then_some(news)
    }

    /// A link is gone: so is all that hung on it, said in one word.
    fn forget(&mut self, index: u32) {
        self.links.remove(&index);
        self.addresses.retain(|(i, _), _| *i != index);
        self.routes.retain(|r| r.0 != index);
        self.silent.retain(|(i, _)| *i != index);
    }

    fn address(&mut self, index: u32, address: IpAddr, prefix: u8, gone: bool) -> Option<News> {
        // Pods' own ends lie in other namespaces; what a pair's host end has is the plugin's affair.
        let is_veth = self.links.get(&index).is_some_and(|l| l.kind == "veth");
        if is_veth || !is_of_interest(address) {
            return None;
        }
        let key = (index, address);
        let changed = if gone {
            self.addresses.remove(&key).is_some()
        } else {
            self.addresses.len() < MAX_KNOWN && self.addresses.insert(key, prefix).is_none()
        };
        changed.then(|| News::Address { name: self.name(index), address, prefix, added: !gone })
    }

    fn route(&mut self, route: Route, gone: bool) -> Option<News> {
        let changed = if gone {
            self.routes.remove(&route)
        } else {
            self.routes.len() < MAX_KNOWN && self.routes.insert(route)
        };
        changed.then(|| News::Route { name: self.name(route.0), gateway: route.1, added: !gone })
    }

    /// Goes over to another state, telling the way.
    fn become_like(&mut self, now: Self, news: &mut Vec<News>) {
        let gone: Vec<u32> =
            self.links.keys().filter(|i| !now.links.contains_key(i)).copied().collect();
        for index in gone {
            let link = self.links.get(&index).map(|l| (l.name.clone(), l.kind.clone()));
            let (name, kind) = link.unwrap_or_default();
            news.extend(self.link(index, &name, &kind, false, true));
        }
        for (index, link) in &now.links {
            news.extend(self.link(*index, &link.name, &link.kind, link.up, false));
        }
        let old: Vec<_> = self.addresses.iter().map(|(k, p)| (*k, *p)).collect();
        for ((index, address), prefix) in old {
            if !now.addresses.contains_key(&(index, address)) {
                news.extend(self.address(index, address, prefix, true));
            }
        }
        for ((index, address), prefix) in now.addresses {
            news.extend(self.address(index, address, prefix, false));
        }
        for route in self.routes.clone() {
            if !now.routes.contains(&route) {
                news.extend(self.route(route, true));
            }
        }
        for route in now.routes {
            news.extend(self.route(route, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn link(index: u32, up: bool, gone: bool) -> Said<'static> {
        Said::Link { index, name: "ens5", kind: "device", up, gone }
    }

    fn told(up: bool) -> Option<News> {
        Some(News::Link { name: "ens5".into(), kind: "device".into(), up })
    }

    #[test]
    fn repetitions_are_no_news() {
        let mut state = State::default();
        assert_eq!(state.take(link(2, true, false)), told(true));
        assert_eq!(state.take(link(2, true, false)), None);
        assert_eq!(state.take(link(2, false, false)), told(false));
        assert_eq!(state.take(link(2, false, false)), None);
        assert_eq!(state.take(link(2, false, true)), None, "down before it went");
        assert_eq!(state.take(link(2, false, true)), None, "unknown");
        assert_eq!(state.take(link(3, true, false)), told(true));
        assert_eq!(state.take(link(3, false, true)), told(false));
    }

    #[test]
    fn a_gateway_that_falls_silent_is_told_once_and_other_neighbours_never() {
        let mut state = State::default();
        state.take(link(2, true, false));
        let route = Said::DefaultRoute { index: 2, gateway: Some(GATEWAY), v6: false, gone: false };
        assert!(matches!(state.take(route), Some(News::Route { added: true, .. })));
        assert_eq!(state.take(route), None);
        let unanswered = |address| Said::Unanswered { index: 2, address };
        assert_eq!(state.take(unanswered(IpAddr::from([10, 0, 0, 9]))), None);
        let silent = News::GatewaySilent { name: "ens5".into(), gateway: GATEWAY };
        assert_eq!(state.take(unanswered(GATEWAY)), Some(silent.clone()));
        assert_eq!(state.take(unanswered(GATEWAY)), None);
        state.take(Said::Answered { index: 2, address: GATEWAY });
        assert_eq!(state.take(unanswered(GATEWAY)), Some(silent));
    }

    #[test]
    fn after_an_overrun_the_difference_is_told() {
        let address = |gone| Said::Address {
            index: 2,
            address: IpAddr::from([192, 0, 2, 7]),
            prefix: 24,
            gone,
        };
        let mut state = State::default();
        for said in [link(2, true, false), link(9, true, false), address(false)] {
            state.take(said);
        }
        let mut now = State::default();
        now.take(link(2, false, false));
        let mut news = Vec::new();
        state.become_like(now, &mut news);
        assert_eq!(news.len(), 3, "{news:?}");
        assert_eq!(Some(news[0].clone()), told(false));
        assert!(matches!(news[2], News::Address { added: false, .. }));
        let mut again = Vec::new();
        let mut same = State::default();
        same.take(link(2, false, false));
        state.become_like(same, &mut again);
        assert_eq!(again, []);
    }
}
