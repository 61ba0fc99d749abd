//! Segment files.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::frame::encode_header;

/// The path of a segment.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:016x}.tapio"))
}

/// The number of a segment, from its file name.
pub(super) fn number(file_name: &str) -> Option<u64> {
    let hex = file_name.strip_prefix("segment-")?.strip_suffix(".tapio")?;
    (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok()).flatten()
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    file: File,
    pub(super) number: u64,
    pub(super) len_bytes: u64,
    pub(super) frames: u64,
}

impl SegmentWriter {
    pub(super) fn new(file: File, number: u64) -> Self {
        Self { file, number, len_bytes: 0, frames: 0 }
    }

    /// Appends a frame with one system call. After an error the segment is unchanged: the next
    /// frame overwrites what was written of this one.
    pub(super) fn append(&mut self, payload: &[u8], receipt_ns: u64) -> io::Result<()> {
        let header = encode_header(self.number, payload, receipt_ns);
        let total = header.len() + payload.len();
        let mut written = 0;
        while written < total {
            let slices = if written < header.len() {
                [IoSlice::new(&header[written..]), IoSlice::new(payload)]
            } else {
                [IoSlice::new(&payload[written - header.len()..]), IoSlice::new(&[])]
            };
            match rustix::io::pwritev(&self.file, &slices, self.len_bytes + written as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.len_bytes += total as u64;
        self.frames += 1;
        Ok(())
    }

    /// Truncates the file behind the last frame: a reused file may be longer.
    pub(super) fn seal(&self) -> io::Result<()> {
        self.file.set_len(self.len_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Frame, Frames};
    use super::*;

    #[test]
    fn appended_frames_are_read_back() {
        let file = tempfile::tempfile().unwrap();
        let mut writer = SegmentWriter::new(file.try_clone().unwrap(), 7);
        writer.append(b"one", 42).unwrap();
        writer.append(b"", 43).unwrap();
        let mut bytes = vec![0; writer.len_bytes as usize];
        rustix::io::pread(&file, &mut bytes[..], 0).unwrap();
        let frames: Vec<_> = Frames::new(&bytes, 7).collect();
        let expected =
            [Frame { receipt_ns: 42, payload: b"one" }, Frame { receipt_ns: 43, payload: b"" }];
        assert_eq!((frames.as_slice(), writer.frames), (&expected[..], 2));
    }

    #[test]
    fn segment_numbers_are_in_file_names() {
        let name = path(Path::new("/d"), 0x1f);
        assert_eq!(number(name.file_name().unwrap().to_str().unwrap()), Some(0x1f));
        assert_eq!((number("lock"), number("segment-1f.tapio")), (None, None));
    }
}
