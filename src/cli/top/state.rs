//! The state of the screen.

use ratatui::text::Line;

use super::document::Document;
use super::list::List;
use super::message::{Effect, Request};
use super::rows::{AGENTS, LOSSES, STORIES};
use super::styled::{self, Palette};
use crate::cli::output::{BOLD, DIM, Style, YELLOW, plain};

/// Lines of a footer that are shown.
const MAX_FOOTER: usize = 4;
/// Keys that are named at the bottom of a list, and of a document.
const LIST_KEYS: &str = "? help  q quit  Enter open  / search  s sort  r reverse  e events  x explain  y copy id  o URL";
const DOCUMENT_KEYS: &str =
    "Esc back  ? help  q quit  / search  n next  e events  x explain  y copy id  o URL";
/// Lines of the help.
const HELP: &str = "\
Tab, 1, 2, 3       stories, agents, losses
j, k, arrows       down, up; also PgDn, PgUp
g, G               first, last
Enter              open the selected story or agent
e                  events of the story
x                  explain: every term of its root causes
y                  copy the id to the clipboard (OSC 52)
o                  print the URL of the story's page
/                  search; Esc ends it; n: next, in a story
s, r               sort by the next column; reverse
Esc, Backspace     back
Ctrl-L, Ctrl-Z     draw again; suspend
q, Ctrl-C          quit

NEW are losses since this command was started.";

/// A list that can be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum View {
    /// The stories that changed last
    Stories,
    /// The agents
    Agents,
    /// The losses of each collector, by stage and reason
    Losses,
}

impl View {
    pub(super) const ALL: [Self; 3] = [Self::Stories, Self::Agents, Self::Losses];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stories => "stories",
            Self::Agents => "agents",
            Self::Losses => "losses",
        }
    }

    /// The columns of its list.
    pub(super) fn columns(self) -> &'static [crate::cli::output::Column] {
        match self {
            Self::Stories => STORIES,
            Self::Agents => AGENTS,
            Self::Losses => LOSSES,
        }
    }

    /// The text in place of an empty list.
    pub(super) fn empty(self) -> &'static str {
        match self {
            Self::Stories => "no stories yet; `sudo tapio demo` causes some on a machine",
            Self::Agents => "no agent has sent anything to this server",
            Self::Losses => "no losses",
        }
    }
}

/// Where the server is, for the title and for addresses of pages.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    pub(super) server: String,
    /// Without a slash at its end.
    pub(super) web: String,
}

/// The state of the screen.
pub(super) struct State {
    pub(super) addresses: Addresses,
    pub(super) style: Style,
    pub(super) palette: Palette,
    width: usize,
    height: usize,
    pub(super) view: View,
    /// In the order of [`View::ALL`].
    lists: [List; 3],
    /// Documents, each opened from the one before.
    pub(super) documents: Vec<Document>,
    /// The text of a search that is being typed.
    pub(super) prompt: Option<String>,
    /// The last text that was searched in a document.
    pub(super) sought: String,
    pub(super) is_help: bool,
    /// An answer to the last key.
    pub(super) notice: Option<String>,
    /// The time since which the server is away (ns since the Unix epoch), and why.
    pub(super) away: Option<(u64, String)>,
}

impl State {
    /// The state for a terminal of this size. `style` has the time zone, and whether there are
    /// colours.
    pub(super) fn new(addresses: Addresses, view: View, style: &Style, size: (u16, u16)) -> Self {
        // The text of documents has its codes in any case: without colours, they are weights.
        let palette = Palette { has_colour: style.colour };
        let mut new = Self {
            addresses,
            style: style.coloured(size.0.into()),
            palette,
            width: size.0.into(),
            height: size.1.into(),
            view,
            lists: View::ALL.map(|view| List::new(view.columns())),
            documents: Vec::new(),
            prompt: None,
            sought: String::new(),
            is_help: false,
            notice: None,
            away: None,
        };
        new.fit();
        new
    }

    pub(super) fn list(&self, view: View) -> &List {
        &self.lists[view as usize]
    }

    pub(super) fn list_mut(&mut self, view: View) -> &mut List {
        &mut self.lists[view as usize]
    }

    pub(super) fn resize(&mut self, columns: u16, rows: u16) {
        (self.width, self.height) = (columns.into(), rows.into());
    }

    /// Fits the lists and documents to the screen, after each change.
    pub(super) fn fit(&mut self) {
        // Title and heading.
        let height = self.height.saturating_sub(2 + self.footer().len());
        self.lists.iter_mut().for_each(|list| list.set_height(height));
        for document in &mut self.documents {
            document.fit(self.width, height, &self.style, self.palette);
        }
    }

    /// The lines at the bottom: that the server is away, then the search, an answer or the keys.
    pub(super) fn footer(&self) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        let mut add = |text: &str| {
            let text = self.style.encode(text);
            lines.extend(styled::lines(&text, self.width, self.palette));
        };
        if let Some((since_ns, cause)) = &self.away {
            let since = self.style.time_to_second(*since_ns);
            let text = format!("server away since {since}, retrying: {}", plain(cause));
            add(&self.style.paint(&text, YELLOW));
        }
        if let Some(text) = &self.prompt {
            add(&self.style.paint(&format!("/{}_", plain(text)), BOLD));
        } else if let Some(notice) = &self.notice {
            add(&plain(notice));
        } else {
            let keys = if self.documents.is_empty() { LIST_KEYS } else { DOCUMENT_KEYS };
            // On a narrow terminal the first ones.
            let mut line = String::new();
            for key in keys.split("  ") {
                let gap = if line.is_empty() { "" } else { "  " };
                if line.len() + gap.len() + key.len() > self.width {
                    break;
                }
                line = line + gap + key;
            }
            add(&self.style.paint(&line, DIM));
        }
        lines.truncate(MAX_FOOTER.min(self.height / 2));
        lines
    }

    /// The lines of the help.
    pub(super) fn help(&self) -> Vec<Line<'static>> {
        styled::lines(HELP, self.width, self.palette)
    }

    /// The document on the screen.
    pub(super) fn document(&self) -> Option<&Document> {
        self.documents.last()
    }

    pub(super) fn document_mut(&mut self) -> Option<&mut Document> {
        self.documents.last_mut()
    }

    /// Shows a document: again, if it is open already.
    pub(super) fn open(&mut self, request: Request) -> Vec<Effect> {
        let place = self.documents.iter().position(|document| document.request == request);
        if let Some(place) = place {
            self.documents.truncate(place + 1);
            return Vec::new();
        }
        self.documents.push(Document::new(request.clone()));
        vec![Effect::Request(request)]
    }

    /// The id of the story on the screen, or of the selected one.
    pub(super) fn story(&self) -> Option<String> {
        match self.document() {
            Some(document) => document.request.story().map(str::to_owned),
            None if self.view == View::Stories => self.selected_key(),
            None => None,
        }
    }

    /// The key of the selected row.
    pub(super) fn selected_key(&self) -> Option<String> {
        self.list(self.view).selected().map(|row| row.key.clone())
    }
}

#[cfg(test)]
impl State {
    /// A state without colours, in UTC.
    pub(super) fn fixture(width: u16, height: u16) -> Self {
        let addresses =
            Addresses { server: "127.0.0.1:7600".into(), web: "http://127.0.0.1:7601".into() };
        Self::new(addresses, View::Stories, &Style::bare(), (width, height))
    }
}
