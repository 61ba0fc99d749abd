//! A running service as its manager sees it: ready, alive, its state in one line.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::notify::ServiceManager;
use crate::runtime::Agent;
use tapio_collectors::Health;
use tapio_core::clock;

/// The service is ready after this time, whatever its sources wait for.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit for a page's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of checks until the service is ready.
pub(super) const READY_INTERVAL: Duration = Duration::from_millis(20);

/// The watchdog is notified as long as every thread has made progress within its time over this.
const WATCHDOG_DIVISOR: u32 = 2;

/// Follows the counters of threads, to find one that stands still.
#[derive(Default)]
struct Progress {
    /// Name, last value and when it changed.
    threads: Vec<(String, u64, Instant)>,
}

impl Progress {
    /// The first thread whose counter hasn't changed for longer than `allowed`.
    fn stalled(
        &mut self,
        rounds: Vec<(String, u64)>,
        now: Instant,
        allowed: Duration,
    ) -> Option<&str> {
        for (name, value) in rounds {
            match self.threads.iter_mut().find(|thread| thread.0 == name) {
                Some((_, last, _)) if *last == value => {}
                Some((_, last, changed)) => (*last, *changed) = (value, now),
                None => self.threads.push((name, value, now)),
            }
        }
        let stalled = |changed: Instant| now.saturating_duration_since(changed) > allowed;
        self.threads.iter().find(|thread| stalled(thread.2)).map(|thread| thread.0.as_str())
    }
}

/// Whether something answers on this address, which serves HTTP. Any answer counts: with TLS it is
/// an alert.
fn answers(address: SocketAddr) -> bool {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let ask = || {
        let address = SocketAddr::new(ip, address.port());
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        stream.read(&mut [0; 16])
    };
    ask().is_ok()
}

/// Notifies the service manager.
pub(super) struct Service {
    pub(super) manager: ServiceManager,
    started: Instant,
    is_ready: bool,
    progress: Progress,
    /// The thread whose standstill is logged already.
    reported: Option<String>,
}

impl Service {
    /// A service that isn't ready.
    pub(super) fn new(manager: ServiceManager) -> Self {
        let started = clock::instant();
        Self { manager, started, is_ready: false, progress: Progress::default(), reported: None }
    }

    /// Whether the service manager waits for the end of the start.
    pub(super) fn is_starting(&self) -> bool {
        self.manager.is_present() && !self.is_ready
    }

    /// Reports an agent. To be called about once a second, and more often while
    /// [`Service::is_starting`].
    pub(super) fn report_agent(&mut self, agent: &Agent) {
        if !self.manager.is_present() {
            return;
        }
        if self.is_starting() {
            let is_late = self.started.elapsed() > READY_TIMEOUT;
            self.become_ready_if(
                (agent.sources_are_settled() || is_late) && answers(agent.admin_addr()),
            );
        }
        self.report_progress(agent.rounds());
        let collectors = agent.collectors();
        let running = collectors.iter().filter(|c| c.health.is_running()).count();
        let not_running = collectors
            .iter()
            .filter(|c| !matches!(c.health, Health::Running | Health::Finished | Health::Stopped));
        let others: Vec<String> =
            not_running.map(|c| format!("; {} {}", c.name, c.health.as_str())).collect();
        let text = format!("{running} of {} collectors run{}", collectors.len(), others.concat());
        self.manager.status(&text);
    }

    /// Reports a server that serves HTTP on this address. Its answer shows that its thread makes
    /// progress.
    pub(super) fn report_server(&mut self, http: SocketAddr, state: &str) {
        if !self.manager.is_present() || !answers(http) {
            return;
        }
        self.become_ready_if(!self.is_ready);
        if self.manager.watchdog().is_some() {
            self.manager.alive();
        }
        self.manager.status(state);
    }

    fn become_ready_if(&mut self, condition: bool) {
        if condition {
            self.is_ready = true;
            self.manager.ready();
        }
    }

    fn report_progress(&mut self, rounds: Vec<(String, u64)>) {
        let Some(watchdog) = self.manager.watchdog() else { return };
        let allowed = watchdog / WATCHDOG_DIVISOR;
        match self.progress.stalled(rounds, clock::instant(), allowed) {
            None => {
                self.reported = None;
                self.manager.alive();
            }
            stalled if stalled == self.reported.as_deref() => {}
            stalled => {
                let thread = stalled.unwrap_or_default().to_owned();
                tracing::error!(
                    thread,
                    ?allowed,
                    "thread makes no progress: the service manager's watchdog will end tapio"
                );
                self.reported = Some(thread);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_that_stands_still_is_found_and_recovers() {
        let (mut progress, start) = (Progress::default(), clock::instant());
        let allowed = Duration::from_secs(5);
        let mut stalled = |seconds, shard, bridge| {
            let rounds = vec![("shard:0".to_owned(), shard), ("bridge".to_owned(), bridge)];
            let now = start + Duration::from_secs(seconds);
            progress.stalled(rounds, now, allowed).map(str::to_owned)
        };
        assert_eq!(stalled(0, 1, 1), None);
        assert_eq!(stalled(5, 1, 2), None);
        assert_eq!(stalled(6, 1, 3).as_deref(), Some("shard:0"));
        assert_eq!(stalled(7, 2, 4), None);
    }

    #[test]
    fn silent_listener_does_not_answer() {
        let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!answers(silent.local_addr().unwrap()));
        let address = silent.local_addr().unwrap();
        drop(silent);
        assert!(!answers(address));
    }
}
