//! The messages between the parts.

use serde_json::Value as Json;

use super::list::Row;
use crate::cli::query::annotated::Annotated;

/// A key, as far as it has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Tab,
    BackTab,
    Backspace,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L.
    Redraw,
}

/// Something that is requested from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The story with this id.
    Story(String),
    /// The story with every term of its root causes.
    Explanation(String),
    /// The events of the story's trace.
    Events(String),
    /// The agent of this node.
    Agent(String),
}

impl Request {
    /// The id of the story that it is about.
    pub(super) fn story(&self) -> Option<&str> {
        match self {
            Self::Story(id) | Self::Explanation(id) | Self::Events(id) => Some(id),
            Self::Agent(_) => None,
        }
    }
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Content {
    Story(Box<Annotated>),
    /// Events as the API has them, oldest first, and whether there are older ones.
    Events {
        events: Vec<Json>,
        has_more: bool,
    },
    Agent(Json),
}

/// A change of the state's surroundings.
#[derive(Debug)]
pub(super) enum Message {
    Key(Key),
    /// Text that was pasted.
    Paste(String),
    /// The size of the terminal: columns and rows.
    Resize(u16, u16),
    /// The stories, last updated first.
    Stories(Vec<Row>),
    Agents {
        agents: Vec<Row>,
        losses: Vec<Row>,
    },
    Answer(Request, Result<Content, String>),
    /// The server can't be reached since this time (ns since the Unix epoch), and why.
    Away {
        since_ns: u64,
        cause: String,
    },
    /// The server answers again.
    Back,
    /// A signal, or the end of the terminal.
    Quit,
}

/// Something that the state demands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Request(Request),
    /// Copy this text to the clipboard of the terminal.
    Copy(String),
    Redraw,
    Suspend,
    Quit,
}
