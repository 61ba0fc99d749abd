//! Frames and their positions.

use super::format::FRAME_OVERHEAD_BYTES;

/// A frame of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it is.
    pub position: FramePosition,
    /// Time of receipt, nanoseconds since the Unix epoch.
    pub receipt_ns: u64,
    /// The appended bytes.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The position behind it.
    #[must_use]
    pub fn end(&self) -> FramePosition {
        let bytes = FRAME_OVERHEAD_BYTES + self.payload.len() as u64;
        FramePosition { offset: self.position.offset + bytes, ..self.position }
    }
}

/// The place of a frame in a log. Positions are ordered as the frames were appended, and are never
/// used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FramePosition {
    /// Number of the segment.
    pub segment: u64,
    /// Offset in the segment's file, bytes.
    pub offset: u64,
}
