//! All files of the journal: finds new ones, closes finished ones, and merges their entries.
//!
//! journald numbers the entries over all its files and writes one after the other. If an entry is
//! visible, all entries with smaller numbers are too, provided that all files are known. A batch
//! therefore first reads each file's last number, then scans for new files, and returns the
//! entries up to these numbers, smallest first.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify;

use super::file::JournalFile;
use super::format::ReadError;
use super::position::Position;
use super::record::Record;
use crate::runtime::alarm::Alarm;
use tapio_core::clock;

/// Number of batches that an unreadable file may take to recover: data that is being written
/// becomes visible a little later.
const MAX_TRIES: u32 = 20;
/// Number of scans without a finished file after which it is forgotten.
const MAX_MISSES: u32 = 16;
/// Maximum number of open files.
const MAX_FILES: usize = 512;
/// Maximum number of records in a batch.
const MAX_BATCH: usize = 2_048;
/// Scan interval without a notification: a missing folder can't be watched.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);
/// Time after a change in which each batch scans again for files that are still being created.
const CREATION_TIME: Duration = Duration::from_secs(1);

/// Read errors since the last report, for counters and log.
#[derive(Default)]
pub(super) struct ReadErrors {
    /// Unreadable entries.
    pub(super) bad_entries: u64,
    /// Entries that journald deleted before they were read: it empties a file that it deletes, also
    /// for readers that have it open.
    pub(super) gone_entries: u64,
    /// Unreadable fields of readable entries.
    pub(super) bad_fields: u64,
    /// File and cause of the first few errors.
    pub(super) causes: Vec<(String, String)>,
    /// Whether a file has a later format, which this reader doesn't support.
    pub(super) is_later_format: bool,
}

impl ReadErrors {
    fn add_cause(&mut self, path: &Path, cause: &str) {
        if self.causes.len() < 8 {
            self.causes.push((path.display().to_string(), cause.to_owned()));
        }
    }
}

/// A file that is being read.
struct FollowedFile {
    file: JournalFile<File>,
    path: PathBuf,
    /// Whether nothing more will be appended: the file was deleted or is marked as damaged.
    is_complete: bool,
    tries: u32,
}

impl FollowedFile {
    /// The sequence and the number of its last entry.
    fn tail(&self) -> ([u8; 16], u64) {
        (self.file.header().seqnum_id, self.file.header().tail_seqnum)
    }
}

/// Reads all files of the journal.
pub(super) struct Journal {
    roots: Vec<PathBuf>,
    machine_id: String,
    files: Vec<FollowedFile>,
    /// Finished files by id, with the number of scans that didn't find them: a file that is being
    /// renamed can be missing under both names.
    finished: HashMap<[u8; 16], u32>,
    /// The number after which reading began, by sequence.
    began_after: HashMap<[u8; 16], u64>,
    inotify: Option<(OwnedFd, HashSet<PathBuf>)>,
    /// Whether the first scan is done.
    has_scanned: bool,
    last_scan: Instant,
    last_change: Instant,
    /// Whether the last scan found a file that is still being created.
    has_incomplete_file: bool,
    pub(super) errors: ReadErrors,
}

impl Journal {
    /// Opens the journal in these folders, to be read after a position; without one, from now on.
    pub(super) fn open(roots: &[PathBuf], machine_id: &str, after: Option<&Position>) -> Self {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let mut journal = Self {
            roots: roots.to_vec(),
            machine_id: machine_id.to_owned(),
            files: Vec::new(),
            finished: HashMap::new(),
            began_after: HashMap::new(),
            inotify: inotify::init(flags).ok().map(|fd| (fd, HashSet::new())),
            has_scanned: false,
            last_scan: clock::instant(),
            last_change: clock::instant(),
            has_incomplete_file: false,
            errors: ReadErrors::default(),
        };
        journal.scan(after);
        journal.has_scanned = true;
        journal
    }

    /// Number of open files.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Calls `each` with the next records in order, until it returns false. Returns whether there
    /// were any.
    pub(super) fn read_batch(
        &mut self,
        record: &mut Record,
        mut each: impl FnMut(&Record) -> bool,
    ) -> bool {
        self.refresh();
        let mut bounds: HashMap<[u8; 16], u64> = HashMap::new();
        for (id, seqnum) in self.files.iter().map(FollowedFile::tail) {
            let bound = bounds.entry(id).or_default();
            *bound = seqnum.max(*bound);
        }
        let now = clock::instant();
        let has_changed = self.folders_changed();
        if has_changed {
            self.last_change = now;
        }
        let is_creating =
            self.has_incomplete_file && now.duration_since(self.last_change) < CREATION_TIME;
        let is_due = now.duration_since(self.last_scan) >= SCAN_INTERVAL;
        if has_changed || is_creating || is_due {
            self.last_scan = now;
            self.scan(None);
        }
        self.refresh();
        let mut has_read = false;
        for _ in 0..MAX_BATCH {
            let Some(first) = self.first(&bounds) else { break };
            has_read = true;
            let followed = &mut self.files[first];
            match followed.file.take(record) {
                Ok(bad) => self.errors.bad_fields += bad,
                Err(error) => {
                    followed.skip_unreadable(&error, &mut self.errors);
                    continue;
                }
            }
            if !each(record) {
                break;
            }
        }
        self.close_finished();
        has_read
    }

