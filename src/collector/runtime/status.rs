//! A collector's part of `/status`.

use std::sync::{Arc, Mutex};

use tapio_core::redact::Redactor;

/// The state of something that a collector depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusNote {
    /// The subject: a program, a file, a permission.
    pub subject: String,
    /// `ok`, or the fault and its consequence.
    pub state: String,
}

/// A collector's part of `/status`: the latest note for each subject, and named counters. Clones
/// share it.
#[derive(Clone)]
pub struct StatusReport {
    inner: Arc<Mutex<ReportInner>>,
    redactor: Arc<Redactor>,
}

impl Default for StatusReport {
    fn default() -> Self {
        Self::new(Redactor::builtin())
    }
}

#[derive(Debug, Default)]
struct ReportInner {
    notes: Vec<StatusNote>,
    counters: Vec<(String, u64)>,
    degradation: String,
}

/// Maximum number of subjects; a new one replaces the oldest.
const MAX_NOTES: usize = 64;

impl StatusReport {
    /// An empty report, which removes secrets from its notes.
    #[must_use]
    pub fn new(redactor: Arc<Redactor>) -> Self {
        Self { inner: Arc::default(), redactor }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ReportInner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sets the state of a subject.
    pub fn note(&self, subject: &str, state: impl Into<String>) {
        let mut state = state.into();
        self.redactor.redact(&mut state);
        let mut inner = self.lock();
        if let Some(note) = inner.notes.iter_mut().find(|n| n.subject == subject) {
            note.state = state;
            return;
        }
        if inner.notes.len() >= MAX_NOTES {
            inner.notes.remove(0);
        }
        inner.notes.push(StatusNote { subject: subject.to_owned(), state });
    }

    /// Sets why the collector runs with less than it is to observe; empty: it doesn't. A new run
    /// starts with the last one's until it sets its own.
    pub fn degrade(&self, cause: impl Into<String>) {
        let mut cause = cause.into();
        self.redactor.redact(&mut cause);
        self.lock().degradation = cause;
    }

    /// Why the collector runs with less than it is to observe; empty: it doesn't.
    #[must_use]
    pub fn degradation(&self) -> String {
        self.lock().degradation.clone()
    }

    /// Sets a named counter. The agent's table of collector metrics gives its metric.
    pub fn count(&self, name: &str, value: u64) {
        let mut inner = self.lock();
        match inner.counters.iter_mut().find(|c| c.0 == name) {
            Some(counter) => counter.1 = value,
            None => inner.counters.push((name.to_owned(), value)),
        }
    }

    /// The notes, oldest subject first.
    #[must_use]
    pub fn notes(&self) -> Vec<StatusNote> {
        self.lock().notes.clone()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        self.lock().counters.clone()
    }
}
