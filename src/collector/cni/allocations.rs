//! Addresses allocated by the IPAM plugin host-local: one file each in
//! `/var/lib/cni/networks/NETWORK/`, whose name is the address and whose lines are the container's
//! id and the interface (`plugins/ipam/host-local/backend/disk` of the CNI plugins).

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

/// Capacity of the table of allocations.
const MAX_ALLOCATIONS: usize = 65_536;
/// Bytes read of a file.
const MAX_FILE_BYTES: u64 = 4096;
/// Number of networks that are watched.
const MAX_NETWORKS: usize = 1024;

/// An allocated address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allocation {
    pub(super) network: String,
    pub(super) address: IpAddr,
    pub(super) container_id: String,
    /// Empty if the plugin is older than 0.7.
    pub(super) ifname: String,
    /// Time at which the file was written, ns since the Unix epoch.
    pub(super) since_ns: u64,
}

/// A change of an allocation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It existed when its network was first read.
    Found(Allocation),
    /// The address was allocated.
    Allocated(Allocation),
    /// The address was released, at this time.
    Released(Allocation, u64),
}

/// Watches the folders of the networks; keeps the current allocations.
pub(super) struct Allocations {
    base: PathBuf,
    inotify: OwnedFd,
    base_watch: Option<i32>,
    /// Networks by the number of their watch.
    networks: HashMap<i32, String>,
    current: HashMap<(String, IpAddr), Allocation>,
    /// Allocations of an earlier run that this run hasn't verified yet.
    unverified: Vec<Allocation>,
    /// Allocations that were released before their file was read: their container isn't known.
    pub(super) missed: u64,
}

/// The inotify events after which a file is complete, or removed.
fn network_flags() -> WatchFlags {
    WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::ONLYDIR
}

