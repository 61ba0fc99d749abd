//! The rights that a collector needs, and the threads that have them.

use std::io;
use std::path::{Path, PathBuf};
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

impl Needs {
    /// These capabilities and files. A path through the root of another process
    /// (`/proc/PID/root/…`) is open to ptrace access only.
    #[must_use]
    pub fn new(mut rights: Rights, files: Vec<(PathBuf, FileRights)>, sockets: &[PathBuf]) -> Self {
        let mut paths = files.iter().map(|file| &file.0).chain(sockets);
        if paths.any(|path| is_in_other_root(path)) {
            rights.running |= CapabilitySet::SYS_PTRACE;
        }
        Self { rights, files }
    }
}

/// Whether a path leads through the root of another process.
fn is_in_other_root(path: &Path) -> bool {
    let mut parts = path.components().skip(1).map(|part| part.as_os_str().to_string_lossy());
    let mut next = || parts.next().unwrap_or_default();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    path.is_absolute() && next() == "proc" && is_number(&next()) && next() == "root"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_in_the_root_of_another_process_needs_ptrace_access() {
        let of = |path: &str| Needs::new(Rights::NONE, Vec::new(), &[path.into()]).rights.running;
        let root = Path::new("/proc/12/root");
        let socket = root.join("run/dbus/system_bus_socket");
        assert_eq!(of(&socket.display().to_string()), CapabilitySet::SYS_PTRACE);
        for path in ["/proc/self/root", "/run/proc/1/root", "proc/1/root", "/proc/1/cwd"] {
            assert_eq!(of(path), CapabilitySet::empty(), "{path}");
        }
    }

    #[test]
    fn thread_has_the_rights_of_its_collector() {
        let rights = Rights { opening: CapabilitySet::SYSLOG, running: CapabilitySet::KILL };
        let (sender, sets) = std::sync::mpsc::sync_channel(16);
        // A thread of its own: what it drops is gone.
        let first = std::thread::spawn(move || {
            let held = rustix::thread::capabilities(None).unwrap().permitted;
            let rows = vec![("a", rights), ("b", Rights::NONE)];
            let confinement = Confinement::new(rows, None).unwrap();
            limit(CapabilitySet::empty(), CapabilitySet::empty()).unwrap();
            for (name, rights) in [("a", rights), ("b", Rights::NONE), ("unknown", Rights::NONE)] {
                let sender = sender.clone();
                let report = move || {
                    let now = rustix::thread::capabilities(None).unwrap();
                    sender.send((now.permitted, now.effective)).unwrap();
                };
                // Two runs, as after a failure.
                let body = move || {
                    for _ in 0..2 {
                        rights.begin();
                        report();
                        rights.opened();
                        report();
                    }
                };
                confinement.spawn(name, name.into(), body).unwrap().join().unwrap();
            }
            held
        });
        let held = first.join().unwrap();
        let (opening, running) = (held & rights.permitted(), held & rights.running);
        let sets: Vec<_> = sets.iter().collect();
        assert_eq!(sets[..4], [(opening, opening), (opening, running)].repeat(2));
        assert_eq!(sets[4..], [(CapabilitySet::empty(), CapabilitySet::empty()); 8]);
    }
}
