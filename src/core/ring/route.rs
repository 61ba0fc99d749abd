//! Which shards an event visits, and which log records visit none.

use std::sync::Arc;

use crate::event::{Event, Name, TraceId, Value};
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
    /// Whether a rule reads an attribute, so that its value decides.
    fn reads(&self, attribute: Name) -> bool;

    /// Whether a record with this value of an attribute that is read has to be an event.
    fn needs_value(&self, attribute: Name, value: Value<'_>) -> bool;

    /// Whether the record has to be an event, if none of its attributes has such a value.
    fn needs(&self, record: &LogOutline<'_>) -> bool;
}

/// The use of an attribute for deciding whether a log record passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeUse {
    /// A record that has it doesn't pass, whatever its value.
    Stops,
    /// Its value decides: a rule reads it.
    Read(Name),
    /// None.
    Unread,
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

    /// The use of an attribute with this name for the decision.
    #[must_use]
    pub fn attribute(&self, name: Name) -> AttributeUse {
        let is_ordinary = |redactor: &Arc<Redactor>| redactor.is_ordinary(name.text());
        if !self.redactor.as_ref().is_none_or(is_ordinary) {
            AttributeUse::Stops
        } else if self.filter.reads(name) {
            AttributeUse::Read(name)
        } else {
            AttributeUse::Unread
        }
    }

    /// Whether the value of an attribute that is read keeps a record from passing.
    #[must_use]
    pub fn stops_value(&self, name: Name, value: Value<'_>) -> bool {
        self.filter.needs_value(name, value)
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
