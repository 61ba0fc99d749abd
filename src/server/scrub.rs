//! Reads the store again, so that damage is found before a query needs what is lost, and notes the
//! agents. It has a thread of its own, of a low weight: a slow disk must not delay
//! acknowledgements.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::query_line::lower_weight;
use super::shared::Shared;
use crate::store::Scrubber;
use tapio_core::clock;

/// Pause between two reads.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a read: 10 GiB take three hours.
const READ_BYTES: u64 = 1024 * 1024;
/// Bytes of a read after a start, until everything was read once: 10 GiB take eleven minutes.
const FIRST_READ_BYTES: u64 = 16 * 1024 * 1024;
/// A smaller store is read again once in this time.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Interval at which the agents are noted.
const AGENTS_INTERVAL: Duration = Duration::from_secs(60);

/// The thread; dropping it ends it.
pub(super) struct ScrubThread {
    end: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl ScrubThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let end = Arc::new((Mutex::new(false), Condvar::new()));
        let for_thread = Arc::clone(&end);
        let run = move || run(&shared, &for_thread);
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(run)?;
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for ScrubThread {
    fn drop(&mut self) {
        *self.end.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.end.1.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("server: scrub thread panicked");
        }
    }
}

fn run(shared: &Shared, (is_ended, ended): &(Mutex<bool>, Condvar)) {
    lower_weight();
    let mut scrubber = Scrubber::default();
    let (mut done, mut bytes) = (None::<Instant>, FIRST_READ_BYTES);
    let mut noted = clock::instant();
    loop {
        let guard = is_ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = ended.wait_timeout_while(guard, PAUSE, |is_ended| !*is_ended);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return shared.keep_agents();
        }
        if noted.elapsed() >= AGENTS_INTERVAL {
            noted = clock::instant();
            shared.keep_agents();
        }
        if done.is_none_or(|at| at.elapsed() >= INTERVAL) {
            let log = shared.storage().snapshot();
            done = scrubber.advance(&log, bytes).then(clock::instant);
            if done.is_some() {
                bytes = READ_BYTES;
            }
        }
    }
}
