//! The right that a request needs.

/// The action of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Queries, pages, metrics.
    Read,
    /// Events and batches.
    Write,
    /// Annotations of stories, silences.
    Operate,
}

impl Right {
    /// Its name in token files and messages.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Operate => "operate",
        }
    }
}

/// The right that a request with a method to a path needs; `None`: everybody may, as for health
/// checks.
pub type Rights = fn(method: &http::Method, path: &str) -> Option<Right>;
