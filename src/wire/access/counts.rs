//! Counters of a listener's refusals.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use tapio_core::clock;

/// Time between two lines of the log about the same kind of refusal.
const LOG_INTERVAL_NS: u64 = 60_000_000_000;

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The client doesn't speak TLS.
    NotTls,
    /// The client has no certificate.
    NoCertificate,
    /// The client's certificate isn't valid: another authority, expired, or the like.
    BadCertificate,
    /// The client doesn't accept the listener's certificate.
    Rejected,
    /// It wasn't finished in time.
    Timeout,
    /// Anything else, such as a client that is gone.
    Other,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No identity.
    Unauthenticated,
    /// An identity without the right.
    Forbidden,
    /// A `Host` or an `Origin` of elsewhere.
    Host,
    /// A user of a unix socket that isn't allowed.
    User,
    /// The identity of a stream that was open isn't accepted any more.
    Revoked,
}

const HANDSHAKES: [&str; 6] =
    ["not_tls", "no_certificate", "bad_certificate", "rejected", "timeout", "other"];
const REQUESTS: [&str; 5] = ["unauthenticated", "forbidden", "host", "user", "revoked"];

/// Counters of the refusals.
#[derive(Debug, Default)]
pub struct AccessCounts {
    handshakes: [AtomicU64; HANDSHAKES.len()],
    requests: [AtomicU64; REQUESTS.len()],
    /// When each kind was logged last: handshakes, then requests.
    logged_ns: Mutex<[u64; HANDSHAKES.len() + REQUESTS.len()]>,
}

impl AccessCounts {
    /// Counts a handshake that failed, and logs it, rarely.
    pub(crate) fn handshake(&self, listener: &str, failure: HandshakeFailure, cause: &str) {
        // Relaxed, as below: numbers that nothing else depends on.
        self.handshakes[failure as usize].fetch_add(1, Ordering::Relaxed);
        let reason = HANDSHAKES[failure as usize];
        if self.is_logged(failure as usize) {
            tracing::warn!(
                listener,
                reason,
                cause,
                "TLS handshake failed; further ones are logged once a minute"
            );
        }
    }

    /// Counts a request that was refused, and logs it, rarely.
    pub(crate) fn request(&self, listener: &str, refused: Refused, cause: &str) {
        self.requests[refused as usize].fetch_add(1, Ordering::Relaxed);
        let reason = REQUESTS[refused as usize];
        if self.is_logged(HANDSHAKES.len() + refused as usize) {
            tracing::warn!(
                listener,
                reason,
                cause,
                "request refused; further ones are logged once a minute"
            );
        }
    }

    fn is_logged(&self, kind: usize) -> bool {
        let mut logged = self.logged_ns.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic_ns().max(1);
        let is_due = logged[kind] == 0 || now.saturating_sub(logged[kind]) >= LOG_INTERVAL_NS;
        if is_due {
            logged[kind] = now;
        }
        is_due
    }

    /// Handshakes that failed.
    #[must_use]
    pub fn all_handshakes(&self) -> u64 {
        self.handshakes_failed().map(|(_, count)| count).sum()
    }

    /// Requests that were refused.
    #[must_use]
    pub fn all_requests(&self) -> u64 {
        self.requests_refused().map(|(_, count)| count).sum()
    }

    /// Handshakes that failed, by reason.
    pub fn handshakes_failed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.handshakes.iter().map(|count| count.load(Ordering::Relaxed));
        HANDSHAKES.into_iter().zip(counts)
    }

    /// Requests that were refused, by reason.
    pub fn requests_refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.requests.iter().map(|count| count.load(Ordering::Relaxed));
        REQUESTS.into_iter().zip(counts)
    }
}
