//! Layout of a segment file: its head, and the marks around each frame.
//!
//! Every mark carries the segment's nonce, which is random and never leaves the file, so no payload
//! can contain a mark of its own segment. All numbers are little-endian.

use super::error::SegmentError;

/// Begins the head of every segment.
const MAGIC: [u8; 4] = *b"TPSG";
/// The version that this code writes and reads.
const VERSION: u16 = 1;
/// Size of one copy of the head.
const HEAD_COPY_BYTES: usize = 48;
/// Offset of the checksum in a copy of the head.
const HEAD_CHECKSUM: usize = HEAD_COPY_BYTES - 4;
/// Size of the head: two copies, so that damage to one of them doesn't lose the segment.
pub(super) const HEAD_BYTES: usize = 2 * HEAD_COPY_BYTES;
/// Size of the mark that stands before and behind a payload.
pub(super) const MARK_BYTES: usize = 32;
/// Bytes of a frame besides its payload.
pub(super) const FRAME_OVERHEAD_BYTES: u64 = 2 * MARK_BYTES as u64;
/// Size limit of a payload. Recovery reads one payload at a time.
pub(super) const MAX_PAYLOAD_BYTES: usize = 32 << 20;

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The segment's number.
    pub(super) number: u64,
    /// Random; part of every mark.
    pub(super) nonce: u64,
    /// The segment before this one. Those between the two are void: the disk may not have removed
    /// them.
    pub(super) previous: Option<Previous>,
}

/// Where the segment before ends. What it has behind that was never acknowledged, and may have been
/// appended again: the disk refused to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Previous {
    /// The segment's number.
    pub(super) number: u64,
    /// Offset behind its last frame of data.
    pub(super) end: u64,
}

impl Previous {
    /// The end of a segment of an earlier process, without saying which one is the last of those.
    const UNKNOWN_END: u64 = u64::MAX;
    /// No segment ends here or behind it.
    const MAX_END: u64 = 1 << 63;

    /// After an earlier process, which has used the numbers up to `number`. `last`: the last of its
    /// segments that is there, if one is.
    pub(super) fn of_earlier(number: u64, last: Option<u64>) -> Self {
        let distance = last.and_then(|last| number.checked_sub(last)).filter(|n| *n < 1 << 32);
        let end = distance.map_or(Self::UNKNOWN_END, |n| Self::UNKNOWN_END - 1 - n);
        Self { number, end }
    }

    /// Where that segment ends, if it is known.
    pub(super) fn known_end(&self) -> Option<u64> {
        (self.end < Self::MAX_END).then_some(self.end)
    }

    /// The last segment before that was there when this one was created, if it is known.
    pub(super) fn last(&self) -> Option<u64> {
        match self.end {
            Self::UNKNOWN_END => None,
            Self::MAX_END.. => self.number.checked_sub(Self::UNKNOWN_END - 1 - self.end),
            _ => Some(self.number),
        }
    }
}

impl Head {
    /// Encodes both copies.
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let copy = &mut bytes[..HEAD_COPY_BYTES];
        copy[..4].copy_from_slice(&MAGIC);
        copy[4..6].copy_from_slice(&VERSION.to_le_bytes());
        copy[8..16].copy_from_slice(&self.number.to_le_bytes());
        copy[16..24].copy_from_slice(&self.nonce.to_le_bytes());
        if let Some(previous) = &self.previous {
            copy[24..32].copy_from_slice(&previous.number.to_le_bytes());
            copy[32..40].copy_from_slice(&previous.end.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&copy[..HEAD_CHECKSUM]);
        copy[HEAD_CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        bytes.copy_within(..HEAD_COPY_BYTES, HEAD_COPY_BYTES);
        bytes
    }

    /// Decodes the head from the first bytes of a file.
    ///
    /// # Errors
    /// When no copy is intact: what the bytes are instead.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        let mut copies = bytes.chunks_exact(HEAD_COPY_BYTES).take(2);
        if let Some(copy) = copies.clone().find(|copy| is_intact(copy)) {
            let version = u16::from_le_bytes(array(copy, 4));
            if version != VERSION {
                return Err(SegmentError::Version(version));
            }
            // No segment ends at 0: its head is longer.
            let previous = Previous { number: u64_at(copy, 24), end: u64_at(copy, 32) };
            return Ok(Self {
                number: u64_at(copy, 8),
                nonce: u64_at(copy, 16),
                previous: (previous.end > 0).then_some(previous),
            });
        }
        match bytes.len() {
            0 => return Err(SegmentError::Empty),
            1..HEAD_BYTES => return Err(SegmentError::TooShort),
            _ => {}
        }
        let has_magic = copies.any(|copy| copy.starts_with(&MAGIC));
        Err(if has_magic { SegmentError::CorruptHead } else { SegmentError::Alien })
    }
}

/// Whether a copy of the head is one, of any version.
fn is_intact(copy: &[u8]) -> bool {
    copy.starts_with(&MAGIC)
        && u32_at(copy, HEAD_CHECKSUM) == crc32c::crc32c(&copy[..HEAD_CHECKSUM])
}

/// The purpose of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameType {
    /// A payload of the log's owner.
    Data,
    /// The last frame of a sealed segment.
    Footer,
    /// Covers damaged frames, so that the marks lead past them; recovery writes it.
    Skip,
    /// The owner's index of the frames before it, ahead of the footer.
    Index,
}

