//! Writes stored batches to the disk before they are acknowledged, so that an acknowledged batch
//! survives a loss of power.
//!
//! A thread of its own syncs the log: one sync covers every batch stored before it, from all
//! streams, and ingest goes on meanwhile. A stream's acks wait for the sync that covers their
//! batches. When the disk fails to write, the batches it lost aren't stored any more: every stream
//! ends with an error, and its agent sends what wasn't acknowledged again.
//!
//! In between it retires what is expired, and notices deleted segments.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::shared::{DiskWork, Shared};
use tapio_core::clock;

/// Time between two checks for expired and for deleted segments.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The thread that syncs the log.
pub(super) struct SyncThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl SyncThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let for_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("sync".into()).spawn(move || run(&for_thread))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for SyncThread {
    /// Ends the thread, which seals the log, so that the next start reads no batch.
    fn drop(&mut self) {
        self.shared.gate.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("server: sync thread panicked");
        }
    }
}

fn run(shared: &Shared) {
    let mut checked = clock::instant();
    loop {
        let is_stopped = shared.gate.wait(CHECK_INTERVAL);
        let began = clock::instant();
        if is_stopped {
            shared.storage().seal();
        }
        sync(shared);
        if is_stopped {
            // Full segments get their footers once they are synced; this syncs the footer.
            return sync(shared);
        }
        if checked.elapsed() >= CHECK_INTERVAL {
            checked = clock::instant();
            shared.storage().retire_expired(clock::wall_ns());
            let check = shared.storage().check();
            if let Err(error) = check {
                shared.report_disk_error(DiskWork::Append, &error);
            }
        }
        std::thread::sleep(shared.sync_interval().saturating_sub(began.elapsed()));
    }
}

/// Syncs the log once.
pub(super) fn sync(shared: &Shared) {
    if shared.gate.is_open() {
        return;
    }
    let Some(pending) = shared.storage().begin_sync() else { return };
    let result = pending.run();
    let finished = shared.storage().finish_sync(&pending, result);
    match finished {
        Ok(()) => {
            shared.report_disk_ok(DiskWork::Sync);
            shared.gate.finish(Ok(pending.through()));
        }
        Err(error) => {
            shared.report_disk_error(DiskWork::Sync, &error);
            shared.gate.finish(Err(()));
        }
    }
}
