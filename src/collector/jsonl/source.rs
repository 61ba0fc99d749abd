//! A file, a fifo or standard input, read without blocking.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The result of a read.
pub(super) enum Read {
    /// The number of bytes.
    Bytes(usize),
    /// Nothing now, maybe later.
    Nothing,
    /// A followed file was truncated or replaced: the next read returns new content.
    Replaced,
    /// The fifo has no writer; another one may open it.
    NoWriter,
    /// The end of the input.
    End,
}

enum Input {
    File { file: File, inode: (u64, u64), read: u64 },
    Fifo(File),
    Stdin(io::Stdin),
}

/// A source of lines.
pub(super) struct Source {
    /// The path as configured, `-` for standard input.
    pub(super) name: String,
    path: PathBuf,
    follow: bool,
    input: Input,
    /// How often a followed file was truncated or replaced.
    generation: u64,
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn open(path: &Path) -> io::Result<Input> {
    // Without O_NONBLOCK, opening a fifo blocks until it has a writer, which a shutdown can't
    // interrupt.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if kind.is_fifo() {
        Ok(Input::Fifo(file))
    } else if kind.is_dir() {
        Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory, not a file or a fifo"))
    } else {
        Ok(Input::File { file, inode: id(&metadata), read: 0 })
    }
}

impl Source {
    /// Opens a source.
    pub(super) fn open(path: &Path, follow: bool) -> io::Result<Self> {
        let input = if path == Path::new("-") { Input::Stdin(io::stdin()) } else { open(path)? };
        let name = path.display().to_string();
        Ok(Self { name, path: path.to_owned(), follow, input, generation: 0 })
    }

    /// Distinguishes the contents of a followed file in the keys of their lines.
    pub(super) fn generation_suffix(&self) -> String {
        if self.generation == 0 { String::new() } else { format!("~{}", self.generation) }
    }

    /// Whether the source is read to its end before the next source.
    pub(super) fn is_read_to_end(&self) -> bool {
        matches!(self.input, Input::File { .. }) && !self.follow
    }

    /// Reads available bytes.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        match &mut self.input {
            Input::File { file, read, .. } => match file.read(buffer) {
                Ok(0) if self.follow => self.check_replaced(buffer),
                Ok(0) => Ok(Read::End),
                Ok(n) => {
                    *read += n as u64;
                    Ok(Read::Bytes(n))
                }
                Err(e) => nothing_or(e),
            },
            Input::Fifo(file) => match file.read(buffer) {
                Ok(0) => {
                    // poll(2) reports a fifo without writers as ready until it is opened again. The
                    // new end is opened before the old one is closed, so that no writer finds the
                    // fifo without a reader.
                    self.input = open(&self.path)?;
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

    /// At the end of a followed file: checks whether it was truncated or replaced.
    fn check_replaced(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        let Input::File { file, inode, read } = &mut self.input else {
            return Ok(Read::Nothing);
        };
        let opened = std::fs::metadata(&self.path).and_then(|now| {
            let same = id(&now) == *inode && now.len() >= *read;
            if same { Ok(None) } else { open(&self.path).map(Some) }
        });
        match opened {
            Ok(None) => Ok(Read::Nothing),
            Ok(Some(input)) => {
                // Bytes appended to the old file before the new one was detected.
                let n = file.read(buffer)?;
                if n > 0 {
                    *read += n as u64;
                    return Ok(Read::Bytes(n));
                }
                self.input = input;
                self.generation += 1;
                Ok(Read::Replaced)
            }
            // Between the renaming of the old file and the creation of the new one.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Read::Nothing),
            Err(e) => Err(e),
        }
    }

    /// The descriptor to poll; `None` for a file, which is always ready.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.input {
            Input::Fifo(file) => Some(file.as_fd()),
            Input::Stdin(stdin) => Some(stdin.as_fd()),
            Input::File { .. } => None,
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
