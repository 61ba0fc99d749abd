//! The collector: its configuration, and the start of a run.

use std::path::{Path, PathBuf};

use super::session::{Session, check_saved};
use crate::events::Filter;
use crate::runtime::cursor::Cursor;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
    tokio_runtime,
};

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// The section `collectors.systemd`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run the collector. Without systemd it reports so once and costs nothing.
    pub enabled: bool,
    /// The bus's address in D-Bus notation; empty for the system bus.
    pub address: String,
    /// The units to collect. The default excludes units without a lifecycle (devices, slices),
    /// those that other collectors cover better (scopes), and the mounts of containers.
    pub units: Filter,
}

impl Default for Config {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let include = list(&[
            "*.service",
            "*.socket",
            "*.timer",
            "*.path",
            "*.mount",
            "*.automount",
            "*.swap",
            "*.target",
        ]);
        let exclude = list(&[
            "run-containerd-*.mount",
            "run-docker-*.mount",
            "run-netns-*.mount",
            "run-user-*.mount",
            "var-lib-containerd-*.mount",
            "var-lib-containers-*.mount",
            "var-lib-docker-*.mount",
            "var-lib-kubelet-*.mount",
        ]);
        Self { enabled: true, address: String::new(), units: Filter { include, exclude } }
    }
}

/// Waits for a full ring: unread signals stay in the bus, and the next snapshot covers those that
/// the bus can't hold.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn reads_again(&self) -> bool {
        true
    }

    fn sockets(&self) -> Vec<PathBuf> {
        self.address.strip_prefix("unix:path=").map(PathBuf::from).into_iter().collect()
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Systemd)
    }
}

struct Systemd(Config);

impl Systemd {
    /// The address of the bus to connect to.
    fn address(&self) -> Result<String, CollectorError> {
        if !self.0.address.is_empty() {
            return Ok(self.0.address.clone());
        }
        // `sd_booted`(3), or a container in which the node's bus is mounted.
        if Path::new("/run/systemd/system").exists() || Path::new(SYSTEM_BUS).exists() {
            return Ok(format!("unix:path={SYSTEM_BUS}"));
        }
        Err(CollectorError::Unavailable(format!(
            "systemd collector disabled: no D-Bus socket at {SYSTEM_BUS} (not a systemd host, or \
             not mounted); unit events will be missing; set collectors.systemd.address if the \
             socket is elsewhere"
        )))
    }
}

impl Collector for Systemd {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let address = self.address()?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|e| CollectorError::new("/proc/sys/kernel/random/boot_id", e))?;
        let cursor = Cursor::open(context, "systemd", check_saved)
            .map_err(|e| CollectorError::new("systemd cursor", e))?;
        let mut session = Session::new(self.0.units.clone(), boot_id.trim(), cursor);
        let runtime = tokio_runtime()?;
        let ended = runtime.block_on(session.run(&address, context));
        runtime.shutdown_background();
        session.finish(context);
        Ok(ended)
    }
}
