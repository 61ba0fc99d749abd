//! Signals that request shutdown or a reload. A signal wakes the thread that waits for it.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// The signals received so far.
pub(super) struct Signals {
    shutdown: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    /// The handlers' bytes, which end a wait.
    woken: UnixStream,
    waker: UnixStream,
}

impl Signals {
    /// Handles SIGINT and SIGTERM as requests to shut down. A second one, while the drain hangs,
    /// ends the process at once.
    ///
    /// # Errors
    /// When the socket can't be created or a handler can't be registered.
    pub(super) fn of_shutdown() -> io::Result<Self> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let new = Self { shutdown: Arc::default(), reload: Arc::default(), woken, waker };
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::clone(&new.shutdown))?;
            new.register(signal, &new.shutdown)?;
        }
        Ok(new)
    }

    /// Handles SIGHUP too, as a request to reload.
    ///
    /// # Errors
    /// As [`Signals::of_shutdown`].
    pub(super) fn and_reload(self) -> io::Result<Self> {
        self.register(SIGHUP, &self.reload)?;
        Ok(self)
    }

    fn register(&self, signal: i32, flag: &Arc<AtomicBool>) -> io::Result<()> {
        // A signal's actions run in this order: a woken thread finds the flag set.
        flag::register(signal, Arc::clone(flag))?;
        pipe::register(signal, self.waker.try_clone()?)?;
        Ok(())
    }

    /// Whether shutdown was requested.
    pub(super) fn is_shutdown(&self) -> bool {
        // Relaxed, paired with the handler's store, as in `take_reload`: no other data depends on
        // the flag.
        self.shutdown.load(Ordering::Relaxed)
    }

    /// Whether a reload was requested since the last call.
    pub(super) fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    /// Waits for a signal, at most for this long. A signal since the last wait ends it at once.
    pub(super) fn wait(&self, at_most: Duration) {
        // A duration that the clock can't represent is no limit.
        let at_most = Timespec::try_from(at_most).ok();
        // A signal may end it as an error; then its byte ends the next wait.
        let _ = poll(&mut [PollFd::new(&self.woken, PollFlags::IN)], at_most.as_ref());
        let mut bytes = [0; 64];
        while (&self.woken).read(&mut bytes).is_ok_and(|n| n > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_ends_a_wait_that_begins_before_or_after_it() {
        // So long that the test hangs if the wait isn't ended.
        let no_limit = Duration::from_secs(3600);
        let signals = Signals::of_shutdown().unwrap().and_reload().unwrap();
        assert!(!signals.take_reload() && !signals.is_shutdown());
        signal_hook::low_level::raise(SIGHUP).unwrap();
        signals.wait(no_limit);
        assert!(signals.take_reload() && !signals.take_reload() && !signals.is_shutdown());
        signals.wait(Duration::from_millis(1));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                while !signals.take_reload() {
                    signals.wait(no_limit);
                }
            });
            signal_hook::low_level::raise(SIGHUP).unwrap();
            waits.join().unwrap();
        });
    }
}
