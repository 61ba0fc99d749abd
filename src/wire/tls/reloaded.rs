//! A value read from files, read again when they change. A broken new file keeps the old value.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::error::TlsError;
use super::files::FileState;
use tapio_core::clock;

/// Time between two looks at files, where looking each time would cost too much.
const LOOK_INTERVAL_NS: u64 = 1_000_000_000;

/// Whether another look is due, and if so notes that it was taken.
pub(crate) fn is_due(last_ns: &AtomicU64) -> bool {
    let (now, last) = (clock::monotonic_ns(), last_ns.load(Ordering::Relaxed));
    // Relaxed: one of several threads looks; nothing else depends on it.
    now.saturating_sub(last) >= LOOK_INTERVAL_NS
        && last_ns.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// A value of files.
pub(crate) struct Reloaded<T> {
    value: ArcSwap<T>,
    paths: Vec<PathBuf>,
    /// The files as they were when they were read last.
    seen: Mutex<Vec<FileState>>,
    read: Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>,
    failures: AtomicU64,
}

impl<T> Reloaded<T> {
    /// Reads the value.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn new(
        paths: Vec<PathBuf>,
        read: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        // Before they are read: a change in between is seen with the next look.
        let seen = paths.iter().map(|path| FileState::of(path)).collect();
        let value = ArcSwap::from_pointee(read()?);
        let failures = AtomicU64::new(0);
        Ok(Self { value, paths, seen: Mutex::new(seen), read: Box::new(read), failures })
    }

    /// The value as it was read last.
    pub(crate) fn current(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// The value, after a look at the files.
    pub(crate) fn look(&self) -> Arc<T> {
        let now: Vec<FileState> = self.paths.iter().map(|path| FileState::of(path)).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen != now {
            *seen = now;
            match (self.read)() {
                Ok(value) => {
                    self.value.store(Arc::new(value));
                    let files: Vec<_> = self.paths.iter().map(|path| path.display()).collect();
                    tracing::info!(?files, "read again, because they have changed");
                }
                Err(error) => {
                    // Relaxed: a number that nothing else depends on.
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "can't use a changed file; the one before stays in use");
                }
            }
        }
        drop(seen);
        self.current()
    }

    /// How often changed files couldn't be used.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}
