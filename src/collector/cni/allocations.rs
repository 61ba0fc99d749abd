//! Addresses that the IPAM plugin host-local has given: a file for each in `/var/lib/cni/networks/NETWORK/`, whose name
//! is the address and whose lines are the container's id and the interface (`plugins/ipam/host-local/backend/disk` of
//! the CNI plugins).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use tapio_core::clock;

/// The most addresses that are remembered.
const MAX_KNOWN: usize = 65_536;
/// The most of a file that is read.
const MAX_FILE_BYTES: u64 = 4096;
/// Networks that are watched.
const MAX_NETWORKS: usize = 1024;

/// An address that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allocation {
    pub(super) network: String,
    pub(super) address: IpAddr,
    pub(super) container_id: String,
    /// Empty where the plugin is older than 0.7.
    pub(super) ifname: String,
    /// When the file was written, nanoseconds since the Unix epoch.
    pub(super) since_ns: u64,
}

/// What became of an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was there when its network was looked at for the first time.
    Found(Allocation),
    /// It was given.
    Given(Allocation),
    /// It was taken back, at this time.
    TakenBack(Allocation, u64),
}

/// The folders, and what was in them.
pub(super) struct Allocations {
    base: PathBuf,
    inotify: OwnedFd,
    base_watch: Option<i32>,
    networks: HashMap<i32, String>,
    known: HashMap<(String, IpAddr), Allocation>,
    /// What an earlier run knew and this one hasn't looked for yet.
    remembered: Vec<Allocation>,
}

/// The events that say that a file is whole, or gone.
fn network_flags() -> WatchFlags {
    WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::ONLYDIR
}

impl Allocations {
    /// Nothing is read yet, and the folder needn't be there.
    pub(super) fn open(base: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self {
            base: base.to_owned(),
            inotify,
            base_watch: None,
            networks: HashMap::new(),
            known: HashMap::new(),
            remembered: Vec::new(),
        })
    }

    /// What was given when the agent was here last: of what isn't any more it is told at the first look.
    pub(super) fn remember<'a>(&mut self, given: impl Iterator<Item = &'a Allocation>) {
        self.remembered = given.cloned().collect();
    }

    /// Addresses that are given now.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Watches the folder if it is there by now. Called about once a second.
    pub(super) fn look(&mut self, changes: &mut Vec<Change>) {
        if self.base_watch.is_some() {
            return;
        }
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        // It isn't there, or not for us to read: then there is nothing to tell.
        if let Ok(watch) = inotify::add_watch(&self.inotify, &self.base, flags) {
            self.base_watch = Some(watch);
            self.networks_of(changes, false);
            self.miss(changes);
        }
    }

    /// Reads what has changed.
    pub(super) fn read(&mut self, changes: &mut Vec<Change>) {
        let mut events = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(self.inotify.as_fd(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().and_then(|n| n.to_str().ok());
                    events.push((event.wd(), event.events(), name.map(str::to_owned)));
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        for (watch, what, name) in events {
            self.event(watch, what, name.as_deref(), changes);
        }
    }

    fn event(
        &mut self,
        watch: i32,
        what: ReadFlags,
        name: Option<&str>,
        changes: &mut Vec<Change>,
    ) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            // The kernel left something out: the folders say how things are.
            self.networks_of(changes, true);
            for network in self.networks.values().cloned().collect::<Vec<_>>() {
                self.compare(&network, changes, true);
            }
            return;
        }
        if Some(watch) == self.base_watch {
            match name {
                Some(name) if !what.contains(ReadFlags::IGNORED) => {
                    self.network(name, changes, true);
                }
                _ if what.contains(ReadFlags::IGNORED) => self.base_watch = None,
                _ => {}
            }
            return;
        }
        let Some(network) = self.networks.get(&watch).cloned() else {
            return;
        };
        if what.contains(ReadFlags::IGNORED) {
            self.networks.remove(&watch);
            return;
        }
        let Some(address) = name.and_then(|n| n.parse::<IpAddr>().ok()) else {
            return;
        };
        if what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            self.taken_back(network, address, changes);
        } else {
            self.given(&network, address, changes, true);
        }
    }

    /// Tells what of the remembered isn't there any more. When it was taken back isn't known: before now.
    fn miss(&mut self, changes: &mut Vec<Change>) {
        let now_ns = clock::wall_ns();
        for old in std::mem::take(&mut self.remembered) {
            if self.known.get(&(old.network.clone(), old.address)) != Some(&old) {
                changes.push(Change::TakenBack(old, now_ns));
            }
        }
    }

    /// Watches the networks there are.
    fn networks_of(&mut self, changes: &mut Vec<Change>, news: bool) {
        for entry in fs::read_dir(&self.base).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str() {
                self.network(name, changes, news);
            }
        }
    }

    fn network(&mut self, name: &str, changes: &mut Vec<Change>, news: bool) {
        if self.networks.len() >= MAX_NETWORKS || self.networks.values().any(|n| n == name) {
            return;
        }
        // First watched, then read: what comes in between is seen twice and told once.
        let folder = self.base.join(name);
        if let Ok(watch) = inotify::add_watch(&self.inotify, &folder, network_flags()) {
            self.networks.insert(watch, name.to_owned());
            self.compare(name, changes, news);
        }
    }

    /// Compares a network's folder with what is known of it.
    fn compare(&mut self, network: &str, changes: &mut Vec<Change>, news: bool) {
        let mut there = HashSet::new();
        for entry in fs::read_dir(self.base.join(network)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(address) = name.to_str().and_then(|n| n.parse::<IpAddr>().ok()) {
                there.insert(address);
                self.given(network, address, changes, news);
            }
        }
        let of_network = self.known.keys().filter(|(n, _)| n == network);
        let gone: Vec<_> = of_network.map(|(_, a)| *a).filter(|a| !there.contains(a)).collect();
        for address in gone {
            self.taken_back(network.to_owned(), address, changes);
        }
    }

    fn given(&mut self, network: &str, address: IpAddr, changes: &mut Vec<Change>, news: bool) {
        let path = self.base.join(network).join(address.to_string());
        // Gone again, or made and not written yet: another notification follows.
        let Some(allocation) = read(&path, network, address) else {
            return;
        };
        let key = (network.to_owned(), address);
        match self.known.get(&key) {
            Some(known) if *known == allocation => return,
            Some(_) => self.taken_back(network.to_owned(), address, changes),
            None => {}
        }
        if self.known.len() < MAX_KNOWN {
            self.known.insert(key, allocation.clone());
        }
        changes.push(if news { Change::Given(allocation) } else { Change::Found(allocation) });
    }

    fn taken_back(&mut self, network: String, address: IpAddr, changes: &mut Vec<Change>) {
        if let Some(allocation) = self.known.remove(&(network, address)) {
            changes.push(Change::TakenBack(allocation, clock::wall_ns()));
        }
    }
}

