//! The checkpoint of a lane's spool: how far the server has answered, and what waits behind. It is
//! written once a second, before a segment is removed, and at the stop. The next process goes on
//! there, and knows by it what was deleted or damaged meanwhile.
//!
//! The file has two slots, written in turn, in place, so that a full disk can't prevent it and a
//! torn one leaves the other. A slot is text, padded with zeros: a line with the CRC32C of the
//! rest, a number that grows and the lane; a line with segment and offset of two positions; then a
//! line with segment and events for each segment that has some waiting.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::store::{DiskFile, Files, FramePosition};

const FILE: &str = "checkpoint";
/// Room for some hundred segments; a spool has about a hundred.
const SLOT_BYTES: usize = 8 * 1024;

/// No log has as many segments.
const MAX_SEGMENT: u64 = 1 << 48;

/// Contents of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The server has answered every batch before it.
    pub(super) acked: FramePosition,
    /// Where the log ended: batches behind it aren't among those that wait.
    pub(super) end: FramePosition,
    /// The events of each segment that wait for the server.
    pub(super) waiting: BTreeMap<u64, u64>,
}

impl Checkpoint {
    fn to_text(&self, number: u64, lane: &str) -> String {
        let Self { acked, end, waiting } = self;
        let mut text = format!(
            "{number} {lane}\n{} {} {} {}\n",
            acked.segment, acked.offset, end.segment, end.offset
        );
        for (segment, events) in waiting {
            let line = format!("{segment} {events}\n");
            // What has no room isn't counted if it is lost.
            if text.len() + line.len() < SLOT_BYTES - "00000000 ".len() {
                text.push_str(&line);
            }
        }
        format!("{:08x} {text}", crc32c::crc32c(text.as_bytes()))
    }

    /// The contents of a slot, with its number; `None` if it is empty, damaged or another lane's.
    fn parse(slot: &[u8], lane: &str) -> Option<(u64, Self)> {
        let text = slot.split(|byte| *byte == 0).next()?;
        let (checksum, text) = std::str::from_utf8(text).ok()?.split_once(' ')?;
        if u32::from_str_radix(checksum, 16).ok()? != crc32c::crc32c(text.as_bytes()) {
            return None;
        }
        let mut lines = text.lines();
        let (number, of_lane) = lines.next()?.split_once(' ')?;
        let positions: Vec<u64> =
            lines.next()?.split(' ').map_while(|number| number.parse().ok()).collect();
        let &[acked_segment, acked_offset, end_segment, end_offset] = &positions[..] else {
            return None;
        };
        let waiting = lines.map(|line| {
            let (segment, events) = line.split_once(' ')?;
            Some((segment.parse().ok()?, events.parse().ok()?))
        });
        let checkpoint = Self {
            acked: FramePosition { segment: acked_segment, offset: acked_offset },
            end: FramePosition { segment: end_segment, offset: end_offset },
            waiting: waiting.collect::<Option<_>>()?,
        };
        let is_of_lane = of_lane == lane && acked_segment < MAX_SEGMENT;
        is_of_lane.then_some((number.parse().ok()?, checkpoint))
    }
}

/// The file of a lane.
pub(super) struct CheckpointFile {
    files: Arc<dyn Files>,
    path: PathBuf,
    lane: String,
    /// Open once it is written.
    file: Option<Arc<dyn DiskFile>>,
    /// The number of the slot that was written last.
    number: u64,
}

impl CheckpointFile {
    /// Reads the file of the lane with this folder. Without it, everything in the spool is sent
    /// again, and the server has it once.
    pub(super) fn open(files: Arc<dyn Files>, dir: &std::path::Path) -> (Self, Checkpoint) {
        let lane = dir.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let path = dir.join(FILE);
        let mut bytes = [0; 2 * SLOT_BYTES];
        let read = files.open(&path).and_then(|file| file.read_at(&mut bytes, 0)).unwrap_or(0);
        let slots = bytes[..read].chunks(SLOT_BYTES).filter_map(|s| Checkpoint::parse(s, &lane));
        let (number, checkpoint) = slots.max_by_key(|(number, _)| *number).unwrap_or_default();
        (Self { files, path, lane, file: None, number }, checkpoint)
    }

