//! The widths of a list's columns.

use unicode_width::UnicodeWidthStr as _;

use super::list::{List, Row};

/// Columns of the terminal between two columns of a list.
pub(super) const GAP: usize = 2;
/// Columns of the terminal that the last column has at least, as long as others can be left out.
const MIN_LAST: usize = 24;
/// Widest column but the last one.
const MAX_WIDTH: usize = 24;

/// The columns that fit into `width`, each with its own width. The last column has the rest.
pub(super) fn columns(list: &List, width: usize) -> Vec<(usize, usize)> {
    let last = list.columns.len().saturating_sub(1);
    let widest = |column: usize| {
        let of = |row: &Row| row.cells.get(column).map_or(0, |cell| cell.text.width());
        let widest = list.rows().iter().map(of).max().unwrap_or(0);
        // The mark of the order is behind the title.
        let title = list.columns[column].title.width() + 1;
        widest.max(title).max(list.columns[column].width).min(MAX_WIDTH)
    };
    let mut shown: Vec<(usize, usize)> = (0..last).map(|column| (column, widest(column))).collect();
    let used = |shown: &[(usize, usize)]| shown.iter().map(|(_, w)| w + GAP).sum::<usize>();
    while used(&shown) + MIN_LAST.min(width / 2) > width {
        let rank = |(_, (column, _)): &(usize, &(usize, usize))| list.columns[*column].rank;
        let Some((place, (column, _))) = shown.iter().enumerate().max_by_key(rank) else { break };
        if list.columns[*column].rank == 0 {
            break;
        }
        shown.remove(place);
    }
    let rest = width.saturating_sub(used(&shown));
    shown.push((last, rest));
    shown
}

#[cfg(test)]
mod tests {
    use super::super::list::Cell;
    use super::super::rows::{AGENTS, LOSSES, STORIES};
    use super::*;

    #[test]
    fn less_important_columns_are_left_out() {
        let mut list = List::new(STORIES);
        let texts = ["error", "open", "2026-11-30 10:00:00Z", "12", "worker-1", "a name"];
        let cells = texts.into_iter().map(Cell::text).collect();
        list.set_rows(vec![Row { key: String::new(), cells }]);
        let titles = |width| {
            let shown = columns(&list, width);
            let titles: Vec<&str> = shown.iter().map(|(c, _)| STORIES[*c].title).collect();
            (titles.join(" "), shown.last().map(|(_, width)| *width))
        };
        assert_eq!(titles(120), ("SEVERITY STATE SINCE EVENTS NODE NAME".into(), Some(60)));
        assert_eq!(titles(80), ("SEVERITY STATE SINCE EVENTS NAME".into(), Some(30)));
        assert_eq!(titles(40), ("SEVERITY STATE NAME".into(), Some(21)));
        assert_eq!(titles(20), ("NAME".into(), Some(20)));
        assert_eq!(titles(0).0, "NAME");
    }

    #[test]
    fn columns_never_exceed_the_terminal_where_they_can_be_left_out() {
        for all in [STORIES, AGENTS, LOSSES] {
            for width in 30..200 {
                let shown = columns(&List::new(all), width);
                let used: usize = shown.iter().map(|(_, width)| width + GAP).sum();
                assert!(used <= width + GAP, "{width}: {shown:?}");
            }
        }
    }
}
