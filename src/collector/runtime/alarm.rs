//! Waiting with poll(2): until a source can be read, or until the collector is to end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::collector::CollectorError;
use tapio_core::shutdown::{Shutdown, WakerRegistration};

/// Something to poll beside the sources: it can be read from when the collector is to end on.
pub(crate) struct Alarm {
    bell: Arc<Bell>,
    _waiter: WakerRegistration,
}

/// An eventfd that is never read: once rung it stays so, as the end does.
struct Bell(OwnedFd);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // It fails where it was rung 2^64 times.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl Alarm {
    /// An alarm for this end.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(crate) fn new(shutdown: &Shutdown) -> Result<Self, CollectorError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = eventfd(0, flags).map_err(|e| CollectorError::new("eventfd", e))?;
        let bell = Arc::new(Bell(fd));
        let waiter = shutdown.register_waker(&Waker::from(Arc::clone(&bell)));
        // Whoever set it before that rang nobody.
        if shutdown.is_requested() {
            bell.clone().wake();
        }
        Ok(Self { bell, _waiter: waiter })
    }

    /// Waits until a source can be read, or until the end, for so long at the most. Returns whether a source can be.
    pub(crate) fn wait<'a>(
        &'a self,
        sources: impl IntoIterator<Item = BorrowedFd<'a>>,
        at_most: Duration,
    ) -> bool {
        let all = std::iter::once(self.bell.0.as_fd()).chain(sources);
        let mut all: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // Longer than a clock can count is for ever.
        let at_most = Timespec::try_from(at_most).ok();
        // A signal ends it early, and then the sources are looked at early.
        poll(&mut all, at_most.as_ref()).is_ok()
            && all.iter().skip(1).any(|source| !source.revents().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    /// So long that a test whose wait isn't ended doesn't end.
    const FOR_EVER: Duration = Duration::from_secs(3600);

    #[test]
    fn an_end_ends_a_wait_and_every_further_one() {
        let all = Shutdown::default();
        let (run, handle) = all.track_run(FOR_EVER);
        let alarm = Alarm::new(&run).unwrap();
        let (silent, _writer) = rustix::pipe::pipe().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| alarm.wait([silent.as_fd()], FOR_EVER));
            handle.abandon();
            assert!(!waits.join().unwrap(), "no source has anything");
        });
        assert!(!alarm.wait([silent.as_fd()], FOR_EVER));
        assert!(!Alarm::new(&run).unwrap().wait([], FOR_EVER), "it was asked to end before");
    }

    #[test]
    fn a_source_ends_a_wait_and_so_does_time() {
        let alarm = Alarm::new(&Shutdown::default()).unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(!alarm.wait([reader.as_fd()], Duration::from_millis(1)));
        rustix::io::write(&writer, b"x").unwrap();
        assert!(alarm.wait([reader.as_fd()], FOR_EVER));
    }
}