    fn refresh(&mut self) {
        for followed in &mut self.files {
            if let Err(error) = followed.file.refresh() {
                followed.handle_stuck(&error, &mut self.errors);
            }
        }
    }

    /// The index of the file with the first entry within bounds.
    fn first(&mut self, bounds: &HashMap<[u8; 16], u64>) -> Option<usize> {
        let mut first: Option<(usize, Position)> = None;
        for (n, followed) in self.files.iter_mut().enumerate() {
            let Some(next) = followed.peek(&mut self.errors) else { continue };
            let bound = bounds.get(&next.seqnum_id).copied().unwrap_or_default();
            let is_first = first.is_none_or(|(_, other)| comes_before(&next, &other));
            if next.seqnum <= bound && is_first {
                first = Some((n, next));
            }
        }
        first.map(|(n, _)| n)
    }

    /// Closes the files that are read to their end and won't grow.
    fn close_finished(&mut self) {
        let finished = &mut self.finished;
        let errors = &mut self.errors;
        self.files.retain_mut(|followed| {
            let is_complete = followed.is_complete || followed.file.header().is_archived;
            if is_complete && matches!(followed.file.peek(), Ok(None)) {
                let left = followed.file.abandon();
                if left > 0 {
                    errors.bad_entries += left;
                    errors.add_cause(&followed.path, "the file ends before its last entry");
                }
                finished.insert(followed.file.header().file_id, 0);
                return false;
            }
            true
        });
    }

    /// Scans the folders for new and deleted files.
    fn scan(&mut self, after: Option<&Position>) {
        let mut found = HashSet::new();
        self.has_incomplete_file = false;
        for path in self.journal_files() {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => {
                    self.errors.add_cause(&path, &e.to_string());
                    continue;
                }
            };
            let file = match JournalFile::open(file) {
                Ok(file) => file,
                // A file that is still being created: a later scan finds it.
                Err(ReadError::NotAJournal) => {
                    self.has_incomplete_file = true;
                    continue;
                }
                Err(error) => {
                    self.errors.is_later_format |= matches!(error, ReadError::LaterFormat(_));
                    self.errors.add_cause(&path, &error.to_string());
                    continue;
                }
            };
            let id = file.header().file_id;
            found.insert(id);
            let is_damaged = path.extension().is_some_and(|e| e == "journal~");
            if let Some(known) = self.files.iter_mut().find(|f| f.file.header().file_id == id) {
                known.path = path;
                known.is_complete |= is_damaged;
            } else if !self.finished.contains_key(&id) && self.files.len() < MAX_FILES {
                self.follow(file, path, is_damaged, after);
            }
        }
        for followed in &mut self.files {
            followed.is_complete |= !found.contains(&followed.file.header().file_id);
        }
        self.finished.retain(|id, misses| {
            *misses = if found.contains(id) { 0 } else { *misses + 1 };
            *misses < MAX_MISSES
        });
    }

    /// Opens a file for reading: after the position if it existed at the start, otherwise from its
    /// first entry.
    fn follow(
        &mut self,
        mut file: JournalFile<File>,
        path: PathBuf,
        is_damaged: bool,
        after: Option<&Position>,
    ) {
        let (id, tail) = (file.header().seqnum_id, file.header().tail_seqnum);
        let skipped = if self.has_scanned {
            match self.began_after.get(&id) {
                Some(seqnum) => {
                    file.seek(&Position { seqnum_id: id, seqnum: *seqnum, ..Position::default() })
                }
                None => Ok(()),
            }
        } else if let Some(after) = after {
            self.began_after.insert(after.seqnum_id, after.seqnum);
            file.seek(after)
        } else {
            let began = self.began_after.entry(id).or_default();
            *began = tail.max(*began);
            file.skip_all()
        };
        if let Err(error) = skipped {
            self.errors.add_cause(&path, &error.to_string());
        }
        self.files.push(FollowedFile { file, path, is_complete: is_damaged, tries: 0 });
    }

    /// The files of this node's journal: those of its machine id if the folder has one, otherwise
    /// those of all ids, as in a container with another node's folder. A namespace of journald has
    /// a folder of its own beside them, `MACHINE-ID.NAMESPACE`.
    fn journal_files(&mut self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for root in self.roots.clone() {
            self.watch(&root);
            let is_own = !self.machine_id.is_empty() && root.join(&self.machine_id).is_dir();
            let machine = is_own.then_some(&*self.machine_id);
            let entries = std::fs::read_dir(&root).into_iter().flatten().flatten();
            folders.extend(entries.filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                is_folder_of(&name, machine).then(|| entry.path())
            }));
            if !is_own {
                folders.push(root);
            }
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

    /// Whether files were created or deleted since the last call; always true without inotify.
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

    /// Waits until a file is created or deleted, shutdown, or the timeout. New entries don't end
    /// the wait.
    pub(super) fn wait(&self, alarm: &Alarm, timeout: Duration) {
        alarm.wait(self.inotify.iter().map(|(inotify, _)| inotify.as_fd()), timeout);
    }
}

