//! The circuit breaker of an endpoint, a state machine (docs/delivery.md):
//!
//! ```text
//!                ┌────────────── failure ──────────────┐
//!                │                                     ▼
//!   start ──▶ half open ── ack ──▶ closed ── failure ▶ open
//!                ▲                                     │
//!                └─────────── pause is over ───────────┘
//! ```
//!
//! Half open, one attempt with one batch in flight shows whether the server stores batches. The
//! pause is random, up to a bound that doubles with each failure in a row, and no shorter than the
//! server asked for.

use std::time::{Duration, Instant};

use tapio_core::backoff::Backoff;

/// Longest pause that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// State of the circuit to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Batches are sent.
    Closed = 0,
    /// One batch is sent, to try the server.
    HalfOpen = 1,
    /// Nothing is sent.
    Open = 2,
}

impl CircuitState {
    /// Its name in `/status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// The circuit breaker of one endpoint.
#[derive(Debug)]
pub(super) struct Circuit {
    state: CircuitState,
    backoff: Backoff,
    /// When the pause of an open circuit is over.
    due: Instant,
}

impl Circuit {
    pub(super) fn new(backoff: Backoff, now: Instant) -> Self {
        Self { state: CircuitState::HalfOpen, backoff, due: now }
    }

    pub(super) fn state(&self) -> CircuitState {
        self.state
    }

    /// When the next attempt is allowed.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// An attempt begins.
    pub(super) fn attempt(&mut self) {
        self.state = CircuitState::HalfOpen;
    }

    /// The server has stored a batch.
    pub(super) fn succeed(&mut self) {
        self.state = CircuitState::Closed;
        self.backoff.reset();
    }

    /// The attempt or the stream has failed.
    pub(super) fn fail(&mut self, now: Instant, retry_after: Option<Duration>) {
        let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        self.state = CircuitState::Open;
        self.due = now + self.backoff.next_pause().max(asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::clock;

    const FIRST: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(2);

    #[test]
    fn circuit_opens_at_a_failure_and_closes_at_an_ack() {
        let now = clock::instant();
        let mut circuit = Circuit::new(Backoff::new(FIRST, MAX), now);
        assert_eq!((circuit.state(), circuit.due()), (CircuitState::HalfOpen, now));
        circuit.fail(now, None);
        assert_eq!((circuit.state(), circuit.due()), (CircuitState::Open, now + FIRST));
        circuit.attempt();
        circuit.fail(now, None);
        assert_eq!((circuit.state(), circuit.due()), (CircuitState::Open, now + 2 * FIRST));
        circuit.attempt();
        assert_eq!(circuit.state(), CircuitState::HalfOpen);
        circuit.succeed();
        assert_eq!(circuit.state(), CircuitState::Closed);
        circuit.fail(now, None);
        assert_eq!(circuit.due(), now + FIRST, "an ack resets the pause");
    }

    #[test]
    fn pause_is_as_long_as_the_server_asks_for_within_bounds() {
        let now = clock::instant();
        let mut circuit = Circuit::new(Backoff::new(FIRST, MAX), now);
        circuit.fail(now, Some(Duration::from_secs(5)));
        assert_eq!(circuit.due(), now + Duration::from_secs(5));
        circuit.fail(now, Some(Duration::from_millis(1)));
        assert_eq!(circuit.due(), now + 2 * FIRST);
        circuit.fail(now, Some(Duration::from_secs(1 << 40)));
        assert_eq!(circuit.due(), now + MAX_RETRY_AFTER);
    }
}
