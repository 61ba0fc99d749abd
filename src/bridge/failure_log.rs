//! Says that the disk of the spool refuses batches, and that it takes them again: at once, but not
//! each time where it changes many times a second, as a disk does on which others free some room.

use std::io;

use super::batch::Accounts;
use super::spool_index::total_of;
use tapio_core::event::Reason;

/// Seconds without another message after one.
const QUIET_SECONDS: u32 = 60;

/// Whether the disk refuses batches, and what was said of it.
#[derive(Default)]
pub(super) struct FailureLog {
    is_failing: bool,
    is_said: bool,
    quiet_seconds: u32,
    /// The last error that wasn't said.
    unsaid: Option<String>,
}

impl FailureLog {
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// Notes that the disk has refused something.
    pub(super) fn failed(&mut self, error: &io::Error, what: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            self.unsaid = Some(format!("{what}: {error}"));
            self.say();
        }
    }

    /// Notes that the disk has taken everything.
    pub(super) fn succeeded(&mut self) {
        if std::mem::take(&mut self.is_failing) && std::mem::take(&mut self.is_said) {
            tracing::info!(
                "spool: batches are written again; what changes within a minute isn't logged"
            );
        }
        self.unsaid = None;
    }

    /// To be called about once a second.
    pub(super) fn tick(&mut self) {
        self.quiet_seconds = self.quiet_seconds.saturating_sub(1);
        self.say();
    }

    fn say(&mut self) {
        if self.quiet_seconds > 0 {
            return;
        }
        if let Some(cause) = self.unsaid.take() {
            self.quiet_seconds = QUIET_SECONDS;
            self.is_said = true;
            tracing::error!("spool: {cause}; sources are paused, kernel events are lost");
        }
    }
}

/// Names the remedies of a spool that can't be opened.
pub(super) fn unusable_spool(cause: io::Error) -> io::Error {
    let text = format!(
        "spool: {cause} (repair it, set another state_dir, or set bridge.spool_bytes: 0 to keep \
         events in memory only)"
    );
    io::Error::new(cause.kind(), text)
}

/// Logs that events of the spool are dropped.
pub(super) fn report_drop(is_logged: &mut bool, dropped: &Accounts, reason: Reason) {
    let events = total_of(dropped);
    if events > 0 && !std::mem::replace(is_logged, true) {
        tracing::error!(
            events,
            reason = reason.as_str(),
            "spool: dropped events; further ones are only counted until the server has everything"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_said_at_once_and_a_later_one_after_a_minute() {
        let error = || io::Error::from(io::ErrorKind::StorageFull);
        let mut log = FailureLog::default();
        log.failed(&error(), "can't write");
        assert!(log.is_said && log.is_failing());
        for _ in 0..100 {
            log.succeeded();
            log.failed(&error(), "can't write");
            assert!(log.is_failing() && !log.is_said, "not again");
        }
        for _ in 0..QUIET_SECONDS {
            log.tick();
        }
        assert!(log.is_said, "it still fails");
        log.succeeded();
        assert!(!log.is_failing());
    }
}
