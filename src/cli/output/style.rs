//! The style of text: colours, characters, time zone, width.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::IsTerminal as _;

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

use super::args::{Color, OutputArgs};
use super::stdout::{OutputError, print};
use tapio_core::clock;
use tapio_core::event::Severity;

/// Bold text.
pub(crate) const BOLD: &str = "1";
/// Dimmed text.
pub(crate) const DIM: &str = "2";
/// The colour of errors.
pub(crate) const RED: &str = "1;31";
/// The colour of warnings, and of root causes.
pub(crate) const YELLOW: &str = "1;33";
/// The colour of everything normal.
pub(crate) const CYAN: &str = "36";

/// Columns of a terminal that has no size.
const DEFAULT_COLUMNS: usize = 80;

/// The style of text.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    /// Whether text is coloured.
    pub(crate) colour: bool,
    /// Whether the locale has ASCII only.
    pub(super) ascii: bool,
    /// The time zone of times.
    pub(super) zone: TimeZone,
    /// The columns of the terminal; `None`: lines are as long as they are.
    pub(crate) width: Option<usize>,
}

impl Style {
    /// The style that the arguments and the environment select for standard output.
    pub(crate) fn new(args: &OutputArgs) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        Self {
            colour: colour(args.color, is_terminal, |name| std::env::var_os(name)),
            ascii: is_ascii(|name| std::env::var(name).ok()),
            zone: if args.utc { TimeZone::UTC } else { TimeZone::system() },
            width: is_terminal.then(columns),
        }
    }

    /// The style that the environment selects for standard output.
    pub(crate) fn from_environment() -> Self {
        Self::new(&OutputArgs::default())
    }

    /// No colours, UTC, any width.
    #[cfg(test)]
    pub(crate) fn bare() -> Self {
        Self { colour: false, ascii: false, zone: TimeZone::UTC, width: None }
    }

    /// The same with colours, for a terminal of this width.
    pub(crate) fn coloured(&self, width: usize) -> Self {
        Self { colour: true, width: Some(width), ..self.clone() }
    }

    /// The text in a colour, where there are colours.
    pub(crate) fn paint(&self, text: &str, code: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A severity in upper case, in its colour.
    pub(crate) fn severity(&self, severity: Severity) -> String {
        self.paint(&severity.as_str().to_uppercase(), severity_code(severity))
    }

    /// A time with its date, to the millisecond: `2026-11-30 10:00:00.123+02:00`.
    pub(crate) fn time(&self, time_ns: u64) -> String {
        self.format_time(time_ns, "%Y-%m-%d %H:%M:%S%.3f")
    }

    /// A time with its date, to the second.
    pub(crate) fn time_to_second(&self, time_ns: u64) -> String {
        self.format_time(time_ns, "%Y-%m-%d %H:%M:%S")
    }

    /// The time in the zone of times.
    pub(crate) fn now(&self) -> Zoned {
        let now = Timestamp::from_nanosecond(i128::from(clock::wall_ns()));
        now.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(self.zone.clone())
    }

    fn format_time(&self, time_ns: u64, format: &str) -> String {
        let Ok(time) = Timestamp::from_nanosecond(i128::from(time_ns)) else {
            return time_ns.to_string();
        };
        let time = time.to_zoned(self.zone.clone());
        let offset = if time.offset() == Offset::UTC {
            "Z".to_owned()
        } else {
            time.strftime("%:z").to_string()
        };
        format!("{}{offset}", time.strftime(format))
    }

    /// The mark of text that was cut off.
    pub(super) fn ellipsis(&self) -> &'static str {
        if self.ascii { "..." } else { "…" }
    }

    /// Text in the locale's characters: without others, if it has ASCII only.
    pub(crate) fn encode<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.ascii || text.is_ascii() {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                c if c.is_ascii() => out.push(c),
                '…' => out.push_str("..."),
                '▶' => out.push('>'),
                '↓' => out.push('v'),
                '↑' => out.push('^'),
                '■' => out.push('#'),
                '□' | '·' | '–' | '—' => out.push('-'),
                _ => out.push('?'),
            }
        }
        Cow::Owned(out)
    }

    /// Prints a line of text to standard output.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(crate) fn print(&self, line: &str) -> Result<(), OutputError> {
        print(&self.encode(line))
    }
}

