//! How far a source that can be read again has been read, kept over restarts.
//!
//! A position is saved only once every event before it is settled: stored by the server, or dropped and
//! counted. So a kill at any time loses nothing; what was under way is read again, under the same ids. Since
//! events of one collector may settle out of order, "settled" is the moment in which nothing of the
//! collector is held anywhere; a source that never pauses is asked to, for as long as that takes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::context::Context;
use tapio_core::clock;

/// How long a position may wait to be saved before the source is asked to pause.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an ending collector waits for its last events, and how often it looks.
const LAST_POSITION: Duration = Duration::from_secs(1);
const LAST_NAP: Duration = Duration::from_millis(5);

/// A cursor in a file of its own.
pub(crate) struct Cursor {
    path: Option<PathBuf>,
    saved: String,
    /// The position after the last event that was offered, and since when it waits.
    next: Option<(String, Instant)>,
}

impl Cursor {
    /// The cursor with this name, as it was saved last. Without a folder it is kept in memory only.
    ///
    /// # Errors
    /// When there is a file and it can't be read, or the folder can't be made.
    pub(crate) fn open(dir: Option<&Path>, name: &str) -> std::io::Result<Self> {
        let path = match dir {
            None => None,
            Some(dir) => {
                let dir = dir.join("cursors");
                std::fs::create_dir_all(&dir)?;
                Some(dir.join(name))
            }
        };
        let saved = match path.as_ref().map(std::fs::read_to_string) {
            Some(Ok(text)) => text.trim_end().to_owned(),
            Some(Err(e)) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => String::new(),
        };
        Ok(Self { path, saved, next: None })
    }

    /// Where to go on; empty at first.
    pub(crate) fn saved(&self) -> &str {
        &self.saved
    }

    /// Says where the source is after everything offered so far.
    pub(crate) fn advance(&mut self, position: &str) {
        match &mut self.next {
            Some((next, _)) => {
                next.clear();
                next.push_str(position);
            }
            None if position == self.saved => {}
            None => self.next = Some((position.to_owned(), clock::instant())),
        }
    }

    /// Whether a position waits to be saved.
    pub(crate) fn is_waiting(&self) -> bool {
        self.next.is_some()
    }

    /// Waits, a second at the most, until what was offered last is settled and its position saved: what is read
    /// again after the next start would be there twice.
    ///
    /// # Errors
    /// As [`Cursor::settle`].
    pub(crate) fn finish(&mut self, context: &mut Context) -> std::io::Result<()> {
        let until = clock::instant() + LAST_POSITION;
        while self.is_waiting() && context.keeps_positions() && clock::instant() < until {
            context.sink.flush();
            self.settle(context)?;
            std::thread::sleep(LAST_NAP);
        }
        Ok(())
    }

    /// Saves the position if everything before it is settled. Returns whether the source should offer
    /// nothing more until this has been called again: it waited for too long.
    ///
    /// # Errors
    /// When the file can't be written; the position stays waiting.
    pub(crate) fn settle(&mut self, context: &Context) -> std::io::Result<bool> {
        let Some((position, since)) = &self.next else {
            return Ok(false);
        };
        if context.held() != Some(0) {
            return Ok(since.elapsed() > PATIENCE);
        }
        if let Some(path) = &self.path {
            let new = path.with_extension("new");
            std::fs::write(&new, position)?;
            std::fs::rename(&new, path)?;
        }
        self.saved.clone_from(position);
        self.next = None;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(Some(dir.path()), "journal").unwrap();
        assert_eq!(cursor.saved(), "");
        let context = Context::for_test(Some(1));
        cursor.advance("s=1");
        cursor.advance("s=2");
        assert!(!cursor.settle(&context).unwrap());
        assert_eq!(cursor.saved(), "", "an event is still under way");
        let mut context = Context::for_test(Some(0));
        cursor.finish(&mut context).unwrap();
        assert_eq!(Cursor::open(Some(dir.path()), "journal").unwrap().saved(), "s=2");
    }

    #[test]
    fn a_source_that_never_pauses_is_asked_to() {
        let mut cursor = Cursor::open(None, "journal").unwrap();
        cursor.next = Some(("s=1".into(), clock::instant() - PATIENCE * 2));
        assert!(cursor.settle(&Context::for_test(None)).unwrap());
        assert!(cursor.settle(&Context::for_test(Some(3))).unwrap());
        assert!(!cursor.settle(&Context::for_test(Some(0))).unwrap());
        assert_eq!(cursor.saved(), "s=1");
    }
}
