//! Limits the rights of the process before it starts its threads and opens its sources: threads
//! inherit the rights of the first one. Each collector's thread keeps the capabilities of its row
//! in the table of collectors, all others have none.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::config::Config;
use super::lock::{AgentLock, LockError};
use crate::store::{Files as _, OsFiles};
use tapio_collectors::{Confinement, Row};
use tapio_core::sandbox::{
    CapabilitySet, FileRights, Renounced, Ruleset, limit, names, renounce, thread_rights,
};

/// Read by every process: its own and other processes, the kernel's type information, cgroups, the
/// resolver's configuration, certificates, time zones, the resolver's libraries.
const SYSTEM: &[(&str, FileRights)] = &[
    ("/proc", FileRights::Read),
    ("/sys", FileRights::Read),
    ("/etc", FileRights::Read),
    ("/dev/null", FileRights::Write),
    // journalctl, where the journal has a format that tapio doesn't read itself.
    ("/usr", FileRights::Execute),
    ("/bin", FileRights::Execute),
    ("/lib", FileRights::Execute),
    ("/lib64", FileRights::Execute),
];

/// Folders nearer to the root than this aren't allowed as a whole for a file in them.
const MIN_FOLDER_DEPTH: usize = 2;

/// Why the rights of the process can't be limited.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The state folder can't be used.
    #[error(transparent)]
    StateFolder(#[from] LockError),
    /// A folder can't be created.
    #[error("{}: {cause}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The system refuses.
    #[error("sandbox: {0} (sandbox.enabled: false starts without limits)")]
    System(io::Error),
}

/// The limits in force.
#[derive(Clone, Debug)]
pub struct SandboxState {
    renounced: Renounced,
    /// The kernel's version of landlock, or why the process isn't confined by it.
    landlock: Result<u32, String>,
    /// Paths that didn't exist at the start; if they are created later, they are refused.
    missing: Vec<PathBuf>,
    /// Paths that may be read.
    readable: Vec<PathBuf>,
}

/// A process that has limited its rights.
pub struct Sandbox {
    /// The limits in force.
    pub state: Arc<SandboxState>,
    /// Starts the threads of collectors.
    pub(super) confinement: Option<Arc<Confinement>>,
}

impl Sandbox {
    /// Limits the rights of an agent: to be called by the process's only thread. `standalone`: a
    /// server runs in it, too. Returns `None` where the configuration disables it.
    ///
    /// # Errors
    /// When a folder can't be created, or the system refuses to limit the process.
    pub fn of_agent(
        config: &Config,
        standalone: bool,
        rows: &[Row],
    ) -> Result<Option<Self>, SandboxError> {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.enabled).collect();
        let mut folders = vec![config.state_dir()];
        if config.sandbox.enabled {
            AgentLock::create_folder(&folders[0])?;
        }
        folders.extend(standalone.then(|| config.server().data_dir));
        let files = rows.iter().flat_map(|row| row.needs.files.iter().cloned()).collect();
        let rights = rows.iter().map(|row| (row.name, row.needs.rights)).collect();
        Self::new(config, folders, files, Some(rights))
    }

    /// Limits the rights of a server, as [`Sandbox::of_agent`].
    ///
    /// # Errors
    /// As [`Sandbox::of_agent`].
    pub fn of_server(config: &Config) -> Result<Option<Self>, SandboxError> {
        Self::new(config, vec![config.server().data_dir], Vec::new(), None)
    }

    fn new(
        config: &Config,
        folders: Vec<PathBuf>,
        files: Vec<(PathBuf, FileRights)>,
        collectors: Option<Vec<(&'static str, tapio_collectors::Rights)>>,
    ) -> Result<Option<Self>, SandboxError> {
        if !config.sandbox.enabled {
            return Ok(None);
        }
        for folder in &folders {
            let failed = |cause| SandboxError::Folder { folder: folder.clone(), cause };
            OsFiles.create_dir(folder).map_err(failed)?;
        }
        let paths = paths(config, folders, files);
        let ruleset = Ruleset::new(&paths);
        let missing = ruleset.as_ref().map_or(Vec::new(), |set| set.missing().to_vec());
        let (ruleset, landlock) = match ruleset {
            Ok(set) => {
                let version = set.version();
                (Some(Arc::new(set)), Ok(version))
            }
            Err(error) => (None, Err(error.to_string())),
        };
        let renounced = renounce();
        let confinement = collectors
            .map(|rights| Confinement::new(rights, ruleset.clone()))
            .transpose()
            .map_err(SandboxError::System)?;
        // Threads can confine themselves only if they have renounced new rights.
        let confined = ruleset.map_or(Ok(()), |set| set.confine_thread());
        let landlock = landlock.and_then(|v| confined.map(|()| v).map_err(|e| e.to_string()));
        limit(CapabilitySet::empty(), CapabilitySet::empty()).map_err(SandboxError::System)?;
        let readable = paths.into_iter().map(|(path, _)| path).collect();
        let state = Arc::new(SandboxState { renounced, landlock, missing, readable });
        state.log();
        Ok(Some(Self { state, confinement: confinement.map(Arc::new) }))
    }
}

