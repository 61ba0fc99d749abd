//! All files of the journal together: new ones found, old ones let go of, their entries merged.
//!
//! journald numbers entries over all its files and writes one after the other, so that whatever number is
//! seen, all before it are there, if all files are known. A round therefore first looks how far each file
//! goes, then for new files, and gives what is up to there, smallest number first.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify;

use super::file::JournalFile;
use super::format::Bad;
use super::position::Position;
use super::record::Record;
use crate::runtime::alarm::Alarm;
use tapio_core::clock;

/// Rounds a file that can't be read on may take to recover: what is being written shows a bit later.
const MOST_TRIES: u32 = 20;
/// Looks at the folders that may miss a file that was read before it is forgotten.
const MOST_MISSES: u32 = 16;
/// Files that are open at a time.
const MOST_FILES: usize = 512;
/// Records of a round.
const ROUND: usize = 2_048;
/// How often the folders are looked at in any case: one that isn't there can't be watched.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For how long after a change a file that isn't one yet is looked at again in each round: it is just being made.
const BEING_MADE: Duration = Duration::from_secs(1);

/// What was wrong, for the accounts and the log.
#[derive(Default)]
pub(super) struct Trouble {
    /// Entries that can't be read.
    pub(super) bad_entries: u64,
    /// Entries that journald threw away before they were read: it empties what it deletes, for readers
    /// that have it open too.
    pub(super) gone_entries: u64,
    /// Fields that can't be read, of entries that can.
    pub(super) bad_fields: u64,
    /// The files they are in, and why; the last few.
    pub(super) causes: Vec<(String, String)>,
    /// Files of a later format, which this reader can't read.
    pub(super) later_format: bool,
}

impl Trouble {
    fn cause(&mut self, path: &Path, cause: &str) {
        if self.causes.len() < 8 {
            self.causes.push((path.display().to_string(), cause.to_owned()));
        }
    }
}

struct Followed {
    file: JournalFile<File>,
    path: PathBuf,
    /// Whether the folder doesn't show it any more, or shows it as damaged: nothing is appended.
    is_over: bool,
    tries: u32,
}

impl Followed {
    fn tail(&self) -> ([u8; 16], u64) {
        (self.file.header().seqnum_id, self.file.header().tail_seqnum)
    }
}

/// The journal.
pub(super) struct Journal {
    roots: Vec<PathBuf>,
    machine_id: String,
    files: Vec<Followed>,
    /// Files that were read to their end, by id, and how often since the folders didn't show them: a file
    /// that is being renamed shows under neither name.
    done: HashMap<[u8; 16], u32>,
    /// Where the reading began, by sequence.
    began: HashMap<[u8; 16], u64>,
    inotify: Option<(OwnedFd, HashSet<PathBuf>)>,
    scanned: bool,
    /// When the folders were looked at last, and changed last.
    looked: Instant,
    changed: Instant,
    /// Whether the last look found a file that isn't one yet.
    half_made: bool,
    pub(super) trouble: Trouble,
}

impl Journal {
    /// The journal in these folders, to be read after a place; without one, from now on.
    pub(super) fn open(roots: &[PathBuf], machine_id: &str, after: Option<&Position>) -> Self {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let mut journal = Self {
            roots: roots.to_vec(),
            machine_id: machine_id.to_owned(),
            files: Vec::new(),
            done: HashMap::new(),
            began: HashMap::new(),
            inotify: inotify::init(flags).ok().map(|fd| (fd, HashSet::new())),
            scanned: false,
            looked: clock::instant(),
            changed: clock::instant(),
            half_made: false,
            trouble: Trouble::default(),
        };
        journal.scan(after);
        journal.scanned = true;
        journal
    }

    /// How many files are being followed.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Gives the records that are there, in order; `each` says whether to go on. Returns whether any
    /// were there.
    pub(super) fn round(
        &mut self,
        record: &mut Record,
        mut each: impl FnMut(&Record) -> bool,
    ) -> bool {
        self.refresh();
        let mut bounds: HashMap<[u8; 16], u64> = HashMap::new();
        for (id, seqnum) in self.files.iter().map(Followed::tail) {
            let bound = bounds.entry(id).or_default();
            *bound = seqnum.max(*bound);
        }
        let now = clock::instant();
        let has_changed = self.folders_changed();
        if has_changed {
            self.changed = now;
        }
        let is_being_made = self.half_made && now.duration_since(self.changed) < BEING_MADE;
        let is_time = now.duration_since(self.looked) >= LOOK_EVERY;
        if has_changed || is_being_made || is_time {
            self.looked = now;
            self.scan(None);
        }
        self.refresh();
        let mut moved = false;
        for _ in 0..ROUND {
            let Some(first) = self.first(&bounds) else { break };
            moved = true;
            let followed = &mut self.files[first];
            match followed.file.take(record) {
                Ok(bad) => self.trouble.bad_fields += bad,
                Err(bad) => {
                    followed.unread(&bad, &mut self.trouble);
                    continue;
                }
            }
            if !each(record) {
                break;
            }
        }
        self.let_go();
        moved
    }

