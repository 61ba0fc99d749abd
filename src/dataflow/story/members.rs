//! The events of a partial match or story: kept whole up to one bound, by id up to another, and
//! counted beyond that.

use std::collections::HashSet;
use std::sync::Arc;

use tapio_core::event::EventId;
use tapio_core::ring::{OwnedRecord, Record};

/// Members that a partial match or story keeps whole.
pub(crate) const MAX_KEPT: usize = 64;

/// Members beyond the kept ones of which a partial match or story keeps the id; more are only
/// counted.
pub(crate) const MAX_IDENTIFIED: usize = 4_096;

/// Appends to a list that rarely gets a second element, for which `Vec::push` makes room for four
/// at once.
pub(crate) fn push_first<T>(list: &mut Vec<T>, item: T) {
    if list.is_empty() {
        list.reserve_exact(1);
    }
    list.push(item);
}

/// A member of which only the id is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) id: EventId,
    /// The event of the rule that it matched.
    pub(crate) event: u16,
}

/// A member that is kept whole.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) record: Arc<OwnedRecord>,
    /// The step of the sequence; for an aggregate, the counted event.
    pub(crate) step: u8,
    /// The event of the rule that it matched.
    pub(crate) event: u16,
    /// Whether it was a late event.
    pub(crate) late: bool,
}

/// Members of a partial match or story.
#[derive(Clone, Default)]
pub(crate) struct Members {
    pub(crate) kept: Vec<Kept>,
    pub(crate) total: u64,
    /// The number of members that aren't kept, by the event of the rule they matched.
    pub(crate) beyond: Vec<(u16, u64)>,
    /// Whether several matches can have the same members.
    is_shared: bool,
    /// The first members that aren't kept, where several matches can have them. One list is shared
    /// by the copies of a partial match and the story of its first match, until one of them gets
    /// another member.
    identified: Option<Arc<Vec<Identified>>>,
    /// The ids of the first and the latest member.
    pub(crate) ends: [EventId; 2],
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
}

/// The event being processed. Its record is copied at most once, for any number of partial matches
/// and stories.
pub(crate) struct EventRef<'a> {
    pub(crate) record: &'a Record<'a>,
    pub(crate) id: EventId,
    pub(crate) time_ns: u64,
    /// Its position in the order of evaluation.
    pub(crate) order: u64,
    copy: Option<Arc<OwnedRecord>>,
}

impl<'a> EventRef<'a> {
    pub(crate) fn new(record: &'a Record<'a>, id: EventId, time_ns: u64, order: u64) -> Self {
        Self { record, id, time_ns, order, copy: None }
    }

    /// The same event where a copy of its record exists already.
    pub(crate) fn with_copy(self, copy: Arc<OwnedRecord>) -> Self {
        Self { copy: Some(copy), ..self }
    }

    /// The copy of its record, made on first use.
    pub(crate) fn copy(&mut self) -> Arc<OwnedRecord> {
        Arc::clone(self.copy.get_or_insert_with(|| Arc::new(self.record.to_owned())))
    }
}

impl Members {
    /// Members that several matches can have.
    pub(crate) fn shared() -> Self {
        Self { is_shared: true, ..Self::default() }
    }

    /// The members of which only the id is kept.
    pub(crate) fn identified(&self) -> &[Identified] {
        self.identified.as_ref().map_or(&[], |list| list.as_slice())
    }

    /// Keeps the id of a member that isn't kept whole, within the bound.
    pub(crate) fn identify(&mut self, id: EventId, event: u16) {
        if self.is_shared && self.identified().len() < MAX_IDENTIFIED {
            Arc::make_mut(self.identified.get_or_insert_default()).push(Identified { id, event });
        }
    }

    /// The number of members that are only counted.
    pub(crate) fn unidentified(&self) -> u64 {
        self.total.saturating_sub((self.kept.len() + self.identified().len()) as u64)
    }

