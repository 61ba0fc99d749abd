//! Boots a systemd for a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tempfile::TempDir;

use crate::support::agent::TAPIO;
use crate::support::skip::skipped;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/systemd").join(name)
}

/// The missing requirements for booting a systemd.
fn missing() -> &'static [String] {
    static MISSING: OnceLock<Vec<String>> = OnceLock::new();
    MISSING.get_or_init(|| {
        let mut missing = Vec::new();
        if !rustix::process::geteuid().is_root() {
            missing.push("root".to_owned());
        }
        for program in ["systemctl", "journalctl", "dbus-daemon", "nsenter", "unshare"] {
            let exists = ["/usr/bin", "/bin", "/usr/sbin"]
                .iter()
                .any(|d| Path::new(d).join(program).exists());
            if !exists {
                missing.push(program.to_owned());
            }
        }
        missing
    })
}

/// Serializes the tests: two instances at a time overload a small host.
fn exclusive() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running systemd, ended on drop.
pub(crate) struct Machine {
    state: TempDir,
    name: String,
    pid: u32,
    _guard: MutexGuard<'static, ()>,
}

impl Machine {
    /// Boots a systemd. Prints the reason and returns `None` if it can't.
    pub(crate) fn boot(mode: &str) -> Option<Self> {
        Self::boot_with(mode, None)
    }

    /// Boots a systemd on whose root this program and the units of deploy/systemd are installed.
    pub(crate) fn boot_with_tapio(mode: &str) -> Option<Self> {
        Self::boot_with(mode, Some("setup-tapio.sh"))
    }

    fn boot_with(mode: &str, setup: Option<&str>) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let guard = exclusive();
        if !missing().is_empty() {
            skipped(&format!("missing: {}", missing().join(", ")));
            return None;
        }
        if mode == "hybrid" && !Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists() {
            // The host's kernel decides: not a failure, even with `TAPIO_REQUIRE_KERNEL=1`.
            println!("skipped: this host has no cgroup v1");
            return None;
        }
        let state = tempfile::tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let up = Command::new(script("up.sh"))
            .arg(state.path())
            .args([&name, mode])
            .arg(script("units"))
            .args(setup.map(script))
            .env("TAPIO", TAPIO)
            .env("DEPLOY", Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let Some(pid) =
            String::from_utf8_lossy(&up.stdout).trim().parse().ok().filter(|_| up.status.success())
        else {
            down(state.path(), &name);
            skipped(&format!(
                "no systemd could be booted: {}",
                String::from_utf8_lossy(&up.stderr)
            ));
            return None;
        };
        Some(Self { state, name, pid, _guard: guard })
    }

    /// The host's path of a path inside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(path)
    }

    pub(crate) fn bus(&self) -> String {
        format!("unix:path={}", self.path("run/dbus/system_bus_socket").display())
    }

    /// Runs a program inside; returns whether it succeeded, and its output.
    pub(crate) fn run(&self, command: &[&str]) -> (bool, String) {
        let pid = self.pid.to_string();
        let out = Command::new("nsenter")
            .args(["-t", &pid, "-m", "-p", "-u", "-i", "-n", "-C", "--"])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    }

    pub(crate) fn systemctl(&self, args: &[&str]) -> bool {
        self.run(&[&["systemctl"], args].concat()).0
    }

    pub(crate) fn property(&self, unit: &str, name: &str) -> String {
        self.run(&["systemctl", "show", unit, "-p", name, "--value"]).1.trim().to_owned()
    }
}

fn down(state: &Path, name: &str) {
    let _ = Command::new(script("down.sh")).arg(state).arg(name).status();
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = fs::read_to_string(self.state.path().join("console.log"));
            println!("console: {}", console.unwrap_or_default());
        }
        down(self.state.path(), &self.name);
    }
}
