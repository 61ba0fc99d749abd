//! The health of a collector.

use std::time::Duration;

/// After how long without a sign of life a collector hangs: some begin with seconds of work.
pub(crate) const HUNG_AFTER: Duration = Duration::from_secs(30);

/// How a collector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Health {
    /// Its thread is starting.
    Starting = 0,
    /// It reads its source.
    Running = 1,
    /// It failed and waits to be started again.
    Backoff = 2,
    /// Its source has no more.
    Finished = 3,
    /// It was stopped.
    Stopped = 4,
    /// This machine or this process can't give what it needs; it isn't tried again.
    Unavailable = 5,
    /// It shows no sign of life.
    Hung = 6,
}

impl Health {
    /// The word used in `/status` and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Unavailable => "unavailable",
            Self::Hung => "hung",
        }
    }

    pub(crate) fn from_number(n: u32) -> Self {
        let but_stopped = [
            Self::Starting,
            Self::Running,
            Self::Backoff,
            Self::Finished,
            Self::Unavailable,
            Self::Hung,
        ];
        but_stopped.into_iter().find(|h| *h as u32 == n).unwrap_or(Self::Stopped)
    }
}