    fn refresh(&mut self) {
        for followed in &mut self.files {
            if let Err(bad) = followed.file.refresh() {
                followed.stuck(&bad, &mut self.trouble);
            }
        }
    }

    /// The file with the entry that comes first, among those that are within bounds.
    fn first(&mut self, bounds: &HashMap<[u8; 16], u64>) -> Option<usize> {
        let mut first: Option<(usize, Position)> = None;
        for (n, followed) in self.files.iter_mut().enumerate() {
            let Some(next) = followed.peek(&mut self.trouble) else { continue };
            let bound = bounds.get(&next.seqnum_id).copied().unwrap_or_default();
            let is_first = first.is_none_or(|(_, other)| comes_before(&next, &other));
            if next.seqnum <= bound && is_first {
                first = Some((n, next));
            }
        }
        first.map(|(n, _)| n)
    }

    /// Closes what has been read to its end and won't grow.
    fn let_go(&mut self) {
        let done = &mut self.done;
        let trouble = &mut self.trouble;
        self.files.retain_mut(|followed| {
            let is_over = followed.is_over || followed.file.header().is_archived;
            if is_over && matches!(followed.file.peek(), Ok(None)) {
                let left = followed.file.abandon();
                if left > 0 {
                    trouble.bad_entries += left;
                    trouble.cause(&followed.path, "it ends before its last entry");
                }
                done.insert(followed.file.header().file_id, 0);
                return false;
            }
            true
        });
    }

    /// Looks for files that came, and those that went.
    fn scan(&mut self, after: Option<&Position>) {
        let mut there = HashSet::new();
        self.half_made = false;
        for path in self.journal_files() {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => {
                    self.trouble.cause(&path, &e.to_string());
                    continue;
                }
            };
            let file = match JournalFile::open(file) {
                Ok(file) => file,
                // One that is just being made is found by a next look.
                Err(Bad::NoJournal) => {
                    self.half_made = true;
                    continue;
                }
                Err(bad) => {
                    self.trouble.later_format |= matches!(bad, Bad::LaterFormat(_));
                    self.trouble.cause(&path, &bad.to_string());
                    continue;
                }
            };
            let id = file.header().file_id;
            there.insert(id);
            let is_damaged = path.extension().is_some_and(|e| e == "journal~");
            if let Some(known) = self.files.iter_mut().find(|f| f.file.header().file_id == id) {
                known.path = path;
                known.is_over |= is_damaged;
            } else if !self.done.contains_key(&id) && self.files.len() < MOST_FILES {
                self.begin(file, path, is_damaged, after);
            }
        }
        for followed in &mut self.files {
            followed.is_over |= !there.contains(&followed.file.header().file_id);
        }
        self.done.retain(|id, misses| {
            *misses = if there.contains(id) { 0 } else { *misses + 1 };
            *misses < MOST_MISSES
        });
    }

    /// Begins to read a file: one that was there from the start after what was read before, one that
    /// came later from its first entry.
    fn begin(
        &mut self,
        mut file: JournalFile<File>,
        path: PathBuf,
        is_damaged: bool,
        after: Option<&Position>,
    ) {
        let (id, tail) = (file.header().seqnum_id, file.header().tail_seqnum);
        let skipped = if self.scanned {
            match self.began.get(&id) {
                Some(seqnum) => {
                    file.seek(&Position { seqnum_id: id, seqnum: *seqnum, ..Position::default() })
                }
                None => Ok(()),
            }
        } else if let Some(after) = after {
            self.began.insert(after.seqnum_id, after.seqnum);
            file.seek(after)
        } else {
            let began = self.began.entry(id).or_default();
            *began = tail.max(*began);
            file.skip_all()
        };
        if let Err(bad) = skipped {
            self.trouble.cause(&path, &bad.to_string());
        }
        self.files.push(Followed { file, path, is_over: is_damaged, tries: 0 });
    }

    /// The files of this machine's journal: those of its id where the folder has it, else those of all
    /// ids, as in a container that sees another machine's folder.
    fn journal_files(&mut self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for root in self.roots.clone() {
            self.watch(&root);
            let own = root.join(&self.machine_id);
            if !self.machine_id.is_empty() && own.is_dir() {
                folders.push(own);
                continue;
            }
            let names = |entry: std::fs::DirEntry| {
                let name = entry.file_name().into_string().ok()?;
                let is_id =
                    name.len() >= 32 && name.bytes().take(32).all(|b| b.is_ascii_hexdigit());
                is_id.then(|| entry.path())
            };
            folders
                .extend(std::fs::read_dir(&root).into_iter().flatten().flatten().filter_map(names));
            folders.push(root);
        }
        let mut files = Vec::new();
        for folder in folders {
            self.watch(&folder);
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            files.extend(entries.map(|e| e.path()).filter(|path| {
                path.extension().is_some_and(|e| e == "journal" || e == "journal~")
            }));
        }
        files.sort();
        files
    }

    fn watch(&mut self, folder: &Path) {
        let Some((inotify, watched)) = &mut self.inotify else { return };
        if watched.contains(folder) {
            return;
        }
        use inotify::WatchFlags as Flags;
        let flags = Flags::CREATE | Flags::MOVED_TO | Flags::MOVED_FROM | Flags::DELETE;
        if inotify::add_watch(inotify, folder, flags).is_ok() {
            watched.insert(folder.to_owned());
        }
    }

    /// Whether files came or went since the last look; always where that can't be watched.
    fn folders_changed(&mut self) -> bool {
        let Some((inotify, _)) = &self.inotify else { return true };
        let mut bytes = [std::mem::MaybeUninit::uninit(); 4_096];
        let mut reader = inotify::Reader::new(inotify, &mut bytes);
        let mut changed = false;
        while reader.next().is_ok() {
            changed = true;
        }
        changed
    }

    /// Waits until a file comes or goes, until the end, or for this long: entries don't show by themselves.
    pub(super) fn wait(&self, alarm: &Alarm, at_most: Duration) {
        alarm.wait(self.inotify.iter().map(|(inotify, _)| inotify.as_fd()), at_most);
    }
}