    /// Adds an event.
    pub(crate) fn add(&mut self, current: &mut EventRef<'_>, step: u8, event: u16) {
        if self.total == 0 {
            self.first_ns = current.time_ns;
            self.ends[0] = current.id;
        }
        if self.kept.len() < MAX_KEPT {
            let record = current.copy();
            push_first(&mut self.kept, Kept { record, step, event, late: false });
            self.total += 1;
        } else {
            self.add_count(event, 1);
            self.identify(current.id, event);
        }
        self.ends[1] = current.id;
        self.first_ns = self.first_ns.min(current.time_ns);
        self.last_ns = self.last_ns.max(current.time_ns);
    }

    /// Makes the first kept one the first member.
    pub(crate) fn begin_with_kept(&mut self) {
        let first = self.kept.first().and_then(|kept| kept.record.event().map(|e| e.event_id()));
        self.ends[0] = first.unwrap_or(self.ends[0]);
    }

    /// The same members without the kept ones; the counts stay.
    pub(crate) fn without_kept(&self) -> Self {
        let Self { kept, total, beyond, is_shared, identified, ends, first_ns, last_ns } = self;
        Self {
            kept: Vec::with_capacity(kept.len()),
            total: *total,
            beyond: beyond.clone(),
            is_shared: *is_shared,
            identified: identified.clone(),
            ends: *ends,
            first_ns: *first_ns,
            last_ns: *last_ns,
        }
    }

    /// Counts members that aren't kept.
    pub(crate) fn add_count(&mut self, event: u16, members: u64) {
        self.total += members;
        match self.beyond.iter_mut().find(|(e, _)| *e == event) {
            Some((_, n)) => *n += members,
            None => self.beyond.push((event, members)),
        }
    }

    /// Removes the members of a step, and those of its event that aren't kept.
    pub(crate) fn remove_step(&mut self, step: u8, event: u16) {
        self.kept.retain(|k| k.step != step);
        self.beyond.retain(|(e, _)| *e != event);
        if let Some(list) = self.identified.as_mut().filter(|l| l.iter().any(|m| m.event == event))
        {
            Arc::make_mut(list).retain(|m| m.event != event);
        }
        self.total = self.kept.len() as u64 + self.beyond.iter().map(|(_, n)| n).sum::<u64>();
    }

    /// The number of members that matched an event of the rule.
    pub(crate) fn count(&self, event: u16) -> u64 {
        let kept = self.kept.iter().filter(|k| k.event == event).count() as u64;
        kept + self.beyond.iter().find(|(e, _)| *e == event).map_or(0, |(_, n)| *n)
    }
}

/// The ids of a story's members.
#[derive(Default)]
pub(crate) struct MemberIds {
    /// Those of the kept members, in the same order. Contiguous, since each event of each match
    /// that extends the story is searched here.
    kept: Vec<EventId>,
    /// Those of all identified members, once a match is merged into a story that has more than the
    /// kept ones.
    all: HashSet<EventId, ahash::RandomState>,
    /// How many of the identified members are in `all`.
    indexed: usize,
}

impl MemberIds {
    pub(crate) fn contains(&self, id: EventId) -> bool {
        if self.all.is_empty() { self.kept.contains(&id) } else { self.all.contains(&id) }
    }

    /// Adds the next member that is kept.
    pub(crate) fn add_kept(&mut self, id: EventId) {
        self.kept.push(id);
        if !self.all.is_empty() {
            self.all.insert(id);
        }
    }

    /// Adds the members since the last call.
    pub(crate) fn update(&mut self, members: &Members) {
        for kept in members.kept.get(self.kept.len()..).unwrap_or_default() {
            self.add_kept(kept.record.event().map_or(EventId::default(), |e| e.event_id()));
        }
        if !self.all.is_empty() {
            self.index(members);
        }
    }

    /// Adds the members that aren't kept, from now on all of them.
    pub(crate) fn index(&mut self, members: &Members) {
        if self.all.is_empty() {
            self.all.extend(&self.kept);
        }
        let new = members.identified().get(self.indexed..).unwrap_or_default();
        self.all.extend(new.iter().map(|m| m.id));
        self.indexed = members.identified().len();
    }
}
