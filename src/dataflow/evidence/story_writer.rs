//! Writes stories into the ring to the bridge.

use tapio_core::event::Story;
use tapio_core::ring::{RecordWriter, WriteError};

/// The outcome of writing a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is in the ring.
    Whole,
    /// The ring has no room.
    Full,
    /// It is larger than a record, even with one member.
    Oversize,
}

/// Writes a story; one that is larger than a record, with its first members: they are the most
/// informative, and all are counted.
pub(crate) fn write_story(writer: &mut RecordWriter, story: &mut Story) -> Written {
    loop {
        match writer.write_story(story) {
            Ok(()) => return Written::Whole,
            Err(WriteError::Full) => return Written::Full,
            Err(WriteError::Oversize) if story.members.len() > 1 => {
                story.members.truncate(story.members.len() / 2);
            }
            Err(WriteError::Oversize) => return Written::Oversize,
        }
    }
}