fn comes_before(a: &Position, b: &Position) -> bool {
    if a.seqnum_id == b.seqnum_id { a.seqnum < b.seqnum } else { a.realtime_us < b.realtime_us }
}

impl Followed {
    /// The next entry's place; entries that can't be read are counted and skipped.
    fn peek(&mut self, trouble: &mut Trouble) -> Option<Position> {
        loop {
            let left = self.file.left();
            match self.file.peek() {
                Ok(next) => {
                    if next.is_some() {
                        self.tries = 0;
                    }
                    return next;
                }
                Err(bad) if self.file.left() < left => self.unread(&bad, trouble),
                Err(bad) => {
                    self.stuck(&bad, trouble);
                    return None;
                }
            }
        }
    }

    /// An entry can't be read; of a deleted file, none of the rest can.
    fn unread(&mut self, bad: &Bad, trouble: &mut Trouble) {
        trouble.cause(&self.path, &bad.to_string());
        if self.is_deleted() {
            self.is_over = true;
            trouble.gone_entries += 1 + self.file.abandon();
        } else {
            trouble.bad_entries += 1;
        }
    }

    fn is_deleted(&self) -> bool {
        self.file.source().metadata().is_ok_and(|m| m.nlink() == 0)
    }

    /// It can't be read on. After a while the rest is given up.
    fn stuck(&mut self, bad: &Bad, trouble: &mut Trouble) {
        if self.is_deleted() {
            self.is_over = true;
            trouble.gone_entries += self.file.abandon();
            return;
        }
        self.tries += 1;
        if self.tries >= MOST_TRIES {
            self.tries = 0;
            self.is_over = true;
            trouble.bad_entries += self.file.abandon();
            trouble.cause(&self.path, &bad.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_just_being_made_is_found_as_soon_as_it_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&[folder.path().to_owned()], "", None);
        let path = folder.path().join("system.journal");
        File::create(&path).unwrap();
        let mut record = Record::default();
        assert!(!journal.round(&mut record, |_| true));
        assert_eq!(journal.len(), 0);
        // No watch says that it is one now.
        std::fs::write(&path, include_bytes!("samples/small.journal")).unwrap();
        assert!(!journal.round(&mut record, |_| true));
        assert_eq!(journal.len(), 1);
        assert!(journal.round(&mut record, |_| true), "its records come with the next round");
    }
}
