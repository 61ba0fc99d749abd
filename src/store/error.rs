//! Causes for which a segment can't be used.

/// A segment file that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SegmentError {
    /// No bytes.
    #[error("empty")]
    Empty,
    /// Shorter than a head.
    #[error("shorter than the head of a segment")]
    TooShort,
    /// Not written by tapio.
    #[error("not a segment of tapio")]
    Alien,
    /// A segment, but both copies of its head are damaged.
    #[error("both copies of its head are corrupt")]
    CorruptHead,
    /// Written by another version of tapio.
    #[error("format version {0} isn't supported")]
    Version(u16),
    /// The number in its head isn't that of its name.
    #[error("it belongs to segment {0:016x}")]
    WrongNumber(u64),
}
