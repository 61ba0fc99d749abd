//! The outcome of a request.

use std::fmt;

use tapio_core::event::Reason;

/// The collector's answer to a request.
pub(crate) enum Answer {
    /// Its records are accepted, except these.
    Accepted(Rejected),
    /// The bytes aren't a request; why.
    Malformed(String),
    /// A record wasn't accepted because the agent is stopping.
    ShuttingDown,
}

/// The records of a request that weren't accepted, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rejected(Vec<(Reason, u64)>);

impl Rejected {
    pub(crate) fn add(&mut self, reason: Reason, records: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += records,
            None if records > 0 => self.0.push((reason, records)),
            None => {}
        }
    }

    /// The records rejected for this reason.
    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.0.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (reason, count)) in self.0.iter().enumerate() {
            let separator = if i > 0 { ", " } else { "records not accepted: " };
            let why = match reason {
                Reason::BadInput => "can't be decoded",
                Reason::Oversize => "larger than a record may be",
                reason => reason.as_str(),
            };
            write!(f, "{separator}{count} {why}")?;
        }
        Ok(())
    }
}