/// Whether a folder has the journal of a machine or of a namespace on it; of any machine for
/// `None`.
fn is_folder_of(name: &str, machine: Option<&str>) -> bool {
    let (id, _namespace) = name.split_once('.').unwrap_or((name, ""));
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    is_id && machine.is_none_or(|machine| machine == id)
}

fn comes_before(a: &Position, b: &Position) -> bool {
    if a.seqnum_id == b.seqnum_id { a.seqnum < b.seqnum } else { a.realtime_us < b.realtime_us }
}

impl FollowedFile {
    /// The next entry's position. Unreadable entries are counted and skipped.
    fn peek(&mut self, errors: &mut ReadErrors) -> Option<Position> {
        loop {
            let left = self.file.left();
            match self.file.peek() {
                Ok(next) => {
                    if next.is_some() {
                        self.tries = 0;
                    }
                    return next;
                }
                Err(error) if self.file.left() < left => self.skip_unreadable(&error, errors),
                Err(error) => {
                    self.handle_stuck(&error, errors);
                    return None;
                }
            }
        }
    }

    /// Handles an unreadable entry; in a deleted file, all remaining ones are unreadable.
    fn skip_unreadable(&mut self, error: &ReadError, errors: &mut ReadErrors) {
        errors.add_cause(&self.path, &error.to_string());
        if self.is_deleted() {
            self.is_complete = true;
            errors.gone_entries += 1 + self.file.abandon();
        } else {
            errors.bad_entries += 1;
        }
    }

    fn is_deleted(&self) -> bool {
        self.file.source().metadata().is_ok_and(|m| m.nlink() == 0)
    }

    /// Handles a file that can't be read further. After some tries the rest is skipped.
    fn handle_stuck(&mut self, error: &ReadError, errors: &mut ReadErrors) {
        if self.is_deleted() {
            self.is_complete = true;
            errors.gone_entries += self.file.abandon();
            return;
        }
        self.tries += 1;
        if self.tries >= MAX_TRIES {
            self.tries = 0;
            self.is_complete = true;
            errors.bad_entries += self.file.abandon();
            errors.add_cause(&self.path, &error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_being_created_is_found_once_it_has_a_header() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&[folder.path().to_owned()], "", None);
        let path = folder.path().join("system.journal");
        File::create(&path).unwrap();
        let mut record = Record::default();
        assert!(!journal.read_batch(&mut record, |_| true));
        assert_eq!(journal.len(), 0);
        // inotify doesn't report the new content.
        std::fs::write(&path, include_bytes!("samples/small.journal")).unwrap();
        assert!(!journal.read_batch(&mut record, |_| true));
        assert_eq!(journal.len(), 1);
        assert!(journal.read_batch(&mut record, |_| true), "its records are in the next batch");
    }

    #[test]
    fn folders_of_namespaces_belong_to_their_machine() {
        let (own, other) = ("1".repeat(32), "2".repeat(32));
        for (name, of_own, of_any) in [
            (own.clone(), true, true),
            (format!("{own}.audit"), true, true),
            (format!("{own}.a.b"), true, true),
            (format!("{other}.audit"), false, true),
            (format!("{own}x"), false, false),
            ("remote".to_owned(), false, false),
        ] {
            assert_eq!(is_folder_of(&name, Some(&own)), of_own, "{name}");
            assert_eq!(is_folder_of(&name, None), of_any, "{name}");
        }
    }

    #[test]
    fn journal_of_namespace_is_read_also_if_created_later() {
        let root = tempfile::tempdir().unwrap();
        let id = "1".repeat(32);
        let sample = include_bytes!("samples/small.journal");
        std::fs::create_dir_all(root.path().join(&id)).unwrap();
        let roots = [root.path().to_owned()];
        let mut journal = Journal::open(&roots, &id, None);
        let mut record = Record::default();
        assert!(!journal.read_batch(&mut record, |_| true));
        let folder = root.path().join(format!("{id}.audit"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("system.journal"), sample).unwrap();
        let mut found = 0;
        let until = clock::instant() + SCAN_INTERVAL * 3;
        while found == 0 && clock::instant() < until {
            journal.read_batch(&mut record, |_| {
                found += 1;
                true
            });
        }
        assert!(found > 0);
    }
}
