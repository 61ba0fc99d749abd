//! The embedded store: batches as they came, in segments, appended and never changed; the oldest
//! segment makes room for the newest.
//!
//! | file | purpose |
//! | --- | --- |
//! | `segment.rs` | frames in a file, and walking over what a crash left |
//! | `stories.rs` | the last revision of each story |
//! | `scan.rs` | events, latest first |
//! | `recent.rs` | which events an agent that was started again has sent before |
//!
//! What is acknowledged has been given to the kernel, so it survives the process being killed.

mod recent;
mod scan;
mod segment;
mod stories;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use recent::Recent;
use segment::{Frames, Writer};
use stories::StoryIndex;

pub use scan::{Filter, Found, Scan};
pub use stories::StoryFilter;

use super::ServerConfig;
use tapio_core::event::{EventId, LinkedStory};
use tapio_wire::{Batch, Item, Settled, SettledTable, withhold};

/// What the store holds and what happened to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StoreStats {
    /// Files.
    pub segments: u64,
    /// Bytes in them.
    pub stored_bytes: u64,
    /// Batches in them.
    pub batches: u64,
    /// Segments that went to make room.
    pub segments_retired: u64,
    /// Batches that were found at the start.
    pub recovered_batches: u64,
    /// Broken frames that were found at the start and skipped.
    pub corrupt_frames: u64,
    /// Frames cut short by a crash, found at the start and cut off.
    pub torn_tails: u64,
}

#[derive(Clone, Debug)]
struct Sealed {
    number: u64,
    bytes: u64,
    batches: u64,
}

/// The store.
pub struct Store {
    dir: PathBuf,
    segment_bytes: u64,
    retention_bytes: u64,
    sealed: VecDeque<Sealed>,
    active: Writer,
    active_batches: u64,
    settled: SettledTable,
    recent: Recent,
    stories: StoryIndex,
    stats: StoreStats,
    _lock: File,
}

fn in_dir(dir: &Path, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("data_dir {}: {error}", dir.display()))
}

impl Store {
    /// Opens or makes the store, and reads what it holds: which items are stored, the last
    /// revision of each story.
    ///
    /// # Errors
    /// When the folder can't be used, or another server uses it.
    pub fn open(config: &ServerConfig) -> io::Result<Self> {
        let dir = config.data_dir.clone();
        let fail = |e: io::Error| in_dir(&dir, e);
        std::fs::create_dir_all(&dir).map_err(fail)?;
        let lock = lock(&dir)?;
        let mut numbers: Vec<u64> = std::fs::read_dir(&dir)
            .map_err(fail)?
            .filter_map(|entry| segment::number(entry.ok()?.file_name().to_str()?))
            .collect();
        numbers.sort_unstable();
        let mut found = Recovered {
            settled: SettledTable::default(),
            recent: Recent::default(),
            stories: StoryIndex::new(config.stories_kept),
            stats: StoreStats::default(),
        };
        let mut sealed = VecDeque::new();
        for number in &numbers {
            sealed.push_back(found.read(&dir, *number).map_err(fail)?);
        }
        // A new process writes a new segment, unless the last one is empty.
        let number = match sealed.back() {
            Some(last) if last.bytes == 0 => last.number,
            Some(last) => last.number + 1,
            None => 1,
        };
        sealed.retain(|s| s.number != number);
        let file = create(&dir, number).map_err(fail)?;
        let mut store = Self {
            segment_bytes: config.segment_bytes,
            retention_bytes: config.retention_bytes,
            sealed,
            active: Writer::new(file, number, 0),
            active_batches: 0,
            settled: found.settled,
            recent: found.recent,
            stories: found.stories,
            stats: found.stats,
            _lock: lock,
            dir,
        };
        if let Some(spare) = store.retire().map_err(|e| in_dir(&store.dir, e))? {
            std::fs::remove_file(spare).map_err(|e| in_dir(&store.dir, e))?;
        }
        Ok(store)
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// When the disk doesn't take it; nothing has changed then.
    pub fn append(&mut self, batch: &[u8], receipt_ns: u64) -> io::Result<()> {
        let bytes = (segment::FRAME_HEAD_BYTES + batch.len()) as u64;
        if self.active.len > 0 && self.active.len + bytes > self.segment_bytes {
            self.roll().map_err(|e| in_dir(&self.dir, e))?;
        }
        self.active.append(batch, receipt_ns).map_err(|e| in_dir(&self.dir, e))?;
        self.active_batches += 1;
        Ok(())
    }

    /// Appends a batch without the events that an earlier process of its node has sent: what was stored, where
    /// it isn't the batch as it came, and how many events were left out.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_once(
        &mut self,
        batch: &Batch<'_>,
        bytes: &[u8],
        receipt_ns: u64,
    ) -> io::Result<Option<(Vec<u8>, u32)>> {
        let ids = natural_ids(batch);
        let mut kept = None;
        if self.recent.knows_some(batch, &ids) {
            let mut bytes = bytes.to_vec();
            let withheld = withhold(&mut bytes, |event| {
                recent::id_of(batch, event)
                    .is_some_and(|id| self.recent.is_known(batch.head.node, id))
            });
            kept = Some((bytes, withheld));
        }
        self.append(kept.as_ref().map_or(bytes, |(kept, _)| kept), receipt_ns)?;
        self.recent.note(batch, &ids);
        Ok(kept)
    }

