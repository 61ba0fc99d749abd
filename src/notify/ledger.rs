//! Revisions of stories → notifications: one for the first revision that matches, one for each
//! later one that changes what people see, and one for the end. Without clocks, files and sockets.

use serde::{Deserialize, Serialize};

use super::config::ReceiverConfig;
use super::feed::Revision;
use super::flood::Flood;
use super::log::StoryMarks;
use super::notification::{Occasion, notification_id};
use super::notified_story::{KnownStories, NotifiedStory, Phase};
use super::outbox::{Outbox, Waiting};
use super::stats::ReceiverCounters;
use tapio_core::event::{Incident, Story, StoryState};
use tapio_dataflow::rules::StoryPredicateResult;

/// The marks of operators on a story.
pub(super) type MarksOf<'a> = &'a dyn Fn(&Story) -> StoryMarks;

/// Stories that a receiver was notified about, and what waits. This is its state on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    /// The first start of the receiver, nanoseconds since the Unix epoch.
    since_ns: u64,
    pub(super) known: KnownStories,
    pub(super) outbox: Outbox,
    pub(super) flood: Flood,
}

/// The configuration, the marks and the time for a step of the ledger.
pub(super) struct Context<'a> {
    pub(super) config: &'a ReceiverConfig,
    pub(super) counters: &'a ReceiverCounters,
    pub(super) marks: MarksOf<'a>,
    /// Whether the receiver takes updates of stories.
    pub(super) takes_updates: bool,
    /// The wall clock.
    pub(super) now_ns: u64,
}

impl Context<'_> {
    fn is_silenced(&self, story: &Story) -> bool {
        (self.marks)(story).silence.is_some()
    }

    fn is_acknowledged(&self, story: &Story) -> bool {
        let annotations = (self.marks)(story).annotations;
        annotations.is_some_and(|marks| marks.get("acknowledged").is_some())
    }

    fn matches(&self, revision: &Revision) -> bool {
        let condition = self.config.when.as_ref().map(StoryPredicateResult::predicate);
        condition
            .is_none_or(|when| when.is_ok_and(|when| when.holds(&revision.story, &revision.node)))
    }
}

impl Ledger {
    pub(super) fn new(since_ns: u64) -> Self {
        Self { since_ns, ..Self::default() }
    }

    /// Takes a revision of a story.
    pub(super) fn take(&mut self, revision: &Revision, context: &Context<'_>) {
        match self.known.find(revision) {
            Some(known) => {
                if known.take(revision) {
                    let key = known.key.clone();
                    self.step(&key, context);
                }
            }
            None => self.take_new(revision, context),
        }
    }

    /// Takes a revision of a story without a notification.
    fn take_new(&mut self, revision: &Revision, context: &Context<'_>) {
        let story = &revision.story;
        let is_old = story.state.is_end() && story.first_ns < self.since_ns;
        // A lifecycle is the record of an entity, and nothing that somebody has to know.
        let is_none = story.is_lifecycle() || story.state == StoryState::Retracted;
        if is_none || is_old || !context.matches(revision) {
            return;
        }
        if let Some(Incident { id, .. }) = &story.incident
            && !context.config.related
            && self.known.has_incident(*id)
        {
            context.counters.related.add(1);
            return;
        }
        let known = NotifiedStory::new(revision, Phase::Silenced);
        let key = known.key.clone();
        self.known.add(known);
        self.step(&key, context);
    }

    /// Brings a story's notifications up to date.
    fn step(&mut self, key: &str, context: &Context<'_>) {
        let Some(known) = self.known.by_key(key) else { return };
        match known.phase {
            Phase::Silenced => self.announce(key, context),
            Phase::Digested => known.story = None,
            Phase::Open if known.has_ended() => self.end(key, context),
            // Event time goes on with it under another id, after the first one was retracted.
            Phase::Closed | Phase::Retracted if !known.has_ended() => self.reopen(key, context),
            // A story that was confirmed before event time retracts it.
            Phase::Closed if known.is_retracted() => self.end(key, context),
            Phase::Open | Phase::Closed | Phase::Retracted => {}
        }
    }

    /// Announces a story, unless it is silenced.
    fn announce(&mut self, key: &str, context: &Context<'_>) {
        let Some(known) = self.known.by_key(key) else { return };
        let Some(story) = known.story.clone() else { return };
        let has_ended = known.has_ended();
        if known.is_retracted() || (has_ended && context.is_silenced(&story)) {
            context.counters.silenced.add(u64::from(!known.is_retracted()));
            self.known.remove(key);
            return;
        }
        if context.is_silenced(&story) {
            return;
        }
        if !self.flood.is_announced(&context.config.digest, &story, context.now_ns) {
            context.counters.digested.add(1);
            known.phase = Phase::Digested;
            known.story = None;
            return;
        }
        known.phase = if has_ended { Phase::Closed } else { Phase::Open };
        let occasion = if has_ended { Occasion::Closed } else { Occasion::Opened };
        self.push(key, occasion, context);
    }

