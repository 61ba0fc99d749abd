//! Draws the state.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::layout::{self, GAP};
use super::list::{List, Row};
use super::state::{State, View};
use crate::cli::output::{BOLD, DIM, YELLOW, plain};

/// Mark in front of the selected row, and its width.
const MARK: &str = "> ";
const MARK_WIDTH: u16 = 2;

/// Draws the state. All text is without control characters.
pub(super) fn render(state: &State, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let mut canvas = Canvas { state, area, buffer };
    canvas.title();
    let footer = state.footer();
    let bottom = area.height.saturating_sub(u16::try_from(footer.len()).unwrap_or(u16::MAX));
    if state.is_help {
        canvas.lines(1, bottom, state.help().iter());
    } else if let Some(document) = state.document() {
        let heading = format!("{}  {}", document.title(), document.place());
        canvas.put(0, 1, &heading, state.palette.style(BOLD));
        canvas.lines(2, bottom, document.visible().map(|(line, _)| line));
        let found = (2..bottom).zip(document.visible()).find(|(_, (_, is_found))| *is_found);
        if let Some((y, _)) = found {
            canvas.reverse(y);
        }
    } else {
        canvas.list(bottom);
    }
    canvas.lines(bottom, area.height, footer.iter());
}

struct Canvas<'a> {
    state: &'a State,
    area: Rect,
    buffer: &'a mut Buffer,
}

impl Canvas<'_> {
    /// Puts text into a row, as far as it fits; returns the column behind it.
    fn put(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        if x >= self.area.width || y >= self.area.height {
            return x;
        }
        let text = self.state.style.encode(text);
        let room = usize::from(self.area.width - x);
        let (left, top) = (self.area.x + x, self.area.y + y);
        let (end, _) = self.buffer.set_stringn(left, top, text, room, style);
        end - self.area.x
    }

    /// Marks a row.
    fn reverse(&mut self, y: u16) {
        if y < self.area.height {
            let line = Rect { y: self.area.y + y, height: 1, ..self.area };
            self.buffer.set_style(line, Modifier::REVERSED);
        }
    }

    /// Text in the locale's characters, cut to a width.
    fn cut(&self, text: &str, width: usize) -> String {
        let style = &self.state.style;
        cut(&style.encode(text), width, &style.encode("…")).into_owned()
    }

    /// Puts lines into the rows from `top` on and before `bottom`.
    fn lines<'l>(
        &mut self,
        top: u16,
        bottom: u16,
        lines: impl Iterator<Item = &'l ratatui::text::Line<'static>>,
    ) {
        for (y, line) in (top..bottom).zip(lines) {
            let mut x = 0;
            for span in &line.spans {
                x = self.put(x, y, &span.content, span.style);
            }
        }
    }

    /// The views with their numbers of rows, and the server.
    fn title(&mut self) {
        let state = self.state;
        let mut x = 0;
        for (number, view) in (1..).zip(View::ALL) {
            let text = format!("{number} {} {}", view.name(), state.list(view).rows().len());
            let style = match view == state.view {
                true => state.palette.style(BOLD).add_modifier(Modifier::UNDERLINED),
                false => Style::new(),
            };
            x = self.put(x, 0, &text, style) + 2;
        }
        let (server, style) = match state.away {
            Some(_) => ("server away".to_owned(), state.palette.style(YELLOW)),
            None => (plain(&state.addresses.server), state.palette.style(DIM)),
        };
        let width = u16::try_from(server.width()).unwrap_or(u16::MAX);
        if let Some(start) = self.area.width.checked_sub(width)
            && start >= x
        {
            self.put(start, 0, &server, style);
        }
    }

    fn list(&mut self, bottom: u16) {
        let (state, list) = (self.state, self.state.list(self.state.view));
        let width = usize::from(self.area.width.saturating_sub(MARK_WIDTH));
        let columns = layout::columns(list, width);
        self.header(list, &columns);
        if list.rows().is_empty() {
            self.put(MARK_WIDTH, 2, state.view.empty(), Style::new());
        } else if list.len() == 0 {
            let text = format!("nothing matches {:?}; Esc ends the search", list.search());
            self.put(MARK_WIDTH, 2, &plain(&text), Style::new());
        }
        for (y, (row, is_selected)) in (2..bottom).zip(list.visible()) {
            if is_selected {
                self.put(0, y, MARK, Style::new());
            }
            self.row(y, row, &columns, is_selected);
            if is_selected {
                self.reverse(y);
            }
        }
    }

    fn header(&mut self, list: &List, columns: &[(usize, usize)]) {
        let (sort, is_reverse) = list.sort();
        let mut x = MARK_WIDTH;
        let style = self.state.palette.style(BOLD);
        for (column, width) in columns {
            let mark = match sort == Some(*column) {
                true if is_reverse => "↑",
                true => "↓",
                false => "",
            };
            let title = format!("{}{mark}", list.columns[*column].title);
            self.put(x, 1, &self.cut(&title, *width), style);
            x = x.saturating_add(u16::try_from(width + GAP).unwrap_or(u16::MAX));
        }
        if !list.search().is_empty() {
            let text = format!("  /{} {} of {}", list.search(), list.len(), list.rows().len());
            let text = self.cut(&plain(&text), usize::from(self.area.width));
            let width = u16::try_from(text.width()).unwrap_or(u16::MAX);
            self.put(self.area.width.saturating_sub(width), 1, &text, style);
        }
    }

    /// Puts a row. The selected one has no colours: reversed, they would be backgrounds.
    fn row(&mut self, y: u16, row: &Row, columns: &[(usize, usize)], is_selected: bool) {
        let mut x = MARK_WIDTH;
        for (column, width) in columns {
            let Some(cell) = row.cells.get(*column) else { continue };
            let code = cell.code.filter(|_| !is_selected);
            let style = code.map_or_else(Style::new, |code| self.state.palette.style(code));
            self.put(x, y, &self.cut(&cell.text, *width), style);
            x = x.saturating_add(u16::try_from(width + GAP).unwrap_or(u16::MAX));
        }
    }
}

