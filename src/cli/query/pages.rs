//! Fetches lists in pages, and turns their order around in bounded memory.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::ControlFlow;

use anyhow::Context as _;
use tonic::Status;

use super::filter::Range;
use crate::cli::output::{Progress, Style, message};

/// Items of a page.
const PAGE_ITEMS: usize = 1000;
/// Bytes of items that are kept in memory.
const MAX_KEPT_BYTES: usize = 32 * 1024 * 1024;

/// A page of a list.
pub(super) struct Page<T> {
    /// Newest first.
    pub(super) items: Vec<T>,
    /// Items in `items`, where one is a group of several.
    pub(super) count: usize,
    /// Whether items were left out because there are more than the limit.
    pub(super) is_cut: bool,
    /// Empty on the last page.
    pub(super) next_page_token: String,
    pub(super) complete_since_ns: u64,
    /// Position of the log when the page was requested; empty where the server has none.
    pub(super) position: String,
}

/// A list that a server has.
pub(super) trait Listing {
    /// One of its items, or a group of them.
    type Item: prost::Message + Default;

    /// Fetches a page of at most `limit` items.
    ///
    /// # Errors
    /// Those of the server.
    async fn page(&mut self, limit: usize, page_token: String) -> Result<Page<Self::Item>, Status>;

    /// The error for a status of the server.
    fn failure(&self, status: &Status) -> anyhow::Error;
}

/// The end of a list that was fetched.
pub(super) struct Fetched {
    /// Position of the log when the list was requested.
    pub(super) position: String,
    /// Whether there may be older items.
    has_more: bool,
    complete_since_ns: u64,
}

/// Fetches pages until `last` items are there, newest first.
///
/// # Errors
/// Those of the server and of `each`.
pub(super) async fn fetch<L: Listing>(
    list: &mut L,
    last: Option<usize>,
    mut each: impl FnMut(L::Item) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<Fetched> {
    let (mut token, mut left) = (String::new(), last.unwrap_or(usize::MAX));
    let mut position = None;
    loop {
        // For the position alone, as for any item: one is the least that can be requested.
        let limit = left.clamp(1, PAGE_ITEMS);
        let page = list.page(limit, token).await;
        let page = page.map_err(|status| list.failure(&status))?;
        let position = position.get_or_insert(page.position).clone();
        let fetched = |has_more| Fetched {
            position: position.clone(),
            has_more,
            complete_since_ns: page.complete_since_ns,
        };
        if left > 0 {
            for item in page.items {
                if each(item)?.is_break() {
                    return Ok(fetched(true));
                }
            }
        }
        left = left.saturating_sub(page.count);
        let is_last = page.next_page_token.is_empty();
        if left == 0 || is_last {
            return Ok(fetched(page.is_cut || !is_last));
        }
        token = page.next_page_token;
    }
}

/// Fetches a list and passes its items on to `each`: oldest first, or newest first. A group of
/// items is passed on as a whole.
///
/// # Errors
/// Those of the server and of `each`; when the items need more memory than there is for them, and
/// can't be kept in a file.
pub(super) async fn for_each<L: Listing>(
    list: &mut L,
    range: &Range,
    is_reverse: bool,
    mut each: impl FnMut(L::Item) -> anyhow::Result<()>,
) -> anyhow::Result<Fetched> {
    if is_reverse {
        return fetch(list, range.last, |item| each(item).map(ControlFlow::Continue)).await;
    }
    let mut kept = Kept::default();
    // Nothing is printed before the oldest item is there.
    let progress = Progress::of_bytes("fetching", None);
    let fetched = fetch(list, range.last, |item| {
        let bytes = prost::Message::encode_to_vec(&item);
        progress.add(bytes.len() as u64);
        kept.push(bytes)?;
        Ok(ControlFlow::Continue(()))
    });
    let fetched = fetched.await?;
    drop(progress);
    while let Some(bytes) = kept.pop()? {
        each(prost::Message::decode(&*bytes)?)?;
    }
    Ok(fetched)
}

impl Fetched {
    /// Reports on standard error that there is more than was printed, or that something isn't
    /// stored any more.
    pub(super) fn report(&self, noun: &str, range: &Range, style: &Style) {
        if self.has_more && range.is_default_last {
            let last = range.last.unwrap_or(0);
            message(&format!(
                "tapio: these are the last {last} {noun}; there may be more: -n N, -n all"
            ));
        }
        let is_wanted = range.since_ns < self.complete_since_ns;
        if !self.has_more && self.complete_since_ns > 0 && is_wanted {
            let time = style.time(self.complete_since_ns);
            message(&format!(
                "tapio: {noun} received before {time} may be missing: the server doesn't keep \
                 them any more, or they are damaged"
            ));
        }
    }
}

/// A stack of byte strings, in memory up to a limit and then in a file without a name.
#[derive(Default)]
struct Kept {
    memory: Vec<Vec<u8>>,
    memory_bytes: usize,
    /// Lengths of the parts of the file, each with the byte strings that were in memory at once.
    parts: Vec<u64>,
    file: Option<File>,
}

impl Kept {
    fn push(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        if self.memory_bytes + bytes.len() > MAX_KEPT_BYTES && !self.memory.is_empty() {
            self.write_out().with_context(|| {
                let dir = std::env::temp_dir();
                format!(
                    "the answer needs more than {} MiB, and can't be kept in a file in {}; \
                     --reverse prints it without",
                    MAX_KEPT_BYTES >> 20,
                    dir.display()
                )
            })?;
        }
        self.memory_bytes += bytes.len();
        self.memory.push(bytes);
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(unnamed_file()?),
        };
        file.seek(SeekFrom::End(0))?;
        let mut part = Vec::with_capacity(self.memory_bytes + 8 * self.memory.len());
        for bytes in self.memory.drain(..) {
            part.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            part.extend_from_slice(&bytes);
        }
        self.memory_bytes = 0;
        file.write_all(&part)?;
        self.parts.push(part.len() as u64);
        Ok(())
    }

    /// The byte string that was pushed last.
    fn pop(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.memory.is_empty()
            && let (Some(len), Some(file)) = (self.parts.pop(), &mut self.file)
        {
            let start: u64 = self.parts.iter().sum();
            file.seek(SeekFrom::Start(start))?;
            let mut part = Vec::new();
            io::Read::by_ref(file).take(len).read_to_end(&mut part)?;
            let mut rest = &part[..];
            while let Some((len, bytes)) = rest.split_first_chunk::<8>() {
                let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
                let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
                let (bytes, after) = bytes.split_at_checked(len).ok_or_else(cut)?;
                self.memory.push(bytes.to_vec());
                rest = after;
            }
        }
        Ok(self.memory.pop())
    }
}

/// A file in the folder for temporary files, which is gone when it is closed.
fn unnamed_file() -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let opened = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(opened))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_pushed_is_first_popped_beyond_the_memory() {
        let mut kept = Kept::default();
        let bytes = |n: u32| vec![n as u8; 700_000 + n as usize];
        let count = 150;
        for n in 0..count {
            kept.push(bytes(n)).unwrap();
            assert!(kept.memory_bytes <= MAX_KEPT_BYTES);
        }
        assert!(kept.parts.len() >= 2, "{:?}", kept.parts);
        for n in (0..count).rev() {
            assert_eq!(kept.pop().unwrap(), Some(bytes(n)));
        }
        assert_eq!(kept.pop().unwrap(), None);
    }
}
