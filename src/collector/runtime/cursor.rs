//! Cursors: positions in sources that can be read again, persisted over restarts.
//!
//! A position is saved only when every event before it is accepted ([`super::acceptance`]): in the
//! spool, or dropped and counted. A kill at any time therefore loses nothing; events since the
//! saved position are read again, under the same ids.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::acceptance::Ticket;
use super::context::Context;
use tapio_core::clock;

/// Time that a position may wait to be saved before the source has to pause.
const MAX_SAVE_DELAY: Duration = Duration::from_secs(2);

/// Least time between two saves.
const SAVE_INTERVAL: Duration = Duration::from_millis(50);

/// Time that an ending collector waits for its last events to be accepted, and the interval of its
/// checks.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
const FINISH_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A cursor in a file of its own.
pub(crate) struct Cursor {
    path: Option<PathBuf>,
    saved: String,
    /// The position after the last event offered, and since when it waits to be saved.
    next: Option<(String, Instant)>,
    /// A position whose events are on their way to the spool.
    pending: Option<(Ticket, String)>,
    last_save: Option<Instant>,
}

impl Cursor {
    /// Opens the cursor of this name with its saved position. Without a folder it is kept in
    /// memory only.
    ///
    /// # Errors
    /// When the file exists and can't be read, or the folder can't be created.
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
        Ok(Self { path, saved, next: None, pending: None, last_save: None })
    }

    /// The saved position; empty at first.
    pub(crate) fn saved(&self) -> &str {
        &self.saved
    }

    /// Sets the source's position after all events offered so far.
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
    pub(crate) fn is_pending(&self) -> bool {
        self.next.is_some() || self.pending.is_some()
    }

    /// Waits up to a second until the last events are accepted and their position is saved. An
    /// unsaved position would make the next start emit their events a second time.
    ///
    /// # Errors
    /// As [`Cursor::try_save`].
    pub(crate) fn finish(&mut self, context: &mut Context) -> std::io::Result<()> {
        let until = clock::instant() + FINISH_TIMEOUT;
        while self.is_pending() && context.may_save_cursor() && clock::instant() < until {
            context.sink.flush();
            self.last_save = None;
            self.try_save(context)?;
            std::thread::sleep(FINISH_POLL_INTERVAL);
        }
        Ok(())
    }

    /// Saves the position if every event before it is accepted. Returns whether the source has to
    /// pause until the next call, because the position has waited for too long.
    ///
    /// # Errors
    /// When the file can't be written; the position remains pending.
    pub(crate) fn try_save(&mut self, context: &mut Context) -> std::io::Result<bool> {
        let now = clock::instant();
        if let Some((ticket, position)) = &self.pending
            && context.is_accepted(*ticket)
            && self.last_save.is_none_or(|last| now - last >= SAVE_INTERVAL)
        {
            if let Some(path) = &self.path {
                let new = path.with_extension("new");
                std::fs::write(&new, position)?;
                std::fs::rename(&new, path)?;
            }
            self.saved.clone_from(position);
            self.pending = None;
            self.last_save = Some(now);
        }
        let Some((position, since)) = &mut self.next else {
            return Ok(false);
        };
        let is_late = now - *since > MAX_SAVE_DELAY;
        if self.pending.is_none() {
            self.pending = Some((context.ticket(), std::mem::take(position)));
            self.next = None;
        }
        Ok(is_late && self.pending.is_some() && self.next.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_is_saved_once_its_events_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(Some(dir.path()), "journal").unwrap();
        assert_eq!(cursor.saved(), "");
        let mut context = Context::for_test(Some(1));
        cursor.advance("s=1");
        cursor.advance("s=2");
        for _ in 0..3 {
            assert!(!cursor.try_save(&mut context).unwrap());
        }
        assert_eq!(cursor.saved(), "", "an event isn't accepted yet");
        let mut context = Context::for_test(Some(0));
        cursor.finish(&mut context).unwrap();
        assert_eq!(Cursor::open(Some(dir.path()), "journal").unwrap().saved(), "s=2");
    }

    #[test]
    fn position_that_waits_too_long_makes_source_pause() {
        let mut cursor = Cursor::open(None, "journal").unwrap();
        let mut context = Context::for_test(Some(3));
        cursor.advance("s=1");
        assert!(!cursor.try_save(&mut context).unwrap());
        cursor.next = Some(("s=2".into(), clock::instant() - MAX_SAVE_DELAY * 2));
        assert!(cursor.try_save(&mut context).unwrap());
        assert_eq!(cursor.saved(), "");
    }
}
