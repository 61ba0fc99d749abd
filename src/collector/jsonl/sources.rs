//! The configured paths and the files that they stand for: patterns are searched again, and a file
//! that is missing or can't be opened is tried again, while the others are read.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use super::position::{FileId, FilePosition, Head, read_head};
use super::positions::Positions;
use super::source::Source;
use super::stream::Stream;
use crate::runtime::Context;
use tapio_core::clock;
use tapio_core::glob;

/// Interval at which patterns are searched and missing files tried.
const SEARCH_INTERVAL: Duration = Duration::from_millis(500);
/// Files that one pattern stands for; more are reported and not read.
const MAX_FILES: usize = 1_024;

/// Whether a path is a pattern.
pub(super) fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(glob::has_wildcards) && !path.exists()
}

/// The folder that contains all files of a path; of a pattern, the part before its first wildcard.
pub(super) fn folder_of(path: &Path) -> Option<PathBuf> {
    let fixed: PathBuf = match is_pattern(path) {
        true => path.components().take_while(|c| !has_wildcards(*c)).collect(),
        false => path.parent()?.to_owned(),
    };
    Some(if fixed.as_os_str().is_empty() { PathBuf::from(".") } else { fixed })
}

fn has_wildcards(component: Component<'_>) -> bool {
    component.as_os_str().to_str().is_some_and(glob::has_wildcards)
}

/// The files that a pattern matches, in the order of their names. As in a shell, a wildcard doesn't
/// match a slash, nor a dot at a name's start.
fn files_of(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        if !has_wildcards(component) {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        }
        let pattern = component.as_os_str().to_string_lossy();
        let mut next = Vec::new();
        for folder in &found {
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            for entry in fs::read_dir(here).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                let is_hidden = name.starts_with('.') && !pattern.starts_with('.');
                if !is_hidden && glob::matches(&pattern, name) {
                    next.push(folder.join(name));
                }
            }
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort();
    found
}

/// Contents that are kept in mind.
const MAX_READ: usize = 16 * MAX_FILES;

/// The configured paths, and which of their files are or were open.
pub(super) struct Sources {
    paths: Vec<PathBuf>,
    follow: bool,
    /// Files that are open or were read to their end.
    opened: HashSet<PathBuf>,
    /// Files that can't be opened, with the cause.
    failing: HashMap<PathBuf, String>,
    /// Contents that were read under some name: a pattern may match a rotated file, too.
    read: HashMap<FileId, Head>,
    /// Patterns that match too many files, which is reported once.
    overfull: HashSet<PathBuf>,
    searched_at: Option<Instant>,
}

impl Sources {
    pub(super) fn new(paths: &[PathBuf], follow: bool, positions: &Positions) -> Self {
        let mut sources = Self {
            paths: paths.to_vec(),
            follow,
            opened: HashSet::new(),
            failing: HashMap::new(),
            read: HashMap::new(),
            overfull: HashSet::new(),
            searched_at: None,
        };
        positions.all().for_each(|position| sources.add_read(position.clone()));
        sources
    }

    /// Whether more files may come.
    pub(super) fn may_open(&self) -> bool {
        !self.failing.is_empty() || (self.follow && self.paths.iter().any(|p| is_pattern(p)))
    }

    fn add_read(&mut self, position: FilePosition) {
        // Files that are open are added again with each search.
        if self.read.len() >= MAX_READ {
            self.read.clear();
        }
        self.read.insert(position.id, position.head);
    }

    /// Opens files that aren't open yet, if the next search is due.
    pub(super) fn open(
        &mut self,
        streams: &mut Vec<Stream>,
        positions: &mut Positions,
        context: &Context,
    ) -> std::io::Result<()> {
        let now = clock::instant();
        let is_first = self.searched_at.is_none();
        let is_due = |at: Instant| now.duration_since(at) >= SEARCH_INTERVAL;
        let is_again = self.may_open() && self.searched_at.is_some_and(is_due);
        if !(is_first || is_again) {
            return Ok(());
        }
        self.searched_at = Some(now);
        streams.iter().filter_map(Stream::position).for_each(|position| self.add_read(position));
        let before = streams.len();
        for path in self.paths.clone() {
            if !is_pattern(&path) {
                self.open_file(&path, streams, positions, context);
            } else if is_first || self.follow {
                self.open_matches(&path, streams, positions, context);
            }
        }
        self.forget_deleted(streams);
        let new = streams[before.min(streams.len())..].iter();
        let starts = new.filter_map(|s| Some((s.source.name.as_str(), s.position()?)));
        positions.save_starts(starts)
    }

