//! The operations on files that a log needs, as a trait, so that a simulated disk can stand in for
//! the kernel's: one that tears writes, loses what wasn't synced, and fails.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt as _, FileExt, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A file system.
pub trait Files: Send + Sync {
    /// Creates a folder and its parents, accessible to this user only.
    ///
    /// # Errors
    /// When the folder can't be created.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a folder.
    ///
    /// # Errors
    /// When the folder can't be read.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates a file, readable and writable by this user only.
    ///
    /// # Errors
    /// When the file exists or can't be created.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file.
    ///
    /// # Errors
    /// When the file can't be opened.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file.
    ///
    /// # Errors
    /// When the file can't be renamed.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When the file can't be removed.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Locks a file against other processes for as long as the returned value lives; creates it if
    /// missing.
    ///
    /// # Errors
    /// `ResourceBusy` when another process has locked it, or when it can't be created.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>>;

    /// Writes the entries of a folder to the disk: files created, renamed and removed.
    ///
    /// # Errors
    /// When the disk reports an error.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file of a [`Files`].
pub trait DiskFile: Send + Sync {
    /// Bytes in the file.
    ///
    /// # Errors
    /// When the file's metadata can't be read.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Names that the file has; 0 once it is deleted.
    ///
    /// # Errors
    /// When the file's metadata can't be read.
    fn links(&self) -> io::Result<u64>;

    /// Reads at an offset. Returns fewer bytes than the buffer's only at the end of the file.
    ///
    /// # Errors
    /// When the disk refuses it.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all parts, one behind the other, from `offset`.
    ///
    /// # Errors
    /// When the disk refuses it; some of the bytes may be written.
    fn write_at(&self, parts: [&[u8]; 3], offset: u64) -> io::Result<()>;

    /// Cuts the file to a length.
    ///
    /// # Errors
    /// When the disk refuses it.
    fn truncate(&self, len_bytes: u64) -> io::Result<()>;

    /// Writes the file's data and length to the disk.
    ///
    /// # Errors
    /// When the disk reports an error: what wasn't synced before may be lost, and a second call may
    /// succeed although it is (`fsync(2)`).
    fn sync(&self) -> io::Result<()>;
}

/// The kernel's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFiles;

/// A lock is waited for about a second: the process before this one may be about to end, and a
/// child that was forked and has not executed its program yet holds the locks of its parent
/// (flock(2)).
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

impl Files for OsFiles {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if let Ok(metadata) = std::fs::metadata(dir)
            && metadata.is_dir()
        {
            return check_owner(&metadata);
        }
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
            self.create_dir(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            created => created?,
        }
        // A loss of power must not take the folder, with what is synced in it.
        parent.map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // Names that aren't UTF-8 are none of a log's files.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        Ok(Arc::new(options.read(true).write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        Ok(Arc::new(open_own(options.read(true).write(true), path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = open_own(&mut options, path)?;
        match lock_soon(&file)? {
            true => Ok(Box::new(file)),
            false => Err(io::Error::new(io::ErrorKind::ResourceBusy, "in use by another process")),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// Locks a file; waits about a second for the process that has locked it. Returns whether it could.
///
/// # Errors
/// When the file system has no locks.
pub fn lock_soon(file: &File) -> io::Result<bool> {
    for _ in 0..LOCK_ATTEMPTS {
        match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}

/// Opens a file that isn't another user's. A symbolic link isn't followed.
///
/// # Errors
/// When it is, or can't be opened.
pub fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
    check_owner(&file.metadata()?)?;
    Ok(file)
}

/// Refuses what another user owns: who may create files in a folder of theirs could have placed it.
fn check_owner(metadata: &Metadata) -> io::Result<()> {
    let owner = metadata.uid();
    if owner == 0 || owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let cause = format!("belongs to another user (uid {owner})");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, cause))
}

impl DiskFile for File {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.metadata()?.nlink())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }

    fn write_at(&self, parts: [&[u8]; 3], mut offset: u64) -> io::Result<()> {
        let mut slices = parts.map(IoSlice::new);
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match rustix::io::pwritev(self, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.set_len(len_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
