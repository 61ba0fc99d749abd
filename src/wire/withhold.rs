//! Events that are in the store already, taken out of a batch before it is stored: they stay where they are, as
//! a field nobody reads, so that the batch keeps its length and the number of its items.

use super::decode::{RawEvent, WITHHELD};
use super::reader::{LEN, Reader};

/// The tag of an event, and that of one that is withheld: a byte each.
const EVENT_TAG: u8 = 6 << 3 | LEN;
const WITHHELD_TAG: u8 = (WITHHELD as u8) << 3 | LEN;

/// Withholds the events that `is_known`, in a batch that [`super::Batch::parse`] has found sound. Returns their
/// number.
pub fn withhold(batch: &mut [u8], mut is_known: impl FnMut(RawEvent<'_>) -> bool) -> u32 {
    let mut tags = Vec::new();
    let mut r = Reader::new(batch);
    while !r.is_empty() {
        let at = r.range().start;
        let Ok((number, wire_type)) = r.tag() else { break };
        if (number, wire_type) == (6, LEN) {
            let Ok(event) = r.message() else { break };
            if is_known(RawEvent::new(event)) {
                tags.push(at);
            }
        } else if r.skip(wire_type).is_err() {
            break;
        }
    }
    // Another encoder may have written the tag in more bytes than it needs.
    tags.retain(|at| batch[*at] == EVENT_TAG);
    tags.iter().for_each(|at| batch[*at] = WITHHELD_TAG);
    tags.len() as u32
}
