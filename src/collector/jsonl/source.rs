//! A file, a fifo or standard input, read without waiting.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What reading gave.
pub(super) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now, perhaps later.
    Nothing,
    /// A followed file was truncated or replaced: what comes next is another text.
    Again,
    /// The fifo has no writer; others may come.
    Fifo,
    /// The end.
    End,
}

enum Input {
    File { file: File, inode: (u64, u64), read: u64 },
    Fifo(File),
    Stdin(io::Stdin),
}

/// Where lines come from.
pub(super) struct Source {
    /// The path as it was configured, `-` for standard input.
    pub(super) name: String,
    path: PathBuf,
    follow: bool,
    input: Input,
    /// How often the file was truncated or replaced.
    texts: u64,
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn open(path: &Path) -> io::Result<Input> {
    // Without O_NONBLOCK opening a fifo waits for a writer, and nothing could stop the wait.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if kind.is_fifo() {
        Ok(Input::Fifo(file))
    } else if kind.is_dir() {
        Err(io::Error::new(io::ErrorKind::IsADirectory, "a folder, not a file or a fifo"))
    } else {
        Ok(Input::File { file, inode: id(&metadata), read: 0 })
    }
}

impl Source {
    /// Opens a source.
    pub(super) fn open(path: &Path, follow: bool) -> io::Result<Self> {
        let input = if path == Path::new("-") { Input::Stdin(io::stdin()) } else { open(path)? };
        let name = path.display().to_string();
        Ok(Self { name, path: path.to_owned(), follow, input, texts: 0 })
    }

    /// Tells the texts of a followed file apart, in the names of their lines.
    pub(super) fn generation(&self) -> String {
        if self.texts == 0 { String::new() } else { format!("~{}", self.texts) }
    }

    /// Whether the source is read to its end before another one's turn.
    pub(super) fn is_read_at_once(&self) -> bool {
        matches!(self.input, Input::File { .. }) && !self.follow
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        match &mut self.input {
            Input::File { file, read, .. } => match file.read(buffer) {
                Ok(0) if self.follow => self.look_again(buffer),
                Ok(0) => Ok(Read::End),
                Ok(n) => {
                    *read += n as u64;
                    Ok(Read::Bytes(n))
                }
                Err(e) => nothing_or(e),
            },
            Input::Fifo(file) => match file.read(buffer) {
                Ok(0) => {
                    // Poll reports a fifo whose writers have gone as ready until it is opened
                    // anew. The new end is opened before the old is closed, so that no writer
                    // finds the fifo without a reader.
                    self.input = open(&self.path)?;
                    Ok(Read::Fifo)
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

    /// At a followed file's end: has it been truncated or replaced?
    fn look_again(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
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
                // What was appended to the old file before the new one was seen.
                let n = file.read(buffer)?;
                if n > 0 {
                    *read += n as u64;
                    return Ok(Read::Bytes(n));
                }
                self.input = input;
                self.texts += 1;
                Ok(Read::Again)
            }
            // Between the renaming of the old file and the making of the new one.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Read::Nothing),
            Err(e) => Err(e),
        }
    }

    /// What to wait on; a file never shows that it has more.
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
