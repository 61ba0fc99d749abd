//! Text with colours as lines that fit the terminal.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthChar as _;

use crate::cli::output::{BOLD, CYAN, DIM, RED, YELLOW};

/// Characters of a line of text that are shown.
const MAX_LINE: usize = 4000;

/// How the codes of [`crate::cli::output::Style`] are shown: in colours, or by weight alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    pub(super) has_colour: bool,
}

impl Palette {
    pub(super) fn style(self, code: &str) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let coloured =
            |style: Style, colour| if self.has_colour { style.fg(colour) } else { style };
        match code {
            BOLD => bold,
            DIM => Style::new().add_modifier(Modifier::DIM),
            RED => coloured(bold, Color::Red),
            YELLOW => coloured(bold, Color::Yellow),
            CYAN => coloured(Style::new(), Color::Cyan),
            _ => Style::new(),
        }
    }
}

/// The lines of a text whose only escapes are the colours of [`crate::cli::output::Style`], each at
/// most `width` columns wide. A line that is wrapped goes on with its own indent.
pub(super) fn lines(text: &str, width: usize, palette: Palette) -> Vec<Line<'static>> {
    let width = width.max(1);
    let mut out = Vec::new();
    for line in text.lines() {
        wrap(&characters(line, palette), width, &mut out);
    }
    out
}

/// The characters of a line with their styles.
fn characters(line: &str, palette: Palette) -> Vec<(char, Style)> {
    let mut out = Vec::new();
    let mut style = Style::new();
    for (place, part) in line.split('\u{1b}').enumerate() {
        let text = match (place, part.strip_prefix('[').and_then(|part| part.split_once('m'))) {
            (1.., Some((code, text))) => {
                style = palette.style(code);
                text
            }
            _ => part,
        };
        out.extend(text.chars().map(|c| (c, style)));
    }
    if out.len() > MAX_LINE {
        out.truncate(MAX_LINE);
        out.push(('…', Style::new()));
    }
    out
}

fn columns(characters: &[(char, Style)]) -> usize {
    characters.iter().map(|(c, _)| c.width().unwrap_or(0)).sum()
}

/// Number of characters that fit into `width` columns: up to a space if there is one, at least one.
fn fitting(characters: &[(char, Style)], width: usize) -> usize {
    let mut used = 0;
    let fits = |(c, _): &&(char, Style)| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    let count = characters.iter().take_while(fits).count();
    if count == characters.len() {
        return count;
    }
    // The space at which the line is wrapped may itself be beyond the width.
    let space = characters[..=count].iter().rposition(|(c, _)| *c == ' ');
    space.filter(|place| *place > 0).unwrap_or(count.max(1))
}

fn wrap(characters: &[(char, Style)], width: usize, out: &mut Vec<Line<'static>>) {
    let indent = characters.iter().take_while(|(c, _)| *c == ' ').count();
    // A number with a full stop, as actions have, counts for the indent.
    let number = characters[indent..].iter().take_while(|(c, _)| c.is_ascii_digit()).count();
    let dot = characters.get(indent + number).is_some_and(|(c, _)| *c == '.') && number > 0;
    let hanging = (indent + if dot { number + 2 } else { 0 }).min(width / 2);
    let mut rest = characters;
    let mut is_first = true;
    loop {
        let own = if is_first { 0 } else { hanging };
        let skipped = if is_first { indent.min(rest.len()) } else { 0 };
        let room = width.saturating_sub(own).max(1);
        // The indent of the first line is no place to wrap it.
        let indent_columns = columns(&rest[..skipped]).min(room.saturating_sub(1));
        let count = skipped + fitting(&rest[skipped..], room - indent_columns);
        let count = count.min(rest.len());
        out.push(spans(own, &rest[..count]));
        rest = &rest[count..];
        while let Some(((' ', _), after)) = rest.split_first() {
            rest = after;
        }
        is_first = false;
        if rest.is_empty() {
            return;
        }
    }
}

fn spans(indent: usize, characters: &[(char, Style)]) -> Line<'static> {
    let mut spans = vec![Span::raw(" ".repeat(indent))];
    for part in characters.chunk_by(|(_, a), (_, b)| a == b) {
        let text: String = part.iter().map(|(c, _)| *c).collect();
        spans.push(Span::styled(text, part[0].1));
    }
    spans.retain(|span| !span.content.is_empty());
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, width: usize) -> Vec<String> {
        let lines = lines(text, width, Palette { has_colour: true });
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lines_are_wrapped_at_spaces_with_their_indent() {
        assert_eq!(texts("a b\n\nc", 80), ["a b", "", "c"]);
        assert_eq!(texts("  one two three", 9), ["  one two", "  three"]);
        assert_eq!(texts("  1. check the log", 12), ["  1. check", "     the log"]);
        assert_eq!(texts("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(texts("日本語", 4), ["日本", "語"]);
        assert_eq!(texts("日本", 1), ["日", "本"], "wider than the terminal");
        assert_eq!(texts("      x", 3).concat().trim(), "x");
        assert_eq!(texts(&"x".repeat(9000), 80).concat().chars().count(), MAX_LINE + 1);
        for width in 0..10 {
            assert!(!texts("   1. a\u{301} bc  d", width).is_empty());
        }
    }

    #[test]
    fn colours_become_styles_and_no_escape_is_left() {
        let text = "a \u{1b}[1;31mERROR\u{1b}[0m b";
        let line = &lines(text, 80, Palette { has_colour: true })[0];
        assert_eq!(line.to_string(), "a ERROR b");
        assert_eq!(line.spans[1].style.fg, Some(Color::Red));
        assert_eq!(line.spans[2].style, Style::new());
        let line = &lines(text, 80, Palette { has_colour: false })[0];
        assert_eq!(line.spans[1].style, Style::new().add_modifier(Modifier::BOLD));
        assert!(!texts("a\u{1b}]0;x\u{1b}", 80)[0].contains('\u{1b}'));
    }
}