impl Allocations {
    /// Creates the watcher. Reads nothing yet; the folder may be missing.
    pub(super) fn open(base: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self {
            base: base.to_owned(),
            inotify,
            base_watch: None,
            networks: HashMap::new(),
            current: HashMap::new(),
            unverified: Vec::new(),
            missed: 0,
        })
    }

    /// Restores the allocations of the previous run. Those that don't exist any more are reported
    /// as released when the folders are first read.
    pub(super) fn restore<'a>(&mut self, previous: impl Iterator<Item = &'a Allocation>) {
        self.unverified = previous.cloned().collect();
    }

    /// Number of allocated addresses.
    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    /// Starts to watch the base folder if it exists now. Called about once a second.
    pub(super) fn watch_base(&mut self, changes: &mut Vec<Change>) {
        if self.base_watch.is_some() {
            return;
        }
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        // A folder that is missing or not readable has nothing to report.
        if let Ok(watch) = inotify::add_watch(&self.inotify, &self.base, flags) {
            self.base_watch = Some(watch);
            self.read_networks(changes, false);
            self.verify_restored(changes);
        }
    }

    /// Reads the changes since the last call.
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
        for (watch, flags, name) in events {
            self.process(watch, flags, name.as_deref(), changes);
        }
    }

    /// Processes one inotify event.
    fn process(
        &mut self,
        watch: i32,
        flags: ReadFlags,
        name: Option<&str>,
        changes: &mut Vec<Change>,
    ) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            // The kernel dropped events: the folders are read again.
            self.read_networks(changes, true);
            for network in self.networks.values().cloned().collect::<Vec<_>>() {
                self.compare(&network, changes, true);
            }
            return;
        }
        let is_watch_removed = flags.contains(ReadFlags::IGNORED);
        if Some(watch) == self.base_watch {
            if is_watch_removed {
                self.base_watch = None;
            } else if let Some(name) = name {
                self.watch_network(name, changes, true);
            }
            return;
        }
        let Some(network) = self.networks.get(&watch).cloned() else {
            return;
        };
        if is_watch_removed {
            self.networks.remove(&watch);
            return;
        }
        let Some(address) = name.and_then(|n| n.parse::<IpAddr>().ok()) else {
            return;
        };
        if flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            self.released(network, address, changes);
        } else {
            self.allocated(&network, address, changes, true);
            self.count_missed(network, address);
        }
    }

    /// Counts a file that was written and is removed already: it can't be read any more.
    fn count_missed(&mut self, network: String, address: IpAddr) {
        let is_removed = !self.base.join(&network).join(address.to_string()).exists();
        self.missed += u64::from(is_removed && !self.current.contains_key(&(network, address)));
    }

    /// Reports the restored allocations that don't exist any more as released. Their time of
    /// release isn't known; it is before now.
    fn verify_restored(&mut self, changes: &mut Vec<Change>) {
        let now_ns = clock::wall_ns();
        for old in std::mem::take(&mut self.unverified) {
            if self.current.get(&(old.network.clone(), old.address)) != Some(&old) {
                changes.push(Change::Released(old, now_ns));
            }
        }
    }

    /// Watches all networks. `is_new`: allocations in them are new, not found.
    fn read_networks(&mut self, changes: &mut Vec<Change>, is_new: bool) {
        for entry in fs::read_dir(&self.base).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str() {
                self.watch_network(name, changes, is_new);
            }
        }
    }

    fn watch_network(&mut self, name: &str, changes: &mut Vec<Change>, is_new: bool) {
        if self.networks.len() >= MAX_NETWORKS || self.networks.values().any(|n| n == name) {
            return;
        }
        // Watched before it is read: a change in between is seen twice and reported once.
        let folder = self.base.join(name);
        if let Ok(watch) = inotify::add_watch(&self.inotify, &folder, network_flags()) {
            self.networks.insert(watch, name.to_owned());
            self.compare(name, changes, is_new);
        }
    }

    /// Compares a network's folder with its current allocations.
    fn compare(&mut self, network: &str, changes: &mut Vec<Change>, is_new: bool) {
        let mut existing = HashSet::new();
        for entry in fs::read_dir(self.base.join(network)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(address) = name.to_str().and_then(|n| n.parse::<IpAddr>().ok()) {
                existing.insert(address);
                self.allocated(network, address, changes, is_new);
            }
        }
        let addresses = self.current.keys().filter(|(n, _)| n == network).map(|(_, a)| *a);
        let released: Vec<_> = addresses.filter(|a| !existing.contains(a)).collect();
        for address in released {
            self.released(network.to_owned(), address, changes);
        }
    }

    fn allocated(
        &mut self,
        network: &str,
        address: IpAddr,
        changes: &mut Vec<Change>,
        is_new: bool,
    ) {
        let path = self.base.join(network).join(address.to_string());
        // Removed again, or created and not written yet: another inotify event follows.
        let Some(allocation) = read(&path, network, address) else {
            return;
        };
        let key = (network.to_owned(), address);
        match self.current.get(&key) {
            Some(current) if *current == allocation => return,
            Some(_) => self.released(network.to_owned(), address, changes),
            None => {}
        }
        if self.current.len() < MAX_ALLOCATIONS {
            self.current.insert(key, allocation.clone());
        }
        changes.push(match is_new {
            true => Change::Allocated(allocation),
            false => Change::Found(allocation),
        });
    }

    fn released(&mut self, network: String, address: IpAddr, changes: &mut Vec<Change>) {
        if let Some(allocation) = self.current.remove(&(network, address)) {
            changes.push(Change::Released(allocation, clock::wall_ns()));
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

    fn describe(changes: &mut Vec<Change>) -> Vec<String> {
        let text = |change: Change| match change {
            Change::Found(a) => format!("found {} {}", a.address, a.container_id),
            Change::Allocated(a) => {
                format!("allocated {} {} {}", a.address, a.container_id, a.ifname)
            }
            Change::Released(a, _) => format!("released {} {}", a.address, a.network),
        };
        changes.drain(..).map(text).collect()
    }

    #[test]
    fn each_file_change_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("networks");
        let mut all = Allocations::open(&base).unwrap();
        let mut changes = Vec::new();
        all.watch_base(&mut changes);
        assert!(changes.is_empty(), "no folder yet");
        fs::create_dir_all(base.join("podnet")).unwrap();
        fs::write(base.join("podnet/10.1.0.2"), "abc\r\neth0").unwrap();
        all.watch_base(&mut changes);
        all.watch_base(&mut changes);
        assert_eq!(describe(&mut changes), ["found 10.1.0.2 abc"]);
        // Allocations of a network created later are new, whether the watch or the read after it
        // finds them.
        fs::create_dir(base.join("other")).unwrap();
        fs::write(base.join("other/fd00::2"), "def\r\neth1").unwrap();
        fs::write(base.join("other/last_reserved_ip.0"), "fd00::2").unwrap();
        fs::write(base.join("podnet/lock"), "").unwrap();
        fs::write(base.join("podnet/10.1.0.3"), "").unwrap();
        all.read(&mut changes);
        all.read(&mut changes);
        assert_eq!(describe(&mut changes), ["allocated fd00::2 def eth1"]);
        fs::write(base.join("podnet/10.1.0.3"), "ghi").unwrap();
        fs::remove_file(base.join("podnet/10.1.0.2")).unwrap();
        all.read(&mut changes);
        assert_eq!(describe(&mut changes), ["allocated 10.1.0.3 ghi ", "released 10.1.0.2 podnet"]);
        assert_eq!(all.len(), 2);
        assert_eq!(all.missed, 0);
        fs::write(base.join("podnet/10.1.0.4"), "jkl").unwrap();
        fs::remove_file(base.join("podnet/10.1.0.4")).unwrap();
        all.read(&mut changes);
        assert_eq!((changes.len(), all.missed), (0, 1), "released before it was read");
        fs::remove_dir_all(&base).unwrap();
        all.read(&mut changes);
        assert_eq!(changes.len(), 2);
        changes.clear();
        fs::create_dir_all(base.join("podnet")).unwrap();
        all.watch_base(&mut changes);
        fs::write(base.join("podnet/10.1.0.9"), "x").unwrap();
        all.read(&mut changes);
        assert_eq!(describe(&mut changes), ["allocated 10.1.0.9 x "], "watched again");
    }
}
