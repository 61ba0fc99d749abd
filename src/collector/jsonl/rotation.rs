//! Rotated contents of a followed path: files in its folder.
//!
//! logrotate and its like rename `NAME` to `NAME.1` and `NAME.1` to `NAME.2`, or give it a date
//! (`NAME-20261128`); with `copytruncate` they copy it there and truncate it. Loggers that rotate
//! by themselves may give the newest content the greatest number (`fileIndex="max"` of log4j2), or
//! write to such a file behind a symbolic link.

use std::cmp::Reverse;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::position::{FileId, FilePosition, Head, read_head};

/// Digits of the largest number of a rotated file; longer ones are dates or times.
const NUMBER_DIGITS: usize = 5;

/// How often a folder is read in a row while its files are renamed.
const MAX_LISTINGS: u32 = 20;

/// The end that a rotation has appended to a name. The greater, the newer the content.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Suffix {
    /// A date or a time.
    Date(String),
    /// A number; by default one that grows with each rotation.
    Number(Reverse<u32>),
}

impl Suffix {
    fn parse(name: &str, of: &str) -> Option<Self> {
        let text = name.strip_prefix(of)?.strip_prefix(['.', '-', '_'])?;
        let is_digit = |c: char| c.is_ascii_digit();
        if text.is_empty() || !text.starts_with(is_digit) || !text.ends_with(is_digit) {
            return None;
        }
        match text.parse() {
            Ok(number) if text.len() <= NUMBER_DIGITS => Some(Self::Number(Reverse(number))),
            _ if text.chars().all(|c| is_digit(c) || "-_.T".contains(c)) => {
                Some(Self::Date(text.to_owned()))
            }
            _ => None,
        }
    }
}

/// A file in the folder of a path.
struct Sibling {
    /// `None`: its name isn't a rotated one.
    suffix: Option<Suffix>,
    path: PathBuf,
    id: FileId,
    /// The last write gives a content's age, whatever it was renamed to.
    written: Option<SystemTime>,
}

/// Files in the folder of a path: those with a rotated name, the newest first, then the others.
///
/// A rotation renames one file after the other, and a folder that is read meanwhile may lack any of
/// them: it is read until it has the same files under rotated names twice.
///
/// # Errors
/// When the folder can't be read; `WouldBlock` while files are renamed all the time.
fn siblings(path: &Path) -> io::Result<Vec<Sibling>> {
    let mut last = None;
    for _ in 0..MAX_LISTINGS {
        let Some(found) = listing(path)? else { continue };
        let rotated: Vec<_> =
            found.iter().filter(|s| s.suffix.is_some()).map(|s| (s.path.clone(), s.id)).collect();
        if last.as_ref() == Some(&rotated) {
            return Ok(found);
        }
        last = Some(rotated);
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "the files of its folder are being renamed"))
}

/// As [`siblings`], read once. `None`: a file was renamed or removed meanwhile.
fn listing(path: &Path) -> io::Result<Option<Vec<Sibling>>> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type().is_ok_and(|t| t.is_file()) {
            continue;
        }
        let suffix = Suffix::parse(&entry.file_name().to_string_lossy(), &name);
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(_) if suffix.is_none() => continue,
            Err(_) => return Ok(None),
        };
        let (id, written) = (FileId::of(&metadata), metadata.modified().ok());
        all.push(Sibling { suffix, path: entry.path(), id, written });
    }
    all.sort_by(|a, b| (&b.suffix, &b.path).cmp(&(&a.suffix, &a.path)));
    let is_number = |s: &Sibling| matches!(s.suffix, Some(Suffix::Number(_)));
    let begin = all.iter().position(is_number).unwrap_or(all.len());
    let numbered = all.iter().skip(begin).take_while(|s| is_number(s)).count();
    let numbered = &mut all[begin..begin + numbered];
    let written = |s: Option<&Sibling>| s?.written;
    if written(numbered.first()) < written(numbered.last()) {
        numbered.reverse();
    }
    Ok(Some(all))
}

