//! A systemd of our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tempfile::TempDir;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/systemd").join(name)
}

/// What a systemd needs here and isn't there.
fn missing() -> &'static [String] {
    static MISSING: OnceLock<Vec<String>> = OnceLock::new();
    MISSING.get_or_init(|| {
        let mut missing = Vec::new();
        if !rustix::process::geteuid().is_root() {
            missing.push("root".to_owned());
        }
        for program in ["systemctl", "journalctl", "dbus-daemon", "nsenter", "unshare"] {
            let there = ["/usr/bin", "/bin", "/usr/sbin"]
                .iter()
                .any(|d| Path::new(d).join(program).exists());
            if !there {
                missing.push(program.to_owned());
            }
        }
        missing
    })
}

/// Two machines at a time are more than a small test machine bears: tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running systemd; it ends with the value.
pub(crate) struct Machine {
    state: TempDir,
    name: String,
    pid: u32,
    _turn: MutexGuard<'static, ()>,
}

impl Machine {
    /// Boots one. `None`, and a word why, where that can't be done.
    pub(crate) fn boot(mode: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let turn = turn();
        let skip = |why: &str| {
            let required = std::env::var_os("TAPIO_REQUIRE_KERNEL").is_some_and(|v| v == "1");
            assert!(!required, "TAPIO_REQUIRE_KERNEL=1, but {why}");
            println!("skipped: {why}");
        };
        if !missing().is_empty() {
            skip(&format!("missing: {}", missing().join(", ")));
            return None;
        }
        if mode == "hybrid" && !Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists() {
            // The kernel's own choice: nothing a test could ask for.
            println!("skipped: this machine has no cgroup v1");
            return None;
        }
        let state = tempfile::tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let up = Command::new(script("up.sh"))
            .arg(state.path())
            .args([&name, mode])
            .arg(script("units"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let Some(pid) =
            String::from_utf8_lossy(&up.stdout).trim().parse().ok().filter(|_| up.status.success())
        else {
            down(state.path(), &name);
            skip(&format!("no systemd could be booted: {}", String::from_utf8_lossy(&up.stderr)));
            return None;
        };
        Some(Self { state, name, pid, _turn: turn })
    }

    /// A path inside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(path)
    }

    pub(crate) fn bus(&self) -> String {
        format!("unix:path={}", self.path("run/dbus/system_bus_socket").display())
    }

    /// Runs a program inside and waits for it; returns whether it was successful, and what it printed.
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
