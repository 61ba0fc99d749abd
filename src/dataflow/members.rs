//! The events of a story, kept whole up to a bound.

use std::sync::Arc;

use crate::event::EventId;
use crate::ring::OwnedRecord;

/// Members a run or group keeps whole; more are counted.
pub(super) const KEPT_MEMBERS: usize = 64;

/// An event that is kept for the story it is in.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) record: Arc<OwnedRecord>,
    /// The step of the sequence; of a window, which of the counted events.
    pub(super) step: u8,
    /// The event of the rule it matched.
    pub(super) event: u16,
    /// It came after its place in the order had been given out.
    pub(super) late: bool,
}

/// Members of a run or group.
#[derive(Clone, Default)]
pub(super) struct Members {
    pub(super) kept: Vec<Kept>,
    pub(super) total: u64,
    /// How many more there were, by the event of the rule they matched.
    pub(super) beyond: Vec<(u16, u64)>,
    /// The first and the latest member's ids.
    pub(super) ends: [EventId; 2],
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
}

/// The event at hand, copied at most once however many runs want it.
pub(super) struct Hand<'a> {
    pub(super) record: &'a crate::ring::Record<'a>,
    pub(super) id: EventId,
    pub(super) time_ns: u64,
    /// Its place in the order in which events are shown.
    pub(super) order: u64,
    copy: Option<Arc<OwnedRecord>>,
}

impl<'a> Hand<'a> {
    pub(super) fn new(
        record: &'a crate::ring::Record<'a>,
        id: EventId,
        time_ns: u64,
        order: u64,
    ) -> Self {
        Self { record, id, time_ns, order, copy: None }
    }

    /// The same for a record that is kept already.
    pub(super) fn kept(self, copy: Arc<OwnedRecord>) -> Self {
        Self { copy: Some(copy), ..self }
    }

    pub(super) fn copy(&mut self) -> Arc<OwnedRecord> {
        Arc::clone(self.copy.get_or_insert_with(|| Arc::new(self.record.to_owned())))
    }
}

impl Members {
    pub(super) fn add(&mut self, hand: &mut Hand<'_>, step: u8, event: u16) {
        if self.total == 0 {
            self.first_ns = hand.time_ns;
            self.ends[0] = hand.id;
        }
        if self.kept.len() < KEPT_MEMBERS {
            self.kept.push(Kept { record: hand.copy(), step, event, late: false });
            self.total += 1;
        } else {
            self.pass(event, 1);
        }
        self.ends[1] = hand.id;
        self.first_ns = self.first_ns.min(hand.time_ns);
        self.last_ns = self.last_ns.max(hand.time_ns);
    }

    /// The same members, none of them kept yet.
    pub(super) fn without_kept(&self) -> Self {
        let Self { kept, total, beyond, ends, first_ns, last_ns } = self;
        Self {
            kept: Vec::with_capacity(kept.len()),
            total: *total,
            beyond: beyond.clone(),
            ends: *ends,
            first_ns: *first_ns,
            last_ns: *last_ns,
        }
    }

    /// Counts members that aren't kept.
    pub(super) fn pass(&mut self, event: u16, members: u64) {
        self.total += members;
        match self.beyond.iter_mut().find(|(e, _)| *e == event) {
            Some((_, n)) => *n += members,
            None => self.beyond.push((event, members)),
        }
    }

    /// Forgets the members of a step and of its event that aren't kept.
    pub(super) fn drop_step(&mut self, step: u8, event: u16) {
        self.kept.retain(|k| k.step != step);
        self.beyond.retain(|(e, _)| *e != event);
        self.total = self.kept.len() as u64 + self.beyond.iter().map(|(_, n)| n).sum::<u64>();
    }

    /// How many members matched an event of the rule.
    pub(super) fn count(&self, event: u16) -> u64 {
        let kept = self.kept.iter().filter(|k| k.event == event).count() as u64;
        kept + self.beyond.iter().find(|(e, _)| *e == event).map_or(0, |(_, n)| *n)
    }
}
