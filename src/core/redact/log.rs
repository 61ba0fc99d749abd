//! A writer that removes secrets from the lines of a log.

use std::io::{self, Write};
use std::sync::Arc;

use super::redactor::Redactor;

/// Writes to another writer without secrets. Each call of `write` must have whole lines, as a
/// formatter of log entries has.
pub struct RedactingWriter<W> {
    writer: W,
    redactor: Arc<Redactor>,
}

impl<W: Write> RedactingWriter<W> {
    /// Writes to `writer`.
    pub fn new(writer: W, redactor: Arc<Redactor>) -> Self {
        Self { writer, redactor }
    }
}

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.writer.write_all(self.redactor.text(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
