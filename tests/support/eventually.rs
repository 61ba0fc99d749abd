//! Waiting for a condition.

use std::fmt::Display;
use std::time::Duration;

use tapio_core::clock;

/// Time limit of a wait: longer than the slowest condition takes on a busy host, a pod on a real
/// node.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(150);

/// Pause between two attempts, unless an attempt itself takes longer: then as long as it took, so
/// that attempts use at most half of the time.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until the condition holds.
///
/// # Panics
/// With `what` after the time limit.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_ok(what, || if condition() { Ok(()) } else { Err("the condition doesn't hold") });
}

/// Waits until an attempt succeeds. Returns its result.
///
/// # Panics
/// With `what` and the last error after the time limit.
#[track_caller]
pub(crate) fn eventually_ok<T, E: Display>(what: &str, attempt: impl FnMut() -> Result<T, E>) -> T {
    within(TIME_LIMIT, what, attempt)
}

/// The same with another time limit: for conditions that must hold sooner, or that take longer.
#[track_caller]
pub(crate) fn within<T, E: Display>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let begin = clock::instant();
    loop {
        let attempted = clock::instant();
        match attempt() {
            Ok(result) => return result,
            Err(error) => assert!(begin.elapsed() < limit, "timed out: {what}: {error}"),
        }
        std::thread::sleep(attempted.elapsed().max(PAUSE));
    }
}
