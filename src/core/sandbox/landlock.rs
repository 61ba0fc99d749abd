//! The files that a thread may open (landlock(7), Documentation/userspace-api/landlock.rst in the
//! kernel's source). Files that are open already aren't affected.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// Remove and make: everything from `REMOVE_DIR` to `MAKE_SYM`.
const CHANGE_DIR: u64 = ((1 << 13) - 1) & !((1 << 4) - 1);
/// `MAKE_CHAR` and `MAKE_BLOCK`: nothing of tapio makes devices.
const MAKE_DEVICE: u64 = (1 << 6) | (1 << 11);
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;

/// Rights that a rule for a file, not a folder, may have.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

/// The first version with which a thread may rename files between folders. Older ones would forbid
/// it everywhere (Linux 5.19).
const MIN_VERSION: u32 = 2;

/// Flag of `landlock_create_ruleset`: return the version.
const CREATE_RULESET_VERSION: c_long = 1;
/// Type of a rule: a folder and what is below it, or a file.
const RULE_PATH_BENEATH: c_long = 1;

/// `struct landlock_ruleset_attr` as of version 1; the kernel takes the fields after it as 0.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// The rights for one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRights {
    /// Read files and list folders.
    Read,
    /// Also execute programs.
    Execute,
    /// Also write, create, rename and remove files, folders and sockets.
    Write,
}

impl FileRights {
    fn bits(self) -> u64 {
        let read = READ_FILE | READ_DIR;
        match self {
            Self::Read => read,
            Self::Execute => read | EXECUTE,
            Self::Write => read | WRITE_FILE | TRUNCATE | REFER | (CHANGE_DIR & !MAKE_DEVICE),
        }
    }
}

/// Why a thread can't be confined.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// The kernel has no landlock, or it is disabled.
    #[error("landlock isn't available: {0}")]
    Missing(io::Error),
    /// The kernel's version would forbid too much.
    #[error("landlock version {0} can't rename files between folders: Linux 5.19 can")]
    TooOld(u32),
    /// The system refuses.
    #[error("landlock: {operation}: {cause}")]
    System {
        /// The operation or path.
        operation: String,
        /// The system's error.
        cause: io::Error,
    },
}

fn system_error(operation: &str, cause: io::Error) -> LandlockError {
    LandlockError::System { operation: operation.to_owned(), cause }
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The kernel's version of landlock.
///
/// # Errors
/// When the kernel has no landlock, or it is disabled at boot.
pub fn landlock_version() -> Result<u32, LandlockError> {
    // SAFETY: with this flag the call reads no memory (landlock_create_ruleset(2)).
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            0 as c_long,
            0 as c_long,
            CREATE_RULESET_VERSION,
        )
    };
    checked(version).map(|v| v as u32).map_err(LandlockError::Missing)
}

/// The files that threads may open. Every other file is refused to them with EACCES.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    handled: u64,
    version: u32,
    missing: Vec<PathBuf>,
}

impl Ruleset {
    /// A set that allows these paths. Those that don't exist are skipped: see [`Ruleset::missing`].
    ///
    /// # Errors
    /// When the kernel has no landlock, or an old version of it, or refuses a path.
    pub fn new(paths: &[(PathBuf, FileRights)]) -> Result<Self, LandlockError> {
        let version = landlock_version()?;
        if version < MIN_VERSION {
            return Err(LandlockError::TooOld(version));
        }
        let since = |first, right| if version >= first { right } else { 0 };
        let handled = (REFER - 1) | REFER | since(3, TRUNCATE) | since(5, IOCTL_DEV);
        let attributes = RulesetAttributes { handled_access_fs: handled };
        let size = size_of::<RulesetAttributes>();
        // SAFETY: `attributes` lives through the call, which reads `size` bytes of it.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attributes,
                size,
                0 as c_long,
            )
        };
        let fd = checked(fd).map_err(|e| system_error("creating the rule set", e))?;
        // SAFETY: the call has returned a new file descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut set = Self { fd, handled, version, missing: Vec::new() };
        for (path, rights) in paths {
            set.allow(path, *rights)?;
        }
        Ok(set)
    }

    fn allow(&mut self, path: &Path, rights: FileRights) -> Result<(), LandlockError> {
        let failed = |cause| system_error(&path.display().to_string(), cause);
        let opened = match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                self.missing.push(path.to_owned());
                return Ok(());
            }
            opened => opened.map_err(|e| failed(e.into()))?,
        };
        let stat = rustix::fs::fstat(&opened).map_err(|e| failed(e.into()))?;
        let is_folder = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
        let of_type = if is_folder { u64::MAX } else { OF_FILES };
        let rule = PathBeneath {
            allowed_access: rights.bits() & self.handled & of_type,
            parent_fd: opened.as_raw_fd(),
        };
        // SAFETY: `rule` lives through the call, which reads it as the type that
        // `RULE_PATH_BENEATH` names; both file descriptors are open.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.fd.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0 as c_long,
            )
        };
        checked(added).map(drop).map_err(failed)
    }

    /// Confines the calling thread, and the threads and programs that it starts from now on, for
    /// good. The thread must have renounced new rights ([`super::renounce`]).
    ///
    /// A confined thread has no ptrace access to processes outside: it can't read their
    /// `/proc/PID/exe`, `environ` and `root`, whatever its capabilities.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn confine_thread(&self) -> Result<(), LandlockError> {
        // SAFETY: the call takes an open file descriptor and reads no memory.
        let confined = unsafe {
            libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), 0 as c_long)
        };
        checked(confined).map(drop).map_err(|e| system_error("confining the thread", e))
    }

    /// The kernel's version of landlock.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The paths that didn't exist. If they are created later, they are refused.
    #[must_use]
    pub fn missing(&self) -> &[PathBuf] {
        &self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn confined_thread_opens_allowed_paths_only() {
        let dir = tempfile::tempdir().unwrap();
        let [read, write, other] = ["read", "write", "other"].map(|name| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("file"), name).unwrap();
            folder
        });
        let gone = dir.path().join("gone");
        let paths = [
            (read.clone(), FileRights::Read),
            (write.clone(), FileRights::Write),
            (other.join("file"), FileRights::Write),
            (gone.clone(), FileRights::Read),
        ];
        let set = match Ruleset::new(&paths) {
            Err(cause @ (LandlockError::Missing(_) | LandlockError::TooOld(_))) => {
                return println!("skipped: {cause}");
            }
            set => set.unwrap(),
        };
        assert_eq!(set.missing(), [gone]);
        let denied = |result: io::Result<()>| {
            result.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
        };
        let confined = std::thread::spawn(move || {
            let _ = super::super::renounce();
            set.confine_thread().unwrap();
            assert_eq!(fs::read_to_string(read.join("file")).unwrap(), "read");
            assert!(denied(fs::write(read.join("file"), "")));
            assert!(denied(fs::remove_file(read.join("file"))));
            fs::write(write.join("new"), "x").unwrap();
            fs::create_dir(write.join("folder")).unwrap();
            fs::rename(write.join("new"), write.join("folder/new")).unwrap();
            fs::write(other.join("file"), "").unwrap();
            assert!(denied(fs::read_dir(&other).map(drop)));
            assert!(denied(fs::write(other.join("new"), "")));
            // Threads that it starts are confined, too.
            let file = other.join("new");
            assert!(std::thread::spawn(move || denied(fs::write(file, ""))).join().unwrap());
        });
        confined.join().unwrap();
        fs::write(dir.path().join("other/new"), "other threads aren't").unwrap();
    }
}
