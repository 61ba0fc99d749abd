//! A file, a fifo or standard input, read without blocking.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt as _, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::followed::{FollowedFile, Read};
use super::lines::LinePosition;
use super::packed;
use super::position::FilePosition;
use super::positions::Positions;

enum Input {
    /// Read to its end, from where it begins.
    File(Box<dyn io::Read + Send>),
    Followed(Box<FollowedFile>),
    Fifo(File),
    Stdin(io::Stdin),
}

/// A source of lines.
pub(super) struct Source {
    /// The path as configured, `-` for standard input.
    pub(super) name: String,
    path: PathBuf,
    input: Input,
}

/// A path that was opened.
enum Opened {
    File(File),
    Fifo(File),
}

fn open(path: &Path) -> io::Result<Opened> {
    // Without O_NONBLOCK, opening a fifo blocks until it has a writer, which a shutdown can't
    // interrupt.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if kind.is_fifo() {
        Ok(Opened::Fifo(file))
    } else if kind.is_dir() {
        Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory, not a file or a fifo"))
    } else {
        Ok(Opened::File(file))
    }
}

/// Whether a file is compressed.
fn is_packed(file: &File) -> io::Result<bool> {
    let mut head = [0; 4];
    let read = file.read_at(&mut head, 0)?;
    Ok(packed::is_packed(&head[..read]))
}

impl Source {
    /// Opens a source. A followed file continues at its saved position. A compressed file isn't
    /// followed: it is complete.
    pub(super) fn open(path: &Path, follow: bool, saved: &Positions) -> io::Result<Self> {
        let name = path.display().to_string();
        let path = path.to_owned();
        if path == Path::new("-") {
            return Ok(Self { name, path, input: Input::Stdin(io::stdin()) });
        }
        let input = match (open(&path)?, saved.of(&name)) {
            (Opened::Fifo(fifo), _) => Input::Fifo(fifo),
            (Opened::File(file), None) if !follow || is_packed(&file)? => {
                Input::File(packed::unpacked(file)?)
            }
            (Opened::File(file), None) => {
                let generation = saved.first_generation();
                Input::Followed(Box::new(FollowedFile::open(&path, file, generation)?))
            }
            (Opened::File(_), Some(position)) => {
                Input::Followed(Box::new(FollowedFile::resume(&path, position)?))
            }
        };
        Ok(Self { name, path, input })
    }

    /// Where the lines of this source start.
    pub(super) fn start(&self) -> LinePosition {
        match &self.input {
            Input::Followed(file) => file.start(),
            _ => LinePosition::default(),
        }
    }

    /// The position of a followed file after these lines.
    pub(super) fn position(&self, lines: LinePosition) -> Option<FilePosition> {
        match &self.input {
            Input::Followed(file) => Some(file.position(lines)),
            _ => None,
        }
    }

    /// Continues with the content that [`Read::Replaced`] has returned.
    pub(super) fn replace(&mut self, next: Box<FollowedFile>) {
        self.input = Input::Followed(next);
    }

    /// Whether its contents may be replaced.
    pub(super) fn is_followed(&self) -> bool {
        matches!(self.input, Input::Followed(_))
    }

    /// Number of a followed file's content; 0 for other sources.
    pub(super) fn generation(&self) -> u64 {
        match &self.input {
            Input::Followed(file) => file.generation(),
            _ => 0,
        }
    }

    /// Distinguishes the contents of a followed file in the keys of their lines.
    pub(super) fn generation_suffix(&self) -> String {
        match self.generation() {
            0 => String::new(),
            generation => format!("~{generation}"),
        }
    }

    /// Whether its file was deleted, and no other one has its path.
    pub(super) fn is_deleted(&self) -> bool {
        matches!(&self.input, Input::Followed(file) if file.is_deleted())
    }

    /// Whether the source is read to its end before the next source.
    pub(super) fn is_read_to_end(&self) -> bool {
        matches!(self.input, Input::File(_))
    }

    /// Reads available bytes. `lines`: the end of the last complete line.
    pub(super) fn read(&mut self, buffer: &mut [u8], lines: LinePosition) -> io::Result<Read> {
        match &mut self.input {
            Input::File(file) => match file.read(buffer) {
                Ok(0) => Ok(Read::End),
                Ok(n) => Ok(Read::Bytes(n)),
                Err(e) => nothing_or(e),
            },
            Input::Followed(file) => file.read(buffer, lines).or_else(nothing_or),
            Input::Fifo(file) => match file.read(buffer) {
                Ok(0) => {
                    // poll(2) reports a fifo without writers as ready until it is opened again. The
                    // new end is opened before the old one is closed, so that no writer finds the
                    // fifo without a reader.
                    self.input = match open(&self.path)? {
                        Opened::Fifo(fifo) => Input::Fifo(fifo),
                        Opened::File(file) => Input::File(packed::unpacked(file)?),
                    };
                    Ok(Read::NoWriter)
                }
                Ok(n) => Ok(Read::Bytes(n)),
                Err(e) => nothing_or(e),
            },
            Input::Stdin(stdin) => {
                if !readable(stdin.as_fd())? {
                    return Ok(Read::Nothing);
                }
                match rustix::io::read(stdin.as_fd(), buffer) {
                    Ok(0) => Ok(Read::End),
                    Ok(n) => Ok(Read::Bytes(n)),
                    Err(e) => nothing_or(e.into()),
                }
            }
        }
    }

    /// The descriptor to poll; `None` for a file, which is always ready.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.input {
            Input::Fifo(file) => Some(file.as_fd()),
            Input::Stdin(stdin) => Some(stdin.as_fd()),
            Input::File(_) | Input::Followed(_) => None,
        }
    }
}

fn nothing_or(error: io::Error) -> io::Result<Read> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Read::Nothing),
        _ => Err(error),
    }
}

fn readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
