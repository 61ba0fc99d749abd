//! Tables for terminals, and in Markdown.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::args::Format;
use super::style::{BOLD, Style, plain};

/// Spaces between two columns.
const GAP: usize = 2;
/// Columns of the terminal that the last column of a table needs, unless its text is shorter;
/// with fewer, it has a line of its own.
const MIN_LAST: usize = 40;
/// Widest column but the last one, on a terminal.
const MAX_WIDTH: usize = 48;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// Columns of the terminal that it has at least.
    pub(crate) width: usize,
    /// The columns with the highest rank are left out first on a narrow terminal, that with rank 0
    /// never.
    pub(crate) rank: u8,
}

/// Text in a table, without control characters.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    code: Option<&'static str>,
}

impl Cell {
    /// Text in a colour.
    pub(crate) fn painted(text: &str, code: &'static str) -> Self {
        Self { text: plain(text), code: Some(code) }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: plain(text.as_ref()), code: None }
    }
}

/// Rows below columns. The last column is the one of text of any length.
#[derive(Debug)]
pub(crate) struct Table {
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
    /// Of each column; they only grow from one part of the table to the next.
    widths: Vec<usize>,
    has_header: bool,
}

/// The columns that fit.
struct Layout {
    shown: Vec<usize>,
    /// Whether the last column has a line of its own.
    is_stacked: bool,
}

impl Table {
    pub(crate) fn new(columns: &'static [Column]) -> Self {
        let widths = columns.iter().map(|column| column.width.max(column.title.width())).collect();
        Self { columns, rows: Vec::new(), widths, has_header: false }
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Whether it has had no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && !self.has_header
    }

    /// Takes the rows out as lines, each with a line feed, below a header the first time.
    pub(crate) fn render(&mut self, format: Format, style: &Style) -> String {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return String::new();
        }
        let is_first = !std::mem::replace(&mut self.has_header, true);
        if format == Format::Markdown {
            return self.markdown(&rows, is_first);
        }
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        let layout = self.layout(style.width);
        let mut out = String::new();
        if is_first {
            let titles: Vec<Cell> =
                self.columns.iter().map(|column| Cell::painted(column.title, BOLD)).collect();
            self.line(&mut out, &titles, &layout, style);
        }
        rows.iter().for_each(|row| self.line(&mut out, row, &layout, style));
        out
    }

    /// The width of a column on a terminal of this width.
    fn width(&self, column: usize, terminal: Option<usize>) -> usize {
        let width = self.widths[column];
        terminal.map_or(width, |terminal| width.min(MAX_WIDTH).min(terminal))
    }

    fn layout(&self, terminal: Option<usize>) -> Layout {
        let last = self.columns.len().saturating_sub(1);
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let Some(terminal) = terminal else { return Layout { shown, is_stacked: false } };
        let others = |shown: &[usize]| -> usize {
            let of = |column: &usize| self.width(*column, Some(terminal)) + GAP;
            shown.iter().filter(|column| **column != last).map(of).sum()
        };
        let is_stacked = others(&shown) + self.widths[last].min(MIN_LAST) > terminal;
        while is_stacked && others(&shown).saturating_sub(GAP) > terminal {
            let rank =
                |column: &usize| if *column == last { 0 } else { self.columns[*column].rank };
            match shown.iter().copied().enumerate().max_by_key(|(_, column)| rank(column)) {
                Some((place, column)) if rank(&column) > 0 => shown.remove(place),
                _ => break,
            };
        }
        Layout { shown, is_stacked }
    }

    /// Appends a row: one line, or two where the last column is below the others.
    fn line(&self, out: &mut String, row: &[Cell], layout: &Layout, style: &Style) {
        let last = self.columns.len().saturating_sub(1);
        let (mut line, mut used) = (String::new(), 0);
        let mut pending = 0;
        for column in layout.shown.iter().copied() {
            let cell = &row[column];
            if column == last && layout.is_stacked {
                if cell.text.is_empty() {
                    continue;
                }
                out.push_str(line.trim_end());
                out.push('\n');
                (line, used, pending) = ("  ".to_owned(), 2, 0);
            }
            let left = style.width.map(|width| width.saturating_sub(used + pending));
            let width = self.width(column, style.width);
            let is_cut = style.width.is_some();
            let room = match left {
                Some(left) if column == last => left,
                Some(left) => width.min(left),
                None => usize::MAX,
            };
            let text =
                if is_cut { cut(&cell.text, room, style.ellipsis()) } else { cell.text.clone() };
            line.extend(std::iter::repeat_n(' ', pending));
            used += pending + text.width();
            line.push_str(&cell.code.map_or_else(|| text.clone(), |code| style.paint(&text, code)));
            pending = width.saturating_sub(text.width()) + GAP;
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }

    fn markdown(&self, rows: &[Vec<Cell>], is_first: bool) -> String {
        let mut out = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = String>| {
            let cells: Vec<String> = cells.collect();
            out.push_str(&format!("| {} |\n", cells.join(" | ")));
        };
        if is_first {
            line(&mut self.columns.iter().map(|column| column.title.to_lowercase()));
            line(&mut self.columns.iter().map(|_| "---".to_owned()));
        }
        for row in rows {
            line(&mut row.iter().map(|cell| markdown(&cell.text)));
        }
        out
    }
}

