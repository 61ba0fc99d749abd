//! The hold of the watermark after a restart.
//!
//! Each source reports what happened during the agent's absence as soon as it is read again, some
//! of them later than others report the present. The watermark waits for that:
//!
//! # States
//!
//! ## `Done` → `Restoring`
//! The first event from the recovery log. How late sources were at that time isn't known any more,
//! so the watermark stays as far back as any source may be.
//!
//! ## `Restoring` → `Restored`
//! The recovery log ends.
//!
//! ## `Restored` → `Holding`
//! Time advances for the first time. The watermark doesn't move for [`HOLD_NS`]; each event of the
//! past extends that by [`EXTENSION_NS`], up to [`MAX_HOLD_NS`].
//!
//! ## `Holding` → `Done`
//! The hold is over.

/// The hold that every source is given after a restart.
const HOLD_NS: u64 = 5_000_000_000;
/// The hold after the last event of the past: another one may follow.
const EXTENSION_NS: u64 = 2_000_000_000;
/// The longest hold, for sources that report history without end.
const MAX_HOLD_NS: u64 = 30_000_000_000;

/// The state of the catch-up after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CatchUp {
    /// No restart, or its catch-up is over.
    #[default]
    Done,
    /// Events from the recovery log are processed.
    Restoring,
    /// The recovery log is processed; time hasn't advanced since.
    Restored,
    /// The watermark doesn't move until `until_ns`, which can be extended up to `latest_ns`.
    Holding { until_ns: u64, latest_ns: u64 },
}

impl CatchUp {
    /// Whether events come from the recovery log.
    pub(crate) fn is_restoring(self) -> bool {
        self == Self::Restoring
    }

    /// An event of the past was seen.
    pub(crate) fn extend(&mut self, now_ns: u64) {
        if let Self::Holding { until_ns, latest_ns } = self {
            let extended = now_ns.saturating_add(EXTENSION_NS);
            *until_ns = (*until_ns).max(extended).min(*latest_ns);
        }
    }

    /// Advances time. Returns whether the watermark is held.
    pub(crate) fn holds(&mut self, now_ns: u64) -> bool {
        match *self {
            Self::Done | Self::Restoring => false,
            Self::Restored => {
                let until_ns = now_ns.saturating_add(HOLD_NS);
                let latest_ns = now_ns.saturating_add(MAX_HOLD_NS);
                *self = Self::Holding { until_ns, latest_ns };
                true
            }
            Self::Holding { until_ns, .. } if now_ns < until_ns => true,
            Self::Holding { .. } => {
                *self = Self::Done;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn endless_history_does_not_hold_watermark_forever() {
        let mut catch_up = CatchUp::Restored;
        let mut now_ns = 1_000 * SECOND;
        let start_ns = now_ns;
        while catch_up.holds(now_ns) {
            catch_up.extend(now_ns);
            now_ns += SECOND;
        }
        assert_eq!(now_ns - start_ns, MAX_HOLD_NS);
        assert_eq!(catch_up, CatchUp::Done);
    }
}
