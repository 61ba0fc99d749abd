//! Signals that ask a process to end, or to read its configuration again; who waits for them is woken.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// The signals that have come.
pub(super) struct Signals {
    end: Arc<AtomicBool>,
    again: Arc<AtomicBool>,
    /// The handlers' bytes, which end a wait.
    woken: UnixStream,
    waker: UnixStream,
}

impl Signals {
    /// Takes Ctrl-C and SIGTERM as wishes to end. A second one while the drain hangs ends the process at once.
    ///
    /// # Errors
    /// When the system gives no socket or refuses a handler.
    pub(super) fn of_end() -> io::Result<Self> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let new = Self { end: Arc::default(), again: Arc::default(), woken, waker };
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::clone(&new.end))?;
            new.take(signal, &new.end)?;
        }
        Ok(new)
    }

    /// Takes SIGHUP too, as a wish to read the configuration again.
    ///
    /// # Errors
    /// As [`Signals::of_end`].
    pub(super) fn and_again(self) -> io::Result<Self> {
        self.take(SIGHUP, &self.again)?;
        Ok(self)
    }

    fn take(&self, signal: i32, flag: &Arc<AtomicBool>) -> io::Result<()> {
        // A signal's actions run in this order: whoever is woken finds the flag set.
        flag::register(signal, Arc::clone(flag))?;
        pipe::register(signal, self.waker.try_clone()?)?;
        Ok(())
    }

    /// Whether the process is to end.
    pub(super) fn end(&self) -> bool {
        // Relaxed, paired with the handler's store, as in `again`: the flag is all there is to see.
        self.end.load(Ordering::Relaxed)
    }

    /// Whether the configuration is to be read again; says so once.
    pub(super) fn again(&self) -> bool {
        self.again.swap(false, Ordering::Relaxed)
    }

    /// Waits for a signal, for so long at the most; one that has come since the last wait ends it at once.
    pub(super) fn wait(&self, at_most: Duration) {
        // Longer than a clock can count is for ever.
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
    fn a_signal_ends_a_wait_whether_it_came_before_or_comes_now() {
        // So long that a test whose wait isn't ended doesn't end.
        let for_ever = Duration::from_secs(3600);
        let signals = Signals::of_end().unwrap().and_again().unwrap();
        assert!(!signals.again() && !signals.end());
        signal_hook::low_level::raise(SIGHUP).unwrap();
        signals.wait(for_ever);
        assert!(signals.again() && !signals.again() && !signals.end());
        signals.wait(Duration::from_millis(1));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                while !signals.again() {
                    signals.wait(for_ever);
                }
            });
            signal_hook::low_level::raise(SIGHUP).unwrap();
            waits.join().unwrap();
        });
    }
}
