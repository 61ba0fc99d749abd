//! Why an agent can't start.

use super::lock::LockError;

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state folder is in use or can't be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A rule has an error.
    #[error("{0}")]
    Rules(String),
    /// An address, a thread or a file is unavailable.
    #[error("{context}: {cause}")]
    System {
        /// The component or the configuration key.
        context: String,
        /// The system's error.
        cause: std::io::Error,
    },
}

pub(super) fn system_error(context: &str) -> impl FnOnce(std::io::Error) -> StartError + '_ {
    move |cause| StartError::System { context: context.to_owned(), cause }
}