    /// Announces the end of a story.
    fn end(&mut self, key: &str, context: &Context<'_>) {
        let Some(known) = self.known.by_key(key) else { return };
        let is_retracted = known.is_retracted();
        if is_retracted && self.outbox.has_opening(key) {
            // Nobody knows of it.
            self.outbox.drop_all(key);
            self.known.remove(key);
            return;
        }
        (known.phase, known.is_changed) = match is_retracted {
            true => (Phase::Retracted, false),
            false => (Phase::Closed, false),
        };
        let occasion = if is_retracted { Occasion::Retracted } else { Occasion::Closed };
        self.push(key, occasion, context);
    }

    /// Goes on with a story that has ended: its end isn't sent if it waits still.
    fn reopen(&mut self, key: &str, context: &Context<'_>) {
        let was_waiting = self.outbox.drop_end(key);
        let Some(known) = self.known.by_key(key) else { return };
        known.phase = Phase::Open;
        known.is_changed = was_waiting;
        if !was_waiting {
            self.push(key, Occasion::Opened, context);
        }
    }

    fn push(&mut self, key: &str, occasion: Occasion, context: &Context<'_>) {
        let Some(known) = self.known.by_key(key) else { return };
        let Some(story) = &known.story else { return };
        known.is_changed = false;
        let story = story.json().to_string();
        let last = known.parts.iter().map(|part| (part.epoch, part.revision)).max();
        let (epoch, revision) = last.unwrap_or_default();
        let (epoch, revision) = (epoch.to_string(), revision.to_string());
        let id =
            notification_id(&[&context.config.name, key, occasion.as_str(), &epoch, &revision]);
        let (key, time_ns) = (key.to_owned(), context.now_ns);
        self.outbox.push(Waiting { id, occasion, key, time_ns, story, digest: None });
    }

    /// Announces stories that aren't silenced any more, updates that are due, and the digest of a
    /// window that is over. To be called at least once a second.
    pub(super) fn tick(&mut self, context: &Context<'_>) {
        if let Some(digest) = self.flood.end(&context.config.digest, context.now_ns) {
            let from = digest.from_ns.to_string();
            let id = notification_id(&[&context.config.name, "digest", &from]);
            let (occasion, time_ns) = (Occasion::Digest, context.now_ns);
            let (key, story) = (String::new(), String::new());
            self.outbox.push(Waiting { id, occasion, key, time_ns, story, digest: Some(digest) });
        }
        let silenced = |known: &&NotifiedStory| known.phase == Phase::Silenced;
        let silenced: Vec<String> = self.known.iter().filter(silenced).map(key).collect();
        silenced.iter().for_each(|key| self.announce(key, context));
        let interval_ns = context.config.update_interval.as_nanos() as u64;
        let outbox = &self.outbox;
        let is_due = |known: &&NotifiedStory| {
            known.phase == Phase::Open
                && known.is_changed
                && context.takes_updates
                && context.now_ns.saturating_sub(known.sent_ns) >= interval_ns
                && !outbox.has(&known.key)
        };
        let due: Vec<String> = self.known.iter().filter(is_due).map(key).collect();
        for key in due.iter().filter(|_| self.outbox.has_room()).collect::<Vec<_>>() {
            self.update(key, context);
        }
    }

    /// Announces an update, unless operators have asked for silence.
    fn update(&mut self, key: &str, context: &Context<'_>) {
        let Some(story) = self.known.by_key(key).and_then(|known| known.story.clone()) else {
            return;
        };
        if !context.is_silenced(&story) && !context.is_acknowledged(&story) {
            self.push(key, Occasion::Updated, context);
        }
    }

    /// Notes that a notification was taken, with the receiver's reference to it.
    pub(super) fn sent(&mut self, waiting: &Waiting, reference: Option<String>, now_ns: u64) {
        self.outbox.remove(&waiting.id);
        if let Some(known) = self.known.by_key(&waiting.key) {
            known.sent_ns = now_ns;
            known.reference = reference.or_else(|| known.reference.take());
            if waiting.occasion.is_end() && known.phase != Phase::Open {
                known.story = None;
            }
        }
    }

    /// Notes that a notification was given up.
    pub(super) fn given_up(&mut self, waiting: &Waiting, now_ns: u64) {
        self.sent(waiting, None, now_ns);
    }

    /// Whether something is due soon: an update, a story that is silenced, the end of a window.
    pub(super) fn is_pending(&self, context: &Context<'_>) -> bool {
        let is_due = |known: &NotifiedStory| {
            known.phase == Phase::Silenced || (known.phase == Phase::Open && known.is_changed)
        };
        self.flood.due_ns(&context.config.digest).is_some() || self.known.iter().any(is_due)
    }

    /// Stories that were announced and haven't ended.
    pub(super) fn open(&self) -> usize {
        self.known.iter().filter(|known| known.phase == Phase::Open).count()
    }
}

fn key(known: &NotifiedStory) -> String {
    known.key.clone()
}

#[cfg(test)]
mod tests;
