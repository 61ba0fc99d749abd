//! The file of annotations: JSON lines, each synced before it is answered. A start reads it and
//! replaces it by what is in force; what can't be read is kept beside it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::entry::Entry;
use super::marks::{Marks, Refusal};
use crate::store::{DiskFile, Files};
use tapio_core::clock;
use tapio_core::event::LinkedStory;
use tapio_wire::proto;

const NAME: &str = "annotations.jsonl";
/// The file that a start writes before it replaces the other one.
const NEW_NAME: &str = "annotations.jsonl.new";
/// A file with lines that can't be read.
const DAMAGED_NAME: &str = "annotations.jsonl.damaged";
/// Largest file that is read.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The annotations of a server.
pub(crate) struct Annotations {
    marks: Marks,
    file: Arc<dyn DiskFile>,
    len_bytes: u64,
}

impl Annotations {
    /// Reads the file in a folder, and creates it if it is missing.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub(crate) fn open(dir: &Path, files: &dyn Files) -> io::Result<Self> {
        let in_file =
            |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.join(NAME).display()));
        Self::open_in(dir, files).map_err(in_file)
    }

    fn open_in(dir: &Path, files: &dyn Files) -> io::Result<Self> {
        let (path, new) = (dir.join(NAME), dir.join(NEW_NAME));
        let mut marks = Marks::default();
        let bytes = match files.open(&path) {
            Ok(file) => read(&*file)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let damaged = apply_lines(&bytes, &mut marks);
        marks.expire(clock::wall_ns());
        match files.remove(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = files.create(&new)?;
        let mut content = Vec::new();
        for entry in marks.entries() {
            content.extend_from_slice(&line(entry)?);
        }
        file.write_at([&content, &[], &[]], 0)?;
        file.sync()?;
        if damaged > 0 {
            keep_damaged(dir, &path, files, damaged)?;
        }
        files.rename(&new, &path)?;
        files.sync_dir(dir)?;
        Ok(Self { marks, file, len_bytes: content.len() as u64 })
    }

    /// The annotations in force.
    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The annotations of a story, and the silence that it falls under.
    pub(crate) fn of(
        &self,
        linked: &LinkedStory,
        now_ns: u64,
    ) -> (Option<proto::Annotations>, Option<proto::Silence>) {
        let parts = linked.parts.iter().map(|part| part.id);
        let ids = std::iter::once(linked.story.id).chain(parts);
        (self.marks.of_story(ids), self.marks.silence_of(&linked.story, now_ns))
    }

    /// Takes an entry: it is on the disk when this returns.
    ///
    /// # Errors
    /// Why it isn't taken, or the error of the disk.
    pub(crate) fn add(&mut self, entry: Entry) -> io::Result<Result<(), Refusal>> {
        self.marks.expire(entry.time_ns);
        if let Err(refusal) = self.marks.check(&entry) {
            return Ok(Err(refusal));
        }
        let bytes = line(&entry)?;
        let written = self.file.write_at([&bytes, &[], &[]], self.len_bytes);
        if let Err(error) = written.and_then(|()| self.file.sync()) {
            // The next one is written in its place.
            let _ = self.file.truncate(self.len_bytes);
            return Err(error);
        }
        self.len_bytes += bytes.len() as u64;
        self.marks.apply(entry);
        Ok(Ok(()))
    }
}

fn line(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry).map_err(io::Error::from)?;
    line.push(b'\n');
    Ok(line)
}

fn read(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let len_bytes = file.len_bytes()?;
    if len_bytes > MAX_BYTES {
        return Err(io::Error::other(format!("{len_bytes} bytes, at most {MAX_BYTES}")));
    }
    let mut bytes = vec![0; len_bytes as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Applies the entries of a file. Returns the number of lines that can't be read; the last one,
/// which a kill may have cut off, isn't one of them if it has no end.
fn apply_lines(bytes: &[u8], marks: &mut Marks) -> usize {
    let mut damaged = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n")) {
        match serde_json::from_slice(line) {
            Ok(entry) => marks.apply(entry),
            Err(_) => damaged += 1,
        }
    }
    damaged
}

/// Keeps a file with damaged lines under another name.
fn keep_damaged(dir: &Path, path: &Path, files: &dyn Files, damaged: usize) -> io::Result<()> {
    let kept = dir.join(DAMAGED_NAME);
    files.rename(path, &kept)?;
    tracing::error!(
        file = %kept.display(), lines = damaged,
        "server: annotations can't be read; the file is kept, the others are in force"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::entry::Action;
    use super::*;
    use crate::store::OsFiles;
    use tapio_core::event::TraceId;

    const STORY: &str = "00000000000000000000000000000007";

    fn note(text: &str) -> Entry {
        let action = Action::Note { story: STORY.into(), text: text.into() };
        Entry { time_ns: 7, by: String::new(), action }
    }

    fn notes(annotations: &Annotations) -> usize {
        let id: TraceId = STORY.parse().unwrap();
        let of_story = annotations.marks().of_story([id].into_iter());
        of_story.map_or(0, |of_story| of_story.notes.len())
    }

    #[test]
    fn annotations_survive_a_restart_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut annotations = Annotations::open(dir.path(), &OsFiles).unwrap();
        annotations.add(note("one")).unwrap().unwrap();
        annotations.add(note("two")).unwrap().unwrap();
        let path = dir.path().join(NAME);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        let mut annotations = Annotations::open(dir.path(), &OsFiles).unwrap();
        assert_eq!(notes(&annotations), 1, "the second one was cut off");
        annotations.add(note("three")).unwrap().unwrap();
        assert_eq!(notes(&Annotations::open(dir.path(), &OsFiles).unwrap()), 2);
        assert!(!dir.path().join(DAMAGED_NAME).exists());
    }

    #[test]
    fn damaged_lines_cost_themselves_only_and_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut annotations = Annotations::open(dir.path(), &OsFiles).unwrap();
        annotations.add(note("one")).unwrap().unwrap();
        let path = dir.path().join(NAME);
        let mut bytes = b"{\"action\":\"note\"\n\xff\n".to_vec();
        bytes.extend(std::fs::read(&path).unwrap());
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(notes(&Annotations::open(dir.path(), &OsFiles).unwrap()), 1);
        assert_eq!(std::fs::read(dir.path().join(DAMAGED_NAME)).unwrap(), bytes);
    }
}
