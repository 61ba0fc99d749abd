//! The owner's index of its frames.

use super::frame::Frame;

/// The owner's index of a sealed segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedIndex {
    /// Stored in the footer, which a start reads.
    pub summary: Vec<u8>,
    /// Stored ahead of the footer, and read on demand ([`LogSnapshot::index`]); empty for none.
    pub index: Vec<u8>,
}

/// The owner's index of a log. Each segment has a summary, which is stored in its footer, so that a
/// start reads the frames of the last segment only.
pub trait SegmentIndex {
    /// Adds a frame of the segment that isn't sealed yet.
    fn frame(&mut self, frame: &Frame<'_>);
    /// Summarizes the frames that were added since the last call.
    fn seal(&mut self) -> SealedIndex;
    /// Removes all frames of a segment and of those after it: the disk failed to write some of
    /// them. The others are added again.
    fn discard(&mut self, segment: u64);
    /// Adds a sealed segment of an earlier process by its summary.
    fn sealed(&mut self, segment: u64, summary: &[u8]);
    /// Removes a segment.
    fn retired(&mut self, segment: u64);
}

/// No index.
impl SegmentIndex for () {
    fn frame(&mut self, _: &Frame<'_>) {}
    fn seal(&mut self) -> SealedIndex {
        SealedIndex::default()
    }
    fn discard(&mut self, _: u64) {}
    fn sealed(&mut self, _: u64, _: &[u8]) {}
    fn retired(&mut self, _: u64) {}
}