/// Text that is at most `width` columns wide, with a mark where it was cut.
fn cut<'t>(text: &'t str, width: usize, mark: &str) -> Cow<'t, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let Some(room) = width.checked_sub(mark.width()) else {
        return Cow::Borrowed("");
    };
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= room
    };
    Cow::Owned(text.chars().take_while(fits).chain(mark.chars()).collect())
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::style::Color;

    use super::super::keys::update;
    use super::super::list::Cell;
    use super::super::message::{Content, Key, Message, Request};
    use super::*;
    use crate::cli::output::RED;

    fn rows(count: usize) -> Vec<Row> {
        let row = |n: usize| {
            let name = format!("story {n} of hostile \u{1b}[31m\u{202e} and long text without end");
            let texts = ["open", "2026-11-30 10:00:00Z", "12", "worker-1", &name];
            let severity = Cell::text("error").painted(Some(RED));
            let cells = [severity].into_iter().chain(texts.into_iter().map(Cell::text));
            Row { key: format!("{n:032x}"), cells: cells.collect() }
        };
        (0..count).map(row).collect()
    }

    fn state(width: u16, height: u16, count: usize) -> State {
        let mut state = State::fixture(width, height);
        update(&mut state, Message::Stories(rows(count)));
        state
    }

    fn terminal(state: &State, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| render(state, frame.area(), frame.buffer_mut())).unwrap();
        terminal
    }

    fn screen(state: &State, width: u16, height: u16) -> Vec<String> {
        let terminal = terminal(state, width, height);
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn list_fits_80_columns_and_40() {
        let mut state = state(80, 24, 30);
        let lines = screen(&state, 80, 24);
        assert_eq!(
            lines[0],
            format!("{:66}127.0.0.1:7600", "1 stories 30  2 agents 0  3 losses 0")
        );
        assert_eq!(lines[1], "  SEVERITY   STATE   SINCE                 EVENTS   NAME");
        assert!(
            lines[2].starts_with("> error      open    2026-11-30 10:00:00Z  12       story 0 of")
        );
        assert!(lines[22].contains("story 20 ") && lines[23].starts_with("? help  q quit  Enter"));
        update(&mut state, Message::Resize(40, 10));
        let lines = screen(&state, 40, 10);
        assert_eq!(lines[0], "1 stories 30  2 agents 0  3 losses 0");
        assert_eq!(lines[1], "  SEVERITY   STATE   NAME");
        assert!(lines[2].ends_with('…') && lines[2].contains("story 0 of"), "{}", lines[2]);
        assert!(!lines.concat().contains(['\u{1b}', '\u{202e}']));
    }

    #[test]
    fn every_size_can_be_drawn() {
        let mut state = state(80, 24, 5);
        let away = Message::Away { since_ns: 1, cause: "no route ".repeat(20) };
        update(&mut state, away);
        for keys in ["", "/", "\u{1b}?", " \n"] {
            for c in keys.chars() {
                let key = match c {
                    '\n' => Key::Enter,
                    '\u{1b}' => Key::Escape,
                    c => Key::Char(c),
                };
                update(&mut state, Message::Key(key));
            }
            for (width, height) in (0..12).flat_map(|n| [(n, n), (80, n), (n, 24)]) {
                update(&mut state, Message::Resize(width, height));
                let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
                render(&state, buffer.area, &mut buffer);
                // A terminal that has another size than the last message reported.
                let mut buffer = Buffer::empty(Rect::new(0, 0, 3, 2));
                render(&state, buffer.area, &mut buffer);
            }
        }
    }

    #[test]
    fn selection_and_severity_need_no_colour() {
        let mut state = state(80, 24, 2);
        let with = |state: &State| {
            let terminal = terminal(state, 80, 24);
            let buffer = terminal.backend().buffer().clone();
            (buffer[(0, 2)].modifier, buffer[(2, 3)].fg, buffer[(2, 3)].symbol().to_owned())
        };
        let (modifier, colour, symbol) = with(&state);
        assert!(modifier.contains(Modifier::REVERSED));
        assert_eq!((colour, symbol.as_str()), (Color::Reset, "e"));
        state.palette.has_colour = true;
        assert_eq!(with(&state).1, Color::Red);
    }

    #[test]
    fn server_that_is_away_and_empty_lists_are_named() {
        let mut state = state(80, 24, 0);
        assert!(screen(&state, 80, 24)[2].contains("no stories yet"));
        update(&mut state, Message::Away { since_ns: 1_000_000_000, cause: "refused\u{7}".into() });
        let lines = screen(&state, 80, 24);
        assert!(lines[0].ends_with("server away"));
        assert_eq!(
            lines[22],
            "server away since 1970-01-01 00:00:01Z, retrying: refused·".to_owned()
        );
        update(&mut state, Message::Stories(rows(3)));
        update(&mut state, Message::Key(Key::Char('/')));
        update(&mut state, Message::Key(Key::Char('%')));
        let lines = screen(&state, 80, 24);
        assert!(lines[1].ends_with("/% 0 of 3") && lines[2].contains("nothing matches \"%\""));
        assert_eq!(lines[23], "/%_");
    }

    #[test]
    fn document_has_a_title_and_its_place() {
        let mut state = state(60, 8, 1);
        update(&mut state, Message::Key(Key::Char('e')));
        assert!(screen(&state, 60, 8)[2].contains("loading"));
        let event = serde_json::json!({"message": "a\u{1b}]0;title\u{7}", "kind": "log"});
        let content = Content::Events { events: vec![event], has_more: false };
        let request = Request::Events(format!("{:032x}", 0));
        update(&mut state, Message::Answer(request, Ok(content)));
        let lines = screen(&state, 60, 8);
        assert_eq!(lines[1], "events of story 000000000000  1-1/1");
        assert!(lines[2].ends_with("log a·]0;title·"), "{lines:?}");
    }
}
