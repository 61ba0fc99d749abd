//! A followed file, over its rotations and truncations, and over restarts of the agent.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
        if self.file.metadata()?.len() < self.read.max(self.head.len() as u64) {
            return self.replaced_content(lines);
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
        self.next_file((!is_empty).then(|| FileId::of(&now)))
    }

    /// Opens the file that was written after this one. `current` has the path now; `None`: it is
    /// empty.
    fn next_file(&mut self, current: Option<FileId>) -> io::Result<Read> {
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
        if FileId::of(&file.metadata()?) != id {
            // Renamed meanwhile: the next poll finds it.
            return Ok(Read::Nothing);
        }
        let next = Self::open(&self.path, file, self.generation + 1)?;
        if current == Some(id) && next.head.is_empty() {
            // Truncated meanwhile: its content is in a copy, which the next poll finds.
            return Ok(Read::Nothing);
        }
        Ok(Read::Replaced(Box::new(next)))
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
