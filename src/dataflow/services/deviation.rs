//! The features of an operation's runs that are learned, and deviations of them.

use rkyv::{Archive, Deserialize, Serialize};

use super::fact::Key;
use super::slow::Slowness;
use tapio_core::event::{EventId, Severity};

/// The weight of how many times as long something takes: with few runs, a standard deviation says
/// little of it.
const TIMES_WEIGHT: f64 = 0.25;
/// The weight of a run that is quicker than usual.
const QUICKER_WEIGHT: f64 = 0.5;
/// The part of a request's usual time that counts half when it is added.
const NOTICED_PART: f64 = 0.25;
/// The share of runs that have a step of the operation.
const MIN_STEP_SHARE: f64 = 0.9;
/// The part of the usual share at which a step is missing.
const MISSING_PART: f64 = 0.3;
/// The time that counts half when it is added to the time in which a connection is opened, unless
/// requests are fast.
const NOTICED_CONNECT_NS: f64 = 1e7;

/// Something that happens in a run.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub(super) enum Feature {
    /// The run ends with an error.
    Failed,
    /// It logs a record of this template.
    Logs(Key),
    /// It calls this operation of this service (an instance's key).
    Calls(Key, Key),
    /// The time of its own.
    OwnTime,
    /// The time of a call to this instance beyond the callee's own: the network, or waiting.
    CallTime(Key),
    /// The time until this instance answered an attempt to connect.
    ConnectTime(Key),
    /// A connection to this instance fails, or an attempt to connect does.
    Connection(Fault, Key),
}

/// A fault of a connection.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub(super) enum Fault {
    Refused,
    TimedOut,
    Abandoned,
    Reset,
    Retransmitted,
}

impl Feature {
    /// The other end, of what is learned of connections.
    pub(super) fn connected_to(self) -> Option<Key> {
        match self {
            Self::ConnectTime(callee) | Self::Connection(_, callee) => Some(callee),
            _ => None,
        }
    }

    /// The other end, of what both ends may cause.
    pub(super) fn callee(self) -> Option<Key> {
        match self {
            Self::CallTime(callee) => Some(callee),
            _ => self.connected_to(),
        }
    }
}

/// A feature that deviates.
#[derive(Clone, Copy, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub(super) struct Deviation {
    pub(super) feature: Feature,
    /// Standard deviations, at least 0.
    pub(super) z: f64,
    /// A share of runs, a number of times in a run, or a duration in ns.
    pub(super) usual: f64,
    pub(super) now: f64,
    /// The worst severity of the log records.
    pub(super) severity: Severity,
    /// Whether it goes on: it shows in the short span of time, too.
    pub(super) lasts: bool,
    /// An event that shows it, and its time.
    pub(super) example: (u64, EventId),
    /// Of a duration: the share of slow runs, where that is what deviates.
    pub(super) slowness: Option<Slowness>,
}

impl Deviation {
    /// Whether it is a fault by itself: an error, or more time. Other work than usual comes from
    /// the callers.
    pub(super) fn is_fault(&self) -> bool {
        match self.feature {
            _ if self.is_quicker() => false,
            Feature::Failed | Feature::OwnTime | Feature::CallTime(_) => true,
            Feature::ConnectTime(_) | Feature::Connection(..) => true,
            Feature::Logs(_) if self.is_missing() => true,
            Feature::Logs(_) => self.severity >= Severity::WARN && self.now > self.usual,
            Feature::Calls(..) => false,
        }
    }

    /// Whether it is enough for a disturbance: that something is quicker is fortunate, or shows why
    /// others fail.
    pub(super) fn opens(&self) -> bool {
        !self.is_quicker()
    }

    /// Whether something takes less time than usual: a run that ended early, with a wrong answer.
    pub(super) fn is_quicker(&self) -> bool {
        matches!(self.feature, Feature::OwnTime | Feature::CallTime(_)) && self.now < self.usual
    }

    /// Whether a step that nearly every run has is missing from most: the run ended before it, or
    /// had nothing to do.
    fn is_missing(&self) -> bool {
        (MIN_STEP_SHARE..=1.0 / MIN_STEP_SHARE).contains(&self.usual)
            && self.now <= MISSING_PART * self.usual
    }

    /// How much it speaks for a fault: a logarithm, so that the strongest deviation decides only
    /// between others of its order of magnitude. An error is nearer to a fault than another way of
    /// working; time counts by its part of what a request usually takes (`request_ns`).
    pub(super) fn strength(&self, request_ns: f64) -> f64 {
        let weight = match self.feature {
            Feature::Failed => 1.0,
            Feature::Connection(Fault::Refused | Fault::TimedOut, _) => 1.0,
            Feature::Connection(Fault::Abandoned | Fault::Reset, _) => 0.8,
            Feature::Connection(Fault::Retransmitted, _) => 0.5,
            Feature::Logs(_) if self.severity >= Severity::ERROR => 1.0,
            Feature::Logs(_) if self.severity >= Severity::WARN => 0.8,
            Feature::Logs(_) if self.is_missing() => 0.8,
            Feature::Logs(_) | Feature::Calls(..) => 0.5,
            Feature::OwnTime | Feature::CallTime(_) if self.is_quicker() => QUICKER_WEIGHT,
            Feature::OwnTime | Feature::CallTime(_) | Feature::ConnectTime(_) => {
                let added_ns = self.now - self.usual;
                let noticed_ns = match self.feature {
                    Feature::ConnectTime(_) => NOTICED_CONNECT_NS.min(NOTICED_PART * request_ns),
                    _ => NOTICED_PART * request_ns,
                };
                let part = added_ns / (added_ns + noticed_ns);
                let times = (self.now / self.usual.max(1.0)).max(1.0);
                return part * (self.z.ln_1p() + TIMES_WEIGHT * times.ln());
            }
        };
        weight * self.z.ln_1p()
    }
}
