//! The health of a collector.

use std::time::Duration;

/// Default time without a heartbeat after which a collector counts as hung. Some collectors start
/// with seconds of work.
pub(crate) const HUNG_AFTER: Duration = Duration::from_secs(30);

/// The health of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Health {
    /// Its thread is starting.
    Starting = 0,
    /// It reads its source.
    Running = 1,
    /// It failed and waits for its restart.
    Backoff = 2,
    /// Its source is exhausted.
    Finished = 3,
    /// It was stopped.
    Stopped = 4,
    /// The node or this process lacks a requirement; it isn't restarted.
    Unavailable = 5,
    /// It gives no heartbeat.
    Hung = 6,
    /// It reads its source, but most of what it is to observe is missing.
    Degraded = 7,
}

impl Health {
    /// Its name in `/status` and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Unavailable => "unavailable",
            Self::Hung => "hung",
            Self::Degraded => "degraded",
        }
    }

    /// Whether its source is open, or was read to its end.
    #[must_use]
    pub fn has_source(self) -> bool {
        self.is_running() || self == Self::Finished
    }

    /// Whether it reads its source.
    #[must_use]
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Degraded)
    }

    /// The inverse of `as u32`; unknown numbers are [`Health::Stopped`].
    pub(crate) fn from_number(n: u32) -> Self {
        let all_but_stopped = [
            Self::Starting,
            Self::Running,
            Self::Backoff,
            Self::Finished,
            Self::Unavailable,
            Self::Hung,
            Self::Degraded,
        ];
        all_but_stopped.into_iter().find(|h| *h as u32 == n).unwrap_or(Self::Stopped)
    }
}
