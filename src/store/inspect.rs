//! Looks at a log on disk without opening it: what is there, of which version, and who has it open.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::format::{HEAD_BYTES, Head};
use super::segment;

/// A log as it is on disk.
#[derive(Clone, Debug)]
pub struct InspectedLog {
    /// The folder.
    pub dir: PathBuf,
    /// The process that has it open, if one has; 0 for one of another PID namespace.
    pub holder: Option<u32>,
    /// The segments in their order.
    pub segments: Vec<InspectedSegment>,
}

/// A segment as it is on disk.
#[derive(Clone, Debug)]
pub struct InspectedSegment {
    /// The file's name.
    pub name: String,
    /// The file's size.
    pub bytes: u64,
    /// When it was last written to, seconds since the Unix epoch.
    pub modified_s: i64,
    /// Its head: the segment's number; or why it can't be read.
    pub head: Result<u64, String>,
}

/// The logs in a folder and the folders below it; none where the folder doesn't exist.
///
/// # Errors
/// When the folder can't be read.
pub fn inspect(dir: &Path) -> io::Result<Vec<InspectedLog>> {
    let mut logs = Vec::new();
    inspect_below(dir, 2, &mut logs)?;
    logs.sort_by(|a, b| a.dir.cmp(&b.dir));
    Ok(logs)
}

fn inspect_below(dir: &Path, levels: u8, logs: &mut Vec<InspectedLog>) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut segments = Vec::new();
    let mut has_lock = false;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        has_lock |= name == "lock";
        if segment::number(&name).is_some() {
            segments.extend(inspect_segment(&entry.path(), name));
        } else if levels > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            inspect_below(&entry.path(), levels - 1, logs)?;
        }
    }
    if has_lock || !segments.is_empty() {
        segments.sort_by(|a, b| a.name.cmp(&b.name));
        let holder = lock_holder(&dir.join("lock"));
        logs.push(InspectedLog { dir: dir.to_owned(), holder, segments });
    }
    Ok(())
}

/// `None` for a segment that has been removed meanwhile.
fn inspect_segment(path: &Path, name: String) -> Option<InspectedSegment> {
    let mut options = File::options();
    let opened = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            let head = Err(error.to_string());
            return Some(InspectedSegment { name, bytes: 0, modified_s: 0, head });
        }
        Ok(file) => file,
    };
    let (bytes, modified_s) = file.metadata().map_or((0, 0), |m| (m.len(), m.mtime()));
    let mut start = Vec::new();
    let read = file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut start);
    let head = match read {
        Ok(_) => Head::decode(&start).map(|head| head.number).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Some(InspectedSegment { name, bytes, modified_s, head })
}

/// The process that holds the lock of a file (flock(2)); 0 for one of another PID namespace. Takes
/// no lock, which would be in the way of a process that starts.
#[must_use]
pub fn lock_holder(path: &Path) -> Option<u32> {
    let metadata = std::fs::metadata(path).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, metadata.dev(), metadata.ino())
}

/// The same from the text of `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 711 08:01:1234 0 EOF`.
fn holder_in(locks: &str, dev: u64, inode: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, of, ..] = words[..] else { return None };
        (of == file).then(|| pid.parse().unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Files as _, OsFiles};

    #[test]
    fn holder_of_a_lock_is_found_without_locking() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(lock_holder(&path), None);
        let lock = OsFiles.lock(&path).unwrap();
        assert_eq!(lock_holder(&path), Some(std::process::id()));
        drop(lock);
        assert_eq!(lock_holder(&path), None);
        let line = "1: FLOCK  ADVISORY  WRITE 711 08:01:1234 0 EOF\n2: POSIX  ADVISORY  WRITE 9 \
                    08:01:1235 0 EOF\n3: FLOCK  ADVISORY  WRITE -1 08:01:1236 0 EOF\nnonsense";
        let dev = rustix::fs::makedev(8, 1);
        let found = [1234, 1235, 1236].map(|inode| holder_in(line, dev, inode));
        assert_eq!(found, [Some(711), None, Some(0)]);
    }

    #[test]
    fn segments_have_their_numbers_or_causes() {
        let dir = tempfile::tempdir().unwrap();
        assert!(inspect(&dir.path().join("none")).unwrap().is_empty());
        let lane = dir.path().join("ordinary");
        std::fs::create_dir(&lane).unwrap();
        let head = Head { number: 7, nonce: 1, previous: None }.encode();
        std::fs::write(segment::path(&lane, 7), head).unwrap();
        std::fs::write(segment::path(&lane, 8), b"TPSG").unwrap();
        std::fs::write(segment::path(&lane, 9), [b'x'; 200]).unwrap();
        std::os::unix::fs::symlink("/dev/zero", segment::path(&lane, 10)).unwrap();
        std::fs::write(lane.join("other"), b"").unwrap();
        let logs = inspect(dir.path()).unwrap();
        assert_eq!((logs.len(), &logs[0].dir, logs[0].holder), (1, &lane, None));
        let heads: Vec<_> = logs[0].segments.iter().map(|s| s.head.clone()).collect();
        assert_eq!(heads[0], Ok(7));
        assert!(heads[1..].iter().all(Result::is_err), "{heads:?}");
        assert_eq!(logs[0].segments[2].bytes, 200);
    }
}
