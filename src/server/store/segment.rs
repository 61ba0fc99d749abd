//! A segment: a file of frames, each a batch as it came.
//!
//! ```text
//! frame   0..4 magic  4..8 batch bytes  8..12 CRC32C of what follows  12..16 zero
//!         16..24 segment number  24..32 receipt, ns since the Unix epoch  32.. the batch
//! ```
//!
//! All numbers are little-endian. A frame carries its segment's number because the oldest segment's
//! file is written over for the newest one: its pages are in the cache already, which makes storing
//! a third cheaper, and what is left of the old content is told by its number.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"TPF1";
pub(super) const FRAME_HEAD_BYTES: usize = 32;

/// The file of a segment.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:016x}.tapio"))
}

/// The number of a segment, from its file's name.
pub(super) fn number(file_name: &str) -> Option<u64> {
    let hex = file_name.strip_prefix("segment-")?.strip_suffix(".tapio")?;
    (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok()).flatten()
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    pub(super) number: u64,
    pub(super) len: u64,
}

impl Writer {
    pub(super) fn new(file: File, number: u64, len: u64) -> Self {
        Self { file, number, len }
    }

    /// Appends a frame with one system call. After an error the segment is as it was: what was
    /// written of the frame is written over by the next.
    pub(super) fn append(&mut self, batch: &[u8], receipt_ns: u64) -> io::Result<()> {
        let mut head = [0; FRAME_HEAD_BYTES];
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&(batch.len() as u32).to_le_bytes());
        head[16..24].copy_from_slice(&self.number.to_le_bytes());
        head[24..32].copy_from_slice(&receipt_ns.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[16..]), batch);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
        let total = head.len() + batch.len();
        let mut done = 0;
        while done < total {
            let slices = if done < head.len() {
                [IoSlice::new(&head[done..]), IoSlice::new(batch)]
            } else {
                [IoSlice::new(&batch[done - head.len()..]), IoSlice::new(&[])]
            };
            match rustix::io::pwritev(&self.file, &slices, self.len + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.len += total as u64;
        Ok(())
    }

    /// Cuts off what a former use of the file left behind the last frame.
    pub(super) fn seal(&self) -> io::Result<()> {
        self.file.set_len(self.len)
    }
}

/// A frame found in a segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// When the batch was received, nanoseconds since the Unix epoch.
    pub(super) receipt_ns: u64,
    /// The batch.
    pub(super) batch: &'a [u8],
}

/// Walks through a segment's bytes, over what is broken.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    number: u64,
    at: usize,
    /// Places where a frame should have been and wasn't whole, with a whole one behind it.
    pub(super) corrupt: u64,
    /// Whether the bytes end in the middle of a frame.
    pub(super) torn: bool,
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8], number: u64) -> Self {
        Self { bytes, number, at: 0, corrupt: 0, torn: false }
    }

    /// The position behind the last whole frame.
    pub(super) fn end(&self) -> usize {
        self.at
    }

    /// Whether a frame of this segment begins here, whole or not.
    fn begins(&self, at: usize) -> Option<&'a [u8]> {
        let head = self.bytes.get(at..at + FRAME_HEAD_BYTES)?;
        (head[..4] == MAGIC && head[16..24] == self.number.to_le_bytes()).then_some(head)
    }

    fn whole(&self, at: usize) -> Option<Frame<'a>> {
        let head = self.begins(at)?;
        let number = |range: std::ops::Range<usize>| {
            head[range].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b))
        };
        let start = at + FRAME_HEAD_BYTES;
        let batch = self.bytes.get(start..start + number(4..8) as usize)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[16..]), batch);
        (u64::from(crc) == number(8..12)).then_some(Frame { receipt_ns: number(24..32), batch })
    }

    fn next_whole(&self) -> Option<usize> {
        let from = self.at + 1;
        self.bytes
            .get(from..)?
            .windows(MAGIC.len())
            .enumerate()
            .filter(|(_, window)| *window == MAGIC)
            .map(|(i, _)| from + i)
            .find(|at| self.whole(*at).is_some())
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        if self.whole(self.at).is_none() {
            match self.next_whole() {
                Some(at) => {
                    self.corrupt += 1;
                    self.at = at;
                }
                None => {
                    let rest = &self.bytes[self.at.min(self.bytes.len())..];
                    let partial = rest.len() < FRAME_HEAD_BYTES && !rest.is_empty();
                    self.torn = self.begins(self.at).is_some() || partial;
                    return None;
                }
            }
        }
        let frame = self.whole(self.at)?;
        self.at += FRAME_HEAD_BYTES + frame.batch.len();
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(batches: &[&[u8]]) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file.try_clone().unwrap(), 7, 0);
        for batch in batches {
            writer.append(batch, 42).unwrap();
        }
        let mut bytes = vec![0; writer.len as usize];
        rustix::io::pread(&file, &mut bytes[..], 0).unwrap();
        bytes
    }

    #[test]
    fn a_corrupt_frame_is_skipped_and_counted() {
        let mut bytes = segment(&[b"one", b"two", b"three"]);
        bytes[FRAME_HEAD_BYTES + 3 + FRAME_HEAD_BYTES] ^= 1;
        let mut frames = Frames::new(&bytes, 7);
        let found: Vec<_> = frames.by_ref().map(|f| f.batch).collect();
        assert_eq!(found, [&b"one"[..], b"three"]);
        assert_eq!((frames.corrupt, frames.torn, frames.end()), (1, false, bytes.len()));
    }

    #[test]
    fn a_torn_tail_ends_the_segment_wherever_it_is_cut() {
        let bytes = segment(&[b"one", b"two"]);
        let first = FRAME_HEAD_BYTES + 3;
        for cut in first + 1..bytes.len() {
            let mut frames = Frames::new(&bytes[..cut], 7);
            assert_eq!(frames.by_ref().count(), 1, "{cut}");
            assert!(frames.torn, "{cut}");
            assert_eq!(frames.end(), first);
        }
    }

    #[test]
    fn what_a_former_use_left_is_no_frame() {
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
