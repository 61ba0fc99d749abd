use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::json;

use super::super::config::{DigestConfig, ReceiverConfig};
use super::*;
use tapio_core::event::{IncidentRole, Severity, TraceId};

const SECOND: u64 = 1_000_000_000;
/// The first start of the receiver.
const START: u64 = 1_000 * SECOND;

/// A receiver and its ledger, with a clock and operators of its own.
struct Fixture {
    ledger: Ledger,
    config: ReceiverConfig,
    counters: ReceiverCounters,
    now_ns: u64,
    silenced: RefCell<BTreeSet<String>>,
    acknowledged: RefCell<BTreeSet<String>>,
}

impl Fixture {
    fn new(more: &str) -> Self {
        let text = format!(
            "name: r\nwebhook: {{ url: 'http://localhost' }}\nupdate_interval: 30s\n{more}"
        );
        Self {
            ledger: Ledger::new(START),
            config: serde_saphyr::from_str(&text).unwrap(),
            counters: ReceiverCounters::default(),
            now_ns: START,
            silenced: RefCell::default(),
            acknowledged: RefCell::default(),
        }
    }

    fn step(&mut self, step: impl FnOnce(&mut Ledger, &Context<'_>)) {
        let marks = |story: &Story| StoryMarks {
            silence: self.silenced.borrow().contains(&story.rule).then(|| json!({})),
            annotations: (self.acknowledged.borrow().contains(&story.rule))
                .then(|| json!({"acknowledged": {"by": "ann"}})),
        };
        let context = Context {
            config: &self.config,
            counters: &self.counters,
            marks: &marks,
            takes_updates: true,
            now_ns: self.now_ns,
        };
        step(&mut self.ledger, &context);
    }

    fn take(&mut self, revision: &Revision) {
        self.step(|ledger, context| ledger.take(revision, context));
    }

    /// Lets time pass. Returns the notifications, which are taken.
    fn after(&mut self, seconds: u64) -> Vec<(&'static str, String)> {
        self.now_ns += seconds * SECOND;
        self.step(Ledger::tick);
        let mut sent = Vec::new();
        while let Some(waiting) = self.ledger.outbox.first().cloned() {
            let name = waiting.story().map_or_else(|| "-".to_owned(), |story| story.name);
            sent.push((waiting.occasion.as_str(), name));
            self.ledger.sent(&waiting, None, self.now_ns);
        }
        sent
    }

    /// The state after a restart.
    fn restart(&mut self) {
        let text = serde_json::to_string(&self.ledger).unwrap();
        self.ledger = serde_json::from_str(&text).unwrap();
    }
}

/// Revision `revision` of the story `id` of a node.
fn revision(id: u8, node: &str, state: StoryState, revision: u32) -> Revision {
    let story = Story {
        id: TraceId([id; 16]),
        trace_id: TraceId([id; 16]),
        rule: format!("rule-{id}"),
        name: format!("story {id}"),
        state,
        revision,
        first_ns: START + SECOND,
        severity: Severity::ERROR,
        ..Story::default()
    };
    Revision { node: node.into(), epoch: 1, story }
}

fn renamed(of: Revision, name: &str) -> Revision {
    Revision { story: Story { name: name.into(), ..of.story }, ..of }
}

use StoryState::{Closed, Expired, Opened, Retracted, Updated};

fn owned(sent: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    sent.iter().map(|(occasion, name)| (*occasion, (*name).to_owned())).collect()
}

#[test]
fn opening_changes_and_end_are_notified_once_each() {
    let mut of = Fixture::new("");
    of.take(&revision(1, "n", Opened, 0));
    of.take(&revision(1, "n", Opened, 0));
    assert_eq!(of.after(0), owned(&[("opened", "story 1")]));
    // More members alone are no update; a changed title is, after the interval, and the last one.
    of.take(&revision(1, "n", Updated, 1));
    assert_eq!(of.after(60), []);
    of.take(&renamed(revision(1, "n", Updated, 2), "b"));
    assert_eq!(of.after(0), owned(&[("updated", "b")]));
    of.take(&renamed(revision(1, "n", Updated, 3), "c"));
    of.take(&renamed(revision(1, "n", Updated, 4), "d"));
    assert_eq!(of.after(29), [], "the interval isn't over");
    of.restart();
    assert_eq!(of.after(1), owned(&[("updated", "d")]));
    // An old revision comes again.
    of.take(&renamed(revision(1, "n", Updated, 2), "b"));
    assert_eq!(of.after(60), []);
    of.take(&renamed(revision(1, "n", Updated, 5), "e"));
    of.take(&renamed(revision(1, "n", Closed, 6), "f"));
    assert_eq!(of.after(0), owned(&[("closed", "f")]), "the end has the last change");
    of.take(&renamed(revision(1, "n", Closed, 7), "g"));
    assert_eq!(of.after(60), []);
    // Revisions of a restarted agent begin at 0 again.
    of.take(&Revision { epoch: 2, ..revision(1, "n", Retracted, 0) });
    assert_eq!(of.after(0), owned(&[("retracted", "story 1")]));
    assert_eq!(of.ledger.open(), 0);
}

#[test]
fn story_that_opens_and_ends_at_once_is_opened_first() {
    let mut of = Fixture::new("");
    of.take(&revision(1, "n", Opened, 0));
    of.take(&revision(1, "n", Expired, 1));
    of.take(&revision(2, "n", Opened, 0));
    of.take(&revision(2, "n", Retracted, 1));
    of.take(&revision(3, "n", Retracted, 0));
    // One whose opening wasn't seen.
    of.take(&revision(4, "n", Closed, 3));
    let expected = [("opened", "story 1"), ("closed", "story 1"), ("closed", "story 4")];
    assert_eq!(of.after(0), owned(&expected), "nobody has to know of a retracted one");
}

#[test]
fn stories_before_the_first_start_are_notified_about_if_they_are_open() {
    let mut of = Fixture::new("");
    let before = |id, state| {
        let of = revision(id, "n", state, 5);
        Revision { story: Story { first_ns: START - SECOND, ..of.story }, ..of }
    };
    of.take(&before(1, Closed));
    of.take(&before(2, Updated));
    assert_eq!(of.after(0), owned(&[("opened", "story 2")]));
}

#[test]
fn condition_decides_until_a_story_is_announced() {
    let mut of = Fixture::new("when: { severity: { gte: fatal }, node: 'n' }\n");
    of.take(&revision(1, "n", Opened, 0));
    assert_eq!(of.after(0), []);
    let fatal = |state, number| {
        let of = revision(1, "n", state, number);
        Revision { story: Story { severity: Severity::FATAL, ..of.story }, ..of }
    };
    of.take(&fatal(Updated, 1));
    of.take(&Revision { node: "other".into(), ..fatal(Opened, 0) });
    assert_eq!(of.after(0), owned(&[("opened", "story 1")]));
    of.take(&Revision { node: "other".into(), ..fatal(Closed, 1) });
    of.take(&revision(1, "n", Closed, 2));
    assert_eq!(of.after(0), owned(&[("closed", "story 1")]), "although it is no match any more");
}

#[test]
fn parts_of_several_nodes_are_one_story() {
    let mut of = Fixture::new("");
    let second = |state, number| {
        let of = revision(1, "m", state, number);
        Revision { story: Story { id: TraceId([9; 16]), name: "other".into(), ..of.story }, ..of }
    };
    of.take(&revision(1, "n", Opened, 0));
    of.take(&second(Opened, 0));
    assert_eq!(of.after(0), owned(&[("opened", "story 1")]));
    of.take(&second(Closed, 1));
    assert_eq!(of.after(60), []);
    of.take(&revision(1, "n", Closed, 1));
    assert_eq!(of.after(0), owned(&[("closed", "story 1")]));
}

#[test]
fn story_under_another_id_goes_on() {
    let mut of = Fixture::new("");
    of.take(&revision(1, "n", Opened, 0));
    of.after(0);
    let relinked = |state, number| {
        let of = revision(2, "n", state, number);
        let provisional = Some(TraceId([1; 16]));
        Revision { story: Story { provisional, name: "final".into(), ..of.story }, ..of }
    };
    of.take(&relinked(Updated, 1));
    assert_eq!(of.after(60), owned(&[("updated", "final")]));
    of.take(&relinked(Closed, 2));
    assert_eq!(of.after(0), owned(&[("closed", "final")]));
}

#[test]
fn story_that_is_replaced_after_its_retraction_goes_on() {
    let replacing = |state, number| {
        let of = revision(2, "n", state, number);
        Revision { story: Story { provisional: Some(TraceId([1; 16])), ..of.story }, ..of }
    };
    let mut of = Fixture::new("");
    of.take(&revision(1, "n", Opened, 0));
    of.after(0);
    of.take(&revision(1, "n", Retracted, 1));
    of.take(&replacing(Opened, 0));
    assert_eq!(of.after(60), owned(&[("updated", "story 2")]), "the retraction wasn't sent yet");
    let mut of = Fixture::new("");
    of.take(&revision(1, "n", Opened, 0));
    of.after(0);
    of.take(&revision(1, "n", Retracted, 1));
    of.after(0);
    of.take(&replacing(Opened, 0));
    assert_eq!(of.after(0), owned(&[("opened", "story 2")]));
    // The other order.
    let mut of = Fixture::new("");
    of.take(&revision(1, "n", Opened, 0));
    of.after(0);
    of.take(&replacing(Closed, 0));
    of.take(&revision(1, "n", Retracted, 1));
    assert_eq!(of.after(60), owned(&[("closed", "story 2")]));
}

#[test]
fn incident_is_notified_about_once() {
    let effect = |id, parent| {
        let of = revision(id, "n", Opened, 0);
        let (role, because) = (IncidentRole::Effect, String::new());
        let incident = Some(Incident { id: TraceId([parent; 16]), role, because });
        Revision { story: Story { incident, ..of.story }, ..of }
    };
    let mut of = Fixture::new("when: { rule: { ne: rule-7 } }\n");
    of.take(&revision(1, "n", Opened, 0));
    of.take(&effect(2, 1));
    assert_eq!(of.after(0), owned(&[("opened", "story 1")]));
    assert_eq!(of.counters.related.get(), 1);
    // The parent isn't of interest: the first of the others stands for the incident.
    of.take(&revision(7, "n", Opened, 0));
    of.take(&effect(8, 7));
    of.take(&effect(9, 7));
    assert_eq!(of.after(0), owned(&[("opened", "story 8")]));
    let mut all = Fixture::new("related: true\n");
    all.take(&revision(1, "n", Opened, 0));
    all.take(&effect(2, 1));
    assert_eq!(all.after(0).len(), 2);
}

#[test]
fn silenced_story_is_announced_when_the_silence_ends() {
    let mut of = Fixture::new("");
    for id in 1..=2 {
        of.silenced.get_mut().insert(format!("rule-{id}"));
        of.take(&revision(id, "n", Opened, 0));
    }
    assert_eq!(of.after(0), []);
    of.take(&revision(2, "n", Closed, 1));
    of.restart();
    of.silenced.get_mut().clear();
    assert_eq!(of.after(1), owned(&[("opened", "story 1")]));
    assert_eq!(of.counters.silenced.get(), 1);
    // A silence after the announcement holds back updates, not the end.
    of.silenced.get_mut().insert("rule-1".into());
    of.take(&renamed(revision(1, "n", Updated, 1), "b"));
    assert_eq!(of.after(60), []);
    of.take(&revision(1, "n", Closed, 2));
    assert_eq!(of.after(0), owned(&[("closed", "story 1")]));
}

#[test]
fn acknowledged_story_has_no_updates() {
    let mut of = Fixture::new("");
    of.take(&revision(1, "n", Opened, 0));
    of.after(0);
    of.acknowledged.get_mut().insert("rule-1".into());
    of.take(&renamed(revision(1, "n", Updated, 1), "b"));
    assert_eq!(of.after(60), []);
    of.take(&revision(1, "n", Closed, 2));
    assert_eq!(of.after(0), owned(&[("closed", "story 1")]));
}

#[test]
fn flood_becomes_a_digest_also_over_a_restart() {
    let mut of = Fixture::new("");
    of.config.digest = DigestConfig { stories: 5, within: std::time::Duration::from_secs(60) };
    for id in 1..=200 {
        of.take(&revision(id, "n", Opened, 0));
        if id == 100 {
            of.restart();
        }
    }
    assert_eq!(of.after(0).len(), 5);
    (1..=200).for_each(|id| of.take(&revision(id, "n", Closed, 1)));
    let sent = of.after(60);
    assert_eq!(sent.iter().filter(|(occasion, _)| *occasion == "closed").count(), 5);
    assert_eq!(sent.iter().filter(|(occasion, _)| *occasion == "digest").count(), 1);
    assert_eq!((sent.len(), of.counters.digested.get()), (6, 195));
}

#[test]
fn ids_are_the_same_if_a_revision_is_taken_again() {
    let ids = |of: &mut Fixture| {
        of.take(&revision(1, "n", Opened, 0));
        of.take(&revision(1, "n", Closed, 1));
        let first = of.ledger.outbox.first().unwrap().id.clone();
        of.ledger.outbox.remove(&first);
        [first, of.ledger.outbox.first().unwrap().id.clone()]
    };
    let (first, again) = (ids(&mut Fixture::new("")), ids(&mut Fixture::new("")));
    assert_eq!(first, again);
    assert_ne!(first[0], first[1]);
}
