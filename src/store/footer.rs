//! The end of a sealed segment: the owner's index of its frames, which is read on demand, and the
//! footer with the segment's counts and the owner's summary, which a start reads.

use std::io;

use super::files::DiskFile;
use super::format::{FRAME_OVERHEAD_BYTES, FrameType, HEAD_BYTES, MARK_BYTES, Mark};

/// Bytes of a footer before the owner's summary.
const COUNTS_BYTES: usize = 40;
/// A bit of the number of frames: the segment had more.
const INCOMPLETE: u64 = 1 << 63;

/// The contents of a footer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Footer {
    /// Intact frames of data when the segment was sealed.
    pub(super) frames: u64,
    /// Whether there were more, which were damaged or missing then.
    pub(super) is_incomplete: bool,
    /// Offset behind the last of them.
    pub(super) end: u64,
    /// Time of receipt of the first and of the last frame, nanoseconds since the Unix epoch.
    pub(super) first_receipt_ns: u64,
    pub(super) last_receipt_ns: u64,
    /// Bytes of the index's frame, which begins at `end`; 0 if there is none.
    pub(super) index_bytes: u64,
    /// The owner's summary of the frames.
    pub(super) summary: Vec<u8>,
}

impl Footer {
    /// Counts a frame.
    pub(super) fn add(&mut self, receipt_ns: u64) {
        if self.frames == 0 {
            self.first_receipt_ns = receipt_ns;
        }
        self.frames += 1;
        self.last_receipt_ns = self.last_receipt_ns.max(receipt_ns);
    }

    /// The payload of the footer's frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { frames, end, first_receipt_ns, last_receipt_ns, index_bytes, .. } = *self;
        let frames = if self.is_incomplete { frames | INCOMPLETE } else { frames };
        let counts = [frames, end, first_receipt_ns, last_receipt_ns, index_bytes];
        let mut bytes: Vec<u8> = counts.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.extend_from_slice(&self.summary);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (counts, summary) = bytes.split_at_checked(COUNTS_BYTES)?;
        let mut counts = counts
            .chunks_exact(8)
            .map(|n| n.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        let frames = counts.next()?;
        Some(Self {
            frames: frames & !INCOMPLETE,
            is_incomplete: frames & INCOMPLETE != 0,
            end: counts.next()?,
            first_receipt_ns: counts.next()?,
            last_receipt_ns: counts.next()?,
            index_bytes: counts.next()?,
            summary: summary.to_vec(),
        })
    }

    /// Reads the footer at the end of a segment; `None` if there is no intact one.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn read(
        file: &dyn DiskFile,
        nonce: u64,
        len_bytes: u64,
    ) -> io::Result<Option<Self>> {
        let Some(at) = len_bytes.checked_sub(MARK_BYTES as u64) else {
            return Ok(None);
        };
        let mut mark = [0; MARK_BYTES];
        let read = file.read_at(&mut mark, at)?;
        let Some((offset, mark)) = Mark::decode_trailing(&mark[..read], nonce, len_bytes) else {
            return Ok(None);
        };
        if mark.frame_type != FrameType::Footer || offset < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut payload = vec![0; (mark.frame_bytes() - FRAME_OVERHEAD_BYTES) as usize];
        let read = file.read_at(&mut payload, offset + MARK_BYTES as u64)?;
        let is_intact = read == payload.len() && crc32c::crc32c(&payload) == mark.payload_checksum;
        let footer = is_intact.then(|| Self::decode(&payload)).flatten();
        Ok(footer.filter(|f| f.end.checked_add(f.index_bytes) == Some(offset)))
    }
}
