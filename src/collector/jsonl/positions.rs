//! The saved positions of followed files.
//!
//! All files share one cursor, a JSON document: a save costs one write and one rename, however many
//! files are followed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::position::{FilePosition, Head};
use crate::runtime::cursor::Cursor;
use crate::runtime::{CollectorError, Context};
use tapio_core::clock;

/// Version of the document; another one is damage.
const VERSION: u32 = 1;
/// Files in the document. Positions of files that aren't configured any more are kept up to this
/// number, so that a file that is configured again isn't read twice.
const MAX_FILES: usize = 1024;
/// Least time between two updates of the document while lines arrive.
const UPDATE_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    files: BTreeMap<String, FilePosition>,
}

impl Document {
    fn parse(text: &str) -> Result<Self, String> {
        let document: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let is_valid = |p: &FilePosition| p.head.bytes <= Head::MAX_BYTES;
        match document.version {
            VERSION if document.files.values().all(is_valid) => Ok(document),
            VERSION => Err("a head is too long".to_owned()),
            other => Err(format!("version {other} instead of {VERSION}")),
        }
    }
}

/// The positions of all followed files.
pub(super) struct Positions {
    /// `None` where nothing is saved: files that aren't followed, no state folder.
    cursor: Option<Cursor>,
    document: Document,
    first_generation: u64,
    updated: Option<Instant>,
    /// Whether a position has changed since it was passed to the cursor.
    has_changed: bool,
    is_failing: bool,
}

impl Positions {
    /// Reads the saved positions.
    ///
    /// # Errors
    /// As [`Cursor::open`].
    pub(super) fn open(
        follow: bool,
        paths: &[PathBuf],
        context: &Context,
    ) -> std::io::Result<Self> {
        let mut positions = Self {
            cursor: None,
            document: Document { version: VERSION, files: BTreeMap::new() },
            first_generation: 0,
            updated: None,
            has_changed: false,
            is_failing: false,
        };
        if !follow || context.site.state_dir.is_none() {
            return Ok(positions);
        }
        let cursor = Cursor::open(context, "jsonl", |text| Document::parse(text).map(drop))?;
        if let Ok(document) = Document::parse(cursor.saved()) {
            positions.document = document;
            positions.forget(paths);
        }
        if cursor.is_damaged() {
            // Which generations there were is unknown; the time is none of them. Lines of two
            // contents under one id would be taken for one line.
            positions.first_generation = clock::wall_ns() / 1_000_000_000;
        }
        positions.cursor = Some(cursor);
        Ok(positions)
    }

    /// Removes positions of paths that aren't configured, beyond [`MAX_FILES`] in all.
    fn forget(&mut self, paths: &[PathBuf]) {
        let files = &mut self.document.files;
        let mut excess = files.len().saturating_sub(MAX_FILES);
        files.retain(|name, _| {
            let is_left = excess > 0 && paths.iter().all(|p| p.display().to_string() != *name);
            excess -= usize::from(is_left);
            !is_left
        });
    }

    /// The saved position of a path.
    pub(super) fn of(&self, path: &str) -> Option<&FilePosition> {
        self.document.files.get(path)
    }

    /// All saved positions.
    pub(super) fn all(&self) -> impl Iterator<Item = &FilePosition> {
        self.document.files.values()
    }

    /// The generation of a path without a position.
    pub(super) fn first_generation(&self) -> u64 {
        self.first_generation
    }

