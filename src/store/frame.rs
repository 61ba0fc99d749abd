//! Frames of a segment.
//!
//! ```text
//! frame   0..4 magic  4..8 payload bytes  8..12 CRC32C of what follows  12..16 zero
//!         16..24 segment number  24..32 receipt, ns since the Unix epoch  32.. the payload
//! ```
//!
//! All numbers are little-endian. A frame carries its segment's number because the oldest segment's
//! file is overwritten by the newest one: its pages are in the cache already, which makes an append
//! a third cheaper, and the number distinguishes leftover frames from current ones.

use std::ops::Range;

const MAGIC: [u8; 4] = *b"TPF1";
pub(super) const HEADER_BYTES: usize = 32;

/// A frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Time of receipt, nanoseconds since the Unix epoch.
    pub receipt_ns: u64,
    /// The appended bytes.
    pub payload: &'a [u8],
}

/// Encodes the header of a frame.
pub(super) fn encode_header(segment: u64, payload: &[u8], receipt_ns: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[16..24].copy_from_slice(&segment.to_le_bytes());
    header[24..32].copy_from_slice(&receipt_ns.to_le_bytes());
    let checksum = checksum(&header, payload);
    header[8..12].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[16..]), payload)
}

/// Iterates over the intact frames of a segment's bytes and skips damaged ones.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    segment: u64,
    offset: usize,
    /// Damaged regions that an intact frame follows.
    pub(super) corrupt: u64,
    /// The bytes end within a frame.
    pub(super) torn: bool,
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8], segment: u64) -> Self {
        Self { bytes, segment, offset: 0, corrupt: 0, torn: false }
    }

    /// The offset behind the last intact frame.
    pub(super) fn end(&self) -> usize {
        self.offset
    }

    /// The header of a frame of this segment that starts at `offset`, intact or not.
    fn header_at(&self, offset: usize) -> Option<&'a [u8]> {
        let header = self.bytes.get(offset..offset + HEADER_BYTES)?;
        (header[..4] == MAGIC && header[16..24] == self.segment.to_le_bytes()).then_some(header)
    }

    /// The intact frame that starts at `offset`.
    fn frame_at(&self, offset: usize) -> Option<Frame<'a>> {
        let header = self.header_at(offset)?;
        let number =
            |range: Range<usize>| header[range].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        let start = offset + HEADER_BYTES;
        let payload = self.bytes.get(start..start + number(4..8) as usize)?;
        let is_intact = u64::from(checksum(header, payload)) == number(8..12);
        is_intact.then_some(Frame { receipt_ns: number(24..32), payload })
    }

    /// The offset of the next intact frame behind the current one.
    fn next_intact(&self) -> Option<usize> {
        let from = self.offset + 1;
        self.bytes
            .get(from..)?
            .windows(MAGIC.len())
            .enumerate()
            .filter(|(_, window)| *window == MAGIC)
            .map(|(i, _)| from + i)
            .find(|offset| self.frame_at(*offset).is_some())
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        if self.frame_at(self.offset).is_none() {
            match self.next_intact() {
                Some(offset) => {
                    self.corrupt += 1;
                    self.offset = offset;
                }
                None => {
                    let rest = &self.bytes[self.offset.min(self.bytes.len())..];
                    let is_partial = rest.len() < HEADER_BYTES && !rest.is_empty();
                    self.torn = self.header_at(self.offset).is_some() || is_partial;
                    return None;
                }
            }
        }
        let frame = self.frame_at(self.offset)?;
        self.offset += HEADER_BYTES + frame.payload.len();
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for payload in payloads {
            bytes.extend_from_slice(&encode_header(7, payload, 42));
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    #[test]
    fn corrupt_frame_is_skipped_and_counted() {
        let mut bytes = segment(&[b"one", b"two", b"three"]);
        bytes[HEADER_BYTES + 3 + HEADER_BYTES] ^= 1;
        let mut frames = Frames::new(&bytes, 7);
        let found: Vec<_> = frames.by_ref().map(|f| f.payload).collect();
        assert_eq!(found, [&b"one"[..], b"three"]);
        assert_eq!((frames.corrupt, frames.torn, frames.end()), (1, false, bytes.len()));
    }

    #[test]
    fn torn_tail_ends_the_segment_at_any_cut() {
        let bytes = segment(&[b"one", b"two"]);
        let first = HEADER_BYTES + 3;
        for cut in first + 1..bytes.len() {
            let mut frames = Frames::new(&bytes[..cut], 7);
            assert_eq!(frames.by_ref().count(), 1, "{cut}");
            assert!(frames.torn, "{cut}");
            assert_eq!(frames.end(), first);
        }
    }

    #[test]
    fn leftover_frames_of_a_former_segment_are_ignored() {
        let mut bytes = segment(&[b"one"]);
        let old = segment(&[b"old"]);
        let mut frames = Frames::new(&old, 8);
        assert_eq!(frames.by_ref().count(), 0);
        assert!(!frames.torn);
        bytes.extend_from_slice(&[0; 100]);
        let mut frames = Frames::new(&bytes, 7);
        assert_eq!(frames.by_ref().count(), 1);
        assert_eq!((frames.torn, frames.corrupt), (false, 0));
    }
}
