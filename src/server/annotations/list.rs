//! The list of annotations in force, in pages, oldest first.

use super::entry::{Action, Entry};
use super::entry_key::{EntryKey, KEY_BYTES};
use super::marks::{Marks, is_in_force};
use tapio_core::event::{TraceId, stable_hash};

/// Bytes of the texts of a page; a page has at least one entry.
const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// Bytes of an entry besides its texts, about.
const ENTRY_BYTES: usize = 256;
/// Bytes of the hash of a filter, and of a checksum, in a token.
const HASH_BYTES: usize = 8;

/// Selects annotations; an entry must match all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnnotationFilter {
    /// About the story with one of these ids; empty: any, and silences.
    pub(crate) stories: Vec<TraceId>,
    /// Of one of these actions; empty: any.
    pub(crate) actions: Vec<String>,
    /// From this time on, nanoseconds since the Unix epoch.
    pub(crate) since_ns: u64,
    /// Before this time; 0: any.
    pub(crate) until_ns: u64,
}

impl AnnotationFilter {
    fn matches(&self, entry: &Entry) -> bool {
        let is_of_story = || entry.story().is_some_and(|of| self.stories.contains(&of));
        (self.stories.is_empty() || is_of_story())
            && (self.actions.is_empty() || self.actions.iter().any(|a| a == entry.action.name()))
            && entry.time_ns >= self.since_ns
            && (self.until_ns == 0 || entry.time_ns < self.until_ns)
    }

    /// The token of the page behind an entry. It belongs to this filter.
    pub(crate) fn token(&self, after: EntryKey) -> String {
        let mut bytes = after.bytes().to_vec();
        bytes.extend_from_slice(&self.hash());
        bytes.extend_from_slice(&stable_hash(&[&bytes])[..HASH_BYTES]);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The entry behind which the page of a token begins.
    ///
    /// # Errors
    /// Why it isn't a token of this list and filter.
    pub(crate) fn parse_token(&self, token: &str) -> Result<EntryKey, &'static str> {
        let foreign = "isn't a token that a server has returned";
        let bytes = from_hex(token).filter(|b| b.len() == KEY_BYTES + 2 * HASH_BYTES);
        let bytes = bytes.ok_or(foreign)?;
        let (content, checksum) = bytes.split_at(KEY_BYTES + HASH_BYTES);
        if stable_hash(&[content])[..HASH_BYTES] != *checksum {
            return Err(foreign);
        }
        let (key, hash) = content.split_at(KEY_BYTES);
        if *hash != self.hash() {
            return Err("is of another query; the filters of all pages must be the same");
        }
        EntryKey::from_bytes(key).ok_or(foreign)
    }

    fn hash(&self) -> [u8; HASH_BYTES] {
        let hash = stable_hash(&[b"annotations", format!("{self:?}").as_bytes()]);
        std::array::from_fn(|at| hash[at])
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?);
    text.as_bytes().chunks(2).map(pair).collect()
}

/// A page of annotations.
pub(crate) struct AnnotationPage {
    /// Oldest first.
    pub(crate) entries: Vec<Entry>,
    /// The last entry, if there are more behind it.
    pub(crate) next: Option<EntryKey>,
}

