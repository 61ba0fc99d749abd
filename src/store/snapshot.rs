//! Reads of a log that is written to meanwhile: segments are read as files, and a frame's segment
//! number shows whether the file was reused since.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::frame::{Frame, Frames};
use super::segment;

/// The segments of a log at one time.
#[derive(Clone, Debug)]
pub struct LogSnapshot {
    dir: PathBuf,
    /// Number and bytes, oldest first.
    segments: Vec<(u64, u64)>,
}

impl LogSnapshot {
    pub(super) fn new(dir: PathBuf, segments: Vec<(u64, u64)>) -> Self {
        Self { dir, segments }
    }

    /// Passes every frame to `visit`, oldest first.
    ///
    /// # Errors
    /// When a segment can't be read. Segments that were retired since are skipped.
    pub fn oldest_first(&self, mut visit: impl FnMut(Frame<'_>)) -> io::Result<()> {
        for &(number, len_bytes) in &self.segments {
            if let Some(bytes) = self.read(number, len_bytes)? {
                Frames::new(&bytes, number).for_each(&mut visit);
            }
        }
        Ok(())
    }

    /// Passes frames to `visit`, newest first, until it breaks or segments of `max_bytes` were
    /// read; the last segment is read whole.
    ///
    /// # Errors
    /// As [`LogSnapshot::oldest_first`].
    pub fn newest_first(
        &self,
        max_bytes: u64,
        mut visit: impl FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let mut read_bytes = 0;
        for &(number, len_bytes) in self.segments.iter().rev() {
            if read_bytes >= max_bytes {
                break;
            }
            let Some(bytes) = self.read(number, len_bytes)? else { continue };
            read_bytes += len_bytes;
            let frames: Vec<Frame<'_>> = Frames::new(&bytes, number).collect();
            if frames.into_iter().rev().try_for_each(&mut visit).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The bytes of a segment; `None` if it was retired since.
    fn read(&self, number: u64, len_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(segment::path(&self.dir, number)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::with_capacity(len_bytes as usize);
        file.take(len_bytes).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}
