//! A simulated disk: it forgets what wasn't synced when it crashes, tears writes into sectors, runs
//! full, and fails. All choices come from a seed. Fuzz targets use it too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tapio::store::{DiskFile, Files};

/// The unit in which a write reaches the disk, or doesn't.
const SECTOR_BYTES: usize = 512;

/// Random numbers from a seed (splitmix64, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True in one of `n` cases.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Default)]
struct Inode {
    /// The bytes that a read returns.
    bytes: Vec<u8>,
    /// The bytes that a crash leaves for certain.
    durable: Vec<u8>,
    /// Whether the kernel still has to write it. After a failed sync it doesn't try again.
    is_dirty: bool,
    /// Open files; a deleted file takes room until the last one is closed.
    open_files: u32,
}

#[derive(Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    next_inode: u64,
    /// Bytes that fit.
    capacity: Option<u64>,
    /// Syncs that fail from now on.
    failing_syncs: u32,
    /// Whether every write fails.
    is_read_only: bool,
}

/// A disk. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits the bytes of all files.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Lets the next syncs of files fail.
    pub(crate) fn fail_syncs(&self, n: u32) {
        self.state().failing_syncs = n;
    }

    /// Lets every write fail, or none any more.
    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        self.state().is_read_only = is_read_only;
    }

    /// Ends the process: its locks are gone, everything else stays.
    pub(crate) fn kill(&self) {
        self.state().locked.clear();
    }

    /// Loses power: what wasn't synced is there in part, or not at all.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        let mut state = self.state();
        let mut names = state.durable_names.clone();
        for (path, inode) in &state.names {
            if rng.one_in(2) {
                names.insert(path.clone(), *inode);
            }
        }
        let gone = state.durable_names.keys().filter(|path| !state.names.contains_key(*path));
        for path in gone {
            if rng.one_in(2) {
                names.remove(path);
            }
        }
        for inode in state.inodes.values_mut() {
            inode.lose_power(rng);
        }
        state.durable_names.clone_from(&names);
        state.names = names;
        state.locked.clear();
    }

    /// The contents of a file.
    pub(crate) fn contents(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.names.get(path).map_or_else(Vec::new, |inode| state.inodes[inode].bytes.clone())
    }

    /// Replaces the contents of a file, durably; creates it if missing.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.names.get(path).copied().unwrap_or_else(|| state.add(path));
        let file = Inode {
            bytes: bytes.to_vec(),
            durable: bytes.to_vec(),
            is_dirty: false,
            open_files: 0,
        };
        state.inodes.insert(inode, file);
        state.durable_names.insert(path.to_owned(), inode);
    }

    /// All files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// Deletes a file, as an operator would.
    pub(crate) fn delete(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }
}

impl State {
    fn add(&mut self, path: &Path) -> u64 {
        self.next_inode += 1;
        self.names.insert(path.to_owned(), self.next_inode);
        self.inodes.insert(self.next_inode, Inode::default());
        self.next_inode
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<_> = self.names.values().collect();
        let takes_room = |(n, inode): &(&u64, &Inode)| named.contains(n) || inode.open_files > 0;
        self.inodes.iter().filter(takes_room).map(|(_, inode)| inode.bytes.len() as u64).sum()
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.is_read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }
}

impl Inode {
    /// Keeps each unsynced sector or loses it; a file may be cut off, or have zeros in it.
    fn lose_power(&mut self, rng: &mut Rng) {
        if self.is_dirty {
            let mut kept = self.durable.clone();
            if rng.one_in(2) {
                kept.resize(kept.len().max(self.bytes.len()), 0);
            }
            for (n, sector) in self.bytes.chunks(SECTOR_BYTES).enumerate() {
                let at = n * SECTOR_BYTES;
                if rng.one_in(2) && kept.len() >= at {
                    kept.resize(kept.len().max(at + sector.len()), 0);
                    kept[at..at + sector.len()].copy_from_slice(sector);
                }
            }
            self.bytes = kept;
        } else {
            self.bytes.clone_from(&self.durable);
        }
        self.durable.clone_from(&self.bytes);
        self.is_dirty = false;
    }
}

struct SimFile {
    disk: SimDisk,
    inode: u64,
}

impl SimFile {
    fn open(disk: &SimDisk, state: &mut State, inode: u64) -> Arc<dyn DiskFile> {
        if let Some(opened) = state.inodes.get_mut(&inode) {
            opened.open_files += 1;
        }
        Arc::new(Self { disk: disk.clone(), inode })
    }

    fn inode<T>(&self, read: impl FnOnce(&Inode) -> T) -> T {
        read(&self.disk.state().inodes[&self.inode])
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(closed) = self.disk.state().inodes.get_mut(&self.inode) {
            closed.open_files = closed.open_files.saturating_sub(1);
        }
    }
}

impl Files for SimDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.dirs.contains(dir) {
            state.check_writable()?;
            state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let children = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(children.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.check_writable()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.add(path);
        Ok(SimFile::open(self, &mut state, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let inode = state.names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile::open(self, &mut state, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check_writable()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check_writable()?;
        state.names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        if self.state().locked.insert(path.to_owned()) {
            Ok(Box::new(()))
        } else {
            Err(io::ErrorKind::ResourceBusy.into())
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let in_dir = |path: &Path| path.parent() == Some(dir);
        let current: Vec<_> = state.names.iter().map(|(p, i)| (p.clone(), *i)).collect();
        state.durable_names.retain(|path, _| !in_dir(path));
        state.durable_names.extend(current.into_iter().filter(|(path, _)| in_dir(path)));
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.inode(|i| i.bytes.len() as u64))
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.disk.state().names.values().filter(|inode| **inode == self.inode).count() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.inode(|i| {
            let rest = i.bytes.get(offset as usize..).unwrap_or_default();
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            n
        }))
    }

    fn write_at(&self, parts: [&[u8]; 3], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check_writable()?;
        let room = state.capacity.map_or(u64::MAX, |c| c.saturating_sub(state.used_bytes()));
        let Some(inode) = state.inodes.get_mut(&self.inode) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let bytes = parts.concat();
        let end = offset as usize + bytes.len();
        let growth = end.saturating_sub(inode.bytes.len()) as u64;
        // A full disk takes what fits.
        let fits = bytes.len() - growth.saturating_sub(room) as usize;
        inode.is_dirty = true;
        if inode.bytes.len() < offset as usize + fits {
            inode.bytes.resize(offset as usize + fits, 0);
        }
        inode.bytes[offset as usize..offset as usize + fits].copy_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check_writable()?;
        if let Some(inode) = state.inodes.get_mut(&self.inode) {
            inode.is_dirty = true;
            inode.bytes.resize(len_bytes as usize, 0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fails = state.failing_syncs > 0;
        state.failing_syncs -= u32::from(fails);
        if let Some(inode) = state.inodes.get_mut(&self.inode) {
            inode.is_dirty = false;
            if !fails {
                inode.durable.clone_from(&inode.bytes);
            }
        }
        if fails { Err(io::Error::other("simulated EIO")) } else { Ok(()) }
    }
}