impl AsFd for Allocations {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn read(path: &Path, network: &str, address: IpAddr) -> Option<Allocation> {
    use std::io::Read as _;
    let file = fs::File::open(path).ok()?;
    let modified = file.metadata().ok()?.modified().ok()?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    let mut lines = text.lines().map(str::trim);
    let container_id = lines.next().filter(|id| !id.is_empty())?.to_owned();
    Some(Allocation {
        network: network.to_owned(),
        address,
        container_id,
        ifname: lines.next().unwrap_or_default().to_owned(),
        since_ns: modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(changes: &mut Vec<Change>) -> Vec<String> {
        let text = |change: Change| match change {
            Change::Found(a) => format!("found {} {}", a.address, a.container_id),
            Change::Given(a) => format!("given {} {} {}", a.address, a.container_id, a.ifname),
            Change::TakenBack(a, _) => format!("back {} {}", a.address, a.network),
        };
        changes.drain(..).map(text).collect()
    }

    #[test]
    fn files_become_allocations_once() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("networks");
        let mut all = Allocations::open(&base).unwrap();
        let mut changes = Vec::new();
        all.look(&mut changes);
        assert!(changes.is_empty(), "no folder yet");
        fs::create_dir_all(base.join("podnet")).unwrap();
        fs::write(base.join("podnet/10.1.0.2"), "abc\r\neth0").unwrap();
        all.look(&mut changes);
        all.look(&mut changes);
        assert_eq!(short(&mut changes), ["found 10.1.0.2 abc"]);
        // A network that comes later is news from its first file on, seen by the watch or by the look behind it.
        fs::create_dir(base.join("other")).unwrap();
        fs::write(base.join("other/fd00::2"), "def\r\neth1").unwrap();
        fs::write(base.join("other/last_reserved_ip.0"), "fd00::2").unwrap();
        fs::write(base.join("podnet/lock"), "").unwrap();
        fs::write(base.join("podnet/10.1.0.3"), "").unwrap();
        all.read(&mut changes);
        all.read(&mut changes);
        assert_eq!(short(&mut changes), ["given fd00::2 def eth1"]);
        fs::write(base.join("podnet/10.1.0.3"), "ghi").unwrap();
        fs::remove_file(base.join("podnet/10.1.0.2")).unwrap();
        all.read(&mut changes);
        assert_eq!(short(&mut changes), ["given 10.1.0.3 ghi ", "back 10.1.0.2 podnet"]);
        assert_eq!(all.len(), 2);
        fs::remove_dir_all(&base).unwrap();
        all.read(&mut changes);
        assert_eq!(changes.len(), 2);
        changes.clear();
        fs::create_dir_all(base.join("podnet")).unwrap();
        all.look(&mut changes);
        fs::write(base.join("podnet/10.1.0.9"), "x").unwrap();
        all.read(&mut changes);
        assert_eq!(short(&mut changes), ["given 10.1.0.9 x "], "watched again");
    }
}
