//! Facts of the kernel that one collector has reported already: another one, whose source reports
//! them as well, marks its event as a repetition (`tapio.repeats`), which rules don't count.
//!
//! The kernel collector reports facts, with more detail; those that read the kernel's log look them
//! up. Both may see a fact first, so a reader of the log waits for a moment, and only while the
//! kernel collector runs and the line is new.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tapio_core::clock;
use tapio_core::event::EventId;
use tapio_core::log_line::KernelFact;

/// Facts that are remembered. A flood of them is beyond what the kernel logs.
const MAX_FACTS: usize = 1_024;
/// For how long a fact is remembered: far longer than a line takes, far shorter than numbers of
/// processes take to repeat.
const REMEMBERED_NS: u64 = 10_000_000_000;
/// How old a line may be for a reader to wait, and thus the longest wait.
const PATIENCE_NS: u64 = 100_000_000;

/// A kind of fact that is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    OomKills,
    Crashes,
    BlockErrors,
}

impl Watched {
    fn of(fact: &KernelFact) -> Self {
        match fact {
            KernelFact::OomKill { .. } => Self::OomKills,
            KernelFact::Crash { .. } => Self::Crashes,
            KernelFact::BlockError { .. } | KernelFact::DeviceError { .. } => Self::BlockErrors,
        }
    }
}

#[derive(Debug)]
struct Reported {
    fact: KernelFact,
    id: EventId,
    at_ns: u64,
}

#[derive(Debug, Default)]
struct State {
    watched: Vec<Watched>,
    /// The latest ones, the latest last.
    reported: VecDeque<Reported>,
}

impl State {
    fn find(&self, fact: &KernelFact, now_ns: u64) -> Option<EventId> {
        let recent = |r: &&Reported| now_ns.saturating_sub(r.at_ns) <= REMEMBERED_NS;
        let mut latest = self.reported.iter().rev().take_while(recent);
        latest.find(|reported| reported.fact == *fact).map(|reported| reported.id)
    }
}

/// The facts that collectors of one agent have reported.
#[derive(Debug, Default)]
pub struct KernelFacts {
    state: Mutex<State>,
    added: Condvar,
}

impl KernelFacts {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These kinds of facts are reported from now on; no kinds: nothing is.
    pub(crate) fn watch(&self, watched: Vec<Watched>) {
        self.lock().watched = watched;
        self.added.notify_all();
    }

    /// A fact is reported by the event with this id.
    pub(crate) fn report(&self, fact: KernelFact, id: EventId) {
        let mut state = self.lock();
        if state.reported.len() >= MAX_FACTS {
            state.reported.pop_front();
        }
        state.reported.push_back(Reported { fact, id, at_ns: clock::monotonic_ns() });
        self.added.notify_all();
    }

    /// The event that reported the fact which a line of the kernel's log is about. `age_ns`: the
    /// age of the line; for that of a new one, waits up to 100 ms.
    pub(crate) fn repeated_by(&self, message: &str, age_ns: u64) -> Option<EventId> {
        let fact = KernelFact::in_line(message)?;
        let watched = Watched::of(&fact);
        let from_ns = clock::monotonic_ns();
        let patience_ns = PATIENCE_NS.saturating_sub(age_ns);
        let mut state = self.lock();
        loop {
            let now_ns = clock::monotonic_ns();
            let found = state.find(&fact, now_ns);
            let left_ns = patience_ns.saturating_sub(now_ns.saturating_sub(from_ns));
            if found.is_some() || left_ns == 0 || !state.watched.contains(&watched) {
                return found;
            }
            let waited = self.added.wait_timeout(state, Duration::from_nanos(left_ns));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LINE: &str = "p[7]: segfault at 0 ip 0 sp 0 error 6";
    const FACT: KernelFact = KernelFact::Crash { task: 7 };

    #[test]
    fn reader_waits_for_the_fact_of_a_new_line() {
        let facts = Arc::new(KernelFacts::default());
        facts.watch(vec![Watched::Crashes]);
        let reporter = Arc::clone(&facts);
        let reported = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            reporter.report(KernelFact::Crash { task: 8 }, EventId([2; 16]));
            reporter.report(FACT, EventId([1; 16]));
        });
        // Where the reporter has no chance to run in time, its fact is known at the next line.
        let first = facts.repeated_by(LINE, 0);
        reported.join().unwrap();
        assert!(first.is_none_or(|id| id == EventId([1; 16])), "{first:?}");
        assert_eq!(facts.repeated_by(LINE, u64::MAX), Some(EventId([1; 16])));
        assert_eq!(facts.repeated_by("p[9]: segfault at 0 ip 0 sp 0 error 6", u64::MAX), None);
        assert_eq!(facts.repeated_by("usb 1-1: new device", 0), None);
    }

    #[test]
    fn nobody_waits_for_an_old_line_or_what_is_not_watched() {
        let facts = KernelFacts::default();
        // Would not end if it waited for more than the patience of one line.
        for _ in 0..10_000 {
            assert_eq!(facts.repeated_by(LINE, 0), None);
        }
        facts.watch(vec![Watched::Crashes]);
        for _ in 0..10_000 {
            assert_eq!(facts.repeated_by(LINE, PATIENCE_NS), None);
        }
        facts.watch(vec![Watched::OomKills]);
        for _ in 0..10_000 {
            assert_eq!(facts.repeated_by(LINE, 0), None);
        }
    }

    #[test]
    fn flood_of_facts_is_bounded() {
        let facts = KernelFacts::default();
        for task in 0..3 * MAX_FACTS as u32 {
            facts.report(KernelFact::OomKill { task }, EventId::default());
        }
        assert_eq!(facts.lock().reported.len(), MAX_FACTS);
    }
}