    /// Saves where files begin that have no position yet: a content that is rotated before its
    /// first lines are accepted is found by that.
    ///
    /// # Errors
    /// When the document can't be written.
    pub(super) fn save_starts<'a>(
        &mut self,
        starts: impl Iterator<Item = (&'a str, FilePosition)>,
    ) -> std::io::Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        let before = self.document.files.len();
        for (path, position) in starts {
            self.document.files.entry(path.to_owned()).or_insert(position);
        }
        if self.document.files.len() == before {
            return Ok(());
        }
        // A map with text keys and plain values always serializes.
        cursor.save_start(&serde_json::to_string(&self.document).unwrap_or_default())
    }

    /// Whether the positions of the files are to be set. `is_idle`: no line has arrived.
    pub(super) fn is_due(&mut self, is_idle: bool) -> bool {
        let now = clock::instant();
        let is_due = self.cursor.is_some()
            && (is_idle || self.updated.is_none_or(|last| now - last >= UPDATE_INTERVAL));
        if is_due {
            self.updated = Some(now);
        }
        is_due
    }

    /// Sets the position of a path, behind all its lines offered so far.
    pub(super) fn set(&mut self, path: &str, position: FilePosition) {
        let known = self.document.files.get_mut(path);
        if known.as_deref() == Some(&position) {
            return;
        }
        self.has_changed = true;
        match known {
            Some(known) => *known = position,
            None => drop(self.document.files.insert(path.to_owned(), position)),
        }
    }

    /// Saves the positions once the lines before them are accepted. Returns whether reading has to
    /// pause, because a position has waited for too long or can't be saved: lines stay in their
    /// files then.
    pub(super) fn save(&mut self, context: &mut Context) -> bool {
        self.advance();
        let Some(cursor) = &mut self.cursor else { return false };
        let saved = cursor.try_save(context);
        self.report(saved, context)
    }

    /// Whether a position waits to be saved.
    pub(super) fn is_pending(&self) -> bool {
        self.cursor.as_ref().is_some_and(Cursor::is_pending)
    }

    /// Waits until the last positions are saved, as [`Cursor::finish`] does.
    ///
    /// # Errors
    /// As [`Cursor::finish`].
    pub(super) fn finish(&mut self, context: &mut Context) -> Result<(), CollectorError> {
        self.advance();
        let finished = self.cursor.as_mut().map_or(Ok(()), |cursor| cursor.finish(context));
        finished.map_err(|e| CollectorError::new("saving the cursor of followed files", e))
    }

    fn advance(&mut self) {
        if let Some(cursor) = &mut self.cursor
            && std::mem::take(&mut self.has_changed)
        {
            // A map with text keys and plain values always serializes.
            cursor.advance(&serde_json::to_string(&self.document).unwrap_or_default());
        }
    }

    /// Reports the first failure in a row. Returns whether reading has to pause.
    fn report(&mut self, saved: std::io::Result<bool>, context: &Context) -> bool {
        match saved {
            Ok(is_late) => {
                if std::mem::take(&mut self.is_failing) {
                    context.report.note("cursor", "ok");
                }
                is_late
            }
            Err(cause) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    let error = CollectorError::new("saving the cursor of followed files", cause);
                    tracing::error!(collector = "jsonl", "{error}; reading pauses");
                    context.report.note("cursor", format!("{error}; reading pauses"));
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::LinePosition;
    use super::super::position::FileId;
    use super::*;

    #[test]
    fn document_parses_to_itself_and_anything_else_is_damage() {
        let position = FilePosition {
            id: FileId { device: 3, inode: 4 },
            lines: LinePosition { line: 7, offset: 512 },
            generation: 2,
            head: Head::of(b"abc"),
        };
        let files = BTreeMap::from([("/var/log/a".to_owned(), position.clone())]);
        let text = serde_json::to_string(&Document { version: VERSION, files }).unwrap();
        assert_eq!(Document::parse(&text).unwrap().files["/var/log/a"], position);
        let bad = [
            text.replace("\"version\":1", "\"version\":2"),
            text.replace("\"bytes\":3", "\"bytes\":300000000000"),
            text.replace("512", "-1"),
            text[..text.len() - 1].to_owned(),
            "s=1;i=2".to_owned(),
        ];
        for bad in bad {
            assert!(Document::parse(&bad).is_err(), "{bad}");
        }
    }
}
