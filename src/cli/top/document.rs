//! A story, its explanation, its events, or an agent, as lines on the screen.

use std::fmt::Write as _;

use ratatui::text::Line;

use super::message::{Content, Request};
use super::styled::{self, Palette};
use crate::cli::agents::print_agent;
use crate::cli::event_line::event_line;
use crate::cli::output::{Printer, Style, plain};
use crate::cli::query::explain::explanation;
use crate::cli::query::view;

/// Digits of an id in a title.
const ID_DIGITS: usize = 12;

/// Something that is shown in place of the list.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) request: Request,
    content: Option<Content>,
    /// Why the last request failed.
    error: Option<String>,
    lines: Vec<Line<'static>>,
    /// The width for which the lines are.
    width: usize,
    height: usize,
    /// Lines above the screen.
    offset: usize,
    /// The line that a search has found last, until the document is scrolled.
    found: Option<usize>,
}

impl Document {
    pub(super) fn new(request: Request) -> Self {
        let (lines, content) = (Vec::new(), None);
        let (width, height, offset) = (0, 1, 0);
        Self { request, content, error: None, lines, width, height, offset, found: None }
    }

    /// Whether it has the content of the latest request.
    pub(super) fn is_complete(&self) -> bool {
        self.content.is_some() && self.error.is_none()
    }

    /// Takes the answer to its request. After an error, it keeps the content that it has.
    pub(super) fn set_answer(&mut self, answer: Result<Content, String>) {
        match answer {
            Ok(content) => (self.content, self.error) = (Some(content), None),
            Err(error) => self.error = Some(plain(&error)),
        }
        self.width = 0;
    }

    /// Fits it to the screen.
    pub(super) fn fit(&mut self, width: usize, height: usize, style: &Style, palette: Palette) {
        self.height = height.max(1);
        if self.width != width.max(1) {
            self.width = width.max(1);
            let style = style.coloured(self.width);
            let text = self.text(&style);
            self.lines = styled::lines(&style.encode(&text), self.width, palette);
        }
        self.clamp();
    }

    /// Its title: a noun and a name.
    pub(super) fn title(&self) -> String {
        let short = |id: &String| id.get(..ID_DIGITS).unwrap_or(id).to_owned();
        match &self.request {
            Request::Story(id) => format!("story {}", short(id)),
            Request::Explanation(id) => format!("explanation of story {}", short(id)),
            Request::Events(id) => format!("events of story {}", short(id)),
            Request::Agent(node) => format!("agent of {}", plain(node)),
        }
    }

    /// The lines on the screen, and their place: `1-20/45`.
    pub(super) fn place(&self) -> String {
        let last = (self.offset + self.height).min(self.lines.len());
        let first = (self.offset + 1).min(last);
        format!("{first}-{last}/{}", self.lines.len())
    }

    /// The lines on the screen, each with whether a search has found it.
    pub(super) fn visible(&self) -> impl Iterator<Item = (&Line<'static>, bool)> {
        let lines = self.lines.iter().enumerate().skip(self.offset).take(self.height);
        lines.map(|(place, line)| (line, self.found == Some(place)))
    }

    /// Scrolls by this many lines, at most to the first or the last ones.
    pub(super) fn scroll_by(&mut self, lines: isize) {
        self.offset = self.offset.saturating_add_signed(lines);
        self.found = None;
        self.clamp();
    }

    fn clamp(&mut self) {
        self.offset = self.offset.min(self.lines.len().saturating_sub(self.height));
    }

    pub(super) fn scroll_by_pages(&mut self, pages: isize) {
        let lines = isize::try_from(self.height.saturating_sub(1).max(1)).unwrap_or(1);
        self.scroll_by(pages.saturating_mul(lines));
    }

    /// Scrolls to the next line with this text, in upper or lower case: from the line that was
    /// found last, else from the first one on the screen, and from the end on at the beginning.
    /// Returns whether there is one.
    pub(super) fn find(&mut self, text: &str) -> bool {
        let text = text.to_lowercase();
        let count = self.lines.len();
        let first = self.found.map_or(self.offset, |found| found + 1);
        let mut places = (0..count).map(|distance| (first + distance) % count);
        let has_text =
            |place: &usize| self.lines[*place].to_string().to_lowercase().contains(&text);
        let Some(place) = places.find(has_text) else { return false };
        (self.offset, self.found) = (place, Some(place));
        self.clamp();
        true
    }