/// The paths that the process may open.
fn paths(
    config: &Config,
    folders: Vec<PathBuf>,
    files: Vec<(PathBuf, FileRights)>,
) -> Vec<(PathBuf, FileRights)> {
    let mut all: Vec<_> = SYSTEM.iter().map(|(path, rights)| (path.into(), *rights)).collect();
    all.extend(folders.into_iter().map(|folder| (folder, FileRights::Write)));
    for (path, rights) in files {
        if rights == FileRights::Write && !path.exists() {
            // A failure is reported by the collector that needs the folder.
            let _ = std::fs::create_dir_all(&path);
        }
        all.push((existing(path), rights));
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let credentials = variable("CREDENTIALS_DIRECTORY");
    let read = credentials.into_iter().chain(config.sandbox.read.iter().cloned());
    let read = read.chain(std::env::current_exe());
    all.extend(read.chain(resolver_folder()).map(|path| (path, FileRights::Read)));
    // Files are replaced by others of the same name, which are other files to the kernel: the rule
    // is for their folder.
    all.extend(config.paths.iter().map(|path| (replaceable(path), FileRights::Read)));
    all.extend(config.sandbox.write.iter().map(|path| (path.clone(), FileRights::Write)));
    all
}

/// The folder in which a network manager keeps the file that `/etc/resolv.conf` links to.
fn resolver_folder() -> Option<PathBuf> {
    let target = std::fs::read_link("/etc/resolv.conf").ok()?;
    let folder = Path::new("/etc").join(target).parent()?.to_owned();
    let folder = folder.canonicalize().unwrap_or(folder);
    (depth(&folder) >= MIN_FOLDER_DEPTH).then_some(folder)
}

fn depth(path: &Path) -> usize {
    path.components().filter(|c| matches!(c, Component::Normal(_))).count()
}

/// The path, or the nearest folder above it that exists, such as `/var/log` before journald has
/// created `/var/log/journal`.
fn existing(path: PathBuf) -> PathBuf {
    let mut found = path.ancestors().filter(|p| depth(p) >= MIN_FOLDER_DEPTH);
    found.find(|p| p.exists()).map_or_else(|| path.clone(), Path::to_owned)
}

/// The folder of a file, unless it is too near to the root.
fn replaceable(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match path.parent() {
        Some(folder) if !path.is_dir() && depth(folder) >= MIN_FOLDER_DEPTH => folder.to_owned(),
        _ => path,
    }
}

impl SandboxState {
    fn log(&self) {
        match &self.landlock {
            Ok(version) => tracing::info!(
                landlock = version,
                no_new_privs = self.renounced.no_new_privs,
                "sandbox: capabilities are dropped but for those of collectors; files are limited"
            ),
            Err(cause) => {
                tracing::warn!(cause, "sandbox: capabilities are dropped; files aren't limited");
            }
        }
    }

    /// The paths of a reloaded configuration that this process may not read: it must be restarted
    /// to use them.
    #[must_use]
    pub fn unreadable<'a>(&self, config: &'a Config) -> Vec<&'a Path> {
        let is_readable = |path: &Path| {
            let path = replaceable(path);
            self.landlock.is_err() || self.readable.iter().any(|allowed| path.starts_with(allowed))
        };
        config.paths.iter().map(PathBuf::as_path).filter(|path| !is_readable(path)).collect()
    }

    /// The section of `/status`. Capabilities and seccomp are those that the kernel reports now.
    #[must_use]
    pub fn json(&self) -> Json {
        let threads = thread_rights();
        let privileged: Map<String, Json> = threads
            .iter()
            .filter(|thread| !thread.permitted.is_empty())
            .map(|thread| {
                let sets = json!({
                    "permitted": names(thread.permitted), "effective": names(thread.effective),
                });
                (thread.name.clone(), sets)
            })
            .collect();
        let (version, error) = match &self.landlock {
            Ok(version) => (Some(*version), String::new()),
            Err(cause) => (None, cause.clone()),
        };
        json!({
            "enabled": true,
            "no_new_privs": threads.iter().all(|thread| thread.no_new_privs),
            "bounding_set_empty": self.renounced.bounding_set,
            "seccomp": threads.iter().all(|thread| thread.seccomp),
            "landlock": {"version": version, "error": error, "missing": self.missing},
            "threads": privileged,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_is_for_the_folder_of_a_file_that_may_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tls/key.pem");
        std::fs::create_dir(dir.path().join("tls")).unwrap();
        assert_eq!(replaceable(&file), dir.path().join("tls"));
        assert_eq!(replaceable(dir.path()), dir.path());
        // All of /etc or / isn't allowed for one file.
        assert_eq!(replaceable(Path::new("/etc/tapio.yaml")), Path::new("/etc/tapio.yaml"));
    }

    #[test]
    fn missing_folder_is_replaced_by_the_one_above_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(dir.path().join("a/b")), dir.path());
        assert_eq!(existing("/no-such-folder/a".into()), Path::new("/no-such-folder/a"));
    }

    #[test]
    fn reload_finds_paths_outside_of_the_sandbox() {
        let state = SandboxState {
            renounced: Renounced { no_new_privs: true, bounding_set: true },
            landlock: Ok(3),
            missing: Vec::new(),
            readable: vec!["/etc".into(), "/srv/tapio/rules".into()],
        };
        let paths = ["/etc/tapio/rules", "/srv/tapio/rules/a.yaml", "/srv/other/a.yaml"];
        let config = Config { paths: paths.map(PathBuf::from).to_vec(), ..Config::default() };
        assert_eq!(state.unreadable(&config), [Path::new("/srv/other/a.yaml")]);
        let unlimited = SandboxState { landlock: Err("missing".into()), ..state };
        assert!(unlimited.unreadable(&config).is_empty());
    }
}
