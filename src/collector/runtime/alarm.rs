//! poll(2) that a shutdown interrupts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::collector::CollectorError;
use tapio_core::shutdown::{Shutdown, WakerRegistration};

/// Waits for file descriptors and for shutdown at once.
pub(crate) struct Alarm {
    bell: Arc<Bell>,
    _registration: WakerRegistration,
}

/// An eventfd that is never read: once written it stays readable, as a shutdown stays requested.
struct Bell(OwnedFd);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Fails only after 2^64 wakes.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl Alarm {
    /// Registers an alarm with `shutdown`.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(crate) fn new(shutdown: &Shutdown) -> Result<Self, CollectorError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = eventfd(0, flags).map_err(|e| CollectorError::new("eventfd", e))?;
        let bell = Arc::new(Bell(fd));
        let registration = shutdown.register_waker(&Waker::from(Arc::clone(&bell)));
        // A request before the registration woke nothing.
        if shutdown.is_requested() {
            bell.clone().wake();
        }
        Ok(Self { bell, _registration: registration })
    }

    /// Waits until a source is readable, shutdown is requested, or `timeout` passes. Returns
    /// whether a source is readable.
    pub(crate) fn wait<'a>(
        &'a self,
        sources: impl IntoIterator<Item = BorrowedFd<'a>>,
        timeout: Duration,
    ) -> bool {
        let all = std::iter::once(self.bell.0.as_fd()).chain(sources);
        let mut all: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // A timeout that doesn't fit a timespec never passes.
        let timeout = Timespec::try_from(timeout).ok();
        // A signal ends the wait early; the caller then polls its sources early.
        poll(&mut all, timeout.as_ref()).is_ok()
            && all.iter().skip(1).any(|source| !source.revents().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    /// So long that a test whose wait isn't interrupted doesn't end.
    const FOREVER: Duration = Duration::from_secs(3600);

    #[test]
    fn shutdown_ends_current_and_later_waits() {
        let all = Shutdown::default();
        let (run, handle) = all.track_run(FOREVER);
        let alarm = Alarm::new(&run).unwrap();
        let (silent, _writer) = rustix::pipe::pipe().unwrap();
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| alarm.wait([silent.as_fd()], FOREVER));
            handle.abandon();
            assert!(!wait.join().unwrap(), "no source is readable");
        });
        assert!(!alarm.wait([silent.as_fd()], FOREVER));
        assert!(!Alarm::new(&run).unwrap().wait([], FOREVER), "shutdown was requested before");
    }

    #[test]
    fn readable_source_and_timeout_end_wait() {
        let alarm = Alarm::new(&Shutdown::default()).unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(!alarm.wait([reader.as_fd()], Duration::from_millis(1)));
        rustix::io::write(&writer, b"x").unwrap();
        assert!(alarm.wait([reader.as_fd()], FOREVER));
    }
}
