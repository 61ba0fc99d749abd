//! The flight recorder: the batches of the last minutes in memory, for `tapio debug dump`.
//!
//! It copies each batch once it is encoded, compressed, so events cost nothing of their own: while
//! it is off, a batch costs one relaxed load.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use tapio_core::clock;

/// Level of zstd: the fastest.
const ZSTD_LEVEL: i32 = 1;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecorderLimits {
    /// The time for which events are kept.
    pub keep: Duration,
    /// The most memory, in bytes of compressed batches.
    pub bytes: usize,
}

/// The flight recorder.
#[derive(Default)]
pub struct FlightRecorder {
    is_on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    limits: Option<RecorderLimits>,
    /// When it switches itself off.
    until: Option<Instant>,
    batches: VecDeque<Recorded>,
    bytes: usize,
    /// Batches that left before their time because of `bytes`.
    evicted: u64,
}

struct Recorded {
    at: Instant,
    compressed: Box<[u8]>,
    events: u32,
}

impl FlightRecorder {
    /// Switches it on, for a time or until [`FlightRecorder::stop`]. What it has stays, as far as
    /// the limits allow.
    pub fn start(&self, limits: RecorderLimits, time: Option<Duration>) {
        let mut state = self.lock();
        state.limits = Some(limits);
        state.until = time.and_then(|time| clock::instant().checked_add(time));
        state.trim(clock::instant());
        // Relaxed, paired with the load in `record`: the lock orders everything else.
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// Switches it off and forgets what it has.
    pub fn stop(&self) {
        self.is_on.store(false, Ordering::Relaxed);
        *self.lock() = State::default();
    }

    /// Keeps a batch while it is on. `message`: the encoded `EventBatch`.
    pub(super) fn record(&self, message: &[u8], events: u32) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        self.keep(message, events, clock::instant());
    }

    #[cold]
    fn keep(&self, message: &[u8], events: u32, now: Instant) {
        // Only memory could be short.
        let Ok(compressed) = zstd::bulk::compress(message, ZSTD_LEVEL) else { return };
        let mut state = self.lock();
        if state.limits.is_none() {
            return;
        }
        state.bytes += compressed.len();
        let compressed = compressed.into_boxed_slice();
        state.batches.push_back(Recorded { at: now, compressed, events });
        state.trim(now);
    }

    /// Removes what is too old, also where no events come, and switches itself off when its time is
    /// over; what it has then stays for the time that it is kept. To be called about once a second.
    pub fn poll(&self) {
        let now = clock::instant();
        let mut state = self.lock();
        if state.until.is_some_and(|until| until <= now) {
            state.until = None;
            self.is_on.store(false, Ordering::Relaxed);
            tracing::info!("flight recorder switched off: its time is over");
        }
        state.trim(now);
    }

    /// The batches, the oldest first. They are decompressed one at a time.
    pub fn batches(&self) -> impl Iterator<Item = Vec<u8>> + Send + use<> {
        let copies: Vec<Box<[u8]>> =
            self.lock().batches.iter().map(|batch| batch.compressed.clone()).collect();
        copies.into_iter().filter_map(|batch| zstd::stream::decode_all(&*batch).ok())
    }

    /// Whether it is on, and what it has.
    #[must_use]
    pub fn json(&self) -> Json {
        let state = self.lock();
        let now = clock::instant();
        let events: u64 = state.batches.iter().map(|batch| u64::from(batch.events)).sum();
        let age = state.batches.front().map(|first| now.saturating_duration_since(first.at));
        // A begun second counts.
        let left =
            |until: Instant| until.saturating_duration_since(now).as_secs_f64().ceil() as u64;
        json!({
            "on": self.is_on.load(Ordering::Relaxed),
            "events": events,
            "batches": state.batches.len(),
            "bytes": state.bytes,
            "oldest_seconds": age.map(|age| age.as_secs()),
            "evicted_batches": state.evicted,
            "limit_bytes": state.limits.map(|limits| limits.bytes),
            "keep_seconds": state.limits.map(|limits| limits.keep.as_secs()),
            "seconds_left": state.until.map(left),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn trim(&mut self, now: Instant) {
        let Some(limits) = self.limits else { return };
        while let Some(first) = self.batches.front() {
            let is_old = now.saturating_duration_since(first.at) > limits.keep;
            if !is_old && self.bytes <= limits.bytes {
                break;
            }
            self.evicted += u64::from(!is_old);
            self.bytes -= first.compressed.len();
            self.batches.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RecorderLimits = RecorderLimits { keep: Duration::from_secs(60), bytes: 3500 };

    fn bytes(n: u8) -> Vec<u8> {
        // Incompressible.
        let mut x = u64::from(n) + 1;
        (0..1000)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x as u8
            })
            .collect()
    }

    #[test]
    fn batches_are_kept_within_time_and_memory() {
        let recorder = FlightRecorder::default();
        recorder.record(&bytes(0), 1);
        assert_eq!(recorder.json()["batches"], 0, "it is off");
        recorder.start(LIMITS, None);
        for n in 1..=6 {
            recorder.record(&bytes(n), 1);
        }
        let kept: Vec<Vec<u8>> = recorder.batches().collect();
        assert_eq!(kept, [bytes(4), bytes(5), bytes(6)], "the newest, within the memory");
        assert_eq!(recorder.json()["evicted_batches"], 3);
        assert!(recorder.json()["bytes"].as_u64().unwrap() <= 3500);
        let later = clock::instant() + Duration::from_secs(59);
        recorder.lock().trim(later);
        assert_eq!(recorder.json()["batches"], 3);
        recorder.lock().trim(later + Duration::from_secs(2));
        assert_eq!(recorder.json()["batches"], 0);
        recorder.stop();
        recorder.record(&bytes(7), 1);
        assert_eq!(recorder.json()["batches"], 0);
    }

    #[test]
    fn recorder_ends_with_its_time_and_keeps_what_it_has() {
        let recorder = FlightRecorder::default();
        recorder.start(LIMITS, Some(Duration::ZERO));
        recorder.record(&bytes(1), 1);
        recorder.poll();
        recorder.record(&bytes(2), 1);
        assert_eq!(recorder.batches().collect::<Vec<_>>(), [bytes(1)]);
        assert_eq!(recorder.json()["on"], false);
    }
}
