//! How far a sink is, in a file of the spool's folder: a line for each lane with its name, segment
//! and offset, and the events that are done in the segment.

use std::io;
use std::path::{Path, PathBuf};

use crate::bridge::{ExportCursor, LANE_NAMES};
use crate::store::FramePosition;
use tapio_core::event::stable_hash;

const PREFIX: &str = "export-";

/// The file of a sink.
pub(super) struct CursorFile {
    path: PathBuf,
    written: Option<ExportCursor>,
}

impl CursorFile {
    /// The file of the sink with this name, below the spool's folder.
    pub(super) fn new(spool: &Path, sink: &str) -> Self {
        Self { path: spool.join(file_name(sink)), written: None }
    }

    /// Reads the file; `None` without one. One that can't be read means the beginning of the spool:
    /// rather twice than not at all.
    pub(super) fn read(&self) -> Option<ExportCursor> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Some(parse(&text).unwrap_or_else(|| self.unreadable("it is damaged"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(self.unreadable(&error.to_string())),
        }
    }

    fn unreadable(&self, cause: &str) -> ExportCursor {
        tracing::warn!(
            file = %self.path.display(), cause,
            "export: can't read how far a sink is; it gets everything in the spool again"
        );
        ExportCursor::default()
    }

    /// Writes the file, if it has changed.
    ///
    /// # Errors
    /// When the disk refuses it; what was there is there still.
    pub(super) fn write(&mut self, cursor: &ExportCursor) -> io::Result<()> {
        if self.written.as_ref() == Some(cursor) {
            return Ok(());
        }
        let lines = LANE_NAMES.iter().zip(cursor).map(|(name, lane)| {
            let FramePosition { segment, offset } = lane.position;
            format!("{name} {segment} {offset} {}\n", lane.events)
        });
        let new = self.path.with_extension("new");
        std::fs::write(&new, lines.collect::<String>())?;
        std::fs::rename(&new, &self.path)?;
        self.written = Some(*cursor);
        Ok(())
    }
}

/// Removes the files of sinks that aren't configured any more.
pub(super) fn remove_others(spool: &Path, sinks: &[String]) {
    let kept: Vec<String> = sinks.iter().map(|sink| file_name(sink)).collect();
    for entry in std::fs::read_dir(spool).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && !kept.contains(&name) {
            // What stays is only not used.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Names of sinks have characters that files can't have.
fn file_name(sink: &str) -> String {
    let hash = stable_hash(&[b"export-sink", sink.as_bytes()]);
    let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{hex}.cursor")
}

fn parse(text: &str) -> Option<ExportCursor> {
    let mut cursor = ExportCursor::default();
    let mut lines = text.lines();
    for (lane, name) in cursor.iter_mut().zip(LANE_NAMES) {
        let mut fields = lines.next()?.split(' ');
        if fields.next() != Some(name) {
            return None;
        }
        let mut number = || fields.next()?.parse().ok();
        lane.position = FramePosition { segment: number()?, offset: number()? };
        lane.events = number()?;
    }
    Some(cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::LaneCursor;

    #[test]
    fn cursors_survive_and_others_are_removed() {
        let spool = tempfile::tempdir().unwrap();
        let lane =
            |segment| LaneCursor { position: FramePosition { segment, offset: 4_096 }, events: 12 };
        let mut file = CursorFile::new(spool.path(), "http://a:4317");
        assert_eq!(file.read(), None);
        file.write(&[lane(3), lane(7)]).unwrap();
        assert_eq!(file.read(), Some([lane(3), lane(7)]));
        let mut other = CursorFile::new(spool.path(), "http://b:4317");
        other.write(&[lane(1), lane(1)]).unwrap();
        std::fs::write(spool.path().join("checkpoint"), "x").unwrap();
        remove_others(spool.path(), &["http://a:4317".to_owned()]);
        assert_eq!((file.read().is_some(), other.read()), (true, None));
        assert!(spool.path().join("checkpoint").exists());
    }

    #[test]
    fn a_damaged_file_means_the_beginning() {
        let spool = tempfile::tempdir().unwrap();
        let file = CursorFile::new(spool.path(), "a");
        for damaged in
            ["", "important 1 2\n", "important 1 2 3\n", "ordinary 1 2 3\nimportant 1 2 3\n"]
        {
            std::fs::write(&file.path, damaged).unwrap();
            assert_eq!(file.read(), Some(ExportCursor::default()), "{damaged:?}");
        }
    }
}
