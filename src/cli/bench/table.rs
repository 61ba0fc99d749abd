//! Tables and bars for a terminal.

/// The characters of bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charset {
    /// Block elements, an eighth of a column exact.
    Unicode,
    Ascii,
}

/// Width of a bar that stands for the largest value, in columns.
const BAR_COLUMNS: usize = 24;
/// Blocks of one to seven eighths.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

impl Charset {
    /// The terminal's, from the variables of the locale (locale(7)).
    pub(super) fn of_environment() -> Self {
        Self::of_locale(["LC_ALL", "LC_CTYPE", "LANG"].map(|name| std::env::var(name).ok()))
    }

    /// The first variable that has a value counts.
    fn of_locale(variables: [Option<String>; 3]) -> Self {
        let set = variables.into_iter().flatten().find(|value| !value.is_empty());
        let set = set.unwrap_or_default().to_lowercase();
        if set.contains("utf-8") || set.contains("utf8") { Self::Unicode } else { Self::Ascii }
    }

    /// A bar for a value from 0 to `largest`.
    pub(super) fn bar(self, value: f64, largest: f64) -> String {
        let share = if largest > 0.0 { (value / largest).clamp(0.0, 1.0) } else { 0.0 };
        let eighths = (share * (BAR_COLUMNS * 8) as f64).round() as usize;
        let (full, part) = (eighths / 8, eighths % 8);
        match self {
            Self::Unicode => {
                let part = part.checked_sub(1).map(|part| EIGHTHS[part]);
                "█".repeat(full).chars().chain(part).collect()
            }
            Self::Ascii => "#".repeat(full + usize::from(part >= 4)),
        }
    }

    /// An arrow between words.
    pub(super) fn arrow(self) -> &'static str {
        match self {
            Self::Unicode => "→",
            Self::Ascii => "->",
        }
    }
}

/// A table: the first column is aligned left, the others right, bars left.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    bars: Vec<usize>,
}

impl Table {
    /// A table with these titles; a title that is empty is that of a column of bars.
    pub(super) fn new<const N: usize>(titles: [&str; N]) -> Self {
        let bars = titles.iter().enumerate().skip(1).filter(|(_, title)| title.is_empty());
        let bars = bars.map(|(column, _)| column).collect();
        Self { rows: vec![titles.map(str::to_owned).to_vec()], bars }
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = " ".repeat(widths[column] - cell.chars().count());
                let is_left = column == 0 || self.bars.contains(&column);
                let cell = if is_left { cell.clone() + &gap } else { gap + cell };
                if column > 0 {
                    line.push_str("  ");
                }
                line.push_str(&cell);
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// A count with a comma between thousands.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with about three significant digits.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Nanoseconds as milliseconds.
pub(super) fn ms(ns: f64) -> String {
    short(ns / 1e6)
}

/// Bytes as mebibytes.
pub(super) fn mib(bytes: f64) -> String {
    format!("{:.0}", bytes / 1_048_576.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_bars_are_proportional() {
        let bar = |value| Charset::Unicode.bar(value, 48.0);
        let mut table = Table::new(["", "rate", "", "lost"]);
        table.row(["direct".into(), grouped(4_512_000), bar(48.0), "0".into()]);
        table.row(["tapio".into(), grouped(49), bar(3.5), "12".into()]);
        let expected = [
            "             rate                            lost",
            "direct  4,512,000  ████████████████████████     0",
            "tapio          49  █▊                          12",
        ];
        assert_eq!(table.lines(), expected);
    }

    #[test]
    fn bars_are_in_the_characters_of_the_locale() {
        let of = |all: &str, lang: &str| {
            Charset::of_locale([Some(all.to_owned()), None, Some(lang.to_owned())])
        };
        assert_eq!(of("", "en_US.UTF-8"), Charset::Unicode);
        assert_eq!(of("C", "en_US.UTF-8"), Charset::Ascii);
        assert_eq!(of("de_DE.utf8", ""), Charset::Unicode);
        assert_eq!(Charset::of_locale([None, None, None]), Charset::Ascii);
        assert_eq!(Charset::Ascii.bar(0.5, 1.0), "############");
        assert!(Charset::Ascii.bar(7.0, 1.0).is_ascii());
        assert_eq!(Charset::Unicode.bar(7.0, 1.0).chars().count(), BAR_COLUMNS);
        assert_eq!(Charset::Unicode.bar(1.0, 0.0), "");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.126, 3.25, 41.27, 1234.5].map(short), ["0.13", "3.25", "41.3", "1234"]);
        assert_eq!((ms(9_740_000.0), mib(80.0 * 1_048_576.0)), ("9.74".into(), "80".into()));
    }
}
