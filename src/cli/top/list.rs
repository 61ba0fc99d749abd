//! A list on the screen: rows, their order, the search, and the selection.

use std::cmp::Ordering;

use crate::cli::output::{Column, plain};

/// The value by which a column sorts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SortValue {
    Text,
    Number(i128),
}

/// A cell of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// Without control characters.
    pub(super) text: String,
    value: SortValue,
    /// Its colour, as [`crate::cli::output::Style`] has it.
    pub(super) code: Option<&'static str>,
}

impl Cell {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self { text: plain(text.as_ref()), value: SortValue::Text, code: None }
    }

    pub(super) fn number(number: u64) -> Self {
        Self::sorted(number.to_string(), number.into())
    }

    /// Text that sorts by a number.
    pub(super) fn sorted(text: impl AsRef<str>, number: i128) -> Self {
        Self { value: SortValue::Number(number), ..Self::text(text) }
    }

    pub(super) fn painted(self, code: Option<&'static str>) -> Self {
        Self { code, ..self }
    }

    /// Numbers: the greatest first; text: by its characters.
    fn order(&self, other: &Self) -> Ordering {
        match (&self.value, &other.value) {
            (SortValue::Number(a), SortValue::Number(b)) => b.cmp(a),
            _ => self.text.cmp(&other.text),
        }
    }
}

/// A row of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Identifies the row while its content changes.
    pub(super) key: String,
    /// One for each column.
    pub(super) cells: Vec<Cell>,
}

/// A list of rows below columns.
#[derive(Debug)]
pub(super) struct List {
    pub(super) columns: &'static [Column],
    /// In the order of the source.
    rows: Vec<Row>,
    /// The rows that match the search, in the order of the list.
    shown: Vec<usize>,
    /// The column that sorts the rows; `None`: the order of the source.
    sort: Option<usize>,
    is_reverse: bool,
    search: String,
    /// The key of the selected row; `None`: the first one, whichever it is.
    selected: Option<String>,
    /// Place of the selection among the shown rows.
    place: usize,
    /// Shown rows above the screen.
    offset: usize,
    /// Rows that fit on the screen.
    height: usize,
}

impl List {
    pub(super) fn new(columns: &'static [Column]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
            shown: Vec::new(),
            sort: None,
            is_reverse: false,
            search: String::new(),
            selected: None,
            place: 0,
            offset: 0,
            height: 1,
        }
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn search(&self) -> &str {
        &self.search
    }

    /// Number of rows that match the search.
    pub(super) fn len(&self) -> usize {
        self.shown.len()
    }

    /// The rows on the screen, each with whether it is selected.
    pub(super) fn visible(&self) -> impl Iterator<Item = (&Row, bool)> {
        let places = self.shown.iter().enumerate().skip(self.offset).take(self.height);
        places.map(|(place, row)| (&self.rows[*row], place == self.place))
    }

    pub(super) fn selected(&self) -> Option<&Row> {
        self.shown.get(self.place).map(|row| &self.rows[*row])
    }

    /// The column that sorts and whether the order is reversed, for its title.
    pub(super) fn sort(&self) -> (Option<usize>, bool) {
        (self.sort, self.is_reverse)
    }

    pub(super) fn set_rows(&mut self, rows: Vec<Row>) {
        self.rows = rows;
        self.arrange();
    }

    pub(super) fn set_height(&mut self, height: usize) {
        self.height = height.max(1);
        self.scroll();
    }

    pub(super) fn set_search(&mut self, text: &str) {
        text.clone_into(&mut self.search);
        self.arrange();
    }

    /// Sorts by the next column; after the last one in the order of the source.
    pub(super) fn sort_by_next(&mut self) {
        let next = self.sort.map_or(0, |column| column + 1);
        self.sort = (next < self.columns.len()).then_some(next);
        self.is_reverse = false;
        self.arrange();
    }

    pub(super) fn reverse(&mut self) {
        self.is_reverse = !self.is_reverse;
        self.arrange();
    }

    /// Moves the selection by this many rows.
    pub(super) fn move_by(&mut self, rows: isize) {
        self.select(self.place.saturating_add_signed(rows));
    }

    /// Moves the selection by pages.
    pub(super) fn move_by_pages(&mut self, pages: isize) {
        let rows = isize::try_from(self.height.saturating_sub(1).max(1)).unwrap_or(1);
        self.move_by(pages.saturating_mul(rows));
    }

    /// Selects the first row, whichever it is from now on.
    pub(super) fn select_first(&mut self) {
        self.selected = None;
        self.place = 0;
        self.scroll();
    }

    pub(super) fn select_last(&mut self) {
        self.select(usize::MAX);
    }

    fn select(&mut self, place: usize) {
        self.place = place.min(self.shown.len().saturating_sub(1));
        self.selected = self.selected().map(|row| row.key.clone());
        self.scroll();
    }

