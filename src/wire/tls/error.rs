//! Why files can't be used.

use std::path::Path;

/// Why files can't be used: the file and the cause, never a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {cause}")]
pub struct TlsError {
    /// The file, or the key of the configuration.
    pub file: String,
    /// The cause.
    pub cause: String,
}

impl TlsError {
    pub(super) fn new(file: &Path, cause: impl ToString) -> Self {
        Self { file: file.display().to_string(), cause: cause.to_string() }
    }
}
