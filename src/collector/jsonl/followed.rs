//! A followed file, over its rotations and truncations, and over restarts of the agent.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::lines::LinePosition;
use super::position::{FileId, FilePosition, Head, read_head};
use super::rotation::{self, Successor};
use tapio_core::clock;

/// The result of a read.
pub(super) enum Read {
    /// The number of bytes.
    Bytes(usize),
    /// Nothing now, maybe later.
    Nothing,
    /// A followed file was truncated or replaced: where to continue.
    Replaced(Box<FollowedFile>),
    /// The fifo has no writer; another one may open it.
    NoWriter,
    /// The end of the input.
    End,
}

/// A rotation renames several files, one after the other. A folder that is read meanwhile may lack
/// one of them: it is read again after a while, as often as this.
const MAX_MISSES: u32 = 3;
const RENAMING: Duration = Duration::from_millis(10);

/// Interval at which the folder is read while the new file is empty.
const SCAN_INTERVAL: Duration = Duration::from_millis(500);

/// An empty file under a rotated name that is younger than this may be about to be written: with
/// `copytruncate`, the content is copied there before it is truncated.
const COPYING: Duration = Duration::from_secs(1);

/// Bytes before a position that are compared to find out whether a file is a copy of another one.
const COMPARED_BYTES: u64 = 4096;

/// A file that is read as it grows. Once another file has replaced it, the files are read in the
/// order in which they were written.
pub(super) struct FollowedFile {
    /// The configured path. The open file may have another one meanwhile.
    path: PathBuf,
    file: File,
    id: FileId,
    /// Offset of the next read.
    read: u64,
    /// The first bytes of the file: other ones are a new content.
    head: Vec<u8>,
    /// Distinguishes the contents of the path: each one is read under a number of its own.
    generation: u64,
    /// Where reading started.
    start: LinePosition,
    /// How often the file wasn't found under a rotated name.
    misses: u32,
    /// When the folder is read again while the new file is empty.
    scan_at: Option<Instant>,
    /// The last write that the head was compared after.
    compared: Option<SystemTime>,
}

impl FollowedFile {
    /// Opens the file at its start.
    ///
    /// # Errors
    /// When it can't be opened or read.
    pub(super) fn open(path: &Path, file: File, generation: u64) -> io::Result<Self> {
        Self::at(path, file, generation, LinePosition::default())
    }

    fn at(path: &Path, file: File, generation: u64, start: LinePosition) -> io::Result<Self> {
        let head = read_head(&file, Head::MAX_BYTES)?;
        let id = FileId::of(&file.metadata()?);
        let path = path.to_owned();
        Ok(Self {
            path,
            file,
            id,
            read: start.offset,
            head,
            generation,
            start,
            misses: 0,
            scan_at: None,
            compared: None,
        })
    }

    /// Continues at a position. Where its content is gone, begins the next generation at the start
    /// of the file that has the path now.
    ///
    /// # Errors
    /// When a file can't be opened or read.
    pub(super) fn resume(path: &Path, position: &FilePosition) -> io::Result<Self> {
        for is_last in [false, true] {
            if let Some(file) = rotation::find_content(path, position)? {
                return Self::at(path, file, position.generation, position.lines);
            }
            if !is_last {
                std::thread::sleep(RENAMING);
            }
        }
        let file = File::open(path)?;
        if position.lines.offset > 0 {
            tracing::warn!(
                collector = "jsonl",
                "{}: the content that was read up to byte {} is gone (truncated, or rotated out of \
                 the folder); reading from the start, what it had beyond is missing",
                path.display(),
                position.lines.offset
            );
        }
        Self::open(path, file, position.generation + 1)
    }

    /// Where the lines of this file start, and the number of the first one.
    pub(super) fn start(&self) -> LinePosition {
        self.start
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The position after these lines.
    pub(super) fn position(&self, lines: LinePosition) -> FilePosition {
        let head = Head::of(&self.head);
        FilePosition { id: self.id, lines, generation: self.generation, head }
    }

    /// Whether the file was deleted and read to its end, and no other one has its path.
    pub(super) fn is_deleted(&self) -> bool {
        let is_over = |now: std::fs::Metadata| now.nlink() == 0 && now.len() <= self.read;
        self.file.metadata().is_ok_and(is_over) && !self.path.exists()
    }

    /// Reads available bytes. `lines`: the end of the last complete line.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(super) fn read(&mut self, buffer: &mut [u8], lines: LinePosition) -> io::Result<Read> {
        let n = self.file.read_at(buffer, self.read)?;
        if n == 0 {
            return self.check_replaced(buffer, lines);
        }
        // After the read: what was read before a truncation is then read again, from a copy.
        if read_head(&self.file, self.head.len())? != self.head {
            return self.replaced_content(lines);
        }
        // The bytes read that follow the head.
        let missing = Head::MAX_BYTES - self.head.len();
        let known = (self.head.len() as u64).saturating_sub(self.read) as usize;
        if missing > 0 && known < n {
            self.head.extend(buffer[known..n].iter().take(missing));
        }
        self.read += n as u64;
        Ok(Read::Bytes(n))
    }

