//! The right that a request needs.

/// The action of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Queries, pages, metrics.
    Read,
    /// Events and batches.
    Write,
}

/// The right that a request to a path needs; `None`: everybody may, as for health checks.
pub type Rights = fn(path: &str) -> Option<Right>;