    fn open_matches(
        &mut self,
        pattern: &Path,
        streams: &mut Vec<Stream>,
        positions: &Positions,
        context: &Context,
    ) {
        let files = files_of(pattern);
        let name = pattern.display().to_string();
        if files.len() > MAX_FILES && self.overfull.insert(pattern.to_owned()) {
            let text = format!("matches {} files; {MAX_FILES} of them are read", files.len());
            tracing::warn!(collector = "jsonl", "{name}: {text}");
            context.report.note(&name, text);
        } else if files.is_empty() {
            context.report.note(&name, "matches no file yet");
        } else if files.len() <= MAX_FILES {
            context.report.note(&name, "ok");
        }
        for file in files.iter().take(MAX_FILES) {
            let has_position = positions.of(&file.display().to_string()).is_some();
            if !self.opened.contains(file) && (has_position || !self.was_read(file)) {
                self.open_file(file, streams, positions, context);
            }
        }
    }

    /// Whether the content of a file was read under another name.
    fn was_read(&self, path: &Path) -> bool {
        let Ok(file) = fs::File::open(path) else { return false };
        let Ok(metadata) = file.metadata() else { return false };
        self.read.get(&FileId::of(&metadata)).is_some_and(|head| {
            read_head(&file, head.bytes).is_ok_and(|bytes| Head::of(&bytes) == *head)
        })
    }

    fn open_file(
        &mut self,
        path: &Path,
        streams: &mut Vec<Stream>,
        positions: &Positions,
        context: &Context,
    ) {
        if self.opened.contains(path) {
            return;
        }
        match Source::open(path, self.follow, positions) {
            Ok(source) => {
                self.opened.insert(path.to_owned());
                if self.failing.remove(path).is_some() {
                    tracing::info!(collector = "jsonl", "{}: opened", path.display());
                    context.report.note(&path.display().to_string(), "ok");
                }
                streams.push(Stream::new(source));
            }
            Err(error) => {
                let (name, cause) = (path.display().to_string(), error.to_string());
                if self.failing.get(path) == Some(&cause) {
                    return;
                }
                tracing::warn!(
                    collector = "jsonl",
                    "{name}: {cause}; tried again, the other files are read"
                );
                context.report.note(&name, format!("{cause}; tried again"));
                self.failing.insert(path.to_owned(), cause);
            }
        }
    }

    /// Ends the streams of a pattern's files that were deleted: no file of that name is expected.
    fn forget_deleted(&mut self, streams: &mut [Stream]) {
        for stream in streams {
            let path = Path::new(&stream.source.name);
            if stream.source.is_deleted() && !self.paths.iter().any(|p| p == path) {
                self.opened.remove(path);
                stream.ended = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_matches_names_in_its_folders() {
        let root = tempfile::tempdir().unwrap();
        for file in ["a/x.jsonl", "b/y.jsonl", "b/.hidden.jsonl", "b/y.log", "c.jsonl"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = |pattern: &str| -> Vec<String> {
            let files = files_of(&root.path().join(pattern));
            let below = |path: PathBuf| path.strip_prefix(root.path()).unwrap().to_owned();
            files.into_iter().map(|path| below(path).display().to_string()).collect()
        };
        assert_eq!(found("*.jsonl"), ["c.jsonl"]);
        assert_eq!(found("*/*.jsonl"), ["a/x.jsonl", "b/y.jsonl"]);
        assert_eq!(found("b/.*"), ["b/.hidden.jsonl"]);
        assert_eq!(found("?/x.jsonl"), ["a/x.jsonl"]);
        assert_eq!(found("d/*"), Vec::<String>::new());
        assert_eq!(folder_of(&root.path().join("*/x")), Some(root.path().to_owned()));
        assert_eq!(folder_of(Path::new("*.jsonl")), Some(PathBuf::from(".")));
        assert_eq!(folder_of(Path::new("x.jsonl")), Some(PathBuf::from(".")));
    }
}