    /// Writes the file. `is_synced`: it has to survive a loss of power, because a segment that the
    /// one before it names is about to be removed.
    ///
    /// # Errors
    /// When the disk refuses it; what was there is there still.
    pub(super) fn write(&mut self, checkpoint: &Checkpoint, is_synced: bool) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) if file.links()? > 0 => file,
            _ => self.open_or_create()?,
        };
        let number = self.number + 1;
        let mut slot = checkpoint.to_text(number, &self.lane).into_bytes();
        slot.resize(SLOT_BYTES, 0);
        file.write_at([&slot, &[], &[]], number % 2 * SLOT_BYTES as u64)?;
        if is_synced {
            file.sync()?;
        }
        self.file = Some(file);
        self.number = number;
        Ok(())
    }

    fn open_or_create(&self) -> io::Result<Arc<dyn DiskFile>> {
        if let Ok(file) = self.files.open(&self.path)
            && file.len_bytes()? == 2 * SLOT_BYTES as u64
        {
            return Ok(file);
        }
        let _ = self.files.remove(&self.path);
        let file = self.files.create(&self.path)?;
        let zeros = [0; SLOT_BYTES];
        file.write_at([&zeros, &zeros, &[]], 0).inspect_err(|_| {
            let _ = self.files.remove(&self.path);
        })?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OsFiles;

    fn checkpoint(segment: u64) -> Checkpoint {
        Checkpoint {
            acked: FramePosition { segment, offset: 4_096 },
            end: FramePosition { segment: segment + 3, offset: 99 },
            waiting: [(segment, 12), (segment + 2, 1_000)].into(),
        }
    }

    #[test]
    fn last_intact_slot_counts() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("ordinary");
        std::fs::create_dir(&dir).unwrap();
        let open = || CheckpointFile::open(Arc::new(OsFiles), &dir);
        let (mut file, found) = open();
        assert_eq!(found, Checkpoint::default());
        for segment in 7..=9 {
            file.write(&checkpoint(segment), segment == 9).unwrap();
            assert_eq!(open().1, checkpoint(segment));
        }
        let path = dir.join(FILE);
        let intact = std::fs::read(&path).unwrap();
        assert_eq!(intact.len(), 2 * SLOT_BYTES);
        for at in SLOT_BYTES..SLOT_BYTES + 40 {
            let mut damaged = intact.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(open().1, checkpoint(8), "byte {at}: the slot before counts");
        }
        std::fs::write(&path, &intact[..SLOT_BYTES]).unwrap();
        assert_eq!(open().1, checkpoint(8));
        std::fs::write(&path, b"garbage").unwrap();
        let (mut file, found) = open();
        assert_eq!(found, Checkpoint::default());
        file.write(&checkpoint(10), false).unwrap();
        assert_eq!(open().1, checkpoint(10));
        // Another lane's file says nothing about this one.
        let other = folder.path().join("important");
        std::fs::create_dir(&other).unwrap();
        std::fs::copy(&path, other.join(FILE)).unwrap();
        assert_eq!(CheckpointFile::open(Arc::new(OsFiles), &other).1, Checkpoint::default());
    }

    #[test]
    fn more_segments_than_fit_are_left_out() {
        let many = Checkpoint {
            waiting: (0..100_000).map(|segment| (segment, u64::MAX)).collect(),
            ..checkpoint(1)
        };
        let text = many.to_text(u64::MAX, "important");
        assert!(text.len() < SLOT_BYTES);
        let (_, parsed) = Checkpoint::parse(text.as_bytes(), "important").unwrap();
        assert!(parsed.waiting.len() > 200 && parsed.acked == many.acked);
    }
}
