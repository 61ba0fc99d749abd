//! Writes appended frames to the disk, so that they survive a loss of power.
//!
//! A sync takes milliseconds, and the log is appended to meanwhile: [`SegmentLog::begin_sync`]
//! notes what is to be synced, [`PendingSync::run`] does it without access to the log, on a thread
//! of the owner, and [`SegmentLog::finish_sync`] takes the result. One sync covers every append
//! before it.
//!
//! After an error of `fsync` the kernel has dropped the pages that it couldn't write, and a second
//! call would succeed without them. So the segment is sealed where the last successful sync ended;
//! what was appended behind counts as unwritten, and its owner appends it again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::files::{DiskFile, Files};
use super::frame::FramePosition;
use super::index::SegmentIndex;
use super::log::{SegmentLog, Unsealed};

/// Files to be synced.
pub struct PendingSync {
    files: Arc<dyn Files>,
    /// The folder, if its entries have changed.
    dir: Option<PathBuf>,
    dirty: Vec<Arc<dyn DiskFile>>,
    /// Every frame before it is covered.
    through: FramePosition,
}

impl PendingSync {
    /// Writes the files, then the folder's entries, to the disk.
    ///
    /// # Errors
    /// When the disk reports an error for one of them.
    pub fn run(&self) -> io::Result<()> {
        self.dirty.iter().try_for_each(|file| file.sync())?;
        self.dir.as_ref().map_or(Ok(()), |dir| self.files.sync_dir(dir))
    }

    /// Every frame before this position is covered.
    #[must_use]
    pub fn through(&self) -> FramePosition {
        self.through
    }
}

impl<I: SegmentIndex> SegmentLog<I> {
    /// Notes what has been appended since the last successful sync; `None` if nothing has.
    pub fn begin_sync(&mut self) -> Option<PendingSync> {
        let through = self.end();
        if through <= self.synced && self.unsealed.is_empty() && !self.is_dir_unsynced {
            return None;
        }
        let full = self.unsealed.iter().map(|unsealed| &unsealed.writer);
        let writers = full.chain(self.active.iter().map(|active| &active.writer));
        let dirty = writers.map(|writer| Arc::clone(writer.file())).collect();
        let is_dir_unsynced = std::mem::take(&mut self.is_dir_unsynced);
        let dir = is_dir_unsynced.then(|| self.config.dir.clone());
        Some(PendingSync { files: Arc::clone(&self.files), dir, dirty, through })
    }

    /// Takes the result of a sync. After an error, the frames from the returned position on are
    /// unwritten: they aren't in the log any more.
    ///
    /// # Errors
    /// The error of the disk, with the position.
    pub fn finish_sync(
        &mut self,
        sync: &PendingSync,
        result: io::Result<()>,
    ) -> Result<(), (FramePosition, io::Error)> {
        match result {
            Ok(()) => {
                self.synced = self.synced.max(sync.through);
                // The files of the segments before were synced as a whole.
                let is_synced = |u: &mut Unsealed| u.writer.number() < sync.through.segment;
                self.unsealed.extract_if(.., is_synced).for_each(Unsealed::seal);
                Ok(())
            }
            Err(error) => {
                let from = self.synced;
                self.is_dir_unsynced = true;
                self.discard(from);
                Err((from, error))
            }
        }
    }
}
