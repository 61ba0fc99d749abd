//! The choice of the items that are exported.

/// The items that are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtlpSelection {
    /// Events and revisions of stories, as log records.
    pub logs: bool,
    /// Spans of applications and stories.
    pub traces: bool,
    /// Data points of applications.
    pub metrics: bool,
    /// The least severity number of a log record.
    pub min_severity: u8,
    /// Only stories, and events that belong to one.
    pub only_stories: bool,
}

impl Default for OtlpSelection {
    fn default() -> Self {
        Self { logs: true, traces: true, metrics: true, min_severity: 0, only_stories: false }
    }
}
