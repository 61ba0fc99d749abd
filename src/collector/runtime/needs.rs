//! The rights that a collector needs, and the threads that have them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use tapio_core::sandbox::{CapabilitySet, FileRights, PrivilegedThreads, Ruleset, limit, raise};

/// The capabilities that a collector needs; those of its thread alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// To open its source. They stay permitted for the next run, which opens the source again, but
    /// aren't effective while events are read.
    pub opening: CapabilitySet,
    /// As long as it runs.
    pub running: CapabilitySet,
}

impl Rights {
    /// No capabilities.
    pub const NONE: Self =
        Self { opening: CapabilitySet::empty(), running: CapabilitySet::empty() };

    /// The capabilities that its thread may make effective.
    #[must_use]
    pub fn permitted(self) -> CapabilitySet {
        self.opening | self.running
    }

    /// Makes the capabilities effective that opening the source needs.
    pub(crate) fn begin(self) {
        Self::set(self.permitted());
    }

    /// Leaves the capabilities effective that are needed from now on.
    pub(crate) fn opened(self) {
        Self::set(self.running);
    }

    fn set(effective: CapabilitySet) {
        if let Err(error) = raise(effective) {
            tracing::error!(%error, "can't change the capabilities of a collector's thread");
        }
    }
}

impl Default for Rights {
    fn default() -> Self {
        Self::NONE
    }
}

/// The rights that a collector needs.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Its capabilities.
    pub rights: Rights,
    /// Files and folders that it opens, besides `/proc`, `/sys`, `/etc`, `/usr`, and the state
    /// folder.
    pub files: Vec<(PathBuf, FileRights)>,
}

/// Starts the collectors' threads with the rights that each needs, in a process that has renounced
/// all others.
pub struct Confinement {
    rights: Vec<(&'static str, Rights)>,
    /// `None` where no collector needs capabilities.
    privileged: Option<PrivilegedThreads>,
    /// `None` where the kernel has no landlock.
    files: Option<Arc<Ruleset>>,
}

impl Confinement {
    /// Confines the collectors with these names. To be called while the calling thread has its
    /// capabilities and before `files` confines it.
    ///
    /// # Errors
    /// When the thread that starts privileged threads can't be started.
    pub fn new(
        rights: Vec<(&'static str, Rights)>,
        files: Option<Arc<Ruleset>>,
    ) -> io::Result<Self> {
        let all = rights.iter().fold(CapabilitySet::empty(), |all, (_, r)| all | r.permitted());
        let privileged = (!all.is_empty()).then(|| PrivilegedThreads::start(all)).transpose()?;
        Ok(Self { rights, privileged, files })
    }

    /// The capabilities of a collector.
    pub(crate) fn rights(&self, name: &str) -> Rights {
        self.rights.iter().find(|row| row.0 == name).map_or(Rights::NONE, |row| row.1)
    }

    /// Starts a thread with the rights of a collector.
    ///
    /// # Errors
    /// When the system can't start a thread.
    pub(crate) fn spawn(
        &self,
        collector: &str,
        thread: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let rights = self.rights(collector);
        let Some(privileged) = self.privileged.as_ref().filter(|_| rights != Rights::NONE) else {
            return Builder::new().name(thread).spawn(body);
        };
        // A landlock domain ends ptrace access to the processes outside of it.
        let reads_processes = rights.running.contains(CapabilitySet::SYS_PTRACE);
        let files = self.files.clone().filter(|_| !reads_processes);
        privileged.spawn(thread, move || {
            if let Err(error) = limit(rights.permitted(), CapabilitySet::empty()) {
                tracing::error!(%error, "can't limit the capabilities of a collector's thread");
            }
            if let Some(Err(error)) = files.as_ref().map(|files| files.confine_thread()) {
                tracing::error!(%error, "a collector's thread isn't confined");
            }
            body();
        })
    }
}