    /// At the end of the file: checks whether it was truncated or replaced.
    fn check_replaced(&mut self, buffer: &mut [u8], lines: LinePosition) -> io::Result<Read> {
        let now = match std::fs::metadata(&self.path) {
            Ok(now) => now,
            // Between the renaming of the old file and the creation of the new one.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Read::Nothing),
            Err(e) => return Err(e),
        };
        let open = self.file.metadata()?;
        if open.len() < self.read.max(self.head.len() as u64) {
            return self.replaced_content(lines);
        }
        // Another content may have grown to the same length since the last poll.
        let written = open.modified().ok();
        if written != self.compared {
            self.compared = written;
            if read_head(&self.file, self.head.len())? != self.head {
                return self.replaced_content(lines);
            }
        }
        if FileId::of(&now) == self.id {
            return Ok(Read::Nothing);
        }
        // Until the new file has content, the writer may still have the old one open. Rotations
        // may have left other contents between the two.
        let is_empty = now.len() == 0;
        if is_empty && self.scan_at.is_some_and(|at| clock::instant() < at) {
            return Ok(Read::Nothing);
        }
        self.scan_at = Some(clock::instant() + SCAN_INTERVAL);
        // Bytes appended to the old file before the new one was detected.
        if self.file.read_at(buffer, self.read)? > 0 {
            return self.read(buffer, lines);
        }
        self.next_file((!is_empty).then(|| FileId::of(&now)), lines)
    }

    /// Opens the file that was written after this one. `current` has the path now; `None`: it is
    /// empty.
    fn next_file(&mut self, current: Option<FileId>, lines: LinePosition) -> io::Result<Read> {
        let (path, id) = match rotation::successor(&self.path, self.id)? {
            Successor::Rotated(path, id) => (path, id),
            Successor::Unknown if self.misses < MAX_MISSES && self.file.metadata()?.nlink() > 0 => {
                self.misses += 1;
                return Ok(Read::Nothing);
            }
            Successor::Current | Successor::Unknown => match current {
                Some(id) => (self.path.clone(), id),
                None => return Ok(Read::Nothing),
            },
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Read::Nothing),
            Err(e) => return Err(e),
        };
        let metadata = file.metadata()?;
        if FileId::of(&metadata) != id || is_being_copied(&metadata, current == Some(id)) {
            // Renamed meanwhile, or not written yet: the next poll finds it.
            return Ok(Read::Nothing);
        }
        if self.is_copied_from(&file, lines.offset)? {
            // This one is its copy, which may not be complete: it goes on in the original.
            let next = Self::at(&self.path, file, self.generation, lines)?;
            return Ok(Read::Replaced(Box::new(next)));
        }
        let next = Self::open(&self.path, file, self.generation + 1)?;
        if current == Some(id) && next.head.is_empty() {
            // Truncated meanwhile: its content is in a copy, which the next poll finds.
            return Ok(Read::Nothing);
        }
        Ok(Read::Replaced(Box::new(next)))
    }

    /// Whether another file is older and has the same content up to this offset.
    fn is_copied_from(&self, other: &File, offset: u64) -> io::Result<bool> {
        if offset == 0 || read_head(other, self.head.len())? != self.head {
            return Ok(false);
        }
        let created = |file: &File| file.metadata().and_then(|m| m.created());
        if let (Ok(copy), Ok(original)) = (created(&self.file), created(other))
            && original > copy
        {
            return Ok(false);
        }
        let compared = offset.min(COMPARED_BYTES);
        let before = |file: &File| {
            let mut bytes = vec![0; compared as usize];
            file.read_exact_at(&mut bytes, offset - compared).map(|()| bytes)
        };
        match (before(&self.file), before(other)) {
            (Ok(copy), Ok(original)) => Ok(copy == original),
            // One of them is shorter.
            _ => Ok(false),
        }
    }

    /// The open file has another content. The old one may be in a copy, of which the rest is read
    /// first.
    fn replaced_content(&self, lines: LinePosition) -> io::Result<Read> {
        match Self::resume(&self.path, &self.position(lines)) {
            Ok(next) => Ok(Read::Replaced(Box::new(next))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Read::Nothing),
            Err(e) => Err(e),
        }
    }
}

/// Whether a file under a rotated name was just created and has no content yet.
fn is_being_copied(metadata: &std::fs::Metadata, is_current: bool) -> bool {
    let now = UNIX_EPOCH + Duration::from_nanos(clock::wall_ns());
    let age = metadata.modified().ok().and_then(|at| now.duration_since(at).ok());
    !is_current && metadata.len() == 0 && age.is_some_and(|age| age < COPYING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_of_the_same_length_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "line 1\n").unwrap();
        let mut file = FollowedFile::open(&path, File::open(&path).unwrap(), 0).unwrap();
        let mut buffer = [0; 64];
        let lines = LinePosition { line: 1, offset: 7 };
        assert!(matches!(file.read(&mut buffer, LinePosition::default()), Ok(Read::Bytes(7))));
        assert!(matches!(file.read(&mut buffer, lines), Ok(Read::Nothing)));
        // The time of a write has the precision of the kernel's tick.
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(&path, "line 2\n").unwrap();
        let Ok(Read::Replaced(next)) = file.read(&mut buffer, lines) else {
            panic!("the new content isn't found");
        };
        assert_eq!((next.generation(), next.start()), (1, LinePosition::default()));
    }
}
