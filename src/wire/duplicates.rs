//! Marks events of a batch that are in the store already. They stay in the batch's bytes, as a
//! field that no reader decodes, so that the batch keeps its length and its number of items.

use super::decode::DUPLICATE_FIELD;
use super::raw_event::RawEvent;
use super::reader::{LEN, Reader};

/// The tags of an event and of a duplicate: one byte each.
const EVENT_TAG: u8 = 6 << 3 | LEN;
const DUPLICATE_TAG: u8 = (DUPLICATE_FIELD as u8) << 3 | LEN;

/// Marks the events for which `is_duplicate` holds, in a batch that [`super::Batch::parse`]
/// accepts. Returns their number.
pub fn mark_duplicates(
    batch: &mut [u8],
    mut is_duplicate: impl FnMut(RawEvent<'_>) -> bool,
) -> u32 {
    let mut tags = Vec::new();
    let mut r = Reader::new(batch);
    while !r.is_empty() {
        let at = r.range().start;
        let Ok((number, wire_type)) = r.tag() else { break };
        if (number, wire_type) == (6, LEN) {
            let Ok(event) = r.message() else { break };
            if is_duplicate(RawEvent::new(event)) {
                tags.push(at);
            }
        } else if r.skip(wire_type).is_err() {
            break;
        }
    }
    // Another encoder may have written the tag in more bytes than necessary.
    tags.retain(|at| batch[*at] == EVENT_TAG);
    tags.iter().for_each(|at| batch[*at] = DUPLICATE_TAG);
    tags.len() as u32
}
