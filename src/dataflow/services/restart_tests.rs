//! The states that survive a restart, of the learner and of what is learned from.

use super::bounds::ServiceBounds;
use super::fact::{InstanceNames, Key, ServiceFact};
use super::learner::Services;
use super::tests::{App, BEGIN_NS, Fault, advanced};
use tapio_core::event::StoryState;

#[test]
fn what_is_usual_survives_a_restart() {
    let mut app = App::new();
    app.run(0, 600, None);
    let mut before = Services::new(ServiceBounds::LIVE, "", 1.0);
    assert!(before.save().is_none(), "nothing was learned");
    assert!(advanced(&mut before, app.facts, 640).is_empty());
    let saved = before.save().unwrap();
    assert!(before.save().unwrap() == saved, "saving changes nothing");
    let faulty = || {
        let mut app = App::new();
        app.run(900, 60, Some(Fault { at: 2, own_ms: 80, ..Default::default() }));
        app.facts
    };
    let mut restored = Services::new(ServiceBounds::LIVE, "", 1.0);
    restored.restore(&saved).unwrap();
    assert_eq!(restored.counts().operations, before.counts().operations);
    let stories = advanced(&mut restored, faulty(), 980);
    assert!(stories[0].root_cause[0].cause.starts_with("stock"), "{stories:#?}");
    let mut fresh = Services::new(ServiceBounds::LIVE, "", 1.0);
    assert!(advanced(&mut fresh, faulty(), 980).is_empty());
    // Without a fault there is none.
    let mut app = App::new();
    app.run(900, 300, None);
    let mut restored = Services::new(ServiceBounds::LIVE, "", 1.0);
    restored.restore(&saved).unwrap();
    assert!(advanced(&mut restored, app.facts, 1_300).is_empty());
}

#[test]
fn damaged_state_is_refused() {
    let mut app = App::new();
    app.run(0, 60, None);
    let mut services = Services::new(ServiceBounds::LIVE, "", 1.0);
    advanced(&mut services, app.facts, 100);
    let saved = services.save().unwrap();
    for cut in [0, 7, 31, 32, saved.len() / 2, saved.len() - 1] {
        assert!(Services::new(ServiceBounds::LIVE, "", 1.0).restore(&saved[..cut]).is_err());
    }
    for at in (0..saved.len()).step_by(97) {
        let mut changed = saved.clone();
        changed[at] ^= 0x10;
        let mut services = Services::new(ServiceBounds::LIVE, "", 1.0);
        assert!(services.restore(&changed).is_err(), "byte {at}");
        assert_eq!(services.counts().operations, 0);
    }
}

/// A kill in the middle of a disturbance: its story goes on, and ends.
#[test]
fn open_disturbance_survives_a_restart() {
    let mut app = App::new();
    app.run(0, 600, None);
    let mut before = Services::new(ServiceBounds::LIVE, "", 1.0);
    assert!(advanced(&mut before, app.facts, 640).is_empty());
    let usual = before.save().unwrap();
    let fault = Some(Fault { at: 2, own_ms: 80, ..Default::default() });
    let mut app = App::new();
    app.run(640, 60, fault);
    let opened = advanced(&mut before, app.facts, 690);
    assert_eq!(opened[0].state, StoryState::Opened);
    let open = before.save_disturbances().unwrap();
    let restored = || {
        let mut restored = Services::new(ServiceBounds::LIVE, "", 1.0);
        restored.restore(&usual).unwrap();
        assert_eq!(restored.restore_disturbances(&open).unwrap(), 1);
        restored
    };
    // The fault goes on for a minute.
    let mut app = App::new();
    app.run(700, 60, fault);
    app.run(760, 120, None);
    let stories = advanced(&mut restored(), app.facts, 900);
    assert!(stories.iter().all(|story| story.id == opened[0].id), "{stories:#?}");
    let last = stories.last().unwrap();
    assert!(last.state == StoryState::Closed && last.revision > opened[0].revision);
    assert!(last.last_ns > 740 * 1_000_000_000, "{last:#?}");
    // Nothing came any more: the names are those of before.
    let mut restored_alone = restored();
    let seconds = (2_000..2_060).step_by(10);
    let stories: Vec<_> =
        seconds.flat_map(|second| restored_alone.advance(second * 1_000_000_000)).collect();
    assert_eq!(stories.len(), 1);
    assert_eq!((stories[0].id, stories[0].state), (opened[0].id, StoryState::Closed));
    let cause = &stories[0].root_cause[0].cause;
    assert!(cause.starts_with("stock: GET /stock takes "), "{cause}");
    for cut in [0, 20, open.len() - 1] {
        assert!(restored().restore_disturbances(&open[..cut]).is_err());
    }
}

/// Ten minutes of one pod of the stock, then three of its successor with this fault.
fn with_successor(fault: Option<Fault>) -> Vec<ServiceFact> {
    const POD: Key = 3;
    const SUCCESSOR: Key = 33;
    let mut app = App::new();
    app.run(0, 600, None);
    let names = |pod: &str| InstanceNames {
        service: "stock".into(),
        pod: pod.into(),
        ..InstanceNames::default()
    };
    for (key, pod) in [(POD, "stock-1"), (SUCCESSOR, "stock-2")] {
        let names = Box::new(names(pod));
        app.facts.insert(0, ServiceFact::Instance { key, names });
    }
    let successor_from = app.facts.len();
    app.run(600, 180, fault);
    for fact in &mut app.facts[successor_from..] {
        match fact {
            ServiceFact::Span(span) if span.instance == POD => span.instance = SUCCESSOR,
            ServiceFact::Log(log) if log.instance == POD => log.instance = SUCCESSOR,
            _ => {}
        }
    }
    app.facts
}

#[test]
fn new_pod_that_fails_is_compared_with_the_one_before_it() {
    let stories = |fault| {
        let mut services = Services::new(ServiceBounds::LIVE, "", 1.0);
        advanced(&mut services, with_successor(fault), 800)
    };
    let failing = stories(Some(Fault { at: 2, fails: true, ..Default::default() }));
    assert!(failing[0].root_cause[0].cause.starts_with("stock-2"), "{failing:#?}");
    let began_ns = failing[0].first_ns - BEGIN_NS;
    assert!((599..640).contains(&(began_ns / 1_000_000_000)), "{began_ns}");
    assert_eq!(stories(None), []);
}
