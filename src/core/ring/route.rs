//! Which shards an event visits, and which log records visit none.

use std::sync::Arc;

use crate::event::{Event, Name, TraceId};
use crate::redact::Redactor;

/// The shards that an event visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Bit set of shards; never zero.
    pub visits: u64,
}

impl Route {
    /// The first shard. Visits go from lower to higher shards, so that shards can't wait for each
    /// other in a circle.
    #[must_use]
    pub fn first(self) -> usize {
        self.visits.trailing_zeros() as usize
    }
}

/// Routes events to shards.
pub trait Router: Send + Sync {
    /// The shards for which the event is relevant.
    fn route(&self, event: &Event<'_>) -> Route;

    /// The shard of the event's entity.
    fn home(&self, event: &Event<'_>) -> usize {
        self.route(event).first()
    }

    /// The filter of log records with these entity keys and attributes of their resource; `None`:
    /// all of them have to be events.
    fn log_filter(&self, _shared: &Event<'_>) -> Option<Arc<dyn LogFilter>> {
        None
    }
}

/// The parts of a log record by which a [`LogFilter`] decides.
#[derive(Clone, Copy, Debug)]
pub struct LogOutline<'a> {
    /// Its time, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Its body, which is ASCII.
    pub message: &'a str,
    /// Its trace; zeros for none.
    pub trace: TraceId,
}

/// Finds log records that nothing in the pipeline has to look at: no rule can match them, and no
/// baseline is learned from them. Their severity is below that of a warning.
pub trait LogFilter: Send + Sync {
    /// Whether a rule reads an attribute.
    fn reads(&self, attribute: Name) -> bool;

    /// Whether the record has to be an event, if no attribute of it is read.
    fn needs(&self, record: &LogOutline<'_>) -> bool;
}

/// Decides which log records of a resource pass as they came.
#[derive(Clone)]
pub struct LogPass {
    filter: Arc<dyn LogFilter>,
    redactor: Option<Arc<Redactor>>,
}

impl LogPass {
    /// `redactor`: `None` where secrets stay.
    pub(super) fn new(filter: Arc<dyn LogFilter>, redactor: Option<Arc<Redactor>>) -> Self {
        Self { filter, redactor }
    }

    /// Whether an attribute with this name keeps a record from passing, whatever its value.
    #[must_use]
    pub fn stops(&self, name: Name) -> bool {
        let is_ordinary = |redactor: &Arc<Redactor>| redactor.is_ordinary(name.text());
        self.filter.reads(name) || !self.redactor.as_ref().is_none_or(is_ordinary)
    }

    /// Whether a text keeps a record from passing: it has a secret.
    #[must_use]
    pub fn stops_text(&self, text: &str) -> bool {
        self.redactor.as_ref().is_some_and(|redactor| redactor.changes(text))
    }

    /// Whether a record has to be an event, none of whose attributes and texts stops it.
    #[must_use]
    pub fn needs(&self, record: &LogOutline<'_>) -> bool {
        self.filter.needs(record)
    }
}