    /// Goes on in a new segment: in the file of the oldest one, where the store is full.
    fn roll(&mut self) -> io::Result<()> {
        let number = self.active.number + 1;
        let file = match self.retire()? {
            Some(spare) => {
                let path = segment::path(&self.dir, number);
                std::fs::rename(spare, &path)?;
                OpenOptions::new().write(true).open(path)?
            }
            None => create(&self.dir, number)?,
        };
        // What is behind the last frame can't be mistaken for one, so failing here costs nothing.
        if let Err(error) = self.active.seal() {
            tracing::warn!(%error, segment = self.active.number, "can't cut a segment to its length");
        }
        self.sealed.push_back(Sealed {
            number: self.active.number,
            bytes: self.active.len,
            batches: std::mem::take(&mut self.active_batches),
        });
        self.active = Writer::new(file, number, 0);
        Ok(())
    }

    /// Lets go of the oldest segments until another one fits. The last of their files is left, to
    /// be written over.
    fn retire(&mut self) -> io::Result<Option<PathBuf>> {
        let mut spare: Option<PathBuf> = None;
        while self.bytes() + self.segment_bytes > self.retention_bytes
            && let Some(oldest) = self.sealed.pop_front()
        {
            self.stats.segments_retired += 1;
            let path = segment::path(&self.dir, oldest.number);
            if let Some(former) = spare.replace(path) {
                std::fs::remove_file(former)?;
            }
        }
        Ok(spare)
    }

    fn bytes(&self) -> u64 {
        self.sealed.iter().map(|s| s.bytes).sum::<u64>() + self.active.len
    }

    /// What is settled of a node's process.
    pub fn settled(&mut self, node: &str, epoch: u64) -> &mut Settled {
        self.settled.of(node, epoch)
    }

    /// Takes a stored story into the index. Returns whether it could be understood.
    pub fn index_story(&mut self, node: &str, epoch: u64, story: &[u8]) -> bool {
        self.stories.add(node, epoch, story)
    }

    /// The last revisions of stories with their links, told last first.
    #[must_use]
    pub fn stories(&self, limit: usize, wanted: &StoryFilter) -> Vec<LinkedStory> {
        let StoryFilter { pattern, node, id_prefix } = wanted;
        self.stories.list(limit, |from, story| {
            (pattern.is_empty() || story.pattern == *pattern)
                && (node.is_empty() || from == node)
                && (id_prefix.is_empty() || story.id.to_string().starts_with(id_prefix))
        })
    }