    fn text(&self, style: &Style) -> String {
        let mut text = match &self.error {
            Some(error) => format!("{}\n\n", style.paint(error, crate::cli::output::YELLOW)),
            None => String::new(),
        };
        match &self.content {
            Some(content) => text.push_str(&content_text(&self.request, content, style)),
            None if self.error.is_none() => text.push_str("loading …"),
            None => {}
        }
        text
    }
}

fn content_text(request: &Request, content: &Content, style: &Style) -> String {
    let printed = match (content, request) {
        (Content::Story(found), Request::Explanation(_)) => Ok(explanation(&found.linked, style)),
        (Content::Story(found), _) => {
            Printer::capture(style.clone(), |printer| view::print_story(printer, found))
        }
        (Content::Agent(agent), _) => {
            Printer::capture(style.clone(), |printer| print_agent(printer, agent))
        }
        (Content::Events { events, has_more }, _) => Ok(events_text(events, *has_more, style)),
    };
    // Memory takes all that is printed.
    printed.unwrap_or_else(|error| plain(&error.to_string()))
}

fn events_text(events: &[serde_json::Value], has_more: bool, style: &Style) -> String {
    let mut text = String::new();
    if has_more {
        // Writing to a string can't fail.
        let _ = writeln!(text, "… older events: tapio events --trace-id");
    }
    for event in events {
        let _ = writeln!(text, "{}", event_line(event, style));
    }
    if events.is_empty() {
        text.push_str("no events: the server doesn't keep them any more");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PALETTE: Palette = Palette { has_colour: false };

    fn document(count: usize) -> Document {
        let event =
            |n| json!({"kind": "log", "source": "test", "message": format!("m{n}\u{1b}[2J")});
        let mut document = Document::new(Request::Events("abc".into()));
        document.set_answer(Ok(Content::Events {
            events: (0..count).map(event).collect(),
            has_more: false,
        }));
        document.fit(80, 3, &Style::bare(), PALETTE);
        document
    }

    fn visible(document: &Document) -> String {
        document.visible().map(|(line, _)| line.to_string()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn document_scrolls_within_its_lines() {
        let mut document = document(10);
        assert!(visible(&document).contains("m0·[2J") && !visible(&document).contains('\u{1b}'));
        assert_eq!(document.place(), "1-3/10");
        document.scroll_by(-1);
        document.scroll_by_pages(1);
        assert_eq!(document.place(), "3-5/10");
        document.scroll_by(isize::MAX);
        assert_eq!(document.place(), "8-10/10");
        document.fit(80, 30, &Style::bare(), PALETTE);
        assert_eq!(document.place(), "1-10/10");
        document.fit(10, 0, &Style::bare(), PALETTE);
        assert_eq!(document.visible().count(), 1);
    }

    #[test]
    fn search_goes_on_from_the_line_that_was_found() {
        let mut document = document(10);
        assert!(document.find("M4") && document.place() == "5-7/10");
        assert!(document.find("m") && document.place() == "6-8/10");
        let found = |document: &Document| document.visible().position(|(_, is_found)| is_found);
        assert_eq!(found(&document), Some(0));
        document.find("m8");
        assert!(document.find("m") && found(&document) == Some(2), "also in the last lines");
        document.scroll_by(-1);
        assert_eq!(found(&document), None);
        assert!(document.find("m0") && document.place() == "1-3/10");
        assert!(!document.find("absent"));
        assert!(!Document::new(Request::Agent("n".into())).find("a"), "without lines");
    }

    #[test]
    fn error_is_shown_above_the_content() {
        let mut document = document(1);
        document.set_answer(Err("away\u{7}".into()));
        document.fit(80, 9, &Style::bare(), PALETTE);
        assert!(visible(&document).starts_with("away·\n\n"), "{}", visible(&document));
        assert!(visible(&document).contains("m0") && !document.is_complete());
    }
}
