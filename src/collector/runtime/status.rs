//! A collector's own page in `/status`.

use std::sync::{Arc, Mutex};

/// A fact a collector reports about itself: a program that couldn't load, a bad line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What the note is about: a program, a file, a permission.
    pub subject: String,
    /// `ok`, or what is wrong and what it costs.
    pub state: String,
}

/// A collector's own page in `/status`: the latest note of each subject, and named counters.
#[derive(Clone, Debug, Default)]
pub struct Report(Arc<Mutex<ReportInner>>);

#[derive(Debug, Default)]
struct ReportInner {
    notes: Vec<Note>,
    counters: Vec<(String, u64)>,
}

/// Subjects a report keeps; the oldest go first.
const MAX_NOTES: usize = 64;

impl Report {
    fn lock(&self) -> std::sync::MutexGuard<'_, ReportInner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Says how a subject is, replacing what was said of it before.
    pub fn note(&self, subject: &str, state: impl Into<String>) {
        let mut inner = self.lock();
        let state = state.into();
        if let Some(note) = inner.notes.iter_mut().find(|n| n.subject == subject) {
            note.state = state;
            return;
        }
        if inner.notes.len() >= MAX_NOTES {
            inner.notes.remove(0);
        }
        inner.notes.push(Note { subject: subject.to_owned(), state });
    }

    /// Sets a named counter (`tapio_collector_detail` in `/metrics`).
    pub fn count(&self, name: &str, value: u64) {
        let mut inner = self.lock();
        match inner.counters.iter_mut().find(|c| c.0 == name) {
            Some(counter) => counter.1 = value,
            None => inner.counters.push((name.to_owned(), value)),
        }
    }

    /// The notes, oldest subject first.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        self.lock().notes.clone()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        self.lock().counters.clone()
    }
}