    /// The last revision of a story, with its links.
    #[must_use]
    pub fn story(&self, id: [u8; 16]) -> Option<LinkedStory> {
        self.stories.get(id)
    }

    /// Stories that can be listed.
    #[must_use]
    pub fn stories_kept(&self) -> usize {
        self.stories.len()
    }

    /// A reading of the store as it is now, which needs no lock.
    #[must_use]
    pub fn scan(&self) -> Scan {
        let sealed = self.sealed.iter().map(|s| (s.number, s.bytes));
        let active = std::iter::once((self.active.number, self.active.len));
        Scan::new(self.dir.clone(), sealed.chain(active).collect())
    }

    /// What the store holds.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let sealed_batches: u64 = self.sealed.iter().map(|s| s.batches).sum();
        StoreStats {
            segments: self.sealed.len() as u64 + 1,
            stored_bytes: self.bytes(),
            batches: sealed_batches + self.active_batches,
            ..self.stats
        }
    }
}

/// The ids of a batch's events that may be told again.
fn natural_ids(batch: &Batch<'_>) -> Vec<EventId> {
    let events = batch.items().filter_map(|item| match item {
        Item::Event(event) => recent::id_of(batch, event),
        Item::Story(_) => None,
    });
    events.collect()
}

fn create(dir: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(segment::path(dir, number))
}

/// Keeps a second server out of the folder for as long as the file is open.
fn lock(dir: &Path) -> io::Result<File> {
    let file = File::create(dir.join("lock")).map_err(|e| in_dir(dir, e))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |e| match e {
            rustix::io::Errno::WOULDBLOCK => {
                in_dir(dir, io::Error::new(io::ErrorKind::ResourceBusy, "another server uses it"))
            }
            e => in_dir(dir, e),
        },
    )?;
    Ok(file)
}

/// What is read from the segments at the start.
struct Recovered {
    settled: SettledTable,
    recent: Recent,
    stories: StoryIndex,
    stats: StoreStats,
}

impl Recovered {
    fn read(&mut self, dir: &Path, number: u64) -> io::Result<Sealed> {
        let path = segment::path(dir, number);
        let mut bytes = Vec::new();
        File::open(&path)?.read_to_end(&mut bytes)?;
        let mut frames = Frames::new(&bytes, number);
        let mut batches = 0;
        for frame in frames.by_ref() {
            batches += 1;
            self.take(frame.batch);
        }
        self.stats.recovered_batches += batches;
        self.stats.corrupt_frames += frames.corrupt;
        let end = frames.end() as u64;
        if frames.torn || frames.corrupt > 0 {
            self.stats.torn_tails += u64::from(frames.torn);
            tracing::warn!(
                segment = %path.display(), corrupt_frames = frames.corrupt, torn = frames.torn,
                "a segment was damaged; its whole frames are kept"
            );
        }
        if end < bytes.len() as u64 {
            OpenOptions::new().write(true).open(&path)?.set_len(end)?;
        }
        Ok(Sealed { number, bytes: end, batches })
    }

    fn take(&mut self, batch: &[u8]) {
        let mut stories = Vec::new();
        let parsed = Batch::parse_with(batch, |item| {
            if let Item::Story(story) = item {
                stories.push(story);
            }
        });
        // Only sound batches were stored, and the checksum says that this one is as it was.
        let Ok(batch) = parsed else {
            return;
        };
        let ids = natural_ids(&batch);
        self.recent.knows_some(&batch, &[]);
        self.recent.note(&batch, &ids);
        let head = batch.head;
        let end = head.first_sequence.saturating_add(u64::from(head.count));
        self.settled.of(head.node, head.epoch).settle(head.first_sequence, end);
        for story in stories {
            self.stories.add(head.node, head.epoch, story);
        }
    }
}