/// The colour of a severity.
pub(crate) fn severity_code(severity: Severity) -> &'static str {
    match severity {
        s if s >= Severity::ERROR => RED,
        s if s >= Severity::WARN => YELLOW,
        _ => CYAN,
    }
}

/// Text without characters that control a terminal or reorder its text, each replaced by `·`: names
/// and messages are other programs' output.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_control(c) { '·' } else { c }).collect()
}

/// Control characters, separators of lines, and marks that change the direction of text.
pub(super) fn is_control(c: char) -> bool {
    let is_mark = matches!(
        c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    c.is_control() || is_mark
}

fn colour(choice: Color, is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let is_on = |name: &str| is_set(name) && variable(name).is_some_and(|value| value != "0");
    match choice {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if is_set("NO_COLOR") => false,
        Color::Auto if is_on("CLICOLOR_FORCE") => true,
        Color::Auto => {
            let is_off = variable("CLICOLOR").is_some_and(|value| value == "0");
            is_terminal && !is_off && variable("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

/// Whether the locale has ASCII only: `C`, `POSIX`, or a character set that isn't UTF-8. Without a
/// locale, as in a container, it is UTF-8.
fn is_ascii(variable: impl Fn(&str) -> Option<String>) -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let locale = names.into_iter().filter_map(variable).find(|value| !value.is_empty());
    let Some(locale) = locale else { return false };
    match locale.split_once('.') {
        Some((_, set)) => {
            let set = set.split('@').next().unwrap_or_default().to_ascii_lowercase();
            set != "utf-8" && set != "utf8"
        }
        None => locale == "C" || locale == "POSIX",
    }
}

/// The columns of the terminal: `$COLUMNS`, else its size.
fn columns() -> usize {
    let set = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let of_terminal = || {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        size.map(|size| usize::from(size.ws_col))
    };
    set.or_else(of_terminal).filter(|columns| *columns > 0).unwrap_or(DEFAULT_COLUMNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_date_and_offset() {
        let mut style = Style::bare();
        let time_ns = 1_700_000_000_123_456_789;
        assert_eq!(style.time(time_ns), "2023-11-14 22:13:20.123Z");
        style.zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(style.time(time_ns), "2023-11-15 00:13:20.123+02:00");
        assert_eq!(style.time(u64::MAX), "2554-07-22 01:34:33.709+02:00");
    }

    #[test]
    fn colour_follows_argument_then_variables_then_terminal() {
        let with = |choice, is_terminal, set: &[(&str, &str)]| {
            let variable = |name: &str| {
                set.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
            };
            colour(choice, is_terminal, variable)
        };
        assert!(with(Color::Auto, true, &[]) && !with(Color::Auto, false, &[]));
        assert!(with(Color::Auto, true, &[("NO_COLOR", "")]));
        assert!(!with(Color::Auto, true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]));
        assert!(with(Color::Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!with(Color::Auto, false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!with(Color::Auto, true, &[("TERM", "dumb")]));
        assert!(!with(Color::Auto, true, &[("CLICOLOR", "0")]));
        assert!(with(Color::Always, false, &[("NO_COLOR", "1")]));
        assert!(!with(Color::Never, true, &[("CLICOLOR_FORCE", "1")]));
    }

    #[test]
    fn locale_selects_the_characters() {
        let with = |set: &[(&str, &str)]| {
            is_ascii(|name| {
                set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(with(&[("LANG", "C")]) && with(&[("LANG", "POSIX")]));
        assert!(with(&[("LANG", "de_DE.ISO-8859-1@euro")]));
        assert!(!with(&[]) && !with(&[("LANG", "C.UTF-8")]) && !with(&[("LANG", "en_US.utf8")]));
        assert!(with(&[("LANG", "en_US.UTF-8"), ("LC_ALL", "C")]), "LC_ALL is first");
        assert!(!with(&[("LANG", "en_US.UTF-8"), ("LC_ALL", "")]), "an empty one is none");
        let ascii = Style { ascii: true, ..Style::bare() };
        assert_eq!(ascii.encode("▶ a · ü…"), "> a - ?...");
    }

    #[test]
    fn no_text_controls_a_terminal() {
        assert_eq!(plain("a\u{1b}[2J\u{9b}1m\r\n\u{7f}\u{202e}\u{2028}ü"), "a·[2J·1m·····ü");
    }
}