impl Marks {
    /// At most `limit` entries behind `after` that match a filter and are in force at `now_ns`.
    pub(crate) fn page(
        &self,
        filter: &AnnotationFilter,
        after: Option<EntryKey>,
        limit: usize,
        now_ns: u64,
    ) -> AnnotationPage {
        let is_over = |entry: &Entry| {
            matches!(entry.action, Action::Silence { .. }) && !is_in_force(entry, now_ns)
        };
        let mut found: Vec<(EntryKey, &Entry)> = self
            .keyed()
            .filter(|(key, entry)| {
                after.is_none_or(|after| *key > after) && filter.matches(entry) && !is_over(entry)
            })
            .collect();
        found.sort_unstable_by_key(|(key, _)| *key);
        let (mut entries, mut bytes, mut last) = (Vec::new(), 0, None);
        let total = found.len();
        for (key, entry) in found {
            bytes += ENTRY_BYTES + entry.text_bytes();
            if entries.len() >= limit || (bytes > MAX_PAGE_BYTES && !entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
            last = Some(key);
        }
        let next = last.filter(|_| entries.len() < total);
        AnnotationPage { entries, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> TraceId {
        TraceId(std::array::from_fn(|at| if at == 15 { number as u8 } else { 0 }))
    }

    /// Annotations of many stories, several of a time; the last is a silence until 100.
    fn marks() -> Marks {
        let mut marks = Marks::default();
        for number in 0..40 {
            let story = id(number % 10).to_string();
            let action = match number % 3 {
                0 => Action::Note { story, text: number.to_string() },
                1 => Action::Acknowledge { story },
                _ => Action::WrongCause { story, cause: "c".into(), first_cause: String::new() },
            };
            marks.apply(Entry { time_ns: number / 4, by: String::new(), action });
        }
        marks.apply(Entry {
            time_ns: 50,
            by: String::new(),
            action: Action::Silence {
                id: "a".into(),
                rule: "r".into(),
                key: Default::default(),
                until_ns: 100,
                reason: String::new(),
            },
        });
        marks
    }

    fn listed(marks: &Marks, filter: &AnnotationFilter, limit: usize) -> Vec<Entry> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = marks.page(filter, after, limit, 60);
            assert!(page.entries.len() <= limit);
            all.extend(page.entries);
            let Some(next) = page.next else { return all };
            after = Some(filter.parse_token(&filter.token(next)).unwrap());
        }
    }

    #[test]
    fn pages_of_any_size_have_each_entry_once_in_order() {
        let marks = marks();
        let filters = [
            AnnotationFilter::default(),
            AnnotationFilter { stories: vec![id(3), id(4)], ..AnnotationFilter::default() },
            AnnotationFilter { actions: vec!["note".into()], ..AnnotationFilter::default() },
            AnnotationFilter { since_ns: 3, until_ns: 7, ..AnnotationFilter::default() },
        ];
        for filter in &filters {
            let expected: Vec<Entry> = marks
                .entries()
                .into_iter()
                .filter(|entry| filter.matches(entry))
                .cloned()
                .collect();
            assert!(expected.is_sorted_by_key(|entry| entry.time_ns) && !expected.is_empty());
            for limit in [1, 2, 3, 7, 100] {
                assert_eq!(listed(&marks, filter, limit), expected, "{filter:?}, {limit}");
            }
        }
    }

    #[test]
    fn silence_that_is_over_is_not_listed() {
        let marks = marks();
        let filter =
            AnnotationFilter { actions: vec!["silence".into()], ..AnnotationFilter::default() };
        assert_eq!(marks.page(&filter, None, 9, 99).entries.len(), 1);
        assert_eq!(marks.page(&filter, None, 9, 100).entries.len(), 0);
    }

    #[test]
    fn large_texts_end_a_page() {
        let mut marks = Marks::default();
        for time_ns in 0..10 {
            let text = "x".repeat(MAX_PAGE_BYTES / 4);
            let action = Action::Note { story: id(1).to_string(), text };
            marks.apply(Entry { time_ns, by: String::new(), action });
        }
        let filter = AnnotationFilter::default();
        assert_eq!(marks.page(&filter, None, 100, 0).entries.len(), 3);
        assert_eq!(listed(&marks, &filter, 100).len(), 10);
    }

    #[test]
    fn foreign_tokens_are_refused() {
        let filter = AnnotationFilter::default();
        let page = marks().page(&filter, None, 1, 0);
        let token = filter.token(page.next.unwrap());
        let other = AnnotationFilter { since_ns: 1, ..AnnotationFilter::default() };
        assert!(other.parse_token(&token).unwrap_err().starts_with("is of another query"));
        for at in 0..token.len() {
            for digit in ["0", "f", "x", "ä", ""] {
                let changed = format!("{}{digit}{}", &token[..at], &token[at + 1..]);
                if changed != token {
                    assert!(filter.parse_token(&changed).is_err(), "{changed}");
                }
            }
        }
    }
}
