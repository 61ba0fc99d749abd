//! The stories that changed last.

use std::collections::HashSet;

use super::list::Row;

/// Stories that are kept.
pub(super) const MAX_STORIES: usize = 500;

/// A story as a row, with the ids of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) row: Row,
    /// Of the story and of its parts.
    pub(super) ids: Vec<String>,
}

/// The stories that changed last, last updated first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: Vec<Entry>,
}

impl Recent {
    /// Puts stories in front of the others. Those that they are revisions of, or parts of, are
    /// replaced.
    pub(super) fn merge(&mut self, newest: Vec<Entry>) {
        let replaced: HashSet<&String> = newest.iter().flat_map(|entry| &entry.ids).collect();
        self.entries.retain(|entry| !entry.ids.iter().any(|id| replaced.contains(id)));
        self.entries.splice(0..0, newest);
        self.entries.truncate(MAX_STORIES);
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        self.entries.iter().map(|entry| entry.row.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, parts: &[&str]) -> Entry {
        let ids = [&[id], parts].concat().into_iter().map(str::to_owned).collect();
        Entry { row: Row { key: id.to_owned(), cells: Vec::new() }, ids }
    }

    fn keys(recent: &Recent) -> Vec<String> {
        recent.rows().into_iter().map(|row| row.key).collect()
    }

    #[test]
    fn revisions_and_parts_are_replaced() {
        let mut recent = Recent::default();
        recent.merge(vec![entry("a", &[]), entry("b", &[]), entry("c", &[])]);
        recent.merge(vec![entry("c", &["b"])]);
        assert_eq!(keys(&recent), ["c", "a"]);
        recent.merge((0..MAX_STORIES).map(|n| entry(&n.to_string(), &[])).collect());
        assert_eq!(recent.rows().len(), MAX_STORIES);
        assert!(!keys(&recent).contains(&"a".to_owned()));
    }
}
