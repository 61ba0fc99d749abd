//! Cursors: positions in sources that can be read again, persisted over restarts.
//!
//! A position is saved only when every event before it is accepted ([`super::acceptance`]): in the
//! spool, or dropped and counted. A kill at any time therefore loses nothing; events since the
//! saved position are read again, under the same ids.

use std::io;
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
    is_damaged: bool,
    /// The position after the last event offered, and since when it waits to be saved.
    next: Option<(String, Instant)>,
    /// A position whose events are on their way to the spool.
    pending: Option<(Ticket, String)>,
    last_save: Option<Instant>,
}

impl Cursor {
    /// Opens the cursor of this name with its saved position. Without a state folder it is kept in
    /// memory only.
    ///
    /// A damaged file is set aside and reported, and the source starts as without one: a file that
    /// isn't UTF-8, or whose text `check` rejects. `check` returns the cause.
    ///
    /// # Errors
    /// When the file exists and can't be read or set aside, or the folder can't be created.
    pub(crate) fn open(
        context: &Context,
        name: &str,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) -> io::Result<Self> {
        let mut cursor = Self {
            path: None,
            saved: String::new(),
            is_damaged: false,
            next: None,
            pending: None,
            last_save: None,
        };
        let Some(dir) = &context.site.state_dir else { return Ok(cursor) };
        let dir = dir.join("cursors");
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(name);
        match read(&path, check)? {
            Ok(saved) => cursor.saved = saved,
            Err(cause) => set_aside(&path, &cause, context)?,
        }
        // The file set aside remains a sign until a position is saved: this process may be killed
        // before that.
        cursor.is_damaged = cursor.saved.is_empty() && aside(&path).exists();
        cursor.path = Some(path);
        Ok(cursor)
    }

    /// The saved position; empty at first.
    pub(crate) fn saved(&self) -> &str {
        &self.saved
    }

    /// Whether the saved position was damaged and set aside, and none was saved since.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged
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

    /// Saves the position before the first event: nothing has to be accepted for it.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn save_start(&mut self, position: &str) -> io::Result<()> {
        write(self.path.as_deref(), position)?;
        position.clone_into(&mut self.saved);
        Ok(())
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
    pub(crate) fn finish(&mut self, context: &mut Context) -> io::Result<()> {
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
    pub(crate) fn try_save(&mut self, context: &mut Context) -> io::Result<bool> {
        let now = clock::instant();
        if let Some((ticket, position)) = &self.pending
            && context.is_accepted(*ticket)
            && self.last_save.is_none_or(|last| now - last >= SAVE_INTERVAL)
        {
            write(self.path.as_deref(), position)?;
            self.saved.clone_from(position);
            self.is_damaged = false;
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

/// Replaces the file, if there is one.
fn write(path: Option<&Path>, position: &str) -> io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let new = path.with_extension("new");
    std::fs::write(&new, position)?;
    std::fs::rename(&new, path)
}

/// Reads a position; empty without a file. The inner error is the damage.
fn read(
    path: &Path,
    check: impl FnOnce(&str) -> Result<(), String>,
) -> io::Result<Result<String, String>> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|e| e.utf8_error().to_string()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Ok(String::new())),
        // Not a file.
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => Err(e.to_string()),
        Err(e) => return Err(e),
    };
    Ok(text.and_then(|text| {
        match text.trim_end() {
            // No position is empty: a loss of power came before its bytes were on the disk.
            "" => Err("empty".to_owned()),
            text => check(text).map(|()| text.to_owned()),
        }
    }))
}

/// Where a damaged file is set aside.
fn aside(path: &Path) -> PathBuf {
    path.with_extension("damaged")
}

/// Sets a damaged file aside, and reports it.
fn set_aside(path: &Path, cause: &str, context: &Context) -> io::Result<()> {
    let aside = aside(path);
    std::fs::rename(path, &aside)?;
    let (path, aside) = (path.display(), aside.display());
    let state = format!("{path} is damaged: {cause}; set aside as {aside}, starting without it");
    tracing::warn!("cursor {state}");
    context.report.note("cursor", state);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(_: &str) -> Result<(), String> {
        Ok(())
    }

    fn context_in(dir: &Path, unsettled: u64) -> Context {
        let mut context = Context::for_test(Some(unsettled));
        context.site.state_dir = Some(dir.to_owned());
        context
    }

    #[test]
    fn position_is_saved_once_its_events_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let mut context = context_in(dir.path(), 1);
        let mut cursor = Cursor::open(&context, "journal", any).unwrap();
        assert_eq!(cursor.saved(), "");
        cursor.advance("s=1");
        cursor.advance("s=2");
        for _ in 0..3 {
            assert!(!cursor.try_save(&mut context).unwrap());
        }
        assert_eq!(cursor.saved(), "", "an event isn't accepted yet");
        let mut context = context_in(dir.path(), 0);
        cursor.finish(&mut context).unwrap();
        assert_eq!(Cursor::open(&context, "journal", any).unwrap().saved(), "s=2");
    }

    #[test]
    fn damaged_file_is_set_aside_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let mut context = context_in(dir.path(), 0);
        let path = dir.path().join("cursors/journal");
        std::fs::create_dir_all(dir.path().join("cursors")).unwrap();
        let not_a_position = |text: &str| match text {
            "s=1" => Ok(()),
            _ => Err("not a position".to_owned()),
        };
        for (bytes, cause) in
            [(&b"\xff\xfe\0"[..], "invalid utf-8"), (b"garbage", "not a position"), (b"", "empty")]
        {
            std::fs::write(&path, bytes).unwrap();
            let cursor = Cursor::open(&context, "journal", not_a_position).unwrap();
            assert!(cursor.saved().is_empty() && cursor.is_damaged());
            assert_eq!(std::fs::read(aside(&path)).unwrap(), bytes);
            let notes = context.report.notes();
            let expected = format!("{} is damaged: {cause}", path.display());
            assert!(notes[0].state.starts_with(&expected), "{notes:?}");
            assert!(!path.exists());
        }
        // A folder isn't a file either.
        std::fs::remove_file(aside(&path)).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(Cursor::open(&context, "journal", not_a_position).unwrap().is_damaged());
        // The next start is one after damage, too, until a position is saved.
        let mut cursor = Cursor::open(&context, "journal", not_a_position).unwrap();
        assert!(cursor.is_damaged());
        cursor.advance("s=1");
        cursor.finish(&mut context).unwrap();
        let cursor = Cursor::open(&context, "journal", not_a_position).unwrap();
        assert_eq!((cursor.saved(), cursor.is_damaged()), ("s=1", false));
    }

    #[test]
    fn position_that_waits_too_long_makes_source_pause() {
        let mut context = Context::for_test(Some(3));
        let mut cursor = Cursor::open(&context, "journal", any).unwrap();
        cursor.advance("s=1");
        assert!(!cursor.try_save(&mut context).unwrap());
        cursor.next = Some(("s=2".into(), clock::instant() - MAX_SAVE_DELAY * 2));
        assert!(cursor.try_save(&mut context).unwrap());
        assert_eq!(cursor.saved(), "");
    }
}