/// Text with its characters that mean something in Markdown escaped.
pub(crate) fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '|' | '`' | '*' | '<' | '[' | ']' | '#') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The text, cut off where it is wider than this.
fn cut(text: &str, width: usize, ellipsis: &str) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(ellipsis.width());
    let mut used = 0;
    let is_kept = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= room
    };
    let mut out: String = text.chars().take_while(is_kept).collect();
    if width >= ellipsis.width() {
        out.push_str(ellipsis);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column { title: "ID", width: 8, rank: 0 },
        Column { title: "TIME", width: 20, rank: 0 },
        Column { title: "STATE", width: 9, rank: 2 },
        Column { title: "NAME", width: 0, rank: 0 },
    ];

    fn table() -> Table {
        let mut table = Table::new(COLUMNS);
        let name = "日本 has a | name that is far too long for a narrow terminal\u{1b}[2J";
        table.row(vec![
            "0a1b2c3d".into(),
            "2026-11-30 10:00:00Z".into(),
            "open".into(),
            name.into(),
        ]);
        table.row(vec![
            "0a1b2c3e".into(),
            "2026-11-30 10:00:00Z".into(),
            "".into(),
            "short".into(),
        ]);
        table
    }

    fn lines(width: Option<usize>) -> Vec<String> {
        let style = Style { width, ..Style::bare() };
        table().render(Format::Text, &style).lines().map(str::to_owned).collect()
    }

    #[test]
    fn nothing_is_cut_where_there_is_no_terminal() {
        let lines = lines(None);
        assert_eq!(lines[0], "ID        TIME                  STATE      NAME");
        assert!(lines[1].ends_with(
            "open       日本 has a | name that is far too long for a narrow terminal·[2J"
        ));
        assert_eq!(lines[2], "0a1b2c3e  2026-11-30 10:00:00Z             short");
    }

    #[test]
    fn lines_fit_every_terminal() {
        for width in 1..120 {
            for line in lines(Some(width)) {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
        let narrow = lines(Some(40));
        assert_eq!(narrow[2], "0a1b2c3d  2026-11-30 10:00:00Z");
        assert_eq!(narrow[3], "  日本 has a | name that is far too lon…");
        assert_eq!(narrow.len(), 6);
        let wide = lines(Some(90));
        assert_eq!(wide.len(), 3, "{wide:?}");
    }

    #[test]
    fn header_is_printed_once_and_markdown_is_escaped() {
        let mut table = table();
        let first = table.render(Format::Markdown, &Style::bare());
        assert!(first.starts_with("| id | time | state | name |\n| --- | --- | --- | --- |\n"));
        assert!(first.contains(r"日本 has a \| name"), "{first}");
        assert_eq!(table.render(Format::Markdown, &Style::bare()), "");
        table.row(vec!["a".into(), "b".into(), "c".into(), "d".into()]);
        assert_eq!(table.render(Format::Markdown, &Style::bare()), "| a | b | c | d |\n");
    }
}
