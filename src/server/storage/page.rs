//! Pages of a query's answer, and the bounds of the work for one.

use std::time::{Duration, Instant};

use super::query_filter::{Filter, InvalidParameter};
use super::summary::first_eight;
use tapio_core::clock;
use tapio_core::event::stable_hash;

const TOKEN_VERSION: u8 = 1;
/// Version, list, segment, offset, position, hash of the filter, checksum.
const TOKEN_BYTES: usize = 1 + 1 + 8 + 8 + 4 + 8 + 8;

/// The work for one page. A page ends when one of the bounds is reached, and has at least one of
/// the frames, so that the next page gets further.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Items in the page.
    pub items: usize,
    /// Bytes of the items in the page; a single larger item is a page of its own.
    pub bytes: usize,
    /// Segments that are read.
    pub segments: usize,
    /// Time.
    pub time: Duration,
}

impl Budget {
    /// Without bounds.
    pub const UNLIMITED: Self =
        Self { items: usize::MAX, bytes: usize::MAX, segments: usize::MAX, time: Duration::MAX };

    /// When the time is over; `None` for never.
    pub(super) fn deadline(&self) -> Option<Instant> {
        clock::instant().checked_add(self.time)
    }
}

/// A position in the log from which a page goes on with older items: those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub(super) segment: u64,
    /// Offset of a frame in the segment.
    pub(super) offset: u64,
    /// Position of an item in the frame.
    pub(super) position: u32,
}

/// The lists that a token can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Of events.
    Events = 1,
    /// Of stories.
    Stories = 2,
    /// Of incidents.
    Incidents = 3,
}

impl Cursor {
    /// Before the first page.
    pub const NEWEST: Self = Self { segment: u64::MAX, offset: u64::MAX, position: u32::MAX };

    /// Before every frame of a segment that is newer than none of the following ones.
    pub(super) fn end_of(segment: u64) -> Self {
        Self { segment, ..Self::NEWEST }
    }

    /// The token of the page that begins here. It belongs to a list and a filter.
    #[must_use]
    pub fn token(&self, list: List, filter: &Filter) -> String {
        let mut bytes = self.unchecked(list, filter);
        bytes.extend_from_slice(&stable_hash(&[&bytes])[..8]);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unchecked(&self, list: List, filter: &Filter) -> Vec<u8> {
        let mut bytes = vec![TOKEN_VERSION, list as u8];
        bytes.extend_from_slice(&self.segment.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.position.to_be_bytes());
        // The name of a severity stands for several numbers.
        let severity = filter.severity.0;
        // The rules of a pattern become known one after another.
        let filter = Filter { rules: Vec::new(), ..filter.clone() };
        let filter = format!("{filter:?} {severity}");
        bytes.extend_from_slice(&stable_hash(&[filter.as_bytes()])[..8]);
        bytes
    }

    /// The position of a token; an empty one is of the first page.
    ///
    /// # Errors
    /// Why the token isn't one of this list and filter.
    pub fn from_token(token: &str, list: List, filter: &Filter) -> Result<Self, InvalidParameter> {
        let invalid = |cause: &str| InvalidParameter { name: "page_token", cause: cause.into() };
        if token.is_empty() {
            return Ok(Self::NEWEST);
        }
        let foreign = || invalid("isn't a token that a server has returned");
        let bytes = from_hex(token).filter(|b| b.len() == TOKEN_BYTES).ok_or_else(foreign)?;
        let (content, checksum) = bytes.split_at(TOKEN_BYTES - 8);
        if stable_hash(&[content])[..8] != *checksum || content[0] != TOKEN_VERSION {
            return Err(foreign());
        }
        let position = content[18..22].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let cursor = Self {
            segment: first_eight(&content[2..10]),
            offset: first_eight(&content[10..18]),
            position,
        };
        if cursor.unchecked(list, filter) != content {
            let cause = "is of another query; the filters of all pages must be the same";
            return Err(invalid(cause));
        }
        Ok(cursor)
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?);
    text.as_bytes().chunks(2).map(pair).collect()
}

/// A page of an answer.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<Cursor>,
    /// Every matching item that was received at this time or later, and before the first page was
    /// requested, is in this page or in an earlier one. Nanoseconds since the Unix epoch; 0 for the
    /// last page.
    pub complete_since_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: Cursor = Cursor { segment: 3, offset: 1 << 40, position: 70_000 };

    fn filter() -> Filter {
        Filter { node: "a".into(), ..Filter::default() }
    }

    #[test]
    fn token_has_its_position() {
        let token = CURSOR.token(List::Events, &filter());
        assert_eq!(Cursor::from_token(&token, List::Events, &filter()), Ok(CURSOR));
        assert_eq!(Cursor::from_token("", List::Events, &filter()), Ok(Cursor::NEWEST));
    }

    #[test]
    fn changed_token_is_refused() {
        let token = CURSOR.token(List::Events, &filter());
        for at in 0..token.len() {
            for other in ["0", "f", "x", "é", ""] {
                if token[at..=at] == *other {
                    continue;
                }
                let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
                let error = Cursor::from_token(&changed, List::Events, &filter()).unwrap_err();
                let error = error.to_string();
                assert!(error.starts_with("page_token: isn't a token"), "{changed}: {error}");
            }
        }
    }

    #[test]
    fn token_of_another_query_is_refused() {
        let token = CURSOR.token(List::Events, &filter());
        let other = Filter { node: "b".into(), ..Filter::default() };
        for (list, filter) in [(List::Stories, filter()), (List::Events, other)] {
            let error = Cursor::from_token(&token, list, &filter).unwrap_err().to_string();
            assert!(error.starts_with("page_token: is of another query"), "{error}");
        }
    }
}