/// Finds the file that has the content of a position: the same file, under any name in the folder,
/// or a copy of it under a rotated name.
///
/// # Errors
/// When the folder can't be read.
pub(super) fn find_content(path: &Path, position: &FilePosition) -> io::Result<Option<File>> {
    if let Some(file) = open_if(path, position, true) {
        return Ok(Some(file));
    }
    let siblings = siblings(path)?;
    let same = siblings.iter().find_map(|s| open_if(&s.path, position, true));
    // Any file begins with no bytes.
    let is_rotated = |s: &&Sibling| s.suffix.is_some() && position.head.bytes > 0;
    let mut rotated = siblings.iter().filter(is_rotated);
    Ok(same.or_else(|| rotated.find_map(|s| open_if(&s.path, position, false))))
}

/// Opens a file if it has the content of a position.
fn open_if(path: &Path, position: &FilePosition, same_file: bool) -> Option<File> {
    let is_same = |m: &std::fs::Metadata| !same_file || FileId::of(m) == position.id;
    // Before it is opened: a name may have become that of a fifo.
    std::fs::metadata(path).ok().filter(|m| m.is_file() && is_same(m))?;
    let file = File::open(path).ok()?;
    let metadata = file.metadata().ok().filter(is_same)?;
    let head = read_head(&file, position.head.bytes).ok()?;
    (metadata.len() >= position.lines.offset && Head::of(&head) == position.head).then_some(file)
}

/// The content that follows a file's.
pub(super) enum Successor {
    /// A file that is rotated already.
    Rotated(PathBuf, FileId),
    /// The file that has the path now.
    Current,
    /// The file isn't there under a rotated name: renamed to another one, removed, or just being
    /// renamed.
    Unknown,
}

/// Finds what was written after the file `id`.
///
/// # Errors
/// When the folder can't be read.
pub(super) fn successor(path: &Path, id: FileId) -> io::Result<Successor> {
    let current = std::fs::metadata(path).ok().map(|metadata| FileId::of(&metadata));
    let mut newer = Successor::Current;
    for file in siblings(path)?.into_iter().filter(|s| s.suffix.is_some()) {
        if file.id == id {
            return Ok(newer);
        }
        // The path may be a link to a file with a rotated name.
        if Some(file.id) != current {
            newer = Successor::Rotated(file.path, file.id);
        }
    }
    Ok(Successor::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of what follows each of these files, which are written in this order.
    fn successors(names: &[&str], link: bool) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for name in names {
            std::fs::write(dir.path().join(name), name).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(15));
        }
        if link {
            std::os::unix::fs::symlink(dir.path().join(names[names.len() - 1]), &path).unwrap();
        } else {
            std::fs::write(&path, "current").unwrap();
        }
        let after = |name: &&str| {
            let id = FileId::of(&std::fs::metadata(dir.path().join(name)).unwrap());
            match successor(&path, id).unwrap() {
                Successor::Current => "log".to_owned(),
                Successor::Rotated(path, _) => {
                    path.file_name().unwrap().to_string_lossy().into_owned()
                }
                Successor::Unknown => "?".to_owned(),
            }
        };
        names.iter().map(after).collect()
    }

    #[test]
    fn numbers_grow_or_shrink_with_each_rotation() {
        assert_eq!(successors(&["log.3", "log.2", "log.1"], false), ["log.2", "log.1", "log"]);
        assert_eq!(successors(&["log.1", "log.2", "log.10"], false), ["log.2", "log.10", "log"]);
        assert_eq!(successors(&["log.1"], false), ["log"]);
        assert_eq!(successors(&["log.2001", "log.2002"], true), ["log", "log"]);
        assert_eq!(successors(&["log-20261127", "log-20261128"], true), ["log", "log"]);
    }

    #[test]
    fn suffixes_order_contents_by_age() {
        let order = ["log-2026-11-27", "log-2026-11-28T10.00", "log.10", "log.2", "log.1"];
        let parsed: Vec<_> = order.iter().map(|n| Suffix::parse(n, "log").unwrap()).collect();
        assert!(parsed.is_sorted(), "{parsed:?}");
        for other in ["log", "log.err", "log.1.gz", "log2", "log.", "log.1-", "other.1", "log.1a2"]
        {
            assert_eq!(Suffix::parse(other, "log"), None, "{other}");
        }
    }
}
