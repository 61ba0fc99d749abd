//! The protocol between a service and its manager (sd_notify(3)): datagrams of `KEY=value` lines to
//! the socket in `$NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tapio_core::clock;

/// The service manager, if there is one.
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    /// The last `STATUS=`.
    status: String,
}

/// The socket's address: a path, or an abstract name after `@`.
fn address(name: &OsStr) -> std::io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// The time within which the service manager expects a message from this process.
fn watchdog(usec: Option<&OsStr>, pid: Option<&OsStr>, own_pid: u32) -> Option<Duration> {
    let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
    let is_own = pid.is_none_or(|pid| number(pid) == Some(own_pid.into()));
    let usec = usec.and_then(number).filter(|usec| *usec > 0 && is_own)?;
    Some(Duration::from_micros(usec))
}

impl ServiceManager {
    /// The manager that the environment names.
    pub(super) fn from_environment() -> Self {
        let variable = std::env::var_os;
        let pid = std::process::id();
        let watchdog = watchdog(
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            pid,
        );
        Self::new(variable("NOTIFY_SOCKET").as_deref(), watchdog)
    }

    fn new(name: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let open = |name| Ok::<_, std::io::Error>((UnixDatagram::unbound()?, address(name)?));
        let socket = name.filter(|name| !name.is_empty()).and_then(|name| match open(name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(name = %name.display(), %error, "NOTIFY_SOCKET can't be used");
                None
            }
        });
        Self { socket, watchdog, status: String::new() }
    }

    /// Whether somebody waits for [`ServiceManager::ready`].
    pub(super) fn is_present(&self) -> bool {
        self.socket.is_some()
    }

    /// The time within which the manager expects [`ServiceManager::alive`].
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some())
    }

    /// The service has started, or has reloaded its configuration.
    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// The service begins to reload; [`ServiceManager::ready`] ends it.
    pub(super) fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_ns() / 1_000));
    }

    /// The service begins to stop.
    pub(super) fn stopping(&mut self) {
        self.send("STOPPING=1");
        self.status("draining");
    }

    /// The service makes progress.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Describes the service's state, one line; sent if it changed.
    pub(super) fn status(&mut self, text: &str) {
        if self.socket.is_some() && self.status != text {
            text.clone_into(&mut self.status);
            self.send(&format!("STATUS={text}"));
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(message, %error, "the service manager can't be notified");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = [0; 256];
        let n = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    #[test]
    fn messages_reach_a_socket_with_a_path_or_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("tapio-notify-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (manager, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
                format!("@{abstract_name}").into(),
            ),
        ] {
            let mut service = ServiceManager::new(Some(&name), Some(Duration::from_secs(3)));
            service.ready();
            assert_eq!(received(&manager), "READY=1");
            service.reloading();
            let text = received(&manager);
            let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(usec.parse::<u64>().unwrap() <= clock::monotonic_ns() / 1_000);
            service.status("a");
            service.status("a");
            service.stopping();
            service.alive();
            let texts = [(); 4].map(|()| received(&manager));
            assert_eq!(texts, ["STATUS=a", "STOPPING=1", "STATUS=draining", "WATCHDOG=1"]);
            assert_eq!(service.watchdog(), Some(Duration::from_secs(3)));
        }
    }

    #[test]
    fn without_a_manager_nothing_is_sent() {
        let mut service = ServiceManager::new(None, Some(Duration::from_secs(3)));
        service.ready();
        service.stopping();
        assert!(!service.is_present() && service.watchdog().is_none());
    }

    #[test]
    fn watchdog_of_another_process_is_ignored() {
        let of = |usec: &str, pid: &str| watchdog(Some(usec.as_ref()), Some(pid.as_ref()), 7);
        assert_eq!(of("30000000", "7"), Some(Duration::from_secs(30)));
        assert_eq!(of("30000000", "8"), None);
        assert_eq!((of("0", "7"), of("x", "7")), (None, None));
        assert_eq!(watchdog(Some("5".as_ref()), None, 7), Some(Duration::from_micros(5)));
    }
}
