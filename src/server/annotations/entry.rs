//! One line of the file of annotations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use tapio_core::event::TraceId;

/// An action of an operator. Ids of stories are hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum Action {
    /// Somebody works on the story.
    Acknowledge { story: String },
    /// Nobody does any more.
    Unacknowledge { story: String },
    /// A remark.
    Note { story: String, text: String },
    /// The first root cause isn't the real one, which `cause` names if it is known.
    WrongCause {
        story: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        cause: String,
    },
    /// It is, after all.
    RightCause { story: String },
    /// Stories of a rule are silenced until a time; with a key, only those whose join key has it.
    Silence {
        id: String,
        rule: String,
        #[serde(default)]
        key: BTreeMap<String, String>,
        until_ns: u64,
        #[serde(default)]
        reason: String,
    },
    /// Ends a silence.
    Unsilence { id: String },
}

impl Action {
    /// The story that it is about; empty for silences.
    pub(super) fn story(&self) -> &str {
        match self {
            Self::Acknowledge { story }
            | Self::Unacknowledge { story }
            | Self::Note { story, .. }
            | Self::WrongCause { story, .. }
            | Self::RightCause { story } => story,
            Self::Silence { .. } | Self::Unsilence { .. } => "",
        }
    }
}

/// An action, by whom and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Nanoseconds since the Unix epoch.
    pub(crate) time_ns: u64,
    /// The sender's name where senders authenticate themselves, else the one that it gave.
    #[serde(default)]
    pub(crate) by: String,
    #[serde(flatten)]
    pub(crate) action: Action,
}

impl Entry {
    /// The id of the story that it is about; `None` for silences.
    pub(super) fn story(&self) -> Option<TraceId> {
        self.action.story().parse().ok()
    }
}