    /// Finds the rows that match, sorts them, and finds the selection again. Where the selected row
    /// is gone, its place is selected.
    fn arrange(&mut self) {
        let search = self.search.to_lowercase();
        let matches = |row: &Row| {
            let is_found = |cell: &Cell| cell.text.to_lowercase().contains(&search);
            search.is_empty() || row.key.starts_with(&search) || row.cells.iter().any(is_found)
        };
        let rows = &self.rows;
        self.shown = (0..rows.len()).filter(|row| matches(&rows[*row])).collect();
        if let Some(column) = self.sort {
            let cell = |row: &usize| rows[*row].cells.get(column);
            self.shown.sort_by(|a, b| match (cell(a), cell(b)) {
                (Some(a), Some(b)) => a.order(b),
                _ => Ordering::Equal,
            });
        }
        if self.is_reverse {
            self.shown.reverse();
        }
        if let Some(key) = &self.selected {
            let found = self.shown.iter().position(|row| rows[*row].key == *key);
            self.place = found.unwrap_or(self.place);
        } else {
            self.place = 0;
        }
        self.place = self.place.min(self.shown.len().saturating_sub(1));
        self.scroll();
    }

    /// Scrolls so that the selection is on the screen, and no more than necessary is empty.
    fn scroll(&mut self) {
        let last_offset = self.shown.len().saturating_sub(self.height);
        let lowest = (self.place + 1).saturating_sub(self.height);
        self.offset = self.offset.clamp(lowest, self.place).min(last_offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column { title: "NAME", width: 0, rank: 0 },
        Column { title: "EVENTS", width: 0, rank: 0 },
    ];

    fn list(rows: &[(&str, u64)]) -> List {
        let mut list = List::new(COLUMNS);
        list.set_height(3);
        list.set_rows(rows.iter().map(|(name, events)| row(name, *events)).collect());
        list
    }

    fn row(name: &str, events: u64) -> Row {
        Row { key: name.to_owned(), cells: vec![Cell::text(name), Cell::number(events)] }
    }

    fn visible(list: &List) -> String {
        let mark = |is_selected| if is_selected { "*" } else { "" };
        let rows = list.visible().map(|(row, is)| row.key.clone() + mark(is));
        rows.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn sort_goes_through_the_columns_and_numbers_sort_as_numbers() {
        let mut list = list(&[("c", 9), ("a", 10), ("b", 100)]);
        assert_eq!(visible(&list), "c* a b");
        list.sort_by_next();
        assert_eq!(visible(&list), "a* b c");
        list.sort_by_next();
        assert_eq!(visible(&list), "b* a c");
        list.reverse();
        assert_eq!(visible(&list), "c* a b");
        list.sort_by_next();
        assert_eq!((visible(&list).as_str(), list.sort()), ("c* a b", (None, false)));
    }

    #[test]
    fn selection_stays_with_its_row() {
        let mut list = list(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
        list.set_rows(vec![row("new", 0), row("a", 1)]);
        assert_eq!(visible(&list), "new* a", "nothing was selected: the first row is");
        list.move_by(1);
        list.set_rows(vec![row("newer", 0), row("new", 0), row("x", 0), row("a", 7)]);
        assert_eq!(visible(&list), "new x a*");
        list.set_rows(vec![row("newer", 0), row("new", 0)]);
        assert_eq!(visible(&list), "newer new*", "the row is gone: its place, or the last one");
        list.set_rows(Vec::new());
        assert_eq!((visible(&list).as_str(), list.selected()), ("", None));
        list.move_by(1);
        list.move_by(-5);
        list.select_last();
        list.set_rows(vec![row("a", 1)]);
        assert_eq!(visible(&list), "a*");
    }

    #[test]
    fn screen_follows_the_selection() {
        let mut list = list(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)]);
        list.move_by(3);
        assert_eq!(visible(&list), "b c d*");
        list.move_by(-1);
        assert_eq!(visible(&list), "b c* d");
        list.select_last();
        assert_eq!(visible(&list), "c d e*");
        list.move_by_pages(-1);
        assert_eq!(visible(&list), "c* d e");
        list.set_height(100);
        assert_eq!(visible(&list), "a b c* d e");
        list.set_height(0);
        assert_eq!(visible(&list), "c*");
        list.select_first();
        assert_eq!(visible(&list), "a*");
    }

    #[test]
    fn search_is_in_every_column_in_upper_or_lower_case() {
        let mut list = list(&[("Nginx", 1), ("b", 12), ("c\u{1b}[2J", 3)]);
        list.set_search("nGINX");
        assert_eq!(visible(&list), "Nginx*");
        list.set_search("12");
        assert_eq!(visible(&list), "b*");
        list.set_search("absent");
        assert_eq!((visible(&list).as_str(), list.len()), ("", 0));
        list.set_search("");
        assert_eq!(list.len(), 3);
        assert_eq!(list.rows()[2].cells[0].text, "c·[2J");
    }
}