/// A mark: it describes a frame, and stands before and behind its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) frame_type: FrameType,
    /// Bytes of the payload.
    pub(super) payload_bytes: u32,
    /// CRC32C of the payload.
    pub(super) payload_checksum: u32,
    /// Time of receipt, nanoseconds since the Unix epoch.
    pub(super) receipt_ns: u64,
}

impl Mark {
    /// The mark of a data frame.
    pub(super) fn data(payload: &[u8], receipt_ns: u64) -> Self {
        Self {
            frame_type: FrameType::Data,
            payload_bytes: payload.len() as u32,
            payload_checksum: crc32c::crc32c(payload),
            receipt_ns,
        }
    }

    /// The mark of a frame that covers damaged bytes.
    pub(super) fn skip(frame_bytes: u64) -> Self {
        let payload_bytes = frame_bytes.saturating_sub(FRAME_OVERHEAD_BYTES) as u32;
        Self { frame_type: FrameType::Skip, payload_bytes, payload_checksum: 0, receipt_ns: 0 }
    }

    /// Bytes of the whole frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        FRAME_OVERHEAD_BYTES + u64::from(self.payload_bytes)
    }

    /// Encodes the mark of the frame at `offset` of a segment.
    pub(super) fn encode(&self, nonce: u64, offset: u64) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..8].copy_from_slice(&nonce.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.receipt_ns.to_le_bytes());
        bytes[24] = self.frame_type as u8;
        let checksum = mark_checksum(&bytes, offset);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Decodes the mark of a frame at `offset`; `None` if it isn't intact.
    pub(super) fn decode(bytes: &[u8], nonce: u64, offset: u64) -> Option<Self> {
        let bytes = bytes.get(..MARK_BYTES)?;
        let is_intact =
            u64_at(bytes, 0) == nonce && u32_at(bytes, 28) == mark_checksum(bytes, offset);
        let frame_type = match bytes[24] {
            0 => FrameType::Data,
            1 => FrameType::Footer,
            2 => FrameType::Skip,
            3 => FrameType::Index,
            _ => return None,
        };
        let payload_bytes = u32_at(bytes, 8);
        (is_intact && payload_bytes as usize <= MAX_PAYLOAD_BYTES).then(|| Self {
            frame_type,
            payload_bytes,
            payload_checksum: u32_at(bytes, 12),
            receipt_ns: u64_at(bytes, 16),
        })
    }

    /// Decodes the mark behind the payload of a frame that ends at `end`. Returns the offset of the
    /// frame as well.
    pub(super) fn decode_trailing(bytes: &[u8], nonce: u64, end: u64) -> Option<(u64, Self)> {
        let payload_bytes = u64::from(u32_at(bytes.get(..MARK_BYTES)?, 8));
        let offset = end.checked_sub(FRAME_OVERHEAD_BYTES + payload_bytes)?;
        Some((offset, Self::decode(bytes, nonce, offset)?))
    }
}

/// Checksum of a mark. It covers the frame's offset, so that a mark is valid at one place only.
fn mark_checksum(bytes: &[u8], offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), &offset.to_le_bytes())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_survives_damage_to_either_copy() {
        let previous = Some(Previous { number: 6, end: 1000 });
        let head = Head { number: 7, nonce: 0x1234_5678_9abc_def0, previous };
        let bytes = head.encode();
        for bit in 0..HEAD_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&damaged), Ok(head), "bit {bit}");
        }
    }

    #[test]
    fn bytes_that_are_no_head_have_their_cause() {
        let head = Head { number: 7, nonce: 1, previous: None };
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Ok(head));
        assert_eq!(Head::decode(&[]), Err(SegmentError::Empty));
        assert_eq!(Head::decode(&bytes[..10]), Err(SegmentError::TooShort));
        assert_eq!(Head::decode(&[0; HEAD_BYTES]), Err(SegmentError::Alien));
        let mut damaged = bytes;
        damaged[9] ^= 1;
        damaged[HEAD_COPY_BYTES + 9] ^= 1;
        assert_eq!(Head::decode(&damaged), Err(SegmentError::CorruptHead));
        let mut newer = bytes;
        newer[4] = 2;
        let checksum = crc32c::crc32c(&newer[..HEAD_CHECKSUM]);
        newer[HEAD_CHECKSUM..HEAD_COPY_BYTES].copy_from_slice(&checksum.to_le_bytes());
        newer.copy_within(..HEAD_COPY_BYTES, HEAD_COPY_BYTES);
        assert_eq!(Head::decode(&newer), Err(SegmentError::Version(2)));
    }

    #[test]
    fn mark_is_valid_in_its_segment_at_its_offset_only() {
        let mark = Mark::data(b"abc", 9);
        let bytes = mark.encode(5, 64);
        assert_eq!(Mark::decode(&bytes, 5, 64), Some(mark));
        assert_eq!(Mark::decode_trailing(&bytes, 5, 64 + 67), Some((64, mark)));
        assert_eq!((Mark::decode(&bytes, 6, 64), Mark::decode(&bytes, 5, 65)), (None, None));
        for bit in 0..MARK_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let found = Mark::decode(&damaged, 5, 64);
            // The three bytes of padding are covered as well.
            assert_eq!(found, None, "bit {bit}");
        }
    }
}
