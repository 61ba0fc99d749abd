//! Catches panics while an event is correlated, so that a defect in a rule or in its evaluation
//! costs the memberships of one event and the state of one key, and no thread.
//!
//! A guard costs a call that isn't inlined and two stores to a thread-local. So there is one for
//! all events that a worker reads from a ring at once, and one for all rules that are relevant to
//! an event; an event that no rule matches costs nothing more.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use tapio_core::event::Name;

/// Different failures that wait to be reported; further ones are counted with a failure of the same
/// rule, or in the total only.
const MAX_WAITING: usize = 64;

thread_local! {
    /// Guards that this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic in a guard occurred.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`.
///
/// # Errors
/// The message and place of its panic. What `work` was changing may be half changed: the caller
/// drops it.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    outcome.map_err(|payload| cause(&*payload))
}

#[cold]
fn cause(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("panic without a message");
    let place = PLACE.take();
    if place.is_empty() { text.to_owned() } else { format!("{text} ({place})") }
}

/// From now on a panic inside a guard isn't printed when it occurs, and its failure has its place
/// in the code: the shard reports it once. Other panics are printed as before.
pub(crate) fn report_instead_of_printing() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if DEPTH.get() == 0 {
                print(info);
            } else if let Some(place) = info.location() {
                PLACE.set(place.to_string());
            }
        }));
    });
}

/// A failure while events were correlated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The rule that failed; `None`: code outside of the rules.
    pub(crate) rule: Option<Name>,
    /// Message and place of the latest panic.
    pub(crate) cause: String,
    /// How often it failed.
    pub(crate) times: u64,
}

/// Failures, counted, and kept until they are taken.
#[derive(Default)]
pub(crate) struct Failures {
    /// Failures so far.
    pub(crate) total: u64,
    waiting: Vec<Failure>,
}

impl Failures {
    #[cold]
    pub(crate) fn add(&mut self, rule: Option<Name>, cause: String) {
        self.total += 1;
        if let Some(same) = self.waiting.iter_mut().find(|failure| failure.rule == rule) {
            (same.times, same.cause) = (same.times + 1, cause);
        } else if self.waiting.len() < MAX_WAITING {
            self.waiting.push(Failure { rule, cause, times: 1 });
        }
    }

    /// Takes the failures since the last call.
    pub(crate) fn take(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_an_error_with_its_message_and_place() {
        report_instead_of_printing();
        assert_eq!(guarded(|| 7), Ok(7));
        let values: Vec<u8> = Vec::new();
        let cause = guarded(|| values[values.len() + 3]).unwrap_err();
        assert!(cause.contains("index is 3") && cause.contains("guard.rs:"), "{cause}");
    }

    #[test]
    fn failures_of_one_rule_are_reported_together() {
        let mut failures = Failures::default();
        failures.add(None, "first".into());
        failures.add(None, "second".into());
        let expected = Failure { rule: None, cause: "second".into(), times: 2 };
        assert_eq!((failures.take(), failures.take()), (vec![expected], vec![]));
        assert_eq!(failures.total, 2);
    }
}
