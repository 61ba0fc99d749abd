//! The events of a story, kept whole up to a bound, and known by their ids up to another.

use std::collections::HashSet;
use std::sync::Arc;

use tapio_core::event::EventId;
use tapio_core::ring::OwnedRecord;

/// Members a run or story keeps whole; more are counted.
pub(crate) const KEPT_MEMBERS: usize = 64;

/// Members beyond those whose ids a run or story knows; more are only counted.
pub(crate) const KNOWN_MEMBERS: usize = 4_096;

/// A member that isn't kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: EventId,
    /// The event of the rule it matched.
    pub(crate) event: u16,
}

/// An event that is kept for the story it is in.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) record: Arc<OwnedRecord>,
    /// The step of the sequence; of a window, which of the counted events.
    pub(crate) step: u8,
    /// The event of the rule it matched.
    pub(crate) event: u16,
    /// It came after its place in the order had been given out.
    pub(crate) late: bool,
}

/// Members of a run or story.
#[derive(Clone, Default)]
pub(crate) struct Members {
    pub(crate) kept: Vec<Kept>,
    pub(crate) total: u64,
    /// How many more there were, by the event of the rule they matched.
    pub(crate) beyond: Vec<(u16, u64)>,
    /// Whether other matches may have the same members.
    is_shared: bool,
    /// Who those that aren't kept were, the first ones, where others may have them. One list with the copies
    /// of a run, and with the story of its first match, until one of them gets another member.
    known: Option<Arc<Vec<Known>>>,
    /// The first and the latest member's ids.
    pub(crate) ends: [EventId; 2],
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
}

/// The event at hand, copied at most once however many runs want it.
pub(crate) struct Hand<'a> {
    pub(crate) record: &'a tapio_core::ring::Record<'a>,
    pub(crate) id: EventId,
    pub(crate) time_ns: u64,
    /// Its place in the order in which events are shown.
    pub(crate) order: u64,
    copy: Option<Arc<OwnedRecord>>,
}

impl<'a> Hand<'a> {
    pub(crate) fn new(
        record: &'a tapio_core::ring::Record<'a>,
        id: EventId,
        time_ns: u64,
        order: u64,
    ) -> Self {
        Self { record, id, time_ns, order, copy: None }
    }

    /// The same for a record that is kept already.
    pub(crate) fn kept(self, copy: Arc<OwnedRecord>) -> Self {
        Self { copy: Some(copy), ..self }
    }

    pub(crate) fn copy(&mut self) -> Arc<OwnedRecord> {
        Arc::clone(self.copy.get_or_insert_with(|| Arc::new(self.record.to_owned())))
    }
}

impl Members {
    /// Members that several matches may have.
    pub(crate) fn shared() -> Self {
        Self { is_shared: true, ..Self::default() }
    }

    /// The members that aren't kept, as far as they are known.
    pub(crate) fn known(&self) -> &[Known] {
        self.known.as_ref().map_or(&[], |known| known.as_slice())
    }

    /// Remembers who a member is that isn't kept.
    pub(crate) fn know(&mut self, id: EventId, event: u16) {
        if self.is_shared && self.known().len() < KNOWN_MEMBERS {
            Arc::make_mut(self.known.get_or_insert_default()).push(Known { id, event });
        }
    }

    /// How many members nothing is known of but their number.
    pub(crate) fn unknown(&self) -> u64 {
        self.total.saturating_sub((self.kept.len() + self.known().len()) as u64)
    }

    pub(crate) fn add(&mut self, hand: &mut Hand<'_>, step: u8, event: u16) {
        if self.total == 0 {
            self.first_ns = hand.time_ns;
            self.ends[0] = hand.id;
        }
        if self.kept.len() < KEPT_MEMBERS {
            self.kept.push(Kept { record: hand.copy(), step, event, late: false });
            self.total += 1;
        } else {
            self.pass(event, 1);
            self.know(hand.id, event);
        }
        self.ends[1] = hand.id;
        self.first_ns = self.first_ns.min(hand.time_ns);
        self.last_ns = self.last_ns.max(hand.time_ns);
    }

    /// The same members, none of them kept yet.
    pub(crate) fn without_kept(&self) -> Self {
        let Self { kept, total, beyond, is_shared, known, ends, first_ns, last_ns } = self;
        Self {
            kept: Vec::with_capacity(kept.len()),
            total: *total,
            beyond: beyond.clone(),
            is_shared: *is_shared,
            known: known.clone(),
            ends: *ends,
            first_ns: *first_ns,
            last_ns: *last_ns,
        }
    }

    /// Counts members that aren't kept.
    pub(crate) fn pass(&mut self, event: u16, members: u64) {
        self.total += members;
        match self.beyond.iter_mut().find(|(e, _)| *e == event) {
            Some((_, n)) => *n += members,
            None => self.beyond.push((event, members)),
        }
    }

    /// Forgets the members of a step and of its event that aren't kept.
    pub(crate) fn drop_step(&mut self, step: u8, event: u16) {
        self.kept.retain(|k| k.step != step);
        self.beyond.retain(|(e, _)| *e != event);
        if let Some(known) = self.known.as_mut().filter(|k| k.iter().any(|k| k.event == event)) {
            Arc::make_mut(known).retain(|k| k.event != event);
        }
        self.total = self.kept.len() as u64 + self.beyond.iter().map(|(_, n)| n).sum::<u64>();
    }

    /// How many members matched an event of the rule.
    pub(crate) fn count(&self, event: u16) -> u64 {
        let kept = self.kept.iter().filter(|k| k.event == event).count() as u64;
        kept + self.beyond.iter().find(|(e, _)| *e == event).map_or(0, |(_, n)| *n)
    }
}

/// Who the members of a story are.
#[derive(Default)]
pub(crate) struct MemberIds {
    /// Those that are kept, in the same order: looked through for each event of each match that extends the
    /// story, so they lie together.
    kept: Vec<EventId>,
    /// All that are known, once a match is merged into a story with more than the kept ones.
    all: HashSet<EventId, ahash::RandomState>,
    /// How many of the known ones are among them.
    seen: usize,
}

impl MemberIds {
    pub(crate) fn has(&self, id: EventId) -> bool {
        if self.all.is_empty() { self.kept.contains(&id) } else { self.all.contains(&id) }
    }

    /// Takes note of the next member that is kept.
    pub(crate) fn keep(&mut self, id: EventId) {
        self.kept.push(id);
        if !self.all.is_empty() {
            self.all.insert(id);
        }
    }

    /// Takes note of members since the last call.
    pub(crate) fn remember(&mut self, members: &Members) {
        for kept in members.kept.get(self.kept.len()..).unwrap_or_default() {
            self.keep(kept.record.event().map_or(EventId::default(), |e| e.event_id()));
        }
        if !self.all.is_empty() {
            self.know(members);
        }
    }

    /// Takes note of the members that aren't kept, too.
    pub(crate) fn know(&mut self, members: &Members) {
        if self.all.is_empty() {
            self.all.extend(&self.kept);
        }
        let new = members.known().get(self.seen..).unwrap_or_default();
        self.all.extend(new.iter().map(|k| k.id));
        self.seen = members.known().len();
    }
}
